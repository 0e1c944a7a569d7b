//! What is to be known of an input schema before its tool is approved: whether it can be pinned at all, and where it
//! admits more than it names.

use deputize_call::{json::Object, schema::PinnedSchema};
use serde::Serialize;
use serde_json::Value;

use super::diff::escaped;

/// A remark on one place of an input schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// JSON Pointer into the input schema.
    pub pointer: String,
    /// Whether the tool cannot be registered because of it.
    pub refused: bool,
    /// What is the matter.
    pub problem: String,
    /// What to do.
    pub advice: &'static str,
}

/// Looks through the input schema of a definition.
pub fn review_schema(definition: &Object) -> Vec<Remark> {
    let Some(schema) = definition.get("inputSchema") else {
        return vec![refused("", "there is no inputSchema")];
    };
    if let Err(error) = PinnedSchema::compile(schema) {
        return vec![refused(&error.pointer, &error.problem)];
    }
    let mut remarks = Vec::new();
    walk(schema, "", 0, &mut remarks);
    remarks
}

fn refused(pointer: &str, problem: &str) -> Remark {
    Remark {
        pointer: pointer.to_owned(),
        refused: true,
        problem: problem.to_owned(),
        advice: "the tool is left out: have the publisher correct it, then import again",
    }
}

fn walk(schema: &Value, pointer: &str, depth: usize, remarks: &mut Vec<Remark>) {
    let Value::Object(members) = schema else { return };
    if depth > MAX_DEPTH || remarks.len() >= MAX_REMARKS {
        return;
    }
    look(members, pointer, remarks);
    for (keyword, value) in members {
        let place = format!("{pointer}/{}", escaped(keyword));
        match (keyword.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Value::Object(map),
            ) => {
                for (name, inner) in map {
                    walk(inner, &format!("{place}/{}", escaped(name)), depth + 1, remarks);
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                for (at, inner) in list.iter().enumerate() {
                    walk(inner, &format!("{place}/{at}"), depth + 1, remarks);
                }
            }
            ("items" | "additionalProperties" | "then" | "else", inner) => {
                walk(inner, &place, depth + 1, remarks)
            }
            _ => {}
        }
    }
}

fn look(schema: &Object, pointer: &str, remarks: &mut Vec<Remark>) {
    let mut remark = |problem: &str, advice| {
        remarks.push(Remark {
            pointer: pointer.to_owned(),
            refused: false,
            problem: problem.to_owned(),
            advice,
        });
    };
    let is_object = schema.get("type").is_some_and(|is| is == "object") || schema.contains_key("properties");
    let open = ["additionalProperties", "unevaluatedProperties"]
        .iter()
        .any(|keyword| schema.get(*keyword).is_some_and(|rule| *rule == Value::Bool(true) || is_empty(rule)));
    if open {
        let advice =
            "policy cannot name what it does not know: keep the tool at L3, or have the schema closed";
        remark("open: it admits members that it does not name", advice);
    } else if is_object && NAMING.iter().all(|keyword| !schema.contains_key(*keyword)) {
        let advice = "only the empty object will be admitted: have the publisher name the members";
        remark("an object without named members", advice);
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Object::is_empty)
}

/// Keywords that say which members there are, or that there are none.
const NAMING: [&str; 9] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$ref",
    "enum",
];
const MAX_DEPTH: usize = 32;
const MAX_REMARKS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> Vec<(String, bool)> {
        let definition = json!({ "name": "t", "inputSchema": schema });
        let remarks = review_schema(definition.as_object().unwrap());
        remarks.into_iter().map(|remark| (remark.pointer, remark.refused)).collect()
    }

    #[test]
    fn what_cannot_be_pinned_is_refused_with_its_place() {
        let remote = json!({ "type": "object", "properties": { "a": { "$ref": "https://x.example/s" } } });
        for (schema, place) in [
            (remote, "/properties/a"),
            (json!({ "$schema": "http://json-schema.org/draft-04/schema#" }), "/$schema"),
            (json!(true), ""),
            (json!({ "type": "object", "$dynamicRef": "#a" }), "/$dynamicRef"),
        ] {
            assert_eq!(of(schema.clone()), [(place.to_owned(), true)], "{schema}");
        }
        let missing = json!({ "name": "t" });
        assert!(review_schema(missing.as_object().unwrap())[0].refused);
    }

    #[test]
    fn open_places_are_told_and_closed_ones_are_not() {
        let open = |place: &str| vec![(place.to_owned(), false)];
        assert_eq!(of(json!({ "type": "object", "additionalProperties": true })), open(""));
        assert_eq!(of(json!({ "type": "object", "additionalProperties": {} })), open(""));
        assert_eq!(of(json!({ "type": "object" })), open(""));
        let inside = json!({ "type": "object", "properties": { "a/b": { "type": "array", "items": { "type": "object" } } } });
        assert_eq!(of(inside), open("/properties/a~1b/items"));
        for closed in [
            json!({ "type": "object", "properties": { "a": { "type": "string" } } }),
            json!({ "type": "object", "additionalProperties": false }),
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "object", "properties": {} } } }),
        ] {
            assert_eq!(of(closed.clone()), [], "{closed}");
        }
    }
}
