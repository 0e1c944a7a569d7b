//! Verification of a tool-call token: signature, `typ`, `iss`, `aud`, times, and the shape of every claim.

use crate::{
    claims::{TYP, ToolCallClaims},
    jws::{self, EmbeddedKey, JwsError},
    keys::KeySet,
};
use serde_json::Value;

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
    let jws = jws::parse(token, EmbeddedKey::Refused)?;
    // RFC 9068 §4: `typ` first, so that no other kind of token of this issuer passes for one.
    if jws.header.typ.as_deref() != Some(TYP) {
        return Err(JwsError::Malformed("typ is not at+jwt"));
    }
    if jws::string_claim(&jws.claims, "iss", MAX_URI_BYTES)? != expected.issuer {
        return Err(JwsError::Claim("iss", "another issuer"));
    }
    // One audience, as a string: an array of one would be another spelling of the same token.
    let audience = jws::string_claim(&jws.claims, "aud", MAX_URI_BYTES)?;
    if expected.audience.is_some_and(|expected| audience != expected) {
        return Err(JwsError::Claim("aud", "another audience"));
    }
    jws::check_times(&jws.claims, expected.now_seconds, expected.leeway_seconds)?;
    keys.verify(&jws)?;
    let claims: ToolCallClaims = serde_json::from_value(Value::Object(jws.claims))
        .map_err(|_| JwsError::Malformed("claims of the wrong shape"))?;
    claims.check()?;
    Ok(VerifiedToken { claims })
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

const MAX_URI_BYTES: usize = 2048;
