//! Names of users and groups, as the machine's own directory has them (getpwuid_r(3), getgrgid_r(3)).
//!
//! A directory may be at the other end of a network, and slow or away. Then the last answers count for an hour, and
//! after that names are absent: nobody is waited for.

use moka::sync::Cache;
use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, User},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    User(u32),
    Group(u32),
}

/// Where names are asked for.
pub(crate) trait Directory: Send + Sync + 'static {
    /// The name, or `None` if there is none. May take its time.
    ///
    /// # Errors
    /// If the directory does not answer.
    fn name(&self, id: Id) -> Result<Option<String>, Errno>;
}

/// What the system's libraries are configured to ask.
pub(crate) struct SystemDirectory;

/// Names that are remembered for a minute.
pub(crate) struct Names {
    kept: Arc<Kept>,
    /// How many threads may wait for the directory.
    askers: Arc<Semaphore>,
}

struct Kept {
    directory: Box<dyn Directory>,
    fresh: Cache<Id, Option<Arc<str>>>,
    last: Cache<Id, Option<Arc<str>>>,
}

impl Names {
    pub(crate) fn of(directory: Box<dyn Directory>) -> Self {
        let cache = |life| Cache::builder().max_capacity(MAX_NAMES).time_to_live(life).build();
        let kept = Kept { directory, fresh: cache(FRESH), last: cache(LAST) };
        Self { kept: Arc::new(kept), askers: Arc::new(Semaphore::new(MAX_ASKERS)) }
    }

    /// The names of these, in their order.
    pub(crate) async fn names(&self, ids: &[Id]) -> Vec<Option<Arc<str>>> {
        let unknown: Vec<Id> = ids.iter().copied().filter(|id| !self.kept.fresh.contains_key(id)).collect();
        if !unknown.is_empty() && tokio::time::timeout(PATIENCE, self.ask(unknown)).await.is_err() {
            tracing::warn!("the directory of users and groups does not answer in time");
        }
        ids.iter().map(|id| self.kept.fresh.get(id).or_else(|| self.kept.last.get(id)).flatten()).collect()
    }

    async fn ask(&self, ids: Vec<Id>) {
        let Ok(turn) = Arc::clone(&self.askers).acquire_owned().await else { return };
        let kept = Arc::clone(&self.kept);
        // Keeps its turn until the directory has answered, however long ago everybody went away.
        let asked = tokio::task::spawn_blocking(move || {
            for id in ids {
                kept.ask(id);
            }
            drop(turn);
        });
        let _ = asked.await;
    }
}

impl Kept {
    fn ask(&self, id: Id) {
        match self.directory.name(id) {
            Ok(name) => {
                let name: Option<Arc<str>> = name.map(Into::into);
                self.fresh.insert(id, name.clone());
                self.last.insert(id, name);
            }
            Err(error) => tracing::warn!(?id, %error, "the directory of users and groups does not answer"),
        }
    }
}

impl Directory for SystemDirectory {
    fn name(&self, id: Id) -> Result<Option<String>, Errno> {
        let answer = match id {
            Id::User(uid) => User::from_uid(Uid::from_raw(uid)).map(|user| user.map(|user| user.name)),
            Id::Group(gid) => Group::from_gid(Gid::from_raw(gid)).map(|group| group.map(|group| group.name)),
        };
        match answer {
            // "The given name or uid was not found" has many forms (getpwuid(3)).
            Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
            other => other,
        }
    }
}

const MAX_NAMES: u64 = 4096;
const MAX_ASKERS: usize = 4;
const FRESH: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    /// Answers until it is told to be away.
    struct Fake {
        answer: Mutex<Result<Option<String>, Errno>>,
        asked: AtomicUsize,
    }

    impl Directory for Arc<Fake> {
        fn name(&self, _id: Id) -> Result<Option<String>, Errno> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    fn fake(answer: Result<Option<&str>, Errno>) -> (Arc<Fake>, Names) {
        let answer = Mutex::new(answer.map(|name| name.map(str::to_owned)));
        let fake = Arc::new(Fake { answer, asked: AtomicUsize::new(0) });
        (Arc::clone(&fake), Names::of(Box::new(fake)))
    }

    async fn name(names: &Names, id: Id) -> Option<String> {
        names.names(&[id]).await.pop().flatten().map(|name| name.to_string())
    }

    #[tokio::test]
    async fn names_are_asked_for_once_a_minute() {
        let (fake, names) = fake(Ok(Some("alice")));
        for _ in 0..3 {
            assert_eq!(name(&names, Id::User(1000)).await.as_deref(), Some("alice"));
        }
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
        name(&names, Id::Group(1000)).await;
        assert_eq!(fake.asked.load(Ordering::SeqCst), 2, "a group is no user");
    }

    #[tokio::test]
    async fn no_name_is_remembered_too_and_no_answer_is_not() {
        let (fake_none, names) = fake(Ok(None));
        assert_eq!(name(&names, Id::User(1)).await, None);
        assert_eq!(name(&names, Id::User(1)).await, None);
        assert_eq!(fake_none.asked.load(Ordering::SeqCst), 1);
        let (fake_away, names) = fake(Err(Errno::EIO));
        assert_eq!(name(&names, Id::User(1)).await, None);
        assert_eq!(name(&names, Id::User(1)).await, None);
        assert_eq!(fake_away.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_last_answer_counts_while_the_directory_is_away() {
        let (fake, names) = fake(Ok(Some("alice")));
        assert_eq!(name(&names, Id::User(1000)).await.as_deref(), Some("alice"));
        *fake.answer.lock().unwrap() = Err(Errno::ETIMEDOUT);
        names.kept.fresh.invalidate_all();
        assert_eq!(name(&names, Id::User(1000)).await.as_deref(), Some("alice"));
        assert_eq!(name(&names, Id::User(1001)).await, None, "never known");
        *fake.answer.lock().unwrap() = Ok(None);
        assert_eq!(name(&names, Id::User(1000)).await, None, "an answer is better than a memory");
    }

    /// Never answers while the test holds the other end.
    struct Stuck(Mutex<mpsc::Receiver<()>>);

    impl Directory for Stuck {
        fn name(&self, _id: Id) -> Result<Option<String>, Errno> {
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(Some("late".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_directory_that_hangs_holds_nobody_up() {
        let (end, stuck) = mpsc::channel();
        let names = Names::of(Box::new(Stuck(Mutex::new(stuck))));
        tokio::time::pause();
        for uid in 0..10 {
            let (answer, ()) = tokio::join!(name(&names, Id::User(uid)), tokio::time::advance(PATIENCE * 2));
            assert_eq!(answer, None);
        }
        assert_eq!(names.askers.available_permits(), 0, "no more threads than these wait");
        drop(end);
    }

    #[test]
    fn the_system_knows_root_and_not_everybody() {
        assert_eq!(SystemDirectory.name(Id::User(0)).unwrap().as_deref(), Some("root"));
        assert_eq!(SystemDirectory.name(Id::Group(0)).unwrap().as_deref(), Some("root"));
        assert_eq!(SystemDirectory.name(Id::User(3_999_999_999)).unwrap(), None);
    }
}
