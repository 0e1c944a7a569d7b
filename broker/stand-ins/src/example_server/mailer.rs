//! Sends e-mail; here it only says that it would have.

use super::{Handed, Tool, Tools};
use async_trait::async_trait;
use deputize_call::json::{JsonError, Object};
use serde_json::{Value, json};

/// The tools as approved.
pub(super) fn tools() -> Result<Vec<Tool>, JsonError> {
    let definition = json!({
        "name": "send_email",
        "title": "Send an e-mail",
        "description": "Sends a plain-text e-mail to one address.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "to": { "type": "string", "pattern": "^[^@\\s]+@[^@\\s]+$", "maxLength": 254 },
                "subject": { "type": "string", "maxLength": 200 },
                "body": { "type": "string", "maxLength": 10_000 }
            },
            "required": ["to", "subject", "body"],
            "additionalProperties": false
        },
        "annotations": { "readOnlyHint": false, "destructiveHint": false, "openWorldHint": true }
    });
    let example =
        json!({ "to": "grace@shop.example", "subject": "Your refund", "body": "It is on its way." });
    Ok(vec![Tool::new(definition, ("medium", "write"), example)?])
}

#[derive(Debug)]
pub(super) struct Mailer;

#[async_trait]
impl Tools for Mailer {
    async fn run(&self, tool: &str, arguments: &Object, _: &Handed) -> Result<Value, String> {
        match tool {
            "send_email" => Ok(json!({ "accepted": [arguments.get("to")] })),
            _ => Err(format!("no tool {tool}")),
        }
    }
}
