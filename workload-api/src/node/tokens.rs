//! JWT-SVIDs that are kept for a while: who asks again for the same gets the same, until half its life is over. Another process
//! gets another one: who has which is on record at the broker.

use deputize_call::digest::sha256;
use deputize_issuer::{entry::Entry, secret::Secret, svid::JwtSvid, workload::Workload};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is kept.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<HashMap<Key, Kept>>,
}

/// For whom, by what: two processes of which nothing different is known are one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) workload: &'a Workload,
    pub(super) entry: &'a Entry,
    pub(super) audiences: &'a [String],
}

/// An entry with a template stands for many SPIFFE IDs. The process as a digest, for much may be known of it.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    process: [u8; 32],
    entry: Box<str>,
    spiffe_id: String,
    audiences: Vec<String>,
}

struct Kept {
    entry: Entry,
    token: Secret<String>,
    /// In Unix seconds, as the next.
    renew_at: u64,
    expires_at: u64,
}

impl Tokens {
    /// The one that is kept, if no new one is due.
    pub(super) fn fresh(&self, asked: Asked<'_>, now_seconds: u64) -> Option<JwtSvid> {
        self.find(asked, |kept| now_seconds < kept.renew_at)
    }

    /// The one that is kept, if it is any good still: where no new one can be had.
    pub(super) fn left(&self, asked: Asked<'_>, now_seconds: u64) -> Option<JwtSvid> {
        self.find(asked, |kept| now_seconds + LEAST_LEFT_SECONDS < kept.expires_at)
    }

    /// Keeps one that was just made.
    pub(super) fn keep(&self, asked: Asked<'_>, (svid, now_seconds): (&JwtSvid, u64)) {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, one| now_seconds < one.expires_at);
        }
        if kept.len() >= MAX_KEPT {
            return;
        }
        let left = svid.expires_at_seconds.saturating_sub(now_seconds);
        let one = Kept {
            entry: asked.entry.clone(),
            token: svid.token.clone(),
            renew_at: now_seconds + left / 2,
            expires_at: svid.expires_at_seconds,
        };
        kept.insert(asked.key(), one);
    }

    /// Forgets all: what signed them may be tainted.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn find(&self, asked: Asked<'_>, is_good: impl Fn(&Kept) -> bool) -> Option<JwtSvid> {
        let (kept, entry) = (self.lock(), asked.entry);
        // An entry that changed may say something else of its tokens.
        let one = kept.get(&asked.key()).filter(|one| one.entry == *entry && is_good(one))?;
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

impl Asked<'_> {
    fn key(&self) -> Key {
        // No selector has a line's end in it.
        let mut known = String::from(if self.workload.is_contained() { "contained" } else { "" });
        for selector in self.workload.selectors() {
            known.push('\n');
            known.push_str(&selector.to_string());
        }
        Key {
            process: sha256(known.as_bytes()),
            entry: self.entry.id.clone(),
            spiffe_id: self.entry.spiffe_id.to_string(),
            audiences: self.audiences.to_vec(),
        }
    }
}

const MAX_KEPT: usize = 4096;
/// With less it would end on its way.
const LEAST_LEFT_SECONDS: u64 = 5;
