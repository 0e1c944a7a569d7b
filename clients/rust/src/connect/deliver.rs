//! One request, from the local client to the server and back: the token that it takes, the headers that it needs, and
//! a second try where the server says what was missing. A try that the server refused ran nothing.

use super::{
    approvals::{self, Approval},
    conversation::Conversation,
    failure::{Failure, Waiting},
    grants::Call,
    message::{self, CLIENT_CAPABILITIES, HEADER_MISMATCH, Manner, Request},
    outbox::{Outbox, Reply},
    remote::{Answer, Said, Sending},
    session::{Session, headers_alone},
    tools::{Tool, Tools},
};
use crate::{ExchangeError, ToolToken};
use deputize_call::{action::Action, json::Object, level::Level};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

/// A request on its way.
struct Errand<'r> {
    request: &'r Request,
    /// The call that it makes, if it makes one.
    call: Option<Call>,
    again: Again,
}

/// What was tried again already: each reason counts once.
#[derive(Default)]
struct Again {
    token: bool,
    level: bool,
    session: bool,
    headers: bool,
}

/// What a request goes out with.
struct Pass {
    token: ToolToken,
    headers: Vec<(String, String)>,
    /// The session that it is in.
    session: Option<Arc<Session>>,
}

impl Conversation {
    /// Gets the server's answer to `request`; what the server says before goes to `out`.
    pub(super) async fn deliver(self: &Arc<Self>, request: &Request, out: &Outbox) -> Result<Reply, Failure> {
        let call = match Action::from_method(&request.method) {
            Some(action) => Some(self.call_of(action, request)?),
            None => None,
        };
        let body = match &call {
            Some(call) => body_of_call(request, call),
            None => Value::Object(request.whole.clone()).to_string(),
        };
        let mut errand = Errand { request, call, again: Again::default() };
        loop {
            let pass = match &errand.call {
                Some(call) => self.pass_for_call(request, call).await?,
                None => self.pass(request).await?,
            };
            let sending = Sending {
                method: Method::POST,
                body: Some(&body),
                headers: &pass.headers,
                token: &pass.token,
            };
            let answer = self.connector.remote.send(&sending).await?;
            if self.may_try_again(&mut errand, &pass, &answer).await? {
                continue;
            }
            return self.finish(request, answer, out).await;
        }
    }

    /// What the local client is told in place of an answer.
    pub(super) fn answer_of(&self, request: &Request, failure: &Failure) -> Reply {
        let Failure::Waiting(waiting) = failure else { return failure.answer(request) };
        let Some(url) = &waiting.uri else { return failure.answer(request) };
        let text = "A person has to decide about this call.";
        match &request.manner {
            Manner::Alone { .. } if elicits_urls(request) => {
                let params = json!({ "mode": "url", "url": url, "message": text });
                let asked =
                    json!({ "deputize-approval": { "method": "elicitation/create", "params": params } });
                let result = json!({
                    "resultType": "input_required",
                    "inputRequests": asked,
                    "requestState": approvals::request_state(waiting),
                });
                Reply { text: message::result(&request.id, &result), status: OK }
            }
            Manner::InSession if self.session().is_some_and(|session| session.elicits_urls()) => {
                let id = &waiting.approval_id;
                let asked = json!([{ "mode": "url", "elicitationId": id, "url": url, "message": text }]);
                let data = json!({ "elicitations": asked });
                let text = message::error(Some(&request.id), URL_ELICITATION_REQUIRED, text, Some(data));
                Reply { text, status: OK }
            }
            _ => failure.answer(request),
        }
    }

    async fn pass(&self, request: &Request) -> Result<Pass, Failure> {
        let token = self.grants.listing().await?;
        let (headers, session) = self.headers(request, None);
        Ok(Pass { token, headers, session })
    }

    async fn pass_for_call(self: &Arc<Self>, request: &Request, call: &Call) -> Result<Pass, Failure> {
        let connector = &self.connector;
        if call.action != Action::CallTool {
            // Only tools are looked at here too; a prompt's definition is its guard's to compare.
            let token = self.token_for(call).await?;
            let (headers, session) = self.headers(request, None);
            return Ok(Pass { token, headers, session });
        }
        let mut tool = self.tool(request, &call.name).await?;
        if !request.mirrors(&tool.mirrored, &call.arguments) {
            // What the server says now decides.
            connector.tools.expire();
            tool = self.tool(request, &call.name).await?;
            if !request.mirrors(&tool.mirrored, &call.arguments) {
                return Err(Failure::Headers("the Mcp-Param headers and the arguments differ"));
            }
        }
        let token = self.token_for(call).await?;
        if !Tools::agrees(&tool, &token) {
            // What is remembered of the list may be old; what the server says now decides.
            connector.tools.expire();
            tool = self.tool(request, &call.name).await?;
        }
        if !Tools::agrees(&tool, &token) {
            return Err(connector.tools.hide(&call.name, &tool, &token, connector.uptime()));
        }
        let (headers, session) = self.headers(request, Some(&tool));
        Ok(Pass { token, headers, session })
    }

