//! Bounds on what one authenticated client may cause: requests, and records of its denials.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::error::IssueError;

/// Token buckets by client: one for requests, one for records of denials.
#[derive(Debug)]
pub struct Limits {
    requests: Buckets,
    denials: Buckets,
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
        Self { requests: Buckets::new(requests), denials: Buckets::new(denials) }
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

#[cfg(test)]
mod tests {
    use super::*;

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
