//! Stage *authenticate* of a node: its SVID, whose key TLS proved, is one that it goes on with.

use spiffe::SpiffeId;
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{NodeRegistry, SeenBy, told::is_node};
use crate::{
    authority::hex,
    certificate::PresentedCertificate,
    desk::Desk,
    error::IssueError,
    record::record_node_denial,
    svid::Bundles,
    workload::{Selector, Workload},
};

/// A node that proved itself by its SVID.
///
/// INVARIANT: only [`authenticate`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedNode {
    id: SpiffeId,
    serial: String,
}

impl AttestedNode {
    /// The node.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of the SVID that it proved itself by, in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
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
/// [`IssueError::ClientAuthentication`] where it is none, or none any more, or what signed its SVID was tainted a while ago: it
/// has to attest itself anew;
/// [`IssueError::NotEntitled`] where it is banned, which is on record.
pub fn authenticate(
    desk: &Desk,
    registry: &NodeRegistry,
    (decision_id, certificate): (Uuid, Option<&PresentedCertificate>),
) -> Result<AttestedNode, IssueError> {
    let refuse = |reason| {
        desk.refusals.count(reason);
        Err(IssueError::ClientAuthentication(reason))
    };
    let Some(certificate) = certificate else { return refuse("node_certificate_missing") };
    let Some(shown) = whose(desk, certificate)? else { return refuse("node_svid_refused") };
    if shown.is_withdrawn {
        return refuse(WITHDRAWN);
    }
    let id = shown.id;
    if !is_node(&id) {
        return refuse("svid_of_no_node");
    }
    let Some(serial) = serial_of(certificate.leaf()) else { return refuse("node_svid_refused") };
    let node = AttestedNode { id, serial };
    // It has a key that was a node's: that it is one no more is worth a record.
    registry.stands(&node).inspect_err(|error| record_node_denial(desk, decision_id, node.id(), error))?;
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
    match whose(desk, certificate)? {
        Some(shown) if shown.is_withdrawn => Err(IssueError::ClientAuthentication(WITHDRAWN)),
        Some(shown) if shown.id == node.id => registry.stands(node),
        Some(_) | None => Err(IssueError::ClientAuthentication("node_svid_refused")),
    }
}

/// Whose SVID was shown.
struct Shown {
    id: SpiffeId,
    /// Whether what signed it has been tainted for so long that its node had time for another.
    is_withdrawn: bool,
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
    Ok(svid.map(|svid| {
        let tainted_since = ring.tainted_since(&svid.authorities);
        let is_withdrawn = tainted_since.is_some_and(|since| since.saturating_add(GRACE_SECONDS) <= now);
        Shown { id: svid.spiffe_id, is_withdrawn }
    }))
}

fn serial_of(leaf: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    Some(hex(certificate.raw_serial()))
}

const WITHDRAWN: &str = "node_svid_withdrawn";
/// Agents hear at once of what is tainted, and renew at once; one that is away for a moment still can.
const GRACE_SECONDS: u64 = 300;
