//! One fake in memory for each trait that a stage asks, for tests and benches: here and in other crates. No program
//! uses them. The fake of [`Revocations`](crate::revocation::Revocations) is
//! [`RevokedSet`](crate::revocation::RevokedSet), which real stores keep as their view.

use async_trait::async_trait;
use deputize_call::keys::KeySet;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    error::IssueError,
    log::Class,
    mint::{RoleCredentials, RoleOrder, SecurityTokenService, StsRefusal},
    provider::{KeyGeneration, KeysUnavailable, ProviderKeys},
    record::{Audit, Entry},
    replay::{ReplayStore, Seen},
    secret::Secret,
    templates::RenderedSession,
};

/// An audit log that keeps its entries in memory, and that can be told to fail or to take its time.
#[derive(Debug)]
pub struct FakeAudit {
    origin: String,
    entries: Mutex<Vec<(Class, Vec<u8>)>>,
    disk: watch::Sender<Disk>,
}

/// How the disk of a [`FakeAudit`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// What is appended is durable at once.
    Sound,
    /// Nothing becomes durable until this changes: [`Audit::append`] waits.
    Slow,
    /// Nothing becomes durable.
    Broken,
}

impl FakeAudit {
    /// An empty log of this origin, on a sound disk.
    pub fn new(origin: &str) -> Self {
        Self { origin: origin.to_owned(), entries: Mutex::default(), disk: watch::Sender::new(Disk::Sound) }
    }

    /// Changes how the disk does; who waits is answered accordingly.
    pub fn set_disk(&self, disk: Disk) {
        self.disk.send_replace(disk);
    }

    /// Everything that is durable, in order.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = lock(&self.entries);
        entries.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect()
    }

    /// The same as bytes, with the class under which each was appended.
    pub fn raw_entries(&self) -> Vec<(Class, Vec<u8>)> {
        lock(&self.entries).clone()
    }

    /// Forgets what was appended; the next index is 0 again.
    pub fn clear(&self) {
        lock(&self.entries).clear();
    }

    fn push(&self, class: Class, entry: Vec<u8>) -> u64 {
        let mut entries = lock(&self.entries);
        entries.push((class, entry));
        entries.len() as u64 - 1
    }
}

#[async_trait]
impl Audit for FakeAudit {
    fn origin(&self) -> &str {
        &self.origin
    }
    async fn append(&self, class: Class, entry: Vec<u8>) -> Result<u64, IssueError> {
        let mut disk = self.disk.subscribe();
        let settled = disk.wait_for(|disk| *disk != Disk::Slow).await.map(|disk| *disk);
        match settled {
            Ok(Disk::Sound) => Ok(self.push(class, entry)),
            Ok(Disk::Slow | Disk::Broken) | Err(_) => Err(BROKEN),
        }
    }
    async fn append_all(&self, class: Class, entries: Vec<Vec<u8>>) -> Result<(), IssueError> {
        for entry in entries {
            self.append(class, entry).await?;
        }
        Ok(())
    }
    fn append_later(&self, class: Class, entry: Vec<u8>) -> Result<(), IssueError> {
        match *self.disk.borrow() {
            Disk::Sound | Disk::Slow => {
                self.push(class, entry);
                Ok(())
            }
            Disk::Broken => Err(BROKEN),
        }
    }
}

/// A store of used ids that forgets nothing, and that can lose its certainty.
#[derive(Debug, Default)]
pub struct FakeReplay {
    state: Mutex<ReplayState>,
}

#[derive(Debug, Default)]
struct ReplayState {
    spent: HashSet<[u8; 16]>,
    uncertain: bool,
}

impl FakeReplay {
    /// Whether it answers [`Seen::Uncertain`] to everything from now on.
    pub fn set_uncertain(&self, uncertain: bool) {
        lock(&self.state).uncertain = uncertain;
    }
    /// How many ids were spent.
    pub fn spent(&self) -> usize {
        lock(&self.state).spent.len()
    }
}

#[async_trait]
impl ReplayStore for FakeReplay {
    async fn seen(&self, tag: [u8; 16]) -> bool {
        lock(&self.state).spent.contains(&tag)
    }
    async fn spend(&self, _client_id: &str, tag: [u8; 16], _until_seconds: u64) -> Seen {
        let mut state = lock(&self.state);
        if state.uncertain {
            Seen::Uncertain
        } else if state.spent.insert(tag) {
            Seen::No
        } else {
            Seen::Yes
        }
    }
}

