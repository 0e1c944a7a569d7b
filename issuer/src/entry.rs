//! Registration entries: which processes are entitled to which SPIFFE ID, and what their SVIDs are like.

mod draft;
mod exchange;
mod explain;
mod live;
mod node_pattern;
mod set;
mod template;
#[cfg(test)]
mod tests;

pub use draft::{
    Bounds, Draft, JWT_SVID_TTL_SECONDS, NotAnEntry, X509_SVID_TTL_SECONDS, is_reserved, parse_spiffe_id,
};
pub use exchange::Exchange;
pub use explain::{Explained, Reason, Verdict};
pub use live::LiveEntries;
pub use node_pattern::NodePattern;
pub use set::{BadEntry, Entries, MAX_ENTRIES, MAX_IDENTITIES};

use spiffe::{SpiffeId, TrustDomain};
use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    client::{Addressees, Clients},
    workload::{Selector, Workload},
};
use template::IdTemplate;

/// One registration entry, checked; what a process is entitled to.
///
/// Of an entry with a template, each process sees one with its own ID filled in: what is kept for an entry is kept for
/// its `id` and `spiffe_id` together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: in files chosen by whoever wrote it, else a UUID.
    pub id: Box<str>,
    /// The SPIFFE ID that it entitles to.
    pub spiffe_id: SpiffeId,
    /// The nodes whose processes it is for.
    pub nodes: BTreeSet<NodePattern>,
    /// What must be true of a process, all of it. Never empty.
    pub selectors: BTreeSet<Selector>,
    /// How long its X.509-SVIDs live, in seconds; the trust domain's default where there is none.
    pub x509_svid_ttl_seconds: Option<u64>,
    /// How long its JWT-SVIDs live, in seconds.
    pub jwt_svid_ttl_seconds: Option<u64>,
    /// What tells several identities of one process apart (SPIFFE Workload API §5.2.1); empty for none.
    pub hint: String,
    /// DNS names in its X.509-SVIDs.
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles its processes get.
    pub federates_with: Vec<TrustDomain>,
    /// What its processes may exchange users' tokens for; nothing without it.
    pub exchange: Option<Exchange>,
    /// When it ends, in Unix seconds.
    pub expires_at_seconds: Option<u64>,
}

/// An entry as it stands in a set: with its template, and with where it comes from.
///
/// INVARIANT: where there is a template, `entry.spiffe_id` is the trust domain's own ID, which is no process's, and
/// `entry` does not leave this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    entry: Arc<Entry>,
    template: Option<IdTemplate>,
    origin: Origin,
}

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(Arc<str>),
    /// Administration, while the broker ran.
    Admin,
}

impl Entry {
    /// Whether a process is entitled to it at this moment.
    pub fn entitles(&self, workload: &Workload, now_seconds: u64) -> bool {
        !self.selectors.is_empty()
            && !self.has_ended(now_seconds)
            && self.is_for(workload.node())
            && self.selectors.is_subset(workload.selectors())
    }

    /// Whether it is for processes of this node.
    pub fn is_for(&self, node: &SpiffeId) -> bool {
        self.nodes.iter().any(|pattern| pattern.has(node))
    }

    /// Whether its time is over.
    pub fn has_ended(&self, now_seconds: u64) -> bool {
        self.expires_at_seconds.is_some_and(|end| now_seconds >= end)
    }
}

impl Registered {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its SPIFFE ID as it was written: with `{unix:user}` where there is a template.
    pub fn written_id(&self) -> String {
        self.template.as_ref().map_or_else(|| self.entry.spiffe_id.to_string(), ToString::to_string)
    }

    /// What a process is entitled to by it now.
    pub fn entitled(&self, workload: &Workload, now_seconds: u64) -> Option<Arc<Entry>> {
        if !self.entry.entitles(workload, now_seconds) {
            return None;
        }
        match &self.template {
            None => Some(Arc::clone(&self.entry)),
            Some(template) => {
                let spiffe_id = template.fill(workload).ok()?;
                Some(Arc::new(Entry { spiffe_id, ..Entry::clone(&self.entry) }))
            }
        }
    }

    /// Why it cannot be beside these clients, if it cannot.
    pub fn is_a_client(&self, clients: &Clients) -> Option<BadEntry> {
        self.entry.exchange.as_ref()?;
        let spiffe_id = self.entry.spiffe_id.to_string();
        let client = clients.named(&spiffe_id)?;
        let (origin, id, client) = (self.origin.clone(), self.id().to_owned(), client.id.clone());
        Some(BadEntry::IsAClient { origin, id, spiffe_id, client })
    }

    /// Why it cannot say of exchange what it says, where its processes would bring tokens that are no users' tokens to
    /// exchange.
    pub fn brings_anothers(&self, addressees: &Addressees<'_>) -> Option<BadEntry> {
        let addressed = addressees.among(&self.entry.exchange.as_ref()?.subject_audiences)?;
        Some(BadEntry::BringsAnothers { origin: self.origin.clone(), id: self.id().to_owned(), addressed })
    }

    /// Why administration cannot make it, if it cannot: who may exchange whose tokens is configuration, which others
    /// review.
    pub fn is_of_files_alone(&self) -> Option<BadEntry> {
        self.entry.exchange.as_ref()?;
        Some(BadEntry::OfFilesAlone { origin: self.origin.clone(), id: self.id().to_owned() })
    }

    /// The entry as it was drafted, for whoever lists it.
    pub fn to_draft(&self) -> Draft {
        Draft { spiffe_id: self.written_id(), ..Draft::of(&self.entry) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Admin => f.write_str("administration"),
        }
    }
}
