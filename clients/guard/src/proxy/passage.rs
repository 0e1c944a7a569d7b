//! The way of one request: past the guard, into its session, within its limits, to the server, and back.

use super::{
    Proxy,
    failure::Failure,
    front::Sender,
    handover::{Handover, Handovers},
    legible::make_legible,
    ordinary::Heard,
    relay::{ABANDONED, Ended, EventBody, RESUMABLE, Relay},
    reply::{self, Trouble},
    screen::{Asked, Passed, Screen},
    server::{Answer, Channel, Outgoing, Trace},
    session::{FixedCall, Owner, Session},
    traceparent::is_traceparent,
    versions::{self, MODERN, Manner},
};
use crate::{
    Event, EventKind, Examined, IncomingCall, Verified,
    message::{Kind, LISTEN},
};
use axum::body::Body;
use deputize_call::{action::Action, claims::ToolCallClaims, level::Level};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::Value;
use std::sync::Arc;

/// Where a request goes.
struct Place {
    channel: Arc<dyn Channel>,
    session: Option<Arc<Session>>,
    /// `initialize`: the session is new, and its id goes back with the answer.
    begins: bool,
}

/// What holds while a request is under way.
struct Held {
    _under_way: super::limits::UnderWay,
    fixed: Option<FixedCall>,
    /// AWS credentials for the call, as long as it runs.
    handover: Option<Handover>,
}

/// One request on its way, past every check.
struct Passage {
    proxy: Arc<Proxy>,
    place: Place,
    claims: ToolCallClaims,
    asked: Option<Asked>,
    acts_on: Option<ActsOn>,
    trace: Trace,
    held: Held,
}

/// What a call acts on.
struct ActsOn {
    action: Action,
    name: String,
}

/// Serves one POST.
pub(super) async fn post(
    proxy: Arc<Proxy>,
    sender: Sender,
    body: Vec<u8>,
    request_id: String,
) -> Result<Response<Body>, Trouble> {
    let fields = fields(&sender.headers)?;
    let call = IncomingCall {
        method: "POST",
        headers: &fields,
        body: &body,
        client_certificate: sender.certificate(),
        caller: sender.caller(),
        uptime: proxy.clock.uptime(),
        now_seconds: proxy.clock.now_seconds(),
    };
    let Heard { examined, ordinary } = proxy.hear(&call, sender.source).await?;
    let guard = Arc::clone(&proxy.guard);
    let served = serve(proxy, &call, examined, request_id).await;
    // Whoever presented a person's own token is told in words that he knows.
    served.map_err(|trouble| match &ordinary {
        Some(id) => trouble.for_ordinary(&guard.config, Some(id)),
        None => trouble,
    })
}

/// Serves what was examined.
async fn serve(
    proxy: Arc<Proxy>,
    call: &IncomingCall<'_>,
    examined: Examined,
    request_id: String,
) -> Result<Response<Body>, Trouble> {
    if examined.message.method() == LISTEN && !proxy.server.streams_alone() {
        return Err(versions::unknown_method(call));
    }
    let manner = versions::manner(call, &examined.message)?;
    if let Manner::Modern(version) = &manner {
        let era = proxy.watch.era().ok_or(Failure::Unreachable)?;
        if let Some(answer) = versions::in_place_of(&era, version, &examined.message)? {
            return Ok(reply::json(200, &answer));
        }
        if !examined.message.whole().contains_key("id") {
            // This version defines no notifications of clients over HTTP: there is nobody to hand one to.
            return Ok(reply::empty(202));
        }
    }
    let trace = trace(call, &manner, request_id);
    let (verified, passage) = prepare(proxy, examined, &manner, trace).await?;
    passage.go(verified).await
}

