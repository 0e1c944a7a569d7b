//! How long to wait before trying again: longer each time, and not for everyone the same.

use deputize_call::digest::sha256;
use deputize_client::Clock;
use std::time::Duration;

/// Grows from a tenth of a second to ten seconds.
#[derive(Debug, Default)]
pub(super) struct Pause {
    tries: u32,
}

impl Pause {
    /// The next pause: between half and the whole of what it has grown to.
    pub(super) fn next(&mut self, clock: &dyn Clock) -> Duration {
        let whole = SHORTEST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        // Part of a fresh id is as random as jitter needs to be.
        let [random, ..] = sha256(clock.unique_id().as_bytes());
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / 255.0)
    }

    /// It went well: the next pause is a short one again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

const SHORTEST: Duration = Duration::from_millis(100);
/// Well below the minute for which a guard goes on without word.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::SystemClock;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let (clock, mut pause) = (SystemClock::new(), Pause::default());
        let mut whole = SHORTEST;
        for _ in 0..100 {
            let next = pause.next(&clock);
            assert!(whole / 2 <= next && next <= whole, "{next:?} of {whole:?}");
            whole = (whole * 2).min(LONGEST);
        }
        pause.reset();
        assert!(pause.next(&clock) <= SHORTEST);
    }
}
