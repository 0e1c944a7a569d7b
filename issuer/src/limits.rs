//! Bounds on what one authenticated client may cause: requests, and records of its denials.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::error::IssueError;

/// Token buckets by client: one for requests, one for records of denials, one for revocations.
#[derive(Debug)]
pub struct Limits {
    requests: Buckets,
    denials: Buckets,
    revocations: Buckets,
}

/// Size and refill of a bucket.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Refill per second.
    pub per_second: u32,
    /// Size.
    pub burst: u32,
}

#[derive(Debug)]
struct Buckets {
    rate: Rate,
    by_client: Mutex<HashMap<String, (f64, Duration)>>,
}

impl Limits {
    /// These rates for each client.
    pub fn new(requests: Rate, denials: Rate) -> Self {
        let (requests, denials) = (Buckets::new(requests), Buckets::new(denials));
        Self { requests, denials, revocations: Buckets::new(REVOCATIONS) }
    }

    /// Takes one request of the client's rate.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`] when there is none left.
    pub fn admit(&self, client_id: &str, uptime: Duration) -> Result<(), IssueError> {
        if self.requests.take(client_id, uptime) {
            Ok(())
        } else {
            Err(IssueError::RateLimited { retry_after_seconds: 1 })
        }
    }

    /// Takes one revocation of the client's rate: each is told to guards, and remembered there for minutes, so one
    /// client must not bring so many that guards have no room and stop.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`] when there is none left.
    pub fn admit_revocation(&self, client_id: &str, uptime: Duration) -> Result<(), IssueError> {
        if self.revocations.take(client_id, uptime) {
            Ok(())
        } else {
            Err(IssueError::RateLimited { retry_after_seconds: 1 })
        }
    }

    /// Whether one more denial of this client gets a record of its own; else it is aggregated.
    pub fn record_denial(&self, client_id: &str, uptime: Duration) -> bool {
        self.denials.take(client_id, uptime)
    }
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { rate, by_client: Mutex::default() }
    }

    /// Only ids of configured clients come here, so the map is as bounded as the configuration.
    fn take(&self, client_id: &str, uptime: Duration) -> bool {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let full = (f64::from(self.rate.burst), uptime);
        let (tokens, last) = match by_client.get_mut(client_id) {
            Some(bucket) => bucket,
            None => by_client.entry(client_id.to_owned()).or_insert(full),
        };
        let refill = uptime.saturating_sub(*last).as_secs_f64() * f64::from(self.rate.per_second);
        *tokens = (*tokens + refill).min(f64::from(self.rate.burst));
        *last = uptime;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

/// A guard remembers a hundred thousand, each for minutes.
const REVOCATIONS: Rate = Rate { per_second: 10, burst: 200 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_brings_guards_a_small_part_of_what_they_remember() {
        let limits = Limits::new(Rate { per_second: 5000, burst: 5000 }, Rate { per_second: 1, burst: 1 });
        let mut revoked = 0;
        for tenth in 0..6000_u64 {
            let now = Duration::from_millis(tenth * 100);
            revoked += (0..500).take_while(|_| limits.admit_revocation("greedy", now).is_ok()).count();
        }
        assert!((6000..7000).contains(&revoked), "{revoked} in ten minutes");
        assert!(limits.admit_revocation("other", Duration::from_secs(600)).is_ok());
    }

    #[test]
    fn a_burst_is_admitted_and_no_more_until_it_refills() {
        let limits = Limits::new(Rate { per_second: 1, burst: 2 }, Rate { per_second: 1, burst: 1 });
        assert!(limits.admit("a", Duration::ZERO).is_ok());
        assert!(limits.admit("a", Duration::ZERO).is_ok());
        assert!(limits.admit("a", Duration::ZERO).is_err());
        assert!(limits.admit("b", Duration::ZERO).is_ok(), "another client has its own");
        assert!(limits.admit("a", Duration::from_secs(1)).is_ok());
    }
}
