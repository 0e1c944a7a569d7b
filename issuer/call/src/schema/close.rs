//! Closes a schema: every place where an object may stand gets a rule against members that no keyword names.
//!
//! A *position* is a schema for an instance location of its own (root, property values, items). A *branch*
//! (`allOf`, `then`, …) describes the location of its parent, which closes for it. What stands under `not`, `if`
//! or `contains` is only *judged*: closing there would change the verdict, so it stays as written.

use super::SchemaError;
use crate::json::Object;
use jsonschema::Draft;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The closed form of `schema`, and the draft in which it and the original are written.
pub(super) fn close(schema: &Value) -> Result<(Value, Draft), SchemaError> {
    let draft = match schema.get("$schema").map(|uri| uri.as_str().unwrap_or_default().trim_end_matches('#'))
    {
        None | Some("https://json-schema.org/draft/2020-12/schema") => Draft::Draft202012,
        Some("http://json-schema.org/draft-07/schema" | "https://json-schema.org/draft-07/schema") => {
            Draft::Draft7
        }
        Some(_) => return Err(SchemaError::at("/$schema", "only draft 2020-12 and draft-07 are supported")),
    };
    let mut walk = Walk { draft, ..Walk::default() };
    let closed = walk.schema(schema, "", Place::Position)?;
    walk.check_references()?;
    Ok((closed, draft))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Position,
    Branch,
    Judged,
}

#[derive(Default)]
struct Walk {
    draft: Draft,
    /// Pointers of the schemas that a reference may point to, and the anchors among them.
    targets: BTreeSet<String>,
    anchors: BTreeMap<String, String>,
    /// Where each `$ref` stands and what it says.
    references: Vec<(String, String)>,
    /// Schema → schemas that it applies to the same instance location.
    in_place: BTreeMap<String, Vec<String>>,
}

impl Walk {
    fn schema(&mut self, schema: &Value, at: &str, place: Place) -> Result<Value, SchemaError> {
        let nothing = Map::new();
        let members = match schema {
            // `true` says no more of an object's members than `{}` does.
            Value::Bool(true) if place == Place::Position => &nothing,
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(members) => members,
            _ => return Err(SchemaError::at(at, "a schema must be an object or a boolean")),
        };
        if place == Place::Position || (place == Place::Branch && self.draft != Draft::Draft7) {
            self.targets.insert(at.to_owned());
        }
        if members.contains_key("contains") && !members.contains_key("items") {
            // What `contains` matches would count as described, and it is only judged.
            return Err(SchemaError::at(at, "`contains` needs `items` beside it"));
        }
        let spread = self.draft == Draft::Draft7 && place == Place::Position && is_plain_union(members);
        let mut closed = Map::new();
        for (keyword, value) in members {
            let here = Here { at, place, spread };
            closed.insert(keyword.clone(), self.keyword(keyword, value, here)?);
        }
        if place == Place::Position && !spread {
            match self.draft {
                Draft::Draft7 => close_draft7(&mut closed, at)?,
                _ => close_2020_12(&mut closed),
            }
        }
        Ok(Value::Object(closed))
    }

