//! Tokens that were verified already: a token for many calls comes with each of them, and its signature does not change
//! in between. Only that is not looked at again; times, binding, call and revocation are, each time.

use deputize_call::{claims::ToolCallClaims, digest::sha256, level::Level};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Claims by the hash of their token, in two generations of [`GENERATION`] tokens.
///
/// INVARIANT: it belongs to one snapshot: what is in it was signed by a key of that snapshot.
#[derive(Default)]
pub(crate) struct KnownTokens {
    generations: Mutex<[Generation; 2]>,
}

type Generation = HashMap<[u8; 32], Arc<ToolCallClaims>>;

impl KnownTokens {
    /// The claims of this very token, if it was verified before.
    pub(crate) fn find(&self, token: &str) -> Option<ToolCallClaims> {
        let hash = sha256(token.as_bytes());
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let found = generations.iter().find_map(|generation| generation.get(&hash)).cloned();
        drop(generations);
        found.map(|claims| ToolCallClaims::clone(&claims))
    }

    /// Remembers a token that was verified now, unless it is for one call and does not come again.
    pub(crate) fn remember(&self, token: &str, claims: &ToolCallClaims) {
        let [detail] = &claims.authorization_details;
        if detail.level() >= Level::L3 {
            return;
        }
        let (hash, claims) = (sha256(token.as_bytes()), Arc::new(claims.clone()));
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [present, past] = &mut *generations;
        if present.len() >= GENERATION {
            *past = std::mem::take(present);
        }
        present.insert(hash, claims);
    }
}

// Tokens and what they say stay out of logs.
impl std::fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownTokens").finish_non_exhaustive()
    }
}

/// About two KiB each.
const GENERATION: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fixture::{Fixture, l1, l3};
    use serde_json::json;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let (known, claims) = (KnownTokens::default(), Fixture::new().claims(l1("lookup")));
        for n in 0..3 * GENERATION {
            known.remember(&n.to_string(), &claims);
        }
        let held = |n: usize| known.find(&n.to_string()).is_some();
        assert_eq!((0..3 * GENERATION).filter(|n| held(*n)).count(), 2 * GENERATION);
        assert!(held(3 * GENERATION - 1) && !held(0));
    }

    #[test]
    fn a_token_for_one_call_takes_up_no_room() {
        let (known, claims) = (KnownTokens::default(), Fixture::new().claims(l3("refund", &json!({}))));
        known.remember("token", &claims);
        assert!(known.find("token").is_none());
    }
}
