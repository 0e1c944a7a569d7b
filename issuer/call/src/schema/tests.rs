use super::*;
use serde_json::json;

fn object(value: Value) -> Object {
    let Value::Object(members) = value else { panic!("not an object") };
    members
}

fn admits(schema: &Value, arguments: Value) -> bool {
    PinnedSchema::compile(schema).unwrap().validate(&object(arguments)).is_ok()
}

fn refusal(schema: &Value, arguments: Value) -> SchemaError {
    PinnedSchema::compile(schema).unwrap().validate(&object(arguments)).unwrap_err()
}

fn uncompilable(schema: Value) -> SchemaError {
    PinnedSchema::compile(&schema).unwrap_err()
}

#[test]
fn a_bare_object_schema_admits_only_the_empty_object() {
    for schema in [json!({ "type": "object" }), json!({})] {
        assert!(admits(&schema, json!({})));
        assert!(!admits(&schema, json!({ "a": 1 })));
    }
}

#[test]
fn named_members_pass_and_unknown_ones_do_not_at_every_depth() {
    let schema = json!({ "type": "object", "required": ["id"], "properties": {
        "id": { "type": "string", "pattern": "^pay_[0-9]+$" },
        "to": { "type": "object", "properties": { "iban": { "type": "string" } } },
        "lines": { "type": "array", "items": { "type": "object", "properties": { "sku": {} } } },
        "pair": { "type": "array", "prefixItems": [{ "properties": { "x": {} } }] },
        "any": true,
    } });
    assert!(admits(&schema, json!({ "id": "pay_1", "to": { "iban": "x" }, "lines": [{ "sku": 1 }] })));
    assert!(admits(&schema, json!({ "id": "pay_1", "pair": [{ "x": 1 }, 2], "any": "text" })));
    for refused in [
        json!({ "id": "pay_1", "extra": 1 }),
        json!({ "id": "pay_1", "to": { "iban": "x", "bic": "y" } }),
        json!({ "id": "pay_1", "lines": [{ "sku": 1, "price": 2 }] }),
        json!({ "id": "pay_1", "pair": [{ "y": 1 }] }),
        json!({ "id": "pay_1", "pair": [{ "x": 1 }, { "anything": 1 }] }),
        json!({ "id": "pay_1", "any": { "hidden": 1 } }),
        json!({ "id": "pay_1", "any": [{ "hidden": 1 }] }),
        json!({ "id": "other" }),
        json!({}),
    ] {
        assert!(!admits(&schema, refused.clone()), "{refused}");
    }
}

#[test]
fn what_the_author_opened_stays_open() {
    let schema = json!({ "properties": {
        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        "free": { "type": "object", "additionalProperties": true },
    } });
    assert!(admits(&schema, json!({ "labels": { "a": "b" }, "free": { "x": { "y": 1 } } })));
    assert!(!admits(&schema, json!({ "labels": { "a": 1 } })));
}

#[test]
fn combinations_close_at_the_position_and_not_in_their_branches() {
    let schema = json!({
        "properties": { "kind": { "enum": ["a", "b"] } },
        "allOf": [{ "properties": { "common": { "type": "integer" } } }],
        "oneOf": [
            { "properties": { "kind": { "const": "a" }, "x": { "type": "integer" } } },
            { "properties": { "kind": { "const": "b" }, "y": { "type": "integer" } } },
        ],
        "required": ["kind"],
    });
    assert!(admits(&schema, json!({ "kind": "a", "x": 1, "common": 2 })));
    assert!(admits(&schema, json!({ "kind": "b", "y": 1 })));
    assert!(!admits(&schema, json!({ "kind": "a", "y": 1 })));
    assert!(!admits(&schema, json!({ "kind": "a", "z": 1 })));
}

#[test]
fn references_and_recursion_are_closed() {
    let schema = json!({
        "$defs": { "node": { "type": "object", "properties": {
            "value": { "type": "integer" }, "next": { "$ref": "#/$defs/node" } } } },
        "properties": { "head": { "$ref": "#/$defs/node" } },
    });
    assert!(admits(&schema, json!({ "head": { "value": 1, "next": { "value": 2 } } })));
    assert!(!admits(&schema, json!({ "head": { "value": 1, "next": { "value": 2, "x": 3 } } })));
    assert!(!admits(&schema, json!({ "head": { "x": 3 } })));
}

#[test]
fn a_condition_describes_nothing_by_itself() {
    let schema = json!({
        "properties": { "mode": { "type": "string" } },
        "if": { "properties": { "mode": { "const": "x" }, "smuggled": {} } },
        "then": { "properties": { "extra": { "type": "integer" } } },
    });
    assert!(admits(&schema, json!({ "mode": "x", "extra": 1 })));
    assert!(!admits(&schema, json!({ "mode": "y", "extra": 1 })));
    assert!(!admits(&schema, json!({ "mode": "x", "smuggled": { "deep": 1 } })));
}

#[test]
fn closing_never_widens_what_not_refuses() {
    let schema = json!({
        "$defs": { "bad": { "properties": { "o": { "type": "object", "required": ["z"] } }, "required": ["o"] } },
        "properties": { "o": { "type": "object", "properties": { "z": {} } } },
        "not": { "$ref": "#/$defs/bad" },
    });
    assert!(admits(&schema, json!({ "o": {} })));
    assert!(!admits(&schema, json!({ "o": { "z": 1 } })));
}

