//! The token, verified by an implementation that shares no code with ours.

use super::Trouble;
use josekit::{
    jwk::JwkSet,
    jws::ES256,
    jwt::{self, JwtPayload, JwtPayloadValidator},
};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Verifies signature, `typ`, issuer, audience and times with josekit, by the keys that the broker publishes.
pub(super) fn verify(
    token: &str,
    jwks: &Value,
    issuer: &str,
    audience: &str,
    now: Duration,
) -> Result<Value, Trouble> {
    let keys = JwkSet::from_bytes(jwks.to_string())?;
    let header = jwt::decode_header(token)?;
    let kid = header.claim("kid").and_then(Value::as_str).unwrap_or_default();
    let key =
        keys.get(kid).first().copied().ok_or_else(|| Trouble::new("no published key has the token's kid"))?;
    let (payload, header) = jwt::decode_with_verifier(token, &ES256.verifier_from_jwk(key)?)?;
    if header.token_type() != Some("at+jwt") {
        return Err(Trouble::new("the token is not an access token by its typ"));
    }
    validate(&payload, issuer, audience, UNIX_EPOCH + now)?;
    Ok(Value::Object(payload.claims_set().clone()))
}

fn validate(payload: &JwtPayload, issuer: &str, audience: &str, now: SystemTime) -> Result<(), Trouble> {
    let mut validator = JwtPayloadValidator::new();
    validator.set_base_time(now);
    validator.set_issuer(issuer);
    validator.set_audience(audience);
    validator.validate(payload)?;
    // josekit takes a missing time for a good one.
    if payload.expires_at().is_none() || payload.issued_at().is_none() {
        return Err(Trouble::new("the token has no exp or iat"));
    }
    Ok(())
}
