//! What is public: keys, metadata (RFC 8414), the OpenAPI description, the errors explained.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use deputize_issuer::{
    client::{Client, ClientCertificates},
    desk::Desk,
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use std::sync::Arc;

use super::{
    error::{self, DoorError},
    source::refuse,
};

/// Answers `GET /jwks` (RFC 7517 §5).
pub async fn jwks(State(desk): State<Arc<Desk>>) -> Response {
    public(&desk.keys.ring().published.to_jwks(), "application/jwk-set+json")
}

/// Answers `GET /.well-known/oauth-authorization-server` (RFC 8414 §3).
pub async fn authorization_server(State(desk): State<Arc<Desk>>) -> Response {
    let issuer = &desk.settings.issuer;
    let methods = methods(&desk);
    let client_algorithms = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];
    let mut metadata = json!({
        "issuer": issuer,
        "token_endpoint": desk.settings.token_endpoint,
        "jwks_uri": format!("{issuer}/jwks"),
        "introspection_endpoint": format!("{issuer}/introspect"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "redemption_endpoint": format!("{issuer}/redeem"),
        "guard_snapshot_endpoint": format!("{issuer}/guard/snapshot"),
        "guard_events_endpoint": format!("{issuer}/guard/events"),
        "service_documentation": format!("{issuer}/openapi.json"),
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
        "tls_client_certificate_bound_access_tokens": desk.settings.takes_certificates,
        "dpop_signing_alg_values_supported": client_algorithms,
        "authorization_details_types_supported": [deputize_call::claims::DETAIL_TYPE],
    });
    if let (Some(members), Some(_)) = (metadata.as_object_mut(), &desk.aws) {
        members.insert("aws_credentials_endpoint".to_owned(), format!("{issuer}/aws/credentials").into());
    }
    public(&metadata, "application/json")
}

/// How clients authenticate here (RFC 8414 §2; RFC 8705 §2; draft-ietf-oauth-spiffe-client-auth §5): beside the two that
/// are always there, those that somebody is configured for.
fn methods(desk: &Desk) -> Vec<&'static str> {
    let rules = desk.rules.load();
    let somebody =
        |is: &dyn Fn(&Client) -> bool| rules.clients.iter().any(|client| client.enabled && is(client));
    let by_svid = somebody(&|client| client.spiffe_id.is_some());
    let vouched = |client: &Client| matches!(client.certificates, Some(ClientCertificates::Vouched(_)));
    let own = |client: &Client| matches!(client.certificates, Some(ClientCertificates::Own(_)));
    let takes_certificates = desk.settings.takes_certificates;
    let all = [
        ("private_key_jwt", true),
        ("client_secret_post", true),
        ("tls_client_auth", takes_certificates && somebody(&vouched)),
        ("self_signed_tls_client_auth", takes_certificates && somebody(&own)),
        ("spiffe_jwt", by_svid),
        ("spiffe_x509", takes_certificates && by_svid),
    ];
    all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

/// Answers `GET /openapi.json`.
pub async fn openapi(State(desk): State<Arc<Desk>>) -> Response {
    public(&super::openapi::document(&desk.settings.issuer), "application/json")
}

/// Answers `GET /docs/errors/{code}`: what `error_uri` points to.
pub async fn error_page(code: Result<Path<String>, PathRejection>) -> Response {
    match code.ok().and_then(|Path(code)| error::explanation(&code)) {
        Some(text) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => refuse(DoorError::NotFound),
    }
}

/// An answer that anybody may keep for five minutes.
pub fn public(body: &serde_json::Value, media_type: &'static str) -> Response {
    let mut response = error::json(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}
