//! What a conversation with the server rests on: the session of MCP up to 2025-11-25, and the headers that each
//! request carries.

use super::{
    message::{Manner, Request},
    mirrored::{Mirrored, encode},
    remote::{SESSION_ID, Said},
};
use deputize_call::json::Object;
use serde_json::Value;

/// A session that `initialize` began.
#[derive(Debug)]
pub(super) struct Session {
    /// The version that was agreed upon.
    version: Option<String>,
    /// The server's id of it, if it gave one.
    id: Option<String>,
    /// The `initialize` that began it: with it another can be begun.
    pub(super) opening: Object,
}

impl Session {
    /// The session that this answer to `initialize` begins; none if it is an error.
    pub(super) fn begun(opening: &Object, answer: &Said, id: Option<String>) -> Option<Self> {
        let result = answer.message.get("result")?;
        let version =
            result.get("protocolVersion").and_then(Value::as_str).filter(|version| is_visible(version));
        let id = id.filter(|id| is_visible(id));
        Some(Self { version: version.map(str::to_owned), id, opening: opening.clone() })
    }

    /// Whether the server can lose it.
    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// The headers of every message in it.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let version = self.version.iter().map(|version| (PROTOCOL_VERSION.to_owned(), version.clone()));
        let id = self.id.iter().map(|id| (SESSION_ID.to_owned(), id.clone()));
        version.chain(id).collect()
    }

    /// Whether the client said that it can send its user to a URL, in a version that knows that.
    pub(super) fn elicits_urls(&self) -> bool {
        let capabilities = self.opening.get("params").and_then(|params| params.get("capabilities"));
        let declared = capabilities.and_then(|all| all.get("elicitation")).and_then(|modes| modes.get("url"));
        declared.is_some() && self.version.as_deref().is_some_and(|version| version >= URL_ELICITATION_SINCE)
    }
}

/// The headers of a request that stands alone (MCP 2026-07-28, request metadata).
pub(super) fn headers_alone(
    version: &str,
    request: &Request,
    mirrored: Option<&Mirrored>,
) -> Vec<(String, String)> {
    let mut headers = vec![
        (PROTOCOL_VERSION.to_owned(), version.to_owned()),
        ("mcp-method".to_owned(), request.method.clone()),
    ];
    let params = request.params();
    let named = match request.method.as_str() {
        "tools/call" | "prompts/get" => params.get("name"),
        "resources/read" => params.get("uri"),
        _ => None,
    };
    if let Some(name) = named.and_then(Value::as_str) {
        headers.push(("mcp-name".to_owned(), encode(name).into_owned()));
    }
    if let (Some(mirrored), Some(Value::Object(arguments))) = (mirrored, params.get("arguments")) {
        headers.extend(mirrored.headers(arguments));
    }
    headers
}

/// The headers of a notification: those of its session, or what it says of itself.
pub(super) fn headers_of_notification(whole: &Object, session: Option<&Session>) -> Vec<(String, String)> {
    match Manner::of(whole) {
        Manner::Alone { version } => vec![(PROTOCOL_VERSION.to_owned(), version)],
        Manner::InSession => session.map(Session::headers).unwrap_or_default(),
    }
}

/// MCP 2025-11-25: a session id has visible ASCII alone. The bound is ours.
fn is_visible(text: &str) -> bool {
    (1..=MAX_HEADER_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

const PROTOCOL_VERSION: &str = "mcp-protocol-version";
const URL_ELICITATION_SINCE: &str = "2025-11-25";
const MAX_HEADER_BYTES: usize = 1024;
