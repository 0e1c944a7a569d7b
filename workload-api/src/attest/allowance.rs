//! How much is read for one user: whoever runs one large program after another keeps nobody else from being looked at.

use deputize_issuer::clock::Clock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// So many bytes for each user in each minute.
pub(crate) struct Allowance {
    bytes: u64,
    clock: Arc<dyn Clock>,
    minute: Mutex<Minute>,
}

#[derive(Default)]
struct Minute {
    /// In uptime.
    ends: Duration,
    spent: HashMap<u32, u64>,
}

impl Allowance {
    pub(crate) fn of(bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self { bytes, clock, minute: Mutex::default() }
    }

    /// Takes so many bytes of a user's, if it has them left.
    pub(crate) fn spend(&self, uid: u32, bytes: u64) -> bool {
        let now = self.clock.uptime();
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= minute.ends {
            *minute = Minute { ends: now + MINUTE, spent: HashMap::new() };
        }
        let before = minute.spent.get(&uid).copied();
        let after = before.unwrap_or(0).saturating_add(bytes);
        if after > self.bytes || before.is_none() && minute.spent.len() >= MOST_USERS {
            return false;
        }
        minute.spent.insert(uid, after);
        true
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// More than run new programs in one minute; the others wait for the next.
const MOST_USERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::clock::TestClock;

    #[test]
    fn each_user_has_so_much_each_minute() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let allowance = Allowance::of(10, Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(allowance.spend(7, 6) && allowance.spend(7, 4));
        assert!(!allowance.spend(7, 1) && allowance.spend(7, 0));
        assert!(!allowance.spend(8, 11) && allowance.spend(8, 10));
        assert!(!allowance.spend(9, u64::MAX) && allowance.spend(9, 1) && !allowance.spend(9, u64::MAX));
        clock.advance(MINUTE - Duration::from_millis(1));
        assert!(!allowance.spend(7, 1));
        clock.advance(Duration::from_millis(1));
        assert!(allowance.spend(7, 10) && !allowance.spend(7, 1));
    }

    #[test]
    fn users_of_a_minute_are_counted() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let allowance = Allowance::of(10, Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!((0..100_000).filter(|uid| allowance.spend(*uid, 1)).count(), MOST_USERS);
        assert!(allowance.spend(0, 1), "who is among them has its own left");
        clock.advance(MINUTE);
        assert!(allowance.spend(100_000, 1));
    }
}
