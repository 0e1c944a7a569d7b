//! What is new: heard from where it happens, told to every stream that it concerns.

use async_trait::async_trait;
use deputize_issuer::revocation::{Lifting, Place, RevocationFailed, Revocations, Revoked};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, broadcast, watch};

/// Where changes are announced and heard.
#[derive(Debug)]
pub struct News {
    /// Grows with every change, so that what was built before one is known to be old.
    generation: AtomicU64,
    state: watch::Sender<u64>,
    /// Each server's own: a flood for one drowns no other.
    revoked: Mutex<HashMap<String, broadcast::Sender<Revoked>>>,
    /// Where revoked tokens are used, and until when that may be asked (Unix seconds). As many as are in force.
    places: Mutex<HashMap<String, (Place, u64)>>,
    /// Held to write while a revocation is taken back.
    settled: Arc<RwLock<()>>,
}

/// What one listener hears. Whoever subscribes and then looks at the state misses nothing.
#[derive(Debug)]
pub(super) struct Listener {
    /// Changes when there is something else to know than one more revocation.
    pub(super) state: watch::Receiver<u64>,
    /// Revocations in their order; one who falls behind is told so.
    pub(super) revoked: broadcast::Receiver<Revoked>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            generation: AtomicU64::new(0),
            state: watch::Sender::new(0),
            revoked: Mutex::default(),
            places: Mutex::default(),
            settled: Arc::default(),
        }
    }
}

