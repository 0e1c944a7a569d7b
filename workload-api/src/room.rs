//! How much there may be at once, and how much of it one user may have: nobody can take the others' place.
//!
//! Half of all is kept for users who were given something lately: whoever has many users (subordinate ones, for
//! instance, see subuid(5)) and no entry can take the places of strangers only.

use deputize_issuer::clock::Clock;
use rustix::process::{Resource, getrlimit};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bounds of the Workload API.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Of these, how many one user may hold.
    pub connections_of_one_user: usize,
    /// Calls under way, streams among them.
    pub calls: usize,
    /// Of these, how many one user may have.
    pub calls_of_one_user: usize,
    /// Exchanges under way, which are calls too.
    pub exchanges: usize,
    /// Of these, how many one user may have.
    pub exchanges_of_one_user: usize,
    /// Calls and connections that one user may begin per second in the long run…
    pub starts_per_second: u32,
    /// … and at once.
    pub starts_at_once: u32,
    /// How often a client is asked whether it is still there.
    pub ping_interval: Duration,
    /// How long it may take to answer: a client that does not read is ended by then.
    pub ping_timeout: Duration,
    /// How long a connection may be without a call under way.
    pub silence: Duration,
    /// How long a stop waits for connections to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_of_one_user: 4096,
            calls: 32_768,
            calls_of_one_user: 16_384,
            exchanges: 2048,
            exchanges_of_one_user: 1024,
            starts_per_second: 1000,
            starts_at_once: 20_000,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// Of a node's agent: the broker takes so many exchanges of one node at once, and half of them are one user's at most.
    pub fn of_an_agent() -> Self {
        Self { exchanges: 128, exchanges_of_one_user: 64, ..Self::default() }
    }

    /// No more connections than there are file descriptors for: each takes two, and half of all are others'.
    pub(crate) fn within_descriptors(self) -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
        let connections = descriptors.map_or(self.connections, |most| self.connections.min(most / 4));
        let connections_of_one_user = self.connections_of_one_user.min(connections.div_ceil(2));
        if connections < self.connections {
            tracing::info!(connections, "fewer connections than could be: the limit of open files is low");
        }
        Self { connections, connections_of_one_user, ..self }
    }
}

/// Counts what there is.
pub(crate) struct Room {
    limits: Limits,
    clock: Arc<dyn Clock>,
    users: Mutex<Users>,
}

#[derive(Default)]
struct Users {
    all: Share,
    /// What strangers have of it.
    strangers: Share,
    of: HashMap<u32, User>,
    /// When so many users are known, those who have nothing are forgotten.
    sweep_at: usize,
}

#[derive(Default)]
struct User {
    share: Share,
    /// Until when its starts are used up, in uptime (the generic cell rate algorithm).
    spent_until: Duration,
    /// Until when it is no stranger, in uptime. What it holds is counted as strangers' as `is_stranger` says.
    welcome_until: Duration,
    is_stranger: bool,
}

#[derive(Default, Clone, Copy)]
struct Share {
    connections: usize,
    calls: usize,
    exchanges: usize,
}

/// A place for one connection or one call. Whoever drops it leaves.
pub(crate) struct Place {
    room: Arc<Room>,
    user: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    Call,
    /// A call of an exchange, beside its place as a call.
    Exchange,
}

