//! Why the local client does not get the server's answer, and how that is told: what was refused, by whom, why, and
//! what to do next. A refusal of a tool call is a *result*, so that a model can read it; what is broken is an error.

use super::{
    message::{self, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Manner, Request},
    outbox::Reply,
    user_tokens::UserTokenError,
};
use crate::{DenialReason, ErrorDetails, ExchangeError, sse::Unreadable};
use serde_json::{Value, json};

/// Why there is no answer of the server.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The user's token is not to be had.
    #[error("{0}")]
    UserToken(#[from] UserTokenError),
    /// The broker gives no token.
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    /// A person has to decide first.
    #[error("waiting for a person")]
    Waiting(Waiting),
    /// The server, or the guard before it, refuses.
    #[error("the server refused with {}", .0.status)]
    Server(Box<ServerRefusal>),
    /// The server cannot be reached.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server went away under way.
    #[error("the server went away before it answered")]
    GoneUnderWay,
    /// The server takes too long.
    #[error("the server did not answer in time")]
    TimedOut,
    /// What the server says makes no sense.
    #[error("the server's answer cannot be used: {0}")]
    Broken(&'static str),
    /// The server does not list this tool.
    #[error("unknown tool")]
    UnknownTool(String),
    /// What the server lists is not what was approved.
    #[error("the tool's definition is not the approved one")]
    Drifted {
        /// The tool.
        tool: String,
        /// The decision whose token says what was approved.
        decision_id: String,
    },
    /// The message makes no sense.
    #[error("{0}")]
    Request(String),
    /// Its headers say something else than it does (MCP 2026-07-28).
    #[error("{0}")]
    Headers(&'static str),
    /// Too many requests under way.
    #[error("too many requests under way")]
    Busy,
}

/// What the server, or its guard, says of a request that it does not let through.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ServerRefusal {
    /// HTTP status.
    pub(super) status: u16,
    /// `error` (RFC 6750 §3.1).
    pub(super) code: String,
    /// `error_description`.
    pub(super) description: String,
    /// `authorization_details` that would be needed.
    pub(super) needed: Option<Value>,
    pub(super) retry_after_seconds: Option<u64>,
}

/// A decision that a person has to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) approval_id: String,
    pub(super) uri: Option<String>,
    pub(super) expires_in_seconds: u64,
    pub(super) decision_id: Option<String>,
}

/// What the local client is told.
struct Told {
    /// `broker`, `server` or `connect`.
    by: &'static str,
    /// A constant word.
    reason: String,
    /// What happened.
    said: String,
    /// What to do.
    next: String,
    decision_id: Option<String>,
    /// Whether somebody said no, rather than that something is broken.
    is_refusal: bool,
}

impl From<Unreadable> for Failure {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::TooLarge => Self::Broken("its answer is too large"),
            Unreadable::NotText => Self::Broken("its events are not UTF-8"),
        }
    }
}

