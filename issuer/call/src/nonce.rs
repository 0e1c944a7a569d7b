//! DPoP nonces (RFC 9449 §8) that name their maker and are sealed with a key which lives only in its process.
//!
//! A nonce is base64url(maker ‖ AEAD nonce ‖ sealed age): 44 bytes, 59 characters. Who reads it learns which replica
//! to ask, and nothing of when it was made.

use crate::{
    digest::sha256,
    jws::{JwsError, base64url},
};
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, RandomizedNonceKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::time::Duration;
use zeroize::Zeroizing;

/// Makes and checks nonces. The key is random, never leaves the process, and dies with it: after a restart every
/// earlier nonce is foreign, so that no proof from before can pass.
pub struct NonceMaker {
    maker: MakerId,
    lifetime: Duration,
    key: RandomizedNonceKey,
}

/// Stands for a replica in its nonces: the first bytes of the SHA-256 of its name.
pub type MakerId = [u8; 8];

/// What a nonce turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nonce {
    /// Made here and young enough.
    Fresh,
    /// Made here, too old.
    Stale,
    /// Not made here: by another replica ([`maker_of`] says which), before a restart, or made up.
    Foreign,
}

/// The id of the replica with this name.
pub fn maker_id(name: &str) -> MakerId {
    let mut id = MakerId::default();
    for (byte, hashed) in id.iter_mut().zip(sha256(name.as_bytes())) {
        *byte = hashed;
    }
    id
}

/// Who claims to have made this nonce; only the maker itself can tell whether that is true.
pub fn maker_of(nonce: &str) -> Option<MakerId> {
    Parts::read(nonce).map(|parts| parts.maker)
}

impl NonceMaker {
    /// `maker` names the replica; `lifetime` is how long a nonce is good for. Fails only if the system has no randomness.
    pub fn new(maker: &str, lifetime: Duration) -> Result<Self, JwsError> {
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(key.as_mut()).map_err(|_| JwsError::Randomness)?;
        // GCM-SIV: should two random AEAD nonces ever be equal, nothing is lost but that they were (RFC 8452 §1).
        let key =
            RandomizedNonceKey::new(&AES_256_GCM_SIV, key.as_ref()).map_err(|_| JwsError::Randomness)?;
        Ok(Self { maker: maker_id(maker), lifetime, key })
    }
    /// A nonce; `uptime` is monotonic time since any fixed instant of this process.
    pub fn make(&self, uptime: Duration) -> String {
        // Sealing fails only where the system has no randomness; an empty nonce then fails every check.
        self.seal(uptime).unwrap_or_default()
    }
    /// Checks a nonce.
    pub fn check(&self, nonce: &str, uptime: Duration) -> Nonce {
        match self.open(nonce) {
            None => Nonce::Foreign,
            Some(made) if uptime.saturating_sub(made) <= self.lifetime => Nonce::Fresh,
            Some(_) => Nonce::Stale,
        }
    }

    fn seal(&self, uptime: Duration) -> Option<String> {
        let mut sealed = u64::try_from(uptime.as_millis()).ok()?.to_be_bytes().to_vec();
        let aead_nonce = self.key.seal_in_place_append_tag(Aad::from(self.maker), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([self.maker.as_slice(), aead_nonce.as_ref(), &sealed].concat()))
    }
    fn open(&self, nonce: &str) -> Option<Duration> {
        let mut parts = Parts::read(nonce).filter(|parts| parts.maker == self.maker)?;
        let aead_nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(parts.aead_nonce);
        let opened = self.key.open_in_place(aead_nonce, Aad::from(self.maker), &mut parts.sealed).ok()?;
        Some(Duration::from_millis(u64::from_be_bytes(*opened.first_chunk()?)))
    }
}

impl std::fmt::Debug for NonceMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NonceMaker").finish_non_exhaustive()
    }
}

struct Parts {
    maker: MakerId,
    aead_nonce: [u8; 12],
    sealed: [u8; 24],
}

impl Parts {
    fn read(nonce: &str) -> Option<Self> {
        if nonce.len() != NONCE_CHARACTERS {
            return None;
        }
        let bytes = base64url(nonce).ok()?;
        let (maker, rest) = bytes.split_first_chunk()?;
        let (aead_nonce, sealed) = rest.split_first_chunk()?;
        Some(Self { maker: *maker, aead_nonce: *aead_nonce, sealed: sealed.try_into().ok()? })
    }
}

const NONCE_CHARACTERS: usize = 59;

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);
    const NOON: Duration = Duration::from_secs(43_200);

    #[test]
    fn fresh_until_the_end_of_its_lifetime() {
        let maker = NonceMaker::new("replica-1", LIFETIME).unwrap();
        let nonce = maker.make(NOON);
        assert_eq!(nonce.len(), NONCE_CHARACTERS);
        assert_eq!(maker.check(&nonce, NOON), Nonce::Fresh);
        assert_eq!(maker.check(&nonce, NOON + LIFETIME), Nonce::Fresh);
        assert_eq!(maker.check(&nonce, NOON + LIFETIME + Duration::from_millis(1)), Nonce::Stale);
    }

    #[test]
    fn foreign_to_another_replica_and_to_the_same_one_after_a_restart() {
        let maker = NonceMaker::new("replica-1", LIFETIME).unwrap();
        let nonce = maker.make(NOON);
        for other in ["replica-1", "replica-2"] {
            assert_eq!(NonceMaker::new(other, LIFETIME).unwrap().check(&nonce, NOON), Nonce::Foreign);
        }
        assert_eq!(maker_of(&nonce), Some(maker_id("replica-1")));
        assert_ne!(maker_id("replica-1"), maker_id("replica-2"));
    }

    #[test]
    fn every_changed_character_makes_it_foreign() {
        let maker = NonceMaker::new("replica-1", LIFETIME).unwrap();
        let nonce = maker.make(NOON);
        for index in 0..nonce.len() {
            let mut changed = nonce.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(maker.check(&changed, NOON), Nonce::Foreign, "character {index}");
        }
        let longer = format!("{nonce}A");
        for made_up in ["", "A", &nonce[1..], &longer, "=".repeat(59).as_str(), "é".repeat(30).as_str()] {
            assert_eq!(maker.check(made_up, NOON), Nonce::Foreign);
            assert_eq!(maker_of(made_up), None);
        }
    }

    #[test]
    fn two_of_one_instant_differ() {
        let maker = NonceMaker::new("replica-1", LIFETIME).unwrap();
        assert_ne!(maker.make(NOON), maker.make(NOON));
    }
}