/// Session, limits, and last of all the token.
async fn prepare(
    proxy: Arc<Proxy>,
    examined: Examined,
    manner: &Manner,
    trace: Trace,
) -> Result<(Verified, Passage), Trouble> {
    let owner = Owner::of(&examined.claims);
    let method = examined.message.method().to_owned();
    let acts_on = match examined.message.kind() {
        Kind::Call(asked) => Some(ActsOn { action: asked.action, name: asked.name.clone() }),
        Kind::Listing | Kind::Response(_) => None,
    };
    let is_response = matches!(examined.message.kind(), Kind::Response(_));
    let found = proxy.find(manner, &owner, is_response)?;
    // All notifications together: what they are called is the client's to choose.
    let is_notification = method.starts_with("notifications/");
    let what = match &acts_on {
        Some(ActsOn { action: Action::CallTool, name }) => name,
        // Prompts together, and resources: below a prefix there is no end of URIs.
        None if is_notification => "notifications",
        Some(_) | None => &method,
    };
    proxy.meter.count(&examined.claims.sub, what, proxy.clock.uptime())?;
    let under_way = proxy.meter.enter(&owner)?;
    // Before the token is spent: where no room is, nothing is lost.
    let place = match found {
        Some(session) => {
            Place { channel: Arc::clone(&session.channel), session: Some(session), begins: false }
        }
        None => proxy.place(manner).await?,
    };
    let id = examined.message.whole().get("id").cloned();
    let asked = id.filter(|_| !is_response).map(|id| Asked { id, method });
    let claims = examined.claims.clone();
    let [detail] = &claims.authorization_details;
    let is_fixed = acts_on.is_some() && detail.level() >= Level::L2;
    let fixed = match (&place.session, &asked) {
        (Some(session), Some(asked)) => {
            session.note_requested(&asked.id, &asked.method)?;
            is_fixed.then(|| session.begin_fixed_call(&asked.id))
        }
        _ => None,
    };
    let room = proxy.handovers.as_ref().filter(|_| acts_on.is_some()).map(Handovers::place).transpose()?;
    let verified = match proxy.guard.admit(examined).await {
        Ok(verified) => verified,
        Err(refusal) => {
            if let (Some(session), Some(asked)) = (&place.session, &asked) {
                session.forget_requested(&asked.id);
            }
            return Err(refusal.into());
        }
    };
    let handover = match (room, &verified) {
        (Some(room), Verified::Call(call)) => room.take(call, &trace.request_id)?,
        _ => None,
    };
    let held = Held { _under_way: under_way, fixed, handover };
    let mut passage = Passage { proxy, place, claims, asked, acts_on, trace, held };
    if passage.place.begins {
        let channel = Arc::clone(&passage.place.channel);
        let session = passage.proxy.sessions.begin(owner, channel)?;
        if let Some(asked) = &passage.asked {
            session.note_requested(&asked.id, &asked.method)?;
        }
        passage.place.session = Some(session);
    }
    Ok((verified, passage))
}

impl Proxy {
    /// The session that a request belongs to, if it belongs to one.
    fn find(
        &self,
        manner: &Manner,
        owner: &Owner,
        is_response: bool,
    ) -> Result<Option<Arc<Session>>, Failure> {
        match manner {
            Manner::InSession(id) => self.sessions.find(id, owner).map(Some),
            Manner::Begins if !self.sessions.has_room() => Err(Failure::Full),
            Manner::Alone(_) if is_response => Err(Failure::NoSession),
            _ => Ok(None),
        }
    }

    async fn place(&self, manner: &Manner) -> Result<Place, Failure> {
        let begins = *manner == Manner::Begins;
        let channel = match manner {
            Manner::Begins => self.server.open().await?,
            Manner::Modern(_) => self.server.without_session(false).await?,
            Manner::InSession(_) | Manner::Alone(_) => self.server.without_session(true).await?,
        };
        Ok(Place { channel, session: None, begins })
    }
}

impl Passage {
    async fn go(self, verified: Verified) -> Result<Response<Body>, Trouble> {
        let id = self.asked.as_ref().map(|asked| asked.id.clone());
        let next_nonce;
        let outgoing = match verified {
            Verified::Call(call) => {
                next_nonce = call.next_nonce().to_owned();
                Outgoing::call(call, id, &self.trace, self.held.handover.as_ref())
            }
            Verified::Listing(listing) => {
                next_nonce = listing.next_nonce().to_owned();
                self.report_listing(listing.method());
                Outgoing::listing(listing, id, &self.trace)
            }
            Verified::Response(response) => {
                next_nonce = response.next_nonce().to_owned();
                // INVARIANT: a response goes only to what the server asked in this session, once.
                let session = self.place.session.as_ref().ok_or(Failure::NoSession)?;
                session.take_asked(response.id())?;
                Outgoing::response(response, &self.trace)
            }
        };
        let answer = self.place.channel.send(outgoing).await;
        let mut response = self.answer(answer).await?;
        reply::set(&mut response, "dpop-nonce", &next_nonce);
        Ok(response)
    }

    async fn answer(self, answer: Result<Answer, Failure>) -> Result<Response<Body>, Trouble> {
        let session = self.place.session.clone().filter(|_| self.place.begins);
        let mut response = match answer {
            Ok(Answer::Accepted) if self.asked.is_none() => {
                self.proxy.breaker.answered(&self.claims);
                reply::empty(202)
            }
            Ok(Answer::Accepted) => return Err(self.failed(Failure::Broken("no answer")).await.into()),
            Ok(Answer::One(message)) => match self.screen().pass(message) {
                Ok(Passed::Last(message, class)) => {
                    let text = Value::Object(message).to_string();
                    self.proxy.breaker.answered(&self.claims);
                    self.finished(Ended { class: Ok(class), bytes: text.len() });
                    reply::json_text(200, text)
                }
                Ok(_) => return Err(self.failed(Failure::Broken("no response")).await.into()),
                Err(failure) => return Err(self.failed(failure).await.into()),
            },
            Ok(Answer::Many(messages)) => {
                let (client, body) = EventBody::channel();
                let relay = self.relay();
                let proxy = Arc::clone(&self.proxy);
                tokio::spawn(async move {
                    let ended = relay.run(messages, client).await;
                    match ended.class {
                        Err(failure) => proxy.breaker.failed(&self.claims, failure),
                        // What the server would have said is not known.
                        Ok(ABANDONED) => {}
                        Ok(_) => proxy.breaker.answered(&self.claims),
                    }
                    self.finished(ended);
                });
                reply::events(body)
            }
            Ok(Answer::Rejected(status, message)) => {
                let rejected = self.rejected(status, message);
                self.abandon().await;
                return Err(rejected);
            }
            Err(failure) => return Err(self.failed(failure).await.into()),
        };
        if let Some(session) = session {
            reply::set(&mut response, "mcp-session-id", &session.id);
        }
        Ok(response)
    }

