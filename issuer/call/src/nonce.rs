//! DPoP nonces (RFC 9449 §8) that name their maker and are sealed with a key which lives only in its process.

use std::time::Duration;

/// Makes and checks nonces. The key is random, never leaves the process, and dies with it: after a restart every
/// earlier nonce is foreign, so that no proof from before can pass.
pub struct NonceMaker {
    maker: [u8; 8],
}

/// What a nonce turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nonce {
    /// Made here and young enough.
    Fresh,
    /// Made here, too old.
    Stale,
    /// Not made here: by another replica (its name), before a restart, or made up.
    Foreign,
}

impl NonceMaker {
    /// `maker` names the replica; `lifetime` is how long a nonce is good for. Fails only if the system has no randomness.
    pub fn new(maker: &str, lifetime: Duration) -> Result<Self, crate::jws::JwsError> {
        let _ = (maker, lifetime);
        todo!()
    }
    /// A nonce; `uptime` is monotonic time since any fixed instant of this process.
    pub fn make(&self, uptime: Duration) -> String {
        let _ = (uptime, self.maker);
        todo!()
    }
    /// Checks a nonce.
    pub fn check(&self, nonce: &str, uptime: Duration) -> Nonce {
        let _ = (nonce, uptime);
        todo!()
    }
}

impl std::fmt::Debug for NonceMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NonceMaker").finish_non_exhaustive()
    }
}
