//! Nodes: how a machine becomes one, what it may ask then, and what ends that.

use async_trait::async_trait;
use deputize_issuer::{
    authority,
    certificate::PresentedCertificate,
    clock::Clock as _,
    entry::Draft,
    error::IssueError,
    fakes::Disk,
    node::{
        AttestAsk, Attestation, AttestedNode, Cluster, JoinTokenDigest, KeptToken, MachineAuthority,
        NodeRecord, NodeRegistry, NodeSettings, NodeStore, NodeSvid, NodesNotStored, NotDone, Proof,
        ReviewFailed, Reviewed, TokenReview, TokenUse, Vouchers, attest, authenticate, authenticate_to_renew,
        renew, still_stands,
    },
    record::Kind,
    svid::OwnKey,
    workload::Workload,
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use spiffe::SpiffeId;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use uuid::Uuid;

use crate::spiffe::{NODE, SpiffeWorld, domain, entries, process, web};

pub(crate) const EDGE: &str = "spiffe://example.org/deputize/node/edge-1";

/// A store that keeps nothing beyond its life, and that can fail.
#[derive(Debug, Default, Clone)]
struct FakeStore {
    tokens: Arc<Mutex<HashMap<[u8; 32], KeptToken>>>,
    nodes: Arc<Mutex<HashMap<String, NodeRecord>>>,
    fails: Arc<AtomicBool>,
}

impl FakeStore {
    fn works(&self) -> Result<(), NodesNotStored> {
        if self.fails.load(Ordering::SeqCst) { Err(NodesNotStored) } else { Ok(()) }
    }
}

#[async_trait]
impl NodeStore for FakeStore {
    fn all(&self) -> Result<Vec<NodeRecord>, NodesNotStored> {
        Ok(self.nodes.lock().unwrap().values().cloned().collect())
    }
    async fn put(&self, node: NodeRecord) -> Result<(), NodesNotStored> {
        self.works()?;
        let mut nodes = self.nodes.lock().unwrap();
        let kept = nodes.get(&node.id).and_then(|kept| kept.banned_at);
        nodes.insert(node.id.clone(), NodeRecord { banned_at: node.banned_at.or(kept), ..node });
        Ok(())
    }
    async fn lift(&self, id: &str) -> Result<(), NodesNotStored> {
        self.works()?;
        let mut nodes = self.nodes.lock().unwrap();
        if let Some(node) = nodes.get_mut(id) {
            node.banned_at = None;
        }
        nodes.retain(|_, node| node.attested.is_some() || node.banned_at.is_some());
        Ok(())
    }
    async fn forget(&self, id: &str) -> Result<(), NodesNotStored> {
        self.works()?;
        self.nodes.lock().unwrap().retain(|kept, node| kept != id || node.banned_at.is_some());
        Ok(())
    }
    async fn keep_token(&self, token: KeptToken, _: u64) -> Result<bool, NodesNotStored> {
        self.works()?;
        self.tokens.lock().unwrap().insert(*token.digest.as_bytes(), token);
        Ok(true)
    }
    async fn use_token(&self, digest: JoinTokenDigest, now_seconds: u64) -> Result<TokenUse, NodesNotStored> {
        self.works()?;
        Ok(match self.tokens.lock().unwrap().remove(digest.as_bytes()) {
            None => TokenUse::Unknown,
            Some(token) if token.expires_at_seconds <= now_seconds => TokenUse::Expired,
            Some(token) => TokenUse::Spent(token.node),
        })
    }
    async fn forget_tokens_of(&self, node: &str) -> Result<(), NodesNotStored> {
        self.works()?;
        self.tokens.lock().unwrap().retain(|_, token| token.node != node);
        Ok(())
    }
}

/// Vouches for everything that it is shown, until then.
struct Credulous(u64);

impl MachineAuthority for Credulous {
    fn vouches_for(&self, _: &PresentedCertificate, _: u64) -> Option<u64> {
        Some(self.0)
    }
}

/// Whose tokens say on which node they are: `NAME|UID`.
struct Cooperative;

#[async_trait]
impl TokenReview for Cooperative {
    async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ReviewFailed> {
        let (name, uid) = token.split_once('|').ok_or(ReviewFailed)?;
        let said = |what: &str, value: &str| {
            (format!("authentication.kubernetes.io/{what}"), vec![value.to_owned()])
        };
        Ok(Reviewed {
            authenticated: true,
            audiences: vec![audience.to_owned()],
            username: "system:serviceaccount:deputize:agent".to_owned(),
            extra: [said("node-name", name), said("node-uid", uid), said("pod-uid", "5d3c")].into(),
        })
    }
}

pub(crate) struct Nodes {
    pub(crate) spiffe: SpiffeWorld,
    pub(crate) registry: Arc<NodeRegistry>,
    store: FakeStore,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        Self::with_world(SpiffeWorld::new())
    }

    pub(crate) fn with_world(spiffe: SpiffeWorld) -> Self {
        Self::over(FakeStore::default(), spiffe)
    }

    fn over(store: FakeStore, spiffe: SpiffeWorld) -> Self {
        Self::configured((store, spiffe), |_, _| ())
    }

    fn configured(
        (store, spiffe): (FakeStore, SpiffeWorld),
        change: impl FnOnce(&mut NodeSettings, &mut Vouchers),
    ) -> Self {
        let mut settings = NodeSettings {
            trust_domain: domain(),
            own_node: SpiffeId::new(NODE).unwrap(),
            svid_ttl_seconds: 3600,
            join_tokens: true,
        };
        let mut vouchers = Vouchers { machines: Some(Arc::new(Credulous(u64::MAX))), clusters: Vec::new() };
        change(&mut settings, &mut vouchers);
        let registry = NodeRegistry::open(settings, vouchers, Box::new(store.clone())).unwrap();
        Self { spiffe, registry: Arc::new(registry), store }
    }

    async fn token(&self, name: &str) -> Result<String, NotDone> {
        let made = self.registry.new_token(&self.spiffe.world.desk, id(), (name, 600)).await?;
        Ok(made.token.text().expose().clone())
    }

    async fn attest(&self, proof: Proof<'_>) -> Result<NodeSvid, IssueError> {
        let csr = OwnKey::generate().unwrap().request(None).unwrap();
        attest(&self.spiffe.world.desk, &self.registry, (id(), &AttestAsk { proof, csr: &csr })).await
    }

    /// In a cluster `prod`, among whose nodes are whichever somebody's token says.
    fn of_cluster() -> Self {
        Self::configured((FakeStore::default(), SpiffeWorld::new()), with_cluster)
    }

    async fn pod_on(&self, node: &str) -> Result<NodeSvid, IssueError> {
        self.attest(Proof::ServiceAccountToken { cluster: Some("prod"), token: node }).await
    }

    async fn ban(&self, name: &str) -> Result<NodeRecord, NotDone> {
        self.registry.ban(&self.spiffe.world.desk, id(), name).await
    }

    pub(crate) async fn join(&self, name: &str) -> NodeSvid {
        let token = self.token(name).await.unwrap();
        self.attest(Proof::JoinToken(&token)).await.unwrap()
    }

    pub(crate) fn authenticate(&self, chain: &[Vec<u8>]) -> Result<AttestedNode, &'static str> {
        let shown = shown(chain);
        let node = authenticate(&self.spiffe.world.desk, &self.registry, (id(), Some(&shown)));
        node.map_err(|error| error.reason())
    }

    /// Where it is asked for the next SVID.
    fn to_renew(&self, chain: &[Vec<u8>]) -> Result<AttestedNode, &'static str> {
        let shown = shown(chain);
        let node = authenticate_to_renew(&self.spiffe.world.desk, &self.registry, (id(), Some(&shown)));
        node.map_err(|error| error.reason())
    }

    /// The active X.509 authority is replaced, because its key is stolen.
    fn taint(&mut self) {
        let signer = self.spiffe.active(authority::Kind::X509);
        self.spiffe.prepare(authority::Kind::X509);
        self.spiffe.activate(authority::Kind::X509);
        self.spiffe.taint(&signer);
    }

    /// This user's process on the node, whose entry there is.
    fn saw(&self, node: &AttestedNode) -> Workload {
        let entry = Draft { nodes: vec![EDGE.to_owned()], ..web() };
        self.spiffe.door.entries.replace(entries(&[entry]));
        node.saw(&self.registry, ["unix:uid:1000".parse().unwrap()].into(), false)
    }

    fn intents(&self) -> usize {
        let entries = self.spiffe.world.audit.entries();
        entries.iter().filter(|entry| entry.kind == Kind::Intent).count()
    }

    fn denied(&self) -> Vec<String> {
        let entries = self.spiffe.world.audit.entries();
        entries.into_iter().filter(|entry| entry.kind == Kind::Denial).filter_map(|it| it.reason).collect()
    }

    pub(crate) async fn renew(&self, node: &AttestedNode) -> Result<NodeSvid, IssueError> {
        let csr = OwnKey::generate().unwrap().request(None).unwrap();
        renew(&self.spiffe.world.desk, &self.registry, (id(), node, &csr)).await
    }
}

