//! How much may be asked of the broker for persons' own tokens. Whoever brings garbage uses up what is kept for those of
//! whom nothing is known yet, from where he is; never what is kept for callers whose tokens were accepted.

use crate::{proxy::buckets::Buckets, refusal::Reason};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::held::Moment;

/// Bounds of the exchanges.
pub(super) struct Throttle {
    /// Tokens of which nothing is known, by source.
    sources: Mutex<Buckets<IpAddr>>,
    /// Exchanges of one token.
    tokens: Mutex<Buckets<[u8; 32]>>,
    /// Requests of one person, exchanged for or not.
    persons: Mutex<Buckets<[u8; 32]>>,
    known: Semaphore,
    unknown: Semaphore,
    refused: Mutex<HashMap<[u8; 32], Refused>>,
    /// The broker could not be reached: until then it is not tried again.
    away_until: Mutex<Duration>,
    /// How long a turn is waited for.
    patience: Duration,
}

/// An answer that is not asked for again at once.
struct Refused {
    reason: Reason,
    until: Duration,
    version: u64,
}

/// Permission for one exchange.
pub(super) struct Turn<'t> {
    _permit: SemaphorePermit<'t>,
    /// What was taken on trust, from whom.
    pub(super) on_trust: Option<IpAddr>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            sources: Mutex::new(Buckets::new(UNKNOWN_PER_MINUTE, UNKNOWN_BURST, MAX_SOURCES)),
            tokens: Mutex::new(Buckets::new(EXCHANGES_PER_MINUTE, EXCHANGES_BURST, MAX_TOKENS)),
            persons: Mutex::new(Buckets::new(REQUESTS_PER_MINUTE, REQUESTS_BURST, MAX_PERSONS)),
            known: Semaphore::new(KNOWN_AT_ONCE),
            unknown: Semaphore::new(UNKNOWN_AT_ONCE),
            refused: Mutex::default(),
            away_until: Mutex::default(),
            patience: PATIENCE,
        }
    }

    /// What was answered to the same a moment ago, if that was a no.
    pub(super) fn refused(&self, key: &[u8; 32], now: Moment) -> Result<(), Reason> {
        let refused = lock(&self.refused);
        let refused = refused.get(key).filter(|refused| refused.holds(now));
        refused.map_or(Ok(()), |refused| Err(refused.reason.clone()))
    }

    /// Remembers a no for a while.
    pub(super) fn remember(&self, key: [u8; 32], reason: &Reason, (lasts, now): (Duration, Moment)) {
        let mut refused = lock(&self.refused);
        if refused.len() >= MAX_REFUSED {
            refused.retain(|_, refused| refused.holds(now));
        }
        if refused.len() < MAX_REFUSED {
            let (reason, until) = (reason.clone(), now.uptime + lasts);
            refused.insert(key, Refused { reason, until, version: now.version });
        }
    }

    /// Waits for a turn: a short while, for the queue is as long as there are connections.
    ///
    /// # Errors
    /// [`Reason::Limited`], [`Reason::Unavailable`].
    pub(super) async fn turn(
        &self,
        tag: [u8; 32],
        (source, is_known): (IpAddr, bool),
        now: Moment,
    ) -> Result<Turn<'_>, Reason> {
        if now.uptime < *lock(&self.away_until) {
            return Err(Reason::Unavailable("the broker cannot be reached"));
        }
        let limited = |retry_after_seconds| Reason::Limited { retry_after_seconds };
        let (lane, on_trust) = match is_known {
            true => (&self.known, None),
            false => {
                let source = network(source);
                lock(&self.sources).take(source, now.uptime).map_err(limited)?;
                (&self.unknown, Some(source))
            }
        };
        if is_known {
            lock(&self.tokens).take(tag, now.uptime).map_err(limited)?;
        }
        match timeout(self.patience, lane.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, on_trust }),
            Ok(Err(_)) | Err(_) => {
                self.was_no_garbage(on_trust);
                Err(Reason::Unavailable("too many exchanges"))
            }
        }
    }

    /// Counts a request of a person whose token was accepted.
    ///
    /// # Errors
    /// [`Reason::Limited`].
    pub(super) fn request_of(&self, person: [u8; 32], now: Moment) -> Result<(), Reason> {
        let taken = lock(&self.persons).take(person, now.uptime);
        taken.map_err(|retry_after_seconds| Reason::Limited { retry_after_seconds })
    }

    /// What was taken on trust turned out to be no garbage, or nobody could tell.
    pub(super) fn was_no_garbage(&self, source: Option<IpAddr>) {
        if let Some(source) = source {
            lock(&self.sources).give_back(&source);
        }
    }

    /// The broker could not be reached.
    pub(super) fn is_away(&self, uptime: Duration) {
        *lock(&self.away_until) = uptime + AWAY_FOR;
    }
}

