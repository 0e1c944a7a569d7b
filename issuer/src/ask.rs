//! What is wanted, parsed: strings stop here.

use deputize_call::{
    action::Action,
    constraints::Constraints,
    digest::Digest,
    json::{self, Object},
    level::Level,
    resource,
};
use serde_json::Value;

use crate::error::IssueError;

/// One request for a tool-call token, in words of ours.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The server.
    pub resource: ResourceUri,
    /// What `scope` narrows to, where given.
    pub scope: Option<ScopeSet>,
    /// What is to be done there.
    pub call: CallAsk,
    /// A transaction to go on with.
    pub transaction_id: Option<String>,
    /// A decision of a person to come back with.
    pub approval_id: Option<String>,
    /// What the client claims of its surroundings.
    pub claimed: Claimed,
}

/// What is to be done, by level.
#[derive(Debug, Clone)]
pub enum CallAsk {
    /// L0: list and discover.
    Listing,
    /// L1: one tool, prompt or resource.
    Tool {
        /// Which.
        target: Target,
    },
    /// L2: one tool or prompt within constraints.
    Constrained {
        /// Which.
        target: Target,
        /// What each argument may be.
        constraints: Constraints,
        /// How many calls.
        max_uses: Option<u32>,
    },
    /// L3: one call.
    Call(Box<ExactCall>),
}

/// What is to be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The method.
    pub action: Action,
    /// Name of the tool or prompt; URI of the resource, verbatim.
    pub name: String,
}

/// One exact call.
#[derive(Debug, Clone)]
pub struct ExactCall {
    /// Of what.
    pub target: Target,
    /// Arguments, where the client shows them.
    pub arguments: Option<Object>,
    /// Digest of the call; agrees with `arguments` if both are given.
    pub call_digest: Digest,
}

/// Claims of the client about its surroundings: recorded as claimed, visible to policy as claims.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// `parent_request_id`.
    pub parent_request_id: Option<String>,
    /// `host`.
    pub host: Option<String>,
    /// `model`.
    pub model: Option<String>,
    /// `workflow`.
    pub workflow: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A server's resource URI (RFC 8707 §2): absolute, without fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceUri(String);

/// A set of scope tokens (RFC 6749 §3.3), at most [`MAX_SCOPES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeSet(Vec<String>);

impl CallAsk {
    /// The level that this asks for.
    pub fn level(&self) -> Level {
        match self {
            Self::Listing => Level::L0,
            Self::Tool { .. } => Level::L1,
            Self::Constrained { .. } => Level::L2,
            Self::Call(_) => Level::L3,
        }
    }

    /// What is to be acted on, but for listing.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Listing => None,
            Self::Tool { target } | Self::Constrained { target, .. } => Some(target),
            Self::Call(call) => Some(&call.target),
        }
    }

    /// Reads the `authorization_details` parameter (RFC 9396): absent means listing; else one entry of our type.
    pub fn parse(parameter: Option<&str>, resource: &ResourceUri) -> Result<Self, IssueError> {
        let Some(text) = parameter else { return Ok(Self::Listing) };
        if text.len() > MAX_DETAILS_BYTES {
            return Err(details("authorization_details_too_large", "at most 48 KiB"));
        }
        // Array and entry stand around the arguments, whose own nesting is checked below.
        let value = json::parse_value(text.as_bytes(), json::MAX_DEPTH + 2)
            .map_err(|error| details("authorization_details_not_json", &error.to_string()))?;
        let Value::Array(entries) = value else {
            return Err(details("authorization_details_not_an_array", "it must be an array with one entry"));
        };
        let Ok([Value::Object(entry)]) = <[Value; 1]>::try_from(entries) else {
            return Err(details(
                "authorization_details_not_one_entry",
                "it must be an array with one object",
            ));
        };
        DetailEntry::read(entry, resource)?.into_call()
    }
}

/// The entry as sent, each member of the right type.
#[derive(Default)]
struct DetailEntry {
    action: Option<Action>,
    identifier: Option<String>,
    arguments: Option<Object>,
    call_digest: Option<Digest>,
    constraints: Option<Constraints>,
    max_uses: Option<u32>,
    input_responses: Option<Value>,
    request_state: Option<Value>,
}

