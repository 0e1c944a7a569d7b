//! A stream of the server's messages, screened one by one and written anew for the client.

use super::{
    events::{KEEP_ALIVE, to_bytes},
    failure::{Failure, INTERNAL_ERROR, rpc_error},
    screen::{Passed, Screen},
    server::{Channel, Messages, Outgoing, Said, Trace},
    versions::MODERN,
};
use bytes::Bytes;
use deputize_client::sse::Event;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep, timeout},
};

/// One stream from the server to the client.
pub(super) struct Relay {
    pub(super) screen: Screen,
    pub(super) channel: Arc<dyn Channel>,
    pub(super) trace: Trace,
    /// How long it may last.
    pub(super) lasts: Duration,
    /// How much may go over it, in bytes.
    pub(super) max_bytes: usize,
    /// Turns true when the guard stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// What the response was, if there was one.
    pub(super) class: Result<&'static str, Failure>,
    /// Bytes of messages that went to the client.
    pub(super) bytes: usize,
}

/// The body of an answer that is still coming.
pub(super) struct EventBody(mpsc::Receiver<Bytes>);

impl EventBody {
    /// A body, and where its pieces go in. A client that does not read holds the server back.
    pub(super) fn channel() -> (mpsc::Sender<Bytes>, axum::body::Body) {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        (sender, axum::body::Body::new(Self(receiver).boxed_unsync()))
    }
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Relay {
    /// Passes messages on until the response, the end of the stream, or a bound.
    pub(super) async fn run(self, mut messages: Box<dyn Messages>, client: mpsc::Sender<Bytes>) -> Ended {
        let waits = self.screen.waits();
        let class = if waits { Err(Failure::Unreachable) } else { Ok(LISTENED) };
        let mut ended = Ended { class, bytes: 0 };
        let (mut resumable, mut stop) = (false, self.stop.clone());
        // MCP 2026-07-28: a client that goes away cancels. Before, that said nothing.
        let cancels = self.trace.version.as_deref() == Some(MODERN);
        let mut end = std::pin::pin!(sleep(self.lasts));
        let mut silence = interval(KEEP_ALIVE_EVERY);
        loop {
            silence.reset();
            let next = tokio::select! {
                next = messages.next() => next,
                () = &mut end => return self.fail(Failure::TimedOut, ended, &client).await,
                // A call goes on to its end; who only listens is told to come back.
                () = stopped(&mut stop), if !waits => return self.farewell(ended, &client).await,
                () = client.closed(), if cancels => return Ended { class: Ok(ABANDONED), ..ended },
                _ = silence.tick() => {
                    if !self.may_go_on() {
                        return self.fail(Failure::Revoked, ended, &client).await;
                    }
                    if !give(&client, Bytes::from_static(KEEP_ALIVE)).await {
                        return Ended { class: Ok(ABANDONED), ..ended };
                    }
                    continue;
                }
            };
            if !self.may_go_on() {
                return self.fail(Failure::Revoked, ended, &client).await;
            }
            let said = match next {
                Some(Ok(said)) => said,
                Some(Err(failure)) => return self.fail(failure, ended, &client).await,
                // A stream that can be resumed ends without a word; another one owes its response.
                None if resumable => return Ended { class: Ok(RESUMABLE), ..ended },
                None => return self.fail(Failure::Unreachable, ended, &client).await,
            };
            resumable |= said.cursor.is_some();
            let (event, class) = match self.screen(said) {
                Ok(screened) => screened,
                Err(failure) => return self.fail(failure, ended, &client).await,
            };
            let Some(event) = event else { continue };
            let bytes = to_bytes(&event);
            ended.bytes += bytes.len();
            if ended.bytes > self.max_bytes {
                return self.fail(Failure::TooLarge, ended, &client).await;
            }
            if !give(&client, bytes.into()).await {
                return Ended { class: Ok(class.unwrap_or(ABANDONED)), ..ended };
            }
            if let Some(class) = class {
                // On the stream of a request its response is the end.
                ended.class = Ok(class);
                if self.screen.asked.is_some() {
                    return ended;
                }
            }
        }
    }

    /// A stream outlives its token, and ends with what that token stood for: a server that answers a call with one cannot
    /// keep open what was revoked.
    fn may_go_on(&self) -> bool {
        let Screen { guard, claims, clock, .. } = &self.screen;
        guard.check_revocation(claims, None, clock.uptime()).is_ok()
    }

    /// The event that goes to the client, if any, and what the response is, if it is one.
    fn screen(&self, said: Said) -> Result<(Option<Event>, Option<&'static str>), Failure> {
        let (data, class) = match said.message.map(|message| self.screen.pass(message)).transpose()? {
            None => (Some(String::new()), None),
            Some(Passed::On(message)) => (Some(Value::Object(message).to_string()), None),
            Some(Passed::Last(message, class)) => (Some(Value::Object(message).to_string()), Some(class)),
            Some(Passed::Held) => (None, None),
            Some(Passed::Refused(error)) => {
                self.refuse(error);
                (None, None)
            }
        };
        if let (Some(session), Some(cursor)) = (&self.screen.session, &said.cursor) {
            session.note_cursor(cursor);
        }
        // Without a session nobody could be told whose a cursor is.
        let id = said.cursor.filter(|_| self.screen.session.is_some());
        let event = data.map(|data| Event { id, data, retry_ms: said.retry_ms, ..Event::default() });
        Ok((event, class))
    }

    /// Tells the server that it does not get what it asked for.
    fn refuse(&self, error: Value) {
        let (channel, trace) = (Arc::clone(&self.channel), self.trace.clone());
        tokio::spawn(async move {
            if let Err(failure) = channel.send(Outgoing::own(&error, &trace)).await {
                tracing::debug!(%failure, "server not told of a refusal");
            }
        });
    }

    /// The end of a stream that nobody owes a response on, told where the version has a word for it (MCP 2026-07-28,
    /// subscriptions, graceful closure).
    async fn farewell(&self, ended: Ended, client: &mpsc::Sender<Bytes>) -> Ended {
        if let Some(asked) = &self.screen.asked {
            let meta = json!({ "io.modelcontextprotocol/subscriptionId": asked.id });
            let result = json!({ "resultType": "complete", "_meta": meta });
            let data = json!({ "jsonrpc": "2.0", "id": asked.id, "result": result }).to_string();
            // A client that is gone needs no farewell.
            let _ = give(client, to_bytes(&Event { data, ..Event::default() }).into()).await;
        }
        ended
    }

    /// The response that the server owes is an error then.
    async fn fail(&self, failure: Failure, ended: Ended, client: &mpsc::Sender<Bytes>) -> Ended {
        if !self.screen.waits() {
            return self.farewell(ended, client).await;
        }
        if let Some(asked) = &self.screen.asked {
            let (_, _, sentence) = failure.render();
            let data = rpc_error(&asked.id, INTERNAL_ERROR, sentence, None).to_string();
            // A client that is gone needs no error.
            let _ = give(client, to_bytes(&Event { data, ..Event::default() }).into()).await;
        }
        Ended { class: Err(failure), ..ended }
    }
}

/// Hands a piece to the client. False where it is gone, or reads nothing for so long that it might as well be.
async fn give(client: &mpsc::Sender<Bytes>, piece: Bytes) -> bool {
    matches!(timeout(READ_TIMEOUT, client.send(piece)).await, Ok(Ok(())))
}

/// Waits until the guard stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // No sender any more: it has stopped.
    drop(stop.wait_for(|stop| *stop).await);
}

/// The stream ended without its response, and can be resumed.
pub(super) const RESUMABLE: &str = "resumable";
/// The client went away before there was a response. The server may have done what was asked.
pub(super) const ABANDONED: &str = "abandoned";
/// Nothing was owed on it.
pub(super) const LISTENED: &str = "listened";
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const PIECES_AHEAD: usize = 16;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
