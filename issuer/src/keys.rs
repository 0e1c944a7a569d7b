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
    /// Signs, for the mint alone.
    pub(crate) current: Arc<SigningKey>,
    /// Published: the current one, those announced for later and those whose tokens still live.
    pub published: KeySet,
}

impl KeySource {
    /// A ring of the signing key and further public keys.
    pub fn new(current: SigningKey, others: Vec<PublicKey>) -> Self {
        Self::of(Ring::new(Arc::new(current), others))
    }
    /// A source that stands at this ring, until it is turned.
    pub fn of(ring: Ring) -> Self {
        Self { ring: ArcSwap::from_pointee(ring) }
    }
    /// The ring as it is now.
    pub fn ring(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.ring.load()
    }
    /// Takes another ring from now on: a key's time has come, or has gone.
    pub fn turn_to(&self, ring: Ring) {
        self.ring.store(Arc::new(ring));
    }
}

impl Ring {
    /// A ring of the signing key and further public keys. The signing key is always published, and first.
    pub fn new(current: Arc<SigningKey>, others: Vec<PublicKey>) -> Self {
        let mut keys = vec![current.public().clone()];
        keys.extend(others);
        Self { current, published: KeySet::new(keys) }
    }
    /// Id of the key that signs.
    pub fn signing_kid(&self) -> &str {
        self.current.kid()
    }
}
