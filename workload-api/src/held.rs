//! The X.509-SVIDs that are in use: each is made once, given to all who are entitled to it, and renewed in time.

use bytes::Bytes;
use deputize_issuer::{clock::Clock, entry::Entry, svid::X509Svid, workload::Workload};
use spiffe::SpiffeId;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::source::{SourceError, SvidSource};

/// What is held. Whoever reconnects gets the same key and certificate again.
pub(crate) struct Held {
    source: Arc<dyn SvidSource>,
    clock: Arc<dyn Clock>,
    shelf: Mutex<Shelf>,
    /// So many are made at once.
    makers: Semaphore,
}

#[derive(Default)]
struct Shelf {
    slots: HashMap<Key, Arc<Slot>>,
    swept_at_seconds: u64,
}

/// An entry with a template stands for many SPIFFE IDs.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    entry: Box<str>,
    spiffe_id: SpiffeId,
    node: SpiffeId,
}

#[derive(Default)]
struct Slot {
    /// INVARIANT: only who holds this asks for a new one: however many wait, one is made.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<HeldSvid>>,
    used_at_seconds: u64,
    /// When the last attempt failed: why, and when the next may be made.
    failed: Option<(SourceError, u64)>,
}

/// One X.509-SVID, as messages carry it.
pub(crate) struct HeldSvid {
    /// Certificates, concatenated DER, leaf first.
    pub(crate) chain: Bytes,
    /// PKCS#8 DER; wiped when the last who shares it is gone.
    pub(crate) private_key: Bytes,
    /// When a new one is due, in Unix seconds.
    pub(crate) renew_at_seconds: u64,
    /// When it ends, in Unix seconds.
    pub(crate) not_after_seconds: u64,
    authorities: Vec<[u8; 32]>,
    terms: Terms,
}

/// What of an entry is in the certificate: where it changes, so does the certificate.
#[derive(PartialEq, Eq)]
struct Terms {
    ttl_seconds: Option<u64>,
    dns_names: Vec<String>,
}

