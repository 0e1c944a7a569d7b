use super::*;
use deputize_call::{
    level::Level,
    nonce::NonceMaker,
    once::OnceSet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::{
    authority::{
        Authorities, Authority, AuthorityError, AuthorityRing, Kind, Made, Member, NotNow, Public, Register,
    },
    bundle::ForeignBundles,
    client::Clients,
    clock::{Clock as _, ClockWatch, TestClock},
    desk::{Rules, Settings},
    drift::DriftedSet,
    entry::{Bounds, Draft, Entries, LiveEntries, Origin},
    error::DenialReason,
    fakes::{Disk, FakeAudit, FakeProviderKeys, FakeReplay},
    keys::KeySource,
    limits::{Limits, Rate},
    lineage::Lineage,
    mint::StsRefusal,
    policy::{PolicyEngine, PolicyFile},
    provider::Providers,
    record::{Kind as RecordKind, Pseudonyms, Refusals, SvidKind},
    registry::Registry,
    revocation::RevokedSet,
    svid::{Bundle, SvidSettings},
    templates::{AwsAccounts, Templates},
    transaction::TransactionIds,
};
use spiffe::{SpiffeId, TrustDomain};
use std::{collections::HashMap, task::Poll, time::Duration};

const NOW: u64 = 1_800_000_000;
const NODE: &str = "spiffe://example.org/deputize/node/local";
const DAY: u64 = 86_400;

#[tokio::test]
async fn who_is_entitled_to_nothing_is_on_record_once_and_beyond_the_quota_counted() {
    let set = Setting::new();
    let nobody = process("unix:uid:7");
    assert!(set.source.entitled(&nobody).is_empty());
    // One user's share of an hour, and three more.
    let told: Vec<_> = (0..63).map(|_| set.source.denied(&nobody)).collect();
    let denials = set.audit.entries();
    assert_eq!(denials[0].decision, told[0], "what the process is told, `explain` finds");
    assert_eq!(denials.len(), 60, "{denials:?}");
    assert_eq!(told[60..], [None; 3], "nothing is found under an id that is not on record");
    for denial in &denials {
        assert_eq!((denial.kind, denial.reason.as_deref()), (RecordKind::Denial, Some("no_entry")));
        let svid = denial.spiffe.as_ref().unwrap();
        assert_eq!(svid.asked_by, ["unix:uid:7"], "what was true of it");
        assert_eq!((svid.svid, svid.entry.as_deref(), svid.node.as_str()), (None, None, NODE));
    }
    assert_ne!(denials[0].decision, denials[1].decision);
    set.desk.refusals.write_all(&set.desk);
    let counted = set.audit.entries().pop().unwrap();
    assert_eq!((counted.kind, counted.count), (RecordKind::Denials, Some(3)));
    assert_eq!((counted.client.as_deref(), counted.reason.as_deref()), (Some(NODE), Some("no_entry")));
}

#[tokio::test]
async fn what_another_process_is_entitled_to_is_refused_and_on_record_once() {
    let set = Setting::new();
    let (web, other) = (set.entry(), process("unix:uid:7"));
    assert_eq!(set.source.x509_svid(&other, &web).await.unwrap_err(), SourceError::NotEntitled);
    let audiences = ["https://db.example".to_owned()];
    assert_eq!(set.source.jwt_svid(&other, &web, &audiences).await.unwrap_err(), SourceError::NotEntitled);
    let records = set.audit.entries();
    assert!(records.iter().all(|record| record.kind == RecordKind::Denial), "{records:?}");
    let asked: Vec<_> = records.iter().map(|record| record.spiffe.clone().unwrap()).collect();
    let kinds: Vec<_> = asked.iter().map(|svid| svid.svid.unwrap()).collect();
    assert_eq!(kinds, [SvidKind::X509, SvidKind::Jwt]);
    assert!(asked.iter().all(|svid| svid.entry.as_deref() == Some("web")));
    assert_eq!(asked[1].audiences, audiences);
}

#[tokio::test]
async fn svids_are_the_entrys_and_each_has_its_record() {
    let set = Setting::new();
    let (web, workload) = (set.entry(), process("unix:uid:1000"));
    let x509 = set.source.x509_svid(&workload, &web).await.unwrap();
    assert_eq!((x509.spiffe_id.to_string().as_str(), &*x509.entry), ("spiffe://example.org/web", "web"));
    assert!(x509.private_key.is_some(), "with a key of its own");
    let jwt = set.source.jwt_svid(&workload, &web, &["https://db.example".to_owned()]).await.unwrap();
    assert_eq!(jwt.expires_at_seconds, NOW + 300);
    let records = set.audit.entries();
    let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [RecordKind::Intent, RecordKind::Outcome, RecordKind::Intent, RecordKind::Outcome]);
    let decisions: Vec<_> = records.iter().map(|record| record.decision).collect();
    assert!(decisions[0] == decisions[1] && decisions[2] == decisions[3] && decisions[0] != decisions[2]);
}