fn with_cluster(_: &mut NodeSettings, vouchers: &mut Vouchers) {
    vouchers.clusters = vec![Cluster {
        name: "prod".to_owned(),
        audience: "deputize".to_owned(),
        service_accounts: ["deputize/agent".to_owned()].into(),
        reviewer: Arc::new(Cooperative),
    }];
}

/// A certificate of a machine that has this key.
fn machine(name: &str, key: &KeyPair) -> PresentedCertificate {
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(key).unwrap();
    shown(&[certificate.der().to_vec()])
}

fn machine_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub(crate) fn id() -> Uuid {
    Uuid::from_u128(0x7000 << 64 | 0x8000 << 48)
}

fn shown(chain: &[Vec<u8>]) -> PresentedCertificate {
    let ders: Vec<CertificateDer<'_>> =
        chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    PresentedCertificate::proved(&ders).unwrap()
}

#[tokio::test]
async fn a_machine_with_a_token_becomes_that_node_once() {
    let nodes = Nodes::new();
    let token = nodes.token("edge-1").await.unwrap();
    let svid = nodes.attest(Proof::JoinToken(&token)).await.unwrap();
    assert_eq!(svid.id.to_string(), EDGE);
    let node = nodes.authenticate(&svid.chain).unwrap();
    assert_eq!((node.id(), node.serial()), (&svid.id, svid.serial.as_str()));
    let again = nodes.attest(Proof::JoinToken(&token)).await.unwrap_err();
    assert_eq!(again, IssueError::ClientAuthentication("join_token_unknown"));
    let intents: Vec<_> =
        nodes.spiffe.world.audit.entries().into_iter().filter(|entry| entry.kind == Kind::Intent).collect();
    let [intent] = &intents[..] else { panic!("one SVID, one intent: {intents:?}") };
    let told = intent.spiffe.as_ref().unwrap();
    assert_eq!((told.attested.as_deref(), told.node.as_str()), (Some("join_token"), EDGE));
    assert_eq!(told.serial.as_deref(), Some(svid.serial.as_str()));
    assert!(!format!("{intent:?}").contains(&token), "the token is in no record");
}

