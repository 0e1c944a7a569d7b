//! What the file says of nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Other machines, whose agents (`deputize agent`) serve the Workload API there (docs/agent.md). The broker has to end
/// TLS itself (`listen.tls`): nodes prove themselves by their certificates.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpiffeNodes {
    /// Whether machines may become nodes by a join token (`deputize node token NAME`): shown once, good once.
    pub join_tokens: bool,
    /// Machines that become nodes by a certificate of theirs; the node is `x509pop/SHA-256 of the certificate`.
    pub x509pop: Option<SpiffeMachines>,
    /// Clusters of Kubernetes whose nodes become nodes here; each is `kubernetes/CLUSTER/NODE-NAME/NODE-UID`.
    pub kubernetes: Vec<SpiffeCluster>,
    /// Life of the SVIDs of nodes, in seconds; renewed at half of it.
    pub svid_ttl_seconds: u64,
}

/// Certificates of machines.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeMachines {
    /// PEM: the authorities that vouch for machines. Whoever has a certificate of theirs, for clients, becomes a node.
    pub authority_file: PathBuf,
}

/// A cluster of Kubernetes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeCluster {
    /// What it is called in the IDs of its nodes: small letters, digits and `-`.
    pub cluster: String,
    /// URL of its API: `https://kubernetes.default.svc` inside of it.
    pub api: String,
    /// PEM: the authority of that API's certificate.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// File with the token by which the broker asks for reviews; its account needs `create` on `tokenreviews`.
    pub token_file: PathBuf,
    /// Whom the tokens of agents are for: no audience of anything else.
    pub audience: String,
    /// Service accounts of agents: `namespace/name`.
    pub service_accounts: Vec<String>,
}

impl Default for SpiffeNodes {
    fn default() -> Self {
        Self { join_tokens: false, x509pop: None, kubernetes: Vec::new(), svid_ttl_seconds: 3600 }
    }
}
