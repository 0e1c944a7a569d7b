//! May the broker have an SVID itself? It speaks for its trust domain: under its own ID, and under no other.

use spiffe::SpiffeId;
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

use super::{
    Decide, Decision, Grant, Leaf, X509SvidTerms,
    svid::{RESERVED, end, open_door},
};
use crate::{desk::Desk, entry::Entry, error::IssueError, svid::SpiffeDoor};

/// The broker's own X.509-SVID, for one of its listeners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnSvidApplication<'a> {
    /// Id of the decision.
    pub(crate) decision_id: Uuid,
    /// What it is for, as the record says it.
    pub(crate) purpose: &'a str,
}

impl Decide for OwnSvidApplication<'_> {
    type Terms = X509SvidTerms;

    fn decide(&self, desk: &Desk) -> Result<Decision<X509SvidTerms>, IssueError> {
        let door = open_door(desk)?;
        let (entry, now) = (own_entry(door)?, desk.clock.now_seconds());
        let authority = Arc::clone(&door.authorities.ring().active);
        let ttl = door.settings.x509_svid_ttl_seconds;
        let not_after_seconds = end(&entry, (now, ttl), authority.certificate().not_after_seconds())?;
        let terms = X509SvidTerms {
            decision_id: self.decision_id,
            node: door.entries.now().bounds().own_node.clone(),
            asked_by: vec![format!("{RESERVED}:{}", self.purpose)],
            seen_by: None,
            leaf: Leaf::new(entry.spiffe_id.clone(), (now, not_after_seconds), authority, None)?,
            entry,
        };
        Ok(Decision::Grant(Grant { terms }))
    }
}

/// What stands for a registration entry: nobody can make one of this name, or of this ID, and it entitles no process.
fn own_entry(door: &SpiffeDoor) -> Result<Arc<Entry>, IssueError> {
    let id = SpiffeId::from_segments(door.trust_domain.clone(), &[RESERVED, BROKER]);
    Ok(Arc::new(Entry {
        id: format!("{RESERVED}/{BROKER}").into(),
        spiffe_id: id.map_err(|_| IssueError::Internal("own_id"))?,
        nodes: BTreeSet::new(),
        selectors: BTreeSet::new(),
        x509_svid_ttl_seconds: None,
        jwt_svid_ttl_seconds: None,
        hint: String::new(),
        dns_names: Vec::new(),
        federates_with: Vec::new(),
        exchange: None,
        expires_at_seconds: None,
    }))
}

const BROKER: &str = "broker";
