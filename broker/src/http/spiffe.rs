//! What verifies SVIDs, for whoever has no socket: the trust bundle (SPIFFE Trust Domain and Bundle §4), and discovery
//! and keys of JWT-SVIDs for those who speak OpenID Connect (Discovery 1.0 §3, §4).

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use deputize_issuer::{bundle, svid::SpiffeDoor};
use serde_json::json;
use std::sync::Arc;

use super::{error::DoorError, metadata::public};

/// Answers `GET /spiffe/bundle`: by the public door in the `https_web` profile (SPIFFE Federation §5.2.1), by the listener of
/// the bundle endpoint in the `https_spiffe` profile (§5.2.2).
pub async fn bundle(State(door): State<Arc<SpiffeDoor>>) -> Response {
    let own = Arc::clone(&door.authorities.ring().bundle);
    match bundle::to_document(&own) {
        Ok(document) => public(&document, "application/json"),
        Err(error) => {
            tracing::error!(%error, "bundle cannot be written");
            DoorError::Unavailable.into_response()
        }
    }
}

/// Answers `GET /spiffe/.well-known/openid-configuration`.
pub async fn discovery(State(door): State<Arc<SpiffeDoor>>) -> Response {
    let issuer = &door.issuer;
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti"],
    });
    public(&document, "application/json")
}

/// Answers `GET /spiffe/jwks`: the keys of JWT-SVIDs alone.
pub async fn jwks(State(door): State<Arc<SpiffeDoor>>) -> Response {
    public(&door.jwt_keys.ring().published.to_jwks(), "application/jwk-set+json")
}
