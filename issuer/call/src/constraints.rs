//! L2 constraints: JSON Pointers into the arguments, each with the values it admits.
//!
//! A *leaf* of the arguments is a scalar, or an object or array without members: what stands for itself. Every leaf
//! must lie at or below a constrained pointer, else it is refused; a pointer that resolves to nothing is refused
//! unless its constraint is `optional`. A constraint looks at the whole value at its pointer.

use crate::json::{self, Object, exact};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};

mod conjoin;

/// Constraints by JSON Pointer (RFC 6901). Every leaf of the arguments must be covered by exactly one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Constraints(BTreeMap<String, Constraint>);

/// What one argument may be: exactly one of `enum`, (`minimum` and/or `maximum`), `prefix`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// The values admitted. Numbers are compared by value: `1.0` is `1`.
    #[serde(
        rename = "enum",
        default,
        deserialize_with = "not_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub one_of: Option<Vec<Value>>,
    /// Smallest number admitted.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// Largest number admitted.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
    /// Path prefixes of whole segments: `/data` and `/data/` admit `/data/x`, never `/database`. No value with `..`,
    /// `%`, `\` or a control character is admitted. Several must all hold.
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
    /// Checks the form: at least one constraint, valid pointers, none below another, exactly one kind each, at most
    /// 64 entries, `enum` of 1–64 values, prefixes that end at a segment.
    pub fn checked(self) -> Result<Self, ConstraintError> {
        self.check()?;
        Ok(self)
    }
    /// Whether these arguments satisfy every constraint and leave nothing unconstrained. Malformed constraints admit
    /// nothing.
    pub fn admit(&self, arguments: &Object) -> Result<(), ConstraintError> {
        self.check()?;
        let mut met = BTreeSet::new();
        self.admit_members("", arguments, &mut met)?;
        self.find_absent("", &met)
    }
    /// The conjunction with a next hop's constraints: both must hold; an error where nothing could satisfy both forms.
    ///
    /// It admits exactly what both admit. Both sides and the outcome are [`checked`](Self::checked).
    pub fn conjoin(&self, narrower: &Self) -> Result<Self, ConstraintError> {
        conjoin::conjoin(self, narrower)
    }
    /// The pointers and their constraints.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Constraint)> {
        self.0.iter().map(|(pointer, constraint)| (pointer.as_str(), constraint))
    }

    /// As [`checked`](Self::checked), by reference.
    pub(crate) fn check(&self) -> Result<(), ConstraintError> {
        if self.0.is_empty() || self.0.len() > MAX_CONSTRAINTS {
            return Err(refusal("", "not between 1 and 64 constraints"));
        }
        for (pointer, constraint) in &self.0 {
            if !is_pointer(pointer) {
                return Err(refusal(pointer, "not a JSON Pointer to an argument"));
            }
            let below = format!("{pointer}/");
            if self.0.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below)) {
                return Err(refusal(pointer, "another constraint lies below"));
            }
            constraint.check().map_err(|reason| refusal(pointer, reason))?;
        }
        Ok(())
    }

    /// Whether the value at this pointer satisfies the constraints there and below.
    fn admit_subtree(&self, pointer: &str, value: &Value) -> Result<(), ConstraintError> {
        let mut met = BTreeSet::new();
        self.admit_value(pointer, value, &mut met)?;
        self.find_absent(pointer, &met)
    }
    fn admit_value<'c>(
        &'c self,
        pointer: &str,
        value: &Value,
        met: &mut BTreeSet<&'c str>,
    ) -> Result<(), ConstraintError> {
        if let Some((pointer, constraint)) = self.0.get_key_value(pointer) {
            met.insert(pointer);
            return constraint.admit(value).map_err(|reason| refusal(pointer, reason));
        }
        match value {
            Value::Object(members) if !members.is_empty() => self.admit_members(pointer, members, met),
            Value::Array(items) if !items.is_empty() => (0_usize..)
                .zip(items)
                .try_for_each(|(index, item)| self.admit_value(&format!("{pointer}/{index}"), item, met)),
            _ => Err(refusal(pointer, "argument without a constraint")),
        }
    }
    fn admit_members<'c>(
        &'c self,
        pointer: &str,
        members: &Object,
        met: &mut BTreeSet<&'c str>,
    ) -> Result<(), ConstraintError> {
        members.iter().try_for_each(|(name, member)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            self.admit_value(&format!("{pointer}/{name}"), member, met)
        })
    }
    /// Refuses if a constraint at or below `pointer` met no argument and is not optional.
    fn find_absent(&self, pointer: &str, met: &BTreeSet<&str>) -> Result<(), ConstraintError> {
        self.at_or_below(pointer)
            .find(|(pointer, constraint)| !constraint.optional && !met.contains(pointer))
            .map_or(Ok(()), |(pointer, _)| Err(refusal(pointer, "required argument is absent")))
    }
    fn at_or_below(&self, ancestor: &str) -> impl Iterator<Item = (&str, &Constraint)> {
        self.iter().filter(move |(pointer, _)| *pointer == ancestor || is_below(pointer, ancestor))
    }
}

