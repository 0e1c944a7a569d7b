//! What the server says, and what of it reaches the client.

use super::{
    failure::{Failure, METHOD_NOT_FOUND, REFUSED_BY_GUARD, rpc_error},
    legible::{INPUT_REQUIRED, make_legible, make_result_legible},
    session::Session,
    watch::Watch,
};
use crate::{
    Guard,
    message::{LISTEN, is_id},
    refusal::Reason,
};
use deputize_call::{action::Action, claims::ToolCallClaims, json::Object};
use deputize_client::Clock;
use serde_json::Value;
use std::sync::Arc;

/// Stands where the server's messages for one request, or on one stream, come in.
pub(super) struct Screen {
    pub(super) guard: Arc<Guard>,
    pub(super) watch: Arc<Watch>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) claims: ToolCallClaims,
    /// The request that is answered here; none on a stream that the client listens to.
    pub(super) asked: Option<Asked>,
    /// The session, in versions of MCP that have them.
    pub(super) session: Option<Arc<Session>>,
    /// Whether a request without a session can have a stream that lasts.
    pub(super) streams_alone: bool,
}

/// A request of the client.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) id: Value,
    pub(super) method: String,
}

/// What becomes of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// It goes on to the client.
    On(Object),
    /// It goes on, and is the response that was waited for; with a word for what it is.
    Last(Object, &'static str),
    /// It does not reach the client; the server gets this error instead.
    Refused(Value),
    /// It does not reach the client.
    Held,
}

