//! What goes wrong between the guard and its server, or with a session, and how that is said to the caller: the only
//! place of the proxy with HTTP statuses.

use deputize_client::sse::Unreadable;
use serde_json::{Value, json};

/// Why a request that was not refused could not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The server cannot be reached, or went away.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// What the server said makes no sense.
    #[error("the server answered with {0}")]
    Broken(&'static str),
    /// The server asked for the client's model in its answer.
    #[error("the server asked for sampling")]
    Sampling,
    /// The server does not accept this guard.
    #[error("the server does not accept its guard: check the secret or the certificate")]
    GuardRefused,
    /// What the server said is larger than allowed.
    #[error("the server's answer is too large")]
    TooLarge,
    /// What the call stood on was revoked while it ran, or nobody can tell any more.
    #[error("the call was revoked")]
    Revoked,
    /// No such session, or not this caller's.
    #[error("unknown session or stream")]
    UnknownSession,
    /// A request that needs a session came without.
    #[error("no session")]
    NoSession,
    /// A response to what the server never asked in this session.
    #[error("response to nothing")]
    NotAsked,
    /// A request whose id another one under way has.
    #[error("id in use")]
    IdInUse,
    /// No stream can be had here.
    #[error("no stream")]
    NoStream,
    /// `Origin` of another site.
    #[error("foreign origin")]
    Origin,
    /// The body is longer than allowed.
    #[error("body too large")]
    BodyTooLarge,
    /// The body did not come in time.
    #[error("body too slow")]
    BodyTooSlow,
    /// The body broke off, or is not framed as HTTP says.
    #[error("body broken")]
    BodyBroken,
    /// A header that is not ASCII.
    #[error("malformed header")]
    MalformedHeader,
    /// Too many calls of this caller.
    #[error("over a limit")]
    Limited {
        /// Seconds after which to come back.
        retry_after_seconds: u64,
    },
    /// No room for one session more.
    #[error("no room")]
    Full,
}

/// What a failed request may tell of the server's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symptom {
    /// Nothing: it answered, however oddly.
    None,
    /// It answered that it does not want this: the guard, or this one caller.
    Refusal,
    /// It did not answer.
    Silence,
}

impl From<Unreadable> for Failure {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::TooLarge => Self::TooLarge,
            Unreadable::NotText => Self::Broken("events that are not UTF-8"),
        }
    }
}

impl Failure {
    /// HTTP status, code and sentence. What is the server's fault and what is nobody's can be told apart: 502 says
    /// that it answered wrongly, 503 that it is not there, 504 that it takes too long.
    pub(super) fn render(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Unreachable => (503, "server_unavailable", "the MCP server is down: come back later"),
            Self::TimedOut => (504, "server_timeout", "the MCP server did not answer in time"),
            Self::Broken(_) => (502, "server_error", "the MCP server gave no valid answer"),
            Self::Sampling => {
                (502, "server_error", "the MCP server asked for the client's model: its guard refuses that")
            }
            Self::GuardRefused => {
                (502, "server_error", "the MCP server does not accept its guard: tell its operator")
            }
            Self::TooLarge => {
                (502, "server_error", "the MCP server's answer is larger than its guard lets through")
            }
            Self::Revoked => {
                (401, "invalid_token", "the token was revoked while the call ran, or no one can tell")
            }
            Self::UnknownSession => (404, "unknown_session", "no such session or stream: initialize anew"),
            Self::NoSession => (400, "invalid_request", "send the Mcp-Session-Id that initialize gave"),
            Self::NotAsked => {
                (400, "invalid_request", "the server asked nothing with this id in this session")
            }
            Self::IdInUse => (400, "invalid_request", "a request with this id is under way in this session"),
            Self::NoStream => (405, "invalid_request", "this server offers no stream here"),
            Self::Origin => (403, "forbidden_origin", "web pages of other origins may not call"),
            Self::BodyTooLarge => (413, "invalid_request", "the body is too large: send less"),
            Self::BodyTooSlow => (408, "invalid_request", "the body did not come in time"),
            Self::BodyBroken => (400, "invalid_request", "the body broke off or is not framed as HTTP says"),
            Self::MalformedHeader => (400, "invalid_request", "header values must be visible ASCII"),
            Self::Limited { .. } => (429, "temporarily_unavailable", "too many calls: come back later"),
            Self::Full => (503, "temporarily_unavailable", "no room for another session: come back later"),
        }
    }

    /// Seconds for `Retry-After`.
    pub(super) fn retry_after_seconds(self) -> Option<u64> {
        match self {
            Self::Limited { retry_after_seconds } => Some(retry_after_seconds),
            Self::Unreachable | Self::Full => Some(1),
            _ => None,
        }
    }

    /// The JSON body of the answer.
    pub(super) fn body(self) -> Value {
        let (_, error, description) = self.render();
        json!({ "error": error, "error_description": description })
    }

    /// What it may tell of the server's health.
    pub(super) fn symptom(self) -> Symptom {
        match self {
            Self::Unreachable | Self::TimedOut => Symptom::Silence,
            Self::GuardRefused => Symptom::Refusal,
            _ => Symptom::None,
        }
    }

    /// A constant word for events and metrics.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Broken(_) => "broken",
            Self::Sampling => "sampling",
            Self::GuardRefused => "guard_refused",
            Self::TooLarge => "too_large",
            Self::Revoked => "revoked",
            _ => "refused",
        }
    }
}

/// A JSON-RPC error (JSON-RPC 2.0 §5.1).
pub(super) fn rpc_error(id: &Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

/// JSON-RPC 2.0 §5.1.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC 2.0 §5.1.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC 2.0 §5.1.
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// MCP 2026-07-28, error codes.
pub(super) const HEADER_MISMATCH: i64 = -32020;
/// MCP 2026-07-28, error codes.
pub(super) const UNSUPPORTED_VERSION: i64 = -32022;
/// Outside of what JSON-RPC reserves: the guard refused something that the server wanted.
pub(super) const REFUSED_BY_GUARD: i64 = 1;