#[tokio::test]
async fn a_token_is_used_up_only_where_that_is_durable_and_something_can_be_signed() {
    let nodes = Nodes::new();
    let token = nodes.token("edge-1").await.unwrap();
    let malformed = AttestAsk { proof: Proof::JoinToken(&token), csr: b"no request" };
    let refused = attest(&nodes.spiffe.world.desk, &nodes.registry, (id(), &malformed)).await.unwrap_err();
    assert_eq!(refused, IssueError::Request("csr_malformed"));
    nodes.store.fails.store(true, Ordering::SeqCst);
    let uncertain = nodes.attest(Proof::JoinToken(&token)).await.unwrap_err();
    assert_eq!(uncertain, IssueError::Uncertain("node_store"));
    nodes.store.fails.store(false, Ordering::SeqCst);
    nodes.spiffe.world.audit.set_disk(Disk::Broken);
    let unrecorded = nodes.attest(Proof::JoinToken(&token)).await.unwrap_err();
    assert!(matches!(unrecorded, IssueError::RecordUnavailable(_)), "no record, no SVID");
    nodes.spiffe.world.audit.set_disk(Disk::Sound);
    let used = nodes.attest(Proof::JoinToken(&token)).await.unwrap_err();
    assert_eq!(used, IssueError::ClientAuthentication("join_token_unknown"), "and it was used up before");
    let late = nodes.token("edge-1").await.unwrap();
    nodes.spiffe.world.clock.advance(Duration::from_secs(600));
    let late = nodes.attest(Proof::JoinToken(&late)).await.unwrap_err();
    assert_eq!(late, IssueError::ClientAuthentication("join_token_expired"));
}

#[tokio::test]
async fn tokens_are_for_nodes_that_nobody_else_is() {
    let nodes = Nodes::new();
    for name in [
        "local",
        NODE,
        "x509pop",
        "kubernetes",
        "a/b",
        "x509pop/ab",
        "",
        "..",
        "spiffe://other.org/deputize/node/x",
    ] {
        assert!(matches!(nodes.token(name).await, Err(NotDone::Bad(_))), "{name}");
    }
    nodes.registry.ban(&nodes.spiffe.world.desk, id(), "edge-1").await.unwrap();
    assert!(matches!(nodes.token("edge-1").await, Err(NotDone::InTheWay(_))));
    assert!(nodes.token("edge-2").await.is_ok());
}

#[tokio::test]
async fn a_renewed_svid_replaces_the_former_one_once_it_is_used() {
    let nodes = Nodes::new();
    let first = nodes.join("edge-1").await;
    let node = nodes.authenticate(&first.chain).unwrap();
    let second = nodes.renew(&node).await.unwrap();
    assert!(nodes.authenticate(&first.chain).is_ok(), "the answer may have been lost");
    let node = nodes.authenticate(&second.chain).unwrap();
    let third = nodes.renew(&node).await.unwrap();
    assert_eq!(nodes.authenticate(&first.chain), Err("node_svid_superseded"));
    assert!(nodes.authenticate(&third.chain).is_ok());
    let told = nodes.spiffe.world.audit.entries().into_iter().filter_map(|entry| entry.spiffe?.attested);
    assert_eq!(told.collect::<Vec<_>>(), ["join_token", "renewal", "renewal"]);
    nodes.spiffe.world.clock.advance(Duration::from_secs(3601));
    assert_eq!(nodes.authenticate(&third.chain), Err("node_svid_refused"), "its time is over");
}

#[tokio::test]
async fn whoever_attests_himself_anew_ends_what_he_was_before() {
    let nodes = Nodes::new();
    let machine = machine("one", &machine_key());
    let first = nodes.attest(Proof::Certificate(&machine)).await.unwrap();
    let second = nodes.attest(Proof::Certificate(&machine)).await.unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(nodes.authenticate(&first.chain), Err("node_svid_superseded"));
    assert!(nodes.authenticate(&second.chain).is_ok());
    let other = nodes.attest(Proof::Certificate(&self::machine("other", &machine_key()))).await.unwrap();
    assert_ne!(other.id, first.id);
    let pod = Proof::ServiceAccountToken { cluster: None, token: "token" };
    assert_eq!(nodes.attest(pod).await.unwrap_err().reason(), "cluster_not_configured");
}

