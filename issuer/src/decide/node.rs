//! May this be a node, and have its SVID? It proved what it is; nobody banned it; its ID is a node's.

use uuid::Uuid;

use super::{
    Decide, Decision, Grant, Leaf,
    svid::{check_names, open_door, until},
};
use crate::{
    desk::Desk,
    error::IssueError,
    node::{Admitted, NodeRegistry},
    svid::RequestedKey,
};

/// A node's SVID that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeSvidApplication<'a> {
    /// Id of the decision, made at the door.
    pub(crate) decision_id: Uuid,
    /// Who proved what.
    pub(crate) admitted: &'a Admitted,
    /// The key that it has.
    pub(crate) requested: &'a RequestedKey,
    /// Who may be no node.
    pub(crate) registry: &'a NodeRegistry,
}

/// What was granted: the SVID of a node. For the record and the mint alone.
#[derive(Debug)]
pub struct NodeSvidTerms {
    pub(crate) decision_id: Uuid,
    pub(crate) leaf: Leaf,
    /// By what it proved itself.
    pub(crate) attested: &'static str,
    pub(crate) evidence: Vec<String>,
}

impl Decide for NodeSvidApplication<'_> {
    type Terms = NodeSvidTerms;

    fn decide(&self, desk: &Desk) -> Result<Decision<NodeSvidTerms>, IssueError> {
        let door = open_door(desk)?;
        let (id, now) = (&self.admitted.id, desk.clock.now_seconds());
        self.registry.may_be(id, &self.admitted.attestation)?;
        desk.limits.admit_svid(&format!("node {id}"), desk.clock.uptime())?;
        check_names(self.requested, id)?;
        let authority = std::sync::Arc::clone(&door.authorities.ring().active);
        let end = now.saturating_add(self.registry.settings().svid_ttl_seconds);
        // No longer than what it proved itself by.
        let end = end.min(self.admitted.attestation.ends().unwrap_or(u64::MAX));
        let end = until(now, end.min(authority.certificate().not_after_seconds()))?;
        let renewed = self.admitted.is_renewal.then_some(RENEWAL);
        Ok(Decision::Grant(Grant {
            terms: NodeSvidTerms {
                decision_id: self.decision_id,
                leaf: Leaf::new(id.clone(), (now, end), authority, Some(self.requested))?,
                attested: renewed.unwrap_or_else(|| self.admitted.attestation.kind()),
                evidence: self.admitted.attestation.evidence(),
            },
        }))
    }
}

/// By the SVID that it had.
const RENEWAL: &str = "renewal";
