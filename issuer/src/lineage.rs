//! Which live token was made from which, and for whom: what a next hop and the revocation of descendants need.
//!
//! A token of ours carries `sub` but not the person's groups and claims; those are held here, in the memory of the
//! replica that made it, until it expires. After a restart a next hop with an older token is refused.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{error::IssueError, person::Person};

/// Live tokens that may have, or are, children.
#[derive(Debug, Default)]
pub struct Lineage {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    tokens: HashMap<String, Entry>,
    by_expiry: BTreeSet<(u64, String)>,
}

#[derive(Debug)]
struct Entry {
    person: Option<Arc<Person>>,
    parent: Option<String>,
    children: Vec<String>,
}

impl Lineage {
    /// Remembers a token until it expires; `person` is unknown for tokens restored from the log.
    ///
    /// # Errors
    /// [`IssueError::Uncertain`] when [`CAPACITY`] live tokens are held: nothing is forgotten early.
    pub fn remember(
        &self,
        jti: &str,
        parent: Option<&str>,
        person: Option<Arc<Person>>,
        (expires_at, now_seconds): (u64, u64),
    ) -> Result<(), IssueError> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.forget_before(now_seconds);
        if live.tokens.len() >= CAPACITY {
            return Err(IssueError::Uncertain("lineage_full"));
        }
        if let Some(parent) = parent.and_then(|parent| live.tokens.get_mut(parent)) {
            parent.children.push(jti.to_owned());
        }
        let entry = Entry { person, parent: parent.map(str::to_owned), children: Vec::new() };
        live.tokens.insert(jti.to_owned(), entry);
        live.by_expiry.insert((expires_at, jti.to_owned()));
        Ok(())
    }

    /// The person for whom a live token was made.
    pub fn person(&self, jti: &str) -> Option<Arc<Person>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).tokens.get(jti)?.person.clone()
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

impl Live {
    /// In small steps: no request pays for all that a quiet hour has left behind.
    fn forget_before(&mut self, now_seconds: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.by_expiry.first() {
                Some((expires_at, _)) if expires_at + GRACE_SECONDS < now_seconds => {}
                _ => return,
            }
            if let Some((_, jti)) = self.by_expiry.pop_first() {
                self.tokens.remove(&jti);
            }
        }
    }
}

/// The most live tokens held: about 300 bytes each.
pub const CAPACITY: usize = 500_000;
/// The most ancestors of one token that are looked at.
pub const MAX_ANCESTORS: usize = 10_000;
/// A token is remembered this much longer than it lives, for verifiers' leeway.
const GRACE_SECONDS: u64 = 60;
const FORGOTTEN_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_through_every_hop_and_forgotten_after_expiry() {
        let lineage = Lineage::default();
        lineage.remember("a", None, None, (100, 0)).unwrap();
        lineage.remember("b", Some("a"), None, (100, 0)).unwrap();
        lineage.remember("c", Some("b"), None, (100, 0)).unwrap();
        lineage.remember("x", None, None, (100, 0)).unwrap();
        assert_eq!(lineage.with_descendants("a"), ["a", "b", "c"]);
        assert_eq!(lineage.with_ancestors("c").unwrap(), ["c", "b", "a"]);
        assert_eq!(lineage.with_descendants("x"), ["x"]);
        lineage.remember("y", None, None, (1000, 100 + GRACE_SECONDS + 1)).unwrap();
        assert_eq!(lineage.with_descendants("a"), ["a"], "forgotten with its expiry");
    }

    #[test]
    fn ancestors_are_followed_to_the_first_and_beyond_the_bound_nothing_is_claimed() {
        let lineage = Lineage::default();
        lineage.remember("0", None, None, (100, 0)).unwrap();
        for n in 1..=MAX_ANCESTORS + 1 {
            lineage.remember(&n.to_string(), Some(&(n - 1).to_string()), None, (100, 0)).unwrap();
        }
        let all = lineage.with_ancestors(&MAX_ANCESTORS.to_string()).unwrap();
        assert_eq!((all.len(), all.last().unwrap().as_str()), (MAX_ANCESTORS + 1, "0"));
        assert_eq!(lineage.with_ancestors(&(MAX_ANCESTORS + 1).to_string()), None);
    }
}
