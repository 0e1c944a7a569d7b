//! The local side over HTTP (MCP, Streamable HTTP), for clients that cannot start a command. For programs of this
//! machine alone, and for those of them that know the secret of this start; a browser is never answered.

use super::{
    Connector,
    conversation::Conversation,
    headers,
    message::{Malformed, Manner, Message},
    outbox::{Outbox, Word},
};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    response::IntoResponse as _,
};
use deputize_call::digest::sha256;
use hyper::body::Frame;
use serde_json::json;
use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// What guards the door, and who is inside.
struct Front {
    connector: Arc<Connector>,
    /// SHA-256 of the secret: digests are compared, so that the time it takes says nothing of the secret.
    secret: [u8; 32],
    /// Where it listens: what `Host` may say.
    address: SocketAddr,
    /// For requests that stand alone (MCP 2026-07-28).
    common: Arc<Conversation>,
    sessions: Mutex<HashMap<String, Session>>,
}

struct Session {
    conversation: Arc<Conversation>,
    used: Duration,
}

/// Why a request is not served.
enum Refusal {
    /// `Host` is not this listener (DNS rebinding).
    ForeignHost,
    /// A browser sent it.
    Browser,
    /// Without the secret.
    NoSecret,
    Method,
    MediaType,
    TooLarge,
    UnknownSession,
    Full,
}

impl Connector {
    /// Its routes for HTTP: the MCP endpoint at `/mcp`. `address` is where they will be served, and has to be of
    /// loopback; every request has to bring `secret` as bearer token (RFC 6750 §2.1).
    pub fn router(self: &Arc<Self>, address: SocketAddr, secret: &Zeroizing<String>) -> Router {
        let front = Front {
            connector: Arc::clone(self),
            secret: sha256(secret.as_bytes()),
            address,
            common: Conversation::of_many(self),
            sessions: Mutex::default(),
        };
        Router::new().fallback(serve).with_state(Arc::new(front))
    }
}

async fn serve(State(front): State<Arc<Front>>, request: HttpRequest) -> Response<Body> {
    let served = match front.admit(&request) {
        Err(refusal) => Err(refusal),
        Ok(()) => match *request.method() {
            Method::POST => front.post(request).await,
            Method::GET => front.get(request.headers()),
            Method::DELETE => front.delete(request.headers()).await,
            _ => Err(Refusal::Method),
        },
    };
    served.unwrap_or_else(|refusal| refusal.response())
}

impl Front {
    /// Who comes in. Nothing of the body is read before.
    fn admit(&self, request: &HttpRequest) -> Result<(), Refusal> {
        let headers = request.headers();
        let port = self.address.port();
        let host = single(headers, &header::HOST).ok_or(Refusal::ForeignHost)?;
        if !["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host == format!("{name}:{port}")) {
            return Err(Refusal::ForeignHost);
        }
        // Every browser sends one of these, and no program does: whatever the page, it has no business here. (Some
        // programs do send Sec-Fetch-Mode.)
        if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
            return Err(Refusal::Browser);
        }
        let (scheme, secret) = single(headers, &header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .ok_or(Refusal::NoSecret)?;
        if !scheme.eq_ignore_ascii_case("bearer") || sha256(secret.trim().as_bytes()) != self.secret {
            return Err(Refusal::NoSecret);
        }
        if request.uri().path() == ENDPOINT { Ok(()) } else { Err(Refusal::UnknownSession) }
    }

