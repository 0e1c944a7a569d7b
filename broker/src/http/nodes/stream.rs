//! The stream of one node: the state that it has to know, and another whenever it changed.

mod outbox;

pub use outbox::{Lines, room};

use deputize_call::digest::sha256;
use deputize_issuer::{
    certificate::PresentedCertificate,
    error::IssueError,
    node::{AttestedNode, still_stands},
};
use deputize_workload_api::node::wire::{Line, State};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

use self::outbox::{Outbox, Unread};
use super::{
    NodeDoor,
    places::{Place, Places},
};

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
    let (outbox, lines) = Outbox::new(node.id().to_string(), Arc::clone(&door.unread));
    let mut watcher = Watcher { door: Arc::clone(door), node, certificate, told: Told::default(), outbox };
    let first = watcher.news().map_err(|_| IssueError::Internal("bundle"))?;
    // Whoever was banned before those were followed is not told of it by them.
    watcher.still_stands()?;
    tokio::spawn(async move {
        let _open = Open::new(place);
        // The agent is gone or too slow, is no node any more, or the broker stops: either way it ends.
        let _ = watcher.run(first, changes).await;
    });
    Ok(lines)
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
    told: Told,
    outbox: Outbox,
}

/// The state that was told last: it may be long, so that its digest alone is kept.
#[derive(Default)]
struct Told {
    version: u64,
    digest: [u8; 32],
}

/// The stream is over.
struct Ended;

impl From<Unread> for Ended {
    fn from(_: Unread) -> Self {
        Self
    }
}

/// Why a stream looks up.
enum News {
    OfNodes,
    OfState,
    None,
}

impl Watcher {
    async fn run(mut self, first: Option<Vec<u8>>, mut changes: Changes) -> Result<(), Ended> {
        if let Some(first) = first {
            self.outbox.put(first).await?;
        }
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
                () = self.outbox.closed() => return Err(Ended),
                _ = tick.tick() => Ok(News::None),
            };
            // Banned, evicted, attested anew, or its SVID is over: it hears nothing more.
            self.still_stands().map_err(|_| Ended)?;
            match changed.map_err(|_| Ended)? {
                // Which of them there are is in no node's state.
                News::OfNodes => {}
                News::OfState => {
                    if let Some(line) = self.news()? {
                        self.outbox.put(line).await?;
                    }
                }
                News::None => self.outbox.put_short(written(None)?).await?,
            }
        }
    }

    fn still_stands(&self) -> Result<(), IssueError> {
        still_stands(&self.door.desk, &self.door.registry, (&self.node, &self.certificate))
    }

    /// A line with the state, if it is another. What changes for other nodes is no news for this one.
    fn news(&mut self) -> Result<Option<Vec<u8>>, Ended> {
        let version = self.told.version;
        let now = State::of(&self.door.door, self.node.id(), version).map_err(|_| Ended)?;
        if self.told.digest == digest(&now)? {
            return Ok(None);
        }
        let now = State { version: version + 1, ..now };
        self.told = Told { version: now.version, digest: digest(&now)? };
        written(Some(now)).map(Some)
    }
}

fn digest(state: &State) -> Result<[u8; 32], Ended> {
    serde_json::to_vec(state).map(|text| sha256(&text)).map_err(|_| Ended)
}

fn written(state: Option<State>) -> Result<Vec<u8>, Ended> {
    let mut line = serde_json::to_vec(&Line { state }).map_err(|_| Ended)?;
    line.push(b'\n');
    Ok(line)
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
/// An agent has one, and for a moment another when it connects anew.
const MAX_STREAMS_OF_A_NODE: usize = 4;
