//! What a guard lets through. Private fields, no constructor outside of the guard: there is no other way to the server.

use deputize_call::{claims::ToolCallClaims, digest::Digest, json::Object, level::Level};

/// A request that passed every check.
#[derive(Debug)]
pub enum Verified {
    /// One call of one tool.
    Call(VerifiedCall),
    /// Discovery, listing, a notification.
    Listing(VerifiedListing),
}

/// A call that may run, once.
pub struct VerifiedCall {
    pub(crate) claims: ToolCallClaims,
    pub(crate) token: String,
    pub(crate) tool: String,
    pub(crate) arguments: Object,
    pub(crate) call_digest: Digest,
    pub(crate) body: Vec<u8>,
    pub(crate) next_nonce: String,
}

/// A request that only looks: its result is still to be filtered to approved tools.
pub struct VerifiedListing {
    pub(crate) claims: ToolCallClaims,
    pub(crate) method: String,
    pub(crate) body: Vec<u8>,
    pub(crate) next_nonce: String,
}

impl VerifiedCall {
    /// The token's claims: person, actors, transaction.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The binding level of the token.
    pub fn level(&self) -> Level {
        let [detail] = &self.claims.authorization_details;
        detail.level()
    }
    /// Name of the tool.
    pub fn tool(&self) -> &str {
        &self.tool
    }
    /// The arguments that were verified.
    pub fn arguments(&self) -> &Object {
        &self.arguments
    }
    /// Digest of this call, at every level.
    pub fn call_digest(&self) -> Digest {
        self.call_digest
    }
    /// The body to forward, serialized from what was verified.
    pub fn rebuilt_body(&self) -> &[u8] {
        &self.body
    }
    /// The header fields that go with it. None of the request's own `Mcp-*`, `Authorization` or `DPoP` may follow.
    /// The token is spent or bound, so it helps no thief; the server learns from it who calls and brings it back
    /// for its next hop.
    pub fn forwarded_headers(&self) -> [(&'static str, &str); 4] {
        [
            ("Content-Type", "application/json"),
            ("Mcp-Method", "tools/call"),
            ("Mcp-Name", &self.tool),
            ("Deputize-Call", &self.token),
        ]
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

impl VerifiedListing {
    /// The token's claims.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The JSON-RPC method.
    pub fn method(&self) -> &str {
        &self.method
    }
    /// The body to forward, serialized from what was read.
    pub fn rebuilt_body(&self) -> &[u8] {
        &self.body
    }
    /// The header fields that go with it.
    pub fn forwarded_headers(&self) -> [(&'static str, &str); 2] {
        [("Content-Type", "application/json"), ("Mcp-Method", &self.method)]
    }
    /// `DPoP-Nonce` of the answer (RFC 9449 §8.2).
    pub fn next_nonce(&self) -> &str {
        &self.next_nonce
    }
}

// Arguments and tokens stay out of logs.
impl std::fmt::Debug for VerifiedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedCall")
            .field("jti", &self.claims.jti)
            .field("tool", &self.tool)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VerifiedListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (jti, method) = (&self.claims.jti, &self.method);
        f.debug_struct("VerifiedListing").field("jti", jti).field("method", method).finish_non_exhaustive()
    }
}
