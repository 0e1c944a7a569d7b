//! Which version of MCP a request is of, and whether it goes with the server's.

use super::{
    failure::{Failure, HEADER_MISMATCH, INVALID_PARAMS, METHOD_NOT_FOUND, UNSUPPORTED_VERSION, rpc_error},
    reply::Trouble,
    watch::Era,
};
use crate::{
    Reason, Refusal,
    headers::IncomingCall,
    message::{Kind, Message, is_id},
};
use serde_json::{Value, json};

/// How a request stands to sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manner {
    /// MCP 2026-07-28: each request stands alone. The version that it names.
    Modern(String),
    /// An earlier version, in the session of this id.
    InSession(String),
    /// An earlier version: `initialize`, which begins a session.
    Begins,
    /// An earlier version without a session. The version that it names, if it does.
    Alone(Option<String>),
}

/// Reads a request's manner from its headers and body.
pub(super) fn manner(call: &IncomingCall<'_>, message: &Message) -> Result<Manner, Trouble> {
    let once = |name| call.single(name).map_err(|_| Trouble::from(Failure::MalformedHeader));
    let (header, session) = (once("mcp-protocol-version")?, once("mcp-session-id")?);
    let params = message.whole().get("params");
    let declared = params.and_then(|params| params.pointer(DECLARED_VERSION)).and_then(Value::as_str);
    let is_modern = declared.is_some() || header.is_some_and(|version| version == MODERN);
    if is_modern {
        check_modern(call, message, header, declared)?;
        // A session id beside it means nothing in this version.
        return Ok(Manner::Modern(declared.unwrap_or(MODERN).to_owned()));
    }
    if header.is_some_and(|version| !LEGACY.contains(&version)) {
        return Err(unsupported(message, header.unwrap_or_default(), &LEGACY.map(str::to_owned)));
    }
    if message.method() == "initialize" {
        return Ok(Manner::Begins);
    }
    Ok(match session {
        Some(id) => Manner::InSession(id.to_owned()),
        None => Manner::Alone(header.map(str::to_owned)),
    })
}

/// MCP 2026-07-28, server validation: the headers stand there and say what the body says.
fn check_modern(
    call: &IncomingCall<'_>,
    message: &Message,
    header: Option<&str>,
    declared: Option<&str>,
) -> Result<(), Trouble> {
    let mismatch = |what: &str| {
        let id = message.whole().get("id").unwrap_or(&Value::Null);
        Trouble::Rpc(400, rpc_error(id, HEADER_MISMATCH, what, None))
    };
    let present = |name| call.single(name).is_ok_and(|value| value.is_some());
    if declared.is_none() {
        let id = message.whole().get("id").unwrap_or(&Value::Null);
        let what = "_meta must have io.modelcontextprotocol/protocolVersion";
        return Err(Trouble::Rpc(400, rpc_error(id, INVALID_PARAMS, what, None)));
    }
    if header.is_none() || header != declared {
        return Err(mismatch("MCP-Protocol-Version and _meta must name the same version"));
    }
    // For notifications the version defines no headers.
    if message.whole().contains_key("id") && !present("mcp-method") {
        return Err(mismatch("Mcp-Method is required"));
    }
    if matches!(message.kind(), Kind::Call(_)) && !present("mcp-name") {
        return Err(mismatch("Mcp-Name is required"));
    }
    if matches!(message.kind(), Kind::Response(_)) {
        return Err(mismatch("clients send no responses in this version"));
    }
    Ok(())
}

/// Whether the server speaks what a modern request is of; if not, `Some` is the guard's answer in its place:
/// `server/discover` is answered with what the server does speak.
pub(super) fn in_place_of(era: &Era, version: &str, message: &Message) -> Result<Option<Value>, Trouble> {
    if era.modern && era.versions.iter().any(|spoken| spoken == version) {
        return Ok(None);
    }
    if era.modern || message.method() != "server/discover" {
        return Err(unsupported(message, version, &era.versions));
    }
    let id = message.whole().get("id").unwrap_or(&Value::Null);
    let result = json!({
        "resultType": "complete",
        "supportedVersions": era.versions,
        "capabilities": { "tools": {} },
        "_meta": { "io.modelcontextprotocol/serverInfo": era.server_info },
        "ttlMs": 0,
        "cacheScope": "private",
    });
    Ok(Some(json!({ "jsonrpc": "2.0", "id": id, "result": result })))
}

/// A refusal, in the words that the protocol has for it.
pub(super) fn refused(refusal: Box<Refusal>, call: &IncomingCall<'_>) -> Trouble {
    match refusal.reason {
        Reason::UnknownMethod if is_modern(call) => unknown_method(call),
        Reason::HeaderMismatch(header) if is_modern(call) => {
            let what = format!("{header} headers and the body say different things");
            Trouble::Rpc(400, rpc_error(&id_of(call), HEADER_MISMATCH, &what, None))
        }
        _ => refusal.into(),
    }
}

