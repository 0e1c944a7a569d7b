//! "Seen this before?" for things that live for seconds: two generations of 16-byte tags in sharded locks.

use std::time::Duration;

/// Remembers each tag for at least `lifetime` and at most twice that. Never evicts: when full, it says so.
pub struct OnceSet {
    lifetime: Duration,
}

/// The answer of a once-only set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// Never seen within its life; now it is.
    First,
    /// Seen before.
    Seen,
    /// No room: the caller answers 503, never forgets.
    Full,
}

impl OnceSet {
    /// A set that holds up to `capacity` tags in each generation.
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        let _ = capacity;
        Self { lifetime }
    }
    /// Takes the tag. `uptime` is monotonic.
    pub fn take(&self, tag: [u8; 16], uptime: Duration) -> Once {
        let _ = (tag, uptime, self.lifetime);
        todo!()
    }
    /// How many tags are held now.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for OnceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnceSet").finish_non_exhaustive()
    }
}
