//! A plain reading of IAM's evaluation: an explicit Deny wins, else an Allow is needed. It reads JSON, and shares nothing
//! with the code that makes policies. The engine on the package registry (iam-rs 0.8) takes `${*}` for a variable
//! without a value, so it cannot judge escapes.

use serde_json::Value;
use std::collections::BTreeMap;

/// A request: action, resource, and the values of condition keys.
#[derive(Debug, Clone)]
pub struct Request {
    pub action: String,
    pub resource: String,
    pub context: BTreeMap<String, Vec<String>>,
}

/// A policy, taken apart once for many requests.
pub struct Policy(Vec<Statement>);

struct Statement {
    effect: String,
    actions: Among,
    resources: Among,
    conditions: Vec<Condition>,
}

/// What fits one of these, or (`NotAction`, `NotResource`) none.
struct Among {
    patterns: Vec<Vec<Piece>>,
    others: bool,
}

struct Condition {
    operator: String,
    key: String,
    wanted: Wanted,
}

/// The values that a condition names: as patterns, and as they stand.
struct Wanted {
    patterns: Vec<Vec<Piece>>,
    texts: Vec<String>,
}

impl Policy {
    /// Reads a policy as STS is sent it.
    pub fn read(text: &str) -> Self {
        let policy: Value = serde_json::from_str(text).unwrap();
        Self(policy["Statement"].as_array().unwrap().iter().map(Statement::of).collect())
    }
}

/// Whether a statement with this effect applies.
pub fn has(policy: &Policy, effect: &str, request: &Request) -> bool {
    let action: Vec<char> = request.action.to_lowercase().chars().collect();
    let resource: Vec<char> = request.resource.chars().collect();
    policy.0.iter().any(|statement| {
        statement.effect == effect
            && statement.actions.has(&action)
            && statement.resources.has(&resource)
            && statement.conditions.iter().all(|condition| condition.holds(request))
    })
}

/// Whether the session may, by its session policy.
pub fn grants(policy: &Policy, request: &Request) -> bool {
    has(policy, "Allow", request) && !has(policy, "Deny", request)
}

impl Statement {
    fn of(statement: &Value) -> Self {
        let among = |member: &str, not: &str, change: fn(&str) -> String| {
            let others = statement[member].is_null();
            let patterns = list(&statement[if others { not } else { member }]);
            Among { patterns: patterns.iter().map(|pattern| pieces(&change(pattern))).collect(), others }
        };
        let conditions = statement["Condition"].as_object().into_iter().flatten();
        Self {
            effect: statement["Effect"].as_str().unwrap().to_owned(),
            actions: among("Action", "NotAction", str::to_lowercase),
            resources: among("Resource", "NotResource", str::to_owned),
            conditions: conditions
                .flat_map(|(operator, keys)| {
                    keys.as_object().unwrap().iter().map(|(key, wanted)| Condition {
                        operator: operator.clone(),
                        key: key.clone(),
                        wanted: Wanted::of(list(wanted)),
                    })
                })
                .collect(),
        }
    }
}

impl Among {
    fn has(&self, text: &[char]) -> bool {
        self.patterns.iter().any(|pattern| like(pattern, text)) != self.others
    }
}

impl Condition {
    fn holds(&self, request: &Request) -> bool {
        let had = request.context.get(&self.key).map(Vec::as_slice).unwrap_or_default();
        condition_holds(&self.operator, had, &self.wanted)
    }
}

impl Wanted {
    fn of(values: Vec<String>) -> Self {
        let patterns: Vec<Vec<Piece>> = values.iter().map(|value| pieces(value)).collect();
        Self { texts: patterns.iter().map(|pattern| literal(pattern)).collect(), patterns }
    }
}

