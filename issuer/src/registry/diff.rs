//! What changed between two versions of a server's tools, place by place and word by word (S-18). Pure and bounded:
//! whoever wrote the definitions chose their size, not how much of them is shown.

#[cfg(test)]
mod tests;
mod words;

pub use words::Piece;

use deputize_call::{
    action::Action,
    digest::{PINNED_PROMPT_MEMBERS, PINNED_RESOURCE_MEMBERS, PINNED_TOOL_MEMBERS},
    json::Object,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use words::shortened;

/// Everything that differs. Empty exactly where both sides have the same tool digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ManifestDiff {
    /// In the order of the tools' names, then of the places.
    pub changes: Vec<Change>,
    /// How many more there are than are listed.
    pub omitted: usize,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The tool, `prompt NAME` or `resource URI`; of a renamed one the new name.
    pub tool: String,
    /// What happened.
    pub kind: ChangeKind,
    /// Where in the definition: a JSON Pointer (RFC 6901), empty for the whole tool.
    pub pointer: String,
    /// What was and what is there, with what stands around it.
    pub words: Vec<Piece>,
}

/// What happened at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A tool, prompt or resource is new.
    ToolAdded,
    /// A tool, prompt or resource is gone.
    ToolRemoved,
    /// A tool or prompt has another name and is the same otherwise.
    ToolRenamed,
    /// Something stands where nothing stood.
    Added,
    /// Something is gone.
    Removed,
    /// Something reads differently.
    Changed,
}

/// Compares two lists of definitions as `tools/list` gives them, by name; their order does not count, and neither do
/// members that no tool digest covers.
pub fn diff(before: &[&Object], after: &[&Object]) -> ManifestDiff {
    diff_of(Action::CallTool, before, after)
}

/// Compares definitions of prompts as `prompts/list` gives them, or entries of resources as the registry shows them.
pub fn diff_of(action: Action, before: &[&Object], after: &[&Object]) -> ManifestDiff {
    let (key, pinned): (_, &[&str]) = match action {
        Action::CallTool => ("name", &PINNED_TOOL_MEMBERS),
        Action::GetPrompt => ("name", &PINNED_PROMPT_MEMBERS),
        Action::ReadResource => ("uri", &PINNED_RESOURCE_MEMBERS),
    };
    let (old, new) = (by(key, before), by(key, after));
    let mut found = Found { action: Some(action), ..Found::default() };
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let nothing = Vec::new();
        let (was, is) = (old.get(name).unwrap_or(&nothing), new.get(name).unwrap_or(&nothing));
        for at in 0..was.len().max(is.len()) {
            match (was.get(at), is.get(at)) {
                (Some(was), Some(is)) => {
                    for member in pinned {
                        compare(name, &format!("/{member}"), (was.get(*member), is.get(*member)), &mut found);
                    }
                }
                (Some(was), None) => gone.push((name, *was)),
                (None, Some(is)) => come.push((name, *is)),
                (None, None) => {}
            }
        }
    }
    pair_renamed((key, pinned), gone, come, &mut found);
    found.diff.changes.sort_by(|one, other| (&one.tool, &one.pointer).cmp(&(&other.tool, &other.pointer)));
    found.diff
}

/// Compares any two documents, member by member, under one name.
pub fn diff_documents(name: &str, before: &Value, after: &Value) -> ManifestDiff {
    let mut found = Found::default();
    compare(name, "", (Some(before), Some(after)), &mut found);
    found.diff
}

impl ManifestDiff {
    /// With what changed elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.omitted += other.omitted;
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.omitted == 0
    }

    /// As JSON of at most `max_bytes` (and never less than an empty diff needs): what does not fit is counted.
    pub fn to_json_within(&self, max_bytes: usize) -> Value {
        let mut room = max_bytes.saturating_sub(EMPTY_JSON_BYTES);
        let mut changes = Vec::new();
        for change in &self.changes {
            let Ok(text) = serde_json::to_string(change) else { break };
            let Some(left) = room.checked_sub(text.len() + 1) else { break };
            room = left;
            changes.push(json!(change));
        }
        json!({ "omitted": self.omitted + (self.changes.len() - changes.len()), "changes": changes })
    }
}

/// Names should be unique; where they are not, each definition counts.
fn by<'d>(key: &str, definitions: &[&'d Object]) -> BTreeMap<&'d str, Vec<&'d Object>> {
    let mut map: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for definition in definitions {
        let name = definition.get(key).and_then(Value::as_str).unwrap_or_default();
        map.entry(name).or_default().push(definition);
    }
    map
}