#[tokio::test]
async fn a_ban_holds_at_once_and_over_a_restart_until_it_is_lifted() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let node = nodes.authenticate(&svid.chain).unwrap();
    let waiting = nodes.token("edge-1").await.unwrap();
    let mut changes = nodes.registry.changes();
    changes.mark_unchanged();
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.ban(desk, id(), EDGE).await.unwrap();
    assert!(changes.has_changed().unwrap(), "streams look again");
    assert_eq!(nodes.registry.stands(&node), Err(IssueError::NotEntitled("node_banned")));
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
    assert_eq!(nodes.renew(&node).await.unwrap_err(), IssueError::NotEntitled("node_banned"));
    assert_eq!(nodes.attest(Proof::JoinToken(&waiting)).await.unwrap_err().reason(), "join_token_unknown");
    nodes.registry.evict(desk, id(), "edge-1").await.unwrap();
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"), "forgotten, and banned still");
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.lift(desk, id(), "edge-1").await.unwrap();
    assert!(matches!(nodes.registry.lift(desk, id(), "edge-1").await, Err(NotDone::InTheWay(_))));
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_unknown"), "it was evicted too");
    nodes.join("edge-1").await;
    let told: Vec<_> =
        nodes.spiffe.world.audit.entries().into_iter().filter(|entry| entry.kind == Kind::Node).collect();
    let told: Vec<&str> = told.iter().filter_map(|entry| entry.result.as_deref()).collect();
    assert_eq!(told, ["token_created", "token_created", "banned", "evicted", "lifted", "token_created"]);
}

#[tokio::test]
async fn a_ban_that_cannot_be_stored_holds_all_the_same() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    nodes.store.fails.store(true, Ordering::SeqCst);
    let desk = &nodes.spiffe.world.desk;
    assert_eq!(nodes.registry.ban(desk, id(), "edge-1").await, Err(NotDone::Unavailable));
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
    nodes.store.fails.store(false, Ordering::SeqCst);
    nodes.registry.ban(desk, id(), "edge-1").await.unwrap();
    assert_eq!(
        nodes.registry.evict(desk, id(), "unheard-of").await,
        Err(NotDone::Unknown(EDGE.replace("edge-1", "unheard-of")))
    );
}

#[tokio::test]
async fn what_a_node_saw_is_of_that_node_and_a_workload_is_none() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let node = nodes.authenticate(&svid.chain).unwrap();
    let seen = node.saw(&nodes.registry, ["unix:uid:1000".parse().unwrap()].into(), false);
    assert_eq!(seen.node().to_string(), EDGE);
    let refused = nodes.spiffe.x509(&seen, "web").await.unwrap_err();
    assert_eq!(refused, IssueError::NotEntitled("no_entry"), "that entry is the broker's own node's");
    let workload = nodes.spiffe.x509(&process(), "web").await.unwrap();
    assert_eq!(nodes.authenticate(&workload.chain), Err("svid_of_no_node"));
    let desk = &nodes.spiffe.world.desk;
    let none = authenticate(desk, &nodes.registry, (id(), None)).unwrap_err();
    assert_eq!(none, IssueError::ClientAuthentication("node_certificate_missing"));
    assert!(matches!(
        nodes.registry.all()[0].attested.as_ref().unwrap().attestation,
        Attestation::JoinToken { .. }
    ));
}

#[tokio::test]
async fn what_a_node_saw_counts_no_more_once_it_is_banned_evicted_or_replaced() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let node = nodes.authenticate(&svid.chain).unwrap();
    let seen = nodes.saw(&node);
    nodes.spiffe.x509(&seen, "web").await.unwrap();
    nodes.spiffe.jwt(&seen, &["reports"]).await.unwrap();
    let intents = nodes.intents();
    let refused = async |expected: IssueError| {
        assert_eq!(nodes.spiffe.x509(&seen, "web").await.unwrap_err(), expected);
        assert_eq!(nodes.spiffe.jwt(&seen, &["reports"]).await.unwrap_err(), expected);
    };
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.ban(desk, id(), EDGE).await.unwrap();
    refused(IssueError::NotEntitled("node_banned")).await;
    nodes.registry.lift(desk, id(), EDGE).await.unwrap();
    nodes.registry.evict(desk, id(), EDGE).await.unwrap();
    refused(IssueError::ClientAuthentication("node_unknown")).await;
    assert_eq!(nodes.intents(), intents, "nothing was even begun");
    nodes.join("edge-1").await;
    refused(IssueError::ClientAuthentication("node_svid_superseded")).await;
}

