//! Parts of a request that stand in header fields too (MCP 2026-07-28, request metadata).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::json::Object;
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeSet};

/// Which arguments of a tool are mirrored: the path to each, and the name of its header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirrored(Vec<(Vec<String>, String)>);

impl Mirrored {
    /// Reads the annotations of a schema. `None` if they break the rules: such a tool is not to be used.
    pub(super) fn of(input_schema: Option<&Value>) -> Option<Self> {
        let mut found = Self::default();
        let mut names = BTreeSet::new();
        let schema = input_schema.unwrap_or(&Value::Null);
        let mut open: Vec<(Vec<String>, &Value)> = vec![(Vec::new(), schema)];
        let mut annotations = 0_usize;
        while let Some((path, schema)) = open.pop() {
            if let Some(header) = schema.get(ANNOTATION) {
                let header = header.as_str().filter(|name| is_token(name))?;
                let is_plain = schema
                    .get("type")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| matches!(kind, "string" | "integer" | "boolean"));
                // Unique without regard to case: header names have none.
                if path.is_empty() || !is_plain || !names.insert(header.to_ascii_lowercase()) {
                    return None;
                }
                annotations += 1;
                found.0.push((path.clone(), header.to_owned()));
            }
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                let mut below = path.clone();
                below.push(name.clone());
                open.push((below, property));
            }
        }
        // One that `properties` alone do not lead to is against the rules.
        (count(schema) == annotations).then_some(found)
    }

    /// The headers for these arguments. What is absent, or null, is left out.
    pub(super) fn headers(&self, arguments: &Object) -> Vec<(String, String)> {
        let header = |(path, name): &(Vec<String>, String)| {
            let (first, rest) = path.split_first()?;
            let value = rest.iter().try_fold(arguments.get(first)?, |value, step| value.get(step))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((format!("mcp-param-{name}"), encode(&text).into_owned()))
        };
        self.0.iter().filter_map(header).collect()
    }

    /// Whether these headers are the ones for these arguments. What mirrors nothing of this tool is passed over.
    pub(super) fn agrees(&self, arguments: &Object, given: &[(String, String)]) -> bool {
        let due = self.headers(arguments);
        let mirrors = |name: &str| {
            self.0.iter().any(|(_, header)| name.eq_ignore_ascii_case(&format!("mcp-param-{header}")))
        };
        let fits = |(name, value): &(String, String)| {
            let mut same = due.iter().filter(|(due, _)| name.eq_ignore_ascii_case(due));
            same.next().is_some_and(|(_, due)| says_the_same(value, due))
        };
        let known: Vec<_> = given.iter().filter(|(name, _)| mirrors(name)).collect();
        // As many as are due, each of them fitting, none twice: all of them.
        let names: BTreeSet<String> = known.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        known.len() == due.len() && names.len() == due.len() && known.into_iter().all(fits)
    }
}

/// What a header value says, decoded if it is encoded. `None` if the encoding is broken.
pub(super) fn decode(value: &str) -> Option<Cow<'_, str>> {
    let encoded = value.strip_prefix(ENCODED).and_then(|value| value.strip_suffix(ENCODED_END));
    match encoded {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
    }
}

/// Whether a header says what another would say. Numbers are compared as numbers: 42.0 is 42.
fn says_the_same(given: &str, due: &str) -> bool {
    let (Some(given), Some(due)) = (decode(given), decode(due)) else { return false };
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    given == due || number(&given).is_some_and(|given| number(&due) == Some(given))
}

/// A header value that says `text`: itself where it is plain, else encoded.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    let is_visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_padded = text.starts_with(' ') || text.ends_with(' ');
    let looks_encoded = text.starts_with(ENCODED) && text.ends_with(ENCODED_END);
    if is_visible && !is_padded && !looks_encoded {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{ENCODED}{}{ENCODED_END}", STANDARD.encode(text)))
}

/// How often the annotation stands anywhere in a schema, as a member of an object that is a schema or looks like one.
/// A property of that very name is none.
fn count(schema: &Value) -> usize {
    match schema {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| match (name.as_str(), member) {
                (ANNOTATION, Value::String(_)) => 1,
                ("properties", Value::Object(properties)) => properties.values().map(count).sum(),
                ("enum" | "const" | "default" | "examples", _) => 0,
                _ => count(member),
            })
            .sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

const ANNOTATION: &str = "x-mcp-header";
const ENCODED: &str = "=?base64?";
const ENCODED_END: &str = "?=";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_encoded_where_a_header_could_not_hold_them() {
        for (text, header) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encode(text), header);
        }
    }

    #[test]
    fn arguments_are_mirrored_at_the_path_that_the_schema_says() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "place": { "type": "object", "properties": { "floor": { "type": "integer", "x-mcp-header": "Floor" } } },
            "query": { "type": "string" },
        } });
        let mirrored = Mirrored::of(Some(&schema)).unwrap();
        let arguments = json!({ "region": "eu", "place": { "floor": 2 }, "query": "x" });
        let mut headers = mirrored.headers(arguments.as_object().unwrap());
        headers.sort();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(headers, [pair("mcp-param-Floor", "2"), pair("mcp-param-Region", "eu")]);
        let absent = json!({ "region": null, "place": 1 });
        assert_eq!(mirrored.headers(absent.as_object().unwrap()), []);
    }

    #[test]
    fn a_schema_that_breaks_the_rules_is_refused() {
        for property in [
            json!({ "type": "string", "x-mcp-header": "" }),
            json!({ "type": "string", "x-mcp-header": "a b" }),
            json!({ "type": "string", "x-mcp-header": "a\r\nb" }),
            json!({ "type": "string", "x-mcp-header": 1 }),
            json!({ "type": "number", "x-mcp-header": "A" }),
            json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "A" } }),
            json!({ "oneOf": [{ "type": "string", "x-mcp-header": "A" }] }),
            json!({ "type": "object", "properties": {
                "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } } }),
        ] {
            let schema = json!({ "type": "object", "properties": { "p": property } });
            assert_eq!(Mirrored::of(Some(&schema)), None, "{schema}");
        }
        let named = json!({ "properties": { "x-mcp-header": { "type": "string" } } });
        assert!(Mirrored::of(Some(&named)).is_some(), "a property of that name is no annotation");
    }
}
