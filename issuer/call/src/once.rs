//! "Seen this before?" for things that live for seconds: two generations of 16-byte tags in sharded locks.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Remembers each tag for at least `lifetime` and at most twice that. Never evicts: when full, it says so.
///
/// Memory is taken as it is needed: 20–40 bytes a tag, two generations at most; besides, a count for each owner.
pub struct OnceSet {
    lifetime: Duration,
    shards: Box<[Mutex<Shard>]>,
    shard_capacity: usize,
    /// Taken while a shard is held, never the other way round.
    shares: Mutex<Shares>,
    /// Chooses the shard. Its keys are random: nobody can aim all tags at one shard.
    hasher: RandomState,
    /// The newest epoch in which every shard was turned.
    swept: AtomicU64,
}

/// The answer of a once-only set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// Never seen within its life; now it is.
    First,
    /// Seen before.
    Seen,
    /// No room: the caller answers 503, never forgets.
    Full,
}

impl OnceSet {
    /// A set that holds up to `capacity` tags in each generation. Room is divided among shards of some thousand tags,
    /// so that a large set may call itself full a few hundredths early.
    pub fn new(lifetime: Duration, capacity: usize) -> Self {
        let shards = (capacity / SHARD_TAGS).next_power_of_two().min(MAX_SHARDS);
        Self {
            lifetime: lifetime.max(Duration::from_millis(1)),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity / shards,
            shares: Mutex::new(Shares { capacity, ..Shares::default() }),
            hasher: RandomState::new(),
            swept: AtomicU64::new(0),
        }
    }
    /// Takes the tag. `uptime` is monotonic.
    pub fn take(&self, tag: [u8; 16], uptime: Duration) -> Once {
        self.take_within(tag, uptime, Shares::enter)
    }
    /// Takes the tag for an owner, who may hold as many tags of a generation as there is room left in it: alone half of
    /// it, and however many are greedy, whoever comes next finds as much room as each of them holds. Owners are
    /// those of a configuration: the set keeps a count for each.
    pub fn take_for(&self, owner: &str, tag: [u8; 16], uptime: Duration) -> Once {
        self.take_within(tag, uptime, |shares| shares.enter_for(owner))
    }
    fn take_within(&self, tag: [u8; 16], uptime: Duration, enter: impl FnOnce(&mut Shares) -> bool) -> Once {
        self.expire(uptime);
        let epoch = self.epoch(uptime);
        let Some(mut shard) = self.shard_of(&tag) else { return Once::Full };
        let expired = shard.turn(epoch);
        let answer = shard.take(tag, self.shard_capacity, || {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.turn(epoch);
            enter(&mut shares)
        });
        drop(shard);
        drop(expired);
        answer
    }
    /// Whether the tag is held: taken, and not yet forgotten. Takes nothing.
    pub fn contains(&self, tag: [u8; 16], uptime: Duration) -> bool {
        self.expire(uptime);
        self.shard_of(&tag).is_some_and(|shard| shard.holds(&tag))
    }
    /// Gives back the memory of what has expired. [`take`](Self::take) does so by itself; a timer may, where
    /// requests have stopped.
    pub fn expire(&self, uptime: Duration) {
        let epoch = self.epoch(uptime);
        // One caller per epoch goes round; a shard that is asked before its turn turns itself.
        if self.swept.load(Ordering::Relaxed) < epoch
            && self.swept.fetch_max(epoch, Ordering::Relaxed) < epoch
        {
            for shard in &self.shards {
                let expired = lock(shard).turn(epoch);
                drop(expired);
            }
        }
    }
    /// How many tags are held now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn epoch(&self, uptime: Duration) -> u64 {
        u64::try_from(uptime.as_nanos() / self.lifetime.as_nanos()).unwrap_or(u64::MAX)
    }
    fn shard_of(&self, tag: &[u8; 16]) -> Option<MutexGuard<'_, Shard>> {
        let index = self.hasher.hash_one(tag) % self.shards.len() as u64;
        self.shards.get(usize::try_from(index).ok()?).map(lock)
    }
}

impl std::fmt::Debug for OnceSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnceSet").finish_non_exhaustive()
    }
}