    /// A token for this call, once nobody has to be waited for.
    async fn token_for(&self, call: &Call) -> Result<ToolToken, Failure> {
        let connector = &self.connector;
        let approval = connector.approvals.of(call, connector.uptime());
        let token = self.grants.call(call, approval.as_ref()).await;
        let token = token.map_err(|failure| self.note_decision(call, approval.as_ref(), failure))?;
        connector.approvals.forget(call);
        Ok(token)
    }

    fn headers(
        &self,
        request: &Request,
        tool: Option<&Tool>,
    ) -> (Vec<(String, String)>, Option<Arc<Session>>) {
        match &request.manner {
            Manner::Alone { version } => {
                (headers_alone(version, request, tool.map(|tool| &tool.mirrored)), None)
            }
            // It begins a session and is in none.
            Manner::InSession if request.method == "initialize" => (Vec::new(), None),
            Manner::InSession => {
                let session = self.session();
                (session.as_ref().map(|session| session.headers()).unwrap_or_default(), session)
            }
        }
    }

    /// Remembers a decision that is open, and forgets one that was made.
    fn note_decision(&self, call: &Call, asked: Option<&Approval>, failure: Failure) -> Failure {
        let approvals = &self.connector.approvals;
        match failure {
            Failure::Exchange(ExchangeError::Waiting {
                approval_id,
                approval_uri,
                expires_in_seconds,
                decision_id,
                ..
            }) => {
                let uri = approval_uri.filter(|uri| url::Url::parse(uri).is_ok());
                let waiting = Waiting { approval_id, uri, expires_in_seconds, decision_id };
                approvals.note(call, &waiting, self.connector.uptime());
                Failure::Waiting(waiting)
            }
            Failure::Exchange(ExchangeError::AccessDenied { .. } | ExchangeError::Expired(_))
                if asked.is_some() =>
            {
                approvals.forget(call);
                failure
            }
            failure => failure,
        }
    }

    /// Whether the request is to be sent anew, now that what the server missed is there.
    async fn may_try_again(
        self: &Arc<Self>,
        errand: &mut Errand<'_>,
        pass: &Pass,
        answer: &Answer,
    ) -> Result<bool, Failure> {
        let again = &mut errand.again;
        if let Some(lost) =
            pass.session.as_ref().filter(|session| session.has_id() && answer.knows_no_session())
        {
            let is_first = !std::mem::replace(&mut again.session, true);
            if is_first {
                self.reopen(lost).await?;
            }
            return Ok(is_first);
        }
        match (answer, &errand.call) {
            (Answer::Refused(refusal), _) if refusal.status == 401 && refusal.code == "invalid_token" => {
                self.grants.forget(&pass.token).await;
                Ok(!std::mem::replace(&mut again.token, true))
            }
            // Only how tightly to bind is learned from it: what is asked for stays what the client asked for.
            (Answer::Refused(refusal), Some(call)) if refusal.status == 403 && refusal.needed.is_some() => {
                let is_loose = self.connector.levels.of(&call.scope()) < Level::L3;
                if is_loose {
                    self.connector.levels.learn(&call.scope(), Level::L3);
                }
                Ok(is_loose && !std::mem::replace(&mut again.level, true))
            }
            (Answer::Message { said, .. }, Some(_)) if is_header_mismatch(said) => {
                // MCP 2026-07-28: the tool's schema may have changed.
                self.connector.tools.expire();
                Ok(errand.request.manner != Manner::InSession && !std::mem::replace(&mut again.headers, true))
            }
            _ => Ok(false),
        }
    }

    /// From the server's answer to the client's.
    async fn finish(
        self: &Arc<Self>,
        request: &Request,
        answer: Answer,
        out: &Outbox,
    ) -> Result<Reply, Failure> {
        let (mut said, session, status) = match answer {
            Answer::Refused(refusal) => return Err(Failure::Server(Box::new(refusal))),
            Answer::Accepted => return Err(Failure::Broken("it is empty")),
            Answer::Message { status, said, session } => (said, session, status),
            Answer::Stream { stream, session } => (self.relay(request, stream, out).await?, session, OK),
        };
        if !said.message.contains_key("id") && said.message.contains_key("error") {
            // MCP: an error with an HTTP error status need not name the request; this can be no other.
            said.message.insert("id".to_owned(), request.id.clone());
            said = Said::rewritten(said.message);
        }
        if !said.answers(&request.id) {
            return Err(Failure::Broken("it answers another request"));
        }
        match request.method.as_str() {
            "initialize" => self.note_session(&request.whole, &said, session),
            "tools/list" => said = self.screened(request, said),
            _ => {}
        }
        // Before MCP 2026-07-28 an error of a method has no HTTP status of its own, and 404 says that the session is lost.
        let status = if request.manner == Manner::InSession { OK } else { status };
        Ok(Reply { text: said.text, status })
    }

