//! What a request of the local client says in its HTTP headers, held against its body (MCP 2026-07-28, request
//! metadata): who routes by headers routes by the truth.

use super::{
    message::{self, HEADER_MISMATCH, INVALID_PARAMS, Manner, Request},
    mirrored::decode,
};
use axum::http::HeaderMap;
use serde_json::Value;

/// Checks the headers that every request has, and gives back those of its arguments: which of them are due depends on
/// the tool.
///
/// # Errors
/// The answer to a request whose headers say something else; its HTTP status is 400.
pub(super) fn check(headers: &HeaderMap, request: &Request) -> Result<Vec<(String, String)>, String> {
    let refuse = |code, what: &str| Err(message::error(Some(&request.id), code, what, None));
    let version = single(headers, "mcp-protocol-version");
    let declared = match &request.manner {
        Manner::Alone { version } => version,
        // Versions with sessions name themselves in the header alone.
        Manner::InSession if version.is_none_or(|version| version < STANDS_ALONE_SINCE) => {
            return Ok(Vec::new());
        }
        Manner::InSession => {
            return refuse(INVALID_PARAMS, "_meta must have io.modelcontextprotocol/protocolVersion");
        }
    };
    if version != Some(declared) {
        return refuse(HEADER_MISMATCH, "MCP-Protocol-Version and _meta must name the same version");
    }
    if single(headers, "mcp-method") != Some(&request.method) {
        return refuse(HEADER_MISMATCH, "Mcp-Method must be the method");
    }
    if let Some(name) = named(request)
        && single(headers, "mcp-name").and_then(decode).as_deref() != Some(name)
    {
        return refuse(HEADER_MISMATCH, "Mcp-Name must be the name, or the URI");
    }
    let mut mirrored = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("mcp-param-")) {
        let Ok(value) = value.to_str() else {
            return refuse(HEADER_MISMATCH, "Mcp-Param headers must be visible ASCII");
        };
        mirrored.push((name.as_str().to_owned(), value.to_owned()));
    }
    Ok(mirrored)
}

/// What `Mcp-Name` says.
fn named(request: &Request) -> Option<&str> {
    let member = match request.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return None,
    };
    request.whole.get("params")?.get(member).and_then(Value::as_str)
}

/// A header that stands exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Versions are dates: this one and later ones have no sessions.
const STANDS_ALONE_SINCE: &str = "2026-07-28";

#[cfg(test)]
mod tests {
    use super::{super::message::Message, *};
    use serde_json::json;

    fn code(headers: &[(&'static str, &'static str)], method: &str, params: Value) -> Option<i64> {
        let text = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
        let Ok(Message::Request(request)) = Message::parse(text.as_bytes()) else { panic!("{text}") };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let answer: Value = serde_json::from_str(&check(&map, &request).err()?).unwrap();
        assert_eq!(answer["id"], 7);
        answer["error"]["code"].as_i64()
    }

    fn alone(more: &Value) -> Value {
        let mut params = json!({ "_meta": { message::PROTOCOL_VERSION: STANDS_ALONE_SINCE } });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    }

    const VERSION: (&str, &str) = ("mcp-protocol-version", STANDS_ALONE_SINCE);

    #[test]
    fn headers_say_what_the_body_does() {
        let list = ("mcp-method", "tools/list");
        assert_eq!(code(&[VERSION, list], "tools/list", alone(&json!({}))), None);
        for headers in [
            &[list][..],
            &[VERSION],
            &[("mcp-protocol-version", "2025-11-25"), list],
            &[VERSION, ("mcp-method", "TOOLS/LIST")],
            &[VERSION, list, ("mcp-method", "tools/call")],
            &[VERSION, VERSION, list],
        ] {
            assert_eq!(code(headers, "tools/list", alone(&json!({}))), Some(HEADER_MISMATCH), "{headers:?}");
        }
        for (method, member) in [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")] {
            let params = alone(&json!({ member: "a:b" }));
            let named =
                |name| code(&[VERSION, ("mcp-method", method), ("mcp-name", name)], method, params.clone());
            assert_eq!((named("a:b"), named("=?base64?YTpi?=")), (None, None));
            assert_eq!(
                (named("a"), named("=?base64?YTp!?=")),
                (Some(HEADER_MISMATCH), Some(HEADER_MISMATCH))
            );
            let unnamed = [VERSION, ("mcp-method", method)];
            assert_eq!(code(&unnamed, method, params), Some(HEADER_MISMATCH));
        }
    }

    #[test]
    fn a_version_without_sessions_stands_in_the_body_too() {
        let list = ("mcp-method", "tools/list");
        for (version, expected) in
            [("2025-06-18", None), ("2025-11-25", None), (STANDS_ALONE_SINCE, Some(INVALID_PARAMS))]
        {
            assert_eq!(code(&[("mcp-protocol-version", version), list], "tools/list", json!({})), expected);
        }
        assert_eq!(code(&[], "tools/list", json!({})), None);
    }
}
