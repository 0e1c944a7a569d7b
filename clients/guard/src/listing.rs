//! What a caller sees of the server's lists, and what is said when something is no longer what was approved.
//!
//! A list shows what was approved ∩ what the server lists now ∩ what the caller's token says that he could use. A token
//! that says nothing of that shows nothing.

use crate::{
    guard::{Guard, digest_of},
    refusal::Reason,
    snapshot::{Pinned, Snapshot},
};
use deputize_call::{action::Action, claims::ToolCallClaims, json::Object, resource};
use serde_json::Value;
use std::{collections::BTreeMap, sync::PoisonError};

/// A list as a caller may see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Visible {
    /// The definitions, as they were approved.
    pub definitions: Vec<Value>,
    /// Whether the answer held something approved with another definition than the approved one.
    pub drifted: bool,
}

impl Guard {
    /// Reduces the `tools` of a `tools/list` answer, or the `prompts` of a `prompts/list` answer, to those that are
    /// approved, that stand in this very answer as they were approved, and that this caller may see. What is shown are
    /// the approved definitions: members that the digest does not cover are not the server's to choose.
    pub fn visible(
        &self,
        action: Action,
        claims: &ToolCallClaims,
        answered: &[Value],
        now_seconds: u64,
    ) -> Result<Visible, Reason> {
        let snapshot = self.current_snapshot(now_seconds)?;
        let name_of = |definition: &&Object| -> String {
            definition.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for definition in answered.iter().filter_map(Value::as_object) {
            *times.entry(name_of(&definition)).or_default() += 1;
        }
        let mut visible = Visible::default();
        for definition in answered.iter().filter_map(Value::as_object) {
            let name = name_of(&definition);
            let Some(tool) = snapshot.pinned(action, &name) else { continue };
            // A name that stands twice is no definition of anything.
            let is_single = times.get(&name) == Some(&1);
            if !is_single || digest_of(action, definition).ok() != Some(tool.digest) {
                visible.drifted = true;
            } else if self.is_visible(&snapshot, claims, action, &name) {
                visible.definitions.push(Value::Object(tool.definition.clone()));
            }
        }
        Ok(visible)
    }

    /// Reduces the `resources` of a `resources/list` answer to those that an approved entry names and that this caller
    /// may see. Of what the server says of each, only media type and size are shown; its texts are the approved ones.
    pub fn visible_resources(
        &self,
        claims: &ToolCallClaims,
        answered: &[Value],
        now_seconds: u64,
    ) -> Result<Vec<Value>, Reason> {
        let snapshot = self.current_snapshot(now_seconds)?;
        let shown = answered.iter().filter_map(|live| {
            let uri = live.get("uri")?.as_str()?;
            let (entry, pinned) = snapshot.entry_of(uri)?;
            let is_visible = self.is_visible(&snapshot, claims, Action::ReadResource, entry);
            is_visible.then(|| described(("uri", uri), pinned, live))
        });
        Ok(shown.collect())
    }

    /// Reduces the `resourceTemplates` of a `resources/templates/list` answer to those whose every expansion begins with
    /// an approved prefix that this caller may see.
    pub fn visible_templates(
        &self,
        claims: &ToolCallClaims,
        answered: &[Value],
        now_seconds: u64,
    ) -> Result<Vec<Value>, Reason> {
        let snapshot = self.current_snapshot(now_seconds)?;
        let shown = answered.iter().filter_map(|live| {
            let template = live.get("uriTemplate")?.as_str()?;
            // RFC 6570 §2.1: what stands before the first expression is in every expansion as it stands.
            let literal = template.split('{').next()?;
            let is_plain =
                template.len() <= resource::MAX_URI_BYTES && template.bytes().all(|b| b.is_ascii_graphic());
            let within = |(entry, _): &(&str, &Pinned)| {
                resource::prefix_of(entry).is_some_and(|prefix| literal.starts_with(prefix))
            };
            // The most exact entry decides, and one that is switched off gives way to no wider one.
            let (entry, pinned) = snapshot.resources().filter(within).max_by_key(|(entry, _)| entry.len())?;
            let is_visible =
                pinned.enabled && self.is_visible(&snapshot, claims, Action::ReadResource, entry);
            (is_plain && is_visible).then(|| described(("uriTemplate", template), pinned, live))
        });
        Ok(shown.collect())
    }

    /// Whether this caller may see something at all: his token says so, and nobody switched it off since.
    fn is_visible(&self, snapshot: &Snapshot, claims: &ToolCallClaims, action: Action, name: &str) -> bool {
        let [detail] = &claims.authorization_details;
        let is_shown =
            detail.shown.as_ref().is_some_and(|shown| snapshot.offers().is_shown(shown, action, name));
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        is_shown
            && !(action == Action::CallTool && revocations.has_tool(name))
            && !revocations.has_everything()
    }
}

/// A resource or template as it is shown: `name` is required (MCP, "Resource").
fn described((named_by, uri): (&str, &str), pinned: &Pinned, live: &Value) -> Value {
    let mut shown = Object::new();
    shown.insert(named_by.to_owned(), uri.into());
    shown.insert("name".to_owned(), uri.into());
    for member in ["name", "title", "description"] {
        if let Some(approved) = pinned.definition.get(member) {
            shown.insert(member.to_owned(), approved.clone());
        }
    }
    if let Some(media) = live.get("mimeType").and_then(Value::as_str).filter(|media| is_media_type(media)) {
        shown.insert("mimeType".to_owned(), media.into());
    }
    if let Some(size) = live.get("size").and_then(Value::as_u64) {
        shown.insert("size".to_owned(), size.into());
    }
    Value::Object(shown)
}

/// RFC 9110 §8.3.1, without parameters but for what a charset needs: nothing that could be read as a sentence.
fn is_media_type(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-/;=".contains(&byte);
    text.len() <= MAX_MEDIA_BYTES && text.contains('/') && text.bytes().all(is_plain)
}

const MAX_MEDIA_BYTES: usize = 128;
