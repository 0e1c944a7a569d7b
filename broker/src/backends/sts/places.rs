//! Places for calls under way: one account whose calls hang leaves room for the others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// A bounded number of places, each account's share of which is as large as what it leaves to the others.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<Taken>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of those accounts that have any.
    by_account: HashMap<String, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    account: &'a str,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Self {
        Self { taken: Mutex::default(), capacity }
    }

    /// A place for a call of this account; none if all are taken, or this account has as many as there is room left.
    pub(super) fn take<'a>(&'a self, account: &'a str) -> Option<Place<'a>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_account.get(account).copied().unwrap_or_default();
        if own >= self.capacity.saturating_sub(taken.all) {
            return None;
        }
        taken.all += 1;
        taken.by_account.insert(account.to_owned(), own + 1);
        Some(Place { places: self, account })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_account.get_mut(self.account) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_account.remove(self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<'a>(places: &'a Places, account: &'a str) -> Vec<Place<'a>> {
        std::iter::from_fn(|| places.take(account)).take(1000).collect()
    }

    #[test]
    fn one_account_leaves_room_for_others_and_gives_back_what_it_had() {
        let places = Places::new(256);
        let greedy = taken(&places, "111122223333");
        assert_eq!(greedy.len(), 128);
        let other = taken(&places, "444455556666");
        assert_eq!(other.len(), 64, "another is served");
        drop(greedy);
        assert_eq!(taken(&places, "111122223333").len(), 96);
        drop(other);
        let rest = places.taken.lock().unwrap();
        assert!(rest.all == 0 && rest.by_account.is_empty());
    }

    #[test]
    fn there_are_never_more_than_there_are_places() {
        let places = Places::new(8);
        let accounts: Vec<String> = (0..20).map(|n| format!("{n:012}")).collect();
        let held: Vec<_> = accounts.iter().flat_map(|account| taken(&places, account)).collect();
        assert_eq!(held.len(), 8);
        assert!(places.take("another").is_none());
    }
}
