//! The endpoint (SPIFFE Workload Endpoint §3): who connects, what is asked of every call, and when it ends.

use bytes::Bytes;
use deputize_issuer::clock::Clock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};
use tonic::{body::Body, service::Routes};
use tower::Service;

use crate::{
    authority::Repaired,
    error::Refused,
    exchange::{self, Exchanges},
    held::Held,
    proto::{
        DESCRIPTOR, EXCHANGE_DESCRIPTOR, exchange::delegated_exchange_server::DelegatedExchangeServer,
        secrets::secret_discovery_service_server::SecretDiscoveryServiceServer,
        spiffe_workload_api_server::SpiffeWorkloadApiServer,
    },
    reception::{Guest, Reception},
    room::{Kind, Limits, Place, Room},
    rpc::{Api, Caller, Methods},
    sds::{Secrets, Shares},
    source::SvidSource,
};

/// The SPIFFE Workload API.
pub struct WorkloadApi {
    api: Arc<Api>,
    reception: Arc<dyn Reception>,
}

impl WorkloadApi {
    /// An endpoint that gives what this source has to the processes that this reception lets in.
    pub fn new(
        source: Arc<dyn SvidSource>,
        reception: Arc<dyn Reception>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        let held = Arc::new(Held::new(Arc::clone(&source), Arc::clone(&clock)));
        let room = Room::new(limits.within_descriptors(), Arc::clone(&clock));
        let api = Arc::new(Api { source, clock, held, bundled: Default::default(), room });
        Self { api, reception }
    }

    /// Serves until `stop` turns true. Open streams are told then that the server is away (`Unavailable`), and what
    /// does not end by itself is ended.
    pub async fn serve(self, listener: UnixListener, mut stop: watch::Receiver<bool>) {
        let routes = routes(&self.api);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some(visit) = self.receive(stream, &routes, &stop) {
                        connections.spawn(visit.attend());
                    }
                }
                // Out of file descriptors, most likely: breathe, so that the loop does not spin.
                Err(_) => tokio::time::sleep(BREATH).await,
            }
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.api.room.limits().drain, ended).await.is_err() {
            tracing::warn!("drain of the workload api timed out with connections open");
        }
        connections.shutdown().await;
    }

    /// Whoever is not let in finds the connection closed, and may try again.
    fn receive(&self, stream: UnixStream, routes: &Routes, stop: &watch::Receiver<bool>) -> Option<Visit> {
        let refused = |why: &'static str| {
            metrics::counter!("deputize_workload_connections_refused_total", "reason" => why).increment(1);
        };
        let Guest { process, stream } = match self.reception.receive(stream) {
            Ok(guest) => guest,
            Err(why) => {
                tracing::debug!(%why, "a connection to the workload api was not taken");
                refused("not_attested");
                return None;
            }
        };
        let Some(place) = self.api.room.enter(process.user(), Kind::Connection) else {
            refused("busy");
            return None;
        };
        let caller = Caller { process, stop: stop.clone(), known: Arc::new(Mutex::new(None)) };
        let room = Arc::clone(&self.api.room);
        Some(Visit { stream: Repaired::new(stream), caller, routes: routes.clone(), room, _place: place })
    }
}

/// One connection.
struct Visit {
    stream: Repaired<Box<dyn crate::reception::Stream>>,
    caller: Caller,
    routes: Routes,
    room: Arc<Room>,
    _place: Place,
}

impl Visit {
    async fn attend(self) {
        let Self { stream, caller, routes, room, _place } = self;
        let (process, mut stop) = (Arc::clone(&caller.process), caller.stop.clone());
        let limits = room.limits().clone();
        let calls = watch::Sender::new(0);
        let begun = calls.clone();
        let service = service_fn(move |request| {
            let admitted =
                admit(&request, &room, &caller).map(|places| UnderWay::begin(places, &request, &begun));
            let (routes, caller) = (routes.clone(), caller.clone());
            async move {
                Ok::<_, Infallible>(match admitted {
                    Ok(call) => answer(request, caller, routes, call).await,
                    Err(refused) => refused.into_response(),
                })
            }
        });
        let connection = http2_settings(&limits).serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut silence = pin!(silent(calls.subscribe(), limits.silence));
        let mut is_ending = false;
        loop {
            tokio::select! {
                // What a client does wrong ends its own connection; there is nobody to tell.
                _ = &mut connection => return,
                // What is sent from now on, another process sends.
                () = process.gone() => return,
                _ = stop.wait_for(|stop| *stop), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut silence => {
                    if is_ending {
                        return;
                    }
                    // Told first (GOAWAY), so that a call that is on its way is not lost; but not waited for long.
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                    silence.set(silent(calls.subscribe(), limits.drain.min(limits.silence)));
                }
            }
        }
    }
}

/// Waits until no call has been under way for so long.
async fn silent(mut calls: watch::Receiver<usize>, so_long: Duration) {
    loop {
        let changed = if *calls.borrow_and_update() == 0 {
            match tokio::time::timeout(so_long, calls.changed()).await {
                Ok(changed) => changed,
                Err(_) => return,
            }
        } else {
            calls.changed().await
        };
        // Nobody is left who could begin one.
        if changed.is_err() {
            return;
        }
    }
}

/// A call that was let in.
struct UnderWay {
    _places: Places,
    /// Of its connection, if it keeps that open.
    calls: Option<watch::Sender<usize>>,
}

