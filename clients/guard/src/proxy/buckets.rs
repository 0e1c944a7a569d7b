//! Rates: for each key so many at once, and so many more as time passes.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Buckets by key. Bounded: when there are more keys than can be counted, new ones wait.
pub(super) struct Buckets<K> {
    per_second: f64,
    burst: f64,
    most: usize,
    buckets: HashMap<K, Bucket>,
    swept_at: Option<Duration>,
}

/// What may come at once now, and when that was reckoned.
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(per_minute: u32, burst: u32, most: usize) -> Self {
        let (per_second, burst) = (f64::from(per_minute) / 60.0, f64::from(burst.max(1)));
        Self { per_second, burst, most, buckets: HashMap::new(), swept_at: None }
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is none: seconds after which to come back.
    pub(super) fn take(&mut self, key: K, uptime: Duration) -> Result<(), u64> {
        let (per_second, burst) = (self.per_second, self.burst);
        let refilled = |bucket: &Bucket| {
            (bucket.tokens + uptime.saturating_sub(bucket.at).as_secs_f64() * per_second).min(burst)
        };
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&key) {
            // All of them are looked through once a second at most, however many new ones come.
            if self.swept_at.is_none_or(|at| uptime.saturating_sub(at) >= SWEEP_EVERY) {
                self.swept_at = Some(uptime);
                // Whose bucket is full again is as good as never seen.
                self.buckets.retain(|_, bucket| refilled(bucket) < burst);
            }
            if self.buckets.len() >= self.most {
                return Err(1);
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket { tokens: burst, at: uptime });
        let tokens = refilled(bucket);
        if tokens < 1.0 {
            let wait = if per_second > 0.0 { (1.0 - tokens) / per_second } else { 60.0 };
            return Err(Duration::from_secs_f64(wait.min(3600.0)).as_secs() + 1);
        }
        *bucket = Bucket { tokens: tokens - 1.0, at: uptime };
        Ok(())
    }

    /// Gives one back that was taken for nothing.
    pub(super) fn give_back(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.tokens = (bucket.tokens + 1.0).min(self.burst);
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let mut buckets = Buckets::new(60, 2, 10);
        let now = Duration::from_secs(100);
        assert!(buckets.take("a", now).is_ok() && buckets.take("a", now).is_ok());
        assert_eq!(buckets.take("a", now), Err(2));
        buckets.give_back(&"a");
        assert!(buckets.take("a", now).is_ok());
        for _ in 0..9 {
            buckets.give_back(&"a");
        }
        let taken = (0..9).take_while(|_| buckets.take("a", now).is_ok()).count();
        assert_eq!(taken, 2, "a full bucket is full");
    }

    #[test]
    fn where_no_more_keys_can_be_counted_new_ones_wait_and_known_ones_do_not() {
        let mut buckets = Buckets::new(60, 2, 3);
        let now = Duration::from_secs(100);
        for key in 0..3 {
            assert!(buckets.take(key, now).is_ok());
        }
        assert!(buckets.take(3, now).is_err());
        assert!(buckets.take(0, now).is_ok());
        assert!(buckets.take(3, now + Duration::from_secs(1)).is_ok(), "1 and 2 are full again");
    }

    #[test]
    fn full_counters_are_looked_through_once_a_second() {
        let mut buckets = Buckets::new(60, 2, 2);
        let at = |milliseconds| Duration::from_millis(milliseconds);
        assert!(buckets.take("a", at(0)).is_ok() && buckets.take("b", at(0)).is_ok());
        assert!(buckets.take("c", at(900)).is_err(), "looked through: neither is full again");
        assert!(buckets.take("c", at(1_200)).is_err(), "both are, and nobody looks");
        assert!(buckets.take("c", at(1_900)).is_ok());
    }
}