impl Refused {
    fn holds(&self, now: Moment) -> bool {
        now.uptime < self.until && self.version == now.version
    }
}

/// IPv6 by its /64, which one party owns whole.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens of which nothing is known, from one source: what turns out to be good is not counted.
const UNKNOWN_PER_MINUTE: u32 = 30;
const UNKNOWN_BURST: u32 = 30;
/// Exchanges of one token that was accepted before.
const EXCHANGES_PER_MINUTE: u32 = 600;
const EXCHANGES_BURST: u32 = 60;
/// Requests of one person, with whatever tokens: far less than the proofs that the guard remembers.
const REQUESTS_PER_MINUTE: u32 = 600;
const REQUESTS_BURST: u32 = 120;
const KNOWN_AT_ONCE: usize = 56;
const UNKNOWN_AT_ONCE: usize = 8;
const MAX_SOURCES: usize = 50_000;
const MAX_TOKENS: usize = 50_000;
const MAX_PERSONS: usize = 50_000;
const MAX_REFUSED: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(2);
const AWAY_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { uptime: Duration::from_secs(seconds), version: 1 }
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn garbage_uses_up_its_own_sources_share_alone() {
        let throttle = Throttle::new();
        let garbage = async |n: u32| {
            let mut tag = [0; 32];
            tag[..4].copy_from_slice(&n.to_be_bytes());
            throttle.turn(tag, (from(1), false), at(100)).await.map(drop)
        };
        let mut taken = 0;
        while garbage(taken).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, UNKNOWN_BURST);
        assert!(matches!(garbage(999).await, Err(Reason::Limited { .. })));
        assert!(throttle.turn([1; 32], (from(2), false), at(100)).await.is_ok(), "from elsewhere");
        assert!(
            throttle.turn([2; 32], (from(1), true), at(100)).await.is_ok(),
            "one that was accepted before"
        );
    }

    #[tokio::test]
    async fn what_is_good_is_not_counted_against_its_source() {
        let throttle = Throttle::new();
        for n in 0..=200 {
            let turn = throttle.turn([n; 32], (from(1), false), at(100)).await.unwrap();
            throttle.was_no_garbage(turn.on_trust);
        }
    }

    #[tokio::test]
    async fn one_token_has_a_rate() {
        let throttle = Throttle::new();
        let mut taken = 0;
        while throttle.turn([1; 32], (from(1), true), at(100)).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, EXCHANGES_BURST);
        assert!(throttle.turn([2; 32], (from(1), true), at(100)).await.is_ok(), "another's");
    }

    #[test]
    fn one_persons_requests_have_a_rate() {
        let throttle = Throttle::new();
        let taken = (0..9999).take_while(|_| throttle.request_of([1; 32], at(100)).is_ok()).count();
        assert_eq!(taken, REQUESTS_BURST as usize);
        assert_eq!(throttle.request_of([2; 32], at(100)), Ok(()), "another's");
        assert_eq!(throttle.request_of([1; 32], at(101)), Ok(()));
    }

    #[tokio::test]
    async fn those_who_are_not_known_leave_room_for_those_who_are() {
        let throttle = Throttle { patience: Duration::from_millis(1), ..Throttle::new() };
        let mut turns = Vec::new();
        for n in 0..UNKNOWN_AT_ONCE {
            turns.push(throttle.turn([n as u8; 32], (from(n as u8), false), at(100)).await.unwrap());
        }
        let full = throttle.turn([99; 32], (from(99), false), at(100)).await;
        assert!(matches!(full, Err(Reason::Unavailable(_))));
        assert!(throttle.turn([98; 32], (from(99), true), at(100)).await.is_ok());
        turns.pop();
        assert!(throttle.turn([99; 32], (from(99), false), at(100)).await.is_ok());
    }

    #[tokio::test]
    async fn a_no_is_remembered_for_a_while_and_until_something_changes() {
        let throttle = Throttle::new();
        let no = Reason::UserToken("refused");
        throttle.remember([1; 32], &no, (Duration::from_secs(30), at(100)));
        assert_eq!(throttle.refused(&[1; 32], at(129)), Err(no));
        assert_eq!(throttle.refused(&[1; 32], at(130)), Ok(()));
        assert_eq!(throttle.refused(&[1; 32], Moment { version: 2, ..at(101) }), Ok(()));
        assert_eq!(throttle.refused(&[2; 32], at(101)), Ok(()));
        throttle.is_away(at(100).uptime);
        assert!(throttle.turn([1; 32], (from(1), true), at(100)).await.is_err());
        assert!(throttle.turn([1; 32], (from(1), true), at(101)).await.is_ok());
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let one = network("2001:db8::1".parse().unwrap());
        assert_eq!(one, network("2001:db8::ffff:2".parse().unwrap()));
        assert_ne!(one, network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), from(1));
    }
}
