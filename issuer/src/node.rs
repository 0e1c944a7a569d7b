//! Nodes: machines whose agents serve the Workload API to the processes there.
//!
//! A node proves once what it is ([`attest`]), and is given an SVID of its own through the waist; by that it proves itself
//! from then on ([`authenticate`]). What its agent says of processes makes workloads of that node, and of no other.

mod attest;
mod authenticate;
mod join_token;
mod kept;
mod kubernetes;
mod leaf;
mod registry;
mod seen_by;
mod told;

pub use attest::{AttestAsk, NodeSvid, Proof, attest, renew};
pub use authenticate::{AttestedNode, authenticate, authenticate_to_renew, still_stands};
pub use join_token::{JoinToken, JoinTokenDigest};
pub use kept::{Attestation, Attested, KeptToken, NodeRecord, NodeStore, NodesNotStored, TokenUse};
pub use kubernetes::{Cluster, ReviewFailed, Reviewed, TokenReview};
pub use registry::{NewToken, NodeRegistry, NodeSettings, NotDone, Vouchers};
pub use told::{NODE_ID_PREFIX, named_node, node_id};

pub(crate) use attest::Admitted;
pub(crate) use seen_by::SeenBy;

use crate::certificate::PresentedCertificate;

/// Whoever vouches for certificates of machines (`x509pop`).
pub trait MachineAuthority: Send + Sync {
    /// Whether this certificate, of the connection that is asked over, is one of theirs at this moment, for a client:
    /// then until when, in Unix seconds.
    fn vouches_for(&self, certificate: &PresentedCertificate, now_seconds: u64) -> Option<u64>;
}
