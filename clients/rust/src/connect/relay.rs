//! What the server says beside its answers: on the stream of a request, and on the one for everything else.

use super::{
    conversation::Conversation,
    failure::Failure,
    message::{Manner, Request},
    outbox::Outbox,
    remote::{Answer, Said, Sending, Stream},
    session::Session,
};
use deputize_call::json::Object;
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

impl Conversation {
    /// Passes on what comes on the stream of a request, up to its response. A stream that breaks off is resumed where
    /// the server said how (MCP up to 2025-11-25).
    pub(super) async fn relay(
        &self,
        request: &Request,
        mut stream: Stream,
        out: &Outbox,
    ) -> Result<Said, Failure> {
        let (mut cursor, mut pause, mut resumed): (Option<String>, _, _) = (None, FIRST_PAUSE, 0);
        loop {
            let Some(event) = stream.next().await? else {
                let session = self.session().filter(|_| request.manner == Manner::InSession);
                let (Some(session), Some(from)) = (session, &cursor) else {
                    return Err(Failure::GoneUnderWay);
                };
                if resumed >= MAX_RESUMED {
                    return Err(Failure::GoneUnderWay);
                }
                resumed += 1;
                tokio::time::sleep(pause).await;
                let Answer::Stream { stream: rest, .. } =
                    self.send_bare(Method::GET, &session, Some(from)).await?
                else {
                    return Err(Failure::GoneUnderWay);
                };
                stream = rest;
                continue;
            };
            cursor = event.id.or(cursor);
            pause = event.retry_ms.map_or(pause, |ms| Duration::from_millis(ms).min(LONGEST_PAUSE));
            if event.data.is_empty() {
                continue;
            }
            let said = Said::read(event.data.as_bytes())?;
            if said.answers(&request.id) {
                return Ok(said);
            }
            self.pass_down(said, &request.manner, out).await;
        }
    }

    /// Listens to what the server says unasked, as long as it offers that (MCP up to 2025-11-25).
    pub(super) async fn listen(self: Arc<Self>, out: Outbox) {
        let (mut cursor, mut pause): (Option<String>, _) = (None, FIRST_PAUSE);
        while let Some(session) = self.session() {
            match self.send_bare(Method::GET, &session, cursor.as_deref()).await {
                Ok(Answer::Stream { mut stream, .. }) => {
                    pause = FIRST_PAUSE;
                    while let Ok(Some(event)) = stream.next().await {
                        cursor = event.id.or(cursor);
                        pause =
                            event.retry_ms.map_or(pause, |ms| Duration::from_millis(ms).min(LONGEST_PAUSE));
                        if let Ok(said) = Said::read(event.data.as_bytes()) {
                            self.pass_down(said, &Manner::InSession, &out).await;
                        }
                    }
                }
                Ok(Answer::Refused(refusal)) if matches!(refusal.status, 401 | 429 | 500..=599) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(_) => pause = (pause * 2).min(LONGEST_PAUSE),
                // It offers no stream; or not from there on, because the session is another now.
                Ok(_) if cursor.take().is_none() => return,
                Ok(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = out.closed() => return,
            }
        }
    }

    /// A request without a body, in a session.
    pub(super) async fn send_bare(
        &self,
        method: Method,
        session: &Session,
        cursor: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut headers = session.headers();
        if let Some(cursor) = cursor {
            headers.push(("last-event-id".to_owned(), cursor.to_owned()));
        }
        let token = self.grants.listing().await?;
        let sending = Sending { method, body: None, headers: &headers, token: &token };
        let answer = self.connector.remote.send(&sending).await?;
        if matches!(&answer, Answer::Refused(refusal) if refusal.status == 401) {
            self.grants.forget(&token).await;
        }
        Ok(answer)
    }

    /// Takes note of the session that an answer to `initialize` began.
    pub(super) fn note_session(&self, opening: &Object, answer: &Said, id: Option<String>) {
        if let Some(session) = Session::begun(opening, answer, id) {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(session));
        }
    }

    /// Begins a session anew in place of one that the server lost (MCP 2025-11-25, session management). The local
    /// client need not know.
    pub(super) async fn reopen(self: &Arc<Self>, lost: &Arc<Session>) -> Result<(), Failure> {
        let _one_at_a_time = self.reopening.lock().await;
        if self.session().is_some_and(|present| !Arc::ptr_eq(&present, lost)) {
            return Ok(());
        }
        let params = lost.opening.get("params").and_then(Value::as_object).cloned().unwrap_or_default();
        let opening = self.own_request("initialize", params, &Manner::InSession);
        let (unheard, _) = Outbox::new();
        // Boxed: a session is opened by delivering a request, whose session may be lost.
        let reply = Box::pin(self.deliver(&opening, &unheard)).await?;
        if Said::read(reply.text.as_bytes())?.message.contains_key("error") {
            return Err(Failure::Broken("it lost the session and begins no other"));
        }
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        if let Value::Object(note) = note {
            self.send_note(&note).await;
        }
        tracing::info!("session begun anew");
        Ok(())
    }

    /// Passes a message of the server on to the client, if it may say it there.
    async fn pass_down(&self, said: Said, manner: &Manner, out: &Outbox) {
        let is_request = said.message.contains_key("id") && said.message.contains_key("method");
        if said.is_response() || (is_request && *manner != Manner::InSession) {
            tracing::warn!("message of the server left out: it answers nothing, or asks where it may not");
            return;
        }
        if said.message.get("method").and_then(Value::as_str) == Some("notifications/tools/list_changed") {
            self.connector.tools.expire();
        }
        out.say(said.text).await;
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const MAX_RESUMED: u32 = 10;
