//! What the server lists: the digest of each definition, and which arguments it wants in headers.
//!
//! A token for a call says which definition was approved. A tool that the server now describes otherwise is neither
//! called nor shown (S-17).

use super::{failure::Failure, mirrored::Mirrored};
use crate::ToolToken;
use deputize_call::{
    digest::{Digest, tool_digest},
    json::Object,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The tools as last listed.
#[derive(Default)]
pub(super) struct Tools(Mutex<State>);

#[derive(Default)]
struct State {
    live: BTreeMap<String, Arc<Tool>>,
    /// When the first page was read; `None` when it has to be read anew.
    listed: Option<Duration>,
    /// Definitions that are not the approved ones, until they are tried again.
    drifted: BTreeMap<String, (Digest, Duration)>,
}

/// One tool as it is listed.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) digest: Digest,
    pub(super) mirrored: Mirrored,
}

impl Tools {
    /// Takes note of a page of `tools/list`, and takes out of it what must not be shown.
    pub(super) fn screen(&self, result: &mut Object, is_first_page: bool, uptime: Duration) {
        let mut state = self.state();
        if is_first_page {
            state.live.clear();
            state.listed = Some(uptime);
        }
        state.drifted.retain(|_, (_, until)| *until > uptime);
        let Some(Value::Array(definitions)) = result.get_mut("tools") else { return };
        let mut seen = BTreeSet::new();
        definitions.retain(|definition| {
            let Some((name, tool)) = read(definition) else {
                tracing::warn!("tool with an unusable definition left out");
                return false;
            };
            if !seen.insert(name.clone()) {
                // Two definitions of one name: nobody can say which was approved.
                tracing::warn!(tool = name, "tool listed twice left out");
                state.live.remove(&name);
                return false;
            }
            let is_drifted = state.drifted.get(&name).is_some_and(|(digest, _)| *digest == tool.digest);
            if state.live.len() < MAX_TOOLS {
                state.live.insert(name, Arc::new(tool));
            }
            !is_drifted
        });
        // The first of two was kept above; it goes too.
        let live = &state.live;
        definitions.retain(|definition| name_of(definition).is_some_and(|name| live.contains_key(name)));
    }

    /// The tool of this name, if the list is fresh.
    pub(super) fn find(&self, name: &str, uptime: Duration) -> Option<Arc<Tool>> {
        let state = self.state();
        let is_fresh = state.listed.is_some_and(|listed| uptime.saturating_sub(listed) < FRESH);
        state.live.get(name).filter(|_| is_fresh).cloned()
    }

    /// The server says that its tools changed.
    pub(super) fn expire(&self) {
        self.state().listed = None;
    }

    /// Whether the token is for the tool as it is listed.
    pub(super) fn agrees(tool: &Tool, token: &ToolToken) -> bool {
        let granted = token.authorization_details().get(0).and_then(|detail| detail.get("tool_digest"));
        granted.and_then(Value::as_str) == Some(tool.digest.to_string().as_str())
    }

    /// From now on this definition is not shown.
    pub(super) fn hide(&self, name: &str, tool: &Tool, token: &ToolToken, uptime: Duration) -> Failure {
        let mut state = self.state();
        if state.drifted.len() < MAX_TOOLS {
            state.drifted.insert(name.to_owned(), (tool.digest, uptime + HIDDEN));
        }
        tracing::warn!(tool = name, "the tool's definition is not the approved one");
        Failure::Drifted { tool: name.to_owned(), decision_id: token.decision_id().to_owned() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(definition: &Value) -> Option<(String, Tool)> {
    let name = name_of(definition)?.to_owned();
    let definition = definition.as_object()?;
    let digest = tool_digest(definition).ok()?;
    // MCP 2026-07-28: a tool whose annotations break the rules is left out of the list.
    let mirrored = Mirrored::of(definition.get("inputSchema"))?;
    Some((name, Tool { digest, mirrored }))
}

fn name_of(definition: &Value) -> Option<&str> {
    definition.get("name").and_then(Value::as_str).filter(|name| name.len() <= MAX_NAME_BYTES)
}

/// After this a definition is looked at anew before its tool is called.
const FRESH: Duration = Duration::from_secs(300);
/// After this a hidden definition is shown again: it may have been approved.
const HIDDEN: Duration = Duration::from_secs(300);
const MAX_TOOLS: usize = 2_000;
const MAX_NAME_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(definitions: Value) -> Object {
        json!({ "tools": definitions }).as_object().cloned().unwrap()
    }

    fn names(page: &Object) -> Vec<&str> {
        page["tools"].as_array().unwrap().iter().filter_map(name_of).collect()
    }

    fn token(tool_digest: Value) -> ToolToken {
        let detail = json!([{ "tool_digest": tool_digest }]);
        ToolToken {
            access_token: String::new().into(),
            expires_in_seconds: 60,
            scope: String::new(),
            authorization_details: detail,
            transaction_id: String::new(),
            decision_id: "dec".to_owned(),
        }
    }

    #[test]
    fn what_cannot_be_pinned_is_not_shown() {
        let tools = Tools::default();
        let mut listed = page(json!([
            { "name": "good" },
            { "name": "twice", "description": "a" }, { "name": "twice", "description": "b" },
            { "description": "nameless" },
            { "name": "inexact", "annotations": { "n": 1e300 } },
            { "name": "header", "inputSchema": { "properties": { "a": { "type": "string", "x-mcp-header": "" } } } },
        ]));
        tools.screen(&mut listed, true, Duration::ZERO);
        assert_eq!(names(&listed), ["good"]);
        assert!(tools.find("good", Duration::ZERO).is_some());
        assert!(tools.find("twice", Duration::ZERO).is_none());
        assert!(tools.find("good", FRESH).is_none(), "an old list says nothing");
        tools.expire();
        assert!(tools.find("good", Duration::ZERO).is_none(), "nor does one that changed");
    }

    #[test]
    fn a_second_page_adds_and_a_first_one_begins_anew() {
        let tools = Tools::default();
        let there = |name| tools.find(name, Duration::ZERO).is_some();
        tools.screen(&mut page(json!([{ "name": "a" }])), true, Duration::ZERO);
        tools.screen(&mut page(json!([{ "name": "b" }])), false, Duration::ZERO);
        assert!(there("a") && there("b"));
        tools.screen(&mut page(json!([{ "name": "b" }])), true, Duration::ZERO);
        assert!(!there("a") && there("b"));
    }

    #[test]
    fn a_definition_that_was_not_approved_is_hidden_until_it_changes_or_time_passes() {
        let tools = Tools::default();
        let (bad, good) = (json!([{ "name": "a", "description": "pay me" }]), json!([{ "name": "a" }]));
        tools.screen(&mut page(bad.clone()), true, Duration::ZERO);
        let tool = tools.find("a", Duration::ZERO).unwrap();
        let approved = tool_digest(good[0].as_object().unwrap()).unwrap();
        assert!(!Tools::agrees(&tool, &token(json!(approved))));
        assert!(Tools::agrees(&tool, &token(json!(tool.digest))));
        assert!(!Tools::agrees(&tool, &token(Value::Null)), "a token that pins nothing");
        tools.hide("a", &tool, &token(json!(approved)), Duration::ZERO);
        let shown = |definitions: &Value, uptime| {
            let mut listed = page(definitions.clone());
            tools.screen(&mut listed, true, uptime);
            names(&listed).len()
        };
        assert_eq!(shown(&bad, Duration::ZERO), 0);
        assert_eq!(shown(&good, Duration::ZERO), 1);
        assert_eq!(shown(&bad, HIDDEN), 1, "it is tried again");
    }
}
