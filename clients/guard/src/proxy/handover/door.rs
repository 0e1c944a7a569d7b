//! The listener on loopback. Every process of this machine can reach it, and a browser's pages too: what is not exactly
//! a call's own question is refused, and an address that is wrong, past or of another secret is answered as one that
//! never was. Nobody keeps others out: who has not said a call's secret yet gives way to who comes after him, and of
//! those who have each call has its share.

use super::{Book, Call, PATH};
use bytes::Bytes;
use deputize_client::{AwsCredentials, ExchangeError};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use subtle::ConstantTimeEq as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep},
};

/// Serves until it is aborted; with it end the connections.
pub(super) async fn serve(listener: TcpListener, book: Arc<Book>) {
    let (mut connections, mut strangers) = (JoinSet::new(), Strangers::default());
    loop {
        while connections.try_join_next().is_some() {}
        strangers.make_room().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small, and are waited for.
                let _ = stream.set_nodelay(true);
                let known = Arc::new(AtomicBool::new(false));
                let task = connections.spawn(converse(stream, Arc::clone(&book), Arc::clone(&known)));
                strangers.add(task, known);
            }
            Err(error) => {
                tracing::warn!(%error, "connection for aws credentials not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Connections on which no call's secret was said yet, the oldest first.
#[derive(Default)]
struct Strangers(VecDeque<Stranger>);

struct Stranger {
    task: AbortHandle,
    known: Arc<AtomicBool>,
    /// How long he is left alone, however many wait.
    patience: Pin<Box<Sleep>>,
}

impl Strangers {
    fn add(&mut self, task: AbortHandle, known: Arc<AtomicBool>) {
        self.0.push_back(Stranger { task, known, patience: Box::pin(sleep(PATIENCE)) });
    }

    /// Lets the oldest go where there are too many. Who knows a secret says it at once, so no flood of connections
    /// keeps him out for longer than a moment.
    async fn make_room(&mut self) {
        self.forget();
        while self.0.len() >= MAX_STRANGERS {
            if let Some(oldest) = self.0.front_mut() {
                oldest.patience.as_mut().await;
            }
            self.forget();
            if self.0.len() >= MAX_STRANGERS
                && let Some(oldest) = self.0.pop_front()
            {
                oldest.task.abort();
            }
        }
    }

    fn forget(&mut self) {
        self.0.retain(|each| !each.task.is_finished() && !each.known.load(Ordering::Relaxed));
    }
}

/// One question, one answer. Whoever does not read his, or goes on asking, holds his place no longer for it.
async fn converse<S>(stream: S, book: Arc<Book>, known: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = service_fn(move |request: Request<Incoming>| {
        let (book, known) = (Arc::clone(&book), Arc::clone(&known));
        async move { Ok::<_, Infallible>(answer(&book, &request, &known).await) }
    });
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false);
    let serving = connection.serve_connection(TokioIo::new(stream), answering);
    match tokio::time::timeout(CONVERSATION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection for aws credentials broken off"),
        Err(_) => tracing::debug!("connection for aws credentials took too long"),
    }
}

async fn answer<B>(book: &Book, request: &Request<B>, known: &AtomicBool) -> Response<Full<Bytes>> {
    if let Some(status) = foreign(book, request) {
        return complaint(status, "Refused", "this address is for AWS SDKs of the call that it was made for");
    }
    let nothing = || complaint(404, "NotFound", "no such call is under way here");
    let path = request.uri().path_and_query().map(|path| path.as_str()).unwrap_or_default();
    let id = path.strip_prefix(PATH).unwrap_or_default();
    let Some(call) = book.find(id) else { return nothing() };
    if !is_told(&call, request.headers()) || call.credentials.check().is_err() {
        return nothing();
    }
    let Ok(_share) = call.questions.try_acquire() else {
        let mut response = complaint(503, "Busy", "the call asks too often at once");
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        return response;
    };
    known.store(true, Ordering::Relaxed);
    let credentials = call.credentials.get().await;
    // It may have taken a while. INVARIANT: an address gives nothing once its call has ended.
    if book.find(id).is_none() || call.credentials.check().is_err() {
        return nothing();
    }
    match credentials {
        Ok(credentials) => given(&credentials),
        Err(error) => refused(&error),
    }
}

/// What no SDK sends: a page's request, one under a name that was made to lead here, another method.
fn foreign<B>(book: &Book, request: &Request<B>) -> Option<u16> {
    let headers = request.headers();
    let own = book.address.to_string();
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_own = hosts.next().is_some_and(|host| host.as_bytes() == own.as_bytes()) && hosts.next().is_none();
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some(403);
    }
    if !is_own || request.uri().authority().is_some_and(|authority| authority.as_str() != own) {
        return Some(421);
    }
    (request.method() != Method::GET).then_some(405)
}

fn is_told(call: &Call, headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(said), None) = (said.next(), said.next()) else { return false };
    said.as_bytes().ct_eq(call.secret.as_bytes()).into()
}