fn condition_holds(operator: &str, had: &[String], wanted: &Wanted) -> bool {
    let first = || wanted.texts[0].as_str();
    let is = |had: &String| wanted.texts.contains(had);
    let is_like = |had: &String| {
        let had: Vec<char> = had.chars().collect();
        wanted.patterns.iter().any(|pattern| like(pattern, &had))
    };
    let number = |text: &str| text.parse::<i64>().unwrap();
    match operator {
        "StringLike" => had.iter().any(is_like),
        "StringNotLike" => !had.iter().any(is_like),
        "NumericLessThanEquals" => had.iter().any(|had| number(had) <= number(first())),
        "NumericGreaterThan" => had.iter().any(|had| number(had) > number(first())),
        "StringEquals" => had.iter().any(is),
        "StringNotEquals" => !had.iter().any(is),
        "ForAllValues:StringEquals" => had.iter().all(is),
        "ForAnyValue:StringNotEquals" => had.iter().any(|had| !is(had)),
        "Null" => wanted.texts.iter().any(|wanted| (wanted == "true") == had.is_empty()),
        "DateLessThan" => had.iter().any(|had| had.as_str() < first()),
        "DateGreaterThanEquals" => had.iter().any(|had| had.as_str() >= first()),
        other => panic!("an operator that this engine does not know: {other}"),
    }
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// A character, or what stands for one (`?`) or any number of them (`*`).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Exactly(char),
    One,
    Any,
}

/// Panics at a variable: no request may choose what a policy says.
fn pieces(pattern: &str) -> Vec<Piece> {
    let characters: Vec<char> = pattern.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        match characters[at..] {
            ['$', '{', escaped @ ('*' | '?' | '$'), '}', ..] => {
                pieces.push(Piece::Exactly(escaped));
                at += 4;
                continue;
            }
            ['$', '{', ..] => panic!("a policy variable: {pattern}"),
            ['*', ..] => pieces.push(Piece::Any),
            ['?', ..] => pieces.push(Piece::One),
            [c, ..] => pieces.push(Piece::Exactly(c)),
            [] => {}
        }
        at += 1;
    }
    pieces
}

fn literal(pattern: &[Piece]) -> String {
    pattern
        .iter()
        .map(|piece| match piece {
            Piece::Exactly(c) => *c,
            Piece::One => '?',
            Piece::Any => '*',
        })
        .collect()
}

/// The usual two-pointer match.
fn like(pattern: &[Piece], text: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                star = Some((at, from));
                at += 1;
            }
            Some(Piece::One) => (at, from) = (at + 1, from + 1),
            Some(Piece::Exactly(c)) if *c == text[from] => (at, from) = (at + 1, from + 1),
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                (at, from) = (place + 1, taken + 1);
            }
        }
    }
    pattern[at.min(pattern.len())..].iter().all(|piece| *piece == Piece::Any)
}

#[test]
fn the_engine_reads_wildcards_and_escapes() {
    for (pattern, text, matches) in [
        ("a*b", "axxb", true),
        ("a*b", "axxbc", false),
        ("a?b", "axb", true),
        ("a${*}b", "a*b", true),
        ("a${*}b", "axb", false),
        ("${$}{x}", "${x}", true),
        ("*", "", true),
    ] {
        assert_eq!(like(&pieces(pattern), &text.chars().collect::<Vec<_>>()), matches, "{pattern} {text}");
    }
}

/// Why no template may compare a key with several values plainly.
#[test]
fn a_plain_comparison_limits_nothing_of_several_values() {
    let (own, both) = (Wanted::of(vec!["own".to_owned()]), ["own".to_owned(), "other".to_owned()]);
    assert!(condition_holds("StringEquals", &both, &own) && !condition_holds("StringNotEquals", &both, &own));
    assert!(condition_holds("StringLike", &both, &own) && !condition_holds("StringNotLike", &both, &own));
    assert!(!condition_holds("ForAllValues:StringEquals", &both, &own));
    assert!(condition_holds("ForAnyValue:StringNotEquals", &both, &own));
}
