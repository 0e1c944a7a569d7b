//! The door of an example server: MCP over Streamable HTTP, for its guard alone.
//!
//! Versions 2026-07-28, 2025-11-25 and 2025-06-18. The older ones let a server do without sessions, and this one does.

use super::{
    ExampleServer, Handed,
    rpc::{self, LEGACY, METHOD_NOT_FOUND, MODERN, declared_version},
    stream,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use deputize_call::json::{self, Object};
use serde_json::{Value, json};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    aws::call::KeySource,
    random::{NoRandomness, fill_random},
};

/// An example server that listens.
pub struct Door {
    server: Arc<ExampleServer>,
    /// Of this start; only the guard knows it.
    secret: Zeroizing<String>,
    /// Turns true when it is time to stop.
    stop: watch::Receiver<bool>,
}

impl Door {
    /// A door to `server`, under a new secret.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn new(server: Arc<ExampleServer>, stop: watch::Receiver<bool>) -> Result<Self, NoRandomness> {
        let mut random = Zeroizing::new([0_u8; 32]);
        fill_random(random.as_mut())?;
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_ref()));
        Ok(Self { server, secret, stop })
    }

    /// The header by which it knows its guard: name and value.
    pub fn secret(&self) -> (String, Zeroizing<String>) {
        (SECRET_HEADER.to_owned(), self.secret.clone())
    }

    /// Its routes.
    pub fn router(self) -> Router {
        let door = Arc::new(self);
        Router::new()
            .route("/mcp", post(message).get(listen))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(middleware::from_fn_with_state(Arc::clone(&door), guard_alone))
            .with_state(door)
    }
}

/// A server that can be reached beside its guard is not guarded.
async fn guard_alone(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(SECRET_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
    if bool::from(given.ct_eq(door.secret.as_bytes())) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({ "error": "this server answers its guard alone" })))
            .into_response()
    }
}

async fn message(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(message) = json::parse_object(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    let id = message.get("id").unwrap_or(&Value::Null);
    if let Err(problem) = check_headers(&headers, &message) {
        return (StatusCode::BAD_REQUEST, Json(problem.error(id))).into_response();
    }
    let is_modern = declared_version(&message).is_some();
    if is_modern && message.get("method").and_then(Value::as_str) == Some("subscriptions/listen") {
        return stream::open(&door.server, Some(id), door.stop.clone());
    }
    match door.server.answer(&message, &handed(&headers)).await {
        None => StatusCode::ACCEPTED.into_response(),
        // MCP 2026-07-28, transports: a method that a server does not know is not found.
        Some(answer) if is_modern && answer.pointer("/error/code") == Some(&METHOD_NOT_FOUND.into()) => {
            (StatusCode::NOT_FOUND, Json(answer)).into_response()
        }
        Some(answer) => Json(answer).into_response(),
    }
}

/// What the guard hands on with a call.
fn handed(headers: &HeaderMap) -> Handed {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let aws = header("deputize-aws-credentials-uri").zip(header("deputize-aws-authorization"));
    Handed { aws: aws.map(|(uri, secret)| KeySource { uri, authorization: secret.into() }) }
}

/// Before 2026-07-28: the stream of what is said unasked.
async fn listen(State(door): State<Arc<Door>>) -> Response {
    stream::open(&door.server, None, door.stop.clone())
}

/// What is wrong with headers.
enum Problem {
    /// The named one says something else than the body.
    Mismatch(&'static str),
    Version,
}

impl Problem {
    fn error(&self, id: &Value) -> Value {
        match self {
            Self::Mismatch(header) => {
                rpc::error(id, HEADER_MISMATCH, &format!("{header} differs from the body"), Value::Null)
            }
            Self::Version => {
                let supported: Vec<&str> = std::iter::once(MODERN).chain(LEGACY).collect();
                let data = json!({ "supported": supported });
                rpc::error(id, UNSUPPORTED_VERSION, "unsupported protocol version", data)
            }
        }
    }
}

/// MCP 2026-07-28, server validation: the headers say what the body says. Older versions have only the one.
fn check_headers(headers: &HeaderMap, message: &Object) -> Result<(), Problem> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let version = header("mcp-protocol-version");
    let Some(declared) = declared_version(message) else {
        let is_spoken = version.is_none_or(|version| LEGACY.contains(&version));
        return if is_spoken { Ok(()) } else { Err(Problem::Version) };
    };
    let method = message.get("method").and_then(Value::as_str);
    let name = message.get("params").and_then(|params| params.get("name")).and_then(Value::as_str);
    if version != Some(declared) {
        Err(Problem::Mismatch("MCP-Protocol-Version"))
    } else if declared != MODERN {
        Err(Problem::Version)
    } else if header("mcp-method") != method {
        Err(Problem::Mismatch("Mcp-Method"))
    } else if method == Some("tools/call") && header("mcp-name") != name {
        Err(Problem::Mismatch("Mcp-Name"))
    } else {
        Ok(())
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("server", &self.server.id).finish_non_exhaustive()
    }
}

/// The header in which a guard proves itself, unless told otherwise.
const SECRET_HEADER: &str = "deputize-guard";
/// The guard says itself what is too large; this only bounds what it may say.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_VERSION: i32 = -32022;
