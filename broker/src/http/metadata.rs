//! What is public: keys, metadata (RFC 8414), the OpenAPI description, the errors explained.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use deputize_issuer::desk::Desk;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

use super::error::{self, DoorError};

/// Answers `GET /jwks` (RFC 7517 §5).
pub async fn jwks(State(desk): State<Arc<Desk>>) -> Response {
    public(&desk.keys.ring().published.to_jwks(), "application/jwk-set+json")
}

/// Answers `GET /.well-known/oauth-authorization-server` (RFC 8414 §3).
pub async fn authorization_server(State(desk): State<Arc<Desk>>) -> Response {
    let issuer = &desk.settings.issuer;
    let methods = ["private_key_jwt", "client_secret_post"];
    let client_algorithms = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];
    public(
        &json!({
            "issuer": issuer,
            "token_endpoint": desk.settings.token_endpoint,
            "jwks_uri": format!("{issuer}/jwks"),
            "introspection_endpoint": format!("{issuer}/introspect"),
            "revocation_endpoint": format!("{issuer}/revoke"),
            "service_documentation": format!("{issuer}/docs/errors/invalid_request"),
            // RFC 8414 §2 demands the member; without an authorization endpoint there are none.
            "response_types_supported": [],
            "grant_types_supported": [
                "urn:ietf:params:oauth:grant-type:token-exchange",
                "client_credentials"
            ],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": client_algorithms,
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": client_algorithms,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": client_algorithms,
            "dpop_signing_alg_values_supported": client_algorithms,
            "authorization_details_types_supported": [deputize_call::claims::DETAIL_TYPE],
        }),
        "application/json",
    )
}

/// Answers `GET /openapi.json`.
pub async fn openapi(State(desk): State<Arc<Desk>>) -> Response {
    public(&super::openapi::document(&desk.settings.issuer), "application/json")
}

/// Answers `GET /docs/errors/{code}`: what `error_uri` points to.
pub async fn error_page(Path(code): Path<String>) -> Response {
    let Some((_, meaning, remedy)) = ERRORS.iter().find(|(known, _, _)| *known == code) else {
        return DoorError::NotFound.into_response();
    };
    let text = format!("{code}\n\nWhat it means: {meaning}\nWhat to do: {remedy}\n");
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn public(body: &serde_json::Value, media_type: &'static str) -> Response {
    let mut response = error::json(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// Code, meaning, remedy.
const ERRORS: [(&str, &str, &str); 12] = [
    (
        "invalid_request",
        "A parameter is missing, empty, repeated or contradicts another; or the subject or actor token is not acceptable from this client.",
        "Check the parameters against /openapi.json. For a subject token: `deputize doctor --token FILE` says why it is refused.",
    ),
    (
        "invalid_client",
        "The client is unknown, disabled, or did not prove who it is.",
        "Sign a fresh assertion: aud is the issuer URL as a single string, at most five minutes, a new jti.",
    ),
    (
        "invalid_target",
        "The server is unknown, disabled, of another tenant, or not reachable from here.",
        "Ask for a registered resource URI, exactly as registered; at a next hop only what the calling tool lists as downstream.",
    ),
    (
        "invalid_scope",
        "The scope is malformed or wider than the tool.",
        "Leave it out, or send the tool's name.",
    ),
    (
        "invalid_authorization_details",
        "The call cannot be granted as it stands.",
        "The description names the member. High-risk tools need exact arguments (L3).",
    ),
    (
        "invalid_dpop_proof",
        "The proof of possession does not verify, or was used before.",
        "Make a new proof: htm POST, htu the token endpoint, a new jti, the last nonce.",
    ),
    (
        "use_dpop_nonce",
        "A proof needs a fresh nonce.",
        "Repeat with the nonce of the DPoP-Nonce header; the same client assertion may be sent again.",
    ),
    (
        "access_denied",
        "Policy or a person said no.",
        "`deputize explain DECISION_ID` tells an operator the whole story; `deputize can-i` tries it without consequences.",
    ),
    (
        "insufficient_user_authentication",
        "The user's sign-in is too weak or too old for this tool.",
        "Send the user through sign-in again with the acr_values and max_age of the answer (RFC 9470).",
    ),
    (
        "temporarily_unavailable",
        "A rate is exceeded, the record is not durable, or a once-only question has no certain answer.",
        "Wait as Retry-After says and repeat with a new assertion and proof.",
    ),
    ("not_found", "There is nothing at this path.", "See /.well-known/oauth-authorization-server."),
    (
        "server_error",
        "A fault of the broker.",
        "An operator finds it by the decision_id; nothing was issued.",
    ),
];