impl FromIterator<(String, Constraint)> for Constraints {
    fn from_iter<I: IntoIterator<Item = (String, Constraint)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Constraint {
    fn check(&self) -> Result<(), &'static str> {
        let kinds = [self.one_of.is_some(), self.is_range(), !self.prefix.is_empty()];
        if kinds.into_iter().filter(|kind| *kind).count() != 1 {
            return Err("not exactly one of enum, range, prefix");
        }
        if let Some(values) = &self.one_of {
            if values.is_empty() || values.len() > MAX_VALUES {
                return Err("enum is not of 1 to 64 values");
            }
            if values.iter().any(|value| json::check_value(value, json::MAX_DEPTH).is_err()) {
                return Err("enum value out of bounds");
            }
        }
        let bounds = [&self.minimum, &self.maximum].map(|bound| bound.as_ref().map(exact));
        if bounds.contains(&Some(None)) {
            return Err("number out of the interoperable range");
        }
        if let [Some(Some(minimum)), Some(Some(maximum))] = bounds
            && minimum > maximum
        {
            return Err("minimum above maximum");
        }
        if self.prefix.len() > MAX_VALUES || self.prefix.iter().any(|prefix| !is_plain_path(prefix)) {
            return Err("prefix is empty, too long, or has .. or % or \\ or a control character");
        }
        Ok(())
    }
    /// Whether every kind that is present admits this value; without any, nothing is admitted.
    fn admit(&self, value: &Value) -> Result<(), &'static str> {
        if self.one_of.is_none() && !self.is_range() && self.prefix.is_empty() {
            return Err("constraint admits nothing");
        }
        if let Some(values) = &self.one_of
            && !values.iter().any(|admitted| equal(admitted, value))
        {
            return Err("value is not among those admitted");
        }
        if self.is_range() && !self.is_in_range(value) {
            return Err("not a number within the range");
        }
        if !self.prefix.iter().all(|prefix| value.as_str().is_some_and(|path| is_within(prefix, path))) {
            return Err("not a path under the prefix");
        }
        Ok(())
    }
    fn is_range(&self) -> bool {
        self.minimum.is_some() || self.maximum.is_some()
    }
    fn is_in_range(&self, value: &Value) -> bool {
        let Some(value) = value.as_number().and_then(exact) else { return false };
        let holds = |bound: &Option<Number>, holds: fn(f64, f64) -> bool| match bound {
            None => true,
            Some(bound) => exact(bound).is_some_and(|bound| holds(value, bound)),
        };
        holds(&self.minimum, |value, minimum| value >= minimum)
            && holds(&self.maximum, |value, maximum| value <= maximum)
    }
}

/// Deep equality with numbers compared by value, exactly; a number outside the interoperable range equals nothing.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => exact(left).is_some() && exact(left) == exact(right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        _ => left == right,
    }
}

/// Whether `path` lies under `prefix` by whole segments, and holds nothing that could lead out again.
fn is_within(prefix: &str, path: &str) -> bool {
    is_plain_path(prefix)
        && is_plain_path(path)
        && path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// `..` climbs, `%` may hide what climbs, `\` is a second separator for some, and a control character (NUL) may end
/// the path early for others.
fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= MAX_PATH_BYTES
        && !path.contains("..")
        && !path.contains(['%', '\\'])
        && !path.contains(char::is_control)
}

/// RFC 6901 §3: `/` before every token, and `~` only in `~0` and `~1`. The empty pointer, valid there, is no argument.
fn is_pointer(pointer: &str) -> bool {
    pointer.len() <= MAX_POINTER_BYTES
        && pointer.starts_with('/')
        && pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

/// Whether `pointer` points into the value at `ancestor`.
fn is_below(pointer: &str, ancestor: &str) -> bool {
    pointer.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}

fn refusal(pointer: &str, reason: &'static str) -> ConstraintError {
    ConstraintError { pointer: pointer.to_owned(), reason }
}

/// Present means present: `null` is no bound and no list.
fn not_null<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
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

const MAX_CONSTRAINTS: usize = 64;
const MAX_VALUES: usize = 64;
const MAX_POINTER_BYTES: usize = 1024;
const MAX_PATH_BYTES: usize = 4096;
