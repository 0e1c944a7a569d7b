//! Answers of the front.

use super::failure::Failure;
use crate::{GuardConfig, Refusal};
use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// Why a request gets no answer of the server.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The guard refuses it.
    Refused(Box<Refusal>),
    /// It could not be served.
    Failed(Failure),
    /// An error of the protocol, with its HTTP status.
    Rpc(u16, Value),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Box<Refusal>> for Trouble {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Trouble {
    /// As a client hears it that knows nothing of us.
    pub(super) fn for_ordinary(self, config: &GuardConfig, id: Option<&Value>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Box::new(refusal.for_ordinary(config, id))),
            other => other,
        }
    }

    /// HTTP status of the answer.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Refused(refusal) => refusal.status,
            Self::Failed(failure) => failure.render().0,
            Self::Rpc(status, _) => *status,
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Body> {
        match self {
            Self::Refused(refusal) => refused(refusal),
            Self::Failed(failure) => {
                let mut response = json(self.status(), &failure.body());
                if let Some(seconds) = failure.retry_after_seconds() {
                    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                }
                response
            }
            Self::Rpc(status, error) => json(*status, error),
        }
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = json(refusal.status, &refusal.body());
    for challenge in refusal.challenges.iter().filter_map(|each| HeaderValue::from_str(each).ok()) {
        response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(nonce) = &refusal.dpop_nonce {
        set(&mut response, "dpop-nonce", nonce);
    }
    if let Some(seconds) = refusal.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An answer of JSON. No cache keeps what was said to one caller.
pub(super) fn json(status: u16, body: &Value) -> Response<Body> {
    json_text(status, body.to_string())
}

/// The same of JSON that is written already.
pub(super) fn json_text(status: u16, text: String) -> Response<Body> {
    let mut response = empty(status);
    *response.body_mut() = Body::from(text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of events.
pub(super) fn events(body: Body) -> Response<Body> {
    let mut response = empty(200);
    *response.body_mut() = body;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Reverse proxies pass events on as they come.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An answer without a body.
pub(super) fn empty(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sets a header whose value the guard made; one that cannot stand in a header is left out.
pub(super) fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
