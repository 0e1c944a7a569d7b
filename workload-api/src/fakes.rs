//! Fakes in memory of what the Workload API asks, for tests here and in other crates. No program uses them.

use async_trait::async_trait;
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::{
    clock::Clock,
    entry::{Entry, NodePattern},
    error::IssueError,
    secret::Secret,
    svid::{Bundle, Bundles, JwtSvid, X509Svid},
    words::Words,
    workload::{Selector, Workload},
};
use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::UnixStream, sync::watch};
use uuid::Uuid;

use crate::{
    exchange::NotExchanged,
    peer::NotAttested,
    proto::exchange::{ExchangeRequest, ExchangeResponse},
    reception::{Guest, Process, Reception},
    source::{SourceError, SvidSource},
};

/// A source whose entries, authorities and failures a test chooses. Its certificates and keys are bytes that tell one
/// from another, and nothing else; its JWT-SVIDs are real.
pub struct FakeSource {
    clock: Arc<dyn Clock>,
    key: SigningKey,
    changes: watch::Sender<u64>,
    made: watch::Sender<u64>,
    denied: AtomicU64,
    state: Mutex<State>,
}

struct State {
    entries: Vec<Arc<Entry>>,
    bundles: Arc<Bundles>,
    /// Which authority signs, and which are tainted.
    authority: [u8; 32],
    tainted: Vec<[u8; 32]>,
    failure: Option<SourceError>,
    not_exchanged: Option<NotExchanged>,
}