#[test]
fn draft_07_is_closed_where_it_can_be_and_refused_where_it_cannot() {
    let draft = "http://json-schema.org/draft-07/schema#";
    let schema = json!({ "$schema": draft, "$ref": "#/definitions/args", "definitions": { "args": {
        "type": "object", "properties": {
            "id": { "anyOf": [{ "type": "string" }, { "type": "object", "properties": { "n": {} } }] },
            "tuple": { "type": "array", "items": [{ "type": "integer" }] } } } } });
    assert!(admits(&schema, json!({ "id": { "n": 1 }, "tuple": [1, "x"] })));
    assert!(!admits(&schema, json!({ "id": { "m": 1 } })));
    assert!(!admits(&schema, json!({ "tuple": [1, { "m": 1 }] })));
    assert!(!admits(&schema, json!({ "other": 1 })));

    let open = json!({ "$schema": draft, "type": "object", "allOf": [{ "properties": { "a": {} } }] });
    assert!(uncompilable(open).problem.contains("cannot be closed"));
    let stated = json!({ "$schema": draft, "type": "object", "properties": { "a": {} },
        "allOf": [{ "required": ["a"] }], "additionalProperties": false });
    assert!(admits(&stated, json!({ "a": 1 })));
    assert!(!admits(&stated, json!({ "b": 1 })));
}

#[test]
fn references_out_of_the_document_or_out_of_reach_do_not_compile() {
    for schema in [
        json!({ "$ref": "https://attacker.example/schema.json" }),
        json!({ "properties": { "a": { "$ref": "file:///etc/passwd" } } }),
        json!({ "properties": { "a": { "$ref": "other.json#/a" } } }),
        json!({ "x-hidden": { "type": "object" }, "properties": { "a": { "$ref": "#/x-hidden" } } }),
        json!({ "not": { "properties": { "a": {} } }, "properties": { "a": { "$ref": "#/not" } } }),
        json!({ "properties": { "a": { "$id": "https://other.example/", "type": "object" } } }),
        json!({ "properties": { "a": { "$schema": "http://json-schema.org/draft-07/schema#" } } }),
        json!({ "properties": { "a": { "$dynamicRef": "#x" } } }),
        json!({ "$schema": "https://example.com/my-dialect" }),
        json!({ "properties": { "a": { "type": "array", "contains": {} } } }),
    ] {
        assert!(PinnedSchema::compile(&schema).is_err(), "{schema}");
    }
}

#[test]
fn circles_and_explosions_do_not_compile() {
    assert!(PinnedSchema::compile(&json!({ "$ref": "#" })).is_err());
    let circle = json!({ "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "$ref": "#/$defs/a" } },
        "$ref": "#/$defs/a" });
    assert!(uncompilable(circle).problem.contains("circle"));
    let doubling: Object = (0..30)
        .map(|i| {
            let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
            (format!("d{i}"), json!({ "allOf": [next, next] }))
        })
        .chain([("d30".to_owned(), json!({}))])
        .collect();
    assert!(uncompilable(json!({ "$defs": doubling, "$ref": "#/$defs/d0" })).problem.contains("too many"));
    // Legitimate neighbours: a long chain of nested types, and a shallow combination.
    let chain: Object = (0..200)
        .map(|i| {
            (format!("d{i}"), json!({ "properties": { "n": { "$ref": format!("#/$defs/d{}", i + 1) } } }))
        })
        .chain([("d200".to_owned(), json!({ "type": "object" }))])
        .collect();
    assert!(admits(&json!({ "$defs": chain, "$ref": "#/$defs/d0" }), json!({ "n": { "n": {} } })));
}

#[test]
fn bounds_hold() {
    let deep = (0..40).fold(json!({}), |inner, _| json!({ "properties": { "a": inner } }));
    assert!(uncompilable(deep).problem.contains("32 levels"));
    let long = json!({ "description": "x".repeat(MAX_SCHEMA_BYTES) });
    assert!(uncompilable(long).problem.contains("256 KiB"));
    assert!(uncompilable(json!(true)).problem.contains("not an object"));
    let backtracking = json!({ "properties": { "a": { "pattern": "(?=x)(a+)+$" } } });
    assert!(PinnedSchema::compile(&backtracking).is_err());
    let huge = json!({ "properties": { "a": { "pattern": "((a{1000}){1000}){1000}" } } });
    assert!(PinnedSchema::compile(&huge).is_err());
}

#[test]
fn errors_name_the_place_and_the_keyword_and_never_the_value() {
    let schema =
        json!({ "properties": { "to": { "properties": { "iban": { "type": "string", "maxLength": 3 } } } } });
    let error = refusal(&schema, json!({ "to": { "iban": "canary-value" } }));
    assert_eq!(error.pointer, "/to/iban");
    assert_eq!(error.problem, "does not satisfy maxLength");
    let error = refusal(&schema, json!({ "to": { "unknown": "canary-value" } }));
    assert_eq!(error.pointer, "/to");
    assert!(error.problem.contains("unevaluatedProperties"));
    assert!(!error.to_string().contains("canary"));
}
