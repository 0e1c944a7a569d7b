//! How many processes are looked at together, and how many programs are read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets a few through at a time, and of one user fewer still: who runs a program from a file system that never answers
/// holds up nobody but their own.
#[derive(Debug)]
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    of_one_user: usize,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// Someone who was let through; to be kept until the work is really done.
#[derive(Debug)]
pub(crate) struct Pass {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Gate {
    /// Lets so many through.
    pub(crate) fn new(most: usize, of_one_user: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), of_one_user, users: Mutex::default() }
    }

    /// Waits for a turn. `None` never happens while the gate is in use.
    pub(crate) async fn enter(&self, uid: u32) -> Option<Pass> {
        let of_user = self.turns_of(uid).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Pass { _of_user: of_user, _of_all: of_all })
    }

    fn turns_of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= SWEEP_AT {
            // Whoever holds or awaits a turn holds the semaphore too.
            users.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(self.of_one_user))))
    }
}

const SWEEP_AT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 32;
    const MOST_OF_ONE_USER: usize = 4;

    #[tokio::test]
    async fn one_user_does_not_hold_up_another() {
        let gate = Gate::new(MOST, MOST_OF_ONE_USER);
        let mut stuck = Vec::new();
        for _ in 0..MOST_OF_ONE_USER {
            stuck.push(gate.enter(1000).await);
        }
        tokio::time::pause();
        let refused = tokio::time::timeout(std::time::Duration::from_secs(9), gate.enter(1000)).await;
        assert!(refused.is_err(), "this user has to wait");
        assert!(gate.enter(1001).await.is_some());
        stuck.pop();
        assert!(gate.enter(1000).await.is_some());
    }

    #[tokio::test]
    async fn users_who_left_are_forgotten_and_others_are_not() {
        let gate = Gate::new(MOST, MOST_OF_ONE_USER);
        let kept = gate.enter(7).await;
        for uid in 0..5000 {
            gate.enter(uid).await;
        }
        let users = gate.users.lock().unwrap();
        assert!(users.len() <= SWEEP_AT + 1, "{}", users.len());
        assert_eq!(users.get(&7).unwrap().available_permits(), MOST_OF_ONE_USER - 1);
        drop(kept);
    }
}
