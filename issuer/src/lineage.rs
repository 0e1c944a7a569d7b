//! Which live token was made from which, and for whom: what a next hop and the revocation of descendants need.
//!
//! A token of ours carries `sub` but not the person's groups and claims; those are held here, in the memory of the
//! replica that made it, until it expires. After a restart a next hop with an older token is refused.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{error::IssueError, person::Person, revocation::Place};

/// Live tokens that may have, or are, children.
#[derive(Debug)]
pub struct Lineage {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    capacity: usize,
    tokens: HashMap<String, Entry>,
    by_expiry: BTreeSet<(u64, String)>,
    /// How many each client holds.
    held: HashMap<Arc<str>, usize>,
    /// One copy of each audience's name: as many as there are servers.
    audiences: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    client_id: Arc<str>,
    audience: Arc<str>,
    txn: Box<str>,
    person: Option<Arc<Person>>,
    parent: Option<String>,
    children: Vec<String>,
}

/// A token to remember.
#[derive(Debug, Clone)]
pub struct Born<'a> {
    /// Its id.
    pub jti: &'a str,
    /// The token that it was made from.
    pub parent: Option<&'a str>,
    /// Whom it was made for. Unknown for tokens restored from the log.
    pub person: Option<Arc<Person>>,
    /// The client that got it.
    pub client_id: &'a str,
    /// The server that it is for.
    pub audience: &'a str,
    /// Its transaction.
    pub txn: &'a str,
    /// When it expires (Unix seconds).
    pub expires_at: u64,
}

impl Default for Lineage {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Lineage {
    fn with_capacity(capacity: usize) -> Self {
        Self { live: Mutex::new(Live { capacity, ..Live::default() }) }
    }

    /// Remembers a token until it expires.
    ///
    /// # Errors
    /// [`IssueError::Uncertain`] when [`CAPACITY`] live tokens are held, or this client's share of them: as many as
    /// there is room left. Nothing is forgotten early.
    pub fn remember(&self, born: Born<'_>, now_seconds: u64) -> Result<(), IssueError> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.forget_before(now_seconds);
        if live.held(born.client_id) >= live.room() {
            return Err(IssueError::Uncertain("lineage_full"));
        }
        live.insert(born);
        Ok(())
    }

    /// Takes back a token that was remembered before this start, whatever its client's share; whether there was room.
    pub fn restore(&self, born: Born<'_>) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = live.room() > 0;
        if fits {
            live.insert(born);
        }
        fits
    }

    /// The person for whom a live token was made.
    pub fn person(&self, jti: &str) -> Option<Arc<Person>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).tokens.get(jti)?.person.clone()
    }

    /// Where those of these tokens that are live here are used, and by whom.
    pub fn places(&self, tokens: &[String]) -> Vec<(String, Place)> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |entry: &Entry| Place {
            audience: Arc::clone(&entry.audience),
            client_id: Arc::clone(&entry.client_id),
        };
        tokens.iter().filter_map(|jti| Some((jti.clone(), place(live.tokens.get(jti)?)))).collect()
    }

    /// Whether such a token is live here: for this audience and, where one is named, of this transaction.
    pub fn bears_out(&self, jti: &str, audience: &str, txn: Option<&str>) -> bool {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.tokens
            .get(jti)
            .is_some_and(|entry| *entry.audience == *audience && txn.is_none_or(|txn| *entry.txn == *txn))
    }

    /// The token and all its live descendants.
    pub fn with_descendants(&self, jti: &str) -> Vec<String> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = vec![jti.to_owned()];
        let mut next = 0;
        while let Some(jti) = found.get(next).cloned() {
            found.extend(live.tokens.get(&jti).into_iter().flat_map(|entry| entry.children.iter().cloned()));
            next += 1;
        }
        found
    }

    /// The token and its ancestors, as far as they are known; `None` if there are more than [`MAX_ANCESTORS`]: whoever
    /// asks must then assume the worst of them.
    pub fn with_ancestors(&self, jti: &str) -> Option<Vec<String>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = vec![jti.to_owned()];
        let mut at = live.tokens.get(jti);
        while let Some(parent) = at.and_then(|entry| entry.parent.clone()) {
            // Agents in a chain are few, but a holder may exchange its token for an equal one again and again.
            if found.len() > MAX_ANCESTORS {
                return None;
            }
            at = live.tokens.get(&parent);
            found.push(parent);
        }
        Some(found)
    }
}

impl Lineage {
    /// The clients that got the tokens from which this one was made, each once, as far as they are known.
    pub fn clients_before(&self, jti: &str) -> BTreeSet<Arc<str>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let parent = |entry: &Entry| live.tokens.get(entry.parent.as_ref()?);
        let mut found = BTreeSet::new();
        let mut at = live.tokens.get(jti).and_then(parent);
        for _ in 0..MAX_ANCESTORS {
            let Some(entry) = at else { break };
            found.insert(Arc::clone(&entry.client_id));
            at = parent(entry);
        }
        found
    }
}