impl DetailEntry {
    fn read(entry: Object, resource: &ResourceUri) -> Result<Self, IssueError> {
        if entry.get("type").and_then(Value::as_str) != Some(deputize_call::claims::DETAIL_TYPE) {
            return Err(details("authorization_details_type", "type must be mcp_tool_call"));
        }
        let mut read = Self::default();
        for (member, value) in entry {
            match (member.as_str(), value) {
                ("type", _) => {}
                ("locations", Value::Array(locations)) => {
                    if locations.as_slice() != [Value::String(resource.0.clone())] {
                        return Err(details(
                            "authorization_details_locations",
                            "locations must be the resource alone",
                        ));
                    }
                }
                ("actions", Value::Array(actions)) => {
                    read.action = Some(action(&actions)?);
                }
                ("identifier", Value::String(name)) if (1..=MAX_NAME_BYTES).contains(&name.len()) => {
                    read.identifier = Some(name)
                }
                ("arguments", Value::Object(arguments)) => {
                    json::check_depth(&arguments)
                        .map_err(|error| details("authorization_details_arguments", &error.to_string()))?;
                    read.arguments = Some(arguments);
                }
                ("call_digest", Value::String(text)) => {
                    read.call_digest = Some(text.parse().map_err(|_| {
                        details(
                            "authorization_details_digest",
                            "call_digest must be 43 characters of base64url",
                        )
                    })?);
                }
                ("constraints", value @ Value::Object(_)) => {
                    let constraints: Constraints = serde_json::from_value(value).map_err(|_| {
                        details("authorization_details_constraints", "a constraint is malformed")
                    })?;
                    read.constraints =
                        Some(constraints.checked().map_err(|error| {
                            details("authorization_details_constraints", &error.to_string())
                        })?);
                }
                ("max_uses", Value::Number(uses)) => {
                    let uses =
                        uses.as_u64().and_then(|uses| u32::try_from(uses).ok()).filter(|uses| *uses > 0);
                    read.max_uses =
                        Some(uses.ok_or_else(|| {
                            details("authorization_details_max_uses", "a positive integer")
                        })?);
                }
                ("inputResponses", value @ Value::Object(_)) => read.input_responses = Some(value),
                ("requestState", value @ Value::String(_)) => read.request_state = Some(value),
                (
                    "locations" | "actions" | "identifier" | "arguments" | "call_digest" | "constraints"
                    | "max_uses" | "inputResponses" | "requestState",
                    _,
                ) => return Err(details("authorization_details_member_type", "a member has the wrong type")),
                _ => {
                    return Err(details(
                        "authorization_details_unknown_member",
                        "there is an unknown member",
                    ));
                }
            }
        }
        Ok(read)
    }

    fn into_call(self) -> Result<CallAsk, IssueError> {
        let steered = self.input_responses.is_some() || self.request_state.is_some();
        let target = target(self.action, self.identifier)?;
        if self.constraints.is_some() && (self.arguments.is_some() || self.call_digest.is_some()) {
            return Err(details(
                "authorization_details_levels_mixed",
                "give constraints or arguments, not both",
            ));
        }
        if let Some(constraints) = self.constraints {
            if steered {
                return Err(details("authorization_details_levels_mixed", "inputResponses need arguments"));
            }
            return Ok(CallAsk::Constrained { target, constraints, max_uses: self.max_uses });
        }
        let exact = self.arguments.is_some() || self.call_digest.is_some();
        if self.max_uses.is_some_and(|uses| !exact || uses != 1) {
            return Err(details(
                "authorization_details_max_uses",
                "max_uses goes with constraints; it is 1 for one call",
            ));
        }
        if !exact {
            if steered {
                return Err(details("authorization_details_levels_mixed", "inputResponses need arguments"));
            }
            return Ok(CallAsk::Tool { target });
        }
        let computed = match &self.arguments {
            Some(arguments) => {
                let input = deputize_call::digest::CallInput {
                    method: target.action.as_str(),
                    name: &target.name,
                    arguments,
                    input_responses: self.input_responses.as_ref(),
                    request_state: self.request_state.as_ref(),
                };
                let computed = deputize_call::digest::call_digest(&input)
                    .map_err(|error| details("authorization_details_arguments", &error.to_string()))?;
                Some(computed)
            }
            None => None,
        };
        let call_digest = match (computed, self.call_digest) {
            (Some(computed), Some(given)) if computed != given => {
                return Err(details("authorization_details_digest", "call_digest and arguments disagree"));
            }
            (Some(digest), _) | (None, Some(digest)) => digest,
            (None, None) => return Err(IssueError::Internal("exact_call_without_digest")),
        };
        Ok(CallAsk::Call(Box::new(ExactCall { target, arguments: self.arguments, call_digest })))
    }
}

