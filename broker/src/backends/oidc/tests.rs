use super::*;
use deputize_call::sign::{SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use std::sync::{
    Mutex as SyncMutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;

const ISSUER: &str = "https://id.example.com";
const DISCOVERY: &str = "https://id.example.com/.well-known/openid-configuration";
const JWKS: &str = "https://id.example.com/keys";

/// A provider's documents by URL, changed by hand.
struct FakeProvider {
    documents: SyncMutex<HashMap<String, Result<Vec<u8>, FetchError>>>,
    max_age: SyncMutex<Option<Duration>>,
    jwks_fetches: AtomicUsize,
    /// A fetch of keys takes a permit; without one it hangs.
    permits: Semaphore,
}

#[async_trait]
impl FetchJson for FakeProvider {
    async fn get_json(&self, url: &Url) -> Result<Fetched, FetchError> {
        if url.as_str().ends_with("/keys") {
            self.jwks_fetches.fetch_add(1, Ordering::SeqCst);
            let _permit = self.permits.acquire().await.unwrap();
        }
        let body = self
            .documents
            .lock()
            .unwrap()
            .get(url.as_str())
            .cloned()
            .unwrap_or(Err(FetchError::Status(404)))?;
        Ok(Fetched { body, max_age: *self.max_age.lock().unwrap() })
    }
}

impl FakeProvider {
    fn with_keys(keys: &[&SigningKey]) -> Arc<Self> {
        let provider = Arc::new(Self {
            documents: SyncMutex::default(),
            max_age: SyncMutex::new(None),
            jwks_fetches: AtomicUsize::new(0),
            permits: Semaphore::new(1000),
        });
        provider.serve(DISCOVERY, &metadata(ISSUER));
        provider.publish(keys);
        provider
    }
    fn serve(&self, url: &str, document: &Value) {
        self.answer(url, Ok(document.to_string().into_bytes()));
    }
    fn answer(&self, url: &str, answer: Result<Vec<u8>, FetchError>) {
        self.documents.lock().unwrap().insert(url.to_owned(), answer);
    }
    fn publish(&self, keys: &[&SigningKey]) {
        self.serve(JWKS, &KeySet::new(keys.iter().map(|key| key.public().clone()).collect()).to_jwks());
    }
    fn down(&self) {
        self.answer(DISCOVERY, Err(FetchError::Timeout));
        self.answer(JWKS, Err(FetchError::Timeout));
    }
    fn fetches(&self) -> usize {
        self.jwks_fetches.load(Ordering::SeqCst)
    }
    fn source(self: &Arc<Self>) -> IssuerSource {
        IssuerSource {
            issuer: ISSUER.to_owned(),
            jwks_uri: None,
            fetcher: Arc::clone(self) as Arc<dyn FetchJson>,
        }
    }
    async fn start(self: &Arc<Self>) -> OidcKeys {
        started(self.source(), || 0, None).await
    }
}

/// Keys of one issuer, once it was asked.
async fn started(source: IssuerSource, jitter: Jitter, previous: Option<&OidcKeys>) -> OidcKeys {
    let keys = OidcKeys::start(vec![source], Timing::default(), jitter, previous);
    keys.asked_once().await;
    keys
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer, "authorization_endpoint": "https://id.example.com/authorize",
        "token_endpoint": "https://id.example.com/token", "jwks_uri": JWKS, "response_types_supported": ["code"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn key() -> SigningKey {
    SigningKey::generate(SigningAlgorithm::ES256).unwrap()
}

/// Lets this much (paused) time pass; everything that falls due runs.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn kids(keys: &OidcKeys) -> Option<(Vec<String>, u64)> {
    let known = keys.keys(ISSUER).await.ok()?;
    Some((known.keys.iter().filter_map(|key| Some(key.kid()?.to_owned())).collect(), known.generation))
}

fn only(key: &SigningKey, generation: u64) -> Option<(Vec<String>, u64)> {
    Some((vec![key.kid().to_owned()], generation))
}

#[tokio::test(start_paused = true)]
async fn keys_are_discovered_and_other_issuers_have_none() {
    let key = key();
    let keys = FakeProvider::with_keys(&[&key]).start().await;
    assert_eq!(kids(&keys).await, only(&key, 1));
    for other in ["https://id.example.com/", "https://other.example.com", ""] {
        assert!(keys.keys(other).await.is_err(), "{other}");
        assert!(keys.keys_for_unknown_kid(other, 0).await.is_err(), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_of_another_issuer_or_in_another_form_is_refused() {
    for bad in [
        metadata("https://id.example.com/"),
        metadata("https://ID.example.com"),
        metadata("https://evil.example"),
        json!({ "issuer": ISSUER }),
        json!([]),
    ] {
        let provider = FakeProvider::with_keys(&[&key()]);
        provider.serve(DISCOVERY, &bad);
        let keys = provider.start().await;
        assert_eq!(kids(&keys).await, None, "{bad}");
        assert_eq!(provider.fetches(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_key_set_needs_no_metadata() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    provider.answer(DISCOVERY, Err(FetchError::Status(404)));
    let source = IssuerSource { jwks_uri: Some(Url::parse(JWKS).unwrap()), ..provider.source() };
    let keys = started(source, || 0, None).await;
    assert_eq!(kids(&keys).await, only(&key, 1));
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_ahead_and_the_generation_follows_the_set() {
    let (first, second) = (key(), key());
    let provider = FakeProvider::with_keys(&[&first]);
    let keys = provider.start().await;
    pass(2699).await;
    assert_eq!(provider.fetches(), 1, "an hour by default, refreshed at three quarters");
    pass(2).await;
    assert_eq!((provider.fetches(), kids(&keys).await), (2, only(&first, 1)));
    provider.publish(&[&second]);
    pass(2700).await;
    assert_eq!((provider.fetches(), kids(&keys).await), (3, only(&second, 2)));
}

#[tokio::test(start_paused = true)]
async fn the_announced_age_is_kept_within_bounds() {
    for (announced, refreshed_after) in [(0, 225), (100, 225), (1000, 750), (1_000_000, 64_800)] {
        let provider = FakeProvider::with_keys(&[&key()]);
        *provider.max_age.lock().unwrap() = Some(Duration::from_secs(announced));
        let _keys = provider.start().await;
        pass(refreshed_after - 1).await;
        assert_eq!(provider.fetches(), 1, "{announced}");
        pass(2).await;
        assert_eq!(provider.fetches(), 2, "{announced}");
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_brings_a_refresh_forward_and_never_back() {
    let provider = FakeProvider::with_keys(&[&key()]);
    let _keys = started(provider.source(), || u32::MAX, None).await;
    pass(2429).await;
    assert_eq!(provider.fetches(), 1);
    pass(2).await;
    assert_eq!(provider.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_for_a_day_changes_nothing_and_then_everything() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    let keys = provider.start().await;
    provider.down();
    pass(3600).await;
    assert_eq!(kids(&keys).await, only(&key, 1), "down for an hour");
    pass(22 * 3600).await;
    assert_eq!(kids(&keys).await, only(&key, 1), "nearly a day");
    pass(3601).await;
    assert_eq!(kids(&keys).await, None);
    provider.serve(DISCOVERY, &metadata(ISSUER));
    provider.publish(&[&key]);
    pass(31).await;
    assert_eq!(kids(&keys).await, only(&key, 1), "back, and the same set");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_first_answer_and_one_fetch_brings_it() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    let held = provider.permits.acquire_many(1000).await.unwrap();
    let keys = Arc::new(OidcKeys::start(vec![provider.source()], Timing::default(), || 0, None));
    for _ in 0..10 {
        assert!(keys.keys(ISSUER).await.is_err(), "unavailable, at once");
        pass(1).await;
    }
    let asking = Arc::clone(&keys);
    let waiting = tokio::spawn(async move { asking.keys_for_unknown_kid(ISSUER, 0).await.is_ok() });
    pass(1).await;
    assert_eq!(provider.fetches(), 1);
    drop(held);
    keys.asked_once().await;
    assert!(waiting.await.unwrap());
    assert_eq!((provider.fetches(), kids(&keys).await), (1, only(&key, 1)), "all share one flight");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_at_the_start_is_tried_again_soon() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    provider.down();
    let keys = provider.start().await;
    assert_eq!(kids(&keys).await, None);
    provider.serve(DISCOVERY, &metadata(ISSUER));
    provider.publish(&[&key]);
    pass(2).await;
    assert_eq!(kids(&keys).await, only(&key, 1));
}

#[tokio::test(start_paused = true)]
async fn a_bad_document_never_evicts_good_keys() {
    let key = key();
    let good = key.public().to_jwk();
    let rsa = |bits: usize, e: &str| {
        let n = base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            vec![0xff_u8; bits / 8],
        );
        json!({ "keys": [{ "kty": "RSA", "kid": "r", "n": n, "e": e }] }).to_string()
    };
    let many: Vec<Value> =
        (0..10_000).map(|n| json!({ "kty": "oct", "kid": n.to_string(), "k": "AA" })).collect();
    for bad in [
        String::new(),
        "<html>busy</html>".to_owned(),
        json!({}).to_string(),
        json!({ "keys": [] }).to_string(),
        json!({ "keys": [{ "kty": "oct", "kid": "s", "k": "c2VjcmV0" }] }).to_string(),
        json!({ "keys": many }).to_string(),
        json!({ "keys": vec![Value::Object(good); 101] }).to_string(),
        " ".repeat(1024 * 1024),
        rsa(512, "AQAB"),
        rsa(16_384, "AQAB"),
        rsa(2048, "AQ"),
    ] {
        let provider = FakeProvider::with_keys(&[&key]);
        let keys = provider.start().await;
        let start = bad.get(..60).unwrap_or(&bad).to_owned();
        provider.answer(JWKS, Ok(bad.into_bytes()));
        pass(2701).await;
        assert!(provider.fetches() > 1);
        assert_eq!(kids(&keys).await, only(&key, 1), "{start}");
        // And nothing good comes of it where nothing good was before.
        assert_eq!(kids(&provider.start().await).await, None, "{start}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_causes_one_fetch_per_cooldown() {
    let (first, second) = (key(), key());
    let provider = FakeProvider::with_keys(&[&first]);
    let keys = Arc::new(provider.start().await);
    let flood = async || {
        let mut flood = JoinSet::new();
        for _ in 0..1000 {
            let keys = Arc::clone(&keys);
            flood.spawn(async move { keys.keys_for_unknown_kid(ISSUER, 1).await.unwrap().generation });
        }
        flood.join_all().await
    };
    assert_eq!(flood().await, [1; 1000]);
    assert_eq!(provider.fetches(), 2);
    pass(29).await;
    provider.publish(&[&first, &second]);
    assert_eq!(flood().await, [1; 1000], "still cooling");
    assert_eq!(provider.fetches(), 2);
    pass(2).await;
    assert_eq!(flood().await, [2; 1000], "rotated: all share what the one fetch brought");
    assert_eq!(provider.fetches(), 3);
    assert_eq!(flood().await, [2; 1000], "who saw only the older set is answered without a fetch");
    assert_eq!(provider.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flood_while_the_issuer_is_down_keeps_the_good_keys() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    let keys = provider.start().await;
    provider.down();
    for _ in 0..100 {
        assert_eq!(keys.keys_for_unknown_kid(ISSUER, 1).await.unwrap().generation, 1);
    }
    assert_eq!((provider.fetches(), kids(&keys).await), (2, only(&key, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_take_the_fetch_with_it() {
    let (first, second) = (key(), key());
    let provider = FakeProvider::with_keys(&[&first]);
    let keys = provider.start().await;
    provider.publish(&[&second]);
    let held = provider.permits.acquire_many(1000).await.unwrap();
    let impatient = keys.keys_for_unknown_kid(ISSUER, 1);
    assert!(tokio::time::timeout(Duration::from_secs(1), impatient).await.is_err());
    drop(held);
    assert_eq!(keys.keys_for_unknown_kid(ISSUER, 1).await.unwrap().generation, 2);
    assert_eq!(provider.fetches(), 2, "the first caller's fetch went on");
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_takes_over_what_is_known() {
    let key = key();
    let provider = FakeProvider::with_keys(&[&key]);
    let before = provider.start().await;
    provider.down();
    let after = started(provider.source(), || 0, Some(&before)).await;
    assert_eq!(kids(&after).await, only(&key, 1));
    let elsewhere = IssuerSource {
        jwks_uri: Some(Url::parse("https://other.example.com/keys").unwrap()),
        ..provider.source()
    };
    let moved = started(elsewhere, || 0, Some(&before)).await;
    assert_eq!(kids(&moved).await, None, "keys from elsewhere are not carried over");
}

#[tokio::test(start_paused = true)]
async fn refreshing_ends_with_the_keys() {
    let provider = FakeProvider::with_keys(&[&key()]);
    drop(provider.start().await);
    pass(100_000).await;
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test]
async fn over_the_wire_a_rotation_is_found() {
    use axum::{Router, extract::State, http::header::CONTENT_TYPE, routing::get};
    let (first, second) = (key(), key());
    let jwks = |key: &SigningKey| KeySet::new(vec![key.public().clone()]).to_jwks().to_string();
    let served = Arc::new(SyncMutex::new(jwks(&first)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let mut document = metadata(&issuer);
    document["jwks_uri"] = format!("{issuer}/keys").into();
    let json = |body: String| ([(CONTENT_TYPE, "application/json")], body);
    let routes = Router::new()
        .route("/.well-known/openid-configuration", get(async move || json(document.to_string())))
        .route(
            "/keys",
            get(async move |State(served): State<Arc<SyncMutex<String>>>| {
                json(served.lock().unwrap().clone())
            }),
        )
        .with_state(Arc::clone(&served));
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let reach = super::super::fetch::Reach { allow_private_addresses: true, allow_http: true, ca_file: None };
    let fetcher = Arc::new(Fetcher::new(reach).unwrap());
    let source = IssuerSource { issuer: issuer.clone(), jwks_uri: None, fetcher };
    let keys = started(source, || 0, None).await;
    let kid = |known: KeyGeneration| known.keys.iter().next().and_then(|key| key.kid().map(str::to_owned));
    assert_eq!(kid(keys.keys(&issuer).await.unwrap()).as_deref(), Some(first.kid()));
    *served.lock().unwrap() = jwks(&second);
    assert_eq!(kid(keys.keys_for_unknown_kid(&issuer, 1).await.unwrap()).as_deref(), Some(second.kid()));
}
