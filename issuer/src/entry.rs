//! Registration entries: which processes are entitled to which SPIFFE ID, and what their SVIDs are like.

use spiffe::{SpiffeId, TrustDomain};
use std::collections::BTreeSet;

use crate::workload::{Selector, Workload};

/// One registration entry, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: in files chosen by whoever wrote it, else a UUID.
    pub id: Box<str>,
    /// The SPIFFE ID that it entitles to.
    pub spiffe_id: SpiffeId,
    /// The nodes whose processes it is for.
    pub nodes: BTreeSet<SpiffeId>,
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
    /// When it ends, in Unix seconds.
    pub expires_at_seconds: Option<u64>,
}

impl Entry {
    /// Whether a process is entitled to it at this moment.
    pub fn entitles(&self, workload: &Workload, now_seconds: u64) -> bool {
        !self.selectors.is_empty()
            && self.expires_at_seconds.is_none_or(|end| now_seconds < end)
            && self.nodes.contains(workload.node())
            && self.selectors.is_subset(workload.selectors())
    }
}
