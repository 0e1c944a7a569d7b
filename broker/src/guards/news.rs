//! What is new: heard from where it happens, told to every stream.

use async_trait::async_trait;
use deputize_issuer::revocation::{RevocationFailed, Revocations, Revoked};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{broadcast, watch};

/// Where changes are announced and heard.
#[derive(Debug)]
pub struct News {
    /// Grows with every change, so that what was built before one is known to be old.
    generation: AtomicU64,
    state: watch::Sender<u64>,
    revoked: broadcast::Sender<Revoked>,
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
            revoked: broadcast::Sender::new(MAX_BEHIND),
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

    pub(super) fn listen(&self) -> Listener {
        Listener { state: self.state.subscribe(), revoked: self.revoked.subscribe() }
    }

    fn revoked(&self, what: Vec<Revoked>) {
        if what.is_empty() {
            return;
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        for revoked in what {
            // Without a listener there is nobody to tell; who comes later sees the state.
            let _ = self.revoked.send(revoked);
        }
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

    async fn lift(&self, what: &Revoked) -> Result<(), RevocationFailed> {
        let lifted = self.revocations.lift(what).await;
        // Only a newer snapshot takes back what guards were told.
        self.news.changed();
        lifted
    }
}

/// Revocations that a stream may be behind before it is ended: its guard comes again and gets the whole state.
const MAX_BEHIND: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::revocation::RevokedSet;
    use tokio::sync::broadcast::error::TryRecvError;

    fn token(jti: &str) -> Revoked {
        Revoked::Token(jti.to_owned())
    }

    #[tokio::test]
    async fn a_revocation_is_told_once_and_is_in_force_before_it_is_told() {
        let news = Arc::new(News::default());
        let revocations = Announced::new(RevokedSet::default(), Arc::clone(&news));
        let mut listener = news.listen();
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
}
