//! The guard's link to the broker: it keeps a [`Guard`] supplied with the signed snapshot and with what is revoked,
//! redeems tokens, and reports what was seen. The broker may go away for a while: calls go on until the last word
//! about revocations is too old, and reports wait on disk.
//!
//! ```no_run
//! # async fn example(settings: deputize_guard::link::LinkSettings, config: deputize_guard::GuardConfig,
//! #     upstream: std::sync::Arc<dyn deputize_guard::Upstream>) -> Result<(), Box<dyn std::error::Error>> {
//! use deputize_guard::{Event, EventKind, Guard, link::Link};
//! use std::sync::Arc;
//!
//! let link = Link::start(settings)?;
//! // One clock for both: what the link heard, and when, is compared with the time of each call.
//! let clock = link.clock();
//! let guard = Arc::new(Guard::new(config, link.redeemer(), upstream, clock.now_seconds())?);
//! link.follow(Arc::clone(&guard));
//! link.ready().await;
//! link.report(Event::new(EventKind::Connected));
//! # Ok(()) }
//! ```

#[cfg(feature = "proxy")]
mod aws;
#[cfg(feature = "proxy")]
mod exchange;
mod follow;
mod memory;
mod outbox;
mod pause;
mod report;

use crate::{Event, EventRecord, Guard, Redeemed, Redeemer, SignedSnapshot};
use async_trait::async_trait;
use deputize_call::{keys::KeySet, sign::SigningKey};
use deputize_client::{BuildError, Client, DecryptionKey, Redemption};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use self::{
    memory::{Memory, problem},
    outbox::Outbox,
};

pub use deputize_client::{Clock, SystemClock};

/// What a link is told once, by its operator.
pub struct LinkSettings {
    /// The broker: its issuer URL.
    pub issuer: String,
    /// This server's resource URI.
    pub resource: String,
    /// The client as which this server is known to the broker.
    pub client_id: String,
    /// That client's key.
    pub private_key: SigningKey,
    /// The private halves of the keys to which the broker seals AWS credentials for it; none where it does not.
    pub decryption_keys: Vec<DecryptionKey>,
    /// The keys that sign snapshots; `deputize keys jwks` prints them on the broker.
    pub snapshot_keys: KeySet,
    /// A folder of this guard alone: what it must not forget, and reports that wait. Made where it is missing.
    pub state_folder: PathBuf,
    /// Trust these certificates (PEM) and no others.
    pub ca_pem: Option<Vec<u8>>,
    /// Time and ids; [`SystemClock`] outside of tests.
    pub clock: Arc<dyn Clock>,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The broker's URL, the certificates or the key cannot be used.
    #[error(transparent)]
    Client(#[from] BuildError),
    /// The state folder cannot be used.
    #[error("{}: {problem}", path.display())]
    State {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// How a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether the broker is heard now.
    pub connected: bool,
    /// The highest version of a snapshot that was seen.
    pub version: Option<u64>,
    /// Reports that wait.
    pub waiting: usize,
    /// Reports that are lost, since this process began.
    pub lost: u64,
}

/// A link to the broker. Dropped, it ends what it started.
pub struct Link {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    client: Client,
    resource: String,
    clock: Arc<dyn Clock>,
    snapshot_keys: KeySet,
    memory: Mutex<Memory>,
    /// The last snapshot of an earlier process, until a guard is there to take it.
    remembered: Mutex<Option<SignedSnapshot>>,
    reports: mpsc::Sender<EventRecord>,
    outbox: Mutex<Outbox>,
    /// Something waits in the outbox.
    posted: Notify,
    /// Reports for which there was no room on the way to the outbox.
    dropped: AtomicU64,
    connected: AtomicBool,
    ready: watch::Sender<bool>,
    /// Held as long as the link: the state folder is its own.
    _lock: File,
}

impl Link {
    /// Opens the state folder and starts reporting. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`]; nothing is asked of the broker yet.
    pub fn start(settings: LinkSettings) -> Result<Self, LinkError> {
        let mut builder =
            Client::builder(&settings.issuer, &settings.client_id).private_key_jwt(settings.private_key);
        if let Some(pem) = settings.ca_pem {
            builder = builder.ca_pem(pem);
        }
        for key in settings.decryption_keys {
            builder = builder.decryption_key(key);
        }
        // What may serve again is kept by whoever has it exchanged.
        let client = builder.clock(Arc::clone(&settings.clock)).cache_capacity(0).build()?;
        let folder = &settings.state_folder;
        let (memory, remembered) = Memory::open(folder)?;
        let lock = lock(folder)?;
        let outbox = Outbox::open(folder).map_err(|error| problem(folder, &error))?;
        let (reports, received) = mpsc::channel(MAX_ON_THE_WAY);
        let shared = Arc::new(Shared {
            client,
            resource: settings.resource,
            clock: settings.clock,
            snapshot_keys: settings.snapshot_keys,
            memory: Mutex::new(memory),
            remembered: Mutex::new(remembered),
            reports,
            outbox: Mutex::new(outbox),
            posted: Notify::new(),
            dropped: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            ready: watch::Sender::new(false),
            _lock: lock,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(report::post(Arc::clone(&shared), received));
        tasks.spawn(report::send(Arc::clone(&shared)));
        Ok(Self { shared, tasks: Mutex::new(tasks) })
    }

    /// The clock that the link goes by: give its times to [`Guard::verify`].
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    /// Redeems tokens at the broker, in the name of this server.
    pub fn redeemer(&self) -> Arc<dyn Redeemer> {
        Arc::clone(&self.shared) as _
    }

    /// Keeps this guard supplied from now on, in a task of its own. One guard for each link.
    pub fn follow(&self, guard: Arc<Guard>) {
        let task = follow::follow(Arc::clone(&self.shared), guard);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// Reports what was seen. Never waits and never fails: what finds no room is lost, and counted.
    pub fn report(&self, event: Event) {
        let clock = &self.shared.clock;
        if self.shared.reports.try_send(event.into_record(clock.unique_id(), clock.now_ms())).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the guard that is followed has its first snapshot from the broker.
    pub async fn ready(&self) {
        // The sender lives as long as this link.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// How it does.
    pub fn status(&self) -> LinkStatus {
        let outbox = self.shared.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, lost) = (outbox.len(), outbox.lost());
        drop(outbox);
        LinkStatus {
            connected: self.shared.connected.load(Ordering::Relaxed),
            version: self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner).highest(),
            waiting,
            lost: lost + self.shared.dropped.load(Ordering::Relaxed),
        }
    }
}

/// Two guards with one memory would each undo what the other remembers.
fn lock(folder: &Path) -> Result<File, LinkError> {
    let path = folder.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| problem(&path, &error))?;
    let locked = file.try_lock();
    locked.map_err(|_| problem(&path, &"another guard uses this folder: give each its own"))?;
    Ok(file)
}

#[async_trait]
impl Redeemer for Shared {
    async fn redeem(&self, token: &str) -> Redeemed {
        match self.client.redeem(token).await {
            Ok(Redemption::Redeemed) => Redeemed::Yes,
            Ok(Redemption::AlreadyUsed) => Redeemed::AlreadyUsed,
            Ok(Redemption::Revoked) => Redeemed::Revoked,
            Err(error) => {
                tracing::warn!(%error, "token not redeemed");
                Redeemed::Unavailable
            }
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

/// Reports between [`Link::report`] and the outbox.
const MAX_ON_THE_WAY: usize = 4096;
