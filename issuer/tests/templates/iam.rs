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

/// Whether a statement with this effect applies.
pub fn has(policy: &Value, effect: &str, request: &Request) -> bool {
    let statements = policy["Statement"].as_array().unwrap();
    statements.iter().any(|statement| statement["Effect"] == effect && applies(statement, request))
}

/// Whether the session may, by its session policy.
pub fn grants(policy: &Value, request: &Request) -> bool {
    has(policy, "Allow", request) && !has(policy, "Deny", request)
}

fn applies(statement: &Value, request: &Request) -> bool {
    let matches = |member: &str, text: &str| {
        list(&statement[member])
            .iter()
            .any(|pattern| like(&pieces(pattern), &text.chars().collect::<Vec<_>>()))
    };
    let lower = |member: &str| {
        list(&statement[member]).iter().any(|pattern| {
            like(&pieces(&pattern.to_lowercase()), &request.action.to_lowercase().chars().collect::<Vec<_>>())
        })
    };
    let action = if statement["Action"].is_null() { !lower("NotAction") } else { lower("Action") };
    let resource = if statement["Resource"].is_null() {
        !matches("NotResource", &request.resource)
    } else {
        matches("Resource", &request.resource)
    };
    action && resource && conditions_hold(&statement["Condition"], request)
}

fn conditions_hold(conditions: &Value, request: &Request) -> bool {
    let Some(operators) = conditions.as_object() else { return true };
    operators.iter().all(|(operator, keys)| {
        keys.as_object().unwrap().iter().all(|(key, wanted)| {
            let had = request.context.get(key).cloned().unwrap_or_default();
            condition_holds(operator, &had, &list(wanted))
        })
    })
}

fn condition_holds(operator: &str, had: &[String], wanted: &[String]) -> bool {
    let is = |had: &String| wanted.iter().any(|wanted| literal(wanted) == *had);
    let is_like =
        |had: &String| wanted.iter().any(|wanted| like(&pieces(wanted), &had.chars().collect::<Vec<_>>()));
    let number = |text: &str| text.parse::<i64>().unwrap();
    match operator {
        "StringLike" => had.iter().any(is_like),
        "StringNotLike" => !had.iter().any(is_like),
        "NumericLessThanEquals" => had.iter().any(|had| number(had) <= number(&wanted[0])),
        "NumericGreaterThan" => had.iter().any(|had| number(had) > number(&wanted[0])),
        "StringEquals" => had.iter().any(is),
        "StringNotEquals" => !had.iter().any(is),
        "ForAllValues:StringEquals" => had.iter().all(is),
        "ForAnyValue:StringNotEquals" => had.iter().any(|had| !is(had)),
        "Null" => wanted.iter().any(|wanted| (wanted == "true") == had.is_empty()),
        "DateLessThan" => had.iter().any(|had| had < &wanted[0]),
        "DateGreaterThanEquals" => had.iter().any(|had| had >= &wanted[0]),
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

fn literal(pattern: &str) -> String {
    pieces(pattern)
        .into_iter()
        .map(|piece| match piece {
            Piece::Exactly(c) => c,
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
    let (own, both) = (["own".to_owned()], ["own".to_owned(), "other".to_owned()]);
    assert!(condition_holds("StringEquals", &both, &own) && !condition_holds("StringNotEquals", &both, &own));
    assert!(condition_holds("StringLike", &both, &own) && !condition_holds("StringNotLike", &both, &own));
    assert!(!condition_holds("ForAllValues:StringEquals", &both, &own));
    assert!(condition_holds("ForAnyValue:StringNotEquals", &both, &own));
}