impl FakeSource {
    /// A source of this trust domain, without entries.
    ///
    /// # Errors
    /// If there is no randomness for its key.
    pub fn new(
        trust_domain: TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, deputize_call::jws::JwsError> {
        let key = SigningKey::generate(SigningAlgorithm::ES256)?;
        let own = Arc::new(Bundle {
            trust_domain,
            x509_authorities: vec![b"authority 1".to_vec()],
            jwt_authorities: KeySet::new(vec![key.public().clone()]),
            sequence: 1,
            refresh_hint_seconds: 300,
        });
        let state = State {
            entries: Vec::new(),
            bundles: Arc::new(Bundles { own, federated: Vec::new() }),
            authority: [1; 32],
            tainted: Vec::new(),
            failure: None,
            not_exchanged: None,
        };
        let changes = watch::Sender::new(0);
        let (made, denied) = (watch::Sender::new(0), AtomicU64::new(0));
        Ok(Self { clock, key, changes, made, denied, state: Mutex::new(state) })
    }

    /// Changes the entries.
    pub fn set_entries(&self, entries: Vec<Entry>) {
        self.change(|state| state.entries = entries.into_iter().map(Arc::new).collect());
    }

    /// Changes the bundles.
    pub fn change_bundles(&self, change: impl FnOnce(&mut Bundles)) {
        self.change(|state| change(Arc::make_mut(&mut state.bundles)));
    }

    /// Taints the authority that signs, and has another sign from now on.
    pub fn taint(&self) {
        self.change(|state| {
            state.tainted.push(state.authority);
            state.authority = state.authority.map(|byte| byte.wrapping_add(1));
        });
    }

    /// What every question is answered with from now on, instead of an SVID.
    pub fn set_failure(&self, failure: Option<SourceError>) {
        self.lock().failure = failure;
    }

    /// What every exchange is answered with from now on, instead of a token.
    pub fn set_not_exchanged(&self, refusal: Option<NotExchanged>) {
        self.lock().not_exchanged = refusal;
    }

    /// How many SVIDs were made.
    pub fn made(&self) -> u64 {
        *self.made.borrow()
    }

    /// Waits until so many SVIDs were made.
    pub async fn has_made(&self, so_many: u64) {
        // The sender is in here: it cannot be gone before.
        let _ = self.made.subscribe().wait_for(|made| *made >= so_many).await;
    }

    /// The number of the SVID that is made now, from 1 on.
    fn make(&self) -> u64 {
        let mut number = 0;
        self.made.send_modify(|made| {
            *made += 1;
            number = *made;
        });
        number
    }

    /// How many denials were put on record.
    pub fn denials(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// The key that signs its JWT-SVIDs.
    pub fn jwt_key(&self) -> &SigningKey {
        &self.key
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
    }

    fn check(&self, workload: &Workload, entry: &Entry) -> Result<(), SourceError> {
        if let Some(failure) = self.lock().failure.clone() {
            return Err(failure);
        }
        let is_entitled = self.entitled(workload).iter().any(|one| **one == *entry);
        if is_entitled { Ok(()) } else { Err(SourceError::NotEntitled) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SvidSource for FakeSource {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn entitled(&self, workload: &Workload) -> Vec<Arc<Entry>> {
        let now = self.clock.now_seconds();
        let state = self.lock();
        state.entries.iter().filter(|entry| entry.entitles(workload, now)).cloned().collect()
    }

    fn denied(&self, _: &Workload) -> Option<Uuid> {
        let before = self.denied.fetch_add(1, Ordering::Relaxed);
        Some(Uuid::from_u128(before as u128 + 1))
    }

    async fn x509_svid(&self, workload: &Workload, entry: &Entry) -> Result<X509Svid, SourceError> {
        // As a real one does: others run meanwhile.
        tokio::task::yield_now().await;
        self.check(workload, entry)?;
        let (now, number) = (self.clock.now_seconds(), self.make());
        Ok(X509Svid {
            spiffe_id: entry.spiffe_id.clone(),
            entry: entry.id.clone(),
            chain: vec![format!("leaf {number}, ").into_bytes(), b"intermediate".to_vec()],
            private_key: Some(Secret::new(format!("key {number}").into_bytes())),
            not_before_seconds: now,
            not_after_seconds: now + entry.x509_svid_ttl_seconds.unwrap_or(DEFAULT_X509_TTL_SECONDS),
            hint: entry.hint.clone(),
            authorities: vec![self.lock().authority],
        })
    }

    async fn jwt_svid(
        &self,
        workload: &Workload,
        entry: &Entry,
        audiences: &[String],
    ) -> Result<JwtSvid, SourceError> {
        tokio::task::yield_now().await;
        self.check(workload, entry)?;
        self.make();
        let now = self.clock.now_seconds();
        let expires_at_seconds = now + entry.jwt_svid_ttl_seconds.unwrap_or(DEFAULT_JWT_TTL_SECONDS);
        let claims = serde_json::json!({
            "sub": entry.spiffe_id.to_string(), "aud": audiences, "iat": now, "exp": expires_at_seconds,
        });
        let token = self
            .key
            .sign("JWT", &claims)
            .map_err(|_| SourceError::Unavailable("the fake key does not sign"))?;
        Ok(JwtSvid {
            spiffe_id: entry.spiffe_id.clone(),
            token: token.into(),
            expires_at_seconds,
            hint: entry.hint.clone(),
        })
    }

    async fn exchange(
        &self,
        workload: &Workload,
        entry: &Entry,
        request: &ExchangeRequest,
    ) -> Result<ExchangeResponse, NotExchanged> {
        tokio::task::yield_now().await;
        if let Some(refusal) = self.lock().not_exchanged.clone() {
            return Err(refusal);
        }
        if self.check(workload, entry).is_err() || entry.exchange.is_none() {
            let words = Words::from(&IssueError::NotEntitled("entry_without_exchange"));
            return Err(NotExchanged { words, decision_id: None });
        }
        let number = self.make();
        Ok(ExchangeResponse {
            access_token: format!("token {number} of {}", entry.spiffe_id),
            authorization_details: request.authorization_details.clone(),
            ..ExchangeResponse::default()
        })
    }

    fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.lock().bundles)
    }

    fn stands_by(&self, authorities: &[[u8; 32]]) -> bool {
        let state = self.lock();
        !authorities.iter().any(|authority| state.tainted.contains(authority))
    }
}

/// An entry for processes of one user on one node, as plain as can be.
///
/// # Errors
/// If one of the IDs is none.
pub fn entry(id: &str, spiffe_id: &str, node: &str, uid: u32) -> Result<Entry, SpiffeIdError> {
    Ok(Entry {
        id: id.into(),
        spiffe_id: SpiffeId::new(spiffe_id)?,
        nodes: BTreeSet::from([NodePattern::One(SpiffeId::new(node)?)]),
        selectors: of_user(uid),
        x509_svid_ttl_seconds: None,
        jwt_svid_ttl_seconds: None,
        hint: String::new(),
        dns_names: Vec::new(),
        federates_with: Vec::new(),
        exchange: None,
        expires_at_seconds: None,
    })
}

/// A process that is what a test says.
pub struct FakeProcess {
    user: u32,
    found: Mutex<Result<Workload, NotAttested>>,
    found_later: Mutex<Option<Result<Workload, NotAttested>>>,
    attested: AtomicU64,
    gone: watch::Sender<bool>,
}

impl FakeProcess {
    /// A process of this user on this node.
    pub fn new(node: SpiffeId, user: u32) -> Self {
        let found = Mutex::new(Ok(Workload::attested(node, of_user(user))));
        let found_later = Mutex::default();
        Self { user, found, found_later, attested: AtomicU64::new(0), gone: watch::Sender::new(false) }
    }

    /// What is found from now on.
    pub fn set_found(&self, found: Result<Workload, NotAttested>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// What is found from the time after the next on.
    pub fn set_found_later(&self, found: Result<Workload, NotAttested>) {
        *self.found_later.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    /// How often it was looked at.
    pub fn attested(&self) -> u64 {
        self.attested.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn end(&self) {
        self.gone.send_replace(true);
    }
}

#[async_trait]
impl Process for FakeProcess {
    fn user(&self) -> u32 {
        self.user
    }

    async fn attest(&self) -> Result<Workload, NotAttested> {
        self.attested.fetch_add(1, Ordering::Relaxed);
        if *self.gone.borrow() {
            return Err(NotAttested::Gone);
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let now = found.clone();
        if let Some(later) = self.found_later.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *found = later;
        }
        now
    }

    async fn gone(&self) {
        // The sender is in here: it cannot be gone before.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }
}

/// Lets everybody in, as the process that a test has set.
pub struct FakeReception(Mutex<Result<Arc<FakeProcess>, NotAttested>>);

impl FakeReception {
    /// Whoever connects is this process.
    pub fn new(process: Arc<FakeProcess>) -> Self {
        Self(Mutex::new(Ok(process)))
    }

    /// Who connects from now on is this process, or nobody.
    pub fn set(&self, process: Result<Arc<FakeProcess>, NotAttested>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }
}

impl Reception for FakeReception {
    fn receive(&self, stream: UnixStream) -> Result<Guest, NotAttested> {
        let process = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Ok(Guest { process, stream: Box::new(stream) })
    }
}

fn of_user(uid: u32) -> BTreeSet<Selector> {
    Selector::new("unix", &format!("uid:{uid}")).into_iter().collect()
}

const DEFAULT_X509_TTL_SECONDS: u64 = 3600;
const DEFAULT_JWT_TTL_SECONDS: u64 = 300;
