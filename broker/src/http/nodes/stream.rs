//! The stream of one node: the state that it has to know, and another whenever it changed.

use bytes::Bytes;
use deputize_issuer::{
    certificate::PresentedCertificate,
    error::IssueError,
    node::{AttestedNode, still_stands},
};
use deputize_workload_api::node::wire::{Line, State};
use hyper::body::{Body, Frame};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

use super::{
    NodeDoor,
    places::{Place, Places},
};

/// The body of a stream (`application/x-ndjson`).
#[derive(Debug)]
pub struct Lines {
    lines: mpsc::Receiver<Bytes>,
}

/// Places for open streams: as many as there are nodes, and few for each.
pub fn places() -> Arc<Places> {
    Places::new(usize::MAX, MAX_STREAMS_OF_A_NODE)
}

/// Begins one.
///
/// # Errors
/// [`IssueError::RateLimited`]: the node has too many; what says why there is no first state.
pub fn begin(
    door: &Arc<NodeDoor>,
    (node, certificate): (AttestedNode, Arc<PresentedCertificate>),
) -> Result<Lines, IssueError> {
    let place = door.streams.enter(&node.id().to_string());
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
    let watcher = Watcher { door: Arc::clone(door), node, certificate, told, sender };
    // Whoever was banned before those were followed is not told of it by them.
    watcher.still_stands()?;
    tokio::spawn(async move {
        let _open = Open::new(place);
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
    certificate: Arc<PresentedCertificate>,
    /// The state that was told last.
    told: State,
    sender: mpsc::Sender<Bytes>,
}

/// The stream is over.
struct Ended;

/// Why a stream looks up.
enum News {
    OfNodes,
    OfState,
    None,
}

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
                changed = changes.nodes.changed() => changed.map(|()| News::OfNodes),
                changed = changes.entries.changed() => changed.map(|()| News::OfState),
                changed = changes.authorities.changed() => changed.map(|()| News::OfState),
                changed = changes.foreign.changed() => changed.map(|()| News::OfState),
                () = self.sender.closed() => return Err(Ended),
                _ = tick.tick() => Ok(News::None),
            };
            // Banned, evicted, attested anew, or its SVID is over: it hears nothing more.
            self.still_stands().map_err(|_| Ended)?;
            match changed.map_err(|_| Ended)? {
                // Which of them there are is in no node's state.
                News::OfNodes => {}
                News::OfState => self.renew().await?,
                News::None => self.tell(false).await?,
            }
        }
    }

    fn still_stands(&self) -> Result<(), IssueError> {
        still_stands(&self.door.desk, &self.door.registry, (&self.node, &self.certificate))
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
struct Open {
    _place: Place,
}

impl Open {
    fn new(place: Place) -> Self {
        metrics::gauge!("deputize_node_streams").increment(1.0);
        Self { _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("deputize_node_streams").decrement(1.0);
    }
}

/// Agents count on it: silence for three times as long means that the connection is dead.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long a reader may take for the lines that wait.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_WAITING: usize = 4;
/// An agent has one, and for a moment another when it connects anew.
const MAX_STREAMS_OF_A_NODE: usize = 4;
