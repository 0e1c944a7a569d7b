//! Says what a rendered policy grants, for people to see. It reads the policies that are rendered here, not any policy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{
    ceiling::Pattern,
    policy::{Document, Effect, RESOURCE_ACCOUNT, Rule, Texts, utc},
};

/// What comes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The session may, where the role may.
    Allowed,
    /// Nothing allows it; a resource policy that names the session could.
    NotAllowed,
    /// It is denied, whatever any other policy says.
    Denied,
}

/// One request that was tried on the policy.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// Index of the statement in the template.
    pub statement: usize,
    /// What was tried.
    pub tried: &'static str,
    /// The action.
    pub action: String,
    /// On this resource.
    pub resource: String,
    /// What comes of it.
    pub verdict: Verdict,
}

/// Each statement's actions: on its resources, on a neighbour of each, on one of that name in another account where the
/// name alone does not say whose it is, and when the window is over.
pub(super) fn probes(document: &Document, window_end: u64) -> Vec<Probe> {
    let allows = document.statement.iter().filter(|rule| rule.effect == Effect::Allow).enumerate();
    let mut probes = Vec::new();
    for (statement, allow) in allows {
        for action in &allow.action.0 {
            for resource in &allow.resource.0 {
                let pattern = Pattern::rendered(resource);
                let own = pattern.sample("x");
                let in_window = context(allow, window_end.saturating_sub(1));
                let mut tried = vec![("in the window", own.clone(), in_window.clone())];
                if resource != "*" {
                    tried.push(("another resource", neighbour(resource), in_window.clone()));
                }
                let mut elsewhere = in_window;
                if let Some(account) = elsewhere.get_mut(RESOURCE_ACCOUNT) {
                    *account = vec![OTHER_ACCOUNT.to_owned()];
                    tried.push(("another account", own.clone(), elsewhere));
                }
                tried.push(("after the window", own, context(allow, window_end)));
                for (tried, resource, context) in tried {
                    let request = Request { action, resource: &resource, context };
                    let verdict = evaluate(document, &request);
                    probes.push(Probe { statement, tried, action: action.clone(), resource, verdict });
                }
            }
        }
    }
    probes
}

/// What comes of one request at this second.
pub(super) fn verdict(
    document: &Document,
    (action, resource): (&str, &str),
    mut context: BTreeMap<String, Vec<String>>,
    at_seconds: u64,
) -> Verdict {
    context.insert("aws:CurrentTime".to_owned(), vec![utc(at_seconds)]);
    evaluate(document, &Request { action, resource, context })
}

struct Request<'a> {
    action: &'a str,
    resource: &'a str,
    context: BTreeMap<String, Vec<String>>,
}

fn evaluate(document: &Document, request: &Request<'_>) -> Verdict {
    let has = |effect| document.statement.iter().any(|rule| rule.effect == effect && applies(rule, request));
    match (has(Effect::Deny), has(Effect::Allow)) {
        (true, _) => Verdict::Denied,
        (false, true) => Verdict::Allowed,
        (false, false) => Verdict::NotAllowed,
    }
}

fn applies(rule: &Rule, request: &Request<'_>) -> bool {
    let action = request.action.to_ascii_lowercase();
    let names_action =
        |texts: &Texts| texts.0.iter().any(|text| Pattern::new(&text.to_ascii_lowercase()).admits(&action));
    let names_resource =
        |texts: &Texts| texts.0.iter().any(|text| Pattern::rendered(text).admits(request.resource));
    let conditions = rule
        .condition
        .iter()
        .flat_map(|(operator, keys)| keys.iter().map(move |(key, wanted)| (*operator, key, wanted)));
    (names_action(&rule.action) || !rule.not_action.0.is_empty() && !names_action(&rule.not_action))
        && (names_resource(&rule.resource)
            || !rule.not_resource.0.is_empty() && !names_resource(&rule.not_resource))
        && conditions.into_iter().all(|(operator, key, wanted)| {
            holds(operator, request.context.get(key).map_or(&[][..], Vec::as_slice), &wanted.0)
        })
}

/// Whether a condition holds for the values that the request has for its key.
fn holds(operator: &str, had: &[String], wanted: &[String]) -> bool {
    let equals = |had: &String| wanted.iter().any(|wanted| Pattern::rendered(wanted).sample("*") == *had);
    let like = |had: &String| wanted.iter().any(|wanted| Pattern::rendered(wanted).admits(had));
    let first = had.first();
    let compare =
        |test: fn(&str, &str) -> bool| first.is_some_and(|had| wanted.iter().any(|wanted| test(had, wanted)));
    match operator {
        "StringEquals" => first.is_some_and(equals),
        // A comparison that is negated holds where the key is missing.
        "StringNotEquals" => !first.is_some_and(equals),
        "StringLike" => first.is_some_and(like),
        "StringNotLike" => !first.is_some_and(like),
        "ForAllValues:StringEquals" => had.iter().all(equals),
        "ForAnyValue:StringNotEquals" => had.iter().any(|had| !equals(had)),
        // Times of one form are in the order of their texts.
        "DateLessThan" => compare(|had, wanted| had < wanted),
        "DateGreaterThanEquals" => compare(|had, wanted| had >= wanted),
        "NumericLessThanEquals" => compare(|had, wanted| number(had) <= number(wanted)),
        "NumericGreaterThan" => compare(|had, wanted| number(had) > number(wanted)),
        "Null" => wanted.iter().any(|wanted| (wanted == "true") == had.is_empty()),
        _ => false,
    }
}

/// A request that satisfies the conditions of a statement, at this time.
fn context(allow: &Rule, now: u64) -> BTreeMap<String, Vec<String>> {
    let mut context = BTreeMap::new();
    for keys in allow.condition.iter().filter(|(operator, _)| **operator != "Null").map(|(_, keys)| keys) {
        for (key, wanted) in keys {
            let value = wanted.0.first().map(|wanted| Pattern::rendered(wanted).sample("x"));
            context.insert(key.clone(), value.into_iter().collect());
        }
    }
    context.insert("aws:CurrentTime".to_owned(), vec![utc(now)]);
    context
}

/// A resource that differs from what is named by its last character before any wildcard.
fn neighbour(resource: &str) -> String {
    let named = Pattern::rendered(
        resource.strip_suffix('*').filter(|rest| !rest.ends_with("${")).unwrap_or(resource),
    );
    let mut text = named.sample("x");
    let last = text.pop();
    text.push(if last == Some('0') { '1' } else { '0' });
    text
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// No account has it: accounts are 12 digits.
const OTHER_ACCOUNT: &str = "another";