impl Live {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.tokens.len())
    }

    fn held(&self, client_id: &str) -> usize {
        self.held.get(client_id).copied().unwrap_or_default()
    }

    fn insert(&mut self, born: Born<'_>) {
        let Born { jti, parent, person, client_id, audience, txn, expires_at } = born;
        // One copy of each client's name, however many tokens it holds.
        let client_id = match self.held.get_key_value(client_id) {
            Some((client_id, _)) => Arc::clone(client_id),
            None => Arc::from(client_id),
        };
        *self.held.entry(Arc::clone(&client_id)).or_default() += 1;
        let audience = match self.audiences.get(audience) {
            Some(audience) => Arc::clone(audience),
            None => {
                let audience = Arc::from(audience);
                self.audiences.insert(Arc::clone(&audience));
                audience
            }
        };
        if let Some(parent) = parent.and_then(|parent| self.tokens.get_mut(parent)) {
            parent.children.push(jti.to_owned());
        }
        let (txn, parent) = (txn.into(), parent.map(str::to_owned));
        let entry = Entry { client_id, audience, txn, person, parent, children: Vec::new() };
        self.tokens.insert(jti.to_owned(), entry);
        self.by_expiry.insert((expires_at, jti.to_owned()));
    }

    fn forget(&mut self, jti: &str) {
        let Some(entry) = self.tokens.remove(jti) else { return };
        if let Some(held) = self.held.get_mut(&entry.client_id) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&entry.client_id);
            }
        }
    }

    /// In small steps: no request pays for all that a quiet hour has left behind.
    fn forget_before(&mut self, now_seconds: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.by_expiry.first() {
                Some((expires_at, _)) if expires_at + GRACE_SECONDS < now_seconds => {}
                _ => return,
            }
            if let Some((_, jti)) = self.by_expiry.pop_first() {
                self.forget(&jti);
            }
        }
    }
}

/// The most live tokens held: about 400 bytes each.
pub const CAPACITY: usize = 500_000;
/// The most ancestors of one token that are looked at.
pub const MAX_ANCESTORS: usize = 10_000;
/// A token is remembered this much longer than it lives, for verifiers' leeway.
const GRACE_SECONDS: u64 = 60;
const FORGOTTEN_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn born<'a>(jti: &'a str, parent: Option<&'a str>) -> Born<'a> {
        let (audience, txn) = ("https://a.example/mcp", "t");
        Born { jti, parent, person: None, client_id: "a", audience, txn, expires_at: 100 }
    }

    #[test]
    fn one_client_leaves_room_for_others_and_gets_its_own_back() {
        let lineage = Lineage::with_capacity(100);
        let of = |client_id: &str, range: std::ops::Range<usize>, now| {
            let fits = |jti: &String| {
                lineage.remember(Born { client_id, expires_at: now + 100, ..born(jti, None) }, now).is_ok()
            };
            range.map(|n| format!("{client_id}{n}")).take_while(fits).count()
        };
        assert_eq!(of("greedy", 0..100, 0), 50);
        assert_eq!(of("other", 0..10, 0), 10);
        assert_eq!(of("greedy", 100..101, 0), 0);
        let before = Born { client_id: "greedy", ..born("before", None) };
        assert!(lineage.restore(before), "what was held before a start is taken back");
        let later = 100 + GRACE_SECONDS + 1;
        assert_eq!(of("greedy", 200..300, later), 50, "what has expired counts no longer");
    }

    #[test]
    fn a_live_token_bears_out_its_own_audience_and_transaction_alone() {
        let lineage = Lineage::default();
        lineage.remember(born("a", None), 0).unwrap();
        let own = "https://a.example/mcp";
        for (jti, audience, txn, borne_out) in [
            ("a", own, Some("t"), true),
            ("a", own, None, true),
            ("a", own, Some("another"), false),
            ("a", "https://b.example/mcp", Some("t"), false),
            ("b", own, Some("t"), false),
        ] {
            assert_eq!(lineage.bears_out(jti, audience, txn), borne_out, "{jti} {audience} {txn:?}");
        }
        let places = lineage.places(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(places, [("a".to_owned(), Place { audience: own.into(), client_id: "a".into() })]);
    }

    #[test]
    fn descendants_are_found_through_every_hop_and_forgotten_after_expiry() {
        let lineage = Lineage::default();
        lineage.remember(born("a", None), 0).unwrap();
        lineage.remember(born("b", Some("a")), 0).unwrap();
        lineage.remember(born("c", Some("b")), 0).unwrap();
        lineage.remember(born("x", None), 0).unwrap();
        assert_eq!(lineage.with_descendants("a"), ["a", "b", "c"]);
        assert_eq!(lineage.with_ancestors("c").unwrap(), ["c", "b", "a"]);
        assert_eq!(lineage.with_descendants("x"), ["x"]);
        let late = Born { expires_at: 1000, ..born("y", None) };
        lineage.remember(late, 100 + GRACE_SECONDS + 1).unwrap();
        assert_eq!(lineage.with_descendants("a"), ["a"], "forgotten with its expiry");
    }

    #[test]
    fn ancestors_are_followed_to_the_first_and_beyond_the_bound_nothing_is_claimed() {
        let lineage = Lineage::default();
        lineage.remember(born("0", None), 0).unwrap();
        for n in 1..=MAX_ANCESTORS + 1 {
            lineage.remember(born(&n.to_string(), Some(&(n - 1).to_string())), 0).unwrap();
        }
        let all = lineage.with_ancestors(&MAX_ANCESTORS.to_string()).unwrap();
        assert_eq!((all.len(), all.last().unwrap().as_str()), (MAX_ANCESTORS + 1, "0"));
        assert_eq!(lineage.with_ancestors(&(MAX_ANCESTORS + 1).to_string()), None);
    }
}
