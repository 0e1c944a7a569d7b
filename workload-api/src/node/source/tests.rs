use super::*;
use crate::fakes::{FakeSource, entry};
use deputize_issuer::{clock::TestClock, entry::Draft, words::Remedy};
use serde_json::{Value, json};
use spiffe::TrustDomain;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const NOW: u64 = 1_800_000_000;
const NODE: &str = "spiffe://example.org/deputize/node/edge-1";
const WEB: &str = "spiffe://example.org/web";

/// A broker whose answers are those of a fake source, and which can be away or say another thing.
struct FakeBroker {
    source: FakeSource,
    asked: AtomicU64,
    failure: Mutex<Option<SourceError>>,
    says: Mutex<Option<String>>,
}

#[async_trait]
impl NodeBroker for FakeBroker {
    async fn x509_svid(&self, request: &X509Request) -> Result<X509Answer, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(!request.csr.is_empty());
        Ok(X509Answer {
            spiffe_id: WEB.to_owned(),
            chain: vec![STANDARD.encode(b"no certificate")],
            not_before: NOW,
            not_after: NOW + 3600,
            hint: String::new(),
            authorities: vec![wire::to_hex(&[1; 32])],
        })
    }

    async fn jwt_svid(&self, request: &JwtRequest) -> Result<JwtAnswer, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(failure) = self.failure.lock().unwrap().clone() {
            return Err(failure);
        }
        let id = self.says.lock().unwrap().clone().unwrap_or_else(|| WEB.to_owned());
        let entry = entry(&request.entry, &id, NODE, 1000).unwrap();
        self.source.set_entries(vec![entry.clone()]);
        let svid = self.source.jwt_svid(&process(), &entry, &request.audiences).await?;
        Ok(JwtAnswer {
            spiffe_id: WEB.to_owned(),
            token: wire::Told::new(svid.token.expose().clone()),
            expires_at: svid.expires_at_seconds,
            hint: String::new(),
        })
    }

    async fn exchange(&self, ask: &ExchangeAsk) -> Result<ExchangeAnswer, NotExchanged> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.failure.lock().unwrap().is_some() {
            return Err(NotExchanged::unavailable("away"));
        }
        let said = json!([ask.entry, ask.process, ask.request.subject_token, ask.request.dpop]);
        Ok(ExchangeAnswer::new(ExchangeResponse { access_token: said.to_string(), ..Default::default() }))
    }

    async fn denied(&self, _: &DeniedRequest) -> Result<(), SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Setting {
    source: AgentSource,
    broker: Arc<FakeBroker>,
    clock: Arc<TestClock>,
    state: State,
}

impl Setting {
    fn new() -> Self {
        let clock = Arc::new(TestClock::at_seconds(NOW));
        let domain = TrustDomain::new("example.org").unwrap();
        let source = FakeSource::new(domain.clone(), Arc::clone(&clock) as _).unwrap();
        let mut jwk = source.jwt_key().public().to_jwk();
        jwk.insert("use".to_owned(), "jwt-svid".into());
        let state = State {
            version: 1,
            trust_domain: "example.org".to_owned(),
            entries: vec![draft("web", WEB)],
            bundle: json!({ "keys": [jwk] }),
            federated: BTreeMap::new(),
            authorities: vec![wire::to_hex(&[1; 32])],
            tainted: Vec::new(),
            jwt_keys: vec!["one".to_owned()],
        };
        let (failure, says) = (Mutex::new(None), Mutex::new(None));
        let broker = Arc::new(FakeBroker { source, asked: AtomicU64::new(0), failure, says });
        let own = wire::read_bundle(domain, &state.bundle).unwrap();
        let node = SpiffeId::new(NODE).unwrap();
        let source = AgentSource::start(node, own, Arc::clone(&broker) as _, Arc::clone(&clock) as _);
        source.take(&state).unwrap();
        Self { source, broker, clock, state }
    }

    fn entry(&self) -> Option<Arc<Entry>> {
        self.source.entitled(&process()).pop()
    }

    async fn jwt(&self, audience: &str) -> Result<String, SourceError> {
        let entry = self.entry().ok_or(SourceError::NotEntitled)?;
        let svid = self.source.jwt_svid(&process(), &entry, &[audience.to_owned()]).await?;
        Ok(svid.token.expose().clone())
    }

    fn asked(&self) -> u64 {
        self.broker.asked.load(Ordering::SeqCst)
    }
}