impl ResourceUri {
    /// Parses `resource`: absolute, no fragment, at most 2 KiB. Whether it is registered is for the registry to say.
    pub fn parse(text: &str) -> Result<Self, IssueError> {
        let uri = url::Url::parse(text).map_err(|_| IssueError::Target("resource_not_a_uri"))?;
        if text.len() > 2048 || uri.fragment().is_some() || text.contains('#') || uri.host_str().is_none() {
            return Err(IssueError::Target("resource_not_absolute"));
        }
        Ok(Self(text.to_owned()))
    }
    /// The URI, verbatim.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScopeSet {
    /// Parses `scope`: 1–[`MAX_SCOPES`] tokens of RFC 6749's alphabet, separated by single spaces.
    pub fn parse(text: &str) -> Result<Self, IssueError> {
        let mut scopes = Vec::new();
        for scope in text.split(' ') {
            let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            if scope.is_empty() || scope.len() > MAX_SCOPE_BYTES || !scope.bytes().all(allowed) {
                return Err(IssueError::Scope("scope_malformed"));
            }
            if scopes.len() == MAX_SCOPES {
                return Err(IssueError::Scope("scope_too_many"));
            }
            scopes.push(scope.to_owned());
        }
        Ok(Self(scopes))
    }
    /// The tokens, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// `actions`: one method that acts.
fn action(actions: &[Value]) -> Result<Action, IssueError> {
    let one = match actions {
        [Value::String(method)] => Action::from_method(method),
        _ => None,
    };
    one.ok_or_else(|| {
        let one_of = "actions must be [\"tools/call\"], [\"prompts/get\"] or [\"resources/read\"]";
        details("authorization_details_actions", one_of)
    })
}

/// A URI is taken as it stands: what could be read in two ways is refused, not mended.
fn target(action: Option<Action>, identifier: Option<String>) -> Result<Target, IssueError> {
    let refuse = |detail| Err(details("authorization_details_identifier", detail));
    let action = action.unwrap_or(Action::CallTool);
    match identifier {
        None => refuse("identifier must name the tool, prompt or resource"),
        Some(uri) if action == Action::ReadResource => match resource::check_uri(&uri) {
            Ok(()) => Ok(Target { action, name: uri }),
            Err(problem) => refuse(&format!("the resource's URI {problem}")),
        },
        Some(name) if name.len() > MAX_TOOL_NAME_BYTES => refuse("no tool or prompt has a name this long"),
        Some(name) => Ok(Target { action, name }),
    }
}

fn details(reason: &'static str, detail: &str) -> IssueError {
    IssueError::AuthorizationDetails { reason, detail: detail.to_owned() }
}

/// The most scope tokens in one request.
pub const MAX_SCOPES: usize = 16;
/// That of a resource names its URI.
const MAX_SCOPE_BYTES: usize = 64 + resource::MAX_URI_BYTES;
const MAX_NAME_BYTES: usize = resource::MAX_URI_BYTES;
const MAX_TOOL_NAME_BYTES: usize = 128;
/// The longest `authorization_details`.
pub const MAX_DETAILS_BYTES: usize = 48 * 1024;