    fn keyword(&mut self, keyword: &str, value: &Value, here: Here<'_>) -> Result<Value, SchemaError> {
        let at = format!("{}/{}", here.at, escaped(keyword));
        let branch = if here.spread { Place::Position } else { Place::Branch };
        let definition = if self.draft == Draft::Draft7 { Place::Position } else { Place::Branch };
        match keyword {
            "properties" | "patternProperties" => self.map(value, &at, here.inside(Place::Position)),
            "$defs" | "definitions" => self.map(value, &at, here.inside(definition)),
            "dependentSchemas" | "dependencies" => {
                self.apply_in_place(here.at, &at, value);
                self.map(value, &at, here.inside(Place::Branch))
            }
            "allOf" | "anyOf" | "oneOf" => {
                self.apply_in_place(here.at, &at, value);
                self.list(value, &at, here.inside(branch))
            }
            "then" | "else" => {
                self.in_place.entry(here.at.to_owned()).or_default().push(at.clone());
                self.schema(value, &at, here.inside(Place::Branch))
            }
            "not" | "if" => {
                self.in_place.entry(here.at.to_owned()).or_default().push(at.clone());
                let judged = self.schema(value, &at, Place::Judged)?;
                // A double negation keeps the verdict of `if` and drops what it describes: `then` and `else` say that.
                Ok(if keyword == "if" { json!({ "not": { "not": judged } }) } else { judged })
            }
            "contains" | "propertyNames" => self.schema(value, &at, Place::Judged),
            "additionalProperties" | "unevaluatedProperties" if value.is_boolean() => Ok(value.clone()),
            "prefixItems" => self.list(value, &at, here.inside(Place::Position)),
            "items" if value.is_array() => self.list(value, &at, here.inside(Place::Position)),
            "items"
            | "additionalItems"
            | "unevaluatedItems"
            | "additionalProperties"
            | "unevaluatedProperties" => self.schema(value, &at, here.inside(Place::Position)),
            "$ref" => {
                let target = value.as_str().unwrap_or_default();
                self.references.push((here.at.to_owned(), target.to_owned()));
                Ok(value.clone())
            }
            "$anchor" => {
                self.anchors.insert(value.as_str().unwrap_or_default().to_owned(), here.at.to_owned());
                Ok(value.clone())
            }
            "$schema" | "$id" if here.at.is_empty() => Ok(value.clone()),
            "$schema" | "$id" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef" | "$recursiveAnchor"
            | "$vocabulary" => Err(SchemaError::at(&at, "this keyword is not supported here")),
            _ => Ok(value.clone()),
        }
    }

    fn map(&mut self, value: &Value, at: &str, place: Place) -> Result<Value, SchemaError> {
        let members = value.as_object().ok_or_else(|| SchemaError::at(at, "must be an object of schemas"))?;
        let mut closed = Map::new();
        for (name, schema) in members {
            let inner = if schema.is_array() {
                schema.clone() // `dependencies` may also list names
            } else {
                self.schema(schema, &format!("{at}/{}", escaped(name)), place)?
            };
            closed.insert(name.clone(), inner);
        }
        Ok(Value::Object(closed))
    }

    fn list(&mut self, value: &Value, at: &str, place: Place) -> Result<Value, SchemaError> {
        let schemas = value.as_array().ok_or_else(|| SchemaError::at(at, "must be a list of schemas"))?;
        let closed: Result<Vec<_>, _> = schemas
            .iter()
            .enumerate()
            .map(|(i, schema)| self.schema(schema, &format!("{at}/{i}"), place))
            .collect();
        Ok(Value::Array(closed?))
    }

    fn apply_in_place(&mut self, from: &str, at: &str, value: &Value) {
        let children: Vec<String> = match value {
            Value::Array(list) => (0..list.len()).map(|i| format!("{at}/{i}")).collect(),
            Value::Object(map) => map.keys().map(|name| format!("{at}/{}", escaped(name))).collect(),
            _ => Vec::new(),
        };
        self.in_place.entry(from.to_owned()).or_default().extend(children);
    }

    /// References point to schemas of this document that were closed, few in number and never in a circle.
    fn check_references(&mut self) -> Result<(), SchemaError> {
        if self.references.len() > MAX_REFERENCES {
            return Err(SchemaError::at("", "the input schema has more than 256 references"));
        }
        for (at, reference) in std::mem::take(&mut self.references) {
            let Some(fragment) = reference.strip_prefix('#') else {
                return Err(SchemaError::at(&at, "`$ref` may only point into the same document"));
            };
            let target = self.anchors.get(fragment).map_or(fragment, String::as_str).to_owned();
            if !self.targets.contains(&target) {
                return Err(SchemaError::at(&at, "`$ref` does not point to a schema of this document"));
            }
            self.in_place.entry(at).or_default().push(target);
        }
        let mut weighed = BTreeMap::new();
        for start in self.in_place.keys() {
            self.weigh(start, 0, &mut weighed)?;
        }
        Ok(())
    }