#[tokio::test]
async fn of_the_nodes_of_a_pattern_each_is_banned_for_itself() {
    let nodes = Nodes::new();
    let pattern = "spiffe://example.org/deputize/node/x509pop/*";
    nodes.spiffe.door.entries.replace(entries(&[Draft { nodes: vec![pattern.to_owned()], ..web() }]));
    let mut seen = Vec::new();
    for name in ["one", "other"] {
        let svid = nodes.attest(Proof::Certificate(&machine(name, &machine_key()))).await.unwrap();
        let node = nodes.authenticate(&svid.chain).unwrap();
        seen.push((svid.id, node.saw(&nodes.registry, ["unix:uid:1000".parse().unwrap()].into(), false)));
    }
    let joined = nodes.authenticate(&nodes.join("edge-1").await.chain).unwrap();
    let elsewhere = joined.saw(&nodes.registry, ["unix:uid:1000".parse().unwrap()].into(), false);
    let refused = nodes.spiffe.x509(&elsewhere, "web").await.unwrap_err();
    assert_eq!(refused, IssueError::NotEntitled("no_entry"), "it attested itself in another way");
    let [(banned, of_banned), (_, of_other)] = &seen[..] else { panic!("two nodes") };
    nodes.spiffe.x509(of_banned, "web").await.unwrap();
    nodes.registry.ban(&nodes.spiffe.world.desk, id(), &banned.to_string()).await.unwrap();
    let refused = nodes.spiffe.x509(of_banned, "web").await.unwrap_err();
    assert_eq!(refused, IssueError::NotEntitled("node_banned"));
    nodes.spiffe.x509(of_other, "web").await.unwrap();
}

#[tokio::test]
async fn a_ban_of_a_node_of_a_cluster_holds_for_every_uid_of_its_name() {
    let nodes = Nodes::of_cluster();
    let [first, second] = [nodes.pod_on("worker-1|0b1c").await, nodes.pod_on("worker-1|0b1d").await];
    let (first, second) = (first.unwrap(), second.unwrap());
    let other = nodes.authenticate(&nodes.pod_on("worker-10|0b1c").await.unwrap().chain).unwrap();
    nodes.ban("kubernetes/prod/worker-1/0b1c").await.unwrap();
    for svid in [&first, &second] {
        assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
    }
    // The cluster was told to forget it, and it registered anew.
    for node in ["worker-1|0b1c", "worker-1|0b1d", "worker-1|0b1e"] {
        assert_eq!(nodes.pod_on(node).await.unwrap_err(), IssueError::NotEntitled("node_banned"), "{node}");
    }
    assert_eq!(nodes.registry.stands(&other), Ok(()), "a name that begins so is another node's");
    let listed = nodes.registry.all();
    let banned = listed.iter().filter(|node| node.banned_at.is_some()).map(|node| &node.id[34..]);
    assert_eq!(
        banned.collect::<Vec<_>>(),
        ["/kubernetes/prod/worker-1", "/kubernetes/prod/worker-1/0b1c", "/kubernetes/prod/worker-1/0b1d"]
    );
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::configured((store, spiffe), with_cluster);
    assert_eq!(
        nodes.pod_on("worker-1|0b1f").await.unwrap_err().reason(),
        "node_banned",
        "after a restart too"
    );
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.lift(desk, id(), "kubernetes/prod/worker-1/0b1d").await.unwrap();
    assert!(nodes.registry.all().iter().all(|node| node.banned_at.is_none()), "what was banned together");
    nodes.authenticate(&first.chain).unwrap();
    nodes.pod_on("worker-1|0b1e").await.unwrap();
}

#[tokio::test]
async fn a_node_of_a_cluster_is_banned_by_its_name_alone_before_it_was_seen_or_after() {
    let nodes = Nodes::of_cluster();
    let svid = nodes.pod_on("worker-1|0b1c").await.unwrap();
    let node = nodes.authenticate(&svid.chain).unwrap();
    let mut changes = nodes.registry.changes();
    changes.mark_unchanged();
    nodes.ban("kubernetes/prod/worker-1").await.unwrap();
    assert!(changes.has_changed().unwrap(), "its stream looks again");
    assert_eq!(nodes.registry.stands(&node), Err(IssueError::NotEntitled("node_banned")));
    assert_eq!(nodes.renew(&node).await.unwrap_err(), IssueError::NotEntitled("node_banned"));
    nodes.ban("kubernetes/prod/worker-2").await.unwrap();
    assert_eq!(nodes.pod_on("worker-2|0b1c").await.unwrap_err().reason(), "node_banned");
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.lift(desk, id(), "kubernetes/prod/worker-1").await.unwrap();
    assert_eq!(nodes.registry.stands(&node), Ok(()));
}