impl Room {
    pub(crate) fn new(limits: Limits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { limits, clock, users: Mutex::default() })
    }

    /// A place for this user, if there is one.
    pub(crate) fn enter(self: &Arc<Self>, user: u32, kind: Kind) -> Option<Place> {
        let now = self.clock.uptime();
        let (most, most_of_one) = match kind {
            Kind::Connection => (self.limits.connections, self.limits.connections_of_one_user),
            Kind::Call => (self.limits.calls, self.limits.calls_of_one_user),
            Kind::Exchange => (self.limits.exchanges, self.limits.exchanges_of_one_user),
        };
        let mut users = self.lock();
        users.sweep(now);
        let Users { all, strangers, of, .. } = &mut *users;
        let known = of.entry(user).or_default();
        if known.welcome_until <= now && !known.is_stranger {
            known.is_stranger = true;
            strangers.add(known.share);
        }
        // A half for strangers, and a half of that for one of them.
        let (most_of_strangers, most_of_one) = if known.is_stranger {
            (most.div_ceil(2), most_of_one.min(most.div_ceil(4)))
        } else {
            (usize::MAX, most_of_one)
        };
        if *all.count(kind) >= most
            || *strangers.count(kind) >= most_of_strangers
            || *known.share.count(kind) >= most_of_one
            || !known.spend(now, &self.limits)
        {
            return None;
        }
        *all.count(kind) += 1;
        *known.share.count(kind) += 1;
        if known.is_stranger {
            *strangers.count(kind) += 1;
        }
        kind.gauge().increment(1.0);
        Some(Place { room: Arc::clone(self), user, kind })
    }

    /// Says that this user was found to be entitled to something: for a while it is no stranger.
    pub(crate) fn welcome(&self, user: u32) {
        let now = self.clock.uptime();
        let mut users = self.lock();
        let Users { strangers, of, .. } = &mut *users;
        // Whoever is not here has gone meanwhile.
        let Some(known) = of.get_mut(&user) else { return };
        known.welcome_until = now + WELCOME;
        if std::mem::take(&mut known.is_stranger) {
            strangers.remove(known.share);
        }
    }

    /// How many calls are under way.
    pub(crate) fn calls(&self) -> usize {
        self.lock().all.calls
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.room.lock();
        let Users { all, strangers, of, .. } = &mut *users;
        *all.count(self.kind) -= 1;
        if let Some(known) = of.get_mut(&self.user) {
            *known.share.count(self.kind) -= 1;
            if known.is_stranger {
                *strangers.count(self.kind) -= 1;
            }
        }
        self.kind.gauge().decrement(1.0);
    }
}

impl Kind {
    fn gauge(self) -> metrics::Gauge {
        match self {
            Self::Connection => metrics::gauge!("deputize_workload_connections"),
            Self::Call => metrics::gauge!("deputize_workload_calls"),
            Self::Exchange => metrics::gauge!("deputize_workload_exchanges"),
        }
    }
}

impl Users {
    fn sweep(&mut self, now: Duration) {
        if self.of.len() >= self.sweep_at {
            let remembers = self.of.len() < MOST_REMEMBERED;
            self.of.retain(|_, known| {
                known.share.connections + known.share.calls + known.share.exchanges > 0
                    || known.spent_until > now
                    || remembers && known.welcome_until > now
            });
            self.sweep_at = (self.of.len() * 2).max(LEAST_SWEPT);
        }
    }
}

impl User {
    fn spend(&mut self, now: Duration, limits: &Limits) -> bool {
        let each = Duration::from_secs(1) / limits.starts_per_second.max(1);
        let spent_until = self.spent_until.max(now) + each;
        if spent_until > now + each * limits.starts_at_once {
            return false;
        }
        self.spent_until = spent_until;
        true
    }
}

impl Share {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.calls += other.calls;
        self.exchanges += other.exchanges;
    }

    fn remove(&mut self, other: Self) {
        self.connections -= other.connections;
        self.calls -= other.calls;
        self.exchanges -= other.exchanges;
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Call => &mut self.calls,
            Kind::Exchange => &mut self.exchanges,
        }
    }
}

