//! Stage *authenticate* of a node: its SVID, whose key TLS proved, is one that it goes on with.

use spiffe::SpiffeId;
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

use super::{NodeRegistry, SeenBy, leaf::NodeLeaf, told::is_node};
use crate::{
    certificate::PresentedCertificate,
    desk::Desk,
    error::IssueError,
    record::record_node_denial,
    svid::Bundles,
    workload::{Selector, Workload},
};

/// A node that proved itself by its SVID.
///
/// INVARIANT: only [`authenticate`] and [`authenticate_to_renew`] make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedNode {
    id: SpiffeId,
    leaf: NodeLeaf,
    /// The attestation that its SVID rests on.
    first: Option<String>,
}

impl AttestedNode {
    /// The node.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of the SVID that it proved itself by, in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    pub(super) fn leaf(&self) -> &NodeLeaf {
        &self.leaf
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// A process, as its agent saw it: of this node, whatever else is said, and for as long as it is one.
    pub fn saw(
        &self,
        registry: &Arc<NodeRegistry>,
        selectors: BTreeSet<Selector>,
        is_contained: bool,
    ) -> Workload {
        let workload = Workload::attested(self.id.clone(), selectors).seen_by(SeenBy::new(registry, self));
        if is_contained { workload.contained() } else { workload }
    }
}

/// Finds the node whose SVID this is.
///
/// # Errors
/// [`IssueError::ClientAuthentication`] where it is none, or none any more, or what signed its SVID is tainted: it has to renew,
/// or to attest itself anew;
/// [`IssueError::NotEntitled`] where it is banned; [`IssueError::Uncertain`] while the clocks disagree.
/// What is shown of one that was a node is on record.
pub fn authenticate(
    desk: &Desk,
    registry: &NodeRegistry,
    proof: (Uuid, Option<&PresentedCertificate>),
) -> Result<AttestedNode, IssueError> {
    authenticate_by(desk, registry, proof, |standing| match standing {
        Signer::Trusted => Ok(()),
        Signer::Tainted => Err(TAINTED),
        Signer::Withdrawn => Err(WITHDRAWN),
    })
}

/// Finds the node whose SVID this is, where it is asked for a next one, and for the state that says that it is time for that: for
/// a while a tainted authority's will do.
///
/// # Errors
/// As [`authenticate`].
pub fn authenticate_to_renew(
    desk: &Desk,
    registry: &NodeRegistry,
    proof: (Uuid, Option<&PresentedCertificate>),
) -> Result<AttestedNode, IssueError> {
    authenticate_by(desk, registry, proof, Signer::is_not_withdrawn)
}

fn authenticate_by(
    desk: &Desk,
    registry: &NodeRegistry,
    (decision_id, certificate): (Uuid, Option<&PresentedCertificate>),
    check: fn(Signer) -> Result<(), &'static str>,
) -> Result<AttestedNode, IssueError> {
    let refuse = |reason| {
        desk.refusals.count(reason);
        Err(IssueError::ClientAuthentication(reason))
    };
    let Some(certificate) = certificate else { return refuse("node_certificate_missing") };
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        // Set forward, the wall clock would end what is good; set back, it would revive what is over.
        desk.refusals.count("clocks_disagree");
        return Err(IssueError::Uncertain("clocks_disagree"));
    }
    let Some(Shown { id, signer }) = whose(desk, certificate)? else { return refuse("node_svid_refused") };
    if !is_node(&id) {
        return refuse("svid_of_no_node");
    }
    let Some(leaf) = NodeLeaf::read(certificate.leaf()) else { return refuse("node_svid_refused") };
    // It has a key that was a node's, or that of an authority: that it is one no more is worth a record.
    let found = check(signer).map_err(IssueError::ClientAuthentication);
    let found = found.and_then(|()| registry.recognize(&id, &leaf, signer == Signer::Trusted));
    let first = found.inspect_err(|error| record_node_denial(desk, decision_id, &id, error))?;
    let node = AttestedNode { id, leaf, first };
    registry.proved_by(&node);
    Ok(node)
}

/// Whether a node still is one, by the SVID that it proved itself by: its time is not over, an authority of ours is
/// behind it, and nothing newer ended it. For what goes on for long.
///
/// # Errors
/// As [`authenticate`].
pub fn still_stands(
    desk: &Desk,
    registry: &NodeRegistry,
    (node, certificate): (&AttestedNode, &PresentedCertificate),
) -> Result<(), IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let shown = whose(desk, certificate)?.filter(|shown| shown.id == node.id);
    shown.ok_or(refuse("node_svid_refused"))?.signer.is_not_withdrawn().map_err(refuse)?;
    registry.stands(node)
}

/// Whose SVID was shown.
struct Shown {
    id: SpiffeId,
    signer: Signer,
}

/// What became of what signed an SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signer {
    Trusted,
    /// Tainted a moment ago: its nodes have time for another.
    Tainted,
    /// Tainted for so long that they had it.
    Withdrawn,
}

impl Signer {
    fn is_not_withdrawn(self) -> Result<(), &'static str> {
        if self == Self::Withdrawn { Err(WITHDRAWN) } else { Ok(()) }
    }
}

/// By our authorities alone: what another trust domain calls a node is none here.
fn whose(desk: &Desk, certificate: &PresentedCertificate) -> Result<Option<Shown>, IssueError> {
    let door = desk.spiffe.as_ref().ok_or(IssueError::Internal("no_door_to_spiffe"))?;
    let ring = door.authorities.ring();
    let ours = Bundles { own: Arc::clone(&ring.bundle), federated: Vec::new() };
    let now = desk.clock.now_seconds();
    let svid = certificate.svid(&ours, now).ok();
    // Under a root that is trusted still, what signed it may be gone all the same.
    let svid = svid.filter(|svid| ring.knows(&svid.authorities));
    // While the broker was not there, nobody could renew.
    let started = desk.settings.started_at_seconds;
    let had_time = |since: u64| since.max(started).saturating_add(GRACE_SECONDS) <= now;
    Ok(svid.map(|svid| Shown {
        signer: match ring.tainted_since(&svid.authorities) {
            None => Signer::Trusted,
            Some(since) if had_time(since) => Signer::Withdrawn,
            Some(_) => Signer::Tainted,
        },
        id: svid.spiffe_id,
    }))
}

const TAINTED: &str = "node_svid_tainted";
const WITHDRAWN: &str = "node_svid_withdrawn";
/// Agents hear at once of what is tainted, and renew at once; one that is away for a moment still can.
const GRACE_SECONDS: u64 = 300;
