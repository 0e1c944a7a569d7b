//! JWT-SVIDs that are kept for a while: who asks again for the same gets the same, until half its life is over.

use deputize_issuer::{entry::Entry, secret::Secret, svid::JwtSvid};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is kept.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<Key, Kept>>,
}

type Key = (Box<str>, String, Vec<String>);

struct Kept {
    entry: Entry,
    token: Secret<String>,
    /// In Unix seconds, as the next.
    renew_at: u64,
    expires_at: u64,
}

impl Tokens {
    /// The one that is kept, if no new one is due.
    pub(super) fn fresh(&self, entry: &Entry, audiences: &[String], now_seconds: u64) -> Option<JwtSvid> {
        self.find(entry, audiences, |kept| now_seconds < kept.renew_at)
    }

    /// The one that is kept, if it is any good still: where no new one can be had.
    pub(super) fn left(&self, entry: &Entry, audiences: &[String], now_seconds: u64) -> Option<JwtSvid> {
        self.find(entry, audiences, |kept| now_seconds + LEAST_LEFT_SECONDS < kept.expires_at)
    }

    /// Keeps one that was just made.
    pub(super) fn keep(&self, entry: &Entry, audiences: &[String], (svid, now_seconds): (&JwtSvid, u64)) {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, one| now_seconds < one.expires_at);
        }
        if kept.len() >= MAX_KEPT {
            return;
        }
        let left = svid.expires_at_seconds.saturating_sub(now_seconds);
        let one = Kept {
            entry: entry.clone(),
            token: svid.token.clone(),
            renew_at: now_seconds + left / 2,
            expires_at: svid.expires_at_seconds,
        };
        kept.insert(key(entry, audiences), one);
    }

    /// Forgets all: what signed them may be tainted.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn find(&self, entry: &Entry, audiences: &[String], is_good: impl Fn(&Kept) -> bool) -> Option<JwtSvid> {
        let kept = self.lock();
        // An entry that changed may say something else of its tokens.
        let one = kept.get(&key(entry, audiences)).filter(|one| one.entry == *entry && is_good(one))?;
        Some(JwtSvid {
            spiffe_id: entry.spiffe_id.clone(),
            token: one.token.clone(),
            expires_at_seconds: one.expires_at,
            hint: entry.hint.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry with a template stands for many SPIFFE IDs.
fn key(entry: &Entry, audiences: &[String]) -> Key {
    (entry.id.clone(), entry.spiffe_id.to_string(), audiences.to_vec())
}

const MAX_KEPT: usize = 4096;
/// With less it would end on its way.
const LEAST_LEFT_SECONDS: u64 = 5;
