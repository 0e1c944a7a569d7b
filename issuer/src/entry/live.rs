//! The entries as they are now, and the news that they have changed.

use arc_swap::ArcSwap;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

use super::Entries;

/// The entries that hold. Whoever serves open streams waits for the next ones.
#[derive(Debug)]
pub struct LiveEntries {
    now: ArcSwap<Entries>,
    changes: watch::Sender<u64>,
    /// Up to when ends of entries were told, in Unix seconds.
    told_until_seconds: AtomicU64,
}

impl LiveEntries {
    /// These from now on.
    pub fn new(entries: Entries, now_seconds: u64) -> Self {
        Self {
            now: ArcSwap::from_pointee(entries),
            changes: watch::Sender::new(0),
            told_until_seconds: AtomicU64::new(now_seconds),
        }
    }

    /// The entries that hold now.
    pub fn now(&self) -> Arc<Entries> {
        self.now.load_full()
    }

    /// Turns with every change, and when an entry's time is over. What it counts means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes other entries from now on, and tells everybody who waits.
    ///
    /// Whoever calls it sees to it that nobody else does at the same time: what is taken is a whole.
    pub fn replace(&self, entries: Entries) {
        self.now.store(Arc::new(entries));
        self.tell();
    }

    /// Tells everybody who waits if an entry's time was over since this was last asked. To be called once a second.
    pub fn follow_time(&self, now_seconds: u64) {
        let told_until = self.told_until_seconds.swap(now_seconds, Ordering::Relaxed);
        if self.now.load().any_ended(told_until, now_seconds) {
            self.tell();
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}
