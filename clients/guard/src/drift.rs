//! How a tool differs from what was approved (S-18), for who has to review it.

use deputize_call::{
    action::Action,
    digest::{Digest, PINNED_PROMPT_MEMBERS, PINNED_TOOL_MEMBERS},
    json::Object,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

use crate::{
    event::{Event, EventKind, MAX_DETAIL_BYTES},
    guard::digest_of,
};

/// A tool or prompt whose live definition is not the approved one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Its name.
    #[serde(skip)]
    pub tool: String,
    /// What it is.
    #[serde(skip, default = "a_tool")]
    pub action: Action,
    /// Digest of the approved definition.
    pub approved: Digest,
    /// Digest of the live one; absent where it cannot be digested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Digest>,
    /// What changed, in the order of the pointers.
    pub changes: Vec<Change>,
    /// Changes beyond those that found room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

/// One place in a definition that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where (JSON Pointer, RFC 6901).
    pub at: String,
    /// What was approved; absent if there was nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Value>,
    /// What is there now; absent if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Value>,
}

impl Drift {
    /// The difference, or `None` if there is none. Only members that the digest pins are compared.
    pub(crate) fn between(
        action: Action,
        (approved, approved_digest): (&Object, Digest),
        live: &Object,
    ) -> Option<Self> {
        let live_digest = digest_of(action, live).ok();
        if live_digest == Some(approved_digest) {
            return None;
        }
        let mut changes = Vec::new();
        let pinned: &[&str] = match action {
            Action::GetPrompt => &PINNED_PROMPT_MEMBERS,
            Action::CallTool | Action::ReadResource => &PINNED_TOOL_MEMBERS,
        };
        for name in pinned {
            compare(&format!("/{name}"), approved.get(*name), live.get(*name), &mut changes);
        }
        let tool = approved.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut drift = Self { tool, action, approved: approved_digest, live: live_digest, changes, more: 0 };
        // Where it is in the way of the digest alone (too deep, a number out of range) no change may be found.
        while serde_json::to_string(&drift).map_or(0, |text| text.len()) > MAX_DETAIL_BYTES {
            drift.changes.pop()?;
            drift.more += 1;
        }
        Some(drift)
    }

    /// As the event that stops the tool's issuance.
    pub fn into_event(self) -> Event {
        let detail = serde_json::to_value(&self).ok();
        Event { detail, ..Event::new(EventKind::Drifted).about(self.action, &self.tool) }
    }
}

/// Objects member by member; everything else as a whole, cut to what a reviewer can take in.
fn compare(at: &str, approved: Option<&Value>, live: Option<&Value>, changes: &mut Vec<Change>) {
    match (approved, live) {
        (approved, live) if approved == live || changes.len() >= MAX_CHANGES => {}
        (Some(Value::Object(approved)), Some(Value::Object(live))) => {
            let names: BTreeSet<&String> = approved.keys().chain(live.keys()).collect();
            for name in names {
                let segment = name.replace('~', "~0").replace('/', "~1");
                compare(&format!("{at}/{segment}"), approved.get(name), live.get(name), changes);
            }
        }
        (approved, live) => {
            let at = at.chars().take(MAX_TEXT_CHARS).collect();
            changes.push(Change { at, approved: approved.map(excerpt), live: live.map(excerpt) });
        }
    }
}

fn excerpt(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= MAX_TEXT_CHARS {
        return value.clone();
    }
    Value::String(text.chars().take(MAX_TEXT_CHARS).chain("…".chars()).collect())
}

fn a_tool() -> Action {
    Action::CallTool
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

const MAX_CHANGES: usize = 100;
const MAX_TEXT_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::digest::tool_digest;
    use serde_json::json;

    fn definition() -> Value {
        json!({ "name": "pay", "description": "Pays.", "_meta": { "x": 1 },
            "inputSchema": { "type": "object", "properties": { "to/from": { "type": "string" } } } })
    }

    fn drift(live: &Value) -> Option<Drift> {
        let approved = definition();
        let approved = approved.as_object().unwrap();
        let digest = tool_digest(approved).unwrap();
        Drift::between(Action::CallTool, (approved, digest), live.as_object().unwrap())
    }

    #[test]
    fn each_change_is_named_by_its_place() {
        let mut live = definition();
        assert_eq!(drift(&live), None);
        live["_meta"] = json!(2);
        assert_eq!(drift(&live), None, "not pinned");
        live["description"] = json!("Pays. Always.");
        live["inputSchema"]["properties"]["to/from"]["type"] = json!("number");
        live["annotations"] = json!({ "readOnlyHint": true });
        let drift = drift(&live).unwrap();
        let change = |at: &str, approved, live| Change { at: at.to_owned(), approved, live };
        assert_eq!(
            drift.changes,
            [
                change("/description", Some(json!("Pays.")), Some(json!("Pays. Always."))),
                change("/inputSchema/properties/to~1from/type", Some(json!("string")), Some(json!("number"))),
                change("/annotations", None, Some(json!({ "readOnlyHint": true }))),
            ]
        );
        let event = drift.into_event();
        assert_eq!((event.kind, event.tool.as_deref()), (EventKind::Drifted, Some("pay")));
        assert_eq!(event.detail.unwrap()["changes"][0]["at"], "/description");
    }

    #[test]
    fn a_difference_of_any_size_fits_into_its_event() {
        let mut live = definition();
        live["description"] = json!("long ".repeat(10_000));
        for n in 0..5000 {
            live["inputSchema"]["properties"][format!("p{n}")] = json!({ "type": "string" });
        }
        let drift = drift(&live).unwrap();
        assert!(drift.more > 0 && !drift.changes.is_empty());
        assert!(drift.into_event().detail.unwrap().to_string().len() <= MAX_DETAIL_BYTES);
    }

    #[test]
    fn what_cannot_be_digested_has_drifted() {
        let mut live = definition();
        live["inputSchema"]["maximum"] = json!(1e300);
        assert_eq!(drift(&live).unwrap().live, None);
    }
}
