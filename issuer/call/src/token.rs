//! Verification of a tool-call token: signature, `typ`, `iss`, `aud`, times, and the shape of every claim.

use crate::{claims::ToolCallClaims, jws::JwsError, keys::KeySet};

/// What a token must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// The broker.
    pub issuer: &'e str,
    /// The server that looks; `None` where the broker looks at a token made for anyone.
    pub audience: Option<&'e str>,
    /// Now, in seconds since the epoch.
    pub now_seconds: u64,
    /// Grace on `exp`, `nbf`, `iat`.
    pub leeway_seconds: u64,
}

/// A tool-call token whose signature and claims hold. Binding, call and revocation are checked by who holds the call.
#[derive(Debug, Clone)]
pub struct VerifiedToken {
    claims: ToolCallClaims,
}

/// Verifies a tool-call token.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<VerifiedToken, JwsError> {
    let _ = (token, keys, expected);
    todo!()
}

impl VerifiedToken {
    /// The claims.
    pub fn claims(&self) -> &ToolCallClaims {
        &self.claims
    }
    /// The claims, owned.
    pub fn into_claims(self) -> ToolCallClaims {
        self.claims
    }
}
