//! Bounds on what one authenticated client, or one attested process, may cause: requests, and records.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::error::IssueError;

/// Token buckets: of clients one for requests, one for records of denials, one for revocations; of processes one for
/// SVIDs, and those for records of their denials.
#[derive(Debug)]
pub struct Limits {
    requests: Buckets,
    denials: Buckets,
    reported_denials: Buckets,
    revocations: Buckets,
    svids: Buckets,
    svid_denials_of_user: Buckets,
    svid_denials_of_node: Buckets,
}

/// Size and refill of a bucket.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Refill per second.
    pub per_second: u32,
    /// Size.
    pub burst: u32,
}

impl Rate {
    /// A tenth of it, and one at least.
    fn tenth(self) -> Self {
        Self { per_second: (self.per_second / 10).max(1), burst: (self.burst / 10).max(1) }
    }
}

#[derive(Debug)]
struct Buckets {
    per_second: f64,
    burst: f64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Tokens, and when they were counted, in uptime.
    by_name: HashMap<String, (f64, Duration)>,
    swept_at: Duration,
}

impl Limits {
    /// These rates for each client.
    pub fn new(requests: Rate, denials: Rate) -> Self {
        Self {
            requests: Buckets::new(requests),
            denials: Buckets::new(denials),
            reported_denials: Buckets::new(denials.tenth()),
            revocations: Buckets::new(REVOCATIONS),
            svids: Buckets::new(SVIDS),
            svid_denials_of_user: Buckets::hourly(SVID_DENIALS_OF_USER_PER_HOUR),
            svid_denials_of_node: Buckets::hourly(SVID_DENIALS_OF_NODE_PER_HOUR),
        }
    }

    /// Takes one request of the client's rate.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`] when there is none left.
    pub fn admit(&self, client_id: &str, uptime: Duration) -> Result<(), IssueError> {
        admitted(self.requests.take(client_id, uptime))
    }

    /// Takes one SVID of the rate of its kind, node, entry and SPIFFE ID: each is two records on disk, and a process
    /// needs one in minutes.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`] when there is none left.
    pub fn admit_svid(&self, whose: &str, uptime: Duration) -> Result<(), IssueError> {
        admitted(self.svids.take(whose, uptime))
    }

    /// Takes one revocation of the client's rate: each is told to guards, and remembered there for minutes, so one
    /// client must not bring so many that guards have no room and stop.
    ///
    /// # Errors
    /// [`IssueError::RateLimited`] when there is none left.
    pub fn admit_revocation(&self, client_id: &str, uptime: Duration) -> Result<(), IssueError> {
        admitted(self.revocations.take(client_id, uptime))
    }

    /// Whether one more denial of this client gets a record of its own; else it is aggregated.
    pub fn record_denial(&self, client_id: &str, uptime: Duration) -> bool {
        self.denials.take(client_id, uptime)
    }

    /// The same, of a process that a node reported: no more of all that it reports together than of one client, and a tenth
    /// of that for each, so that none takes the others' room.
    pub fn record_denial_on_node(&self, (node, process): (&str, &str), uptime: Duration) -> bool {
        // The node's first: one that makes up many must not take the room of others.
        self.denials.has(node, uptime)
            && self.reported_denials.take(process, uptime)
            && self.denials.take(node, uptime)
    }

    /// Whether one more refused SVID of this user of this node gets a record of its own; else it is aggregated. Any
    /// process may ask, and for years: so many an hour, and no more of all users of a node together.
    pub fn record_svid_denial(&self, (node, user): (&str, &str), uptime: Duration) -> bool {
        // The node's first: who a user is may be its agent's word, and one that makes up many must not take the room of
        // others.
        self.svid_denials_of_node.has(node, uptime)
            && self.svid_denials_of_user.take(&format!("{node} {user}"), uptime)
            && self.svid_denials_of_node.take(node, uptime)
    }
}

