mod refreshing;

use super::*;
use crate::sign_in::wall_clock::WallClock;
use deputize_call::sign::SigningAlgorithm;
use deputize_issuer::clock::TestClock;
use deputize_stand_ins::identity_provider::{IdentityProvider, PublicClient};
use rstest::rstest;

const CALLBACK: &str = "http://127.0.0.1:50123/callback";

struct Fixture {
    provider: Provider,
    /// The client's clock; the provider keeps its own.
    clock: Arc<TestClock>,
}

/// A provider on a port of its own, and a client that has discovered it.
async fn fixture(algorithm: SigningAlgorithm) -> Fixture {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let client =
        PublicClient { client_id: "platform".to_owned(), redirect_paths: vec!["/callback".to_owned()] };
    let its_clock = Arc::new(WallClock(Arc::new(TestClock::at_seconds(1_700_000_000))));
    let identity_provider = IdentityProvider::new(&issuer, vec![client], algorithm, its_clock).unwrap();
    let router = Arc::new(identity_provider).router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let clock = Arc::new(TestClock::at_seconds(1_700_000_000));
    let provider = Provider::discover(&issuer, "platform", clock.clone()).await.unwrap();
    Fixture { provider, clock }
}

impl Fixture {
    /// A sign-in of alice, and the URL to which the provider sends her browser.
    async fn answered(&self) -> (PendingSignIn, Url) {
        let pending = self.provider.prepare(CALLBACK, Some("alice"), Some(CoreAuthPrompt::None)).unwrap();
        let response = self.provider.http.get(pending.url()).await.unwrap();
        let location = response.headers()[http::header::LOCATION].to_str().unwrap().parse().unwrap();
        (pending, location)
    }
}

fn with_parameter(url: &Url, name: &str, value: &str) -> Url {
    let mut changed = url.clone();
    let kept = url.query_pairs().filter(|(key, _)| key != name);
    changed.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
    changed
}

#[rstest]
#[case(SigningAlgorithm::RS256)]
#[case(SigningAlgorithm::ES256)]
#[tokio::test]
async fn alice_signs_in_without_a_browser(#[case] algorithm: SigningAlgorithm) {
    let signed_in = fixture(algorithm).await.provider.sign_in_silently(CALLBACK, "alice").await.unwrap();
    assert_eq!(signed_in.subject, "alice");
    assert_eq!(signed_in.id_token.expose().split('.').count(), 3);
    assert!(!format!("{signed_in:?}").contains(signed_in.id_token.expose()));
}

#[tokio::test]
async fn a_browser_is_sent_to_the_page_with_pkce() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    let pending = fixture.provider.begin(CALLBACK, None).unwrap();
    let query: HashMap<_, _> = pending.url().query_pairs().collect();
    assert_eq!(query["code_challenge_method"], "S256");
    assert!(!query.contains_key("prompt"));
    assert_eq!(fixture.provider.http.get(pending.url()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_stranger_is_refused_with_the_providers_word() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    let refusal = fixture.provider.sign_in_silently(CALLBACK, "mallory").await.unwrap_err();
    assert!(matches!(refusal, SignInError::Refused { error, .. } if error == "login_required"));
    let refusal =
        fixture.provider.sign_in_silently("http://127.0.0.1:1/elsewhere", "alice").await.unwrap_err();
    assert!(matches!(refusal, SignInError::Refused { error, .. } if error.starts_with("400")));
}

#[tokio::test]
async fn an_answer_to_another_sign_in_is_refused() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    for (name, value) in [("state", "another"), ("iss", "http://127.0.0.1:1")] {
        let (pending, answer) = fixture.answered().await;
        let refusal =
            fixture.provider.finish(pending, &with_parameter(&answer, name, value)).await.unwrap_err();
        assert!(matches!(refusal, SignInError::Foreign(_)), "{name}: {refusal}");
    }
    let (pending, answer) = fixture.answered().await;
    let twice = format!("{answer}&code=injected").parse().unwrap();
    assert!(matches!(fixture.provider.finish(pending, &twice).await, Err(SignInError::Foreign(_))));
    let (pending, mut answer) = fixture.answered().await;
    answer.set_port(Some(50124)).unwrap();
    assert!(matches!(fixture.provider.finish(pending, &answer).await, Err(SignInError::Foreign(_))));
}

#[tokio::test]
async fn a_code_injected_from_another_sign_in_fails_on_its_verifier() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    let (_, stolen) = fixture.answered().await;
    let code = stolen.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let (pending, answer) = fixture.answered().await;
    let refusal =
        fixture.provider.finish(pending, &with_parameter(&answer, "code", &code)).await.unwrap_err();
    assert!(matches!(refusal, SignInError::Refused { error, .. } if error == "invalid_grant"));
}

#[tokio::test]
async fn an_id_token_with_another_nonce_is_refused() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    let (mut pending, answer) = fixture.answered().await;
    pending.nonce = Nonce::new_random();
    assert!(matches!(fixture.provider.finish(pending, &answer).await, Err(SignInError::Token(_))));
}

#[tokio::test]
async fn an_id_token_is_good_until_it_expires() {
    let fixture = fixture(SigningAlgorithm::ES256).await;
    fixture.clock.advance(Duration::from_secs(3599));
    fixture.provider.sign_in_silently(CALLBACK, "alice").await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert!(matches!(fixture.provider.sign_in_silently(CALLBACK, "alice").await, Err(SignInError::Token(_))));
}

#[rstest]
#[case("http://idp.example")]
#[case("http://127.0.0.1.evil.example")]
#[case("file:///etc/passwd")]
#[case("idp.example")]
#[tokio::test]
async fn a_provider_needs_https_or_loopback(#[case] issuer: &str) {
    let clock = Arc::new(TestClock::at_seconds(1_700_000_000));
    let discovered = Provider::discover(issuer, "platform", clock).await;
    assert!(matches!(discovered, Err(SignInError::Issuer(_))));
}