const LEAST_SWEPT: usize = 1024;
/// Streams ask for their users once a minute; others come back when an SVID has lived half of its life.
const WELCOME: Duration = Duration::from_secs(3600);
/// When so many users are known, those who have nothing are forgotten, welcome or not.
const MOST_REMEMBERED: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::clock::TestClock;

    #[test]
    fn one_user_cannot_take_the_places_of_others() {
        let limits = Limits { connections: 3, connections_of_one_user: 2, ..Limits::default() };
        let room = Room::new(limits, Arc::new(TestClock::at_seconds(1)));
        welcome(&room, [7, 8, 9]);
        let held: Vec<_> = (0..2).map(|_| room.enter(7, Kind::Connection).unwrap()).collect();
        assert!(room.enter(7, Kind::Connection).is_none());
        assert!(room.enter(7, Kind::Call).is_some(), "calls are counted apart");
        let other = room.enter(8, Kind::Connection).unwrap();
        assert!(room.enter(9, Kind::Connection).is_none(), "full");
        drop(other);
        assert!(room.enter(9, Kind::Connection).is_some());
        drop(held);
        assert!(room.enter(7, Kind::Connection).is_some());
    }

    /// These were given something just now.
    fn welcome(room: &Arc<Room>, users: impl IntoIterator<Item = u32>) {
        for user in users {
            let _place = room.enter(user, Kind::Call).unwrap();
            room.welcome(user);
        }
    }

    #[test]
    fn strangers_take_half_of_all_and_one_of_them_half_of_that() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let limits = Limits { connections: 8, connections_of_one_user: 8, ..Limits::default() };
        let room = Room::new(limits, Arc::clone(&clock) as Arc<dyn Clock>);
        welcome(&room, [7]);
        let enter = |user| room.enter(user, Kind::Connection);
        let mut strangers: Vec<_> = (0..2).map(|_| enter(100).unwrap()).collect();
        assert!(enter(100).is_none());
        strangers.extend((101..103).map(|user| enter(user).unwrap()));
        assert!((103..1000).all(|user| enter(user).is_none()), "a range of users");
        let held: Vec<_> = (0..4).map(|_| enter(7).unwrap()).collect();
        assert!(enter(7).is_none(), "full");
        // One of them is given something, and is none of them any more.
        room.welcome(100);
        drop(held);
        strangers.extend((103..105).map(|user| enter(user).unwrap()));
        assert!(enter(105).is_none());
        drop(strangers);
        assert_eq!(room.lock().strangers.connections, 0);
        // Who was given nothing for long is a stranger again, with all that it holds.
        let held: Vec<_> = (0..5).map(|_| enter(7).unwrap()).collect();
        clock.advance(WELCOME);
        assert!(enter(7).is_none() && enter(101).is_none());
        drop(held);
        assert!(enter(7).is_some());
        let users = room.lock();
        assert_eq!((users.strangers.connections, users.all.connections), (0, 0));
    }

    #[test]
    fn of_the_exchanges_of_a_node_one_user_has_half_and_the_rest_is_others() {
        let room = Room::new(Limits::of_an_agent(), Arc::new(TestClock::at_seconds(1)));
        welcome(&room, [7, 8, 9]);
        let take = |user| std::iter::from_fn(|| room.enter(user, Kind::Exchange)).collect::<Vec<_>>();
        let held = [take(7), take(8), take(9)];
        assert_eq!(held.each_ref().map(Vec::len), [64, 64, 0]);
    }

    #[test]
    fn not_all_who_are_welcome_are_remembered() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let room = Room::new(Limits::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        for user in 0..100_000 {
            welcome(&room, [user]);
            clock.advance(Duration::from_millis(10));
        }
        assert!(room.lock().of.len() <= 2 * MOST_REMEMBERED);
    }

    #[test]
    fn there_are_descriptors_for_all() {
        let limits =
            Limits { connections: usize::MAX, connections_of_one_user: usize::MAX, ..Limits::default() };
        let limits = limits.within_descriptors();
        let most = getrlimit(Resource::Nofile).current.unwrap();
        assert_eq!(limits.connections, usize::try_from(most).unwrap() / 4);
        assert!(limits.connections_of_one_user <= limits.connections.div_ceil(2));
        let few = Limits { connections: 4, connections_of_one_user: 1, ..limits }.within_descriptors();
        assert_eq!((few.connections, few.connections_of_one_user), (4, 1));
    }

    #[test]
    fn one_users_starts_are_rated() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let limits = Limits { starts_per_second: 10, starts_at_once: 3, ..Limits::default() };
        let room = Room::new(limits, Arc::clone(&clock) as Arc<dyn Clock>);
        let starts = |user| (0..10).filter(|_| room.enter(user, Kind::Call).is_some()).count();
        assert_eq!((starts(7), starts(8)), (3, 3));
        clock.advance(Duration::from_millis(200));
        assert_eq!((starts(7), starts(7)), (2, 0));
        clock.advance(Duration::from_secs(60));
        assert_eq!(starts(7), 3);
    }

    #[test]
    fn users_who_have_nothing_are_forgotten() {
        let clock = Arc::new(TestClock::at_seconds(1));
        let room = Room::new(Limits::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let kept = room.enter(7, Kind::Connection).unwrap();
        for user in 100..100_000 {
            drop(room.enter(user, Kind::Connection).unwrap());
            clock.advance(Duration::from_millis(10));
        }
        assert!(room.lock().of.len() <= 2 * LEAST_SWEPT);
        assert!(room.lock().of.contains_key(&7));
        drop(kept);
        assert_eq!(room.lock().all.connections, 0);
    }
}
