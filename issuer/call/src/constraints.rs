//! L2 constraints: JSON Pointers into the arguments, each with the values it admits.

use crate::json::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Constraints by JSON Pointer (RFC 6901). Every leaf of the arguments must be covered by exactly one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Constraints(BTreeMap<String, Constraint>);

/// What one argument may be. Exactly one of `enum`, (`minimum` and/or `maximum`), `prefix`; hops conjoin, so
/// a narrowed constraint may carry several, all of which must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// The values admitted.
    #[serde(rename = "enum", default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Value>>,
    /// Smallest number admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<serde_json::Number>,
    /// Largest number admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<serde_json::Number>,
    /// Path prefixes, each ending at a segment; never admits `..`, `%` or `\`. Several (after a hop) must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
    pub prefix: Vec<String>,
    /// Whether the argument may be absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Why arguments are outside their constraints, or constraints are malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {reason}")]
pub struct ConstraintError {
    /// The JSON Pointer concerned.
    pub pointer: String,
    /// What is wrong, in lower case without a full stop.
    pub reason: &'static str,
}

impl Constraints {
    /// Checks the form: at least one constraint, valid pointers, exactly one kind each, at most 64 entries,
    /// `enum` of 1–64 values, prefixes that end at a segment.
    pub fn checked(self) -> Result<Self, ConstraintError> {
        todo!()
    }
    /// Whether these arguments satisfy every constraint and leave nothing unconstrained.
    pub fn admit(&self, arguments: &Object) -> Result<(), ConstraintError> {
        let _ = arguments;
        todo!()
    }
    /// The conjunction with a next hop's constraints: both must hold; an error where nothing could satisfy both forms.
    pub fn conjoin(&self, narrower: &Self) -> Result<Self, ConstraintError> {
        let _ = narrower;
        todo!()
    }
    /// The pointers and their constraints.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Constraint)> {
        self.0.iter().map(|(pointer, constraint)| (pointer.as_str(), constraint))
    }
}

mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    pub(super) fn serialize<S: Serializer>(values: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match values {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        })
    }
}
