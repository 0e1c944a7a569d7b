//! Tokens that may serve again: L0 to L2, until shortly before they expire, as often as they may be used.

use crate::token::ToolToken;
use deputize_call::digest::sha256;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub(crate) struct TokenCache {
    capacity: usize,
    entries: Mutex<HashMap<CacheKey, Entry>>,
}

/// SHA-256 over everything that was asked, the subject token included: no token in clear is kept as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

struct Entry {
    token: ToolToken,
    until: Duration,
    uses_left: Option<u64>,
}

impl TokenCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    /// A token for the same request, if there is one with a use left.
    pub(crate) fn take(&self, key: CacheKey, uptime: Duration) -> Option<ToolToken> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(&key)?;
        if uptime >= entry.until || entry.uses_left == Some(0) {
            entries.remove(&key);
            return None;
        }
        entry.uses_left = entry.uses_left.map(|uses| uses - 1);
        Some(entry.token.clone())
    }

    /// Keeps a token that was just received and will be used once by who asked. `asked` is when the request was sent.
    pub(crate) fn keep(&self, key: CacheKey, token: &ToolToken, asked: Duration) {
        let lifetime = Duration::from_secs(token.expires_in_seconds).saturating_sub(MARGIN);
        let uses_left = token.max_uses().map(|uses| uses.saturating_sub(1));
        if token.binds_one_call() || lifetime.is_zero() || uses_left == Some(0) || self.capacity == 0 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity {
            entries.retain(|_, entry| entry.until > asked);
        }
        if entries.len() >= self.capacity {
            let soonest = entries.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| *key);
            soonest.and_then(|key| entries.remove(&key));
        }
        entries.insert(key, Entry { token: token.clone(), until: asked + lifetime, uses_left });
    }

    /// Forgets a token that was revoked.
    pub(crate) fn forget(&self, access_token: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.token.access_token() != access_token);
    }
}

impl CacheKey {
    pub(crate) fn of(form: &str) -> Self {
        Self(sha256(form.as_bytes()))
    }
}

/// A token is not handed out when it could expire on its way.
const MARGIN: Duration = Duration::from_secs(5);