    fn screened(&self, request: &Request, said: Said) -> Said {
        let mut message = said.message;
        let is_first_page = !request.params().contains_key("cursor");
        if let Some(Value::Object(result)) = message.get_mut("result") {
            self.connector.tools.screen(result, is_first_page, self.connector.uptime());
        }
        Said::rewritten(message)
    }

    /// The tool as the server lists it now.
    async fn tool(self: &Arc<Self>, request: &Request, name: &str) -> Result<Arc<Tool>, Failure> {
        let tools = &self.connector.tools;
        if let Some(tool) = tools.find(name, self.connector.uptime()) {
            return Ok(tool);
        }
        self.list_tools(request).await?;
        tools.find(name, self.connector.uptime()).ok_or_else(|| Failure::UnknownTool(name.to_owned()))
    }

    /// Lists the tools for ourselves, all pages of them.
    async fn list_tools(self: &Arc<Self>, on_behalf_of: &Request) -> Result<(), Failure> {
        let (unheard, _) = Outbox::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let mut params = Object::new();
            if let Some(Value::Object(mut meta)) = on_behalf_of.params().remove("_meta") {
                meta.remove("progressToken");
                params.insert("_meta".to_owned(), Value::Object(meta));
            }
            if let Some(cursor) = cursor {
                params.insert("cursor".to_owned(), cursor);
            }
            let page = self.own_request("tools/list", params, &on_behalf_of.manner);
            // Boxed: to list is to deliver a request, which for a call may take a list.
            let reply = Box::pin(self.deliver(&page, &unheard)).await?;
            let page = Said::read(reply.text.as_bytes())?;
            let result = page.message.get("result").ok_or(Failure::Broken("it does not list its tools"))?;
            cursor = result.get("nextCursor").cloned();
            if cursor.is_none() {
                return Ok(());
            }
        }
        Err(Failure::Broken("its list of tools does not end"))
    }

    /// A request of our own, with an id that is nobody else's.
    pub(super) fn own_request(&self, method: &str, params: Object, manner: &Manner) -> Request {
        let id = Value::String(format!("deputize-{}", self.connector.client.clock.unique_id()));
        let whole = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let whole = whole.as_object().cloned().unwrap_or_default();
        Request { id, method: method.to_owned(), whole, manner: manner.clone(), mirrored: None }
    }

    /// The call that this request makes.
    fn call_of(&self, action: Action, request: &Request) -> Result<Call, Failure> {
        let mut params = request.params();
        let malformed = |what: &str| Failure::Request(what.to_owned());
        let named_by = if action == Action::ReadResource { "uri" } else { "name" };
        let Some(Value::String(name)) = params.remove(named_by) else {
            return Err(malformed(&format!("params.{named_by} must be a string")));
        };
        let arguments = match params.remove("arguments") {
            None => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(malformed("params.arguments must be an object")),
        };
        let (input_responses, request_state) =
            (params.remove("inputResponses"), params.remove("requestState"));
        if input_responses.as_ref().is_some_and(|responses| !responses.is_object()) {
            return Err(malformed("params.inputResponses must be an object"));
        }
        if request_state.as_ref().is_some_and(|state| !state.is_string()) {
            return Err(malformed("params.requestState must be a string"));
        }
        let call = Call { action, name, arguments, input_responses, request_state };
        Ok(self.connector.approvals.original(&call).unwrap_or(call))
    }
}

/// The body as the token will have it: a retry that answered our own question goes without it.
fn body_of_call(request: &Request, call: &Call) -> String {
    let mut whole = request.whole.clone();
    if let Some(Value::Object(params)) = whole.get_mut("params") {
        let steering = [("inputResponses", &call.input_responses), ("requestState", &call.request_state)];
        for (name, value) in steering {
            match value {
                Some(value) => params.insert(name.to_owned(), value.clone()),
                None => params.remove(name),
            };
        }
    }
    Value::Object(whole).to_string()
}

fn elicits_urls(request: &Request) -> bool {
    let modes = request.meta(CLIENT_CAPABILITIES).and_then(|capabilities| capabilities.get("elicitation"));
    modes.and_then(|modes| modes.get("url")).is_some()
}

fn is_header_mismatch(said: &Said) -> bool {
    said.message.get("error").and_then(|error| error.get("code")).and_then(Value::as_i64)
        == Some(HEADER_MISMATCH)
}

/// MCP 2025-11-25.
const URL_ELICITATION_REQUIRED: i64 = -32042;
const OK: u16 = 200;
const MAX_PAGES: usize = 50;
