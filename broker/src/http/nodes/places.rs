//! Places: so many for all, and so many of them for one, so that nobody has all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// So many places, each taken in somebody's name.
#[derive(Debug)]
pub struct Places {
    of_all: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_name: HashMap<String, usize>,
}

/// One of them; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    name: String,
    size: usize,
}

impl Places {
    /// So many, and so many of them for one.
    pub fn new(of_all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self { of_all, of_one, taken: Mutex::default() })
    }

    /// Takes one, if there is one left for this name.
    pub fn enter(self: &Arc<Self>, name: &str) -> Option<Place> {
        self.enter_with(name, 1)
    }

    /// Takes one as large as this many, if there is so much left for this name.
    pub fn enter_with(self: &Arc<Self>, name: &str, size: usize) -> Option<Place> {
        self.enter_if(name, size, |of_this| size <= self.of_one.saturating_sub(of_this))
    }

    /// Takes one as large as this many, which may be more than is for one, if this name has none.
    pub fn enter_alone(self: &Arc<Self>, name: &str, size: usize) -> Option<Place> {
        self.enter_if(name, size, |of_this| of_this == 0)
    }

    fn enter_if(
        self: &Arc<Self>,
        name: &str,
        size: usize,
        may_have: impl FnOnce(usize) -> bool,
    ) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this = taken.by_name.get(name).copied().unwrap_or_default();
        if size > self.of_all.saturating_sub(taken.all) || !may_have(of_this) {
            return None;
        }
        taken.all += size;
        taken.by_name.insert(name.to_owned(), of_this + size);
        Some(Place { places: Arc::clone(self), name: name.to_owned(), size })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= self.size;
        if let Some(count) = taken.by_name.get_mut(&self.name) {
            *count -= self.size;
            if *count == 0 {
                taken.by_name.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_place_takes_as_much() {
        let places = Places::new(10, 6);
        let large = places.enter_with("a", 6).unwrap();
        assert!(places.enter("a").is_none() && places.enter_with("b", 5).is_none());
        let other = places.enter_with("b", 4).unwrap();
        drop(large);
        assert!(places.enter_with("a", 7).is_none(), "larger than anybody's");
        drop((places.enter_with("a", 6).unwrap(), other));
        assert_eq!(places.taken.lock().unwrap().all, 0);
    }

    #[test]
    fn nobody_has_all_and_what_is_left_is_free_again() {
        let places = Places::new(3, 2);
        let (first, second) = (places.enter("a").unwrap(), places.enter("a").unwrap());
        assert!(places.enter("a").is_none(), "no more of one");
        let third = places.enter("b").unwrap();
        assert!(places.enter("c").is_none(), "no more of all");
        drop(first);
        assert!(places.enter("a").is_some());
        drop((second, third));
        let taken = places.taken.lock().unwrap();
        assert!(taken.all == 0 && taken.by_name.is_empty(), "nothing is remembered of who left");
    }
}