    fn screen(&self) -> Screen {
        Screen {
            guard: Arc::clone(&self.proxy.guard),
            watch: Arc::clone(&self.proxy.watch),
            clock: Arc::clone(&self.proxy.clock),
            claims: self.claims.clone(),
            asked: self.asked.clone(),
            session: self.place.session.clone(),
            streams_alone: self.proxy.server.streams_alone(),
        }
    }

    fn relay(&self) -> Relay {
        self.proxy.relay(self.screen(), Arc::clone(&self.place.channel), self.trace.clone())
    }

    /// An error of the protocol: the server's code and words, under the id of the request.
    fn rejected(&self, status: u16, mut message: deputize_call::json::Object) -> Trouble {
        self.proxy.breaker.answered(&self.claims);
        self.finished(Ended { class: Ok("error"), bytes: 0 });
        let id = self.asked.as_ref().map_or(Value::Null, |asked| asked.id.clone());
        let mut error = message.remove("error").unwrap_or_default();
        make_legible(&mut error);
        Trouble::Rpc(status, serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": error }))
    }

    async fn failed(&self, failure: Failure) -> Failure {
        let name = self.acts_on.as_ref().map(|it| it.name.as_str());
        tracing::warn!(%failure, name, request_id = self.trace.request_id, "request not served");
        self.proxy.breaker.failed(&self.claims, failure);
        if let (Failure::UnknownSession, Some(session)) = (failure, &self.place.session) {
            // The server forgot it: so does the guard.
            self.proxy.sessions.forget(&session.id);
        }
        self.finished(Ended { class: Err(failure), bytes: 0 });
        self.abandon().await;
        failure
    }

    /// A session that did not begin is none.
    async fn abandon(&self) {
        if let Some(session) = self.place.session.as_ref().filter(|_| self.place.begins) {
            self.proxy.sessions.forget(&session.id);
            session.channel.end().await;
        }
    }

    fn report_listing(&self, method: &str) {
        let kind = match method {
            "initialize" => EventKind::Connected,
            "tools/list" | "prompts/list" | "resources/list" | "server/discover" => EventKind::Discovered,
            _ => return,
        };
        self.proxy.reports.report(self.event(kind));
    }

    fn finished(&self, ended: Ended) {
        let is_open =
            matches!(ended.class, Ok(RESUMABLE | ABANDONED) | Err(Failure::TimedOut | Failure::Revoked));
        match (&self.place.session, &self.asked) {
            (Some(session), Some(asked)) if !is_open => session.forget_requested(&asked.id),
            _ => {}
        }
        if let Some(fixed) = self.held.fixed.as_ref().filter(|_| is_open) {
            fixed.leave();
        }
        if self.acts_on.is_none() {
            return;
        }
        let (kind, class) = match ended.class {
            Ok(class) => (EventKind::Executed, class),
            Err(failure) => (EventKind::Failed, failure.class()),
        };
        let bytes = Some(ended.bytes as u64);
        self.proxy.reports.report(Event { class: Some(class.to_owned()), bytes, ..self.event(kind) });
    }

    fn event(&self, kind: EventKind) -> Event {
        let (txn, jti) = (Some(self.claims.txn.clone()), Some(self.claims.jti.clone()));
        let event = Event { txn, jti, index: Some(self.claims.log.index), ..Event::new(kind) };
        match &self.acts_on {
            Some(ActsOn { action, name }) => event.about(*action, name),
            None => event,
        }
    }
}

/// Header fields as the guard reads them.
pub(super) fn fields<'h>(headers: &'h HeaderMap) -> Result<Vec<(&'h str, &'h str)>, Failure> {
    let field = |(name, value): (&'h HeaderName, &'h HeaderValue)| {
        Ok((name.as_str(), value.to_str().map_err(|_| Failure::MalformedHeader)?))
    };
    headers.iter().map(field).collect()
}

/// What goes with the request so that it can be followed: nothing of it decides anything.
pub(super) fn trace(call: &IncomingCall<'_>, manner: &Manner, request_id: String) -> Trace {
    let traceparent = call.single("traceparent").ok().flatten().filter(|value| is_traceparent(value));
    let version = match manner {
        Manner::Modern(_) => Some(MODERN.to_owned()),
        Manner::Alone(version) => version.clone(),
        Manner::InSession(_) | Manner::Begins => None,
    };
    Trace { traceparent: traceparent.map(str::to_owned), request_id, version }
}