/// The keys of identity providers, published by hand.
#[derive(Debug, Default)]
pub struct FakeProviderKeys {
    known: Mutex<HashMap<String, KeyGeneration>>,
    held: watch::Sender<bool>,
}

impl FakeProviderKeys {
    /// Publishes an issuer's keys in place of earlier ones.
    pub fn publish(&self, issuer: &str, keys: KeySet) {
        let mut known = lock(&self.known);
        let generation = known.get(issuer).map_or(0, |known| known.generation) + 1;
        known.insert(issuer.to_owned(), KeyGeneration { keys: Arc::new(keys), generation });
    }
    /// As if this issuer's keys had never been had.
    pub fn forget(&self, issuer: &str) {
        lock(&self.known).remove(issuer);
    }
    /// Whether whoever asks has to wait, until this changes.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.held.receiver_count()
    }
}

#[async_trait]
impl ProviderKeys for FakeProviderKeys {
    async fn keys(&self, issuer: &str) -> Result<KeyGeneration, KeysUnavailable> {
        // The sender is in here: it cannot be gone before.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        lock(&self.known).get(issuer).cloned().ok_or(KeysUnavailable)
    }
    async fn keys_for_unknown_kid(
        &self,
        issuer: &str,
        _seen_generation: u64,
    ) -> Result<KeyGeneration, KeysUnavailable> {
        self.keys(issuer).await
    }
}

/// A security token service that remembers what was ordered, and that can refuse, hang or answer rubbish.
pub struct FakeSts {
    clock: Arc<dyn Clock>,
    orders: Mutex<Vec<FakeOrder>>,
    mood: watch::Sender<Mood>,
}

/// What a [`FakeSts`] was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeOrder {
    /// The session.
    pub session: RenderedSession,
    /// The web identity, which no real one would keep.
    pub web_identity: String,
}

/// How a [`FakeSts`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// Gives what is asked for: each time other credentials.
    Gives,
    /// Does not answer until this changes.
    Hangs,
    /// Refuses.
    Refuses(StsRefusal),
    /// Gives credentials that are none.
    Rubbish,
}

impl FakeSts {
    /// One that gives.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, orders: Mutex::default(), mood: watch::Sender::new(Mood::Gives) }
    }
    /// Changes how it does; who waits is answered accordingly.
    pub fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
    /// Everything that was ordered, in order.
    pub fn orders(&self) -> Vec<FakeOrder> {
        lock(&self.orders).clone()
    }
}

#[async_trait]
impl SecurityTokenService for FakeSts {
    async fn assume_role(&self, order: RoleOrder<'_>) -> Result<RoleCredentials, StsRefusal> {
        let (session, web_identity) = (order.session().clone(), order.web_identity().expose().clone());
        let expires_at_seconds = self.clock.now_seconds() + u64::from(session.duration_seconds);
        let assumed_role_arn = format!("{}/{}", session.role_arn, session.session_name);
        let number = {
            let mut orders = lock(&self.orders);
            orders.push(FakeOrder { session, web_identity });
            orders.len()
        };
        let mut mood = self.mood.subscribe();
        let mood = mood.wait_for(|mood| *mood != Mood::Hangs).await.map(|mood| mood.clone());
        let credentials = |secret: String| RoleCredentials {
            access_key_id: format!("ASIAFAKE{number:012}"),
            secret_access_key: Secret::new(secret),
            session_token: Secret::new(format!("session-token-{number}")),
            expires_at_seconds,
            assumed_role_arn,
            packed_policy_percent: Some(10),
            attempts: 1,
        };
        match mood {
            Ok(Mood::Gives) => Ok(credentials(format!("secret-access-key-{number}"))),
            Ok(Mood::Rubbish) => Ok(credentials(String::new())),
            Ok(Mood::Refuses(refusal)) => Err(refusal),
            Ok(Mood::Hangs) | Err(_) => Err(StsRefusal::Timeout),
        }
    }
}

impl std::fmt::Debug for FakeSts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeSts").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const BROKEN: IssueError = IssueError::RecordUnavailable("disk_broken");
