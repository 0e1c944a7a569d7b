//! The claims of a tool-call token (RFC 9068 `at+jwt`, with `act`, `cnf`, `authorization_details`).

use crate::{constraints::Constraints, digest::Digest, level::Level};
use serde::{Deserialize, Serialize};

/// `typ` of a tool-call token (RFC 9068 §2.1).
pub const TYP: &str = "at+jwt";
/// `type` of our one `authorization_details` entry (RFC 9396).
pub const DETAIL_TYPE: &str = "mcp_tool_call";

/// All claims of a tool-call token. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCallClaims {
    /// The broker.
    pub iss: String,
    /// The person in whose name the call runs; for a client's own L0 token, the client.
    pub sub: String,
    /// The tenant, which client, server and person share.
    pub tenant: String,
    /// The server's resource URI, alone.
    pub aud: String,
    /// The OAuth client that made the exchange.
    pub client_id: String,
    /// Issued at.
    pub iat: u64,
    /// Not before.
    pub nbf: u64,
    /// Expires.
    pub exp: u64,
    /// Unique id of the token.
    pub jti: String,
    /// Names the tool (`tool:NAME`), or `mcp:list` at L0.
    pub scope: String,
    /// The key that the bearer must prove.
    pub cnf: Confirmation,
    /// Who acts for `sub`. Absent only where a client acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// The transaction, constant through every hop.
    pub txn: String,
    /// `jti` of the token this one was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pjti: Option<String>,
    /// What was granted; exactly one entry.
    pub authorization_details: [GrantedDetail; 1],
    /// Its place in the audit log.
    pub log: LogPlace,
}

/// `cnf` (RFC 7800): `jkt` (RFC 9449 §6.1) or `x5t#S256` (RFC 8705 §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Confirmation {
    /// SHA-256 JWK thumbprint of the DPoP key.
    #[serde(rename = "jkt")]
    Jkt(String),
    /// SHA-256 of the client certificate.
    #[serde(rename = "x5t#S256")]
    X5tS256(String),
}

/// `act` (RFC 8693 §4.1): who acts now; its predecessors nest inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// The acting party: a client's configured actor (often a SPIFFE ID) or its `client_id`.
    pub sub: String,
    /// Who acted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// The one `authorization_details` entry, as granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedDetail {
    /// Always [`DETAIL_TYPE`].
    #[serde(rename = "type")]
    pub detail_type: String,
    /// The server's resource URI, alone.
    pub locations: [String; 1],
    /// JSON-RPC methods: one at L1 and above, the listing methods at L0.
    pub actions: Vec<String>,
    /// Tool, prompt or resource; absent at L0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// The approved definition of the tool; absent at L0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_digest: Option<Digest>,
    /// The approved manifest of the server.
    pub manifest_digest: Digest,
    /// L3: the one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_digest: Option<Digest>,
    /// L2: what each argument may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// How many calls; 1 at L3, absent at L0 and L1 where none is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// What allowed it.
    pub policy: PolicyRef,
}

/// The policy set and the policies in it that allowed a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// Digest of the whole policy set.
    pub digest: String,
    /// Ids of the determining policies.
    pub ids: Vec<String>,
}

/// Where the intent record of a token stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPlace {
    /// The replica that made the token: the origin of its log.
    pub origin: String,
    /// The record's index in that log.
    pub index: u64,
}

impl GrantedDetail {
    /// The binding level that this entry expresses.
    pub fn level(&self) -> Level {
        match (&self.identifier, &self.call_digest, &self.constraints) {
            (_, Some(_), _) => Level::L3,
            (_, None, Some(_)) => Level::L2,
            (Some(_), None, None) => Level::L1,
            (None, None, None) => Level::L0,
        }
    }
}

impl Actor {
    /// The actors from the one that acts now back to the first.
    pub fn chain(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self), |actor| actor.act.as_deref()).map(|actor| actor.sub.as_str())
    }
}
