//! Who acts, whether a configuration names it or a registration entry: one place to ask.

use std::sync::Arc;

use super::{Client, Clients};
use crate::{
    desk::{Desk, Rules},
    entry::Entries,
};

/// The configured clients, and the processes whose entries let them exchange users' tokens, as of one moment.
pub(crate) struct Known<'r> {
    clients: &'r Clients,
    entries: Option<Arc<Entries>>,
    now_seconds: u64,
}

impl Desk {
    /// Everybody who acts under these rules now.
    pub(crate) fn known<'r>(&self, rules: &'r Rules) -> Known<'r> {
        Known {
            clients: &rules.clients,
            entries: self.spiffe.as_ref().map(|door| door.entries.now()),
            now_seconds: self.clock.now_seconds(),
        }
    }
}

impl Known<'_> {
    /// The enabled client of this id; of an entry the id is its SPIFFE ID.
    pub(crate) fn enabled(&self, id: &str) -> Option<Arc<Client>> {
        self.clients.enabled(id).or_else(|| self.of_entries(id))
    }

    /// The client that acts under this name, enabled or not.
    pub(crate) fn acting_as(&self, actor: &str) -> Option<Arc<Client>> {
        self.clients.acting_as(actor).cloned().or_else(|| self.of_entries(actor))
    }

    fn of_entries(&self, spiffe_id: &str) -> Option<Arc<Client>> {
        self.entries.as_ref()?.exchanging_as(spiffe_id, self.now_seconds).cloned()
    }
}
