//! A clock that is advanced by hand.

use deputize_client::Clock;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Stands until somebody advances it.
#[derive(Debug)]
pub(crate) struct TestClock {
    began_seconds: u64,
    passed_ms: AtomicU64,
    ids: AtomicU64,
}

impl TestClock {
    /// A clock that stands at this time.
    pub(crate) fn at_seconds(began_seconds: u64) -> Self {
        Self { began_seconds, passed_ms: AtomicU64::new(0), ids: AtomicU64::new(0) }
    }

    /// Time goes by.
    pub(crate) fn advance(&self, by: Duration) {
        self.passed_ms.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_seconds(&self) -> u64 {
        self.began_seconds + self.uptime().as_secs()
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    fn unique_id(&self) -> String {
        self.ids.fetch_add(1, Ordering::SeqCst).to_string()
    }
}
