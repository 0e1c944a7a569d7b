//! The keys of one issuer: the one that signs now, and all that are published.

use arc_swap::ArcSwap;
use deputize_call::{
    keys::{KeySet, PublicKey},
    sign::SigningKey,
};
use std::sync::Arc;

/// Where the mint gets its key and verifiers get theirs.
#[derive(Debug)]
pub struct KeySource {
    ring: ArcSwap<Ring>,
}

/// One state of the ring: swapped as a whole.
#[derive(Debug)]
pub struct Ring {
    /// Signs.
    pub current: Arc<SigningKey>,
    /// Published: the current one, those announced for later and those whose tokens still live.
    pub published: KeySet,
}

impl KeySource {
    /// A ring of the signing key and further public keys.
    pub fn new(current: SigningKey, others: Vec<PublicKey>) -> Self {
        let current = Arc::new(current);
        let mut keys = vec![current.public().clone()];
        keys.extend(others);
        Self { ring: ArcSwap::from_pointee(Ring { current, published: KeySet::new(keys) }) }
    }
    /// The ring as it is now.
    pub fn ring(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.ring.load()
    }
}