impl Screen {
    /// Whether a response is waited for, and not only what the server says of itself.
    pub(super) fn waits(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.method != LISTEN)
    }

    /// Judges one message of the server.
    pub(super) fn pass(&self, mut message: Object) -> Result<Passed, Failure> {
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(Failure::Broken("what is no JSON-RPC 2.0"));
        }
        let id = message.get("id").filter(|id| is_id(id)).cloned();
        let method = message.get("method").and_then(Value::as_str).map(str::to_owned);
        if let Some(params) = message.get_mut("params") {
            make_legible(params);
        }
        match (method, id) {
            (Some(method), Some(id)) => Ok(self.request(message, &method, &id)),
            (Some(method), None) if !message.contains_key("id") => Ok(self.notification(message, &method)),
            (None, Some(id)) => self.response(message, &id),
            _ => Err(Failure::Broken("what is no message")),
        }
    }

    /// The server asks the client for something. Never for its model: the guard refuses that itself, on every stream.
    fn request(&self, message: Object, method: &str, id: &Value) -> Passed {
        if method == SAMPLING {
            tracing::warn!("server asked for sampling: refused");
            return Passed::Refused(rpc_error(
                id,
                REFUSED_BY_GUARD,
                "sampling is refused by the guard",
                None,
            ));
        }
        let known = PASSED_REQUESTS.contains(&method);
        match &self.session {
            Some(session) if known && session.note_asked(id) => Passed::On(message),
            Some(_) if known => {
                let why = "the guard lets nothing be asked while a call runs whose token fixes it";
                Passed::Refused(rpc_error(id, REFUSED_BY_GUARD, why, None))
            }
            // Since 2026-07-28 servers send no requests at all.
            Some(_) | None => Passed::Refused(rpc_error(id, METHOD_NOT_FOUND, "method not found", None)),
        }
    }

    fn notification(&self, message: Object, method: &str) -> Passed {
        if LISTS_CHANGED.contains(&method) {
            self.watch.look_again();
        }
        let listens = self.asked.is_some() && !self.waits();
        // Nobody subscribes to resources through a guard: what is said of them was not asked for.
        let is_said = method.starts_with("notifications/") && method != RESOURCE_UPDATED;
        let is_heard = if listens { HEARD.contains(&method) } else { is_said };
        if is_heard { Passed::On(message) } else { Passed::Held }
    }

    fn response(&self, mut message: Object, id: &Value) -> Result<Passed, Failure> {
        let in_session = self.session.as_ref().and_then(|session| session.take_requested(id));
        let method = match &self.asked {
            // An answer to something else is nobody's answer.
            Some(asked) if asked.id == *id => asked.method.clone(),
            Some(_) => return Err(Failure::Broken("the response to another request")),
            // A resumed stream brings the response to an earlier request of the session.
            None => in_session.ok_or(Failure::Broken("a response to nothing"))?,
        };
        if let Some(error) = message.get_mut("error") {
            make_legible(error);
        }
        let is_error = message.contains_key("error");
        match (message.get_mut("result"), is_error) {
            (Some(Value::Object(result)), false) => {
                let class = self.result(&method, result)?;
                Ok(Passed::Last(message, class))
            }
            (None, true) => Ok(Passed::Last(message, "error")),
            _ => Err(Failure::Broken("neither a result nor an error")),
        }
    }

    /// Reduces a result to what the caller may have.
    fn result(&self, method: &str, result: &mut Object) -> Result<&'static str, Failure> {
        match method {
            "tools/list" => self.list(Action::CallTool, "tools", result)?,
            "prompts/list" => self.list(Action::GetPrompt, "prompts", result)?,
            "resources/list" => self.resources("resources", result, Guard::visible_resources)?,
            "resources/templates/list" => {
                self.resources("resourceTemplates", result, Guard::visible_templates)?;
            }
            "initialize" => {
                self.trim_capabilities(result, self.session.is_some());
                let version = result.get("protocolVersion").and_then(Value::as_str);
                let version = version.ok_or(Failure::Broken("no protocolVersion"))?;
                if let Some(session) = &self.session {
                    session.channel.settle_version(version);
                }
            }
            "server/discover" => self.trim_capabilities(result, self.streams_alone),
            _ => {}
        }
        make_result_legible(method, result);
        if result.get("resultType").and_then(Value::as_str) == Some(INPUT_REQUIRED) {
            let inputs = result.get("inputRequests").and_then(Value::as_object);
            let samples = |input: &Value| input.get("method").and_then(Value::as_str) == Some(SAMPLING);
            if inputs.is_some_and(|inputs| inputs.values().any(samples)) {
                tracing::warn!("server asked for sampling: refused");
                return Err(Failure::Sampling);
            }
            return Ok(INPUT_REQUIRED);
        }
        let is_error = result.get("isError").and_then(Value::as_bool).unwrap_or_default();
        Ok(if is_error { "tool_error" } else { "result" })
    }

    fn list(&self, action: Action, member: &str, result: &mut Object) -> Result<(), Failure> {
        let Some(Value::Array(answered)) = result.get(member) else {
            return Err(Failure::Broken("a list without its list"));
        };
        let visible = self.guard.visible(action, &self.claims, answered, self.clock.now_seconds());
        let visible = visible.map_err(|_| Failure::Unreachable)?;
        if visible.drifted {
            self.watch.look_again();
        }
        result.insert(member.to_owned(), Value::Array(visible.definitions));
        Ok(())
    }

    fn resources(&self, member: &str, result: &mut Object, filter: Filter) -> Result<(), Failure> {
        let Some(Value::Array(answered)) = result.get(member) else {
            return Err(Failure::Broken("a list without its list"));
        };
        let visible = filter(&self.guard, &self.claims, answered, self.clock.now_seconds());
        result.insert(member.to_owned(), Value::Array(visible.map_err(|_| Failure::Unreachable)?));
        Ok(())
    }

    /// What is not let through is not offered: prompts and resources where none are approved, subscriptions, completion,
    /// tasks; and no news where nobody could hear them.
    fn trim_capabilities(&self, result: &mut Object, has_streams: bool) {
        let Some(Value::Object(capabilities)) = result.get_mut("capabilities") else { return };
        let snapshot = self.guard.current_snapshot(self.clock.now_seconds());
        let has = |action| snapshot.as_ref().is_ok_and(|snapshot| snapshot.has(action));
        capabilities.retain(|name, _| match name.as_str() {
            "tools" | "logging" => true,
            "prompts" => has(Action::GetPrompt),
            "resources" => has(Action::ReadResource),
            _ => false,
        });
        if let Some(Value::Object(resources)) = capabilities.get_mut("resources") {
            resources.remove("subscribe");
        }
        for capability in capabilities.values_mut().filter_map(Value::as_object_mut) {
            capability.retain(|name, _| has_streams || name != "listChanged");
        }
    }
}

/// Reduces a list of resources or templates to what a caller may see.
type Filter = fn(&Guard, &ToolCallClaims, &[Value], u64) -> Result<Vec<Value>, Reason>;

/// The request that would borrow the client's model.
const SAMPLING: &str = "sampling/createMessage";
/// What a server may ask of a client, in a session.
const PASSED_REQUESTS: [&str; 3] = ["ping", "elicitation/create", "roots/list"];
/// The server's tools or prompts changed.
pub(super) const LISTS_CHANGED: [&str; 2] =
    ["notifications/tools/list_changed", "notifications/prompts/list_changed"];
const RESOURCE_UPDATED: &str = "notifications/resources/updated";
/// What is heard on a stream of changes.
const HEARD: [&str; 4] = [
    "notifications/subscriptions/acknowledged",
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
];