#[tokio::test]
async fn without_a_durable_record_nothing_is_given() {
    let set = Setting::new();
    let (web, workload) = (set.entry(), process("unix:uid:1000"));
    set.audit.set_disk(Disk::Broken);
    let unavailable = SourceError::Unavailable("disk_broken");
    assert_eq!(set.source.x509_svid(&workload, &web).await.unwrap_err(), unavailable);
    let audiences = ["https://db.example".to_owned()];
    assert_eq!(set.source.jwt_svid(&workload, &web, &audiences).await.unwrap_err(), unavailable);
    set.audit.set_disk(Disk::Sound);
    assert!(set.source.x509_svid(&workload, &web).await.is_ok());
}

#[tokio::test]
async fn an_entry_that_ended_or_went_entitles_no_longer() {
    let set = Setting::new();
    let workload = process("unix:uid:1000");
    let ending = Draft { expires_at_seconds: Some(NOW + 60), ..draft("web") };
    set.door.entries.replace(entries(&[ending, draft("zeal")]));
    let ids = || set.source.entitled(&workload).iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(), ["web", "zeal"]);
    let web = set.entry();
    set.clock.advance(Duration::from_secs(60));
    assert_eq!(ids(), ["zeal"]);
    assert_eq!(set.source.x509_svid(&workload, &web).await.unwrap_err(), SourceError::NotEntitled);
    set.door.entries.replace(entries(&[]));
    assert!(ids().is_empty());
}

#[tokio::test]
async fn changes_of_entries_authorities_and_foreign_bundles_are_told_to_all_who_wait() {
    let mut set = Setting::new();
    let mut waiting = [set.source.changes(), set.source.changes()];
    set.door.entries.replace(entries(&[]));
    told(&mut waiting).await;
    set.prepare();
    told(&mut waiting).await;
    let foreign = Bundle { trust_domain: TrustDomain::new("partner.example").unwrap(), ..own(&set) };
    set.door.foreign.replace(vec![Arc::new(foreign)]);
    told(&mut waiting).await;
    let bundles = set.source.bundles();
    let federated: Vec<_> = bundles.federated.iter().map(|bundle| bundle.trust_domain.to_string()).collect();
    assert_eq!(federated, ["partner.example"]);
    // An entry's end by time is such a change too.
    set.door.entries.replace(entries(&[Draft { expires_at_seconds: Some(NOW + 60), ..draft("web") }]));
    told(&mut waiting).await;
    set.clock.advance(Duration::from_secs(60));
    set.door.entries.follow_time(set.clock.now_seconds());
    told(&mut waiting).await;
    // And who waits learns that nothing more comes.
    drop(set.source);
    for receiver in &mut waiting {
        assert!(in_time(receiver.changed()).await.is_err());
    }
}

