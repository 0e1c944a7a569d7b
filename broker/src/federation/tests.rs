use deputize_call::sign::{SigningAlgorithm, SigningKey};
use deputize_issuer::{
    clock::TestClock,
    fakes::{Disk, FakeAudit},
    record::{Entry, Kind},
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::backends::spiffe_keys::{Making, SpiffeRing};

const NOW: u64 = 1_800_000_000;
const PARTNER: &str = "partner.test";
/// The greatest number that JSON has exactly.
const HUGE: u64 = (1 << 53) - 1;

/// An endpoint that says what a test wants, and what it was asked with.
#[derive(Default)]
struct FakeEndpoint {
    answers: Mutex<HashMap<String, Result<Vec<u8>, NotFetched>>>,
    asked: Mutex<Vec<(String, Option<String>)>>,
    when: Mutex<Vec<tokio::time::Instant>>,
}

struct Asks(Arc<FakeEndpoint>);

#[async_trait]
impl FetchBundle for Asks {
    async fn fetch(&self, endpoint: &Endpoint, trusted: Option<Arc<Bundle>>) -> Result<Vec<u8>, NotFetched> {
        let trusted = trusted.map(|bundle| format!("{} {}", bundle.trust_domain, bundle.sequence));
        lock(&self.0.when).push(tokio::time::Instant::now());
        lock(&self.0.asked).push((endpoint.url.to_string(), trusted));
        let nobody = NotFetched { reason: "transport", detail: "nobody is there".to_owned() };
        lock(&self.0.answers).get(endpoint.url.as_str()).cloned().unwrap_or(Err(nobody))
    }
}

#[derive(Default)]
struct FakeFolder {
    files: Mutex<HashMap<TrustDomain, OnDisk>>,
    /// What is on record cannot be kept.
    is_full: AtomicBool,
}

struct Keeps(Arc<FakeFolder>);

impl KeepBundles for Keeps {
    fn all(&self) -> Vec<OnDisk> {
        lock(&self.0.files).values().cloned().collect()
    }
    fn keep(&self, kept: &Kept) -> Result<(), NotKept> {
        if self.0.is_full.load(Ordering::SeqCst) {
            return Err(NotKept("it is full".to_owned()));
        }
        let on_disk = OnDisk { settled: kept.clone(), decided: None };
        lock(&self.0.files).insert(kept.bundle.trust_domain.clone(), on_disk);
        Ok(())
    }
    fn note(&self, decided: &Decided) -> Result<(), NotKept> {
        if let Some(file) = lock(&self.0.files).get_mut(&decided.kept.bundle.trust_domain) {
            file.decided = Some(decided.clone());
        }
        Ok(())
    }
    fn forget(&self, trust_domain: &TrustDomain) -> Result<(), NotKept> {
        lock(&self.0.files).remove(trust_domain);
        Ok(())
    }
}

/// What surrounds a federation, and stays through its restarts.
struct World {
    endpoint: Arc<FakeEndpoint>,
    folder: Arc<FakeFolder>,
    audit: Arc<FakeAudit>,
    ring: SpiffeRing,
    files: tempfile::TempDir,
}

/// A federation that is followed. It ends with this value.
struct Running {
    federation: Arc<Federation>,
    stop: watch::Sender<bool>,
}

impl World {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("example.org").unwrap();
        let making = Making { ttl_seconds: 86_400, upstream: None };
        Self {
            endpoint: Arc::default(),
            folder: Arc::default(),
            audit: Arc::new(FakeAudit::new("test")),
            ring: SpiffeRing::open(files.path(), &domain, making, NOW).unwrap(),
            files,
        }
    }

    fn open(&self, configured: &[Federated]) -> Federation {
        let outside = Outside {
            keep: Box::new(Keeps(Arc::clone(&self.folder))),
            fetch: Box::new(Asks(Arc::clone(&self.endpoint))),
            own: self.ring.authorities(),
            audit: Arc::clone(&self.audit) as Arc<dyn Audit>,
            clock: Arc::new(TestClock::at_seconds(NOW)),
            jitter: || 0,
        };
        Federation::open(configured, outside).unwrap()
    }

    /// Starts it, and lets it ask once.
    async fn start(&self, configured: &[Federated]) -> Running {
        let federation = Arc::new(self.open(configured));
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(Arc::clone(&federation).follow(stopping));
        pass(1).await;
        Running { federation, stop }
    }

    fn says(&self, domain: &str, document: &Value) {
        self.answers(domain, Ok(document.to_string().into_bytes()));
    }

    fn answers(&self, domain: &str, answer: Result<Vec<u8>, NotFetched>) {
        lock(&self.endpoint.answers).insert(url(domain).to_string(), answer);
    }

    /// Waits for the next question, and says how long that took, in seconds.
    async fn next_question(&self) -> u64 {
        let asked = self.asked();
        while self.asked() == asked {
            pass(10).await;
        }
        let when = lock(&self.endpoint.when);
        (when[asked] - when[asked - 1]).as_secs()
    }

    fn asked(&self) -> usize {
        lock(&self.endpoint.asked).len()
    }

    fn file(&self, document: &Value) -> PathBuf {
        let path = self.files.path().join("bundle.json");
        std::fs::write(&path, document.to_string()).unwrap();
        path
    }

    /// The changes of bundles on record: what, whose, its number, from where.
    fn recorded(&self) -> Vec<String> {
        let entries = self.audit.entries();
        let of_bundles = entries.iter().filter(|entry| entry.kind == Kind::Bundle);
        let in_words = |entry: &Entry| {
            let bundle = entry.bundle.as_ref().unwrap();
            let result = entry.result.as_ref().unwrap();
            format!("{result} {} {} {}", bundle.trust_domain, bundle.sequence, bundle.from)
        };
        of_bundles.map(in_words).collect()
    }
}

