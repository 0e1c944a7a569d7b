//! The tokens of a sign-in: an ID token (OpenID Connect Core §2) and a JWT access token (RFC 9068 §2.2).

use super::{IdentityProvider, IdentityProviderError, SignIn, codes::random_text, users::User};
use serde::Serialize;
use std::time::Duration;

impl IdentityProvider {
    /// An ID token; with `access_token`, bound to it by `at_hash`.
    pub(super) fn id_token(
        &self,
        sign_in: &SignIn<'_>,
        access_token: Option<&str>,
        lifetime: Duration,
    ) -> Result<String, IdentityProviderError> {
        let claims = IdTokenClaims {
            common: self.common_claims(sign_in, lifetime)?,
            nonce: sign_in.nonce,
            at_hash: access_token.map(left_half_of_hash),
            email_verified: true,
            preferred_username: sign_in.user.name,
        };
        Ok(self.key.sign("JWT", &claims)?)
    }

    /// An access token.
    pub(super) fn access_token(
        &self,
        sign_in: &SignIn<'_>,
        scope: &str,
        lifetime: Duration,
    ) -> Result<String, IdentityProviderError> {
        let claims = AccessTokenClaims {
            common: self.common_claims(sign_in, lifetime)?,
            client_id: sign_in.client_id,
            scope,
        };
        Ok(self.key.sign("at+jwt", &claims)?)
    }

    fn common_claims<'c>(
        &'c self,
        sign_in: &SignIn<'c>,
        lifetime: Duration,
    ) -> Result<CommonClaims<'c>, IdentityProviderError> {
        let User { name, full_name, email, groups, acr, amr, purpose: _ } = *sign_in.user;
        let iat = self.clock.now_seconds();
        Ok(CommonClaims {
            iss: &self.issuer,
            sub: name,
            aud: sign_in.client_id,
            azp: sign_in.client_id,
            iat,
            exp: iat.saturating_add(lifetime.as_secs()),
            jti: random_text()?,
            auth_time: sign_in.auth_time,
            acr,
            amr,
            email,
            name: full_name,
            groups,
        })
    }
}

/// `at_hash`: the left half of the access token's SHA-256 (OpenID Connect Core §3.1.3.6).
fn left_half_of_hash(access_token: &str) -> String {
    let hash = deputize_call::digest::sha256(access_token.as_bytes());
    let half = hash.get(..16).unwrap_or_default();
    base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, half)
}

#[derive(Serialize)]
struct CommonClaims<'c> {
    iss: &'c str,
    sub: &'c str,
    aud: &'c str,
    azp: &'c str,
    iat: u64,
    exp: u64,
    jti: String,
    auth_time: u64,
    acr: &'c str,
    amr: &'c [&'c str],
    email: &'c str,
    name: &'c str,
    groups: &'c [&'c str],
}

#[derive(Serialize)]
struct IdTokenClaims<'c> {
    #[serde(flatten)]
    common: CommonClaims<'c>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_hash: Option<String>,
    email_verified: bool,
    preferred_username: &'c str,
}

#[derive(Serialize)]
struct AccessTokenClaims<'c> {
    #[serde(flatten)]
    common: CommonClaims<'c>,
    client_id: &'c str,
    scope: &'c str,
}
