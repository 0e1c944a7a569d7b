//! Requests without a body, in versions of MCP with sessions: `GET` listens, `DELETE` ends the session.

use super::{
    Proxy,
    failure::Failure,
    front::Sender,
    ordinary::HeardStream,
    passage::{fields, trace},
    relay::EventBody,
    reply::{self, Trouble},
    screen::Screen,
    session::{Owner, Session},
    versions::Manner,
};
use crate::IncomingCall;
use axum::body::Body;
use deputize_client::sse::is_cursor;
use http::Response;
use std::{net::IpAddr, sync::Arc};

/// Serves one GET: the server's messages in a session, or a broken stream of it from a cursor on.
pub(super) async fn get(
    proxy: Arc<Proxy>,
    sender: Sender,
    request_id: String,
) -> Result<Response<Body>, Trouble> {
    let fields = fields(&sender.headers)?;
    let call = proxy.bare_call("GET", &fields, &sender);
    let (HeardStream { stream, remaining }, session) = owned(&proxy, &call, sender.source).await?;
    proxy.meter.count(&stream.claims().sub, "GET", proxy.clock.uptime())?;
    let cursor = call.single("last-event-id").map_err(|_| Failure::MalformedHeader)?;
    // INVARIANT: a cursor resumes only a stream of its own session; any other is as one that never was.
    if cursor.is_some_and(|cursor| !is_cursor(cursor) || !session.knows_cursor(cursor)) {
        return Err(Failure::UnknownSession.into());
    }
    let under_way = proxy.meter.enter(&Owner::of(stream.claims()))?;
    let trace = trace(&call, &Manner::InSession(session.id.clone()), request_id);
    let messages = session.channel.listen(cursor, &trace).await;
    // It may have been the one request of this caller that was let through to see whether the server is well.
    match &messages {
        Err(failure) => proxy.breaker.failed(stream.claims(), *failure),
        Ok(_) => proxy.breaker.answered(stream.claims()),
    }
    let messages = messages?;
    let screen = Screen {
        guard: Arc::clone(&proxy.guard),
        watch: Arc::clone(&proxy.watch),
        clock: Arc::clone(&proxy.clock),
        claims: stream.claims().clone(),
        asked: None,
        session: Some(Arc::clone(&session)),
        streams_alone: proxy.server.streams_alone(),
    };
    let mut relay = proxy.relay(screen, Arc::clone(&session.channel), trace);
    // Who has no key but a token listens no longer than that is good; with its successor he comes back.
    relay.lasts = remaining.map_or(relay.lasts, |remaining| relay.lasts.min(remaining));
    let (client, body) = EventBody::channel();
    tokio::spawn(async move {
        let _held = under_way;
        relay.run(messages, client).await;
    });
    let mut response = reply::events(body);
    reply::set(&mut response, "dpop-nonce", stream.next_nonce());
    Ok(response)
}

/// Serves one DELETE.
pub(super) async fn delete(proxy: Arc<Proxy>, sender: Sender) -> Result<Response<Body>, Trouble> {
    let fields = fields(&sender.headers)?;
    let call = proxy.bare_call("DELETE", &fields, &sender);
    let (HeardStream { stream, .. }, session) = owned(&proxy, &call, sender.source).await?;
    proxy.sessions.forget(&session.id);
    session.channel.end().await;
    let mut response = reply::empty(204);
    reply::set(&mut response, "dpop-nonce", stream.next_nonce());
    Ok(response)
}

/// The caller, and the session that he names, which is his.
async fn owned(
    proxy: &Proxy,
    call: &IncomingCall<'_>,
    source: IpAddr,
) -> Result<(HeardStream, Arc<Session>), Trouble> {
    let heard = proxy.hear_stream(call, source).await?;
    let id = call.single("mcp-session-id").map_err(|_| Failure::MalformedHeader)?;
    // Without a session there is nothing to listen to: none that is bound to its caller.
    let id = id.ok_or(Failure::NoStream)?;
    let session = proxy.sessions.find(id, &Owner::of(heard.stream.claims()))?;
    Ok((heard, session))
}

impl Proxy {
    fn bare_call<'a>(
        &self,
        method: &'a str,
        headers: &'a [(&'a str, &'a str)],
        sender: &'a Sender,
    ) -> IncomingCall<'a> {
        IncomingCall {
            method,
            headers,
            body: b"",
            client_certificate: sender.certificate(),
            caller: sender.caller(),
            uptime: self.clock.uptime(),
            now_seconds: self.clock.now_seconds(),
        }
    }
}