/// A tool that is gone and one that is new are the same under another name if nothing else differs.
fn pair_renamed(
    (key, pinned): (&str, &[&str]),
    gone: Vec<(&&str, &Object)>,
    mut come: Vec<(&&str, &Object)>,
    found: &mut Found,
) {
    let same_but_for_its_name = |was: &Object, is: &Object| {
        // A resource has nothing but its URI that would tell it from another.
        let others = pinned.iter().filter(|member| **member != key);
        others.into_iter().all(|member| same(was.get(*member), is.get(*member)))
    };
    for (old_name, was) in gone {
        let renamed = come.iter().position(|(_, is)| key == "name" && same_but_for_its_name(was, is));
        if let Some(at) = renamed {
            let (new_name, _) = come.swap_remove(at);
            let words = vec![Piece::Removed(shortened(old_name)), Piece::Added(shortened(new_name))];
            found.add(new_name, ChangeKind::ToolRenamed, "/name", words);
        } else {
            found.add(old_name, ChangeKind::ToolRemoved, "", vec![Piece::Removed(described(was))]);
        }
    }
    for (name, is) in come {
        found.add(name, ChangeKind::ToolAdded, "", vec![Piece::Added(described(is))]);
    }
}

/// What stands at one place on both sides.
fn compare(tool: &str, pointer: &str, sides: (Option<&Value>, Option<&Value>), found: &mut Found) {
    match sides {
        (None, None) => {}
        (None, Some(is)) => {
            found.add(tool, ChangeKind::Added, pointer, vec![Piece::Added(shortened(&text(is)))]);
        }
        (Some(was), None) => {
            found.add(tool, ChangeKind::Removed, pointer, vec![Piece::Removed(shortened(&text(was)))]);
        }
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
                compare(tool, &format!("{pointer}/{}", escaped(name)), (was.get(name), is.get(name)), found);
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(is))) => {
            compare_arrays(tool, pointer, (was, is), found);
        }
        (Some(Value::String(was)), Some(Value::String(is))) => {
            if was != is {
                found.add(tool, ChangeKind::Changed, pointer, words::compare(was, is));
            }
        }
        (Some(was), Some(is)) => {
            if !same(Some(was), Some(is)) {
                // Quotes and all: `"1"` is not `1`.
                let words = vec![
                    Piece::Removed(shortened(&was.to_string())),
                    Piece::Added(shortened(&is.to_string())),
                ];
                found.add(tool, ChangeKind::Changed, pointer, words);
            }
        }
    }
}

/// An item that is put in or taken out does not make all that follow differ.
fn compare_arrays(tool: &str, pointer: &str, (was, is): (&[Value], &[Value]), found: &mut Found) {
    let alike = |(one, other): &(&Value, &Value)| same(Some(one), Some(other));
    let before = was.iter().zip(is).take_while(alike).count();
    let (was, is) = (was.get(before..).unwrap_or_default(), is.get(before..).unwrap_or_default());
    let after = was.iter().rev().zip(is.iter().rev()).take_while(alike).count();
    let was = was.get(..was.len() - after).unwrap_or_default();
    let is = is.get(..is.len() - after).unwrap_or_default();
    for at in 0..was.len().max(is.len()) {
        compare(tool, &format!("{pointer}/{}", before + at), (was.get(at), is.get(at)), found);
    }
}

/// Equal as RFC 8785 would write it: the order of members does not count, and `1.0` is `1`.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => {
            one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            one.len() == other.len() && one.iter().all(|(name, value)| same(Some(value), other.get(name)))
        }
        (one, other) => one == other,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a tool says of itself.
fn described(definition: &Object) -> String {
    let says = |member| definition.get(member).and_then(Value::as_str);
    let said = says("description").or(says("title")).or(says("uri"));
    shortened(said.unwrap_or("(no description)"))
}

/// RFC 6901 §3.
pub(super) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

#[derive(Default)]
struct Found {
    diff: ManifestDiff,
    /// What kind of thing is compared.
    action: Option<Action>,
}

impl Found {
    fn add(&mut self, tool: &str, kind: ChangeKind, pointer: &str, words: Vec<Piece>) {
        if self.diff.changes.len() == MAX_CHANGES {
            self.diff.omitted += 1;
            return;
        }
        let tool = match self.action {
            Some(action @ (Action::GetPrompt | Action::ReadResource)) => format!("{} {tool}", action.noun()),
            Some(Action::CallTool) | None => tool.to_owned(),
        };
        let (tool, pointer) = (shortened(&tool), shortened(pointer));
        self.diff.changes.push(Change { tool, kind, pointer, words });
    }
}

const MAX_CHANGES: usize = 1000;
/// `{"changes":[],"omitted":…}` with the largest number.
const EMPTY_JSON_BYTES: usize = 48;
