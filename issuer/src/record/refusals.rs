//! Refusals that have no record of their own: counted, and written at most once a second by reason; those of processes
//! once a minute, for any process may ask, and for as long as it likes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Entry, Kind};
use crate::{desk::Desk, log::Class};

/// Counts of refusals since they were last written.
#[derive(Debug, Default)]
pub struct Refusals {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    counts: BTreeMap<RefusedAt, u64>,
    /// When those of nodes were written last, in uptime.
    nodes_written_at: Option<Duration>,
}

/// Under what a refusal is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedAt {
    /// Before the client was authenticated.
    Door(&'static str),
    /// Of an authenticated client beyond its quota of records: tenant, client, reason.
    Client(String, String, &'static str),
    /// Of attested processes beyond the quota of records of their node: node, reason.
    Node(String, &'static str),
}

impl Refusals {
    /// Counts a refusal before authentication.
    pub fn count(&self, reason: &'static str) {
        self.add(RefusedAt::Door(reason));
    }

    /// Counts a refusal of an authenticated client.
    pub fn aggregate(&self, tenant: &str, client_id: &str, reason: &'static str) {
        self.add(RefusedAt::Client(tenant.to_owned(), client_id.to_owned(), reason));
    }

    /// Counts a refusal of a process on a node.
    pub fn aggregate_on_node(&self, node: &str, reason: &'static str) {
        self.add(RefusedAt::Node(node.to_owned(), reason));
    }

    fn add(&self, at: RefusedAt) {
        metrics::counter!("deputize_refusals_total", "reason" => at.reason()).increment(1);
        // Reasons are constant words, clients are configured and nodes are our own: the map is bounded by them.
        *self.lock().counts.entry(at).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was counted since the last time: one entry for each reason (and client, or node). Called once a
    /// second; those of nodes wait until a minute is over.
    pub fn write(&self, desk: &Desk) {
        let counts = self.lock().take(desk.clock.uptime());
        write(desk, counts);
    }

    /// Writes all that was counted: at the end.
    pub fn write_all(&self, desk: &Desk) {
        let counts = std::mem::take(&mut self.lock().counts);
        write(desk, counts);
    }
}

impl Counted {
    fn take(&mut self, uptime: Duration) -> BTreeMap<RefusedAt, u64> {
        let mut counts = std::mem::take(&mut self.counts);
        let is_early = self.nodes_written_at.is_some_and(|last| uptime.saturating_sub(last) < NODES_INTERVAL);
        let is_of_node = |at: &RefusedAt| matches!(at, RefusedAt::Node(..));
        if is_early {
            self.counts = counts.extract_if(.., |at, _| is_of_node(at)).collect();
        } else if counts.keys().any(is_of_node) {
            self.nodes_written_at = Some(uptime);
        }
        counts
    }
}

fn write(desk: &Desk, counts: BTreeMap<RefusedAt, u64>) {
    for (at, count) in counts {
        let mut entry = Entry::new(
            match at {
                RefusedAt::Door(_) => Kind::Refusals,
                RefusedAt::Client(..) | RefusedAt::Node(..) => Kind::Denials,
            },
            desk.clock.now_ms(),
        );
        entry.reason = Some(at.reason().to_owned());
        entry.count = Some(count);
        match at {
            RefusedAt::Door(_) => {}
            RefusedAt::Client(tenant, client, _) => {
                (entry.tenant, entry.client) = (Some(tenant), Some(client));
            }
            RefusedAt::Node(node, _) => entry.client = Some(node),
        }
        let written = entry.to_bytes().and_then(|bytes| desk.audit.append_later(Class::Denial, bytes));
        if written.is_err() {
            metrics::counter!("deputize_refusals_unrecorded_total").increment(count);
        }
    }
}

impl RefusedAt {
    fn reason(&self) -> &'static str {
        match self {
            Self::Door(reason) | Self::Client(_, _, reason) | Self::Node(_, reason) => reason,
        }
    }
}

const NODES_INTERVAL: Duration = Duration::from_secs(60);
