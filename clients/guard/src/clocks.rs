//! Whether wall and monotonic clock go together: a jump would stretch or cut the life of every token.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Refuses while the clocks have parted. Slow drift (NTP slewing) is followed, by 1 ms in a second; a jump is not,
/// until the clock comes back or the process restarts.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    agreed: Mutex<Option<Agreed>>,
}

/// Wall minus monotonic time lies between these. The wall clock is known in whole seconds, so one look leaves a second
/// open; looks together narrow it.
#[derive(Debug, Clone, Copy)]
struct Agreed {
    least_ms: i128,
    most_ms: i128,
    /// Uptime up to which drift has been followed.
    followed: Duration,
}

impl ClockWatch {
    /// Whether the clocks have parted by no more than [`MAX_DRIFT_MS`], as far as whole seconds tell, since the first
    /// look.
    pub(crate) fn agree(&self, now_seconds: u64, uptime: Duration) -> bool {
        let uptime_ms = i128::try_from(uptime.as_millis()).unwrap_or(i128::MAX);
        let least_ms = i128::from(now_seconds) * 1000 - uptime_ms;
        let look = Agreed { least_ms, most_ms: least_ms + 999, followed: uptime };
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = agreed.get_or_insert(look);
        if look.least_ms > known.most_ms + MAX_DRIFT_MS || look.most_ms < known.least_ms - MAX_DRIFT_MS {
            return false;
        }
        let elapsed_seconds = uptime.saturating_sub(known.followed).as_secs();
        if elapsed_seconds > 0 {
            known.least_ms -= i128::from(elapsed_seconds);
            known.most_ms += i128::from(elapsed_seconds);
            known.followed = uptime;
        }
        let narrowed = (known.least_ms.max(look.least_ms), known.most_ms.min(look.most_ms));
        if narrowed.0 <= narrowed.1 {
            (known.least_ms, known.most_ms) = narrowed;
        }
        true
    }
}

/// How far the clocks may part.
const MAX_DRIFT_MS: i128 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The clocks at this offset of the wall clock, in milliseconds.
    fn look(watch: &ClockWatch, offset_ms: u64, uptime_ms: u64) -> bool {
        watch.agree((offset_ms + uptime_ms) / 1000, Duration::from_millis(uptime_ms))
    }

    const OFFSET: u64 = 1_800_000_000_000;

    #[test]
    fn a_jump_either_way_is_refused_until_the_clock_is_back() {
        let watch = ClockWatch::default();
        for uptime in (0..5000).step_by(37) {
            assert!(look(&watch, OFFSET, uptime));
        }
        for jump in [3100, 3_600_000] {
            assert!(!look(&watch, OFFSET + jump, 5500), "ahead by {jump} ms");
            assert!(!look(&watch, OFFSET - jump, 5500), "behind by {jump} ms");
        }
        assert!(look(&watch, OFFSET, 6000));
    }

    #[test]
    fn asking_often_does_not_make_a_jump_a_drift() {
        let watch = ClockWatch::default();
        for uptime in (0..5000).step_by(7) {
            assert!(look(&watch, OFFSET, uptime));
        }
        for uptime in 5000..6000 {
            look(&watch, OFFSET + 1500, uptime);
        }
        assert!(!look(&watch, OFFSET + 3100, 6000), "two jumps of 1.5 s");
    }

    #[test]
    fn drift_of_a_millisecond_in_a_second_is_followed_for_hours() {
        let watch = ClockWatch::default();
        for second in 0..10_000 {
            assert!(look(&watch, OFFSET + second, second * 1000));
            assert!(look(&watch, OFFSET + second, second * 1000 + 500));
        }
    }
}