#[tokio::test]
async fn another_certificate_of_a_banned_machine_makes_no_node_of_it() {
    let nodes = Nodes::new();
    let key = machine_key();
    let (first, renewed) = (machine("first", &key), machine("renewed", &key));
    let svid = nodes.attest(Proof::Certificate(&first)).await.unwrap();
    let meanwhile = nodes.attest(Proof::Certificate(&machine("meanwhile", &key))).await.unwrap();
    assert_ne!(svid.id, meanwhile.id);
    nodes.ban(&svid.id.to_string()).await.unwrap();
    let refused = nodes.attest(Proof::Certificate(&renewed)).await.unwrap_err();
    assert_eq!(refused, IssueError::NotEntitled("node_banned"));
    assert_eq!(nodes.authenticate(&meanwhile.chain), Err("node_banned"));
    nodes.registry.evict(&nodes.spiffe.world.desk, id(), &svid.id.to_string()).await.unwrap();
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    assert_eq!(nodes.attest(Proof::Certificate(&renewed)).await.unwrap_err().reason(), "node_banned");
    nodes.attest(Proof::Certificate(&machine("renewed", &machine_key()))).await.unwrap();
    let desk = &nodes.spiffe.world.desk;
    let key = nodes.registry.all().into_iter().find(|node| node.id.contains("/key/")).unwrap();
    nodes.registry.lift(desk, id(), &key.id).await.unwrap();
    nodes.attest(Proof::Certificate(&renewed)).await.unwrap();
    let refused = nodes.attest(Proof::Certificate(&first)).await.unwrap_err();
    assert_eq!(refused.reason(), "node_banned", "it was banned by itself, and then forgotten");
}

#[tokio::test]
async fn what_nothing_makes_a_node_s_id_is_not_banned() {
    let nodes = Nodes::of_cluster();
    let digest = "ab".repeat(32);
    for name in [
        "kubernetes/prod2/worker-1",
        "kubernetes/prod",
        "kubernetes/prod/worker-1/0b1c/deeper",
        "x509pop/ab",
        "x509pop/key",
        &format!("x509pop/{}", digest.to_uppercase()),
        &format!("x509pop/other/{digest}"),
        "a/b",
        "x509pop",
    ] {
        assert!(matches!(nodes.ban(name).await, Err(NotDone::Bad(_))), "{name}");
    }
    nodes.pod_on("worker-1|0b1c").await.unwrap();
    let Err(NotDone::InTheWay(said)) = nodes.ban("worker-1").await else {
        panic!("that one is in a cluster")
    };
    assert!(said.contains("kubernetes/prod/worker-1"), "{said}");
    assert!(nodes.registry.all().iter().all(|node| node.banned_at.is_none()), "nothing is said to be banned");
    for name in ["edge-1", &format!("x509pop/{digest}"), &format!("x509pop/key/{digest}")] {
        nodes.ban(name).await.unwrap();
    }
    let without = |settings: &mut NodeSettings, vouchers: &mut Vouchers| {
        (settings.join_tokens, vouchers.machines) = (false, None);
    };
    let joined = nodes.join("edge-2").await;
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::configured((store, spiffe), without);
    for name in ["edge-3", &format!("x509pop/{}", "cd".repeat(32)), "kubernetes/prod/worker-3"] {
        assert!(matches!(nodes.ban(name).await, Err(NotDone::Bad(_))), "{name}: not taken here");
    }
    nodes.ban("edge-2").await.unwrap();
    assert_eq!(nodes.authenticate(&joined.chain), Err("node_banned"), "what was a node can be banned");
}

#[tokio::test]
async fn a_ban_while_the_record_is_written_keeps_what_it_would_be_of_from_being_made() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let node = nodes.authenticate(&svid.chain).unwrap();
    let seen = nodes.saw(&node);
    nodes.spiffe.world.audit.set_disk(Disk::Slow);
    let desk = &nodes.spiffe.world.desk;
    let mut banned = Box::pin(nodes.registry.ban(desk, id(), EDGE));
    let mut asked = Box::pin(nodes.spiffe.x509(&seen, "web"));
    // Each waits for the disk; the ban holds all the same.
    assert!(std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await);
    assert!(std::future::poll_fn(|context| Poll::Ready(banned.as_mut().poll(context).is_pending())).await);
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
    nodes.spiffe.world.audit.set_disk(Disk::Sound);
    assert_eq!(asked.await.unwrap_err(), IssueError::NotEntitled("node_banned"));
    banned.await.unwrap();
}

#[tokio::test]
async fn a_ban_is_stored_whatever_becomes_of_its_record() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    nodes.spiffe.world.audit.set_disk(Disk::Broken);
    let desk = &nodes.spiffe.world.desk;
    assert_eq!(nodes.registry.ban(desk, id(), EDGE).await, Err(NotDone::Unavailable));
    nodes.spiffe.world.audit.set_disk(Disk::Sound);
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_banned"));
}

#[tokio::test]
async fn the_svid_that_a_node_renewed_from_is_over_once_the_next_is_used() {
    let nodes = Nodes::new();
    let first = nodes.join("edge-1").await;
    let node = nodes.authenticate(&first.chain).unwrap();
    nodes.renew(&node).await.unwrap();
    let third = nodes.renew(&node).await.unwrap();
    assert!(nodes.authenticate(&first.chain).is_ok(), "both answers may have been lost");
    nodes.authenticate(&third.chain).unwrap();
    assert_eq!(nodes.authenticate(&first.chain), Err("node_svid_superseded"));
    let late = nodes.renew(&node).await.unwrap_err();
    assert_eq!(late, IssueError::ClientAuthentication("node_svid_superseded"), "and renews nothing");
    assert_eq!(nodes.denied(), ["node_svid_superseded", "node_svid_superseded"], "each is on record");
    let node = nodes.authenticate(&third.chain).unwrap();
    let fourth = nodes.renew(&node).await.unwrap();
    assert!(nodes.authenticate(&third.chain).is_ok() && nodes.authenticate(&fourth.chain).is_ok());
}