    async fn post(self: &Arc<Self>, request: HttpRequest) -> Result<Response<Body>, Refusal> {
        let media = single(request.headers(), &header::CONTENT_TYPE).unwrap_or_default().split(';').next();
        if media.is_none_or(|media| !media.trim().eq_ignore_ascii_case("application/json")) {
            return Err(Refusal::MediaType);
        }
        let (head, body) = request.into_parts();
        let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Refusal::TooLarge)?;
        let mut message = Message::parse(&body);
        if let Ok(Message::Request(request)) = &mut message {
            match headers::check(&head.headers, request) {
                Ok(mirrored) => request.mirrored = Some(mirrored),
                Err(answer) => return Ok(json_answer(StatusCode::BAD_REQUEST, answer)),
            }
        }
        let (conversation, begun) = self.conversation(&head.headers, &message)?;
        let (out, messages) = Outbox::new();
        let expects_answer = matches!(message, Ok(Message::Request(_)) | Err(_));
        // The answer may be a stream that goes on after this returns.
        tokio::spawn(async move { conversation.hear(message, &out).await });
        let mut response = match expects_answer {
            false => StatusCode::ACCEPTED.into_response(),
            true => answer(messages).await,
        };
        if let Some(id) = begun.and_then(|id| HeaderValue::from_str(&id).ok()) {
            response.headers_mut().insert(SESSION_ID, id);
        }
        Ok(response)
    }

    /// What the server says unasked, in a session.
    fn get(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let (_, conversation) = self.session(headers)?;
        let (out, messages) = Outbox::new();
        let listening = Arc::clone(&conversation);
        let task = tokio::spawn(async move {
            tokio::select! {
                // Where the server offers no stream ours is silent.
                () = listening.listen(out.clone()) => out.closed().await,
                () = out.closed() => {}
            }
        });
        conversation.keep(task.abort_handle());
        Ok(events(None, messages))
    }

    async fn delete(&self, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let (id, conversation) = self.session(headers)?;
        self.all().remove(&id);
        conversation.end().await;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// The conversation that a message belongs to, and its id if it begins one.
    fn conversation(
        &self,
        headers: &HeaderMap,
        message: &Result<Message, Malformed>,
    ) -> Result<(Arc<Conversation>, Option<String>), Refusal> {
        let request = match message {
            Ok(Message::Request(request)) => request,
            _ if headers.contains_key(SESSION_ID) => return Ok((self.session(headers)?.1, None)),
            _ => return Ok((Arc::clone(&self.common), None)),
        };
        match request.manner {
            Manner::Alone { .. } => Ok((Arc::clone(&self.common), None)),
            Manner::InSession if request.method == "initialize" => {
                let (id, conversation) = self.begin()?;
                Ok((conversation, Some(id)))
            }
            Manner::InSession => Ok((self.session(headers)?.1, None)),
        }
    }

    fn begin(&self) -> Result<(String, Arc<Conversation>), Refusal> {
        let now = self.connector.uptime();
        let mut sessions = self.all();
        if sessions.len() >= MAX_SESSIONS {
            let is_idle = |session: &Session| {
                now.saturating_sub(session.used) > IDLE || session.conversation.session().is_none()
            };
            let idle = sessions.iter().filter(|(_, session)| is_idle(session));
            let id = idle.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone());
            let gone = id.and_then(|id| sessions.remove(&id)).ok_or(Refusal::Full)?;
            tokio::spawn(async move { gone.conversation.end().await });
        }
        let id = self.connector.client.clock.unique_id();
        let conversation = Conversation::begin(&self.connector);
        sessions.insert(id.clone(), Session { conversation: Arc::clone(&conversation), used: now });
        Ok((id, conversation))
    }

    fn session(&self, headers: &HeaderMap) -> Result<(String, Arc<Conversation>), Refusal> {
        let id = headers.get(SESSION_ID).and_then(|id| id.to_str().ok()).ok_or(Refusal::UnknownSession)?;
        let mut sessions = self.all();
        let session = sessions.get_mut(id).ok_or(Refusal::UnknownSession)?;
        session.used = self.connector.uptime();
        Ok((id.to_owned(), Arc::clone(&session.conversation)))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message as JSON, or several as events: the first one decides.
async fn answer(mut messages: mpsc::Receiver<Word>) -> Response<Body> {
    match messages.recv().await {
        None => StatusCode::ACCEPTED.into_response(),
        Some(Word { text, answers: Some(status) }) => {
            json_answer(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), text)
        }
        Some(first) => events(Some(first), messages),
    }
}

fn json_answer(status: StatusCode, text: String) -> Response<Body> {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

fn events(first: Option<Word>, messages: mpsc::Receiver<Word>) -> Response<Body> {
    let body = Body::new(Events { first, messages });
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// Messages as server-sent events. Dropped when the client goes, it says so to who writes them.
struct Events {
    first: Option<Word>,
    messages: mpsc::Receiver<Word>,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.messages.poll_recv(context),
        };
        // INVARIANT: a message is one line, so that it is one `data` field.
        next.map(|message| {
            message.map(|Word { text, .. }| Ok(Frame::data(format!("data: {text}\n\n").into())))
        })
    }
}

impl Refusal {
    fn response(&self) -> Response<Body> {
        let (status, error, description) = match self {
            Self::ForeignHost => {
                (StatusCode::FORBIDDEN, "foreign_host", "name this listener as 127.0.0.1 or localhost")
            }
            Self::Browser => (StatusCode::FORBIDDEN, "forbidden_origin", "web pages are not answered here"),
            Self::NoSecret => (
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "send the secret of this start: Authorization: Bearer SECRET",
            ),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "use POST, GET or DELETE"),
            Self::MediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", "send application/json")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "send less at once"),
            Self::UnknownSession => (
                StatusCode::NOT_FOUND,
                "unknown_session",
                "initialize anew at /mcp, and send its Mcp-Session-Id",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "end a session, or come back later",
            ),
        };
        let body = json!({ "error": error, "error_description": description }).to_string();
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A header that stands exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

const ENDPOINT: &str = "/mcp";
const SESSION_ID: &str = "mcp-session-id";
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
const MAX_SESSIONS: usize = 64;
/// A session that was not used for so long makes room for another.
const IDLE: Duration = Duration::from_secs(600);