/// What is told of a method that goes to no server. Before MCP 2026-07-28 the status 404 said that a session is gone.
pub(super) fn unknown_method(call: &IncomingCall<'_>) -> Trouble {
    let status = if is_modern(call) { 404 } else { 400 };
    Trouble::Rpc(status, rpc_error(&id_of(call), METHOD_NOT_FOUND, "Method not found", None))
}

fn is_modern(call: &IncomingCall<'_>) -> bool {
    call.single("mcp-protocol-version") == Ok(Some(MODERN))
}

/// Of a body that was read before: what it is refused for is no fault of its JSON.
fn id_of(call: &IncomingCall<'_>) -> Value {
    let whole: Value = serde_json::from_slice(call.body).unwrap_or_default();
    whole.get("id").filter(|id| is_id(id)).cloned().unwrap_or_default()
}

fn unsupported(message: &Message, requested: &str, supported: &[String]) -> Trouble {
    let id = message.whole().get("id").unwrap_or(&Value::Null);
    let requested: String = requested.chars().take(MAX_SHOWN_CHARS).collect();
    let data = json!({ "supported": supported, "requested": requested });
    Trouble::Rpc(400, rpc_error(id, UNSUPPORTED_VERSION, "Unsupported protocol version", Some(data)))
}

/// The stateless version.
pub(super) const MODERN: &str = "2026-07-28";
/// The versions with sessions, the newest first.
pub(super) const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
const DECLARED_VERSION: &str = "/_meta/io.modelcontextprotocol~1protocolVersion";
const MAX_SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(headers: &[(&str, &str)], body: &Value) -> Result<Manner, u16> {
        let body = body.to_string();
        let call = IncomingCall {
            method: "POST",
            headers,
            body: body.as_bytes(),
            client_certificate: None,
            caller: crate::Caller::default(),
            uptime: Duration::ZERO,
            now_seconds: 0,
        };
        manner(&call, &Message::parse(body.as_bytes()).unwrap()).map_err(|trouble| trouble.status())
    }

    fn modern(method: &str) -> Value {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN });
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "_meta": meta, "name": "a" } })
    }

    #[test]
    fn a_version_is_read_from_header_and_body_which_agree() {
        let version = ("MCP-Protocol-Version", MODERN);
        let listed = ("Mcp-Method", "tools/list");
        let list = modern("tools/list");
        assert_eq!(read(&[version, listed], &list), Ok(Manner::Modern(MODERN.into())));
        let session = ("Mcp-Session-Id", "s");
        assert_eq!(read(&[version, listed, session], &list), Ok(Manner::Modern(MODERN.into())));
        for headers in [&[listed][..], &[version], &[("MCP-Protocol-Version", "2025-11-25"), listed]] {
            assert_eq!(read(headers, &list), Err(400), "{headers:?}");
        }
        let undeclared = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        assert_eq!(read(&[version, listed], &undeclared), Err(400));
        let call = modern("tools/call");
        assert_eq!(read(&[version, ("Mcp-Method", "tools/call")], &call), Err(400), "a call names its tool");
        assert!(read(&[version, ("Mcp-Method", "tools/call"), ("Mcp-Name", "a")], &call).is_ok());
    }

    #[test]
    fn earlier_versions_have_sessions() {
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let begin = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} });
        let version = ("MCP-Protocol-Version", "2025-06-18");
        let session = ("Mcp-Session-Id", "s");
        assert_eq!(read(&[version, session], &list), Ok(Manner::InSession("s".into())));
        assert_eq!(read(&[version], &list), Ok(Manner::Alone(Some("2025-06-18".into()))));
        assert_eq!(read(&[], &begin), Ok(Manner::Begins));
        assert_eq!(read(&[session, session], &list), Err(400), "two sessions are none");
        assert_eq!(read(&[("MCP-Protocol-Version", "1900-01-01")], &list), Err(400));
    }

    #[test]
    fn before_an_older_server_the_guard_answers_discovery_itself() {
        let older =
            Era { modern: false, versions: vec![LEGACY[0].into()], server_info: json!({ "name": "s" }) };
        let read = |body: &Value| Message::parse(body.to_string().as_bytes()).unwrap();
        let answer = in_place_of(&older, MODERN, &read(&modern("server/discover"))).unwrap().unwrap();
        assert_eq!(answer["result"]["supportedVersions"], json!([LEGACY[0]]));
        let Err(Trouble::Rpc(400, error)) = in_place_of(&older, MODERN, &read(&modern("tools/list"))) else {
            panic!("served");
        };
        assert_eq!(error["error"]["code"], UNSUPPORTED_VERSION);
        assert_eq!(error["error"]["data"]["supported"], json!([LEGACY[0]]));
        let newer = Era { modern: true, versions: vec![MODERN.into()], server_info: json!({}) };
        assert_eq!(in_place_of(&newer, MODERN, &read(&modern("tools/list"))).unwrap(), None);
        assert!(in_place_of(&newer, "2027-01-01", &read(&modern("server/discover"))).is_err());
    }
}
