//! A guard's stream: the whole state first, then what changes, and every few seconds that nothing else has.

use bytes::Bytes;
use deputize_guard::Revocation;
use deputize_issuer::{client::Client, error::IssueError, registry::Server};
use hyper::body::{Body, Frame};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
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

impl Guards {
    /// A stream for the guard of a server, which authenticated as this client.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`]: the server has too many; [`IssueError::Internal`]: there is no snapshot.
    pub async fn feed(self: &Arc<Self>, client: &Client, server: &Server) -> Result<Feed, IssueError> {
        let place = self.streams.enter(server);
        let place = place.ok_or(IssueError::RateLimited { retry_after_seconds: 10 })?;
        // Before the state is looked at, so that nothing is missed in between.
        let listener = self.news.listen(&server.record.resource);
        let first = self.snapshot(server).await?;
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        let task = Stream {
            guards: Arc::clone(self),
            client_id: client.id.clone(),
            resource: server.record.resource.clone(),
            tenant: server.record.tenant.clone(),
            renewed_at: first.renewed_at,
            told: 0,
            sender,
        };
        let closing = self.closing.subscribe();
        tokio::spawn(async move {
            let _held = (place, Connected::new());
            // The reader is gone or too slow, or the broker stops: either way it ends.
            let _ = task.run(first.text, listener, closing).await;
        });
        Ok(Feed { messages })
    }
}

struct Stream {
    guards: Arc<Guards>,
    client_id: String,
    resource: String,
    tenant: String,
    /// When the next snapshot is due (uptime).
    renewed_at: Duration,
    /// Revocations since the last one.
    told: usize,
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
        let is_due = self.guards.desk.clock.uptime() >= self.renewed_at;
        if is_due { self.renew().await } else { self.send("alive", b"{}").await }
    }

    /// What the registry says now. A server that is gone from it, or is another client now, is told to stop.
    async fn renew(&mut self) -> Result<(), Ended> {
        let client = self.guards.desk.rules.load().clients.enabled(&self.client_id);
        let server = client.and_then(|client| self.guards.server_of(&client).ok());
        let Some(server) = server.filter(|server| server.record.resource == self.resource) else {
            self.tell(Some(Revocation::Everything)).await?;
            return Err(Ended);
        };
        let snapshot = self.guards.snapshot(&server).await.map_err(|_| Ended)?;
        (self.renewed_at, self.told) = (snapshot.renewed_at, 0);
        self.send("snapshot", &snapshot.text).await
    }

    async fn tell(&mut self, revocation: Option<Revocation>) -> Result<(), Ended> {
        let Some(revocation) = revocation else { return Ok(()) };
        self.told += 1;
        if self.told > MAX_TOLD {
            // The guard comes again, and is told in fewer words.
            return Err(Ended);
        }
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

/// Counts an open stream.
struct Connected;

impl Connected {
    fn new() -> Self {
        metrics::gauge!("deputize_guards_connected").increment(1.0);
        Self
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        metrics::gauge!("deputize_guards_connected").decrement(1.0);
    }
}

/// Guards count on it: silence for longer means that revocations may be missing.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long a reader may take for the messages that wait.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_WAITING: usize = 16;
/// Revocations on one stream after a snapshot: with those in it, far fewer than a guard remembers.
const MAX_TOLD: usize = 10_000;
/// A server may have as many guards at once.
pub(super) const MAX_STREAMS_OF_A_SERVER: usize = 64;
