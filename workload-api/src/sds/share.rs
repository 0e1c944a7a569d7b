//! How many streams of secrets there may be, and how many one user may have. Envoy says with each what it is built of, so they take
//! more memory than other calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts them.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<Users>>);

#[derive(Default)]
struct Users {
    all: usize,
    of: HashMap<u32, usize>,
}

/// A place for one stream. Whoever drops it leaves.
pub(crate) struct Share {
    shares: Shares,
    user: u32,
}

impl Shares {
    /// A place for this user, if there is one.
    pub(crate) fn enter(&self, user: u32) -> Option<Share> {
        let mut users = self.lock();
        let Users { all, of } = &mut *users;
        let own = of.get(&user).copied().unwrap_or_default();
        if *all >= STREAMS || own >= STREAMS_OF_ONE_USER {
            return None;
        }
        *all += 1;
        of.insert(user, own + 1);
        Some(Share { shares: self.clone(), user })
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = self.shares.lock();
        users.all = users.all.saturating_sub(1);
        let own = users.of.get(&self.user).map_or(0, |own| own.saturating_sub(1));
        if own == 0 {
            users.of.remove(&self.user);
        } else {
            users.of.insert(self.user, own);
        }
    }
}

/// Each has a few; a message has 256 KiB at most.
const STREAMS: usize = 2048;
const STREAMS_OF_ONE_USER: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_the_others_and_nothing_is_remembered_of_who_left() {
        let shares = Shares::default();
        let held: Vec<_> = (0..STREAMS_OF_ONE_USER).map(|_| shares.enter(7).unwrap()).collect();
        assert!(shares.enter(7).is_none());
        let others: Vec<_> = (0..STREAMS_OF_ONE_USER).map(|_| shares.enter(8).unwrap()).collect();
        assert!(shares.enter(9).is_none(), "full");
        drop(held);
        assert!(shares.enter(9).is_some());
        drop(others);
        let users = shares.lock();
        assert_eq!((users.all, users.of.len()), (0, 0));
    }
}
