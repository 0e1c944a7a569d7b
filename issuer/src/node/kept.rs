//! What is kept of nodes, for the next start too.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::JoinTokenDigest;

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its SPIFFE ID.
    pub id: String,
    /// How and when it attested itself; none where it has not, or was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<Attested>,
    /// When it was banned, in Unix seconds, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banned_at: Option<u64>,
}

/// A node's proof of what it is, and the SVIDs that it got by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// How.
    #[serde(flatten)]
    pub attestation: Attestation,
    /// When, in Unix seconds.
    pub at: u64,
    /// Serial number of its newest SVID, in hexadecimal.
    pub serial: String,
    /// SHA-256 of the public key of its newest SVID (`SubjectPublicKeyInfo`, DER), in hexadecimal. None where an older broker
    /// kept it: then whoever proves himself by that serial number first has the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Serial number of the SVID by which it renewed: it may not know the newest yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// That of the key of that SVID, as `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key: Option<String>,
    /// Serial number of the SVID that it got when it attested itself: it tells this attestation from every other. None where an
    /// older broker kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// When its newest SVID ends, in Unix seconds.
    pub not_after: u64,
}

/// How a node proved what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "attestation", rename_all = "snake_case")]
pub enum Attestation {
    /// By a secret that an administrator made for it.
    JoinToken {
        /// What the token is called on record.
        token: String,
    },
    /// By a certificate of its machine.
    X509pop {
        /// SHA-256 of the certificate (DER), in hexadecimal.
        fingerprint: String,
        /// When the certificate ends, in Unix seconds.
        certificate_ends: u64,
        /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER), in hexadecimal; none of nodes that were kept without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public_key: Option<String>,
    },
    /// By the service account token of its agent's pod.
    Kubernetes {
        /// The cluster, as it is configured.
        cluster: String,
        /// `namespace/name`.
        service_account: String,
        /// Name of the node.
        node_name: String,
        /// UID of the node.
        node_uid: String,
    },
}

impl Attestation {
    /// Its word in records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken { .. } => "join_token",
            Self::X509pop { .. } => "x509pop",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }

    /// Until when it proves anything, in Unix seconds, where that ends.
    pub fn ends(&self) -> Option<u64> {
        match self {
            Self::X509pop { certificate_ends, .. } => Some(*certificate_ends),
            Self::JoinToken { .. } | Self::Kubernetes { .. } => None,
        }
    }

    /// What proved it, as records say it.
    pub fn evidence(&self) -> Vec<String> {
        match self {
            Self::JoinToken { token } => vec![format!("join_token:{token}")],
            Self::X509pop { fingerprint, .. } => vec![format!("x509pop:{fingerprint}")],
            Self::Kubernetes { cluster, service_account, node_name, node_uid } => vec![
                format!("kubernetes:cluster:{cluster}"),
                format!("kubernetes:sa:{service_account}"),
                format!("kubernetes:node_name:{node_name}"),
                format!("kubernetes:node_uid:{node_uid}"),
            ],
        }
    }
}

/// A join token, as it is kept: for which node, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptToken {
    /// Its digest.
    pub digest: JoinTokenDigest,
    /// The node that it makes.
    pub node: String,
    /// When it ends, in Unix seconds.
    pub expires_at_seconds: u64,
}

/// What using a join token came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenUse {
    /// It was good for this node, and is good for nothing any more.
    Spent(String),
    /// Its time is over.
    Expired,
    /// There is no such token: it never was, or was used.
    Unknown,
}

/// Keeps nodes and join tokens.
#[async_trait]
pub trait NodeStore: Send + Sync + std::fmt::Debug {
    /// All nodes.
    ///
    /// # Errors
    /// [`NodesNotStored`]: it cannot be read.
    fn all(&self) -> Result<Vec<NodeRecord>, NodesNotStored>;
    /// Keeps one, durably, in place of what was known of it. A ban that is kept stays: one alone takes it away,
    /// [`Self::lift`], lest what was meant before the ban and came late does.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn put(&self, node: NodeRecord) -> Result<(), NodesNotStored>;
    /// Takes a ban away, durably, and forgets a node of which nothing else is known.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn lift(&self, id: &str) -> Result<(), NodesNotStored>;
    /// Forgets one, durably, unless it is banned.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn forget(&self, id: &str) -> Result<(), NodesNotStored>;
    /// Keeps a join token, and forgets those whose time is over. Whether there was room for it.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn keep_token(&self, token: KeptToken, now_seconds: u64) -> Result<bool, NodesNotStored>;
    /// Uses a join token up: of all who bring it, at once or later, one alone is told that it was good, and before that
    /// it is durable that it is no more. Anybody may ask: one that is none costs no write.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn use_token(&self, digest: JoinTokenDigest, now_seconds: u64) -> Result<TokenUse, NodesNotStored>;
    /// Forgets the join tokens of a node, durably.
    ///
    /// # Errors
    /// [`NodesNotStored`].
    async fn forget_tokens_of(&self, node: &str) -> Result<(), NodesNotStored>;
}

/// What is known of a node could not be read or made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of nodes fails")]
pub struct NodesNotStored;
