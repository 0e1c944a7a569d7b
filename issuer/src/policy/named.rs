//! Whether policies name what the registry has. Cedar takes any name, and what no entity has matches nothing: a `forbid`
//! on a folder without an entry, or on a misspelt tool, would silently forbid nothing.

use super::{PolicyEngine, PolicyError, PolicyFile};
use crate::registry::{Registry, Server};
use deputize_call::action::Action;
use std::collections::{BTreeSet, HashMap};

impl PolicyEngine {
    /// What policies name, of servers that are registered, and no record has: tools, prompts and resources. `files` are
    /// those that the policies were loaded from. A server that is not registered (yet) can have anything.
    pub fn unknown_names(&self, files: &[PolicyFile], registry: &Registry) -> Vec<PolicyError> {
        let servers: HashMap<&str, &Server> =
            registry.servers().map(|server| (server.record.id.as_str(), server.as_ref())).collect();
        let mut errors = Vec::new();
        for loaded in self.policies.values() {
            let Some(file) = files.get(loaded.file) else { continue };
            let names: BTreeSet<_> = loaded.policy.entity_literals().into_iter().collect();
            for uid in names {
                let Some(action) = action_of(uid.type_name().basename()) else { continue };
                let shown = uid.to_string();
                let Some((problem, help)) = problem_of(action, uid.id().unescaped(), &shown, &servers) else {
                    continue;
                };
                // Cedar writes the id as the file most probably has it.
                let quoted = shown.find('"').and_then(|quote| shown.get(quote..)).unwrap_or(&shown);
                let after = file.text.get(loaded.offset..).and_then(|rest| rest.find(quoted));
                let (offset, length) =
                    after.map_or((loaded.offset, 1), |at| (loaded.offset + at, quoted.chars().count()));
                errors.push(file.error_at(offset, length, &problem).help(&help));
            }
        }
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        errors
    }
}

/// What is wrong with a name, and what to do.
fn problem_of(
    action: Action,
    id: &str,
    shown: &str,
    servers: &HashMap<&str, &Server>,
) -> Option<(String, String)> {
    let Some((server, name)) = id.split_once('#') else {
        let problem = format!("{shown} names no server: nothing is called so");
        return Some((problem, "write the server's id, `#`, and the name".to_owned()));
    };
    let server = servers.get(server)?;
    if has(server, action, name) {
        return None;
    }
    let id = &server.record.id;
    let kind = kind_of(action);
    let nearest = names(server, action)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= 3)
        .min_by_key(|(distance, _)| *distance);
    let problem = format!("server {id:?} has no {kind} {name:?}: this matches nothing");
    let meant = nearest.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
    let help = match action {
        Action::ReadResource => format!("give it an entry among the record's `resources`{meant}"),
        Action::CallTool | Action::GetPrompt => {
            format!("`deputize registry show {id}` lists what it has{meant}")
        }
    };
    Some((problem, help))
}

fn has(server: &Server, action: Action, name: &str) -> bool {
    match action {
        Action::CallTool | Action::GetPrompt => server.offer(action, name).is_some(),
        // One thing below a prefix is as good as an entry; what ends in `*` is meant for many, and only an entry is.
        Action::ReadResource => {
            server.resources().any(|entry| entry.name == name)
                || (!name.ends_with('*') && server.resource(name).is_some())
        }
    }
}

fn names(server: &Server, action: Action) -> impl Iterator<Item = &str> {
    server.all().filter(move |offer| offer.action == action).map(|offer| offer.name.as_str())
}

/// The action on entities of this type of the schema.
fn action_of(kind: &str) -> Option<Action> {
    match kind {
        "Tool" => Some(Action::CallTool),
        "Prompt" => Some(Action::GetPrompt),
        "Resource" => Some(Action::ReadResource),
        _ => None,
    }
}

fn kind_of(action: Action) -> &'static str {
    match action {
        Action::CallTool => "tool",
        Action::GetPrompt => "prompt",
        Action::ReadResource => "resource",
    }
}
