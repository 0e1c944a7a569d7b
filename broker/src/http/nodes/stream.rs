//! The stream of one node: the state that it has to know, and another whenever it changed.

use bytes::Bytes;
use deputize_issuer::{error::IssueError, node::AttestedNode};
use deputize_workload_api::node::wire::{Line, State};
use hyper::body::{Body, Frame};
use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

use super::NodeDoor;

/// The body of a stream (`application/x-ndjson`).
#[derive(Debug)]
pub struct Lines {
    lines: mpsc::Receiver<Bytes>,
}

/// Counts the open streams of each node.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<String, usize>>);

/// Begins one.
///
/// # Errors
/// [`IssueError::RateLimited`]: the node has too many; what says why there is no first state.
pub fn begin(door: &Arc<NodeDoor>, node: AttestedNode) -> Result<Lines, IssueError> {
    let place = Place::enter(&door.streams, &node.id().to_string());
    let place = place.ok_or(IssueError::RateLimited { retry_after_seconds: 5 })?;
    // Before the state is looked at: what changes meanwhile is looked at again.
    let changes = Changes {
        entries: door.door.entries.changes(),
        authorities: door.door.authorities.changes(),
        foreign: door.door.foreign.changes(),
        nodes: door.registry.changes(),
    };
    let (sender, lines) = mpsc::channel(MAX_WAITING);
    let told = State::of(&door.door, node.id(), 1).map_err(|_| IssueError::Internal("bundle"))?;
    let watcher = Watcher { door: Arc::clone(door), node, told, sender };
    tokio::spawn(async move {
        let _place = place;
        // The agent is gone or too slow, is no node any more, or the broker stops: either way it ends.
        let _ = watcher.run(changes).await;
    });
    Ok(Lines { lines })
}

type Counted = watch::Receiver<u64>;

struct Changes {
    entries: Counted,
    authorities: Counted,
    foreign: Counted,
    nodes: Counted,
}

struct Watcher {
    door: Arc<NodeDoor>,
    node: AttestedNode,
    /// The state that was told last.
    told: State,
    sender: mpsc::Sender<Bytes>,
}

/// The stream is over.
struct Ended;

impl Watcher {
    async fn run(mut self, mut changes: Changes) -> Result<(), Ended> {
        self.tell(true).await?;
        let mut stop = self.door.stop.clone();
        let mut tick = tokio::time::interval(ALIVE_EVERY);
        tick.reset();
        loop {
            let changed = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                changed = changes.nodes.changed() => changed.map(|()| true),
                changed = changes.entries.changed() => changed.map(|()| true),
                changed = changes.authorities.changed() => changed.map(|()| true),
                changed = changes.foreign.changed() => changed.map(|()| true),
                () = self.sender.closed() => return Err(Ended),
                _ = tick.tick() => Ok(false),
            };
            // Banned, evicted, attested anew, or its SVID is over: it hears nothing more.
            self.door.registry.stands(&self.node).map_err(|_| Ended)?;
            if changed.map_err(|_| Ended)? {
                self.renew().await?;
            } else {
                self.tell(false).await?;
            }
        }
    }

    /// Tells the state, if it is another. What changes for other nodes is no news for this one.
    async fn renew(&mut self) -> Result<(), Ended> {
        let version = self.told.version;
        let now = State::of(&self.door.door, self.node.id(), version).map_err(|_| Ended)?;
        if now == self.told {
            return Ok(());
        }
        self.told = State { version: version + 1, ..now };
        self.tell(true).await
    }

    async fn tell(&self, with_state: bool) -> Result<(), Ended> {
        let state = with_state.then(|| self.told.clone());
        let mut line = serde_json::to_vec(&Line { state }).map_err(|_| Ended)?;
        line.push(b'\n');
        self.sender.send_timeout(line.into(), PATIENCE).await.map_err(|_| Ended)
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.lines.poll_recv(context).map(|line| line.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// One open stream; dropped when it ends.
struct Place {
    streams: Arc<Streams>,
    node: String,
}

impl Place {
    fn enter(streams: &Arc<Streams>, node: &str) -> Option<Self> {
        let mut open = streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(node.to_owned()).or_default();
        if *count >= MAX_STREAMS_OF_A_NODE {
            return None;
        }
        *count += 1;
        metrics::gauge!("deputize_node_streams").increment(1.0);
        Some(Self { streams: Arc::clone(streams), node: node.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("deputize_node_streams").decrement(1.0);
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.node);
            }
        }
    }
}

/// Agents count on it: silence for three times as long means that the connection is dead.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long a reader may take for the lines that wait.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_WAITING: usize = 4;
/// An agent has one, and for a moment another when it connects anew.
const MAX_STREAMS_OF_A_NODE: usize = 4;
