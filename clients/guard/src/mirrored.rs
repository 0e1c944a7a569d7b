//! Arguments that stand in header fields too, so that what routes by headers routes by the truth (MCP 2026-07-28,
//! custom headers from tool parameters). They are held against the body when they come in, and made anew from the
//! verified arguments when they go out.

use crate::{headers::IncomingCall, refusal::Reason};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_call::json::Object;
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeMap};

/// `Mcp-Param-*` mirror arguments whose schema says `x-mcp-header`; one that mirrors nothing, or something else, is
/// refused.
pub(crate) fn check(
    call: &IncomingCall<'_>,
    input_schema: Option<&Value>,
    arguments: &Object,
) -> Result<(), Reason> {
    let mut expected = BTreeMap::new();
    for (name, argument) in mirrored(input_schema, arguments) {
        expected.insert(name.to_ascii_lowercase(), argument);
    }
    for (name, value) in call.headers {
        let lower = name.to_ascii_lowercase();
        let Some(suffix) = lower.strip_prefix(PREFIX) else { continue };
        // Taken out: a second field of this name mirrors nothing any more.
        let argument = expected.remove(suffix).ok_or(Reason::HeaderMismatch("Mcp-Param"))?;
        if !says(value, argument) {
            return Err(Reason::HeaderMismatch("Mcp-Param"));
        }
    }
    // Earlier versions know no such headers; since this one they are due.
    let is_due = call.single("mcp-protocol-version") == Ok(Some(SINCE));
    if is_due && expected.into_values().any(|argument| text(argument).is_some()) {
        return Err(Reason::HeaderMismatch("Mcp-Param"));
    }
    Ok(())
}

/// The header fields that mirror these arguments.
pub(crate) fn headers(input_schema: Option<&Value>, arguments: &Object) -> Vec<(String, String)> {
    let all = mirrored(input_schema, arguments).into_iter();
    all.filter_map(|(name, argument)| {
        Some((format!("Mcp-Param-{name}"), encode(&text(argument)?).into_owned()))
    })
    .collect()
}

/// What a header value says, decoded if it is encoded. `None` if the encoding is broken.
pub(crate) fn decode(value: &str) -> Option<Cow<'_, str>> {
    let encoded = value.strip_prefix(ENCODED_BEGIN).and_then(|value| value.strip_suffix(ENCODED_END));
    match encoded {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
    }
}

/// A header value that says `text`: itself where it is plain, else encoded.
pub(crate) fn encode(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let padded = text.starts_with(' ') || text.ends_with(' ');
    let looks_encoded = text.starts_with(ENCODED_BEGIN) && text.ends_with(ENCODED_END);
    if plain && !padded && !looks_encoded {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{ENCODED_BEGIN}{}{ENCODED_END}", STANDARD.encode(text)))
    }
}

/// Each argument that is mirrored, with the name of its header. Only properties that are reached through `properties`
/// alone carry the annotation.
fn mirrored<'a>(input_schema: Option<&'a Value>, arguments: &'a Object) -> Vec<(&'a str, &'a Value)> {
    let mut found = Vec::new();
    let mut open = vec![(input_schema, arguments)];
    while let Some((schema, object)) = open.pop() {
        let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        for (property, schema) in properties.into_iter().flatten() {
            let Some(argument) = object.get(property) else { continue };
            if let Some(header) =
                schema.get("x-mcp-header").and_then(Value::as_str).filter(|name| is_token(name))
            {
                found.push((header, argument));
            }
            if let Value::Object(inner) = argument {
                open.push((Some(schema), inner));
            }
        }
    }
    found
}

fn says(value: &str, argument: &Value) -> bool {
    let Some(decoded) = decode(value) else { return false };
    match argument {
        // Numbers are compared as numbers: 42.0 is 42.
        Value::Number(number) => decoded
            .parse::<f64>()
            .is_ok_and(|said| number.as_f64().is_some_and(|sent| sent.total_cmp(&said).is_eq())),
        _ => text(argument).is_some_and(|expected| expected == decoded),
    }
}

fn text(argument: &Value) -> Option<String> {
    match argument {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(argument.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

const PREFIX: &str = "mcp-param-";
const SINCE: &str = "2026-07-28";
const ENCODED_BEGIN: &str = "=?base64?";
const ENCODED_END: &str = "?=";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn what_is_not_plain_is_encoded_and_read_back() {
        for (text, value) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", ""),
        ] {
            assert_eq!(encode(text), value);
            assert_eq!(decode(value).unwrap(), text);
        }
        for broken in ["=?base64?*?=", "=?base64?/w==?=", "=?base64?YQ?="] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    fn schema() -> Value {
        json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "place": { "type": "object", "properties": { "floor": { "type": "integer", "x-mcp-header": "Floor" } } },
            "list": { "type": "array", "items": { "type": "string", "x-mcp-header": "Item" } },
            "bad": { "type": "string", "x-mcp-header": "a b" },
        } })
    }

    fn checked(arguments: &Value, headers: &[(&str, &str)]) -> bool {
        let call = IncomingCall {
            method: "POST",
            headers,
            body: b"",
            client_certificate: None,
            caller: crate::Caller::default(),
            uptime: Duration::ZERO,
            now_seconds: 0,
        };
        check(&call, Some(&schema()), arguments.as_object().unwrap()).is_ok()
    }

    #[test]
    fn headers_mirror_the_arguments_at_any_depth() {
        let arguments = json!({ "region": "é", "place": { "floor": 2 }, "list": ["x"], "bad": "x" });
        let made = headers(Some(&schema()), arguments.as_object().unwrap());
        let made: Vec<_> = made.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(made, [("Mcp-Param-Region", "=?base64?w6k=?="), ("Mcp-Param-Floor", "2")]);
        assert!(checked(&arguments, &made), "what is made is what is accepted");
        for (headers, agrees) in [
            (&[("Mcp-Param-Floor", "2.0")][..], true),
            (&[("mcp-param-FLOOR", "2")], true),
            (&[("Mcp-Param-Floor", "3")], false),
            (&[("Mcp-Param-Floor", "two")], false),
            (&[("Mcp-Param-Floor", "2"), ("mcp-param-floor", "2")], false),
            (&[("Mcp-Param-Item", "x")], false),
            (&[("Mcp-Param-Region", "e")], false),
            (&[("Mcp-Param-Region", "=?base64?w6k?=")], false),
            (&[("Mcp-Param-Other", "x")], false),
        ] {
            assert_eq!(checked(&arguments, headers), agrees, "{headers:?}");
        }
        let modern = ("MCP-Protocol-Version", SINCE);
        for (headers, agrees) in [
            (&[][..], true),
            (&[("MCP-Protocol-Version", "2025-11-25")], true),
            (&[modern], false),
            (&[modern, made[0]], false),
            (&[modern, made[0], made[1]], true),
        ] {
            assert_eq!(checked(&arguments, headers), agrees, "{headers:?}");
        }
        assert!(checked(&json!({ "region": null }), &[modern]), "what is null is not mirrored");
        assert!(!checked(&json!({}), &[("Mcp-Param-Region", "")]), "what is absent is not mirrored");
    }
}
