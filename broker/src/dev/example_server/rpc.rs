//! The JSON-RPC of an MCP server: `initialize`, `ping`, `tools/list`, `tools/call`.

use super::ExampleServer;
use deputize_call::json::Object;
use serde_json::{Value, json};

impl ExampleServer {
    /// Answers one message; a notification has no answer.
    pub(crate) fn answer(&self, message: &Object) -> Option<Value> {
        let id = message.get("id")?;
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
        let params = message.get("params").and_then(Value::as_object);
        let answered = match method {
            "initialize" => Ok(self.initialize(params)),
            "ping" => Ok(json!({})),
            "tools/list" => Ok(json!({ "tools": self.definitions().collect::<Vec<_>>() })),
            "tools/call" => self.call(params),
            _ => Err((METHOD_NOT_FOUND, "method not found".to_owned())),
        };
        Some(match answered {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        })
    }

    fn initialize(&self, params: Option<&Object>) -> Value {
        let asked = params.and_then(|params| params.get("protocolVersion")).and_then(Value::as_str);
        let version = asked.filter(|asked| PROTOCOL_VERSIONS.contains(asked)).unwrap_or(PROTOCOL_VERSIONS[0]);
        json!({
            "protocolVersion": version,
            "capabilities": { "tools": { "listChanged": false } },
            "serverInfo": { "name": self.record.id, "version": self.record.version }
        })
    }

    /// The definitions of its tools, as it lists them.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &Object> {
        self.record.tools.iter().map(|tool| &tool.definition)
    }

    fn call(&self, params: Option<&Object>) -> Result<Value, (i32, String)> {
        let name = params.and_then(|params| params.get("name")).and_then(Value::as_str).unwrap_or_default();
        if !self.definitions().any(|definition| definition.get("name").is_some_and(|known| known == name)) {
            return Err((INVALID_PARAMS, "unknown tool".to_owned()));
        }
        let none = Object::new();
        let arguments = match params.and_then(|params| params.get("arguments")) {
            None => &none,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err((INVALID_PARAMS, "arguments must be an object".to_owned())),
        };
        // A tool's own failure is a result for the model to read, not an error of the protocol.
        Ok(match self.run(name, arguments) {
            Ok(result) => json!({
                "content": [{ "type": "text", "text": result.to_string() }],
                "structuredContent": result,
                "isError": false
            }),
            Err(problem) => json!({ "content": [{ "type": "text", "text": problem }], "isError": true }),
        })
    }
}

/// Versions of MCP that it speaks, the preferred one first.
const PROTOCOL_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
