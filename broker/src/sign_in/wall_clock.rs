//! One time for both: the provider of a test sees the clock of its client.

use deputize_issuer::clock::{Clock as _, TestClock, new_id};
use std::{sync::Arc, time::Duration};

/// The test's clock, as whoever stands outside of the broker sees it.
pub(crate) struct WallClock(pub(crate) Arc<TestClock>);

impl deputize_client::Clock for WallClock {
    fn now_seconds(&self) -> u64 {
        self.0.now_seconds()
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }

    fn unique_id(&self) -> String {
        new_id(self.0.as_ref()).unwrap().to_string()
    }
}
