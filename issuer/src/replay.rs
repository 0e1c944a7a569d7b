//! "Seen this before?", with three answers. Proofs have a maker and are asked of its memory; client assertions
//! have none, so they go through this one question to a store.

use async_trait::async_trait;
use deputize_call::once::{Once, OnceSet};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::clock::Clock;

/// The answer of a replay store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Never before; it is spent now.
    No,
    /// Spent before.
    Yes,
    /// The store cannot tell: the request is answered 503, never waved through.
    Uncertain,
}

/// Remembers ids that may be used once.
#[async_trait]
pub trait ReplayStore: Send + Sync {
    /// Whether `tag` is known to be spent. Spends nothing; a `false` promises nothing.
    async fn seen(&self, tag: [u8; 16]) -> bool;
    /// Spends `tag` for a client, which need not be remembered after `until_seconds` (Unix time). One client cannot
    /// use up the room of all.
    async fn spend(&self, client_id: &str, tag: [u8; 16], until_seconds: u64) -> Seen;
}

/// One machine: tags in memory, rebuilt at boot from the log, where each accepted id is durable before its answer.
pub struct EmbeddedReplay {
    clock: Arc<dyn Clock>,
    tags: OnceSet,
    lifetime: Duration,
    /// Whether something that was spent before this start found no room.
    incomplete: AtomicBool,
}

impl EmbeddedReplay {
    /// A store that remembers for `lifetime` at least, up to `capacity` ids in each of its two generations.
    pub fn new(clock: Arc<dyn Clock>, lifetime: Duration, capacity: usize) -> Self {
        Self { clock, tags: OnceSet::new(lifetime, capacity), lifetime, incomplete: AtomicBool::new(false) }
    }

    /// Takes back what the log says was spent before this start. If it does not fit, every answer is
    /// [`Seen::Uncertain`] until what was spent then has lapsed.
    pub fn restore(&self, tag: [u8; 16]) {
        if self.tags.take(tag, self.clock.uptime()) == Once::Full {
            self.incomplete.store(true, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl ReplayStore for EmbeddedReplay {
    async fn seen(&self, tag: [u8; 16]) -> bool {
        self.tags.contains(tag, self.clock.uptime())
    }
    async fn spend(&self, client_id: &str, tag: [u8; 16], _until_seconds: u64) -> Seen {
        let uptime = self.clock.uptime();
        if self.incomplete.load(Ordering::Relaxed) && uptime <= self.lifetime {
            return Seen::Uncertain;
        }
        match self.tags.take_for(client_id, tag, uptime) {
            Once::First => Seen::No,
            Once::Seen => Seen::Yes,
            Once::Full => Seen::Uncertain,
        }
    }
}

impl std::fmt::Debug for EmbeddedReplay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedReplay").field("tags", &self.tags).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;

    const LIFETIME: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn what_was_spent_before_the_start_is_spent() {
        let store = EmbeddedReplay::new(Arc::new(TestClock::at_seconds(1_800_000_000)), LIFETIME, 10);
        store.restore([1; 16]);
        assert_eq!(store.spend("a", [1; 16], 0).await, Seen::Yes);
        assert_eq!(store.spend("a", [2; 16], 0).await, Seen::No);
        assert_eq!(store.spend("a", [2; 16], 0).await, Seen::Yes);
    }

    #[tokio::test]
    async fn one_client_leaves_room_for_others() {
        let store = EmbeddedReplay::new(Arc::new(TestClock::at_seconds(1_800_000_000)), LIFETIME, 10);
        for tag in 0..5 {
            assert_eq!(store.spend("greedy", [tag; 16], 0).await, Seen::No);
        }
        assert_eq!(
            store.spend("greedy", [5; 16], 0).await,
            Seen::Uncertain,
            "never forgotten, never waved through"
        );
        assert_eq!(store.spend("greedy", [4; 16], 0).await, Seen::Yes);
        assert_eq!(store.spend("other", [5; 16], 0).await, Seen::No);
    }

    #[tokio::test]
    async fn what_found_no_room_makes_every_answer_uncertain_until_it_has_lapsed() {
        let clock = Arc::new(TestClock::at_seconds(1_800_000_000));
        let store = EmbeddedReplay::new(Arc::clone(&clock) as Arc<dyn Clock>, LIFETIME, 2);
        for tag in 1..=3 {
            store.restore([tag; 16]);
        }
        assert_eq!(
            store.spend("a", [3; 16], 0).await,
            Seen::Uncertain,
            "it may have been the one without room"
        );
        clock.advance(LIFETIME * 2);
        assert_eq!(store.spend("a", [9; 16], 0).await, Seen::No);
    }
}
