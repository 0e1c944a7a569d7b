//! "Seen this before?", with three answers. Proofs have a maker and are asked of its memory; client assertions
//! have none, so they go through this one question to a store.

use async_trait::async_trait;
use deputize_call::once::{Once, OnceSet};
use std::{sync::Arc, time::Duration};

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
    /// Spends `tag`, which need not be remembered after `until_seconds` (Unix time).
    async fn spend(&self, tag: [u8; 16], until_seconds: u64) -> Seen;
}

/// One machine: tags in memory, rebuilt at boot from the log, where each accepted id is durable before its answer.
pub struct EmbeddedReplay {
    clock: Arc<dyn Clock>,
    tags: OnceSet,
}

impl EmbeddedReplay {
    /// A store that remembers for `lifetime` at least, up to `capacity` ids in each of its two generations.
    pub fn new(clock: Arc<dyn Clock>, lifetime: Duration, capacity: usize) -> Self {
        Self { clock, tags: OnceSet::new(lifetime, capacity) }
    }

    /// Takes back what the log says was spent before this start.
    pub fn restore(&self, tag: [u8; 16]) {
        self.tags.take(tag, self.clock.uptime());
    }
}

#[async_trait]
impl ReplayStore for EmbeddedReplay {
    async fn spend(&self, tag: [u8; 16], _until_seconds: u64) -> Seen {
        match self.tags.take(tag, self.clock.uptime()) {
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