impl Held {
    pub(crate) fn new(source: Arc<dyn SvidSource>, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, shelf: Mutex::default(), makers: Semaphore::new(MAKERS) }
    }

    /// The one that is held, if no new one is due.
    pub(crate) fn peek(&self, workload: &Workload, entry: &Entry) -> Option<Arc<HeldSvid>> {
        let slot = self.lock().slots.get(&Key::of(workload, entry)).cloned()?;
        self.fresh(&slot, entry)
    }

    /// The one that is held; a new one where that is due. While none can be made, the old one serves as long as it is
    /// good.
    ///
    /// # Errors
    /// As the source says.
    pub(crate) async fn x509_svid(
        self: &Arc<Self>,
        workload: &Workload,
        entry: &Entry,
    ) -> Result<Arc<HeldSvid>, SourceError> {
        let slot = self.slot(workload, entry)?;
        if let Some(fresh) = self.fresh(&slot, entry) {
            return Ok(fresh);
        }
        let turn = Arc::clone(&slot.turn).lock_owned().await;
        if let Some(fresh) = self.fresh(&slot, entry) {
            return Ok(fresh);
        }
        // What was begun has its record: it is ended though nobody waits any longer, and the next one finds it. There
        // is one such task of each slot at most, for it holds the turn.
        let (held, workload, entry) = (Arc::clone(self), workload.clone(), entry.clone());
        let making = tokio::spawn(async move {
            let _turn = turn;
            held.renew(&slot, &workload, &entry).await
        });
        making.await.unwrap_or(Err(SourceError::Unavailable("stopping")))
    }

    async fn renew(
        &self,
        slot: &Slot,
        workload: &Workload,
        entry: &Entry,
    ) -> Result<Arc<HeldSvid>, SourceError> {
        let failed = slot.lock().failed.clone();
        let made = match failed {
            Some((error, until_seconds)) if self.clock.now_seconds() < until_seconds => Err(error),
            _ => self.make(workload, entry).await,
        };
        let mut state = slot.lock();
        match made {
            Ok(svid) => {
                state.failed = None;
                Ok(Arc::clone(state.current.insert(Arc::new(svid))))
            }
            Err(error) => {
                let now = self.clock.now_seconds();
                let is_recent = state.failed.as_ref().is_some_and(|(_, until)| now < *until);
                // Who is not entitled now may be the next moment.
                if matches!(error, SourceError::Unavailable(_)) && !is_recent {
                    state.failed = Some((error.clone(), now + RETRY_SECONDS));
                }
                let serves =
                    |svid: &Arc<HeldSvid>| now < svid.not_after_seconds && self.is_sound(svid, entry);
                match (&error, state.current.clone().filter(serves)) {
                    (SourceError::Unavailable(_), Some(old)) => Ok(old),
                    _ => Err(error),
                }
            }
        }
    }

    async fn make(&self, workload: &Workload, entry: &Entry) -> Result<HeldSvid, SourceError> {
        let _maker = self.makers.acquire().await.map_err(|_| SourceError::Unavailable("stopping"))?;
        let svid = self.source.x509_svid(workload, entry).await?;
        HeldSvid::of(svid, entry, self.clock.now_seconds())
    }

    fn fresh(&self, slot: &Slot, entry: &Entry) -> Option<Arc<HeldSvid>> {
        let now = self.clock.now_seconds();
        let mut state = slot.lock();
        state.used_at_seconds = now;
        let current = state.current.clone()?;
        (now < current.renew_at_seconds && self.is_sound(&current, entry)).then_some(current)
    }

    /// Whether it still says what the entry does, under authorities that hold.
    fn is_sound(&self, svid: &HeldSvid, entry: &Entry) -> bool {
        svid.terms == Terms::of(entry) && self.source.stands_by(&svid.authorities)
    }

    fn slot(&self, workload: &Workload, entry: &Entry) -> Result<Arc<Slot>, SourceError> {
        let (key, now) = (Key::of(workload, entry), self.clock.now_seconds());
        let mut shelf = self.lock();
        if let Some(slot) = shelf.slots.get(&key) {
            return Ok(Arc::clone(slot));
        }
        shelf.sweep(now);
        if shelf.slots.len() >= MAX_HELD {
            return Err(SourceError::Unavailable("too many identities are in use"));
        }
        let slot = Arc::new(Slot::default());
        slot.lock().used_at_seconds = now;
        shelf.slots.insert(key, Arc::clone(&slot));
        Ok(slot)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Forgets what nobody has used for long.
    fn sweep(&mut self, now_seconds: u64) {
        if self.slots.len() < MAX_HELD && now_seconds < self.swept_at_seconds + SWEEP_SECONDS {
            return;
        }
        self.swept_at_seconds = now_seconds;
        self.slots.retain(|_, slot| {
            let in_hand = Arc::strong_count(slot) > 1;
            in_hand || now_seconds < slot.lock().used_at_seconds + FORGET_SECONDS
        });
    }
}

impl Key {
    fn of(workload: &Workload, entry: &Entry) -> Self {
        Self { entry: entry.id.clone(), spiffe_id: entry.spiffe_id.clone(), node: workload.node().clone() }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldSvid {
    fn of(svid: X509Svid, entry: &Entry, now_seconds: u64) -> Result<Self, SourceError> {
        let key = svid.private_key.ok_or(SourceError::Unavailable("the SVID came without its key"))?;
        // RFC 5280 §4.1 certificates delimit themselves: SPIFFE Workload API §5.1 wants them one after another.
        let chain = Bytes::from(svid.chain.concat());
        let left_seconds = svid.not_after_seconds.saturating_sub(now_seconds);
        Ok(Self {
            renew_at_seconds: now_seconds + half(left_seconds, &chain),
            chain,
            private_key: Bytes::from_owner(Zeroizing::new(key.expose().clone())),
            not_after_seconds: svid.not_after_seconds,
            authorities: svid.authorities,
            terms: Terms::of(entry),
        })
    }
}

impl Terms {
    fn of(entry: &Entry) -> Self {
        Self { ttl_seconds: entry.x509_svid_ttl_seconds, dns_names: entry.dns_names.clone() }
    }
}

/// Half of a lifetime, a tenth of it more or less: what was made together is not renewed together.
fn half(left_seconds: u64, chain: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    chain.hash(&mut hasher);
    let tenth = left_seconds / 20;
    let jitter = hasher.finish() % (2 * tenth + 1);
    (left_seconds / 2 - tenth + jitter).max(1)
}

const MAX_HELD: usize = 16_384;
const MAKERS: usize = 16;
const RETRY_SECONDS: u64 = 5;
const SWEEP_SECONDS: u64 = 60;
/// Longer than an open stream goes without looking.
const FORGET_SECONDS: u64 = 900;

#[cfg(test)]
mod tests;