impl UnderWay {
    /// Only the methods and secrets keep a connection open: who is entitled to nothing cannot keep one of them. Reflection
    /// is anybody's.
    fn begin<B>(places: Places, request: &http::Request<B>, calls: &watch::Sender<usize>) -> Self {
        let path = request.uri().path();
        let is_ours = longest_message(path).is_some() || path == STREAM_OF_SECRETS;
        let calls = Some(calls).filter(|_| is_ours).cloned();
        if let Some(calls) = &calls {
            calls.send_modify(|calls| *calls += 1);
        }
        Self { _places: places, calls }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(calls) = &self.calls {
            calls.send_modify(|calls| *calls -= 1);
        }
    }
}

/// The place of a call; of an exchange another one besides, for its messages are long.
type Places = (Place, Option<Place>);

/// What is asked of every call, before it is looked at.
fn admit<B>(request: &http::Request<B>, room: &Arc<Room>, caller: &Caller) -> Result<Places, Refused> {
    // SPIFFE Workload Endpoint §3: without it this may be a request that somebody else was made to send. Secrets are not
    // part of the Workload API, but they are the same keys.
    let mut headers = request.headers().get_all(SECURITY_HEADER).iter();
    let is_marked =
        headers.next().map(http::HeaderValue::as_bytes) == Some(b"true") && headers.next().is_none();
    if !is_marked {
        return Err(Refused::NoHeader);
    }
    if *caller.stop.borrow() {
        return Err(Refused::Stopping);
    }
    let enter = |kind| room.enter(caller.process.user(), kind).ok_or(Refused::Busy);
    let is_exchange = request.uri().path().starts_with(EXCHANGES);
    Ok((enter(Kind::Call)?, is_exchange.then(|| enter(Kind::Exchange)).transpose()?))
}

/// How long the one message may be that this method takes; nothing for what is none of ours.
fn longest_message(path: &str) -> Option<usize> {
    match path {
        path if path.starts_with(METHODS) => Some(MAX_REQUEST_BYTES),
        path if path.starts_with(EXCHANGES) => Some(exchange::MAX_REQUEST_BYTES),
        path if path.starts_with(SECRETS) && path != STREAM_OF_SECRETS => Some(MAX_REQUEST_BYTES),
        _ => None,
    }
}

async fn answer(
    request: http::Request<Incoming>,
    caller: Caller,
    mut routes: Routes,
    call: UnderWay,
) -> http::Response<Body> {
    let (mut parts, body) = request.into_parts();
    // None of these methods takes more than one message, so nobody waits long or gathers much for it. The stream of secrets
    // looks at who asks before it reads.
    let body = if let Some(most) = longest_message(parts.uri.path()) {
        match tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(body, most).collect()).await {
            Ok(Ok(whole)) => Body::new(Full::new(whole.to_bytes())),
            Ok(Err(_)) => {
                return Refused::Invalid("the request is too long, or was broken off").into_response();
            }
            Err(_) => return Refused::Invalid("the request was not sent in time").into_response(),
        }
    } else {
        Body::new(body)
    };
    parts.extensions.insert(caller);
    let Ok(response) = routes.call(http::Request::from_parts(parts, body)).await;
    response.map(|body| Body::new(Placed { body, _call: call }))
}

/// An answer that keeps its place until it is told, or nobody listens any more.
struct Placed {
    body: Body,
    _call: UnderWay,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = crate::error::Answered;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The methods, and what tells of them (SPIFFE Workload Endpoint §7: reflection).
fn routes(api: &Arc<Api>) -> Routes {
    let methods = SpiffeWorkloadApiServer::new(Methods(Arc::clone(api)));
    let exchanges = DelegatedExchangeServer::new(Exchanges(Arc::clone(api)));
    let secrets =
        SecretDiscoveryServiceServer::new(Secrets { api: Arc::clone(api), shares: Shares::default() });
    let mut routes = Routes::new(methods.max_decoding_message_size(MAX_REQUEST_BYTES))
        .add_service(exchanges.max_decoding_message_size(exchange::MAX_REQUEST_BYTES))
        .add_service(secrets.max_decoding_message_size(MAX_SECRETS_REQUEST_BYTES));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR)
            .register_encoded_file_descriptor_set(EXCHANGE_DESCRIPTOR)
    };
    // The descriptor is in the program: a test shows that it can be read.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        routes = routes
            .add_service(v1.max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(v1alpha.max_decoding_message_size(MAX_REQUEST_BYTES));
    }
    routes.prepare()
}

fn http2_settings(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_send_buf_size(MAX_SEND_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

const SECURITY_HEADER: &str = "workload.spiffe.io";
const METHODS: &str = "/SpiffeWorkloadAPI/";
const EXCHANGES: &str = "/deputize.exchange.v1.DelegatedExchange/";
const SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/";
const STREAM_OF_SECRETS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
const BREATH: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A token to be validated has at most 16 KiB.
const MAX_REQUEST_BYTES: usize = 32 * 1024;
/// Envoy names all of its extensions in its first request.
const MAX_SECRETS_REQUEST_BYTES: usize = 256 * 1024;
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
const MAX_RESETS: usize = 20;
/// Of one stream, while its client does not read.
const MAX_SEND_BYTES: usize = 32 * 1024;
const WINDOW_BYTES: u32 = 64 * 1024;
