//! Arguments are data: they are compared exactly, or not at all.

use super::world::{World, engine, object};
use crate::policy::Facts;
use deputize_call::{json, level::Level};
use serde_json::json;

fn permit(condition: &str) -> String {
    format!("permit (principal, action == Action::\"tools/call\", resource) when {{ {condition} }};")
}

#[test]
fn every_leaf_stands_in_the_table_of_its_kind() {
    let mut world = World::new();
    world.arguments = Some(object(json!({
        "a": { "b": { "c": 7 } }, "items": [ { "sku": "x" }, { "sku": "y", "price": 1.25 } ], "tags": ["p", "q"],
        "sizes": [1, 2.0, 3], "mixed": [1, "one"], "none": null, "empty": [], "whole": 5.0, "minus": -0.5,
        "": "nameless", "sl/ash": 1, "til~de": 2, "big": 9_007_199_254_740_991_i64,
    })));
    for (condition, holds) in [
        (r#"context.number.hasTag("a/b/c") && context.number.getTag("a/b/c") == 7"#, true),
        (r#"context.text.hasTag("items/1/sku") && context.text.getTag("items/1/sku") == "y""#, true),
        (
            r#"context.decimal.hasTag("items/1/price") && context.decimal.getTag("items/1/price") == decimal("1.25")"#,
            true,
        ),
        (r#"context.number.hasTag("items/1/price")"#, false),
        (r#"context.texts.hasTag("tags") && context.texts.getTag("tags") == ["q", "p"]"#, true),
        (
            r#"context.numbers.hasTag("sizes") && context.numbers.getTag("sizes").containsAll([1, 2, 3])"#,
            true,
        ),
        (r#"context.texts.hasTag("mixed") || context.numbers.hasTag("mixed")"#, false),
        (r#"context.number.hasTag("mixed/0") && context.text.hasTag("mixed/1")"#, true),
        (r#"context.nulls.contains("none") && !context.text.hasTag("none")"#, true),
        (r#"context.texts.hasTag("empty") && context.texts.getTag("empty").isEmpty()"#, true),
        // RFC 8785 writes 5.0 as 5: both are the same argument.
        (r#"context.number.hasTag("whole") && context.number.getTag("whole") == 5"#, true),
        (
            r#"context.decimal.hasTag("whole") && context.decimal.getTag("whole").lessThan(decimal("5.1"))"#,
            true,
        ),
        (r#"context.decimal.hasTag("minus") && context.decimal.getTag("minus") == decimal("-0.5")"#, true),
        (r#"context.text.hasTag("") && context.text.getTag("") == "nameless""#, true),
        (r#"context.number.hasTag("sl~1ash") && context.number.hasTag("til~0de")"#, true),
        (r#"context.number.hasTag("sl/ash")"#, false),
        (r#"context.number.hasTag("big") && context.number.getTag("big") == 9007199254740991"#, true),
        (r#"context.decimal.hasTag("big")"#, false),
        (r#"context.names.contains("items") && !context.names.contains("items/0")"#, true),
    ] {
        let verdict = engine(&permit(condition)).evaluate(&world.facts());
        assert_eq!(verdict.allowed, holds, "{condition}: {verdict:?}");
    }
}

#[test]
fn what_cedar_cannot_hold_exactly_is_denied() {
    let mut world = World::new();
    let engine = engine("permit (principal, action, resource);");
    for (number, allowed) in [
        ("0.1", true),
        ("12345.6789", true),
        ("0.0001", true),
        ("0.00001", false),
        ("1.23456", false),
        ("1e-7", false),
        ("4503599627370495.5", false),
        ("922337203685476.5", true),
        ("922337203685477.5", false),
        ("1e15", true),
        ("-9007199254740991", true),
    ] {
        world.arguments =
            Some(json::parse_object(format!(r#"{{"n":{number},"secret":"s3cr3t"}}"#).as_bytes()).unwrap());
        let verdict = engine.evaluate(&world.facts());
        assert_eq!(verdict.allowed, allowed, "{number}: {verdict:?}");
        assert_eq!(verdict.errors.is_empty(), allowed, "{number}");
        assert!(!format!("{verdict:?}").contains(number), "errors name places, not values: {verdict:?}");
    }
    // Out of every strict parser's range, yet refused here too.
    world.arguments = Some(object(json!({ "n": u64::MAX })));
    assert!(!engine.evaluate(&world.facts()).allowed);
    world.arguments = Some(object(json!({ "n": vec![0; 5_000] })));
    assert!(!engine.evaluate(&world.facts()).allowed);
}

#[test]
fn cedar_syntax_in_arguments_and_claims_is_text() {
    let hostile = [
        r#"" || true || ""#,
        r#"x"); permit(principal, action, resource); //"#,
        "*",
        r#"User::"root""#,
        r#"{"__entity":{"type":"Role","id":"admin"}}"#,
        "\\u{2a}\u{7}\0",
        "${jndi}",
    ];
    let refused = engine(&permit(r#"context.text.hasTag("note") && context.text.getTag("note") == "ok""#));
    let in_role = engine(r#"permit (principal in Role::"admin", action, resource);"#);
    let equal = |text: &str| {
        engine(&permit(&format!(
            "context.text.hasTag(\"note\") && context.text.getTag(\"note\") == \"{}\"",
            text.escape_default()
        )))
    };
    for text in hostile {
        let mut world = World::new();
        world.arguments = Some(object(json!({ "note": text, (text): text })));
        assert!(!refused.evaluate(&world.facts()).allowed, "{text}");
        assert!(equal(text).evaluate(&world.facts()).allowed, "{text:?} must arrive as it is");
        world.person.sub = text.into();
        world.person.groups = vec![text.into(), format!("{text}Role::\"admin\"")];
        world.person.claims = [("roles".to_owned(), crate::person::ClaimValue::Text("admin".into()))].into();
        world.actor_chain = vec![text.into()];
        let facts = Facts { client_id: text, actor: text, ..world.facts() };
        assert!(!in_role.evaluate(&facts).allowed, "{text}");
        assert!(!refused.evaluate(&facts).allowed, "{text}");
    }
    let mut world = World::new();
    world.arguments = Some(object(json!({ "note": "ok" })));
    assert!(refused.evaluate(&world.facts()).allowed);
}

/// An argument that is given as another kind, or not at all, must not slip past a `forbid` written with `unless`.
#[test]
fn a_limit_cannot_be_evaded() {
    let engine = engine(
        r#"permit (principal, action, resource);
           forbid (principal, action == Action::"tools/call", resource)
           unless { context.has_arguments && context.number.hasTag("n") && context.number.getTag("n") <= 5 };"#,
    );
    let mut world = World::new();
    for (arguments, allowed) in [
        (json!({ "n": 5 }), true),
        (json!({ "n": 5.0 }), true),
        (json!({ "n": 6 }), false),
        (json!({ "n": 5.5 }), false),
        (json!({ "n": 0.5 }), false),
        (json!({ "n": "5" }), false),
        (json!({ "n": null }), false),
        (json!({ "n": [5] }), false),
        (json!({ "N": 5 }), false),
        (json!({}), false),
    ] {
        world.arguments = Some(object(arguments.clone()));
        assert_eq!(engine.evaluate(&world.facts()).allowed, allowed, "{arguments}");
    }
}

/// Policy that needs arguments denies where they are not shown, be it by a lower level or by a digest alone.
#[test]
fn hidden_arguments_deny() {
    let unguarded = r#"context.number.hasTag("n") && context.number.getTag("n") > 5"#;
    let guarded = format!("context.has_arguments && {unguarded}");
    let rule = |condition: &str| {
        engine(&format!(
            "permit (principal, action, resource);
             forbid (principal, action == Action::\"tools/call\", resource) when {{ {condition} }};"
        ))
    };
    let (unguarded, guarded, none) = (rule(unguarded), rule(&guarded), rule("context.level == 0"));
    for (level, digest_only, arguments, answers) in [
        (Level::L3, false, Some(json!({ "n": 5 })), [true, true, true]),
        (Level::L3, false, Some(json!({ "n": 6 })), [false, false, true]),
        (Level::L3, true, None, [false, false, true]),
        (Level::L1, false, None, [false, true, true]),
    ] {
        let mut world = World::new();
        world.arguments = arguments.map(object);
        world.call_digest_only = digest_only;
        let facts = Facts { level, ..world.facts() };
        let given = [&unguarded, &guarded, &none].map(|engine| engine.evaluate(&facts).allowed);
        assert_eq!(given, answers, "{level} {digest_only}");
    }
}

#[test]
fn constraints_are_shown_and_rounded_outwards() {
    let constraints = json!({
        "/amount_cents": { "minimum": 1, "maximum": 4000 },
        "/rate": { "minimum": 0.5, "maximum": 4.5 },
        "/currency": { "enum": ["EUR", "USD"] },
        "/count": { "enum": [3, 1, 2] },
        "/path": { "prefix": "/reports/" },
    });
    let mut world = World::new();
    world.constraints = Some(serde_json::from_value(constraints).unwrap());
    for (condition, holds) in [
        (r#"context.maximum.hasTag("amount_cents") && context.maximum.getTag("amount_cents") <= 4000"#, true),
        (
            r#"context.maximum.hasTag("amount_cents") && context.maximum.getTag("amount_cents") <= 3999"#,
            false,
        ),
        (r#"context.maximum.hasTag("rate") && context.maximum.getTag("rate") == 5"#, true),
        (r#"context.minimum.hasTag("rate") && context.minimum.getTag("rate") == 0"#, true),
        (
            r#"context.one_of.hasTag("currency") && ["EUR", "USD", "CHF"].containsAll(context.one_of.getTag("currency"))"#,
            true,
        ),
        (r#"context.maximum.hasTag("count") && context.maximum.getTag("count") == 3"#, true),
        (r#"context.minimum.hasTag("count") && context.minimum.getTag("count") == 1"#, true),
        (r#"context.prefixes.hasTag("path") && context.prefixes.getTag("path").contains("/reports/")"#, true),
        ("context.has_arguments", false),
    ] {
        let verdict = engine(&permit(condition)).evaluate(&Facts { level: Level::L2, ..world.facts() });
        assert_eq!(verdict.allowed, holds, "{condition}: {verdict:?}");
    }
}

#[test]
fn a_limit_on_constraints_cannot_be_evaded() {
    let engine = engine(
        r#"permit (principal, action, resource);
           forbid (principal, action, resource)
           when { context.maximum.hasTag("a") && context.maximum.getTag("a") > 5000 };"#,
    );
    let mut world = World::new();
    for (constraint, allowed) in [
        (json!({ "minimum": 0, "maximum": 5000 }), true),
        (json!({ "enum": [1, 2.5] }), true),
        (json!({ "enum": [true, false] }), true),
        (json!({ "minimum": 0, "maximum": 9999 }), false),
        (json!({ "enum": [1, 9999] }), false),
        (json!({ "enum": [1, 5000.5] }), false),
        (json!({ "enum": [1, 9999, 1.5] }), false),
        (json!({ "enum": [1, 9999, "x"] }), false),
        (json!({ "enum": [9999, true] }), false),
        (json!({ "enum": [{ "b": 9999 }] }), false),
        (json!({ "minimum": 0 }), false),
    ] {
        world.constraints = Some(serde_json::from_value(json!({ "/a": constraint })).unwrap());
        let verdict = engine.evaluate(&Facts { level: Level::L2, ..world.facts() });
        assert_eq!(verdict.allowed, allowed, "{constraint}: {verdict:?}");
    }
}
