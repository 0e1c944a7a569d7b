//! JWT-SVIDs that are kept for a while: who asks again for the same gets the same, until half its life is over. A process of
//! which something else is known gets another one: who has which is on record at the broker.

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
#[derive(Clone, PartialEq, Eq, Hash)]
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
        let (mut kept, key) = (self.lock(), asked.key());
        if !kept.contains_key(&key) {
            make_room(&mut kept, &key, now_seconds);
        }
        let left = svid.expires_at_seconds.saturating_sub(now_seconds);
        let one = Kept {
            entry: asked.entry.clone(),
            token: svid.token.clone(),
            renew_at: now_seconds + left / 2,
            expires_at: svid.expires_at_seconds,
        };
        kept.insert(key, one);
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

/// Puts out what is to be renewed first: of the same process and entry where that has its share, else of all where there is no room.
fn make_room(kept: &mut HashMap<Key, Kept>, new: &Key, now_seconds: u64) {
    if kept.len() >= MAX_KEPT {
        kept.retain(|_, one| now_seconds < one.expires_at);
    }
    let is_of_same = |key: &Key| key.process == new.process && key.entry == new.entry;
    let of_same = kept.keys().filter(|key| is_of_same(key)).count();
    let is_too_many = of_same >= MAX_KEPT_OF_ONE;
    if !is_too_many && kept.len() < MAX_KEPT {
        return;
    }
    let goes = kept.iter().filter(|(key, _)| !is_too_many || is_of_same(key));
    let goes = goes.min_by_key(|(_, one)| one.renew_at).map(|(key, _)| key.clone());
    if let Some(goes) = goes {
        kept.remove(&goes);
    }
}

const MAX_KEPT: usize = 4096;
/// Of one process, by one entry: it may name audiences without number.
const MAX_KEPT_OF_ONE: usize = 64;
/// With less it would end on its way.
const LEAST_LEFT_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::entry::{Bounds, Draft, Entries, Origin};
    use spiffe::{SpiffeId, TrustDomain};

    const NODE: &str = "spiffe://example.org/deputize/node/edge-1";

    fn process(uid: usize) -> Workload {
        let selectors = [format!("unix:uid:{uid}").parse().unwrap()].into();
        Workload::attested(SpiffeId::new(NODE).unwrap(), selectors)
    }

    fn entry() -> Entry {
        let node = SpiffeId::new(NODE).unwrap();
        let bounds = Bounds { trust_domain: TrustDomain::new("example.org").unwrap(), own_node: node };
        let draft = Draft {
            id: "web".to_owned(),
            spiffe_id: "spiffe://example.org/web".to_owned(),
            selectors: vec!["unix:uid:1000".to_owned()],
            ..Draft::default()
        };
        let entries = Entries::build(bounds, [(draft, Origin::Admin)]).unwrap();
        Entry::clone(&entries.entitled(&process(1000), 0).pop().unwrap())
    }

    #[test]
    fn one_process_takes_no_room_of_others_and_what_is_to_be_renewed_first_goes_first() {
        let (tokens, entry) = (Tokens::default(), entry());
        let keep = |uid: usize, audience: usize, expires_at_seconds: u64| {
            let (workload, audiences) = (process(uid), [audience.to_string()]);
            let svid = JwtSvid {
                spiffe_id: entry.spiffe_id.clone(),
                token: Secret::new("token".to_owned()),
                expires_at_seconds,
                hint: String::new(),
            };
            tokens.keep(Asked { workload: &workload, entry: &entry, audiences: &audiences }, (&svid, 1000));
        };
        let has = |uid: usize, audience: usize| {
            let (workload, audiences) = (process(uid), [audience.to_string()]);
            tokens.fresh(Asked { workload: &workload, entry: &entry, audiences: &audiences }, 1000).is_some()
        };
        let ends = |audience: usize| 2000 + u64::try_from(audience).unwrap();
        (0..MAX_KEPT).for_each(|audience| keep(1, audience, ends(audience)));
        assert_eq!((0..MAX_KEPT).filter(|audience| has(1, *audience)).count(), MAX_KEPT_OF_ONE);
        keep(2, 0, 1500);
        assert!(has(2, 0) && has(1, MAX_KEPT - 1), "another's is kept beside them");
        (3..MAX_KEPT).for_each(|uid| keep(uid, 0, 90_000));
        assert!(!has(2, 0) && has(MAX_KEPT - 1, 0), "where all is full, the newest is kept");
        assert!(tokens.lock().len() <= MAX_KEPT);
    }
}