/// Tags of the epoch that runs and of the one before.
#[derive(Default)]
struct Shard {
    epoch: u64,
    current: HashSet<[u8; 16]>,
    previous: HashSet<[u8; 16]>,
}

impl Shard {
    /// Moves on to `epoch` and hands out what has expired, to be freed outside the lock.
    fn turn(&mut self, epoch: u64) -> [HashSet<[u8; 16]>; 2] {
        // INVARIANT: a tag taken in epoch n leaves no earlier than epoch n + 2 begins, a whole lifetime after n ended.
        // Threads may read the clock in one order and come here in another: an older epoch changes nothing.
        if epoch <= self.epoch {
            return Default::default();
        }
        let ended = std::mem::take(&mut self.current);
        let follows = epoch == self.epoch + 1;
        self.epoch = epoch;
        if follows {
            [std::mem::replace(&mut self.previous, ended), HashSet::default()]
        } else {
            [std::mem::take(&mut self.previous), ended]
        }
    }
    fn holds(&self, tag: &[u8; 16]) -> bool {
        self.previous.contains(tag) || self.current.contains(tag)
    }
    /// `enter` counts one more of the generation, where there is room for it.
    fn take(&mut self, tag: [u8; 16], capacity: usize, enter: impl FnOnce() -> bool) -> Once {
        if self.holds(&tag) {
            Once::Seen
        } else if self.current.len() >= capacity || !enter() {
            Once::Full
        } else {
            self.current.insert(tag);
            Once::First
        }
    }
    fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }
}

/// Who holds how much of the generation that runs.
#[derive(Default)]
struct Shares {
    capacity: usize,
    epoch: u64,
    held: usize,
    by_owner: HashMap<Box<str>, usize>,
}

impl Shares {
    fn turn(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.held = 0;
            self.by_owner.clear();
        }
    }
    fn enter(&mut self) -> bool {
        self.held += 1;
        true
    }
    fn enter_for(&mut self, owner: &str) -> bool {
        let room = self.capacity.saturating_sub(self.held);
        let held = match self.by_owner.get_mut(owner) {
            Some(held) => held,
            None => self.by_owner.entry(owner.into()).or_default(),
        };
        if *held >= room {
            return false;
        }
        *held += 1;
        self.enter()
    }
}