impl News {
    /// Grows with every change.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The rules are others now, or something was lifted: whoever listens looks anew.
    pub(super) fn changed(&self) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.send_replace(generation);
    }

    /// What concerns this server.
    pub(super) fn listen(&self, resource: &str) -> Listener {
        let mut channels = self.channels();
        channels.retain(|_, channel| channel.receiver_count() > 0);
        let channel = channels.entry(resource.to_owned());
        let revoked = channel.or_insert_with(|| broadcast::Sender::new(MAX_BEHIND)).subscribe();
        Listener { state: self.state.subscribe(), revoked }
    }

    /// Waits until nothing is being taken back; while this is held nothing will be.
    pub(super) async fn settled(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.settled).read_owned().await
    }

    /// Where each of these is used, as far as it is a token and that is known.
    pub(super) fn placed(&self, what: Vec<Revoked>) -> Vec<(Revoked, Option<Place>)> {
        let places = self.places();
        let place = |revoked: &Revoked| match revoked {
            Revoked::Token(jti) => places.get(jti).map(|(place, _)| place.clone()),
            Revoked::Transaction(_) | Revoked::Person(_) => None,
        };
        let with_place = |revoked: Revoked| {
            let place = place(&revoked);
            (revoked, place)
        };
        what.into_iter().map(with_place).collect()
    }

    fn revoked(&self, what: Vec<Revoked>) {
        if what.is_empty() {
            return;
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        let placed = self.placed(what);
        let channels = self.channels();
        for (revoked, place) in placed {
            // Without a listener there is nobody to tell; who comes later sees the state.
            match place {
                Some(place) => {
                    let _ = channels.get(&*place.audience).map(|channel| channel.send(revoked));
                }
                None => channels.values().for_each(|channel| drop(channel.send(revoked.clone()))),
            }
        }
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<Revoked>>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, (Place, u64)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revocations that are announced as soon as they are in force.
pub struct Announced<R> {
    revocations: R,
    news: Arc<News>,
}

impl<R: Revocations> Announced<R> {
    /// Announces what is revoked in `revocations` from now on.
    pub fn new(revocations: R, news: Arc<News>) -> Self {
        Self { revocations, news }
    }
}

#[async_trait]
impl<R: Revocations> Revocations for Announced<R> {
    fn any_revoked(&self, what: &[Revoked]) -> bool {
        self.revocations.any_revoked(what)
    }

    fn in_force(&self, now_seconds: u64) -> Vec<Revoked> {
        self.news.places().retain(|_, (_, until)| *until >= now_seconds);
        self.revocations.in_force(now_seconds)
    }

    fn hold(&self, what: &[Revoked], until_seconds: u64) {
        let is_new = |revoked: &&Revoked| !self.revocations.any_revoked(std::slice::from_ref(revoked));
        let new = what.iter().filter(is_new).cloned().collect();
        self.revocations.hold(what, until_seconds);
        self.news.revoked(new);
    }

    async fn revoke(&self, what: Vec<Revoked>, until_seconds: u64) -> Result<(), RevocationFailed> {
        self.hold(&what, until_seconds);
        self.revocations.revoke(what, until_seconds).await
    }

    fn place(&self, tokens: Vec<(String, Place)>, until_seconds: u64) {
        let mut places = self.news.places();
        for (jti, place) in tokens {
            let known = places.entry(jti).or_insert((place, until_seconds));
            known.1 = known.1.max(until_seconds);
        }
    }

    async fn lifting(&self) -> Lifting {
        Arc::clone(&self.news.settled).write_owned().await.into()
    }

    async fn lift(&self, what: &Revoked) -> Result<(), RevocationFailed> {
        let lifted = self.revocations.lift(what).await;
        // Only a newer snapshot takes back what guards were told.
        self.news.changed();
        lifted
    }
}

/// Revocations that a stream may be behind before it is ended: its guard comes again and gets the whole state.
const MAX_BEHIND: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::revocation::RevokedSet;
    use tokio::sync::broadcast::error::TryRecvError;

    const OWN: &str = "https://own.example/mcp";
    const OTHER: &str = "https://other.example/mcp";

    fn token(jti: &str) -> Revoked {
        Revoked::Token(jti.to_owned())
    }

    fn at(jti: &str, audience: &str) -> (String, Place) {
        (jti.to_owned(), Place { audience: audience.into(), client_id: "a".into() })
    }

    fn announced() -> (Arc<News>, Announced<RevokedSet>) {
        let news = Arc::new(News::default());
        (Arc::clone(&news), Announced::new(RevokedSet::default(), news))
    }

    #[tokio::test]
    async fn a_revocation_is_told_once_and_is_in_force_before_it_is_told() {
        let (news, revocations) = announced();
        let mut listener = news.listen(OWN);
        let before = news.generation();
        revocations.hold(&[token("a")], 100);
        revocations.hold(&[token("a"), token("b")], 100);
        revocations.revoke(vec![token("b")], 100).await.unwrap();
        assert_eq!(listener.revoked.try_recv().unwrap(), token("a"));
        assert!(revocations.any_revoked(&[token("a")]));
        assert_eq!(listener.revoked.try_recv().unwrap(), token("b"));
        assert_eq!(listener.revoked.try_recv(), Err(TryRecvError::Empty));
        assert!(news.generation() > before);
        assert_eq!(revocations.in_force(101), [], "lapsed");
    }

    #[test]
    fn a_token_is_told_where_it_is_used_and_everything_else_to_everyone() {
        let (news, revocations) = announced();
        let (mut own, mut other) = (news.listen(OWN), news.listen(OTHER));
        revocations.place(vec![at("a", OWN), at("b", OTHER)], 100);
        let person = Revoked::Person("user:acme:x:alice".to_owned());
        revocations.hold(&[token("a"), token("b"), token("unknown"), person.clone()], 100);
        for (listener, jti) in [(&mut own, "a"), (&mut other, "b")] {
            for told in [token(jti), token("unknown"), person.clone()] {
                assert_eq!(listener.revoked.try_recv().unwrap(), told);
            }
            assert_eq!(listener.revoked.try_recv(), Err(TryRecvError::Empty));
        }
    }

    #[test]
    fn a_flood_for_one_server_drowns_no_other() {
        let (news, revocations) = announced();
        let (mut own, mut other) = (news.listen(OWN), news.listen(OTHER));
        let flood: Vec<String> = (0..5 * MAX_BEHIND).map(|n| n.to_string()).collect();
        revocations.place(flood.iter().map(|jti| at(jti, OTHER)).collect(), 100);
        revocations.place(vec![at("a", OWN)], 100);
        revocations.hold(&[token("a")], 100);
        revocations.hold(&flood.iter().map(|jti| token(jti)).collect::<Vec<_>>(), 100);
        assert_eq!(own.revoked.try_recv().unwrap(), token("a"));
        assert_eq!(own.revoked.try_recv(), Err(TryRecvError::Empty));
        assert!(matches!(other.revoked.try_recv(), Err(TryRecvError::Lagged(_))));
    }

    #[test]
    fn places_are_forgotten_with_what_was_revoked_there() {
        let (news, revocations) = announced();
        revocations.place(vec![at("a", OWN)], 100);
        revocations.hold(&[token("a")], 100);
        assert_eq!(news.placed(revocations.in_force(100)), [(token("a"), Some(at("a", OWN).1))]);
        assert_eq!(revocations.in_force(101), []);
        assert!(news.places().is_empty());
    }
}
