//! A tool's pinned input schema: compiled once, closed against unknown members, bounded.

mod close;
#[cfg(test)]
mod tests;

use crate::json::Object;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// The longest schema accepted, as compact JSON, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// The deepest nesting of a schema.
pub const MAX_SCHEMA_DEPTH: usize = 32;

/// A compiled JSON Schema that refuses what it does not name.
pub struct PinnedSchema {
    /// The schema as its author wrote it.
    original: Validator,
    /// The same, closed: closing may widen what stands under `not`, so both must hold.
    closed: Validator,
}

/// Why a schema or arguments are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {problem}")]
pub struct SchemaError {
    /// JSON Pointer into the arguments (or into the schema, when compiling).
    pub pointer: String,
    /// What is wrong; never contains the arguments' values.
    pub problem: String,
}

impl PinnedSchema {
    /// Compiles an `inputSchema` of draft 2020-12 (the default) or draft-07. External references are refused
    /// and never fetched; patterns run in linear time.
    ///
    /// Every object position that does not itself say `additionalProperties` or `unevaluatedProperties` is
    /// closed, and items that no keyword describes must be scalars: `{"type":"object"}` admits only `{}`.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        if !schema.is_object() {
            return Err(SchemaError::at("", "the input schema is not an object"));
        }
        if depth_exceeds(schema, MAX_SCHEMA_DEPTH) {
            return Err(SchemaError::at("", "the input schema is nested more than 32 levels deep"));
        }
        let too_long = || SchemaError::at("", "the input schema is longer than 256 KiB");
        if serde_json::to_vec(schema).map_err(|_| too_long())?.len() > MAX_SCHEMA_BYTES {
            return Err(too_long());
        }
        let (closed, draft) = close::close(schema)?;
        Ok(Self { original: build(schema, draft)?, closed: build(&closed, draft)? })
    }

    /// Whether these arguments are valid, with nothing unknown in them.
    pub fn validate(&self, arguments: &Object) -> Result<(), SchemaError> {
        let instance = Value::Object(arguments.clone());
        self.original.validate(&instance).map_err(|error| invalid(&error))?;
        self.closed.validate(&instance).map_err(|error| invalid(&error))
    }
}

impl SchemaError {
    fn at(pointer: &str, problem: impl Into<String>) -> Self {
        Self { pointer: shortened(pointer), problem: problem.into() }
    }
}

impl std::fmt::Debug for PinnedSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedSchema").finish_non_exhaustive()
    }
}

fn build(schema: &Value, draft: Draft) -> Result<Validator, SchemaError> {
    jsonschema::options()
        .with_draft(draft)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES))
        .build(schema)
        .map_err(|error| {
            // What failed when a schema is compiled is the schema itself: its own pointer and words may be shown.
            let problem: String = error.masked().to_string().chars().take(MAX_PROBLEM_CHARS).collect();
            SchemaError::at(error.instance_path().as_str(), format!("not a usable schema: {problem}"))
        })
}

/// Tells where arguments fail, and against which keyword; the values stay inside.
fn invalid(error: &ValidationError<'_>) -> SchemaError {
    let problem = match error.kind().keyword() {
        keyword @ ("additionalProperties" | "unevaluatedProperties") => {
            format!("has a member that the schema does not name ({keyword})")
        }
        keyword => format!("does not satisfy {keyword}"),
    };
    SchemaError::at(error.instance_path().as_str(), problem)
}

/// A pointer into arguments is made of the caller's member names, which may be long.
fn shortened(pointer: &str) -> String {
    pointer.chars().take(MAX_POINTER_CHARS).collect()
}

fn depth_exceeds(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| depth_exceeds(item, levels - 1)),
        Value::Object(members) => {
            levels == 0 || members.values().any(|member| depth_exceeds(member, levels - 1))
        }
        _ => false,
    }
}

const REGEX_BYTES: usize = 1024 * 1024;
const MAX_PROBLEM_CHARS: usize = 300;
const MAX_POINTER_CHARS: usize = 256;