impl Failure {
    /// The answer to `request`.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        let told = self.told(request);
        let about = json!({
            "refused_by": told.by, "reason": told.reason, "next": told.next, "decision_id": told.decision_id,
        });
        let decision = match &told.decision_id {
            Some(id) => format!(" (decision {id}: an operator can run `deputize explain {id}`)"),
            None => String::new(),
        };
        let text = format!("{}. {}.{decision}", capital(&told.said), capital(&told.next));
        if told.is_refusal && request.method == "tools/call" {
            let mut result = json!({
                "content": [{ "type": "text", "text": text }],
                "isError": true,
                "_meta": { REFUSAL: about },
            });
            if let (Manner::Alone { .. }, Some(members)) = (&request.manner, result.as_object_mut()) {
                members.insert("resultType".to_owned(), json!("complete"));
            }
            return Reply { text: message::result(&request.id, &result), status: 200 };
        }
        let text = message::error(Some(&request.id), self.rpc_code(), &text, Some(about));
        let is_malformed = matches!(self, Self::Request(_) | Self::Headers(_));
        let says_so = is_malformed && request.manner != Manner::InSession;
        Reply { text, status: if says_so { 400 } else { 200 } }
    }

    fn rpc_code(&self) -> i64 {
        match self {
            Self::UnknownTool(_) => INVALID_PARAMS,
            Self::Request(_) => INVALID_REQUEST,
            Self::Headers(_) => HEADER_MISMATCH,
            _ => INTERNAL_ERROR,
        }
    }

    fn told(&self, request: &Request) -> Told {
        let what = what(request);
        match self {
            Self::Exchange(error) => exchange(error, &what),
            Self::Server(refusal) => server(refusal, &what),
            Self::Waiting(waiting) => Told {
                decision_id: waiting.decision_id.clone(),
                ..refused("broker", "waiting", format!("{what} waits for a person to decide"), wait(waiting))
            },
            Self::UserToken(error) => broken(
                "connect",
                "user_token",
                format!("there is no token of the user: {error}"),
                error.next(),
            ),
            Self::Unreachable(cause) => broken(
                "connect",
                "server_unreachable",
                format!("the MCP server cannot be reached: {cause}"),
                "nothing was run; check its URL and the network, then try again",
            ),
            Self::GoneUnderWay => broken(
                "connect",
                "server_gone",
                "the MCP server went away before it answered",
                "it may have run: look before you try again",
            ),
            Self::TimedOut => broken(
                "connect",
                "server_timeout",
                "the MCP server did not answer in time",
                "it may have run: look before you try again, or start with a longer --timeout",
            ),
            Self::Broken(why) => broken(
                "connect",
                "server_broken",
                format!("the MCP server's answer cannot be used: {why}"),
                "tell its operator",
            ),
            Self::UnknownTool(tool) => broken(
                "connect",
                "unknown_tool",
                format!("the MCP server lists no tool {tool:?} for this user and agent"),
                "list the tools, and call one of them",
            ),
            Self::Drifted { decision_id, .. } => Told {
                decision_id: Some(decision_id.clone()),
                ..refused(
                    "connect",
                    "definition_changed",
                    format!(
                        "{what} was not sent: the server now describes the tool otherwise than was approved"
                    ),
                    "do not trust its description; an operator has to look at the change and approve it"
                        .to_owned(),
                )
            },
            Self::Request(reason) => {
                broken("connect", "malformed", format!("the request cannot be sent: {reason}"), "correct it")
            }
            Self::Headers(what) => {
                let next = "list the tools anew, then send the headers that they ask for";
                broken("connect", "header_mismatch", format!("headers and body differ: {what}"), next)
            }
            Self::Busy => {
                broken("connect", "busy", "too many requests are under way", "wait for some of them")
            }
        }
    }
}

/// What the broker's no means.
fn exchange(error: &ExchangeError, what: &str) -> Told {
    let because = |details: &ErrorDetails| Told {
        decision_id: details.decision_id.clone(),
        ..refused(
            "broker",
            &details.code,
            format!("{what} was refused: {}", details.description.trim_end_matches('.')),
            "nothing was run".to_owned(),
        )
    };
    let with = |details: &ErrorDetails, next: &str| Told { next: next.to_owned(), ..because(details) };
    match error {
        ExchangeError::AccessDenied { reason, details } => {
            let (reason, next) = denial(*reason);
            Told { reason: reason.to_owned(), ..with(details, next) }
        }
        ExchangeError::InvalidTarget(details) => with(
            details,
            "nothing was run; an operator has to register the server, or let this agent reach it",
        ),
        ExchangeError::InvalidScope(details) | ExchangeError::InvalidAuthorizationDetails(details) => {
            with(details, "nothing was run; correct the arguments, or call another tool")
        }
        ExchangeError::InsufficientUserAuthentication { acr_values, max_age_seconds, details } => {
            let strength = match acr_values.is_empty() {
                true => String::new(),
                false => format!(" with {}", acr_values.join(" or ")),
            };
            let age = max_age_seconds.map(|age| format!(", at most {age} s ago")).unwrap_or_default();
            with(details, &format!("nothing was run; let the user sign in again{strength}{age}"))
        }
        ExchangeError::Expired(details) => {
            with(details, "nothing was run; call again with the same arguments to ask anew")
        }
        ExchangeError::SlowDown(details) => with(details, "wait some seconds before you call again"),
        ExchangeError::InvalidRequest(details) => {
            let told = with(details, "nothing was run; let the user sign in again, or bring a fresh token");
            Told { is_refusal: false, ..told }
        }
        ExchangeError::InvalidClient(details) | ExchangeError::InvalidProof(details) => {
            let told = with(details, "check --client-id, --key-file and this machine's clock");
            Told { is_refusal: false, ..told }
        }
        ExchangeError::RateLimited { retry_after_seconds, details } => {
            with(details, &format!("nothing was run; {}", later(*retry_after_seconds)))
        }
        ExchangeError::Unavailable { retry_after_seconds, details } => Told {
            decision_id: details.decision_id.clone(),
            ..broken(
                "broker",
                "broker_unavailable",
                format!("the Deputize broker cannot decide now: {}", details.description),
                format!("nothing was run; {}", later(*retry_after_seconds)),
            )
        },
        ExchangeError::Unreachable(cause) => broken(
            "connect",
            "broker_unreachable",
            format!("the Deputize broker cannot be reached: {cause}"),
            "nothing was run; check --issuer, the network, and whether the broker runs, then try again",
        ),
        error => broken(
            "connect",
            "broker_broken",
            format!("the Deputize broker's answer cannot be used: {error}"),
            "nothing was run; check --issuer, and that this program is as new as the broker",
        ),
    }
}

