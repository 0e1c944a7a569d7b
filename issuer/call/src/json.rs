//! Strict JSON: what two parsers could read differently is refused before anything is digested.

use serde_json::{Map, Value};

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
    let _ = text;
    todo!()
}

/// Parses any strict JSON value, nested at most `max_depth` levels (a top-level array or object is level 1).
pub fn parse_value(text: &[u8], max_depth: usize) -> Result<Value, JsonError> {
    let _ = (text, max_depth);
    todo!()
}

/// Checks that an object which came out of a strict parse is itself within [`MAX_DEPTH`] (for `arguments`
/// inside a deeper envelope).
pub fn check_depth(object: &Object) -> Result<(), JsonError> {
    let _ = object;
    todo!()
}

/// The canonical form of RFC 8785.
pub fn canonicalize(value: &Value) -> Result<Vec<u8>, JsonError> {
    let _ = value;
    todo!()
}
