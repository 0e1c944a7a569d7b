//! A newer token without asking the user (OpenID Connect Core §12).

use super::super::*;
use axum::{Json, Router, routing::get, routing::post};
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::clock::TestClock;
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Mutex;

const NOW: u64 = 1_700_000_000;

/// A provider that answers every token request with what it is told.
struct Scripted {
    provider: Provider,
    issuer: String,
    key: SigningKey,
    answer: Arc<Mutex<(u16, Value)>>,
    asked: Arc<Mutex<String>>,
}

impl Scripted {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let keys = KeySet::new(vec![key.public().clone()]).to_jwks();
        let metadata = json!({ "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"] });
        let (answer, asked) = (Arc::new(Mutex::new((500, Value::Null))), Arc::new(Mutex::new(String::new())));
        let (told, heard) = (Arc::clone(&answer), Arc::clone(&asked));
        let token = move |body: String| async move {
            *heard.lock().unwrap() = body;
            let (status, body) = told.lock().unwrap().clone();
            (http::StatusCode::from_u16(status).unwrap(), Json(body))
        };
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(metadata)))
            .route("/jwks", get(async move || Json(keys)))
            .route("/token", post(token));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let clock = Arc::new(TestClock::at_seconds(NOW));
        let provider = Provider::discover(&issuer, "platform", clock).await.unwrap();
        Self { provider, issuer, key, answer, asked }
    }

    fn will_give(&self, sub: &str, aud: &str, refresh_token: Option<&str>) {
        let claims = json!({ "iss": self.issuer, "sub": sub, "aud": aud, "iat": NOW, "exp": NOW + 300 });
        let mut body = json!({ "access_token": "a", "token_type": "Bearer",
            "id_token": self.key.sign("JWT", &claims).unwrap() });
        if let Some(refresh_token) = refresh_token {
            body["refresh_token"] = json!(refresh_token);
        }
        *self.answer.lock().unwrap() = (200, body);
    }
}

fn alice(refresh_token: Option<&str>) -> SignedIn {
    SignedIn {
        subject: "alice".to_owned(),
        id_token: "old".to_owned().into(),
        expires_at_seconds: NOW,
        refresh_token: refresh_token.map(|token| token.to_owned().into()),
    }
}

#[rstest]
#[case(None, "r1")]
#[case(Some("r2"), "r2")]
#[tokio::test]
async fn the_same_person_gets_a_newer_token(#[case] next: Option<&str>, #[case] kept: &str) {
    let scripted = Scripted::start().await;
    scripted.will_give("alice", "platform", next);
    let refreshed = scripted.provider.refresh(&alice(Some("r1"))).await.unwrap();
    assert_eq!((refreshed.subject.as_str(), refreshed.expires_at_seconds), ("alice", NOW + 300));
    assert_eq!(refreshed.refresh_token.unwrap().expose(), kept);
    let asked = scripted.asked.lock().unwrap().clone();
    assert!(asked.contains("grant_type=refresh_token") && asked.contains("refresh_token=r1"), "{asked}");
}

#[rstest]
#[case("bob", "platform")]
#[case("alice", "another")]
#[tokio::test]
async fn another_persons_token_or_one_for_another_client_is_refused(#[case] sub: &str, #[case] aud: &str) {
    let scripted = Scripted::start().await;
    scripted.will_give(sub, aud, None);
    let refusal = scripted.provider.refresh(&alice(Some("r1"))).await.unwrap_err();
    assert!(matches!(refusal, SignInError::Token(_)), "{refusal}");
}

#[tokio::test]
async fn a_provider_that_says_no_is_quoted_and_nothing_to_refresh_with_asks_nobody() {
    let scripted = Scripted::start().await;
    *scripted.answer.lock().unwrap() = (400, json!({ "error": "invalid_grant" }));
    let refusal = scripted.provider.refresh(&alice(Some("r1"))).await.unwrap_err();
    assert!(
        matches!(refusal, SignInError::Refused { ref error, .. } if error == "invalid_grant"),
        "{refusal}"
    );
    scripted.asked.lock().unwrap().clear();
    let refusal = scripted.provider.refresh(&alice(None)).await.unwrap_err();
    assert!(matches!(refusal, SignInError::NotRefreshable));
    assert_eq!(*scripted.asked.lock().unwrap(), "");
}
