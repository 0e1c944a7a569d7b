//! Whether a token and arguments are those of a call that the asker was called with.

use deputize_call::{
    action::Action,
    claims::{GrantedDetail, ToolCallClaims},
    digest::{CallInput, call_digest},
    json::Object,
};

use super::RoleAsk;
use crate::{authenticate::Caller, desk::Desk, error::IssueError, redeem};

/// A call of a tool, as its token and its server agree on it. Made by [`verify_call`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerifiedCall<'a> {
    claims: &'a ToolCallClaims,
    tool: &'a str,
    arguments: &'a Object,
}

/// Verifies the call: at the token's audience, of a tool that is still what was approved, with the arguments that the
/// token is for. Whether the token has expired is for the decision.
pub(super) fn verify_call<'a>(
    desk: &Desk,
    caller: &Caller,
    asked: &RoleAsk<'a>,
    claims: &'a ToolCallClaims,
) -> Result<VerifiedCall<'a>, IssueError> {
    if let Some(reason) = redeem::not_usable(desk, caller, claims) {
        return Err(IssueError::SubjectToken { reason, detail: String::new() });
    }
    let [detail] = &claims.authorization_details;
    let tool = match (detail.actions.as_slice(), &detail.identifier) {
        ([action], Some(tool)) if *action == Action::CallTool.as_str() => tool.as_str(),
        _ => return Err(details("not_a_call_of_a_tool", "calls of tools alone get AWS credentials")),
    };
    check_bound(detail, tool, asked)?;
    let rules = desk.rules.load();
    let approved = rules
        .registry
        .server(&claims.aud)
        .and_then(|server| server.tool(tool))
        .filter(|approved| Some(approved.tool_digest) == detail.tool_digest)
        .ok_or(details("tool_changed", "the tool is no longer what the token was made for: exchange anew"))?;
    approved
        .schema
        .validate(asked.arguments)
        .map_err(|error| details("arguments_miss_the_schema", &error.to_string()))?;
    Ok(VerifiedCall { claims, tool, arguments: asked.arguments })
}

/// The arguments are those of the token (L3), or such as it admits (L2).
fn check_bound(detail: &GrantedDetail, tool: &str, asked: &RoleAsk<'_>) -> Result<(), IssueError> {
    let RoleAsk { arguments, input_responses, request_state, .. } = *asked;
    if let Some(bound) = detail.call_digest {
        let method = Action::CallTool.as_str();
        let input = CallInput { method, name: tool, arguments, input_responses, request_state };
        return match call_digest(&input) {
            Ok(digest) if digest == bound => Ok(()),
            Ok(_) | Err(_) => Err(details("other_arguments", "the token is for other arguments")),
        };
    }
    if input_responses.is_some() || request_state.is_some() {
        // Constraints say nothing about what steers a retry.
        return Err(details("steered_beyond_the_token", "a steered retry needs a token for this one call"));
    }
    let Some(constraints) = &detail.constraints else {
        let hint = "the token leaves the arguments open: exchange for exact arguments";
        return Err(details("token_leaves_the_call_open", hint));
    };
    constraints
        .admit(arguments)
        .map_err(|error| details("arguments_beyond_the_constraints", &error.to_string()))
}

impl<'a> VerifiedCall<'a> {
    /// What the token says.
    pub(crate) fn claims(&self) -> &'a ToolCallClaims {
        self.claims
    }
    /// The tool.
    pub(crate) fn tool(&self) -> &'a str {
        self.tool
    }
    /// The arguments.
    pub(crate) fn arguments(&self) -> &'a Object {
        self.arguments
    }
}

fn details(reason: &'static str, detail: &str) -> IssueError {
    IssueError::AuthorizationDetails { reason, detail: detail.to_owned() }
}