fn given(credentials: &AwsCredentials) -> Response<Full<Bytes>> {
    response(200, Bytes::copy_from_slice(credentials.to_container_json().as_bytes()))
}

/// SDKs try again after 429 and 5xx, and not after other refusals.
fn refused(error: &ExchangeError) -> Response<Full<Bytes>> {
    let (status, code, pause) = match error {
        ExchangeError::RateLimited { retry_after_seconds, .. } => {
            (429, "Limited", Some(*retry_after_seconds))
        }
        ExchangeError::Unavailable { retry_after_seconds, .. } => {
            (503, "Unavailable", Some(*retry_after_seconds))
        }
        ExchangeError::Unreachable(_) => (503, "Unavailable", Some(None)),
        ExchangeError::Protocol(_) => (502, "Broken", None),
        _ => (403, "Denied", None),
    };
    let mut response = complaint(status, code, &error.to_string());
    if let Some(pause) = pause {
        response.headers_mut().insert(header::RETRY_AFTER, pause.unwrap_or(1).into());
    }
    response
}

fn complaint(status: u16, code: &str, message: &str) -> Response<Full<Bytes>> {
    let mut response = response(status, json!({ "code": code, "message": message }).to_string().into());
    if status == 405 {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

const MAX_STRANGERS: usize = 256;
/// Much longer than an SDK on this machine needs to say what it wants.
const PATIENCE: Duration = Duration::from_millis(250);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than reading the head and asking the broker can take, which is two questions of ten seconds: where to ask,
/// and what.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(45);
/// After an error of accepting, which is mostly a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{CredentialSource, proxy::tests::HandClock, tests::fixture::Fixture};
    use async_trait::async_trait;
    use deputize_client::AwsAsk;
    use tokio::{io::AsyncWriteExt as _, sync::Semaphore};

    /// Nobody asks it here.
    pub(in super::super) struct Silent;

    #[async_trait]
    impl CredentialSource for Silent {
        async fn ask(&self, _: &AwsAsk<'_>) -> Result<AwsCredentials, ExchangeError> {
            Err(ExchangeError::Protocol("nobody was to ask"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_reads_his_answer_holds_his_place_for_a_while_only() {
        let book = Arc::new(Book {
            guard: Arc::new(Fixture::new().guard),
            source: Arc::new(Silent),
            clock: Arc::new(HandClock::default()),
            address: ([127, 0, 0, 1], 1).into(),
            open: std::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(1)),
        });
        // The answer does not fit into it.
        let (mut client, stream) = tokio::io::duplex(64);
        let mut conversing = tokio::spawn(converse(stream, book, Arc::default()));
        client.write_all(b"GET /aws/x HTTP/1.1\r\nhost: 127.0.0.1:1\r\n\r\n").await.unwrap();
        let slowest_answer = HEADER_TIMEOUT + Duration::from_secs(20);
        let early = tokio::time::timeout(slowest_answer, &mut conversing).await;
        assert!(early.is_err(), "a slow broker is waited for");
        tokio::time::timeout(Duration::from_secs(3600), conversing).await.expect("it is let go").unwrap();
    }
}
