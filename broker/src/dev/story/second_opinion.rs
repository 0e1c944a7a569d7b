//! The token, verified by an implementation that shares no code with ours, nor cryptography.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openidconnect::{
    ClientId, IssuerUrl, JsonWebTokenType, Nonce,
    core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm},
};
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

use super::Trouble;

/// Verifies signature, `typ`, issuer, audience and end with openidconnect, by the keys that the broker publishes: an
/// access token in this form has whatever an ID token must have (RFC 9068 §2.2). Gives the claims.
pub(super) fn verify(
    token: &str,
    jwks: &Value,
    issuer: &str,
    audience: &str,
    now: Duration,
) -> Result<Value, Trouble> {
    let keys: CoreJsonWebKeySet = serde_json::from_value(jwks.clone())?;
    let access_token = JsonWebTokenType::new("at+jwt".to_owned()).normalize()?;
    let verifier = CoreIdTokenVerifier::new_public_client(
        ClientId::new(audience.to_owned()),
        IssuerUrl::new(issuer.to_owned())?,
        keys,
    )
    .set_allowed_algs([CoreJwsSigningAlgorithm::EcdsaP256Sha256])
    .set_allowed_jose_types([access_token])
    .set_time_fn(move || (UNIX_EPOCH + now).into());
    let verified: CoreIdToken = token.parse()?;
    verified.claims(&verifier, |_: Option<&Nonce>| Ok(()))?;
    let claims = token.split('.').nth(1).unwrap_or_default();
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}
