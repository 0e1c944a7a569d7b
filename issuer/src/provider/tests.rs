//! Tokens of each vendor's shape, both kinds; and beside each accepted one the neighbours that are refused.

mod cache;
mod encrypted;
mod vendors;
mod wrong;

use super::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::sign::{SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use std::sync::{
    LazyLock, Mutex,
    atomic::{AtomicUsize, Ordering},
};

const NOW: u64 = 1_790_000_000;
const TENANT: &str = "acme";

/// The provider's signing key; RSA as at the vendors, made once for all tests.
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(SigningAlgorithm::RS256).unwrap());
static ES256: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(SigningAlgorithm::ES256).unwrap());

/// Keys as an issuer would have published them, changed by hand.
#[derive(Default)]
struct FakeKeys {
    known: Mutex<HashMap<String, KeyGeneration>>,
    /// What a fetch after an unknown key would bring.
    next: Mutex<Option<KeySet>>,
    fetches: AtomicUsize,
}

impl FakeKeys {
    fn publish(&self, issuer: &str, keys: &[&SigningKey]) {
        let mut known = self.known.lock().unwrap();
        let generation = known.get(issuer).map_or(0, |known| known.generation) + 1;
        let keys = Arc::new(KeySet::new(keys.iter().map(|key| key.public().clone()).collect()));
        known.insert(issuer.to_owned(), KeyGeneration { keys, generation });
    }
    fn forget(&self, issuer: &str) {
        self.known.lock().unwrap().remove(issuer);
    }
}

#[async_trait]
impl ProviderKeys for FakeKeys {
    async fn keys(&self, issuer: &str) -> Result<KeyGeneration, KeysUnavailable> {
        self.known.lock().unwrap().get(issuer).cloned().ok_or(KeysUnavailable)
    }
    async fn keys_for_unknown_kid(&self, issuer: &str, seen: u64) -> Result<KeyGeneration, KeysUnavailable> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        if let Some(keys) = self.next.lock().unwrap().take() {
            let newer = KeyGeneration { keys: Arc::new(keys), generation: seen + 1 };
            self.known.lock().unwrap().insert(issuer.to_owned(), newer);
        }
        self.keys(issuer).await
    }
}

/// One provider, its key, and who asks.
struct Scene {
    providers: Providers,
    keys: Arc<FakeKeys>,
    allowed: Vec<String>,
}

impl Scene {
    fn new(provider: Provider, allowed: &[&str]) -> Self {
        Self::with_decrypter(provider, allowed, None)
    }
    fn with_decrypter(
        provider: Provider,
        allowed: &[&str],
        decrypter: Option<Arc<dyn TokenDecrypter>>,
    ) -> Self {
        let keys = Arc::new(FakeKeys::default());
        keys.publish(&provider.issuer, &[&RSA, &ES256]);
        let providers = Providers::new(vec![provider], keys.clone(), decrypter).unwrap();
        Self { providers, keys, allowed: allowed.iter().map(|&name| name.to_owned()).collect() }
    }
    fn verify(&self, token: &str, kind: SubjectTokenType) -> Result<VerifiedUserToken, UserTokenError> {
        self.verify_at(token, kind, NOW)
    }
    fn verify_at(
        &self,
        token: &str,
        kind: SubjectTokenType,
        now_seconds: u64,
    ) -> Result<VerifiedUserToken, UserTokenError> {
        ready(self.providers.verify(token, kind, TENANT, &self.allowed, now_seconds))
    }
    fn reason(&self, token: &str, kind: SubjectTokenType) -> &'static str {
        self.verify(token, kind).expect_err("must be refused").reason()
    }
}

/// The fakes never wait.
fn ready<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A token with any header, signed by `key`. `kid` is the key's own unless given; `null` leaves a member out.
fn sign(key: &SigningKey, header: Value, claims: &Value) -> String {
    let alg = match key.algorithm() {
        SigningAlgorithm::ES256 => "ES256",
        SigningAlgorithm::EdDSA => "EdDSA",
        SigningAlgorithm::RS256 => "RS256",
    };
    let mut whole = json!({ "alg": alg, "typ": "JWT", "kid": key.kid() });
    merge(&mut whole, &header);
    sign_text(key, &whole.to_string(), &claims.to_string())
}

fn sign_text(key: &SigningKey, header: &str, claims: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign_bytes(input.as_bytes()).unwrap());
    format!("{input}.{signature}")
}

/// `claims` with `changes`; `null` takes a member out.
fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    merge(&mut claims, &changes);
    claims
}

fn merge(into: &mut Value, changes: &Value) {
    let into = into.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

/// A plain access token of RFC 9068.
fn plain_claims() -> Value {
    json!({
        "iss": "https://id.example.com", "sub": "alice", "aud": "https://platform.example.com",
        "client_id": "platform", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300, "jti": "t1",
        "scope": "openid", "auth_time": NOW - 60, "acr": "aal2", "amr": ["pwd", "otp"], "groups": ["staff"],
    })
}

fn plain() -> Scene {
    let mut provider = Preset::Generic.provider("https://id.example.com", TENANT);
    provider.claims.roles.insert("support".to_owned(), vec!["staff".to_owned()]);
    Scene::new(provider, &["https://platform.example.com", "platform"])
}

fn at_jwt(claims: &Value) -> String {
    sign(&ES256, json!({ "typ": "at+jwt" }), claims)
}