impl Running {
    /// The numbers of the bundles that hold.
    fn held(&self) -> Vec<(String, u64)> {
        let bundles = self.federation.bundles().now();
        bundles.iter().map(|bundle| (bundle.trust_domain.to_string(), bundle.sequence)).collect()
    }

    /// The ids of the partner's keys that hold.
    fn keys(&self) -> Vec<String> {
        let bundles = self.federation.bundles().now();
        let partner = bundles.iter().find(|bundle| bundle.trust_domain.as_str() == PARTNER);
        let keys = partner.iter().flat_map(|bundle| bundle.jwt_authorities.iter());
        keys.map(|key| key.kid().unwrap().to_owned()).collect()
    }

    fn partners(&self) -> Option<u64> {
        self.held().into_iter().find(|(domain, _)| domain == PARTNER).map(|(_, sequence)| sequence)
    }

    fn failure(&self) -> Option<String> {
        self.federation.status().into_iter().next()?.failure.map(|failure| failure.reason)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Lets this much (paused) time pass; everything that falls due runs.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn url(domain: &str) -> url::Url {
    format!("https://{domain}/bundle").parse().unwrap()
}

fn web(domain: &str) -> Federated {
    let profile = Profile::HttpsWeb { ca_file: None };
    let endpoint = Endpoint { url: url(domain), profile, allow_private_addresses: false };
    Federated { trust_domain: TrustDomain::new(domain).unwrap(), bundle_file: None, endpoint: Some(endpoint) }
}

fn known_as(domain: &str, id: &str) -> Federated {
    let profile = Profile::HttpsSpiffe { endpoint_spiffe_id: id.parse().unwrap() };
    let endpoint = Some(Endpoint { url: url(domain), profile, allow_private_addresses: false });
    Federated { endpoint, ..web(domain) }
}

fn key() -> Value {
    let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let mut jwk = Value::Object(key.public().to_jwk());
    jwk["use"] = json!("jwt-svid");
    jwk["kid"] = json!(key.public().thumbprint());
    jwk
}

fn bundle(sequence: u64, keys: &[&Value]) -> Value {
    json!({ "keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": 300 })
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_fetched_again_as_often_as_it_says_and_each_change_is_recorded_and_told() {
    let world = World::new();
    let (one, two) = (key(), key());
    world.says(PARTNER, &bundle(1, &[&one]));
    let running = world.start(&[web(PARTNER)]).await;
    let mut changes = running.federation.bundles().changes();
    changes.mark_unchanged();
    assert_eq!((running.partners(), world.asked()), (Some(1), 1));
    world.says(PARTNER, &bundle(2, &[&one, &two]));
    pass(290).await;
    assert_eq!((running.partners(), world.asked()), (Some(1), 1), "not before its time");
    pass(10).await;
    assert_eq!((running.partners(), world.asked()), (Some(2), 2));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    pass(300).await;
    assert_eq!(world.asked(), 3);
    assert!(!changes.has_changed().unwrap(), "the same again is no change");
    assert_eq!(world.recorded(), ["taken partner.test 1 endpoint", "taken partner.test 2 endpoint"]);
    // A hint is only a hint.
    for (hint, next) in [(1, 60), (10_000_000, 24 * 3600)] {
        let mut hasty = bundle(2, &[&one, &two]);
        hasty["spiffe_refresh_hint"] = json!(hint);
        world.says(PARTNER, &hasty);
        running.federation.reread(&[web(PARTNER)]).await.unwrap().take().await;
        pass(1).await;
        let asked = world.asked();
        pass(next - 5).await;
        assert_eq!(world.asked(), asked, "{hint}");
        pass(5).await;
        assert_eq!(world.asked(), asked + 1, "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_leaves_the_last_good_one_and_is_told() {
    let world = World::new();
    let (one, two) = (key(), key());
    world.says(PARTNER, &bundle(5, &[&one]));
    let running = world.start(&[web(PARTNER)]).await;
    let ca = {
        let own = world.ring.authorities();
        let document = bundle::to_document(&own.ring().bundle).unwrap();
        document["keys"][0].clone()
    };
    let not_fetched = |reason| Err(NotFetched { reason, detail: "so it is".to_owned() });
    let says = |document: Value| Ok(document.to_string().into_bytes());
    let mut unnumbered = bundle(0, &[&one, &two]);
    unnumbered.as_object_mut().unwrap().remove("spiffe_sequence");
    let mut waits = Vec::new();
    for (what, answer, reason) in [
        ("an older one", says(bundle(4, &[&one, &two])), "sequence"),
        ("one without a number", says(unnumbered), "sequence"),
        ("another trust domain's", says(bundle(6, &[&ca])), "document"),
        ("none", says(bundle(6, &[])), "document"),
        ("other uses alone", says(json!({ "keys": [{ "kty": "EC", "use": "sig" }] })), "document"),
        ("no JSON", Ok(b"<html>".to_vec()), "document"),
        ("too much", Ok(vec![b' '; 300 << 10]), "document"),
        ("redirected", not_fetched("status"), "status"),
        ("too large", not_fetched("too_large"), "too_large"),
        ("slow", not_fetched("timeout"), "timeout"),
        ("somebody else", not_fetched("transport"), "transport"),
    ] {
        world.answers(PARTNER, answer);
        waits.push(world.next_question().await);
        assert_eq!(running.partners(), Some(5), "{what}");
        assert_eq!(running.failure().as_deref(), Some(reason), "{what}");
    }
    let mut later = vec![900; 11];
    later[..3].copy_from_slice(&[300, 300, 600]);
    assert_eq!(waits, later, "and nobody asks more often for it: rather ever less, up to a bound");
    assert_eq!(world.recorded(), ["taken partner.test 5 endpoint"]);
    world.says(PARTNER, &bundle(6, &[&two]));
    assert_eq!(world.next_question().await, 900);
    assert_eq!((running.partners(), running.failure()), (Some(6), None));
    assert_eq!(world.next_question().await, 300, "all is well again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_trusted_more_without_a_record_and_less_at_once() {
    let world = World::new();
    let (one, two) = (key(), key());
    world.says(PARTNER, &bundle(1, &[&one, &two]));
    let running = world.start(&[web(PARTNER)]).await;
    world.audit.set_disk(Disk::Broken);
    world.says(PARTNER, &bundle(2, &[&one, &two, &key()]));
    pass(300).await;
    assert_eq!((running.partners(), running.failure().as_deref()), (Some(1), Some("unrecorded")));
    world.says(PARTNER, &bundle(3, &[&one]));
    pass(300).await;
    assert_eq!((running.partners(), running.failure().as_deref()), (Some(3), Some("unrecorded")));
    world.audit.set_disk(Disk::Sound);
    pass(300).await;
    assert_eq!(running.failure(), None);
    assert_eq!(world.recorded(), ["taken partner.test 1 endpoint", "taken partner.test 3 endpoint"]);
    // One that is new in part: what is gone is trusted no longer, what came is not trusted yet.
    let (three, four, five) = (key(), key(), key());
    world.says(PARTNER, &bundle(4, &[&one, &three, &four]));
    pass(300).await;
    let id = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    assert_eq!(running.keys(), [&one, &three, &four].map(id));
    world.audit.set_disk(Disk::Broken);
    world.says(PARTNER, &bundle(5, &[&four, &five]));
    pass(300).await;
    assert_eq!((running.keys(), running.failure().as_deref()), (vec![id(&four)], Some("unrecorded")));
    world.says(PARTNER, &bundle(4, &[&one, &three, &four]));
    pass(300).await;
    assert_eq!(running.keys(), [id(&four)], "and the one before does not come back");
    // Nothing of it was known: nobody of that trust domain is trusted.
    let six = key();
    world.says(PARTNER, &bundle(6, &[&six]));
    pass(300).await;
    assert_eq!((running.keys(), running.failure().as_deref()), (Vec::new(), Some("unrecorded")));
    assert_eq!(running.federation.status()[0].bundle, None);
    world.audit.set_disk(Disk::Sound);
    pass(10).await;
    assert_eq!((running.keys(), running.failure()), (vec![id(&six)], None), "nobody need ask for it again");
    assert_eq!(world.recorded()[2..], ["taken partner.test 4 endpoint", "taken partner.test 6 endpoint"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_without_a_record_does_not_come_back_with_a_restart() {
    let id = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    let (one, two, three, four) = (key(), key(), key(), key());
    let away = NotFetched { reason: "transport", detail: String::new() };
    for next in [bundle(5, &[&two, &four]), bundle(5, &[&four])] {
        let world = World::new();
        world.says(PARTNER, &bundle(4, &[&one, &two, &three]));
        let running = world.start(&[web(PARTNER)]).await;
        world.audit.set_disk(Disk::Broken);
        world.says(PARTNER, &next);
        pass(300).await;
        let held = running.keys();
        assert!(held.len() < 2, "{held:?}");
        // What has gone once is gone, though the next one has it again.
        world.says(PARTNER, &bundle(6, &[&one, &two, &four]));
        pass(300).await;
        assert_eq!(running.keys(), held);
        drop(running);
        world.answers(PARTNER, Err(away.clone()));
        let running = world.start(&[web(PARTNER)]).await;
        assert_eq!(running.keys(), held, "through a start without a record");
        // The one before does not come back either.
        world.says(PARTNER, &bundle(4, &[&one, &two, &three]));
        world.next_question().await;
        assert_eq!(running.keys(), held);
        drop(running);
        world.audit.set_disk(Disk::Sound);
        world.answers(PARTNER, Err(away.clone()));
        let running = world.start(&[web(PARTNER)]).await;
        assert_eq!(running.keys(), [&one, &two, &four].map(id), "on record at last, without its endpoint");
        assert_eq!(world.recorded(), ["taken partner.test 4 endpoint", "taken partner.test 6 endpoint"]);
        assert!(lock(&world.folder.files).values().all(|file| file.decided.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_kept_after_its_record_does_not_come_back_with_a_restart() {
    let id = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    let (world, one, two) = (World::new(), key(), key());
    world.says(PARTNER, &bundle(1, &[&one, &two]));
    let running = world.start(&[web(PARTNER)]).await;
    world.folder.is_full.store(true, Ordering::SeqCst);
    world.says(PARTNER, &bundle(2, &[&two]));
    pass(300).await;
    assert_eq!(running.keys(), [id(&two)]);
    drop(running);
    world.audit.set_disk(Disk::Broken);
    world.answers(PARTNER, Err(NotFetched { reason: "transport", detail: String::new() }));
    let running = world.start(&[web(PARTNER)]).await;
    assert_eq!(running.keys(), [id(&two)]);
}

#[tokio::test(start_paused = true)]
async fn a_relationship_that_ended_without_a_record_does_not_come_back_with_a_restart() {
    let (world, one) = (World::new(), key());
    world.says(PARTNER, &bundle(5, &[&one]));
    let running = world.start(&[web(PARTNER)]).await;
    let reload = async |configured: &[Federated]| {
        running.federation.reread(configured).await.unwrap().take().await;
    };
    world.audit.set_disk(Disk::Broken);
    reload(&[]).await;
    world.answers(PARTNER, Err(NotFetched { reason: "transport", detail: String::new() }));
    reload(&[web(PARTNER)]).await;
    assert!(running.held().is_empty());
    // As soon as there can be a record, it tells of the end before it tells of a beginning.
    world.audit.set_disk(Disk::Sound);
    world.says(PARTNER, &bundle(3, &[&one]));
    let member = Arc::clone(&running.federation.members()[0]);
    Arc::clone(&running.federation).refresh(member).await;
    let ended = ["taken partner.test 5 endpoint", "forgotten partner.test 5 endpoint"];
    assert_eq!(world.recorded()[..2], ended);
    assert_eq!(world.recorded()[2..], ["taken partner.test 3 endpoint"]);
    assert_eq!(lock(&world.folder.files).len(), 1);
    world.audit.set_disk(Disk::Broken);
    reload(&[]).await;
    world.answers(PARTNER, Err(NotFetched { reason: "transport", detail: String::new() }));
    reload(&[web(PARTNER)]).await;
    world.audit.set_disk(Disk::Sound);
    pass(10).await;
    assert_eq!(world.recorded().last().unwrap(), "forgotten partner.test 3 endpoint");
    drop(running);
    let running = world.start(&[web(PARTNER)]).await;
    assert!(running.held().is_empty(), "nobody configured a bundle, and no endpoint answered");
}

#[tokio::test(start_paused = true)]
async fn numbers_that_were_kept_before_endpoints_were_told_apart_go_on_to_order() {
    let (world, one) = (World::new(), key());
    world.says(PARTNER, &bundle(5, &[&one]));
    drop(world.start(&[web(PARTNER)]).await);
    lock(&world.folder.files).values_mut().for_each(|file| file.settled.endpoint = None);
    world.says(PARTNER, &bundle(4, &[&key()]));
    let running = world.start(&[web(PARTNER)]).await;
    assert_eq!((running.partners(), running.failure().as_deref()), (Some(5), Some("sequence")));
    world.says(PARTNER, &bundle(6, &[&one]));
    world.next_question().await;
    assert_eq!(running.partners(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_recorded_too_before_anything_more_is_trusted() {
    let world = World::new();
    let (one, two, three) = (key(), key(), key());
    let file = |document: &Value| Federated {
        bundle_file: Some(world.file(document)),
        endpoint: None,
        ..web(PARTNER)
    };
    let id = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    world.audit.set_disk(Disk::Broken);
    let running = world.start(&[file(&bundle(1, &[&one, &two]))]).await;
    assert_eq!((running.keys(), running.failure().as_deref()), (Vec::new(), Some("unrecorded")));
    world.audit.set_disk(Disk::Sound);
    pass(10).await;
    assert_eq!((running.keys(), running.failure()), ([&one, &two].map(id).to_vec(), None));
    world.audit.set_disk(Disk::Broken);
    let reload = async |configured: &[Federated]| {
        running.federation.reread(configured).await.unwrap().take().await;
    };
    reload(&[file(&bundle(2, &[&two, &three]))]).await;
    assert_eq!(running.keys(), [id(&two)], "what is gone is gone, what came waits");
    // Read again meanwhile, it is still the same that waits.
    reload(&[file(&bundle(2, &[&two, &three]))]).await;
    assert_eq!(running.keys(), [id(&two)]);
    world.audit.set_disk(Disk::Sound);
    pass(10).await;
    assert_eq!(running.keys(), [&two, &three].map(id));
    world.audit.set_disk(Disk::Broken);
    reload(&[]).await;
    assert!(running.held().is_empty(), "the relationship ended");
    assert_eq!(world.recorded(), ["taken partner.test 1 file", "taken partner.test 2 file"]);
    assert_eq!(lock(&world.folder.files).len(), 1);
    world.audit.set_disk(Disk::Sound);
    pass(10).await;
    assert_eq!(world.recorded().last().unwrap(), "forgotten partner.test 2 file");
    assert!(lock(&world.folder.files).is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_of_a_trust_domain_is_not_held_against_the_numbers_of_the_first() {
    let world = World::new();
    let (one, two) = (key(), key());
    world.says(PARTNER, &bundle(HUGE, &[&one]));
    let running = world.start(&[web(PARTNER)]).await;
    assert_eq!(running.partners(), Some(HUGE));
    let moved = |url: &str| {
        let mut moved = web(PARTNER);
        moved.endpoint.as_mut().unwrap().url = url.parse().unwrap();
        moved
    };
    let new = moved("https://new.partner.test/bundle");
    running.federation.reread(std::slice::from_ref(&new)).await.unwrap().take().await;
    pass(1).await;
    assert_eq!(running.partners(), Some(HUGE), "it serves until the new one answers");
    drop(running);
    let running = world.start(std::slice::from_ref(&new)).await;
    assert_eq!(running.partners(), Some(HUGE), "through a restart too");
    let says = |document: Value| {
        let answer = Ok(document.to_string().into_bytes());
        lock(&world.endpoint.answers).insert("https://new.partner.test/bundle".to_owned(), answer);
    };
    says(bundle(3, &[&two]));
    world.next_question().await;
    assert_eq!(running.partners(), Some(3));
    // From then on its own numbers count.
    says(bundle(2, &[&one]));
    world.next_question().await;
    assert_eq!((running.partners(), running.failure().as_deref()), (Some(3), Some("sequence")));
    drop(running);
    // The same place, authenticated otherwise, is another endpoint.
    let mut known = known_as(PARTNER, "spiffe://example.org/deputize/broker");
    known.endpoint.as_mut().unwrap().url = new.endpoint.unwrap().url;
    let running = world.start(&[known]).await;
    assert_eq!(running.partners(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_newest_holds_while_its_endpoint_is_away() {
    let world = World::new();
    let first = bundle(7, &[&key()]);
    let configured = [Federated { bundle_file: Some(world.file(&first)), ..web(PARTNER) }];
    let running = world.start(&configured).await;
    assert_eq!(running.partners(), Some(7), "the first one, until its endpoint answers");
    world.says(PARTNER, &bundle(9, &[&key()]));
    pass(300).await;
    assert_eq!(running.partners(), Some(9));
    drop(running);
    world.answers(PARTNER, Err(NotFetched { reason: "transport", detail: String::new() }));
    let running = world.start(&configured).await;
    assert_eq!(running.partners(), Some(9), "what stands in the file was followed already");
    drop(running);
    // It began anew: whoever configures its new bundle knows better (and its number is lower).
    world.file(&bundle(2, &[&key()]));
    let running = world.start(&configured).await;
    assert_eq!(running.partners(), Some(2));
    let taken = |what: &str| format!("taken partner.test {what}");
    assert_eq!(world.recorded(), ["7 file", "9 endpoint", "2 file"].map(taken));
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_all_or_nothing_asks_at_once_and_forgets_who_is_gone() {
    let world = World::new();
    let file = Federated {
        bundle_file: Some(world.file(&bundle(1, &[&key()]))),
        endpoint: None,
        ..web("file.test")
    };
    world.says(PARTNER, &bundle(1, &[&key()]));
    let running = world.start(&[web(PARTNER), file.clone()]).await;
    assert_eq!(running.held(), [(PARTNER.to_owned(), 1), ("file.test".to_owned(), 1)]);
    std::fs::write(world.files.path().join("bundle.json"), "{").unwrap();
    assert!(running.federation.reread(std::slice::from_ref(&file)).await.is_err());
    assert_eq!(running.held().len(), 2, "the old ones stay");
    world.file(&bundle(2, &[&key()]));
    world.says(PARTNER, &bundle(2, &[&key()]));
    let asked = world.asked();
    running.federation.reread(&[file.clone(), web(PARTNER)]).await.unwrap().take().await;
    pass(1).await;
    assert_eq!(world.asked(), asked + 1);
    assert_eq!(running.held(), [("file.test".to_owned(), 2), (PARTNER.to_owned(), 2)]);
    running.federation.reread(&[file]).await.unwrap().take().await;
    assert_eq!(running.held(), [("file.test".to_owned(), 2)]);
    assert_eq!(world.recorded().last().unwrap(), "forgotten partner.test 2 endpoint");
    assert_eq!(lock(&world.folder.files).len(), 1);
    let asked = world.asked();
    pass(1000).await;
    assert_eq!(world.asked(), asked, "and nobody asks it any more");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_with_an_svid_is_known_by_the_newest_bundle_of_that_svids_trust_domain() {
    let world = World::new();
    let first = bundle(3, &[&key()]);
    let itself = Federated {
        bundle_file: Some(world.file(&first)),
        ..known_as(PARTNER, "spiffe://partner.test/deputize/broker")
    };
    let others = known_as("other.test", "spiffe://partner.test/deputize/broker");
    let ours = known_as("ours.test", "spiffe://example.org/deputize/broker");
    let nobodys = known_as("nobodys.test", "spiffe://elsewhere.test/x");
    world.says(PARTNER, &bundle(4, &[&key()]));
    let _running = world.start(&[itself, others, ours, nobodys]).await;
    pass(300).await;
    let asked = lock(&world.endpoint.asked).clone();
    let of = |domain: &str| {
        let all = asked.iter().filter(|(asked, _)| *asked == url(domain).to_string());
        all.map(|(_, trusted)| trusted.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(of(PARTNER), ["partner.test 3", "partner.test 4"]);
    assert_eq!(of("other.test").last().unwrap(), "partner.test 4");
    let own = world.ring.authorities().ring().bundle.sequence;
    assert_eq!(of("ours.test").last().unwrap(), &format!("example.org {own}"));
    assert_eq!(of("nobodys.test").last().unwrap(), "");
}
