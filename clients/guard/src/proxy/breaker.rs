//! Stops calls to a server that fails, before a token is spent on it.

use crate::{Admission, Upstream};
use async_trait::async_trait;
use deputize_call::claims::ToolCallClaims;
use deputize_client::Clock;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Open after some failures one after another; then lets one request through now and then, and closes again when one
/// succeeds.
pub(super) struct Breaker {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the last request was let through, while open.
    probed: Option<Duration>,
}

impl Breaker {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// The server answered.
    pub(super) fn succeeded(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// The server did not answer, or nonsense.
    pub(super) fn failed(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures == FAILURES_TO_OPEN {
            tracing::warn!("server fails: calls stop until it answers again");
        }
        state.probed = Some(self.clock.uptime());
    }

    /// Whether a request may go through now. While open, one is let through every [`PROBE_EVERY`]: the probe.
    pub(super) fn admits(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failures < FAILURES_TO_OPEN {
            return true;
        }
        let now = self.clock.uptime();
        let is_due = state.probed.is_none_or(|probed| now.saturating_sub(probed) >= PROBE_EVERY);
        if is_due {
            state.probed = Some(now);
        }
        is_due
    }
}

#[async_trait]
impl Upstream for Breaker {
    async fn admit(&self, _: &ToolCallClaims) -> Admission {
        if self.admits() { Admission::Ready } else { Admission::Unavailable }
    }
}

const FAILURES_TO_OPEN: u32 = 5;
const PROBE_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::HandClock;

    #[test]
    fn it_opens_after_failures_and_closes_with_one_success() {
        let clock = Arc::new(HandClock::default());
        let breaker = Breaker::new(clock.clone());
        for _ in 0..FAILURES_TO_OPEN {
            assert!(breaker.admits());
            breaker.failed();
        }
        assert!(!breaker.admits());
        clock.pass(PROBE_EVERY);
        assert!(breaker.admits(), "half open: one probe");
        assert!(!breaker.admits(), "and no second one");
        breaker.failed();
        assert!(!breaker.admits());
        clock.pass(PROBE_EVERY);
        assert!(breaker.admits());
        breaker.succeeded();
        assert!(breaker.admits() && breaker.admits());
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let breaker = Breaker::new(Arc::new(HandClock::default()));
        for _ in 0..3 {
            for _ in 1..FAILURES_TO_OPEN {
                breaker.failed();
            }
            breaker.succeeded();
        }
        assert!(breaker.admits());
    }
}