/// A panic elsewhere cannot leave a shard half changed, so a poisoned lock is as good as any.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tags per shard: few enough that growing a table pauses for well under a millisecond.
const SHARD_TAGS: usize = 8 * 1024;
const MAX_SHARDS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn tag(number: u64) -> [u8; 16] {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        tag
    }

    #[test]
    fn to_ask_takes_nothing() {
        let set = OnceSet::new(Duration::from_secs(60), 10);
        let now = Duration::ZERO;
        assert!(!set.contains([1; 16], now));
        assert_eq!(set.take([1; 16], now), Once::First);
        assert!(set.contains([1; 16], now));
        assert!(set.contains([1; 16], Duration::from_secs(60)));
        assert!(!set.contains([1; 16], Duration::from_secs(180)), "forgotten");
    }

    #[test]
    fn remembered_for_a_lifetime_and_forgotten_after_two() {
        let second = Duration::from_secs(1);
        for start in [Duration::ZERO, second * 30, LIFETIME - Duration::from_nanos(1), second * 100_000] {
            let set = OnceSet::new(LIFETIME, 10);
            assert_eq!(set.take(tag(1), start), Once::First);
            assert_eq!(set.take(tag(1), start), Once::Seen);
            assert_eq!(set.take(tag(2), start), Once::First);
            assert_eq!(set.take(tag(1), start + LIFETIME), Once::Seen);
            assert_eq!(set.take(tag(1), start + LIFETIME * 2), Once::First);
        }
    }

    #[test]
    fn asking_again_does_not_prolong_nor_shorten() {
        let set = OnceSet::new(LIFETIME, 10);
        assert_eq!(set.take(tag(1), Duration::from_secs(59)), Once::First);
        for seconds in 60..=119 {
            assert_eq!(set.take(tag(1), Duration::from_secs(seconds)), Once::Seen);
        }
        assert_eq!(set.take(tag(1), Duration::from_secs(120)), Once::First);
    }

    #[test]
    fn a_late_thread_with_an_earlier_time_is_still_answered() {
        let set = OnceSet::new(LIFETIME, 10);
        assert_eq!(set.take(tag(1), Duration::from_secs(61)), Once::First);
        assert_eq!(set.take(tag(2), Duration::from_secs(59)), Once::First);
        assert_eq!(set.take(tag(1), Duration::from_secs(59)), Once::Seen);
    }

    #[test]
    fn full_never_forgets_and_makes_room_with_time() {
        let set = OnceSet::new(LIFETIME, 10);
        for number in 0..10 {
            assert_eq!(set.take(tag(number), Duration::ZERO), Once::First);
        }
        assert_eq!(set.take(tag(10), Duration::ZERO), Once::Full);
        assert_eq!(set.take(tag(3), Duration::ZERO), Once::Seen);
        assert_eq!(set.len(), 10);
        assert_eq!(set.take(tag(10), LIFETIME), Once::First);
        assert_eq!(set.len(), 11);
        assert_eq!(OnceSet::new(LIFETIME, 0).take(tag(1), Duration::ZERO), Once::Full);
    }

    #[test]
    fn one_owner_leaves_room_for_all_others() {
        let set = OnceSet::new(LIFETIME, 1000);
        let mut next = 0;
        let mut take_all = |owner: &str, uptime| {
            let mut taken = 0;
            loop {
                next += 1;
                match set.take_for(owner, tag(next), uptime) {
                    Once::First => taken += 1,
                    Once::Full => return taken,
                    Once::Seen => panic!("tags are new"),
                }
            }
        };
        assert_eq!(take_all("greedy", Duration::ZERO), 500, "alone: half");
        assert_eq!(take_all("greedy", Duration::ZERO), 0);
        assert_eq!(take_all("second", Duration::ZERO), 250, "what is left is halved each time");
        assert_eq!(take_all("third", Duration::ZERO), 125);
        assert_eq!(
            set.take_for("small", tag(0), Duration::ZERO),
            Once::First,
            "there is room for who holds little"
        );
        assert_eq!(set.take_for("greedy", tag(0), Duration::ZERO), Once::Seen, "what is seen is seen by all");
        assert_eq!(take_all("greedy", LIFETIME), 500, "a new generation is shared anew");
        assert_eq!(set.len(), 500 + 250 + 125 + 1 + 500);
    }

    #[test]
    fn what_belongs_to_nobody_counts_against_everybody() {
        let set = OnceSet::new(LIFETIME, 10);
        for number in 0..9 {
            assert_eq!(set.take(tag(number), Duration::ZERO), Once::First);
        }
        assert_eq!(set.take_for("a", tag(10), Duration::ZERO), Once::First);
        assert_eq!(set.take_for("b", tag(11), Duration::ZERO), Once::Full);
    }

    #[test]
    fn large_sets_hold_nearly_all_they_promise_and_no_more() {
        let capacity = 100_000;
        let set = OnceSet::new(LIFETIME, capacity);
        let firsts =
            (0..200_000).filter(|number| set.take(tag(*number), Duration::ZERO) == Once::First).count();
        assert!((capacity * 95 / 100..=capacity).contains(&firsts), "{firsts}");
        set.expire(LIFETIME * 2);
        assert!(set.is_empty());
    }

    #[test]
    fn one_winner_among_racers_even_as_generations_turn() {
        let set = OnceSet::new(LIFETIME, 100_000);
        let winners: Vec<AtomicUsize> = (0..1_000).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for racer in 0..8_u64 {
                let (set, winners) = (&set, &winners);
                scope.spawn(move || {
                    for (number, wins) in (0_u64..).zip(winners) {
                        // Each racer's clock reading straddles the turn differently.
                        let uptime =
                            LIFETIME + Duration::from_millis(number) - Duration::from_millis(500 + racer);
                        if set.take(tag(number), uptime) == Once::First {
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(winners.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_while_holding_a_lock_does_not_spread() {
        let set = OnceSet::new(LIFETIME, 10);
        assert_eq!(set.take(tag(1), Duration::ZERO), Once::First);
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _held = set.shard_of(&tag(1));
                panic!("on purpose");
            });
            assert!(holder.join().is_err());
        });
        assert_eq!(set.take(tag(1), Duration::ZERO), Once::Seen);
    }
}
