//! The body of a request: exactly one JSON-RPC message that asks for exactly one thing.

use crate::refusal::Reason;
use deputize_call::{
    action::Action,
    digest::{CallInput, Digest, call_digest},
    json::{self, MAX_DEPTH, Object},
};
use serde_json::{Map, Value};

/// What an L0 token admits, besides notifications: discovery, listing, hearing that lists changed, and how much of a
/// session's log is heard.
pub const LISTING_METHODS: [&str; 9] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    LISTEN,
];
/// Opens a stream of changes (MCP 2026-07-28, subscriptions).
pub(crate) const LISTEN: &str = "subscriptions/listen";

/// A message as it was strictly read.
#[derive(Debug)]
pub(crate) struct Message {
    method: String,
    kind: Kind,
    /// The whole message, to be serialized anew.
    whole: Object,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// `tools/call`, `prompts/get`, `resources/read`.
    Call(Call),
    /// Discovery, listing, a notification.
    Listing,
    /// The client's answer to a request of the server, by the id of that request (MCP up to 2025-11-25).
    Response(Value),
}

/// The parts of a request that acts.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) action: Action,
    /// Name of the tool or prompt; URI of the resource, verbatim.
    pub(crate) name: String,
    pub(crate) arguments: Object,
    pub(crate) input_responses: Option<Value>,
    pub(crate) request_state: Option<Value>,
}

impl Message {
    /// Reads a body (JSON-RPC 2.0 §4, §5). Batches, unknown members, and requests in the guise of notifications or of
    /// responses are refused; so is every method that neither acts nor is on the list of an L0 token.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Reason> {
        let whole = match json::parse_value(body, MAX_DEPTH + ENVELOPE_LEVELS) {
            Ok(Value::Object(whole)) => whole,
            Ok(Value::Array(_)) => return Err(Reason::Message("batches are not accepted")),
            Ok(_) => return Err(Reason::Message("the body is not a JSON-RPC message")),
            Err(error) => return Err(Reason::Json(error)),
        };
        if whole.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(Reason::Message("jsonrpc must be \"2.0\""));
        }
        let id = match whole.get("id") {
            None => None,
            Some(id) if is_id(id) => Some(id.clone()),
            // MCP: ids are strings or integers, never null.
            Some(_) => {
                return Err(Reason::Message("id must be a string of at most 256 bytes, or an integer"));
            }
        };
        if whole.contains_key("method") { Self::request(whole, id) } else { Self::response(whole, id) }
    }

    /// JSON-RPC 2.0 §5: either `result` or `error`, never both, and the id of what was asked.
    fn response(mut whole: Object, id: Option<Value>) -> Result<Self, Reason> {
        let is_response = match (whole.get("result"), whole.get("error")) {
            // MCP: results are objects.
            (Some(result), None) => result.is_object() && only(&whole, &["jsonrpc", "id", "result"]),
            (None, Some(error)) => is_error(error) && only(&whole, &["jsonrpc", "id", "error"]),
            _ => false,
        };
        drop_call_meta(whole.get_mut("result"));
        match id {
            Some(id) if is_response => Ok(Self { method: String::new(), kind: Kind::Response(id), whole }),
            _ => Err(Reason::Message("neither a request (method) nor a response (id and result or error)")),
        }
    }

    fn request(mut whole: Object, id: Option<Value>) -> Result<Self, Reason> {
        if !only(&whole, &["jsonrpc", "id", "method", "params"]) {
            return Err(Reason::Message("a request has only jsonrpc, id, method and params"));
        }
        let Some(method) = whole.get("method").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Reason::Message("method must be a string"));
        };
        let is_notification = id.is_none();
        let nothing = Map::new();
        let params = match whole.get("params") {
            None => &nothing,
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Reason::Message("params must be an object")),
        };
        let kind = match method.as_str() {
            _ if is_notification != method.starts_with("notifications/") => {
                return Err(Reason::Message("notifications, and they alone, have no id"));
            }
            // It goes on in a header, and is counted and logged.
            notification if is_notification && !is_name(notification) => {
                return Err(Reason::Message("method has a name that no notification has"));
            }
            listing if is_notification || LISTING_METHODS.contains(&listing) => Kind::Listing,
            method => match Action::from_method(method) {
                Some(action) => Kind::Call(Call::parse(action, params)?),
                None => return Err(Reason::UnknownMethod),
            },
        };
        withdraw_sampling(&mut whole);
        drop_call_meta(whole.get_mut("params"));
        if method == LISTEN {
            narrow_subscription(&mut whole)?;
        }
        Ok(Self { method, kind, whole })
    }

    /// The method; empty for a response.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// The message as read.
    #[cfg(feature = "proxy")]
    pub(crate) fn whole(&self) -> &Object {
        &self.whole
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The message serialized from what was read: nothing else of the body is ever forwarded.
    pub(crate) fn into_parts(self) -> (String, Kind, Vec<u8>) {
        let body = Value::Object(self.whole).to_string().into_bytes();
        (self.method, self.kind, body)
    }
}