fn admitted(is_admitted: bool) -> Result<(), IssueError> {
    if is_admitted { Ok(()) } else { Err(IssueError::RateLimited { retry_after_seconds: 1 }) }
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self { per_second: rate.per_second.into(), burst: rate.burst.into(), kept: Mutex::default() }
    }

    fn hourly(most: u32) -> Self {
        Self { per_second: f64::from(most) / 3600.0, burst: most.into(), kept: Mutex::default() }
    }

    fn take(&self, name: &str, uptime: Duration) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let name =
            if kept.by_name.contains_key(name) || self.has_room(&mut kept, uptime) { name } else { REST };
        let full = (self.burst, uptime);
        let bucket = match kept.by_name.get_mut(name) {
            Some(bucket) => bucket,
            None => kept.by_name.entry(name.to_owned()).or_insert(full),
        };
        let refilled = self.refilled(bucket, uptime);
        *bucket = (refilled, uptime);
        if refilled < 1.0 {
            return false;
        }
        bucket.0 -= 1.0;
        true
    }

    /// Whether there is one to take.
    fn has(&self, name: &str, uptime: Duration) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_name.get(name).is_none_or(|bucket| self.refilled(bucket, uptime) >= 1.0)
    }

    fn refilled(&self, (tokens, last): &(f64, Duration), uptime: Duration) -> f64 {
        (tokens + uptime.saturating_sub(*last).as_secs_f64() * self.per_second).min(self.burst)
    }

    /// Whether one more is remembered, after those that are full again are forgotten: they are as if new. Where there is
    /// no room, all who are new have one bucket together.
    fn has_room(&self, kept: &mut Kept, uptime: Duration) -> bool {
        let is_time = uptime.saturating_sub(kept.swept_at) >= SWEEP_INTERVAL;
        if kept.by_name.len() >= FEW && is_time {
            kept.swept_at = uptime;
            kept.by_name.retain(|_, bucket| self.refilled(bucket, uptime) < self.burst);
        }
        kept.by_name.len() < MOST
    }
}

/// A guard remembers a hundred thousand, each for minutes.
const REVOCATIONS: Rate = Rate { per_second: 10, burst: 200 };
/// Of one kind, for one SPIFFE ID by one entry on one node.
const SVIDS: Rate = Rate { per_second: 20, burst: 200 };
const SVID_DENIALS_OF_USER_PER_HOUR: u32 = 60;
const SVID_DENIALS_OF_NODE_PER_HOUR: u32 = 600;
/// The name of no bucket but that of all for whom there is no room.
const REST: &str = "";
/// So many are worth no sweep.
const FEW: usize = 1024;
/// As many as there are clients or entries, and a few megabytes.
const MOST: usize = 100_000;
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

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
    #[test]
    fn one_process_on_a_node_leaves_room_on_record_for_the_refusals_of_others() {
        let denials = Rate { per_second: 10, burst: 100 };
        let limits = Limits::new(denials, denials);
        let recorded = |process: &str, count: usize| {
            (0..count).filter(|_| limits.record_denial_on_node(("node", process), Duration::ZERO)).count()
        };
        assert_eq!(recorded("greedy", 200), 10);
        assert_eq!(recorded("other", 1), 1);
        let of_many: usize = (0..50).map(|process| recorded(&format!("process {process}"), 10)).sum();
        assert_eq!(of_many, 89, "and all together have as much as one client");
    }

    #[test]
    fn an_hour_of_refused_svids_is_bounded_for_each_user_and_for_the_node() {
        let limits = Limits::new(REVOCATIONS, REVOCATIONS);
        let asked =
            |user: &str, second| limits.record_svid_denial(("node", user), Duration::from_secs(second));
        let mut recorded = 0;
        for second in 0..24 * 3600 {
            recorded += (0..10).filter(|_| asked("uid:7", second)).count();
        }
        assert!((1400..=1500).contains(&recorded), "{recorded} in a day");
        assert!(asked("uid:8", 24 * 3600), "another user has its own");
        let of_many = (0..20_000).filter(|user| asked(&format!("uid:1{user}"), 24 * 3600)).count();
        assert!(of_many < 600, "{of_many}: many users are one node");
        let of_users = limits.svid_denials_of_user.kept.lock().unwrap().by_name.len();
        assert!(of_users < 700, "{of_users}: and take no more room than that");
    }

    #[test]
    fn names_without_number_take_no_memory_without_bound() {
        let buckets = Buckets::new(Rate { per_second: 20, burst: 200 });
        let size = || buckets.kept.lock().unwrap().by_name.len();
        for name in 0..2 * MOST {
            buckets.take(&format!("entry {name}"), Duration::ZERO);
        }
        assert!(size() <= MOST + 1, "{}", size());
        assert!(!buckets.take("one more", Duration::ZERO), "all who find no room have one bucket");
        assert!(buckets.take("entry 0", Duration::ZERO), "and whoever was there has its own");
        assert!(buckets.take("one more", Duration::from_secs(60)), "what is full again is forgotten");
        assert!(size() < 10, "{}", size());
    }
}
