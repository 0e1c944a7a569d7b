//! Strict JSON: what two parsers could read differently is refused before anything is digested.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};
use std::{cell::Cell, fmt};

/// A JSON object whose members are unique, whose numbers are exact in every language, and which is no deeper
/// than [`MAX_DEPTH`].
pub type Object = Map<String, Value>;

/// The deepest nesting accepted; the object itself is level 1.
pub const MAX_DEPTH: usize = 32;
/// The largest integer magnitude that IEEE 754 doubles hold exactly, 2⁵³−1; larger numbers are refused in any notation.
pub const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON at all (trailing bytes, lone surrogates and invalid UTF-8 included).
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// A member name stands twice in one object.
    #[error("duplicate member name")]
    DuplicateMember,
    /// A number is beyond ±(2⁵³−1) or not finite.
    #[error("number out of the interoperable range")]
    Number,
    /// Nested deeper than allowed.
    #[error("nested too deeply")]
    Depth,
    /// The top level is not an object.
    #[error("top level is not an object")]
    NotAnObject,
}

/// Parses a strict JSON object (nesting up to [`MAX_DEPTH`]).
pub fn parse_object(text: &[u8]) -> Result<Object, JsonError> {
    match parse_value(text, MAX_DEPTH)? {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAnObject),
    }
}

/// Parses any strict JSON value, nested at most `max_depth` levels (a top-level array or object is level 1).
/// Levels beyond 127 are refused whatever `max_depth` says.
pub fn parse_value(text: &[u8], max_depth: usize) -> Result<Value, JsonError> {
    let refusal = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { levels_left: max_depth, refusal: &refusal }
        .deserialize(&mut deserializer)
        .map_err(|error| refusal.take().unwrap_or_else(|| unreadable(&error)))?;
    deserializer.end().map_err(|error| unreadable(&error))?;
    Ok(value)
}

/// Checks that an object which came out of a strict parse is itself within [`MAX_DEPTH`] (for `arguments`
/// inside a deeper envelope).
pub fn check_depth(object: &Object) -> Result<(), JsonError> {
    object.values().try_for_each(|member| check_value(member, MAX_DEPTH - 1))
}

/// The canonical form of RFC 8785. Numbers outside the range that a strict parse admits are refused: rounding one
/// would give two values the same form.
pub fn canonicalize(value: &Value) -> Result<Vec<u8>, JsonError> {
    check_value(value, MAX_NESTING)?;
    serde_json_canonicalizer::to_vec(value).map_err(|error| JsonError::Syntax(error.to_string()))
}

/// Checks a value that may not come from a strict parse: at most `levels` deep, every number exact.
pub(crate) fn check_value(value: &Value, levels: usize) -> Result<(), JsonError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => exact(number).map(|_| ()).ok_or(JsonError::Number),
        Value::Array(items) => {
            let levels = levels.checked_sub(1).ok_or(JsonError::Depth)?;
            items.iter().try_for_each(|item| check_value(item, levels))
        }
        Value::Object(members) => {
            let levels = levels.checked_sub(1).ok_or(JsonError::Depth)?;
            members.values().try_for_each(|member| check_value(member, levels))
        }
    }
}

/// The number as a double, if it is one that every language reads alike.
pub(crate) fn exact(number: &Number) -> Option<f64> {
    // An integer beyond 2⁵³−1 becomes at least 2⁵³ here, whichever way it rounds.
    number.as_f64().filter(|double| double.abs() <= MAX_SAFE_INTEGER)
}

/// Builds a [`Value`] while refusing what [`JsonError`] lists; the reason is left in `refusal`, since a serde
/// error carries text alone.
#[derive(Clone, Copy)]
struct Strict<'r> {
    levels_left: usize,
    refusal: &'r Cell<Option<JsonError>>,
}

impl Strict<'_> {
    fn refuse<T, E: serde::de::Error>(self, reason: JsonError) -> Result<T, E> {
        let error = E::custom(&reason);
        self.refusal.set(Some(reason));
        Err(error)
    }
    fn number<E: serde::de::Error>(self, number: Number) -> Result<Value, E> {
        if exact(&number).is_none() {
            return self.refuse(JsonError::Number);
        }
        Ok(Value::Number(number))
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.number(value.into())
    }
    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.number(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.refuse(JsonError::Number),
        }
    }
    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let Some(levels_left) = self.levels_left.checked_sub(1) else {
            return self.refuse(JsonError::Depth);
        };
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self { levels_left, ..self })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let Some(levels_left) = self.levels_left.checked_sub(1) else {
            return self.refuse(JsonError::Depth);
        };
        let mut object = Object::new();
        while let Some(name) = members.next_key::<String>()? {
            let Entry::Vacant(member) = object.entry(name) else {
                return self.refuse(JsonError::DuplicateMember);
            };
            member.insert(members.next_value_seed(Self { levels_left, ..self })?);
        }
        Ok(Value::Object(object))
    }
}

/// What serde_json itself refused.
fn unreadable(error: &serde_json::Error) -> JsonError {
    let text = error.to_string();
    // serde_json has no codes: these two texts stand for what we refuse under names of our own.
    if text.starts_with("number out of range") {
        JsonError::Number
    } else if text.starts_with("recursion limit exceeded") {
        JsonError::Depth
    } else {
        JsonError::Syntax(text)
    }
}

/// serde_json's own limit, so that no value we can hold is deeper.
const MAX_NESTING: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_is_the_callers_but_never_beyond_what_the_stack_holds() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_value(nested(5).as_bytes(), 5).is_ok());
        assert_eq!(parse_value(nested(6).as_bytes(), 5), Err(JsonError::Depth));
        assert_eq!(parse_value(b"1", 0), Ok(json!(1)));
        assert_eq!(parse_value(b"[]", 0), Err(JsonError::Depth));
        assert!(parse_value(nested(127).as_bytes(), usize::MAX).is_ok());
        assert_eq!(parse_value(nested(128).as_bytes(), usize::MAX), Err(JsonError::Depth));
        assert_eq!(parse_value("[".repeat(1_000_000).as_bytes(), usize::MAX), Err(JsonError::Depth));
        assert_eq!(parse_value(r#"{"a":"#.repeat(1_000_000).as_bytes(), usize::MAX), Err(JsonError::Depth));
    }

    #[test]
    fn arguments_inside_an_envelope_have_their_own_depth() {
        let body = |levels: usize| {
            let text = format!(
                r#"{{"params":{{"arguments":{}1{}}}}}"#,
                r#"{"a":"#.repeat(levels),
                "}".repeat(levels)
            );
            parse_value(text.as_bytes(), 64).unwrap()["params"]["arguments"].as_object().unwrap().clone()
        };
        assert_eq!(check_depth(&body(MAX_DEPTH)), Ok(()));
        assert_eq!(check_depth(&body(MAX_DEPTH + 1)), Err(JsonError::Depth));
    }

    #[test]
    fn values_that_no_strict_parse_returns_have_no_canonical_form() {
        for beyond in [json!(9_007_199_254_740_992_u64), json!(u64::MAX), json!(i64::MIN), json!(1e16)] {
            assert_eq!(canonicalize(&json!([{ "a": beyond }])), Err(JsonError::Number));
        }
        assert_eq!(canonicalize(&json!([-9_007_199_254_740_991_i64])).unwrap(), b"[-9007199254740991]");
    }
}