impl Call {
    fn parse(action: Action, params: &Object) -> Result<Self, Reason> {
        // INVARIANT: of these, only `_meta` is outside of the call's digest.
        let steering_and_meta = ["_meta", "inputResponses", "requestState"];
        let (named_by, members) = match action {
            Action::CallTool | Action::GetPrompt => ("name", &["name", "arguments"][..]),
            Action::ReadResource => ("uri", &["uri"][..]),
        };
        if !params
            .keys()
            .all(|key| members.contains(&key.as_str()) || steering_and_meta.contains(&key.as_str()))
        {
            return Err(Reason::Message("params has a member that this method does not take"));
        }
        let Some(name) = params.get(named_by).and_then(Value::as_str) else {
            return Err(Reason::Message("params.name (params.uri of a resource) must be a string"));
        };
        let arguments = match params.get("arguments") {
            None => Object::new(),
            Some(Value::Object(arguments)) => arguments.clone(),
            Some(_) => return Err(Reason::Message("params.arguments must be an object")),
        };
        if params.get("_meta").is_some_and(|meta| !meta.is_object()) {
            return Err(Reason::Message("params._meta must be an object"));
        }
        json::check_depth(&arguments).map_err(Reason::Json)?;
        Ok(Self {
            action,
            name: name.to_owned(),
            arguments,
            input_responses: params.get("inputResponses").cloned(),
            request_state: params.get("requestState").cloned(),
        })
    }

    /// The tool that is called, if it is one.
    pub(crate) fn tool(&self) -> Option<&str> {
        (self.action == Action::CallTool).then_some(self.name.as_str())
    }

    /// Whether this is a retry of a multi-round-trip call, which its responses steer.
    pub(crate) fn is_steered(&self) -> bool {
        self.input_responses.is_some() || self.request_state.is_some()
    }

    /// Whether what steers it is of the types that MCP 2026-07-28 gives it.
    #[cfg(feature = "proxy")]
    pub(crate) fn has_steering_types(&self) -> bool {
        self.input_responses.as_ref().is_none_or(Value::is_object)
            && self.request_state.as_ref().is_none_or(Value::is_string)
    }

    pub(crate) fn digest(&self) -> Result<Digest, Reason> {
        call_digest(&CallInput {
            method: self.action.as_str(),
            name: &self.name,
            arguments: &self.arguments,
            input_responses: self.input_responses.as_ref(),
            request_state: self.request_state.as_ref(),
        })
        .map_err(Reason::Json)
    }
}

/// A guard lets no server borrow the client's model, so the server is not told that it could: `sampling` is taken out
/// of the capabilities, which stand in `params` of `initialize` or, since 2026-07-28, in `_meta` of every request.
fn withdraw_sampling(whole: &mut Object) {
    let params = whole.get_mut("params").and_then(Value::as_object_mut);
    let Some(params) = params else { return };
    if let Some(Value::Object(capabilities)) = params.get_mut("capabilities") {
        capabilities.remove("sampling");
    }
    let meta = params.get_mut("_meta").and_then(Value::as_object_mut);
    if let Some(Value::Object(capabilities)) = meta.and_then(|meta| meta.get_mut(CLIENT_CAPABILITIES)) {
        capabilities.remove("sampling");
    }
}

/// Whose call it is only the guard says.
fn drop_call_meta(around: Option<&mut Value>) {
    if let Some(Value::Object(meta)) = around.and_then(|around| around.get_mut("_meta")) {
        meta.remove(CALL_META);
        meta.remove(AWS_META);
    }
}

/// Of a subscription only that says that lists changed goes on: an L0 token is for no resource.
fn narrow_subscription(whole: &mut Object) -> Result<(), Reason> {
    let asked = whole.get_mut("params").and_then(|params| params.get_mut("notifications"));
    let Some(Value::Object(asked)) = asked else {
        return Err(Reason::Message("params.notifications must be an object"));
    };
    asked.retain(|name, _| LIST_CHANGES.contains(&name.as_str()));
    Ok(())
}

/// MCP: ids are strings or integers. They are remembered, so they are bounded.
pub(crate) fn is_id(id: &Value) -> bool {
    match id {
        Value::String(text) => text.len() <= MAX_ID_BYTES,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        _ => false,
    }
}

fn is_error(error: &Value) -> bool {
    let is_code = error.get("code").is_some_and(|code| code.is_i64() || code.is_u64());
    is_code && error.get("message").is_some_and(Value::is_string)
}

fn is_name(method: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
    method.len() <= MAX_METHOD_BYTES && method.bytes().all(is_plain)
}

fn only(object: &Object, names: &[&str]) -> bool {
    object.keys().all(|key| names.contains(&key.as_str()))
}

/// The member of `_meta` in which a guard hands the verified token to a server that is spoken to without headers.
pub const CALL_META: &str = "deputize/call";
/// As [`CALL_META`]: where such a server gets the AWS credentials of the call, `{"uri", "authorization"}`.
pub const AWS_META: &str = "deputize/aws";
/// Where a client says in each request what it can do (MCP 2026-07-28).
const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The message and its `params` stand around the arguments.
const ENVELOPE_LEVELS: usize = 2;
const LIST_CHANGES: [&str; 3] = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
const MAX_ID_BYTES: usize = 256;
const MAX_METHOD_BYTES: usize = 128;
