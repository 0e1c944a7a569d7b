//! `POST /token`: an authorization code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5).

use super::{IdentityProvider, SignIn, TOKEN_LIFETIME, codes::PendingCode, parameters::Parameters};
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use oauth2::{
    PkceCodeChallenge, PkceCodeVerifier, StandardErrorResponse, basic::BasicErrorResponseType as Error,
};
use serde::Serialize;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// Answers a token request.
pub(crate) async fn token(
    State(provider): State<Arc<IdentityProvider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_form(&headers) {
        return refuse(Error::InvalidRequest, "send a form: application/x-www-form-urlencoded");
    }
    let Ok(parameters) = Parameters::parse(&body) else {
        return refuse(Error::InvalidRequest, "a parameter stands twice, or there are too many");
    };
    let pending = match redeem(&provider, &parameters) {
        Ok(pending) => pending,
        Err((error, description)) => return refuse(error, description),
    };
    let sign_in = SignIn {
        user: pending.user,
        client_id: &pending.client_id,
        nonce: pending.nonce.as_deref(),
        auth_time: pending.auth_time,
    };
    let tokens = provider.access_token(&sign_in, &pending.scope, TOKEN_LIFETIME).and_then(|access_token| {
        let id_token = provider.id_token(&sign_in, Some(&access_token), TOKEN_LIFETIME)?;
        Ok((access_token, id_token))
    });
    match tokens {
        Ok((access_token, id_token)) => Json(TokenResponse {
            access_token,
            token_type: "Bearer",
            expires_in: TOKEN_LIFETIME.as_secs(),
            id_token,
            scope: pending.scope,
        })
        .into_response()
        .not_stored(),
        Err(error) => {
            tracing::error!(%error, "identity provider could not sign");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Checks a token request against what its code was given for.
fn redeem(
    provider: &IdentityProvider,
    parameters: &Parameters,
) -> Result<PendingCode, (Error, &'static str)> {
    match parameters.get("grant_type") {
        Some("authorization_code") => {}
        Some(_) => {
            return Err((Error::UnsupportedGrantType, "this provider takes authorization codes alone"));
        }
        None => return Err((Error::InvalidRequest, "grant_type is missing")),
    }
    let required = |name| parameters.get(name).ok_or((Error::InvalidRequest, "a parameter is missing"));
    let (code, client_id, redirect_uri, verifier) =
        (required("code")?, required("client_id")?, required("redirect_uri")?, required("code_verifier")?);
    let pending = provider
        .codes
        .take(code, &*provider.clock)
        .ok_or((Error::InvalidGrant, "the code is unknown, spent or expired"))?;
    // RFC 6749 §4.1.3: issued to this client, with this very redirect URI.
    if pending.client_id != client_id || pending.redirect_uri != redirect_uri {
        return Err((Error::InvalidGrant, "the code was given to another client or redirect_uri"));
    }
    if !proves(verifier, &pending.code_challenge) {
        return Err((Error::InvalidGrant, "code_verifier does not match the challenge"));
    }
    Ok(pending)
}

/// RFC 7636 §4.1, §4.6.
fn proves(verifier: &str, challenge: &str) -> bool {
    let well_formed = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    well_formed
        && PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_owned()))
            .as_str()
            .as_bytes()
            .ct_eq(challenge.as_bytes())
            .into()
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// RFC 6749 §5.2.
fn refuse(error: Error, description: &str) -> Response {
    let body = StandardErrorResponse::new(error, Some(description.to_owned()), None);
    (StatusCode::BAD_REQUEST, Json(body)).into_response().not_stored()
}

#[derive(Serialize)]
struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    id_token: String,
    scope: String,
}

trait NotStored {
    /// RFC 6749 §5.1: no cache may keep the answer.
    fn not_stored(self) -> Self;
}

impl NotStored for Response {
    fn not_stored(mut self) -> Self {
        self.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        self
    }
}
