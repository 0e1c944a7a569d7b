//! A door, and clients at it.

use bytes::Bytes;
use deputize_issuer::{
    clock::{Clock, TestClock},
    entry::Entry,
};
use deputize_workload_api::{
    Limits, WorkloadApi, bind,
    fakes::{FakeProcess, FakeReception, FakeSource, entry},
    proto::{X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient},
    reception::Reception,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use spiffe::{SpiffeId, TrustDomain};
use std::{
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::UnixStream, sync::watch, task::JoinHandle};
use tonic::{Request, Streaming, body::Body};

pub const NODE: &str = "spiffe://example.org/node";
pub const USER: u32 = 7;

pub type Client = SpiffeWorkloadApiClient<Wire>;

/// A door with everything behind it a fake.
pub struct Door {
    pub clock: Arc<TestClock>,
    pub source: Arc<FakeSource>,
    pub process: Arc<FakeProcess>,
    pub reception: Arc<FakeReception>,
    pub path: PathBuf,
    pub stop: watch::Sender<bool>,
    pub served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub fn open() -> Door {
    open_with(Limits::default())
}

pub fn open_with(limits: Limits) -> Door {
    let process = Arc::new(FakeProcess::new(SpiffeId::new(NODE).unwrap(), USER));
    let reception = Arc::new(FakeReception::new(Arc::clone(&process)));
    open_behind(Arc::clone(&reception) as _, (process, reception), limits)
}

/// A door at which another reception is.
pub fn open_in_front_of(reception: Arc<dyn Reception>) -> Door {
    let process = Arc::new(FakeProcess::new(SpiffeId::new(NODE).unwrap(), USER));
    let unused = Arc::new(FakeReception::new(Arc::clone(&process)));
    open_behind(reception, (process, unused), Limits::default())
}

fn open_behind(
    at_door: Arc<dyn Reception>,
    (process, reception): (Arc<FakeProcess>, Arc<FakeReception>),
    limits: Limits,
) -> Door {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let clock = Arc::new(TestClock::at_seconds(1_800_000_000));
    let domain = TrustDomain::new("example.org").unwrap();
    let source = Arc::new(FakeSource::new(domain, Arc::clone(&clock) as Arc<dyn Clock>).unwrap());
    let api = WorkloadApi::new(Arc::clone(&source) as _, at_door, Arc::clone(&clock) as _, limits);
    let stop = watch::Sender::new(false);
    let served = tokio::spawn(api.serve(bind(&path).unwrap(), stop.subscribe()));
    Door { clock, source, process, reception, path, stop, served, _folder: folder }
}

/// A door with one entry for whoever knocks.
pub fn open_with_entry() -> Door {
    let door = open();
    door.source.set_entries(vec![web()]);
    door
}

pub fn web() -> Entry {
    entry("web", "spiffe://example.org/web", NODE, USER).unwrap()
}

impl Door {
    pub async fn client(&self) -> Client {
        let origin = http::Uri::from_static("http://localhost");
        SpiffeWorkloadApiClient::with_origin(Wire::connect(&self.path).await, origin)
    }

    /// Tries once, on a connection of its own, to be told a state.
    pub async fn try_x509(&self) -> Option<X509svidResponse> {
        let wire = Wire::try_connect(&self.path).await.ok()?;
        let mut client =
            SpiffeWorkloadApiClient::with_origin(wire, http::Uri::from_static("http://localhost"));
        let mut stream = client.fetch_x509svid(secured(X509svidRequest {})).await.ok()?.into_inner();
        stream.message().await.ok()?
    }

    /// Tries again and again.
    pub async fn is_served_soon(&self) {
        for _ in 0..500 {
            if self.try_x509().await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody gets in");
    }

    pub async fn x509(&self) -> Streaming<X509svidResponse> {
        self.client().await.fetch_x509svid(secured(X509svidRequest {})).await.unwrap().into_inner()
    }
}

/// A request with the metadata that the specification demands.
pub fn secured<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// One connection.
#[derive(Clone)]
pub struct Wire(hyper::client::conn::http2::SendRequest<Body>);

impl Wire {
    pub async fn connect(path: &Path) -> Self {
        Self::try_connect(path).await.unwrap()
    }

    async fn try_connect(path: &Path) -> hyper::Result<Self> {
        Self::over(UnixStream::connect(path).await.unwrap()).await
    }

    pub async fn over(stream: UnixStream) -> hyper::Result<Self> {
        let stream = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }
}

impl tower::Service<http::Request<Body>> for Wire {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The next state of a stream, which must come soon.
pub async fn next<M>(stream: &mut Streaming<M>) -> Result<M, tonic::Status> {
    let next =
        tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("no state in time");
    next.map(|message| message.expect("the stream ended without a word"))
}

/// Waits for what must come soon.
pub async fn in_time(coming: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(20), coming).await.expect("it does not come");
}

/// The key of the only SVID in a state.
pub fn key(state: &X509svidResponse) -> Bytes {
    assert_eq!(state.svids.len(), 1);
    state.svids[0].x509_svid_key.clone()
}