fn draft(id: &str, spiffe_id: &str) -> Value {
    let selectors = vec!["unix:uid:1000".to_owned()];
    let draft = Draft { id: id.to_owned(), spiffe_id: spiffe_id.to_owned(), selectors, ..Draft::default() };
    serde_json::to_value(draft).unwrap()
}

fn process() -> Workload {
    let selectors = ["unix:uid:1000".parse().unwrap()].into();
    Workload::attested(SpiffeId::new(NODE).unwrap(), selectors)
}

#[tokio::test]
async fn a_token_is_asked_for_once_until_half_of_its_life_is_over() {
    let setting = Setting::new();
    let first = setting.jwt("a").await.unwrap();
    assert_eq!(setting.jwt("a").await.unwrap(), first);
    assert_eq!(setting.asked(), 1);
    setting.jwt("b").await.unwrap();
    assert_eq!(setting.asked(), 2, "another audience is another token");
    setting.clock.advance(Duration::from_secs(200));
    setting.jwt("a").await.unwrap();
    assert_eq!(setting.asked(), 3);
}

#[tokio::test]
async fn what_is_left_of_a_token_serves_while_the_broker_is_away_and_no_longer() {
    let setting = Setting::new();
    let first = setting.jwt("a").await.unwrap();
    *setting.broker.failure.lock().unwrap() = Some(SourceError::Unavailable("away"));
    setting.clock.advance(Duration::from_secs(200));
    assert_eq!(setting.jwt("a").await.unwrap(), first);
    assert_eq!(setting.jwt("b").await, Err(SourceError::Unavailable("away")), "there is none for another");
    setting.clock.advance(Duration::from_secs(100));
    assert_eq!(setting.jwt("a").await, Err(SourceError::Unavailable("away")), "it is over");
    *setting.broker.failure.lock().unwrap() = Some(SourceError::NotEntitled);
    assert_eq!(setting.jwt("a").await, Err(SourceError::NotEntitled));
}

