//! Time and ids of a client: the only place that asks the system for either.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a client gets time and unique ids from.
pub trait Clock: Send + Sync {
    /// Seconds since the Unix epoch.
    fn now_seconds(&self) -> u64;
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64 {
        self.now_seconds().saturating_mul(1000)
    }
    /// Monotonic time since any fixed instant.
    fn uptime(&self) -> Duration;
    /// An id that never comes twice: the `jti` of assertions and proofs.
    fn unique_id(&self) -> String;
}

/// The system's clock and randomness.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose [`Clock::uptime`] begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the client's clock")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the client's clock")]
    fn now_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the client's clock")]
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn unique_id(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }
}