#[tokio::test]
async fn a_node_stands_no_longer_than_its_svid_and_what_signed_it() {
    let mut nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let (node, certificate) = (nodes.authenticate(&svid.chain).unwrap(), shown(&svid.chain));
    let stands = |nodes: &Nodes| {
        still_stands(&nodes.spiffe.world.desk, &nodes.registry, (&node, &certificate))
            .map_err(|error| error.reason())
    };
    assert_eq!(stands(&nodes), Ok(()));
    nodes.spiffe.world.clock.advance(Duration::from_secs(3601));
    assert_eq!(stands(&nodes), Err("node_svid_refused"), "its time is over");

    let svid = nodes.join("edge-2").await;
    let (node, certificate) = (nodes.authenticate(&svid.chain).unwrap(), shown(&svid.chain));
    let signer = nodes.spiffe.active(authority::Kind::X509);
    nodes.spiffe.prepare(authority::Kind::X509);
    nodes.spiffe.activate(authority::Kind::X509);
    nodes.spiffe.taint(&signer);
    nodes.spiffe.revoke(&signer);
    let revoked = still_stands(&nodes.spiffe.world.desk, &nodes.registry, (&node, &certificate));
    assert_eq!(revoked.unwrap_err().reason(), "node_svid_refused");
}

#[tokio::test]
async fn a_node_goes_on_only_as_long_as_its_way_of_attesting_is_configured_and_its_certificate_lives() {
    let now = Nodes::new().spiffe.world.clock.now_seconds();
    let fresh = || (FakeStore::default(), SpiffeWorld::new());
    let until = |end: u64| {
        move |_: &mut NodeSettings, it: &mut Vouchers| it.machines = Some(Arc::new(Credulous(end)))
    };
    let nodes = Nodes::configured(fresh(), until(now + 60));
    let machine = machine("one", &machine_key());
    let svid = nodes.attest(Proof::Certificate(&machine)).await.unwrap();
    assert_eq!(svid.not_after_seconds, now + 60, "no longer than what proves it");

    let nodes = Nodes::new();
    let svid = nodes.attest(Proof::Certificate(&machine)).await.unwrap();
    let joined = nodes.join("edge-1").await;
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::configured((store, spiffe), |settings, vouchers| {
        vouchers.machines = None;
        settings.join_tokens = false;
    });
    for chain in [&svid.chain, &joined.chain] {
        let node = nodes.authenticate(chain).unwrap();
        let refused = nodes.renew(&node).await.unwrap_err();
        assert_eq!(refused, IssueError::ClientAuthentication("attestation_not_configured"));
    }
    assert_eq!(nodes.denied(), ["attestation_not_configured", "attestation_not_configured"]);
}

#[tokio::test]
async fn a_node_svid_of_a_tainted_authority_renews_for_a_while_and_then_is_none() {
    let mut nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let (node, certificate) = (nodes.authenticate(&svid.chain).unwrap(), shown(&svid.chain));
    let signer = nodes.spiffe.active(authority::Kind::X509);
    nodes.spiffe.prepare(authority::Kind::X509);
    nodes.spiffe.activate(authority::Kind::X509);
    nodes.spiffe.world.clock.advance(Duration::from_secs(600));
    assert!(nodes.authenticate(&svid.chain).is_ok(), "what an old one signed holds");
    nodes.spiffe.taint(&signer);
    nodes.spiffe.world.clock.advance(Duration::from_secs(299));
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_svid_tainted"), "for renewing alone");
    let renewed = nodes.renew(&nodes.to_renew(&svid.chain).unwrap()).await.unwrap();
    assert!(nodes.to_renew(&svid.chain).is_ok(), "the answer may have been lost");
    let certificate_of = (&node, &certificate);
    assert!(still_stands(&nodes.spiffe.world.desk, &nodes.registry, certificate_of).is_ok());
    nodes.spiffe.world.clock.advance(Duration::from_secs(1));
    assert_eq!(nodes.authenticate(&svid.chain), Err("node_svid_withdrawn"));
    assert_eq!(nodes.to_renew(&svid.chain), Err("node_svid_withdrawn"));
    let denied = ["node_svid_tainted", "node_svid_withdrawn", "node_svid_withdrawn"];
    assert_eq!(nodes.denied(), denied, "somebody has the key: each is on record");
    let desk = &nodes.spiffe.world.desk;
    let ended = still_stands(desk, &nodes.registry, (&node, &certificate)).unwrap_err();
    assert_eq!(ended, IssueError::ClientAuthentication("node_svid_withdrawn"), "its stream ends");
    assert!(nodes.authenticate(&renewed.chain).is_ok(), "another one signed that");
}