#[tokio::test]
async fn a_token_is_forgotten_with_the_key_that_signed_it_or_when_its_entry_changes() {
    let mut setting = Setting::new();
    setting.jwt("a").await.unwrap();
    setting.state.jwt_keys = vec!["two".to_owned()];
    setting.source.take(&setting.state).unwrap();
    setting.jwt("a").await.unwrap();
    assert_eq!(setting.asked(), 2);
    setting.state.entries[0]["hint"] = json!("internal");
    setting.source.take(&setting.state).unwrap();
    setting.jwt("a").await.unwrap();
    assert_eq!(setting.asked(), 3);
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_given() {
    let setting = Setting::new();
    *setting.broker.says.lock().unwrap() = Some("spiffe://example.org/another".to_owned());
    assert!(matches!(setting.jwt("a").await, Err(SourceError::Unavailable(_))));
    let entry = setting.entry().unwrap();
    let rubbish = setting.source.x509_svid(&process(), &entry).await;
    assert!(matches!(rubbish, Err(SourceError::Unavailable(_))));
}

#[tokio::test]
async fn a_state_that_cannot_be_leaves_the_former_one() {
    let setting = Setting::new();
    let changed = |change: fn(&mut State)| {
        let mut state = setting.state.clone();
        change(&mut state);
        state
    };
    for (what, state) in [
        ("another trust domain's", changed(|state| state.trust_domain = "other.org".to_owned())),
        ("no bundle", changed(|state| state.bundle = json!({ "keys": [] }))),
        ("no authority", changed(|state| state.tainted = vec!["zz".to_owned()])),
    ] {
        assert!(setting.source.take(&state).is_err(), "{what}");
        assert!(setting.entry().is_some(), "{what}");
    }
}

#[tokio::test]
async fn a_member_that_cannot_be_read_is_left_out_and_the_rest_is_taken() {
    let setting = Setting::new();
    let taken = |change: &dyn Fn(&mut State)| {
        let mut state = setting.state.clone();
        state.entries.push(draft("other", "spiffe://example.org/other"));
        change(&mut state);
        let left_out = setting.source.take(&state).unwrap();
        let ids: Vec<String> =
            setting.source.entitled(&process()).iter().map(|entry| entry.id.to_string()).collect();
        (ids, left_out.len())
    };
    let both = (vec!["other".to_owned(), "web".to_owned()], 0);
    assert_eq!(taken(&|_| ()), both);
    let one = (vec!["other".to_owned()], 1);
    let odd_exchange = json!({ "tenant": 7 });
    // Each is gone, and not there as it was before.
    assert_eq!(taken(&|state| state.entries[0]["selectors"] = json!("unix:uid:1000")), one, "another type");
    assert_eq!(taken(&|_| ()), both);
    assert_eq!(taken(&|state| state.entries[0]["selectors"] = json!(["x"])), one, "no selector");
    assert_eq!(taken(&|state| state.entries[0]["spiffe_id"] = json!("spiffe://other.org/x")), one);
    assert_eq!(taken(&|state| state.entries[0]["spiffe_id"] = json!(NODE)), one, "a node's ID");
    assert_eq!(taken(&|state| state.entries[0]["exchange"] = odd_exchange.clone()), one, "what it lets");
    assert_eq!(taken(&|state| state.entries[0]["not_before"] = json!(1)), one, "a member of newer brokers");
    assert_eq!(taken(&|state| state.entries[0] = json!(null)), one, "nothing at all");
    assert_eq!(taken(&|state| state.entries.push(draft("web", WEB))), one, "two of one name");
    let foreign = |state: &mut State| {
        state.federated.insert("other.org".to_owned(), json!({ "keys": "none" }));
    };
    assert_eq!(taken(&foreign), (both.0.clone(), 1), "a foreign bundle");
    assert!(setting.source.bundles().federated.is_empty());
    assert_eq!(taken(&|_| ()), both);
}

#[tokio::test]
async fn a_token_that_one_process_got_is_not_given_to_another() {
    let setting = Setting::new();
    let node = || SpiffeId::new(NODE).unwrap();
    let other = |more: &str| {
        let selectors = ["unix:uid:1000", more].map(|text| text.parse().unwrap()).into();
        Workload::attested(node(), selectors)
    };
    let entry = setting.entry().unwrap();
    let audiences = ["a".to_owned()];
    let ask = async |workload: &Workload| {
        setting.source.jwt_svid(workload, &entry, &audiences).await.unwrap();
        setting.asked()
    };
    assert_eq!(ask(&process()).await, 1);
    assert_eq!(ask(&process()).await, 1, "of which nothing else is known");
    assert_eq!(ask(&other("unix:path:/usr/bin/one")).await, 2);
    assert_eq!(ask(&other("unix:path:/usr/bin/two")).await, 3);
    assert_eq!(ask(&process().contained()).await, 4);
    assert_eq!(ask(&other("unix:path:/usr/bin/one")).await, 4);
    // The broker is away: what another has is none of its.
    *setting.broker.failure.lock().unwrap() = Some(SourceError::Unavailable("away"));
    let refused = setting.source.jwt_svid(&other("unix:path:/usr/bin/three"), &entry, &audiences).await;
    assert_eq!(refused.map(drop), Err(SourceError::Unavailable("away")));
}

#[tokio::test]
async fn an_exchange_is_the_brokers_and_is_asked_once() {
    let setting = Setting::new();
    let request = ExchangeRequest {
        dpop: "a proof".to_owned(),
        subject_token: "a token".to_owned(),
        ..ExchangeRequest::default()
    };
    let entry = setting.entry().unwrap();
    let exchanged = setting.source.exchange(&process(), &entry, &request).await.unwrap();
    let said = json!(["web", { "selectors": ["unix:uid:1000"], "contained": false }, "a token", "a proof"]);
    assert_eq!(exchanged.access_token, said.to_string());
    setting.source.exchange(&process(), &entry, &request).await.unwrap();
    assert_eq!(setting.asked(), 2, "nothing is kept");
    *setting.broker.failure.lock().unwrap() = Some(SourceError::Unavailable("away"));
    let refused = setting.source.exchange(&process(), &entry, &request).await.unwrap_err();
    assert_eq!((refused.words.remedy, setting.asked()), (Remedy::Later, 3));
}

#[tokio::test]
async fn a_node_that_is_none_any_more_gives_nothing_and_says_so() {
    let mut setting = Setting::new();
    let mut changes = setting.source.changes();
    changes.mark_unchanged();
    assert!(setting.source.stands_by(&[[1; 32]]) && !setting.source.stands_by(&[[2; 32]]));
    setting.source.withdraw();
    changes.changed().await.unwrap();
    assert!(setting.entry().is_none());
    setting.state.tainted = vec![wire::to_hex(&[1; 32])];
    setting.source.take(&setting.state).unwrap();
    assert!(setting.entry().is_some() && !setting.source.stands_by(&[[1; 32]]));
}
