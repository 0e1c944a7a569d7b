//! The guards of MCP servers: what each is told of its own server, and what it tells.
//!
//! A guard is told the approved tools, our keys and what is revoked as a signed snapshot; then each revocation within
//! milliseconds, and a new snapshot when something else has changed. What it tells goes on record, and a tool that is
//! no longer what was approved is issued for no more.

mod events;
mod feed;
mod news;
mod places;
mod snapshot;

pub use news::{Announced, News};
pub use places::Place;
pub use snapshot::Signed;

use deputize_call::{once::OnceSet, sign::SigningKey};
use deputize_issuer::{
    client::Client,
    desk::Desk,
    drift::Drifted,
    error::IssueError,
    log::{Log, LogReader},
    record::record_drift,
    registry::Server,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

use self::{events::Quotas, places::Places, snapshot::Built};

/// Serves the guards of all servers.
pub struct Guards {
    desk: Arc<Desk>,
    log: Log,
    reader: LogReader,
    key: SigningKey,
    news: Arc<News>,
    built: Mutex<HashMap<String, Built>>,
    streams: Places,
    bodies: Places,
    seen: OnceSet,
    quotas: Quotas,
    closing: watch::Sender<bool>,
}

impl Guards {
    /// For this desk and its log, with the key that signs snapshots. Each server's guards may report so many events a
    /// second.
    pub fn new(desk: Arc<Desk>, log: Log, key: SigningKey, news: Arc<News>, events_per_second: u32) -> Self {
        Self {
            desk,
            reader: log.reader(),
            log,
            key,
            news,
            built: Mutex::default(),
            streams: Places::new(feed::MAX_STREAMS_OF_A_SERVER),
            bodies: Places::new(MAX_BODIES_OF_A_SERVER),
            seen: OnceSet::new(EVENT_MEMORY, MAX_REMEMBERED_EVENTS),
            quotas: Quotas::new(events_per_second),
            closing: watch::Sender::new(false),
        }
    }

    /// The desk.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The public half of the key that signs snapshots.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The registered server that this client is. Guards speak, and hear, of their own server alone.
    ///
    /// # Errors
    /// [`IssueError::Target`]: it is no server, or the registry does not say so.
    pub fn server_of(&self, client: &Client) -> Result<Arc<Server>, IssueError> {
        let rules = self.desk.rules.load();
        let server = client.server.as_deref().and_then(|resource| rules.registry.server(resource));
        let is_named = |server: &&Arc<Server>| {
            let record = &server.record;
            record.tenant == client.tenant && record.client_id.as_ref().is_none_or(|id| *id == client.id)
        };
        server.filter(is_named).cloned().ok_or(IssueError::Target("client_is_no_server"))
    }

    /// Room for one body of what a guard of this server reports; `None` if the server has taken up its share.
    pub fn body_place(&self, server: &Server) -> Option<Place> {
        self.bodies.enter(server)
    }

    /// The signed snapshot of a server. While a revocation is being taken back it waits.
    ///
    /// # Errors
    /// [`IssueError::Internal`]: it cannot be signed.
    pub async fn snapshot(&self, server: &Server) -> Result<Signed, IssueError> {
        // INVARIANT: no two snapshots of one version say that something is revoked and that it is not: a lift is on
        // record, which makes the next version, and in force before one is built.
        let _settled = self.news.settled().await;
        let generation = self.news.generation();
        let uptime = self.desk.clock.uptime();
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let resource = &server.record.resource;
        let current = |built: &&Built| built.generation == generation && uptime < built.signed.renewed_at;
        if let Some(held) = built.get(resource).filter(current) {
            return Ok(held.signed.clone());
        }
        let fresh = self.build(server, generation)?;
        let answer = fresh.signed.clone();
        built.insert(resource.clone(), fresh);
        Ok(answer)
    }

    /// The rules were swapped: everyone who listens is told what holds now. What had drifted from a definition that is
    /// no longer the approved one is free again.
    pub async fn rules_changed(&self) {
        let rules = self.desk.rules.load_full();
        for drifted in self.desk.drifts.all() {
            let server = rules.registry.server(&drifted.server);
            let stands =
                |server: &Arc<Server>| server.approves(drifted.action, &drifted.tool, drifted.approved);
            if !server.is_some_and(stands) && !self.lift_outdated(drifted).await {
                // It stands for a definition that nobody can ask for: only its place in the store is left over.
                tracing::warn!("a drift from an earlier definition is still stored");
            }
        }
        self.built.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.news.changed();
    }

    /// On record first, from which the next start takes what stands. Whether that, and all else, could be done.
    async fn lift_outdated(&self, drifted: Drifted) -> bool {
        let by = ("lifted", "reload");
        record_drift(&self.desk, &drifted, by, None).await.is_ok()
            && self.desk.drifts.lift(drifted).await.is_ok()
    }

    /// Takes back from the log that these reports were recorded.
    pub fn restore_events(&self, reported: impl IntoIterator<Item = (String, uuid::Uuid)>) {
        for (server, id) in reported {
            // Where there is no room, a report that comes again is recorded again.
            self.seen.take(events::tag(&server, id), self.desk.clock.uptime());
        }
    }

    /// Ends all streams: the broker stops.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl std::fmt::Debug for Guards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guards").field("key", &self.key).finish_non_exhaustive()
    }
}

const MAX_BODIES_OF_A_SERVER: usize = 8;
/// How long the id of a report is remembered: reports are repeated when an answer was lost, within seconds.
const EVENT_MEMORY: Duration = Duration::from_secs(900);
const MAX_REMEMBERED_EVENTS: usize = 500_000;
