//! How much one caller may: a rate for each person and tool, and a number of requests at once for each caller.

use super::{
    buckets::Buckets,
    failure::Failure,
    session::{Caller, Owner},
    settings::Limits,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Counts what callers do.
pub(super) struct Meter {
    concurrent: usize,
    buckets: Mutex<Buckets<(String, String)>>,
    under_way: Arc<Mutex<HashMap<Caller, usize>>>,
}

/// A request under way; dropped when it is done.
pub(super) struct UnderWay {
    caller: Caller,
    under_way: Arc<Mutex<HashMap<Caller, usize>>>,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        let buckets = Mutex::new(Buckets::new(limits.calls_per_minute, limits.burst, MAX_BUCKETS));
        Self { concurrent: limits.concurrent, buckets, under_way: Arc::default() }
    }

    /// Counts one request of `person` for `what` (a tool, or a method).
    pub(super) fn count(&self, person: &str, what: &str, uptime: Duration) -> Result<(), Failure> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.take((person.to_owned(), what.to_owned()), uptime);
        taken.map_err(|retry_after_seconds| Failure::Limited { retry_after_seconds })
    }

    /// One more request of this caller, until what is given back is dropped.
    pub(super) fn enter(&self, owner: &Owner) -> Result<UnderWay, Failure> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = owner.caller();
        let count = under_way.entry(caller.clone()).or_default();
        if *count >= self.concurrent {
            return Err(Failure::Limited { retry_after_seconds: 1 });
        }
        *count += 1;
        Ok(UnderWay { caller, under_way: Arc::clone(&self.under_way) })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.caller);
            }
        }
    }
}

const MAX_BUCKETS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new(Limits { calls_per_minute: 60, burst: 2, concurrent: 2 })
    }

    #[test]
    fn each_person_and_tool_has_a_rate_of_its_own() {
        let (meter, now) = (meter(), Duration::from_secs(100));
        assert!(meter.count("alice", "refund", now).is_ok());
        assert!(meter.count("alice", "refund", now).is_ok());
        let limited = meter.count("alice", "refund", now);
        assert_eq!(limited, Err(Failure::Limited { retry_after_seconds: 2 }));
        assert!(meter.count("alice", "lookup", now).is_ok(), "another tool");
        assert!(meter.count("bob", "refund", now).is_ok(), "another person");
        assert!(meter.count("alice", "refund", now + Duration::from_secs(1)).is_ok());
        assert!(meter.count("alice", "refund", now + Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_caller_has_only_so_many_requests_under_way() {
        let meter = meter();
        let (alice, bob) = (Owner::named("alice"), Owner::named("bob"));
        let first = meter.enter(&alice).unwrap();
        let _second = meter.enter(&alice).unwrap();
        assert!(meter.enter(&alice).is_err());
        assert!(meter.enter(&bob).is_ok());
        drop(first);
        assert!(meter.enter(&alice).is_ok());
    }
}