#[tokio::test]
async fn a_serial_number_makes_nobody_the_node_who_has_not_its_key() {
    let mut nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let forged = nodes.spiffe.forged(&svid.id, &svid.serial);
    assert_eq!(nodes.authenticate(&forged), Err("node_svid_superseded"));
    assert_eq!(nodes.to_renew(&forged), Err("node_svid_superseded"));
    let node = nodes.authenticate(&svid.chain).unwrap();
    let next = nodes.renew(&node).await.unwrap();
    assert_eq!(nodes.authenticate(&forged), Err("node_svid_superseded"), "nor by the former one's");
    let forged_next = nodes.spiffe.forged(&next.id, &next.serial);
    assert_eq!(nodes.authenticate(&forged_next), Err("node_svid_superseded"));
    assert!(nodes.authenticate(&svid.chain).is_ok(), "and it has ended nothing");
    nodes.taint();
    assert_eq!(nodes.to_renew(&forged_next), Err("node_svid_superseded"));
    assert!(nodes.to_renew(&next.chain).is_ok());
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    assert_eq!(nodes.to_renew(&forged_next), Err("node_svid_superseded"), "nor after a restart");
    assert!(nodes.to_renew(&next.chain).is_ok());
}

#[tokio::test]
async fn a_node_that_an_older_broker_kept_is_taken_once_and_then_by_its_key() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let forged = nodes.spiffe.forged(&svid.id, &svid.serial);
    for node in nodes.store.nodes.lock().unwrap().values_mut() {
        let mut kept = serde_json::to_value(&*node).unwrap();
        for member in ["key", "previous_key", "first"] {
            kept["attested"].as_object_mut().unwrap().remove(member);
        }
        *node = serde_json::from_value(kept).unwrap();
    }
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    let node = nodes.authenticate(&svid.chain).unwrap();
    assert_eq!(nodes.authenticate(&forged), Err("node_svid_superseded"));
    let seen = nodes.saw(&node);
    nodes.spiffe.x509(&seen, "web").await.unwrap();
    // With its next SVID that is durable.
    nodes.renew(&node).await.unwrap();
    let Nodes { spiffe, store, .. } = nodes;
    let nodes = Nodes::over(store, spiffe);
    assert_eq!(nodes.authenticate(&forged), Err("node_svid_superseded"));
    assert!(nodes.authenticate(&svid.chain).is_ok());
}

#[tokio::test]
async fn a_key_that_is_missing_is_not_taken_at_the_word_of_a_tainted_authority() {
    let nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    let forged = nodes.spiffe.forged(&svid.id, &svid.serial);
    for node in nodes.store.nodes.lock().unwrap().values_mut() {
        let mut kept = serde_json::to_value(&*node).unwrap();
        kept["attested"].as_object_mut().unwrap().remove("key");
        *node = serde_json::from_value(kept).unwrap();
    }
    let Nodes { spiffe, store, .. } = nodes;
    let mut nodes = Nodes::over(store, spiffe);
    nodes.taint();
    for chain in [&forged, &svid.chain] {
        assert_eq!(nodes.to_renew(chain).map(drop), Err("node_svid_superseded"), "it attests itself anew");
    }
}

#[tokio::test]
async fn a_nodes_time_to_renew_does_not_run_while_there_is_no_broker() {
    let mut nodes = Nodes::new();
    let svid = nodes.join("edge-1").await;
    nodes.taint();
    nodes.spiffe.world.clock.advance(Duration::from_secs(600));
    assert_eq!(nodes.to_renew(&svid.chain), Err("node_svid_withdrawn"));
    let Nodes { mut spiffe, store, .. } = nodes;
    let now = spiffe.world.clock.now_seconds();
    Arc::get_mut(&mut spiffe.world.desk).unwrap().settings.started_at_seconds = now;
    let nodes = Nodes::over(store, spiffe);
    nodes.renew(&nodes.to_renew(&svid.chain).unwrap()).await.unwrap();
    nodes.spiffe.world.clock.advance(Duration::from_secs(300));
    assert_eq!(nodes.to_renew(&svid.chain), Err("node_svid_withdrawn"));
    nodes.spiffe.world.clock.jump_wall(Duration::from_secs(7200));
    assert_eq!(nodes.to_renew(&svid.chain), Err("clocks_disagree"), "what may be over may not be");
}

#[tokio::test]
async fn a_token_of_a_cluster_nodes_name_is_withdrawn_by_the_whole_id() {
    let nodes = Nodes::of_cluster();
    let svid = nodes.pod_on("worker-1|0b1c").await.unwrap();
    let token = nodes.token("worker-1").await.unwrap();
    assert!(matches!(nodes.ban("worker-1").await, Err(NotDone::InTheWay(_))), "which is meant?");
    nodes.ban("spiffe://example.org/deputize/node/worker-1").await.unwrap();
    nodes.attest(Proof::JoinToken(&token)).await.unwrap_err();
    nodes.authenticate(&svid.chain).expect("the cluster's goes on");
}