    /// How many schemas one instance location has to be held against, and how long the longest chain of them is.
    fn weigh<'w>(
        &'w self,
        at: &'w str,
        depth: usize,
        weighed: &mut BTreeMap<&'w str, Weight>,
    ) -> Result<Weight, SchemaError> {
        let too_much = || SchemaError::at(at, "references go in a circle, or combine too many schemas");
        let mut weight = match weighed.get(at) {
            Some(known) => *known,
            None if depth >= MAX_IN_PLACE_CHAIN => return Err(too_much()),
            None => Weight { schemas: 1, chain: 1 },
        };
        if !weighed.contains_key(at) {
            for next in self.in_place.get(at).into_iter().flatten() {
                let inner = self.weigh(next, depth + 1, weighed)?;
                weight.schemas = weight.schemas.saturating_add(inner.schemas);
                weight.chain = weight.chain.max(inner.chain + 1);
            }
            weighed.insert(at, weight);
        }
        if depth + weight.chain > MAX_IN_PLACE_CHAIN || weight.schemas > MAX_IN_PLACE_SCHEMAS {
            return Err(too_much());
        }
        Ok(weight)
    }
}

#[derive(Clone, Copy)]
struct Weight {
    schemas: usize,
    chain: usize,
}

/// The schema whose keyword is looked at.
#[derive(Clone, Copy)]
struct Here<'h> {
    at: &'h str,
    place: Place,
    /// Its union's branches are closed one by one instead of it.
    spread: bool,
}

impl Here<'_> {
    /// What is inside of something that is only judged is only judged.
    fn inside(self, place: Place) -> Place {
        if self.place == Place::Judged { Place::Judged } else { place }
    }
}

/// `unevaluated…` sees through `$ref` and every combination (draft 2020-12 core §11).
fn close_2020_12(schema: &mut Object) {
    if admits(schema, "object") && !schema.contains_key("additionalProperties") {
        schema.entry("unevaluatedProperties").or_insert(Value::Bool(false));
    }
    if admits(schema, "array") && !schema.contains_key("items") {
        schema.entry("unevaluatedItems").or_insert_with(scalars);
    }
}

/// `additionalProperties` sees only the keywords beside it: a combination has to speak for itself.
fn close_draft7(schema: &mut Object, at: &str) -> Result<(), SchemaError> {
    if schema.contains_key("$ref") {
        return Ok(()); // its siblings are ignored (draft-07 core §8.3), and its target is closed
    }
    let combined = COMBINATIONS.iter().any(|keyword| schema.contains_key(*keyword));
    if admits(schema, "object") && !schema.contains_key("additionalProperties") {
        if combined {
            let problem = "a combination cannot be closed in draft-07: say `additionalProperties` beside it";
            return Err(SchemaError::at(at, problem));
        }
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if admits(schema, "array") {
        match schema.get("items") {
            Some(Value::Array(_)) => drop(schema.entry("additionalItems").or_insert_with(scalars)),
            Some(_) => {}
            None if combined => {
                return Err(SchemaError::at(
                    at,
                    "a combination cannot be closed in draft-07: say `items` or `type`",
                ));
            }
            None => drop(schema.insert("items".to_owned(), scalars())),
        }
    }
    Ok(())
}

/// A union and nothing else that describes members or items: each branch can be closed by itself.
fn is_plain_union(schema: &Object) -> bool {
    let unions = ["anyOf", "oneOf"].iter().filter(|keyword| schema.contains_key(**keyword)).count();
    let others =
        ["allOf", "if", "dependencies", "properties", "patternProperties", "additionalProperties", "items"];
    unions == 1 && !others.iter().any(|keyword| schema.contains_key(*keyword))
}

fn admits(schema: &Object, wanted: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
        _ => true,
    }
}

fn scalars() -> Value {
    json!({ "type": ["null", "boolean", "number", "string"] })
}

/// RFC 6901 §3.
fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

const COMBINATIONS: [&str; 5] = ["allOf", "anyOf", "oneOf", "if", "dependencies"];
const MAX_REFERENCES: usize = 256;
const MAX_IN_PLACE_CHAIN: usize = 32;
const MAX_IN_PLACE_SCHEMAS: usize = 1_000;
