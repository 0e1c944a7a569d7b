//! The JSON-RPC of an MCP server: `initialize` and `ping` of the versions with sessions, `server/discover` of the
//! stateless one, `tools/list` and `tools/call` of all.

use super::{ExampleServer, Handed, VERSION};
use deputize_call::json::Object;
use serde_json::{Value, json};
use std::sync::{PoisonError, atomic::Ordering};

/// What has no result: code and message.
type Error = (i32, String);

impl ExampleServer {
    /// Answers one message; a notification has no answer.
    pub async fn answer(&self, message: &Object, handed: &Handed) -> Option<Value> {
        let id = message.get("id")?;
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
        let params = message.get("params").and_then(Value::as_object);
        let is_modern = declared_version(message).is_some();
        let answered = match method {
            "server/discover" if is_modern => Ok(self.discover()),
            "initialize" if !is_modern => Ok(self.initialize(params)),
            "ping" if !is_modern => Ok(json!({})),
            "tools/list" => Ok(json!({ "tools": self.definitions() })),
            "tools/call" => self.call(params, handed).await,
            _ => Err((METHOD_NOT_FOUND, "method not found".to_owned())),
        };
        Some(match answered {
            Ok(mut result) => {
                if is_modern {
                    self.complete(method, &mut result);
                }
                json!({ "jsonrpc": "2.0", "id": id, "result": result })
            }
            Err((code, message)) => error(id, code, &message, Value::Null),
        })
    }

    fn initialize(&self, params: Option<&Object>) -> Value {
        let asked = params.and_then(|params| params.get("protocolVersion")).and_then(Value::as_str);
        let version = asked.filter(|asked| LEGACY.contains(asked)).unwrap_or(LEGACY[0]);
        json!({ "protocolVersion": version, "capabilities": capabilities(), "serverInfo": self.info() })
    }

    fn discover(&self) -> Value {
        let versions: Vec<&str> = std::iter::once(MODERN).chain(LEGACY).collect();
        json!({ "supportedVersions": versions, "capabilities": capabilities(), "serverInfo": self.info() })
    }

    /// What the stateless version wants in each result.
    fn complete(&self, method: &str, result: &mut Value) {
        let Some(result) = result.as_object_mut() else { return };
        result.insert("resultType".to_owned(), "complete".into());
        result.insert("_meta".to_owned(), json!({ SERVER_INFO: self.info() }));
        if method != "tools/call" {
            // The same for everybody, and may change at any time.
            result.insert("ttlMs".to_owned(), 0.into());
            result.insert("cacheScope".to_owned(), "public".into());
        }
    }

    fn info(&self) -> Value {
        json!({ "name": self.id, "version": VERSION })
    }

    /// The definitions of its tools, as it lists them.
    pub(super) fn definitions(&self) -> Vec<Object> {
        self.definitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call(&self, params: Option<&Object>, handed: &Handed) -> Result<Value, Error> {
        self.calls_seen.fetch_add(1, Ordering::Relaxed);
        let name = params.and_then(|params| params.get("name")).and_then(Value::as_str).unwrap_or_default();
        let is_known = |definition: &Object| definition.get("name").is_some_and(|known| known == name);
        if !self.definitions().iter().any(is_known) {
            return Err((INVALID_PARAMS, "unknown tool".to_owned()));
        }
        let none = Object::new();
        let arguments = match params.and_then(|params| params.get("arguments")) {
            None => &none,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err((INVALID_PARAMS, "arguments must be an object".to_owned())),
        };
        // A tool's own failure is a result for the model to read, not an error of the protocol.
        Ok(match self.run(name, arguments, handed).await {
            Ok(result) => json!({
                "content": [{ "type": "text", "text": result.to_string() }],
                "structuredContent": result,
                "isError": false
            }),
            Err(problem) => json!({ "content": [{ "type": "text", "text": problem }], "isError": true }),
        })
    }
}

/// The version that a message names itself: only messages of the stateless version do.
pub(super) fn declared_version(message: &Object) -> Option<&str> {
    message.get("params")?.get("_meta")?.get(PROTOCOL_VERSION)?.as_str()
}

/// A response that says what is wrong.
pub(super) fn error(id: &Value, code: i32, message: &str, data: Value) -> Value {
    let mut error = Object::new();
    error.insert("code".to_owned(), code.into());
    error.insert("message".to_owned(), message.into());
    if !data.is_null() {
        error.insert("data".to_owned(), data);
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

fn capabilities() -> Value {
    json!({ "tools": { "listChanged": true } })
}

/// The stateless version of MCP.
pub(super) const MODERN: &str = "2026-07-28";
/// The versions with sessions that it speaks, the preferred one first.
pub(super) const LEGACY: [&str; 2] = ["2025-11-25", "2025-06-18"];
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