fn denial(reason: DenialReason) -> (&'static str, &'static str) {
    match reason {
        DenialReason::Policy => (
            "policy",
            "nothing was run; do not try the same again: ask the user, or an operator, for another way",
        ),
        DenialReason::ApprovalRequired => (
            "approval_required",
            "nothing was run; do not try the same again: a person has to do it, or an operator has to configure approvals",
        ),
        DenialReason::Human => ("human", "nothing was run; a person said no: do not try the same again"),
        DenialReason::Other => ("denied", "nothing was run; do not try the same again"),
    }
}

/// What a guard's no means.
fn server(refusal: &ServerRefusal, what: &str) -> Told {
    let description = match refusal.description.is_empty() {
        true => format!("HTTP status {}", refusal.status),
        false => refusal.description.trim_end_matches('.').to_owned(),
    };
    let reason = if refusal.code.is_empty() { "http_error" } else { refusal.code.as_str() };
    let (said, later) = (
        format!("{what} was refused by the MCP server's guard: {description}"),
        later(refusal.retry_after_seconds),
    );
    match refusal.status {
        403 => refused(
            "server",
            reason,
            said,
            "nothing was run; list the tools anew, or ask an operator".to_owned(),
        ),
        429 => refused("server", reason, said, format!("nothing was run; {later}")),
        401 => broken(
            "server",
            reason,
            said,
            "nothing was run; check that --issuer is the broker of this server, and this machine's clock",
        ),
        502..=504 => {
            broken("server", reason, format!("the MCP server is not available: {description}"), later)
        }
        _ => broken("server", reason, said, "check the URL, and ask the server's operator"),
    }
}

fn wait(waiting: &Waiting) -> String {
    let place = waiting.uri.as_ref().map(|uri| format!(" at {uri}")).unwrap_or_default();
    format!(
        "let the person decide{place} within {} s, then call again with the same arguments; nothing was run yet",
        waiting.expires_in_seconds
    )
}

fn later(retry_after_seconds: Option<u64>) -> String {
    retry_after_seconds.map_or("try again later".to_owned(), |seconds| format!("try again in {seconds} s"))
}

fn what(request: &Request) -> String {
    let name = request.whole.get("params").and_then(|params| params.get("name")).and_then(Value::as_str);
    match name {
        Some(name) if request.method == "tools/call" => format!("the call of {name:?}"),
        _ => format!("the request {}", request.method),
    }
}

fn refused(by: &'static str, reason: &str, said: String, next: String) -> Told {
    Told { by, reason: reason.to_owned(), said, next, decision_id: None, is_refusal: true }
}

fn broken(by: &'static str, reason: &str, said: impl Into<String>, next: impl Into<String>) -> Told {
    let (reason, said, next) = (reason.to_owned(), said.into(), next.into());
    Told { by, reason, said, next, decision_id: None, is_refusal: false }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Where a refused call's result says the same for programs.
const REFUSAL: &str = "deputize/refusal";
