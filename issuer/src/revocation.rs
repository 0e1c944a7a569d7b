//! What no longer holds: tokens with their descendants, whole transactions, persons.

use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OwnedRwLockWriteGuard;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Revoked {
    /// One token, by `jti`.
    Token(String),
    /// Every token of a transaction, by `txn`.
    Transaction(String),
    /// Every token in a person's name, by `sub`: a disabled user.
    Person(String),
}

/// Where a token is used, and by whom: which guards have to hear that it is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The server.
    pub audience: Arc<str>,
    /// The client that holds it.
    pub client_id: Arc<str>,
}

/// A revocation is being taken back: what is in force and what is on record do not agree until this is dropped.
#[derive(Debug, Default)]
pub struct Lifting {
    _held: Option<OwnedRwLockWriteGuard<()>>,
}

/// Asked on every use of a token of ours. Answers come from memory; changes are durable before they are answered.
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Whether any of these is revoked now.
    fn any_revoked(&self, what: &[Revoked]) -> bool;
    /// Everything that is revoked at this time (Unix seconds): what a guard that connects is told.
    fn in_force(&self, now_seconds: u64) -> Vec<Revoked>;
    /// Takes effect at once, in memory alone, until `until_seconds` (Unix time). Waits for nothing, so that no
    /// caller who goes away can come between a revocation's record and its effect.
    fn hold(&self, what: &[Revoked], until_seconds: u64);
    /// Revokes durably until `until_seconds` (Unix time): when everything concerned has expired by itself.
    async fn revoke(&self, what: Vec<Revoked>, until_seconds: u64) -> Result<(), RevocationFailed>;
    /// Says where tokens are used that are about to be revoked, for whoever tells guards: of a token of which nothing
    /// is known every guard is told. May be forgotten after `until_seconds` (Unix time).
    fn place(&self, _tokens: Vec<(String, Place)>, _until_seconds: u64) {}
    /// Held while a revocation is taken back, on record and in force: whoever publishes what is in force, by its place
    /// in the record, waits until it is dropped.
    async fn lifting(&self) -> Lifting {
        Lifting::default()
    }
    /// Takes a revocation back, durably and then in memory.
    async fn lift(&self, what: &Revoked) -> Result<(), RevocationFailed>;
}

impl From<OwnedRwLockWriteGuard<()>> for Lifting {
    fn from(held: OwnedRwLockWriteGuard<()>) -> Self {
        Self { _held: Some(held) }
    }
}

/// The revocation is not durable: the caller must be told to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the revocation could not be stored")]
pub struct RevocationFailed;

/// Revocations in memory: the view that every store keeps, and the fake for tests.
#[derive(Debug, Default)]
pub struct RevokedSet {
    until: Mutex<HashMap<Revoked, u64>>,
}

impl RevokedSet {
    /// Adds entries, until they lapse or are lifted.
    pub fn insert(&self, what: impl IntoIterator<Item = Revoked>, until_seconds: u64) {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        for revoked in what {
            let until = all.entry(revoked).or_default();
            *until = until_seconds.max(*until);
        }
    }
    /// Whether any of these is in the set.
    pub fn any(&self, what: &[Revoked]) -> bool {
        let all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        !all.is_empty() && what.iter().any(|revoked| all.contains_key(revoked))
    }
    /// Takes an entry out.
    pub fn remove(&self, what: &Revoked) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }
    /// Forgets what has lapsed.
    pub fn forget_before(&self, now_seconds: u64) {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until >= now_seconds);
    }
    /// Everything in the set that has not lapsed.
    pub fn in_force(&self, now_seconds: u64) -> Vec<Revoked> {
        let all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = all.iter().filter(|(_, until)| **until >= now_seconds);
        holds.map(|(revoked, _)| revoked.clone()).collect()
    }
}

#[async_trait]
impl Revocations for RevokedSet {
    fn any_revoked(&self, what: &[Revoked]) -> bool {
        self.any(what)
    }
    fn in_force(&self, now_seconds: u64) -> Vec<Revoked> {
        self.in_force(now_seconds)
    }
    fn hold(&self, what: &[Revoked], until_seconds: u64) {
        self.insert(what.iter().cloned(), until_seconds);
    }
    async fn revoke(&self, what: Vec<Revoked>, until_seconds: u64) -> Result<(), RevocationFailed> {
        self.insert(what, until_seconds);
        Ok(())
    }
    async fn lift(&self, what: &Revoked) -> Result<(), RevocationFailed> {
        self.remove(what);
        Ok(())
    }
}
