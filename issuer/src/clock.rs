//! Time and randomness are parameters. This is the only file that reads a clock.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Wall time for claims and records, monotonic time for durations.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Monotonic time since this clock was made.
    fn uptime(&self) -> Duration;
    /// Seconds since the Unix epoch.
    fn now_seconds(&self) -> u64 {
        self.now_ms() / 1000
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts counting uptime now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_ms(&self) -> u64 {
        // Before 1970 the clock is broken: zero makes every token look not yet valid, which fails closed.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
    }
    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Refuses to go on while wall and monotonic clocks part: a jump would stretch or cut every lifetime.
#[derive(Debug)]
pub struct ClockWatch {
    /// Wall minus monotonic, in milliseconds, as last agreed; and since when they disagree.
    agreed: Mutex<Agreement>,
}

#[derive(Debug)]
struct Agreement {
    offset_ms: i128,
    /// Uptime up to which drift has been followed.
    followed: Duration,
}

impl ClockWatch {
    /// Takes today's difference between the clocks as the right one.
    pub fn new(clock: &dyn Clock) -> Self {
        Self { agreed: Mutex::new(Agreement { offset_ms: offset_ms(clock), followed: clock.uptime() }) }
    }

    /// Whether minting may go on: the clocks have parted by no more than [`MAX_DRIFT_MS`] since they last agreed.
    /// Slow drift (NTP slewing) is followed, by 1 ms in a second however often this is asked; a jump is not, until
    /// the clock comes back or the process restarts.
    pub fn agrees(&self, clock: &dyn Clock) -> bool {
        let now = offset_ms(clock);
        let mut agreed = self.agreed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let parted = now - agreed.offset_ms;
        let within = parted.abs() <= i128::from(MAX_DRIFT_MS);
        let elapsed_seconds = clock.uptime().saturating_sub(agreed.followed).as_secs();
        if within && elapsed_seconds > 0 {
            let most = i128::from(elapsed_seconds);
            agreed.offset_ms += parted.clamp(-most, most);
            agreed.followed = clock.uptime();
        }
        within
    }
}

fn offset_ms(clock: &dyn Clock) -> i128 {
    i128::from(clock.now_ms()) - i128::try_from(clock.uptime().as_millis()).unwrap_or(i128::MAX)
}

/// A clock for tests, advanced by hand.
#[derive(Debug)]
pub struct TestClock {
    wall_ms: AtomicU64,
    uptime_ms: AtomicU64,
}

impl TestClock {
    /// A clock that stands at this wall time.
    pub fn at_seconds(seconds: u64) -> Self {
        Self { wall_ms: AtomicU64::new(seconds * 1000), uptime_ms: AtomicU64::new(0) }
    }
    /// Both clocks advance.
    pub fn advance(&self, by: Duration) {
        let ms = by.as_millis().try_into().unwrap_or(u64::MAX);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.uptime_ms.fetch_add(ms, Ordering::SeqCst);
    }
    /// The wall clock alone jumps forward.
    pub fn jump_wall(&self, by: Duration) {
        self.wall_ms.fetch_add(by.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms.load(Ordering::SeqCst))
    }
}

/// A new id that sorts by time (UUIDv7): transactions, tokens, decisions.
pub fn new_id(clock: &dyn Clock) -> Result<uuid::Uuid, NoRandomness> {
    let mut random = [0_u8; 10];
    fill_random(&mut random)?;
    Ok(uuid::Builder::from_unix_timestamp_millis(clock.now_ms(), &random).into_uuid())
}

/// Fills a buffer from the system's generator.
pub fn fill_random(buffer: &mut [u8]) -> Result<(), NoRandomness> {
    aws_lc_rs::rand::fill(buffer).map_err(|_| NoRandomness)
}

/// The system gave no randomness: nothing may be minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;

/// How far the clocks may part before minting stops.
pub const MAX_DRIFT_MS: u64 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_stops_minting_and_slow_drift_does_not() {
        let clock = TestClock::at_seconds(1_000_000);
        let watch = ClockWatch::new(&clock);
        clock.advance(Duration::from_secs(3600));
        assert!(watch.agrees(&clock));
        clock.jump_wall(Duration::from_millis(MAX_DRIFT_MS + 10));
        assert!(!watch.agrees(&clock), "parted by more than two seconds");
        clock.advance(Duration::from_secs(1));
        assert!(!watch.agrees(&clock), "still parted");
    }

    #[test]
    fn asking_often_does_not_make_a_jump_a_drift() {
        let clock = TestClock::at_seconds(1_000_000);
        let watch = ClockWatch::new(&clock);
        for _ in 0..2 {
            clock.jump_wall(Duration::from_millis(MAX_DRIFT_MS * 3 / 4));
            for _ in 0..10_000 {
                watch.agrees(&clock);
            }
        }
        assert!(!watch.agrees(&clock), "two jumps of 1.5 s");
    }

    #[test]
    fn drift_of_a_millisecond_in_a_second_is_followed_for_hours() {
        let clock = TestClock::at_seconds(1_000_000);
        let watch = ClockWatch::new(&clock);
        for _ in 0..10_000 {
            clock.advance(Duration::from_secs(1));
            clock.jump_wall(Duration::from_millis(1));
            assert!(watch.agrees(&clock));
        }
    }

    #[test]
    fn ids_sort_by_time() {
        let clock = TestClock::at_seconds(1_000_000);
        let first = new_id(&clock).unwrap();
        clock.advance(Duration::from_millis(1));
        assert!(first < new_id(&clock).unwrap());
    }
}
