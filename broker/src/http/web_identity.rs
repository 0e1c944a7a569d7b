//! What AWS reads of the identity that it knows us by: the discovery document and the keys (OpenID Connect Discovery
//! 1.0 §3 and §4; the members are those that an OIDC provider of AWS IAM has to have).

use axum::{extract::State, response::Response};
use deputize_call::keys::KeySet;
use deputize_issuer::keys::KeySource;
use serde_json::{Value, json};
use std::sync::Arc;

use super::metadata::public;

/// The identity that AWS knows us by.
#[derive(Debug, Clone)]
pub struct PublishedIdentity {
    issuer: Arc<str>,
    keys: Arc<KeySource>,
}

impl PublishedIdentity {
    /// The identity of this issuer URL, which has no trailing slash.
    pub fn new(issuer: &str, keys: Arc<KeySource>) -> Self {
        Self { issuer: issuer.into(), keys }
    }
}

/// Answers `GET /web-identity/.well-known/openid-configuration`.
pub async fn discovery(State(identity): State<PublishedIdentity>) -> Response {
    public(&discovery_document(&identity.issuer), "application/json")
}

/// Answers `GET /web-identity/jwks`.
pub async fn jwks(State(identity): State<PublishedIdentity>) -> Response {
    public(&key_set_document(&identity.keys.ring().published), "application/json")
}

/// The discovery document of an issuer URL without a trailing slash.
pub fn discovery_document(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/{JWKS_PATH}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "claims_supported": [
            "iss",
            "sub",
            "aud",
            "iat",
            "nbf",
            "exp",
            "jti",
            "https://aws.amazon.com/tags",
            "https://aws.amazon.com/source_identity",
            "https://aws.amazon.com/roles"
        ],
    })
}

/// The key set beside it (RFC 7517 §5): every key with `kid`, `alg` and `use`.
pub fn key_set_document(published: &KeySet) -> Value {
    published.to_jwks()
}

/// Where the discovery document is, under the issuer URL (OpenID Connect Discovery 1.0 §4).
pub const DISCOVERY_PATH: &str = ".well-known/openid-configuration";
/// Where the keys are, under the issuer URL.
pub const JWKS_PATH: &str = "jwks";

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, routing::get};
    use deputize_call::sign::{SigningAlgorithm, SigningKey};
    use deputize_issuer::keys::Ring;
    use http::{Request, StatusCode, header};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn aws_finds_the_keys_that_the_ring_publishes_now() {
        let key = |algorithm| Arc::new(SigningKey::generate(algorithm).unwrap());
        let (first, other) = (key(SigningAlgorithm::ES256), key(SigningAlgorithm::RS256));
        let ring = Ring::new(Arc::clone(&first), vec![other.public().clone()]);
        let source = Arc::new(KeySource::of(ring));
        let issuer = "https://broker.example/web-identity";
        let router = Router::new()
            .route(&format!("/{DISCOVERY_PATH}"), get(discovery))
            .route(&format!("/{JWKS_PATH}"), get(jwks))
            .with_state(PublishedIdentity::new(issuer, Arc::clone(&source)));

        let document = read(&router, "/.well-known/openid-configuration").await;
        assert_eq!(document["issuer"], issuer);
        assert_eq!(document["jwks_uri"], "https://broker.example/web-identity/jwks");
        assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
        assert_eq!(document["response_types_supported"], json!(["id_token"]));
        assert_eq!(document["subject_types_supported"], json!(["public"]));
        assert!(document["claims_supported"].as_array().unwrap().contains(&json!("sub")));

        let keys = read(&router, "/jwks").await;
        assert_eq!(kids(&keys), [first.kid(), other.kid()]);
        for (jwk, alg) in keys["keys"].as_array().unwrap().iter().zip(["ES256", "RS256"]) {
            assert_eq!((&jwk["alg"], &jwk["use"]), (&json!(alg), &json!("sig")));
            assert!(jwk.get("d").is_none());
        }

        let next = key(SigningAlgorithm::ES256);
        source.turn_to(Ring::new(Arc::clone(&next), vec![first.public().clone()]));
        assert_eq!(kids(&read(&router, "/jwks").await), [next.kid(), first.kid()]);
    }

    async fn read(router: &Router, path: &str) -> Value {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=300");
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 65_536).await.unwrap()).unwrap()
    }

    fn kids(keys: &Value) -> Vec<&str> {
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect()
    }
}