#[tokio::test]
async fn bundles_and_what_is_stood_by_follow_the_authorities() {
    let mut set = Setting::new();
    let workload = process("unix:uid:1000");
    let web = set.entry();
    let svid = set.source.x509_svid(&workload, &web).await.unwrap();
    let first = set.active();
    let anchors = |set: &Setting| own(set).x509_authorities.len();
    assert!(set.source.stands_by(&svid.authorities) && anchors(&set) == 1);
    set.prepare();
    assert_eq!(anchors(&set), 2, "known before it signs");
    set.activate();
    assert!(set.source.stands_by(&svid.authorities), "what an old one signed holds");
    let next = set.source.x509_svid(&workload, &web).await.unwrap();
    assert_ne!(next.authorities, svid.authorities);
    set.taint(&first);
    assert!(!set.source.stands_by(&svid.authorities) && anchors(&set) == 2);
    set.revoke(&first);
    assert!(!set.source.stands_by(&svid.authorities) && anchors(&set) == 1, "gone is not good again");
    assert!(set.source.stands_by(&next.authorities));
    assert!(!set.source.stands_by(&[]));
}

#[tokio::test]
async fn a_key_that_is_taken_away_while_the_record_is_written_makes_way_for_the_next() {
    let mut set = Setting::new();
    let (web, workload) = (set.entry(), process("unix:uid:1000"));
    let first = set.register.active(Kind::Jwt).unwrap().id.clone();
    set.audit.set_disk(Disk::Slow);
    let audiences = ["https://db.example".to_owned()];
    let jwt = {
        let mut asked = Box::pin(set.source.jwt_svid(&workload, &web, &audiences));
        let waits = std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending()));
        assert!(waits.await);
        let private = &mut set.private;
        let make = || make(private, Kind::Jwt).map_err(|_| NotNow::Unknown);
        set.register.prepare(Kind::Jwt, (NOW, None), make).unwrap();
        set.register.activate(Kind::Jwt, NOW, true).unwrap();
        set.register.taint(&first, NOW).unwrap();
        set.door.authorities.turn_to(ring(&set.register, &set.private));
        set.audit.set_disk(Disk::Sound);
        asked.await.unwrap()
    };
    let active = set.register.active(Kind::Jwt).unwrap().id.clone();
    let records = set.audit.entries();
    let keys: Vec<_> = records.iter().filter_map(|record| record.key.clone()).collect();
    assert_eq!(keys, [first, active], "the second is a decision of its own, and on record");
    assert!(!jwt.token.expose().is_empty());
}

#[test]
fn refusals_say_what_a_process_can_do_about_them() {
    let text = || "for explain alone".to_owned();
    let unavailable = SourceError::Unavailable;
    let another_doors = || unavailable("another_doors_refusal");
    let table = [
        (IssueError::NotEntitled("no_entry"), SourceError::NotEntitled),
        (IssueError::Denied(DenialReason::ApprovalRequired), SourceError::NotEntitled),
        (IssueError::Request("audience_of_a_cloud"), SourceError::Invalid("audience_of_a_cloud")),
        (IssueError::RecordUnavailable("disk_broken"), unavailable("disk_broken")),
        (IssueError::Uncertain("clocks_disagree"), unavailable("clocks_disagree")),
        (IssueError::UpstreamUnavailable("authority_withdrawn"), unavailable("authority_withdrawn")),
        (IssueError::Internal("signing_failed"), unavailable("signing_failed")),
        (IssueError::RateLimited { retry_after_seconds: 1 }, unavailable("rate_limited")),
        (IssueError::GrantType, another_doors()),
        (IssueError::SubjectToken { reason: "expired", detail: text() }, another_doors()),
        (IssueError::ClientAuthentication("client"), another_doors()),
        (IssueError::Proof("proof_stale"), another_doors()),
        (IssueError::NonceNeeded { nonce: text() }, another_doors()),
        (IssueError::Target("server_unknown"), another_doors()),
        (IssueError::Scope("scope"), another_doors()),
        (IssueError::AuthorizationDetails { reason: "malformed", detail: text() }, another_doors()),
        (IssueError::UserAuthentication { acr_values: vec![text()], max_age_seconds: None }, another_doors()),
        (IssueError::LevelTooLow { least: Level::L3 }, another_doors()),
        (IssueError::NoSession { reason: "no_template", detail: text() }, another_doors()),
        (IssueError::Sts(StsRefusal::Timeout), another_doors()),
    ];
    for (error, expected) in table {
        let said = format!("{error:?}");
        assert_eq!(source_error(error), expected, "{said}");
    }
}

