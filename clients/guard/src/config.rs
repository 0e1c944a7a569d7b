//! What a guard is told once, by its operator.

use crate::caller::CallerSvids;
use std::time::Duration;

/// Settings of a guard. Lengths of time that are compared with clocks of others are in seconds; those that are
/// measured here are monotonic.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The broker: `iss` of every token.
    pub issuer: String,
    /// This server's resource URI: `aud` of every token.
    pub resource: String,
    /// Public URL of the MCP endpoint: `htu` of every proof, whatever `Host` says (RFC 9449 §4.3, check 9).
    pub public_url: String,
    /// URL of the protected resource metadata (RFC 9728 §5.1), named in every challenge.
    pub resource_metadata: String,
    /// Identity providers whose access tokens for this server are taken as they are, from clients that know nothing of
    /// us (RFC 6750): named in the metadata, and exchanged by a [`proxy`](crate::proxy). None by default.
    pub accept_issuers: Vec<String>,
    /// Scopes that such clients ask those providers for, and without which their tokens are not taken.
    pub accept_scopes: Vec<String>,
    /// Whether what TLS clients show is looked at as X.509-SVIDs, and whose are demanded. Not by default: certificates
    /// then serve for tokens that are bound to them, and nothing else.
    pub caller_svids: Option<CallerSvids>,
    /// Names this process in its nonces.
    pub name: String,
    /// Grace on the times of tokens, in seconds.
    pub leeway_seconds: u64,
    /// How far a proof's `iat` may be from now, in seconds.
    pub proof_window_seconds: u64,
    /// How long a nonce is good for.
    pub nonce_lifetime: Duration,
    /// How many proofs are remembered in each of two generations; when full, calls are refused with 503.
    pub proof_capacity: usize,
    /// How many L1 and L2 tokens with a limit of uses are counted at once; when full, calls are refused with 503.
    pub counted_tokens: usize,
    /// The longest request body, in bytes.
    pub max_body_bytes: usize,
    /// How old the last word about revocations may be before calls stop.
    pub max_revocation_age: Duration,
}

impl GuardConfig {
    /// Settings with the defaults, for the server `resource` whose MCP endpoint is at `public_url`.
    pub fn new(issuer: &str, resource: &str, public_url: &str, resource_metadata: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            resource: resource.to_owned(),
            public_url: public_url.to_owned(),
            resource_metadata: resource_metadata.to_owned(),
            accept_issuers: Vec::new(),
            accept_scopes: Vec::new(),
            caller_svids: None,
            name: "guard".to_owned(),
            leeway_seconds: 5,
            proof_window_seconds: 60,
            nonce_lifetime: Duration::from_secs(120),
            proof_capacity: 200_000,
            counted_tokens: 50_000,
            max_body_bytes: 1024 * 1024,
            max_revocation_age: Duration::from_secs(60),
        }
    }
}
