//! What is asked for: whether it is there, within reach, and of the form that its tier demands.

use deputize_call::{action::Action, constraints::Constraints, digest::Digest, json::Object, level::Level};
use serde_json::Value;
use std::sync::Arc;

use super::{Application, DEFAULT_MAX_USES, LISTING_SCOPE};
use crate::{
    ask::{Ask, CallAsk, Target},
    desk::Rules,
    error::IssueError,
    registry::{Server, ServerRecord, Tier, Tool, Verifier},
    verify_subject::Subject,
};

/// The registered target of an ask.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) server: Arc<Server>,
    pub(crate) tool: Option<Arc<Tool>>,
    pub(crate) level: Level,
}

/// What of a tool or prompt a token says, so that it is good for that definition alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) tool: Option<Digest>,
    pub(crate) prompt: Option<Digest>,
}

impl Pinned {
    pub(crate) fn of(tool: &Tool) -> Self {
        match tool.action {
            Action::CallTool => Self { tool: Some(tool.tool_digest), prompt: None },
            Action::GetPrompt => Self { tool: None, prompt: Some(tool.tool_digest) },
            // Its URI says all of it: what is behind it may change.
            Action::ReadResource => Self::default(),
        }
    }
}

impl Wanted {
    /// What a client must reach.
    pub(crate) fn reach(&self) -> Option<(Action, &str)> {
        self.tool.as_ref().map(|tool| (tool.action, tool.name.as_str()))
    }

    pub(super) fn arguments<'a>(&self, ask: &'a Ask) -> Option<&'a Object> {
        match &ask.call {
            CallAsk::Call(call) => call.arguments.as_ref(),
            CallAsk::Listing | CallAsk::Tool { .. } | CallAsk::Constrained { .. } => None,
        }
    }
}

/// The server and tool, if they are registered, enabled, of this tenant, and within the client's reach.
pub(super) fn find_target(rules: &Rules, application: &Application<'_>) -> Result<Wanted, IssueError> {
    let client = application.caller.client();
    let ask = application.ask;
    let server = rules.registry.server(ask.resource.as_str()).ok_or(IssueError::Target("server_unknown"))?;
    if server.record.tenant != client.tenant {
        return Err(IssueError::Target("server_of_another_tenant"));
    }
    if !server.record.enabled {
        return Err(IssueError::Target("server_disabled"));
    }
    // Before the tool is looked up: what a server has is told to those alone who may reach it.
    check_reach(application, &server.record, None)?;
    let tool = ask.call.target().map(|target| find_tool(server, target)).transpose()?;
    let wanted = Wanted { server: Arc::clone(server), tool, level: ask.call.level() };
    check_reach(application, &server.record, wanted.reach())?;
    if application.subject.is_none() && !client.client_credentials {
        return Err(IssueError::Request("client_credentials_not_allowed"));
    }
    if application.subject.is_none() && ask.call.level() > Level::L0 {
        return Err(details(
            "client_credentials_beyond_listing",
            "a client's own token is good for listing alone",
        ));
    }
    Ok(wanted)
}

/// The tool, prompt or resource, as it is approved. URIs are compared as they stand.
fn find_tool(server: &Server, target: &Target) -> Result<Arc<Tool>, IssueError> {
    let found = server.offer(target.action, &target.name).filter(|tool| tool.record.enabled);
    found.ok_or_else(|| match target.action {
        Action::CallTool => details("tool_unknown", "the server has no approved tool of this name"),
        Action::GetPrompt => details("prompt_unknown", "the server has no approved prompt of this name"),
        Action::ReadResource => {
            details("resource_unknown", "the server has no approved resource of this URI")
        }
    })
}

/// What the client may ask for. A guard that brings what was presented to its server asks for that server alone,
/// whatever the client may reach otherwise: at any other the token was never presented.
pub(super) fn check_reach(
    application: &Application<'_>,
    record: &ServerRecord,
    target: Option<(Action, &str)>,
) -> Result<(), IssueError> {
    let client = application.caller.client();
    let is_presented = |subject: &Subject| subject.bearer().is_some() && subject.parent().is_none();
    if application.subject.is_some_and(is_presented) {
        let is_its_own = client.server.as_deref() == Some(record.resource.as_str())
            && record.client_id.as_ref().is_none_or(|id| *id == client.id);
        return if is_its_own { Ok(()) } else { Err(IssueError::Target("bearer_token_of_another_server")) };
    }
    match client.may_reach(&record.resource, target) {
        true => Ok(()),
        false => Err(IssueError::Target("beyond_the_clients_reach")),
    }
}