#[tokio::test]
async fn a_desk_without_the_door_is_no_source() {
    let set = Setting::new();
    let desk = desk(Arc::clone(&set.clock), Arc::clone(&set.audit), None, 1);
    assert!(DeskSource::start(Arc::new(desk)).is_none());
}

async fn told(waiting: &mut [watch::Receiver<u64>]) {
    for receiver in waiting {
        in_time(receiver.changed()).await.unwrap();
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.unwrap()
}

fn own(set: &Setting) -> Bundle {
    Bundle::clone(&set.source.bundles().own)
}

/// A source over a real desk, whose log is in memory and whose authorities come and go by hand.
struct Setting {
    source: DeskSource,
    desk: Arc<Desk>,
    door: Arc<SpiffeDoor>,
    audit: Arc<FakeAudit>,
    clock: Arc<TestClock>,
    register: Register,
    private: HashMap<String, Vec<u8>>,
}

impl Setting {
    fn new() -> Self {
        Self::with_denials(1000)
    }

    /// So many denials of a node have a record of their own.
    fn with_denials(recorded: u32) -> Self {
        let clock = Arc::new(TestClock::at_seconds(NOW));
        let audit = Arc::new(FakeAudit::new("log.example/one"));
        let (mut register, mut private) = (Register::empty(domain()), HashMap::new());
        register.follow_time(NOW, |kind| make(&mut private, kind)).unwrap();
        let ring = ring(&register, &private);
        let door = Arc::new(SpiffeDoor {
            trust_domain: domain(),
            issuer: "https://deputize.example/spiffe".to_owned(),
            jwt_keys: Arc::new(KeySource::new(new_key(), Vec::new())),
            authorities: Arc::new(Authorities::new(ring)),
            entries: Arc::new(LiveEntries::new(entries(&[draft("web")]), NOW)),
            foreign: Arc::new(ForeignBundles::default()),
            settings: SvidSettings { x509_svid_ttl_seconds: 3600, jwt_svid_ttl_seconds: 300 },
        });
        let spiffe = Some(Arc::clone(&door));
        let desk = Arc::new(desk(Arc::clone(&clock), Arc::clone(&audit), spiffe, recorded));
        let source = DeskSource::start(Arc::clone(&desk)).unwrap();
        Self { source, desk, door, audit, clock, register, private }
    }

    /// The entry `web`, as it is now.
    fn entry(&self) -> Arc<Entry> {
        let entitled = self.source.entitled(&process("unix:uid:1000"));
        entitled.into_iter().find(|entry| &*entry.id == "web").unwrap()
    }

    fn active(&self) -> String {
        self.register.active(Kind::X509).unwrap().id.clone()
    }

    fn prepare(&mut self) {
        let private = &mut self.private;
        let make = || make(private, Kind::X509).map_err(|_| NotNow::Unknown);
        self.register.prepare(Kind::X509, (NOW, None), make).unwrap();
        self.turn();
    }

    fn activate(&mut self) {
        self.register.activate(Kind::X509, NOW, true).unwrap();
        self.turn();
    }

    fn taint(&mut self, id: &str) {
        self.register.taint(id, NOW).unwrap();
        self.turn();
    }

    fn revoke(&mut self, id: &str) {
        self.register.revoke(id, NOW).unwrap();
        self.turn();
    }

    fn turn(&self) {
        self.door.authorities.turn_to(ring(&self.register, &self.private));
    }
}

fn ring(register: &Register, private: &HashMap<String, Vec<u8>>) -> AuthorityRing {
    let active = register.active(Kind::X509).unwrap();
    let Public::X509(certificate) = &active.public else { panic!("an X.509 authority") };
    let authority = Authority::restore(certificate.clone(), &private[&active.id]).unwrap();
    let jwt = SigningKey::from_pkcs8(&private[&register.active(Kind::Jwt).unwrap().id], None).unwrap();
    register.ring(Arc::new(authority), Arc::new(jwt)).unwrap()
}

fn make(private: &mut HashMap<String, Vec<u8>>, kind: Kind) -> Result<Member, AuthorityError> {
    let made = match kind {
        Kind::X509 => Made::x509(&domain(), None, NOW, DAY)?,
        Kind::Jwt => Made::jwt(NOW, DAY)?,
    };
    private.insert(made.member.id.clone(), made.pkcs8.expose().clone());
    Ok(made.member)
}

/// A desk that knows nobody but processes.
fn desk(
    clock: Arc<TestClock>,
    audit: Arc<FakeAudit>,
    spiffe: Option<Arc<SpiffeDoor>>,
    recorded_denials: u32,
) -> Desk {
    let everything = "@id(\"everything\") permit (principal, action, resource);".to_owned();
    let policies = PolicyFile { name: "test".to_owned(), text: everything };
    let rules = Rules {
        clients: Clients::default(),
        providers: Providers::new(Vec::new(), Arc::new(FakeProviderKeys::default()), None).unwrap(),
        registry: Registry::build(Vec::new()).unwrap(),
        policies: PolicyEngine::load(&[policies]).unwrap(),
        templates: Templates::default(),
        aws_accounts: AwsAccounts::default(),
    };
    let plenty = Rate { per_second: 1_000_000, burst: 1_000_000 };
    Desk {
        settings: Settings {
            issuer: "https://deputize.example".to_owned(),
            token_endpoint: "https://deputize.example/token".to_owned(),
            leeway_seconds: 5,
            proof_window_seconds: 30,
            log_size_at_start: 0,
            takes_certificates: true,
            started_at_seconds: NOW,
        },
        clock_watch: ClockWatch::new(clock.as_ref()),
        rules: Arc::new(rules).into(),
        keys: KeySource::new(new_key(), Vec::new()),
        audit,
        assertions: Arc::new(FakeReplay::default()),
        proofs: OnceSet::new(Duration::from_secs(330), 10),
        nonces: NonceMaker::new("one", Duration::from_secs(300)).unwrap(),
        redemptions: OnceSet::new(Duration::from_secs(180), 10),
        revocations: Arc::new(RevokedSet::default()),
        drifts: Arc::new(DriftedSet::default()),
        lineage: Lineage::default(),
        transactions: TransactionIds::new(&[1; 32]),
        pseudonyms: Pseudonyms::new(&[2; 32]),
        limits: Limits::new(plenty, Rate { per_second: 0, burst: recorded_denials }),
        refusals: Refusals::default(),
        aws: None,
        spiffe,
        clock,
    }
}

fn new_key() -> SigningKey {
    SigningKey::generate(SigningAlgorithm::ES256).unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn entries(drafts: &[Draft]) -> Entries {
    let bounds = Bounds { trust_domain: domain(), own_node: SpiffeId::new(NODE).unwrap() };
    Entries::build(bounds, drafts.iter().map(|draft| (draft.clone(), Origin::Admin))).unwrap()
}

fn draft(id: &str) -> Draft {
    Draft {
        id: id.to_owned(),
        spiffe_id: format!("spiffe://example.org/{id}"),
        selectors: vec!["unix:uid:1000".to_owned()],
        ..Draft::default()
    }
}

fn process(selector: &str) -> Workload {
    let selectors = [selector.parse().unwrap()].into_iter().collect();
    Workload::attested(SpiffeId::new(NODE).unwrap(), selectors)
}
