//! Proposes a risk tier for a tool that nobody has reviewed (S-15). What the server says of it can only raise the
//! tier: annotations are claims of the server (MCP, "Tool annotations"), and a name is a claim too.

use deputize_call::json::Object;
use serde::Serialize;
use serde_json::Value;

use super::{Effect, Tier};

/// A proposal, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// Medium or high: low and critical are for people to choose.
    pub tier: Tier,
    /// Always that it writes: that it only reads is for people to see.
    pub effect: Effect,
    /// Why, in words; at least one.
    pub reasons: Vec<String>,
}

/// Looks at a definition's annotations, its name, and the names of its arguments.
pub fn propose(definition: &Object) -> Proposal {
    let mut reasons = Vec::new();
    let hint =
        |name: &str| definition.get("annotations").and_then(|all| all.get(name)).and_then(Value::as_bool);
    if hint("destructiveHint") == Some(true) {
        reasons.push("it says that it destroys (destructiveHint)".to_owned());
    }
    if hint("openWorldHint") == Some(true) {
        reasons.push("it says that it reaches the open world (openWorldHint)".to_owned());
    }
    let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
    let verbs = words(name);
    if let Some(verb) = verbs.iter().find(|word| GRAVE_VERBS.contains(&word.as_str())) {
        reasons.push(format!("its name has {verb:?}"));
    }
    let arguments = definition.get("inputSchema").and_then(|schema| schema.get("properties"));
    let arguments = arguments.and_then(Value::as_object).into_iter().flat_map(Object::keys);
    let grave =
        |argument: &&String| words(argument).iter().any(|word| GRAVE_ARGUMENTS.contains(&word.as_str()));
    if let Some(argument) = arguments.take(MAX_ARGUMENTS).find(grave) {
        reasons.push(format!("its argument {argument:?} can be made to do anything"));
    }
    let tier = if reasons.is_empty() { Tier::Medium } else { Tier::High };
    if reasons.is_empty() {
        reasons.push("nobody has reviewed it".to_owned());
    }
    if hint("readOnlyHint") == Some(true) {
        reasons
            .push("it says that it only reads: set effect: read once you have seen that it does".to_owned());
    }
    Proposal { tier, effect: Effect::Write, reasons }
}

/// The words of `delete_all`, `deleteAll`, `DELETE-ALL`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in name.chars().take(MAX_NAME) {
        if !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

const GRAVE_VERBS: &[&str] = &[
    "delete",
    "remove",
    "drop",
    "destroy",
    "wipe",
    "purge",
    "erase",
    "truncate",
    "overwrite",
    "transfer",
    "pay",
    "refund",
    "charge",
    "withdraw",
    "buy",
    "sell",
    "send",
    "publish",
    "post",
    "email",
    "execute",
    "exec",
    "run",
    "eval",
    "shell",
    "deploy",
    "grant",
    "revoke",
    "approve",
    "merge",
    "shutdown",
    "reboot",
    "kill",
    "terminate",
    "export",
    "impersonate",
    "sudo",
    "admin",
    "reset",
];
const GRAVE_ARGUMENTS: &[&str] = &[
    "command",
    "cmd",
    "shell",
    "script",
    "code",
    "sql",
    "statement",
    "expression",
    "url",
    "uri",
    "webhook",
    "endpoint",
];
const MAX_ARGUMENTS: usize = 1000;
const MAX_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tier(definition: Value) -> Tier {
        propose(definition.as_object().unwrap()).tier
    }

    #[test]
    fn claims_raise_a_tier_and_never_lower_it() {
        for (annotations, expected) in [
            (json!({}), Tier::Medium),
            (json!({ "readOnlyHint": true, "openWorldHint": false, "destructiveHint": false }), Tier::Medium),
            (json!({ "destructiveHint": true }), Tier::High),
            (json!({ "readOnlyHint": true, "openWorldHint": true }), Tier::High),
            (json!({ "readOnlyHint": true, "destructiveHint": true }), Tier::High),
            (json!({ "destructiveHint": "yes" }), Tier::Medium),
        ] {
            let definition = json!({ "name": "lookup", "annotations": annotations });
            let proposal = propose(definition.as_object().unwrap());
            assert_eq!((proposal.tier, proposal.effect), (expected, Effect::Write), "{definition}");
            assert!(!proposal.reasons.is_empty());
        }
        assert_eq!(tier(json!({})), Tier::Medium);
        // A harmless claim does not help a grave name.
        let claims = json!({ "name": "delete_all", "annotations": { "readOnlyHint": true } });
        assert_eq!(tier(claims), Tier::High);
    }

    #[test]
    fn grave_names_and_arguments_raise_it() {
        for name in ["delete_user", "deleteUser", "DELETE-USER", "user.delete", "run", "sendEmail"] {
            assert_eq!(tier(json!({ "name": name })), Tier::High, "{name}");
        }
        for name in ["undeleted_items", "prune_preview", "runtime_info", "sender_of", "lookup"] {
            assert_eq!(tier(json!({ "name": name })), Tier::Medium, "{name}");
        }
        let with = |argument: &str| json!({ "name": "x", "inputSchema": { "properties": { argument: {} } } });
        assert_eq!(tier(with("shellCommand")), Tier::High);
        assert_eq!(tier(with("callback_url")), Tier::High);
        assert_eq!(tier(with("customer_id")), Tier::Medium);
    }
}
