//! JSON-RPC messages of the local client, read as strictly as a guard reads them.

use super::mirrored::Mirrored;
use deputize_call::json::{self, JsonError, MAX_DEPTH, Object};
use serde_json::{Value, json};

/// One message of the local client.
#[derive(Debug)]
pub(super) enum Message {
    /// It wants an answer.
    Request(Request),
    /// It wants none.
    Notification(Notification),
    /// It answers what the server asked (MCP up to 2025-11-25).
    Response(Object),
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// The client's id of it. It is kept on all ways.
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) whole: Object,
    pub(super) manner: Manner,
    /// The `Mcp-Param-*` headers that it came with; `None` where it did not come over HTTP.
    pub(super) mirrored: Option<Vec<(String, String)>>,
}

/// A notification.
#[derive(Debug)]
pub(super) struct Notification {
    pub(super) method: String,
    pub(super) whole: Object,
}

/// How a request stands to sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manner {
    /// MCP 2026-07-28 and later: it stands alone and names its version itself.
    Alone { version: String },
    /// Up to 2025-11-25: in the session that `initialize` began.
    InSession,
}

/// Why a message is none.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    /// JSON-RPC 2.0 §5.1.
    pub(super) code: i64,
    pub(super) reason: String,
    /// Its id, where one could be read.
    pub(super) id: Option<Value>,
}

impl Message {
    /// Reads one message (JSON-RPC 2.0 §4, §5; MCP allows no batches).
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let whole = match json::parse_value(text, MAX_DEPTH + ENVELOPE_LEVELS) {
            Ok(Value::Object(whole)) => whole,
            Ok(Value::Array(_)) => return Err(malformed(INVALID_REQUEST, "batches are not accepted", None)),
            Ok(_) => return Err(malformed(INVALID_REQUEST, "not a JSON-RPC message", None)),
            Err(JsonError::Syntax(reason)) => return Err(malformed(PARSE_ERROR, &reason, None)),
            Err(error) => return Err(malformed(INVALID_REQUEST, &error.to_string(), None)),
        };
        let id = whole.get("id").filter(|id| is_id(id)).cloned();
        let refuse = |reason| Err(malformed(INVALID_REQUEST, reason, id.clone()));
        if whole.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return refuse("jsonrpc must be \"2.0\"");
        }
        if whole.contains_key("id") && id.is_none() {
            return refuse("id must be a string or an integer");
        }
        if whole.get("params").is_some_and(|params| !params.is_object()) {
            return refuse("params must be an object");
        }
        match (whole.get("method").and_then(Value::as_str).map(str::to_owned), &id) {
            (Some(method), Some(id)) => {
                let (id, manner) = (id.clone(), Manner::of(&whole));
                Ok(Self::Request(Request { id, method, whole, manner, mirrored: None }))
            }
            (Some(method), None) => Ok(Self::Notification(Notification { method, whole })),
            (None, Some(_)) if whole.contains_key("result") != whole.contains_key("error") => {
                Ok(Self::Response(whole))
            }
            (None, _) => refuse("neither a request nor a notification nor a response"),
        }
    }
}

impl Manner {
    /// How this message stands to sessions.
    pub(super) fn of(whole: &Object) -> Self {
        let meta = whole.get("params").and_then(|params| params.get("_meta"));
        let version = meta.and_then(|meta| meta.get(PROTOCOL_VERSION)).and_then(Value::as_str);
        match version {
            Some(version) => Self::Alone { version: version.to_owned() },
            None => Self::InSession,
        }
    }
}

impl Request {
    /// `params`, empty if there are none.
    pub(super) fn params(&self) -> Object {
        self.whole.get("params").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// Whether the headers that it came with say what its arguments do, wherever that stands alone (MCP 2026-07-28).
    pub(super) fn mirrors(&self, mirrored: &Mirrored, arguments: &Object) -> bool {
        match (&self.manner, &self.mirrored) {
            (Manner::Alone { .. }, Some(headers)) => mirrored.agrees(arguments, headers),
            _ => true,
        }
    }

    /// A member of `params._meta`.
    pub(super) fn meta(&self, name: &str) -> Option<&Value> {
        self.whole.get("params")?.get("_meta")?.get(name)
    }
}

/// An answer that carries a result.
pub(super) fn result(id: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

/// An answer that carries an error (JSON-RPC 2.0 §5.1). Without an id it belongs to no request that could be read.
pub(super) fn error(id: Option<&Value>, code: i64, message: &str, data: Option<Value>) -> String {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    let mut answer = json!({ "jsonrpc": "2.0", "error": error });
    if let (Some(id), Some(members)) = (id, answer.as_object_mut()) {
        members.insert("id".to_owned(), id.clone());
    }
    answer.to_string()
}

/// MCP: ids are strings or integers, never null.
fn is_id(id: &Value) -> bool {
    match id {
        Value::String(_) => true,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        _ => false,
    }
}

fn malformed(code: i64, reason: &str, id: Option<Value>) -> Malformed {
    Malformed { code, reason: reason.to_owned(), id }
}

/// MCP 2026-07-28: where a request says its version.
pub(super) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// MCP 2026-07-28: where a request says what its client can do.
pub(super) const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// MCP 2026-07-28, error codes.
pub(super) const HEADER_MISMATCH: i64 = -32020;
/// JSON-RPC 2.0 §5.1.
pub(super) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC 2.0 §5.1.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC 2.0 §5.1.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC 2.0 §5.1.
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// The message and its `params` stand around the arguments.
const ENVELOPE_LEVELS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_from_the_others() {
        let parse = |value: Value| Message::parse(value.to_string().as_bytes());
        let request = parse(json!({ "jsonrpc": "2.0", "id": "a", "method": "ping" }));
        assert!(matches!(request, Ok(Message::Request(Request { manner: Manner::InSession, .. }))));
        let alone = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping",
            "params": { "_meta": { PROTOCOL_VERSION: "2026-07-28" } } });
        let Ok(Message::Request(request)) = parse(alone) else { panic!("a request") };
        assert_eq!(request.manner, Manner::Alone { version: "2026-07-28".to_owned() });
        let notification = parse(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        assert!(matches!(notification, Ok(Message::Notification(_))));
        let response = parse(json!({ "jsonrpc": "2.0", "id": 0, "result": {} }));
        assert!(matches!(response, Ok(Message::Response(_))));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_id_that_it_has() {
        for (text, code, id) in [
            ("{", PARSE_ERROR, None),
            ("[]", INVALID_REQUEST, None),
            ("1", INVALID_REQUEST, None),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, INVALID_REQUEST, None),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1e300}}"#, INVALID_REQUEST, None),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, INVALID_REQUEST, Some(json!(1))),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST, None),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, INVALID_REQUEST, Some(json!(1))),
            (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST, Some(json!(1))),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, INVALID_REQUEST, Some(json!(1))),
        ] {
            let error = Message::parse(text.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.id), (code, id), "{text}");
        }
    }
}
