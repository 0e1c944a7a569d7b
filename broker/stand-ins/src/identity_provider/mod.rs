//! An OpenID provider for development: discovery, keys, the code flow with PKCE, a page on which to choose a user.
//!
//! It behaves as a careful real one does (RFC 9700), so that what works against it works elsewhere: codes live for
//! a minute and are good once, PKCE S256 is mandatory, redirect URIs are exact but for the port of a loopback
//! address (RFC 8252 §7.3). It asks for no password: whoever reaches its port may be anyone. Loopback only.

mod authorize;
mod codes;
mod parameters;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
pub mod users;

use self::{codes::Codes, users::User};
use crate::random::NoRandomness;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::header,
    response::IntoResponse,
    routing::{get, post},
};
use deputize_call::{
    jws::JwsError,
    keys::KeySet,
    secret::Secret,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_client::Clock;
use openidconnect::{
    AuthUrl, IssuerUrl, JsonWebKeySetUrl, ProviderMetadata, ResponseTypes, Scope, TokenUrl,
    core::{
        CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm,
        CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
    },
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// The provider: its users, its clients, its key, and the codes it has given out.
pub struct IdentityProvider {
    issuer: String,
    clients: Vec<PublicClient>,
    key: SigningKey,
    codes: Codes,
    metadata: serde_json::Value,
    jwks: serde_json::Value,
    clock: Arc<dyn Clock>,
}

/// A public client (RFC 6749 §2.1): it has no secret, PKCE protects its codes.
#[derive(Debug, Clone)]
pub struct PublicClient {
    /// Its id: the `aud` and `azp` of the tokens made for it.
    pub client_id: String,
    /// Paths that a redirect to a loopback address may have, on any port.
    pub redirect_paths: Vec<String>,
}

/// Why the provider could not be made, or would not issue.
#[derive(Debug, thiserror::Error)]
pub enum IdentityProviderError {
    /// The issuer is not a URL.
    #[error("the issuer is not a URL: {0}")]
    Issuer(#[from] url::ParseError),
    /// There is no key, or it does not sign.
    #[error("signing failed: {0}")]
    Key(#[from] JwsError),
    /// The system gave no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// Its metadata does not serialize.
    #[error("metadata does not serialize: {0}")]
    Metadata(#[from] serde_json::Error),
    /// Nobody is called so.
    #[error("no such user: {0}")]
    UnknownUser(String),
}

impl IdentityProvider {
    /// A provider with a fresh key. `issuer` is the URL at which its router will be reached, without a trailing slash.
    ///
    /// # Errors
    /// If `issuer` is no URL, or there is no key.
    pub fn new(
        issuer: &str,
        clients: Vec<PublicClient>,
        algorithm: SigningAlgorithm,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IdentityProviderError> {
        let key = SigningKey::generate(algorithm)?;
        let jwks = KeySet::new(vec![key.public().clone()]).to_jwks();
        let metadata = serde_json::to_value(metadata(issuer, algorithm)?)?;
        Ok(Self { issuer: issuer.to_owned(), clients, key, codes: Codes::default(), metadata, jwks, clock })
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What a sign-in as this user would have brought to `client_id`: a JWT that says who they are.
    ///
    /// # Errors
    /// If there is no such user, or signing fails.
    pub fn issue_user_token(
        &self,
        user: &str,
        client_id: &str,
        lifetime: Duration,
    ) -> Result<Secret<String>, IdentityProviderError> {
        let user = users::find(user).ok_or_else(|| IdentityProviderError::UnknownUser(user.to_owned()))?;
        let sign_in = SignIn { user, client_id, nonce: None, auth_time: self.clock.now_seconds() };
        Ok(self.id_token(&sign_in, None, lifetime)?.into())
    }

    /// Its routes.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize::authorize))
            .route("/sign-in.css", get(authorize::stylesheet))
            .route("/token", post(token::token))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::clone(self))
    }
}

/// One authentication of one user for one client.
struct SignIn<'s> {
    user: &'static User,
    client_id: &'s str,
    nonce: Option<&'s str>,
    /// When the user signed in, seconds since the epoch.
    auth_time: u64,
}

async fn discovery(State(provider): State<Arc<IdentityProvider>>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(provider.metadata.clone()))
}

async fn jwks(State(provider): State<Arc<IdentityProvider>>) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(provider.jwks.clone()))
}

/// OpenID Connect Discovery 1.0 §3, RFC 8414 §2, RFC 9207 §3.
fn metadata(issuer: &str, algorithm: SigningAlgorithm) -> Result<Metadata, url::ParseError> {
    let signing = match algorithm {
        SigningAlgorithm::RS256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        SigningAlgorithm::ES256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        SigningAlgorithm::EdDSA => CoreJwsSigningAlgorithm::EdDsa,
    };
    let claims =
        ["sub", "iss", "aud", "azp", "exp", "iat", "auth_time", "acr", "amr", "email", "name", "groups"];
    Ok(Metadata::new(
        IssuerUrl::new(issuer.to_owned())?,
        AuthUrl::new(format!("{issuer}/authorize"))?,
        JsonWebKeySetUrl::new(format!("{issuer}/jwks"))?,
        vec![ResponseTypes::new(vec![CoreResponseType::Code])],
        vec![CoreSubjectIdentifierType::Public],
        vec![signing],
        FurtherMetadata {
            code_challenge_methods_supported: vec!["S256".to_owned()],
            authorization_response_iss_parameter_supported: true,
        },
    )
    .set_token_endpoint(Some(TokenUrl::new(format!("{issuer}/token"))?))
    .set_scopes_supported(Some(SCOPES.map(|scope| Scope::new(scope.to_owned())).to_vec()))
    .set_grant_types_supported(Some(vec![CoreGrantType::AuthorizationCode]))
    .set_response_modes_supported(Some(vec![CoreResponseMode::Query]))
    .set_token_endpoint_auth_methods_supported(Some(vec![CoreClientAuthMethod::None]))
    .set_claims_supported(Some(claims.map(|claim| CoreClaimName::new(claim.to_owned())).to_vec()))
    .set_request_uri_parameter_supported(Some(false)))
}

/// Metadata that OpenID Connect Discovery does not name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct FurtherMetadata {
    code_challenge_methods_supported: Vec<String>,
    authorization_response_iss_parameter_supported: bool,
}

impl openidconnect::AdditionalProviderMetadata for FurtherMetadata {}

type Metadata = ProviderMetadata<
    FurtherMetadata,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

impl std::fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityProvider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// The scopes it knows; others are ignored (OpenID Connect Core §3.1.2.1).
const SCOPES: [&str; 4] = ["openid", "profile", "email", "groups"];
/// How long the tokens of a sign-in live.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// A token request is some hundred bytes long.
const MAX_BODY_BYTES: usize = 16 * 1024;