/// The level that the tier demands, and arguments that fit the pinned schema.
pub(super) fn check_call(wanted: &Wanted, ask: &Ask) -> Result<(), IssueError> {
    let Some(tool) = &wanted.tool else { return Ok(()) };
    if wanted.level < tool.least_level {
        return Err(IssueError::LevelTooLow { least: tool.least_level });
    }
    // A plain RFC 9068 verifier cannot see the call, so a tighter binding there would be a promise without a keeper.
    if wanted.server.record.verifier == Verifier::Rfc9068
        && (wanted.level > Level::L1 || tool.record.tier >= Tier::High)
    {
        return Err(IssueError::Target("server_without_guard"));
    }
    match &ask.call {
        CallAsk::Call(call) => {
            if let Some(arguments) = &call.arguments {
                tool.schema
                    .validate(arguments)
                    .map_err(|error| details("arguments_miss_the_schema", &error.to_string()))?;
            }
            Ok(())
        }
        CallAsk::Constrained { constraints, max_uses, .. } => {
            let most = tool.record.max_uses.unwrap_or(DEFAULT_MAX_USES);
            if max_uses.is_some_and(|uses| uses > most) {
                return Err(details("max_uses_beyond_the_record", "fewer uses, please"));
            }
            // They go into the token, which no verifier reads beyond its size limit.
            if serde_json::to_vec(constraints).map_or(true, |bytes| bytes.len() > MAX_CONSTRAINTS_BYTES) {
                return Err(details("constraints_too_large", "at most 8 KiB of constraints"));
            }
            check_constraints_cover(tool, constraints)
        }
        CallAsk::Listing | CallAsk::Tool { .. } => Ok(()),
    }
}

/// An argument without a constraint is refused at the guard: a token that leaves a required one open could never be
/// used, and one that constrains what the tool does not have is a mistake. Both are said now.
fn check_constraints_cover(tool: &Tool, constraints: &Constraints) -> Result<(), IssueError> {
    let schema = tool.input_schema();
    let names = |member: &str| -> Vec<&str> {
        match schema.as_ref().and_then(|schema| schema.get(member)) {
            Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
            Some(Value::Array(required)) => required.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    };
    let constrained: Vec<String> = constraints
        .iter()
        .filter_map(|(pointer, _)| pointer.split('/').nth(1))
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect();
    let properties = names("properties");
    if let Some(unknown) = constrained.iter().find(|name| !properties.contains(&name.as_str())) {
        return Err(details(
            "constraint_on_unknown_argument",
            &format!("the tool has no argument {unknown}"),
        ));
    }
    match names("required")
        .into_iter()
        .find(|name| !constrained.iter().any(|constrained| constrained == name))
    {
        Some(open) => {
            Err(details("constraints_leave_an_argument_open", &format!("constrain the argument {open} too")))
        }
        None => Ok(()),
    }
}

/// `scope` may narrow to what is granted anyway; it can never add to it.
pub(super) fn check_scope(ask: &Ask, wanted: &Wanted) -> Result<(), IssueError> {
    let granted = scope(wanted);
    match &ask.scope {
        Some(asked) if asked.iter().any(|scope| *scope != *granted) => {
            Err(IssueError::Scope("scope_beyond_the_tool"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The one scope that a grant for this target has.
pub(super) fn scope(wanted: &Wanted) -> String {
    wanted.tool.as_ref().map_or_else(|| LISTING_SCOPE.to_owned(), |tool| tool.scope())
}

fn details(reason: &'static str, detail: &str) -> IssueError {
    IssueError::AuthorizationDetails { reason, detail: detail.to_owned() }
}

const MAX_CONSTRAINTS_BYTES: usize = 8 * 1024;
