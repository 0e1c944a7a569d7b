//! A guard's stream: the whole state first, then what changes, and every few seconds that nothing else has.

use bytes::Bytes;
use deputize_guard::Revocation;
use deputize_issuer::{client::Client, error::IssueError, registry::Server};
use hyper::body::{Body, Frame};
use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{broadcast::error::RecvError, mpsc, watch};

use super::{Guards, news::Listener, snapshot::as_guards_say};

/// The body of a stream (`text/event-stream`).
#[derive(Debug)]
pub struct Feed {
    messages: mpsc::Receiver<Bytes>,
}

/// How many streams each server has open.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Guards {
    /// A stream for the guard of a server, which authenticated as this client.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`]: the server has too many; [`IssueError::Internal`]: there is no snapshot.
    pub fn feed(self: &Arc<Self>, client: &Client, server: &Server) -> Result<Feed, IssueError> {
        let place = self.streams.enter(&server.record.resource)?;
        // Before the state is looked at, so that nothing is missed in between.
        let listener = self.news.listen();
        let (first, _) = self.snapshot(server)?;
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let task = Stream {
            guards: Arc::clone(self),
            client_id: client.id.clone(),
            resource: server.record.resource.clone(),
            tenant: server.record.tenant.clone(),
            sent_at: self.desk.clock.uptime(),
            sender,
        };
        let closing = self.closing.subscribe();
        tokio::spawn(async move {
            let _place = place;
            // The reader is gone or too slow, or the broker stops: either way it ends.
            let _ = task.run(first, listener, closing).await;
        });
        Ok(Feed { messages })
    }
}

struct Stream {
    guards: Arc<Guards>,
    client_id: String,
    resource: String,
    tenant: String,
    /// When the last snapshot was sent (uptime).
    sent_at: Duration,
    sender: mpsc::Sender<Bytes>,
}

/// The stream is over.
struct Ended;

impl Stream {
    async fn run(
        mut self,
        first: Bytes,
        mut listener: Listener,
        mut closing: watch::Receiver<bool>,
    ) -> Result<(), Ended> {
        self.send("snapshot", &first).await?;
        let mut tick = tokio::time::interval(ALIVE_EVERY);
        tick.reset();
        loop {
            // Revocations before word that nothing is new, or it would be untrue.
            tokio::select! {
                biased;
                () = closed(&mut closing) => return Ok(()),
                revoked = listener.revoked.recv() => match revoked {
                    Ok(revoked) => self.tell(as_guards_say(&revoked, &self.tenant)).await?,
                    // Behind, or the broker is gone: the guard comes again and gets the whole state.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return Err(Ended),
                },
                _ = listener.state.changed() => self.renew().await?,
                _ = tick.tick() => self.keep_alive().await?,
            }
        }
    }

    async fn keep_alive(&mut self) -> Result<(), Ended> {
        let age = self.guards.desk.clock.uptime().saturating_sub(self.sent_at);
        if age >= super::RENEWAL { self.renew().await } else { self.send("alive", b"{}").await }
    }

    /// What the registry says now. A server that is gone from it, or is another client now, is told to stop.
    async fn renew(&mut self) -> Result<(), Ended> {
        let client = self.guards.desk.rules.load().clients.enabled(&self.client_id);
        let server = client.and_then(|client| self.guards.server_of(&client).ok());
        let Some(server) = server.filter(|server| server.record.resource == self.resource) else {
            self.tell(Some(Revocation::Everything)).await?;
            return Err(Ended);
        };
        let (snapshot, _) = self.guards.snapshot(&server).map_err(|_| Ended)?;
        self.sent_at = self.guards.desk.clock.uptime();
        self.send("snapshot", &snapshot).await
    }

    async fn tell(&self, revocation: Option<Revocation>) -> Result<(), Ended> {
        let Some(revocation) = revocation else { return Ok(()) };
        let text = serde_json::to_vec(&revocation).map_err(|_| Ended)?;
        self.send("revocation", &text).await
    }

    /// JSON has no line breaks of its own, so each message is one line.
    async fn send(&self, event: &str, data: &[u8]) -> Result<(), Ended> {
        let message = [b"event: ", event.as_bytes(), b"\ndata: ", data, b"\n\n"].concat();
        self.sender.send_timeout(message.into(), PATIENCE).await.map_err(|_| Ended)
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // Without a sender there is no broker any more.
    let _ = closing.wait_for(|closing| *closing).await;
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.messages.poll_recv(context).map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Streams {
    fn enter(&self, resource: &str) -> Result<Place, IssueError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let held = open.entry(resource.to_owned()).or_default();
        if *held >= MAX_STREAMS_OF_A_SERVER {
            return Err(IssueError::RateLimited { retry_after_seconds: 10 });
        }
        *held += 1;
        metrics::gauge!("deputize_guards_connected").increment(1.0);
        Ok(Place { resource: resource.to_owned(), open: Arc::clone(&self.open) })
    }
}

/// One open stream of a server.
struct Place {
    resource: String,
    open: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = open.get_mut(&self.resource) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                open.remove(&self.resource);
            }
        }
        metrics::gauge!("deputize_guards_connected").decrement(1.0);
    }
}

/// Guards count on it: silence for longer means that revocations may be missing.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long a reader may take for the messages that wait.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_WAITING: usize = 16;
/// A server may have as many guards at once.
const MAX_STREAMS_OF_A_SERVER: usize = 64;
