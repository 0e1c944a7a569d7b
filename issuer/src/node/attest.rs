//! A node becomes one, and goes on being one: each time it gets an SVID of its own.

use deputize_call::digest::sha256;
use spiffe::SpiffeId;
use uuid::Uuid;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{Attestation, AttestedNode, NodeRegistry};
use crate::{
    authority::hex, certificate::PresentedCertificate, decide::NodeSvidApplication, desk::Desk,
    error::IssueError, issue::issue, record::record_node_denial, svid::RequestedKey,
};

/// What a node brings that is none yet, or none any more.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// A join token.
    JoinToken(&'a str),
    /// The certificate of its machine: TLS proved that it has the key.
    Certificate(&'a PresentedCertificate),
    /// The service account token of its agent's pod.
    ServiceAccountToken {
        /// The cluster; may be left out where there is one alone.
        cluster: Option<&'a str>,
        /// The token.
        token: &'a str,
    },
}

/// A node wants to be one.
#[derive(Debug, Clone, Copy)]
pub struct AttestAsk<'a> {
    /// What it brings.
    pub proof: Proof<'a>,
    /// Certificate signing request (RFC 2986, DER) for the key of its SVID.
    pub csr: &'a [u8],
}

/// The SVID of a node.
#[derive(Debug)]
pub struct NodeSvid {
    /// The node.
    pub id: SpiffeId,
    /// DER certificates, leaf first, without the trust anchor.
    pub chain: Vec<Vec<u8>>,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// Until when it is valid, in Unix seconds.
    pub not_after_seconds: u64,
    /// The authorities that its chain leads to, as [`X509Svid::authorities`](crate::svid::X509Svid::authorities).
    pub authorities: Vec<[u8; 32]>,
}

/// Who is to get a node's SVID, and by what. Made by this file alone.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) id: SpiffeId,
    /// How it attested itself, now or at first.
    pub(crate) attestation: Attestation,
    /// By its former SVID.
    pub(crate) is_renewal: bool,
}

/// Makes a node of whoever proves to be one. Every answer, yes or no, is on record when this returns, or counted.
///
/// # Errors
/// [`IssueError::ClientAuthentication`] where the proof is none; [`IssueError::NotEntitled`] where the node is banned;
/// [`IssueError::Request`] where the CSR cannot be used; and where nothing can be issued now, why.
pub async fn attest(
    desk: &Desk,
    registry: &NodeRegistry,
    (decision_id, ask): (Uuid, &AttestAsk<'_>),
) -> Result<NodeSvid, IssueError> {
    let counted = |error: IssueError| {
        desk.refusals.count(error.reason());
        error
    };
    // Before anything is used up.
    let requested = RequestedKey::read(ask.csr).map_err(counted)?;
    let (id, attestation) = prove(desk, registry, &ask.proof).await.map_err(counted)?;
    let admitted = Admitted { id, attestation, is_renewal: false };
    let made = make(desk, registry, (decision_id, &admitted, &requested)).await;
    let kept = match made {
        Ok(svid) => registry.admit(&admitted, &svid, desk.clock.now_seconds()).await.map(|()| svid),
        Err(error) => Err(error),
    };
    kept.inspect_err(|error| record_node_denial(desk, decision_id, &admitted.id, error))
}

/// Gives a node its next SVID.
///
/// # Errors
/// As [`attest`].
pub async fn renew(
    desk: &Desk,
    registry: &NodeRegistry,
    (decision_id, node, csr): (Uuid, &AttestedNode, &[u8]),
) -> Result<NodeSvid, IssueError> {
    let renewed = async {
        let attestation = registry.attestation_of(node)?;
        registry.takes(&attestation, desk.clock.now_seconds())?;
        let admitted = Admitted { id: node.id().clone(), attestation, is_renewal: true };
        let requested = RequestedKey::read(csr)?;
        let svid = make(desk, registry, (decision_id, &admitted, &requested)).await?;
        registry.renewed(node, &svid).await.map(|()| svid)
    };
    renewed.await.inspect_err(|error| record_node_denial(desk, decision_id, node.id(), error))
}

async fn make(
    desk: &Desk,
    registry: &NodeRegistry,
    (decision_id, admitted, requested): (Uuid, &Admitted, &RequestedKey),
) -> Result<NodeSvid, IssueError> {
    issue(desk, &NodeSvidApplication { decision_id, admitted, requested, registry }).await
}

async fn prove(
    desk: &Desk,
    registry: &NodeRegistry,
    proof: &Proof<'_>,
) -> Result<(SpiffeId, Attestation), IssueError> {
    let now = desk.clock.now_seconds();
    match proof {
        Proof::JoinToken(text) => registry.use_token(text, now).await,
        Proof::Certificate(certificate) => {
            let authority = registry.vouchers().machines.as_ref();
            let authority = authority.ok_or(IssueError::ClientAuthentication("x509pop_not_configured"))?;
            let until = authority.vouches_for(certificate, now);
            let until = until.ok_or(IssueError::ClientAuthentication("machine_certificate_refused"))?;
            let fingerprint = hex(&sha256(certificate.leaf()));
            let id = registry.id(&["x509pop", &fingerprint])?;
            // Another certificate of a banned machine is still that machine's.
            let (_, read) = X509Certificate::from_der(certificate.leaf())
                .map_err(|_| IssueError::ClientAuthentication("machine_certificate_refused"))?;
            let public_key = Some(hex(&sha256(read.public_key().raw)));
            Ok((id, Attestation::X509pop { fingerprint, certificate_ends: until, public_key }))
        }
        Proof::ServiceAccountToken { cluster, token } => {
            let attestation = registry.vouchers().cluster(*cluster)?.node_of(token).await?;
            let Attestation::Kubernetes { cluster, node_name, node_uid, .. } = &attestation else {
                return Err(IssueError::Internal("not_of_kubernetes"));
            };
            // The name tells people which one it is; the UID, nodes of one name that follow each other.
            let id = registry.id(&["kubernetes", cluster, node_name, node_uid])?;
            Ok((id, attestation))
        }
    }
}

impl super::Vouchers {
    pub(super) fn cluster(&self, name: Option<&str>) -> Result<&super::Cluster, IssueError> {
        let found = match (name, self.clusters.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), clusters) => clusters.iter().find(|cluster| cluster.name == name),
        };
        found.ok_or(IssueError::ClientAuthentication("cluster_not_configured"))
    }
}
