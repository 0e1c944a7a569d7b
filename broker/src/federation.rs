//! The bundles of foreign trust domains (SPIFFE Federation): first ones from files, others from where each trust domain
//! publishes its own, asked again and again. Each is kept apart from all others, and for the next start; one that cannot
//! be taken leaves the last good one where it is.

mod member;
mod settle;
mod status;
#[cfg(test)]
mod tests;

pub use member::{Decided, Kept, OnDisk, Origin};
pub use status::{Failure, Held, Status};

use async_trait::async_trait;
use deputize_issuer::{
    authority::Authorities,
    bundle::{self, ForeignBundles},
    clock::Clock,
    record::Audit,
    svid::Bundle,
};
use spiffe::TrustDomain;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{self, OwnedMutexGuard, watch},
    task::JoinSet,
};

use crate::{
    cannot_start::CannotStart,
    config::{
        federation::{BundleFile, Endpoint, Federated, Profile, read_files},
        read::ConfigError,
    },
};
use member::{Member, NotTaken, Standing};

/// Asks a bundle endpoint.
#[async_trait]
pub trait FetchBundle: Send + Sync {
    /// The document that stands at an endpoint. For one that is authenticated by an X.509-SVID, `trusted` is the bundle
    /// of the trust domain of that SVID.
    ///
    /// # Errors
    /// [`NotFetched`].
    async fn fetch(&self, endpoint: &Endpoint, trusted: Option<Arc<Bundle>>) -> Result<Vec<u8>, NotFetched>;
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotFetched {
    /// The constant word under which it is counted.
    pub reason: &'static str,
    /// What happened.
    pub detail: String,
}

/// Bundles, kept for the next start.
pub trait KeepBundles: Send + Sync {
    /// All that are kept and can be read. What was damaged meanwhile is none.
    fn all(&self) -> Vec<OnDisk>;
    /// Keeps one that is on record, durably, instead of all that is there of its trust domain.
    ///
    /// # Errors
    /// [`NotKept`].
    fn keep(&self, kept: &Kept) -> Result<(), NotKept>;
    /// Puts beside the one of its trust domain, durably, what was decided since. Where none is kept, nothing need be
    /// narrowed after the next start, and nothing is put there.
    ///
    /// # Errors
    /// [`NotKept`].
    fn note(&self, decided: &Decided) -> Result<(), NotKept>;
    /// Forgets the one of a trust domain.
    ///
    /// # Errors
    /// [`NotKept`].
    fn forget(&self, trust_domain: &TrustDomain) -> Result<(), NotKept>;
}

/// A bundle is not on disk as it should be: after the next start an older one holds until its endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

/// What foreign bundles need of everything else.
pub struct Outside {
    /// Where they are kept.
    pub keep: Box<dyn KeepBundles>,
    /// Asks endpoints.
    pub fetch: Box<dyn FetchBundle>,
    /// Our own authorities: an endpoint may have an SVID of ours.
    pub own: Arc<Authorities>,
    /// The log.
    pub audit: Arc<dyn Audit>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// A uniformly random number: not all ask at once.
    pub jitter: fn() -> u32,
}

/// The bundles of foreign trust domains, as they are now, and where they come from.
pub struct Federation {
    bundles: Arc<ForeignBundles>,
    outside: Outside,
    members: Mutex<Vec<Arc<Member>>>,
    /// Those that hold no longer, which is to be put on record.
    forgotten: Mutex<Vec<Kept>>,
    /// Held by whoever changes a bundle: what is taken is a whole.
    turn: Arc<sync::Mutex<()>>,
    /// Turns with every reload.
    rounds: watch::Sender<u64>,
}

/// Foreign trust domains that were read again, and hold when they are taken.
#[must_use = "they do not hold before they are taken"]
pub struct RereadBundles<'f> {
    federation: &'f Federation,
    configured: Vec<(Federated, Option<BundleFile>)>,
    _turn: OwnedMutexGuard<()>,
}

impl Federation {
    /// Those that are configured, with the newest bundle that is here of each.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn open(configured: &[Federated], outside: Outside) -> Result<Self, CannotStart> {
        let configured = read(configured)?;
        let kept = outside.keep.all();
        let federation = Self {
            bundles: Arc::new(ForeignBundles::default()),
            outside,
            members: Mutex::default(),
            forgotten: Mutex::default(),
            turn: Arc::default(),
            rounds: watch::Sender::new(0),
        };
        federation.replace(configured, kept.into_iter().map(Standing::of).collect());
        Ok(federation)
    }

    /// The bundles.
    pub fn bundles(&self) -> &Arc<ForeignBundles> {
        &self.bundles
    }

    /// How each trust domain stands, in the order of the configuration.
    pub fn status(&self) -> Vec<Status> {
        self.members().iter().map(|member| member.status()).collect()
    }

    /// Reads the files again. Nothing changes before the result is taken.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub async fn reread(&self, configured: &[Federated]) -> Result<RereadBundles<'_>, CannotStart> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        Ok(RereadBundles { federation: self, configured: read(configured)?, _turn: turn })
    }

    /// Asks every endpoint, now and whenever its bundle says, until `stop` turns true. After a reload it asks all at once.
    pub async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut rounds = self.rounds.subscribe();
        self.settle().await;
        loop {
            let mut following = JoinSet::new();
            following.spawn(Arc::clone(&self).keep_settled());
            for member in self.members().iter().filter(|member| member.configured.endpoint.is_some()) {
                following.spawn(Arc::clone(&self).keep_fresh(Arc::clone(member)));
            }
            tokio::select! {
                changed = rounds.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn keep_fresh(self: Arc<Self>, member: Arc<Member>) {
        loop {
            // A task of its own: a reload does not break off what is being put on record.
            let refreshing = tokio::spawn(Arc::clone(&self).refresh(Arc::clone(&member)));
            if refreshing.await.is_err() {
                tracing::error!(trust_domain = %member.trust_domain(), "fetching a foreign bundle panicked");
            }
            let wait = member.until_next();
            // Up to a tenth sooner.
            let sooner = wait.mul_f64(0.1 * f64::from((self.outside.jitter)()) / f64::from(u32::MAX));
            tokio::time::sleep(wait.saturating_sub(sooner)).await;
        }
    }

    /// Asks one endpoint once. On any failure what was known stays.
    async fn refresh(self: Arc<Self>, member: Arc<Member>) {
        let Some(endpoint) = &member.configured.endpoint else { return };
        let outcome = match self.outside.fetch.fetch(endpoint, self.trusted(endpoint)).await {
            Ok(document) => self.take(&member, document).await,
            Err(error) => Err(NotTaken::Fetch(error)),
        };
        let word = outcome.as_ref().map_or_else(NotTaken::reason, |()| "ok");
        let domain = member.trust_domain();
        metrics::counter!("deputize_federation_fetches_total", "trust_domain" => domain.to_string(), "outcome" => word)
            .increment(1);
        match &outcome {
            Ok(()) => {}
            Err(error) if member.held().is_some() => {
                tracing::warn!(trust_domain = %domain, %error, "foreign bundle not refreshed, the last good one stays");
            }
            Err(error) => {
                tracing::warn!(trust_domain = %domain, %error, "foreign bundle not available, its SVIDs are not verified");
            }
        }
        member.note(outcome.err(), self.outside.clock.now_seconds());
        member.measure();
    }

    /// The bundle that authenticates an endpoint: the latest of the trust domain of its SVID (SPIFFE Federation
    /// §5.2.2.4).
    fn trusted(&self, endpoint: &Endpoint) -> Option<Arc<Bundle>> {
        let Profile::HttpsSpiffe { endpoint_spiffe_id } = &endpoint.profile else { return None };
        let (whose, own) = (endpoint_spiffe_id.trust_domain(), self.outside.own.ring());
        if *whose == own.bundle.trust_domain {
            return Some(Arc::clone(&own.bundle));
        }
        self.bundles.now().iter().find(|bundle| bundle.trust_domain == *whose).cloned()
    }

    /// Takes what an endpoint said, if it follows what is known.
    async fn take(&self, member: &Arc<Member>, document: Vec<u8>) -> Result<(), NotTaken> {
        let bundle = bundle::from_document(member.trust_domain().clone(), &document)?;
        let _turn = self.turn.lock().await;
        // Configured otherwise, or no longer, since it was asked.
        if !self.members().iter().any(|current| Arc::ptr_eq(current, member)) {
            return Err(NotTaken::Superseded);
        }
        let known = member.known();
        let endpoint = member.endpoint();
        if let Some(known) = &known {
            if member.is_ordered_by(known) && bundle.sequence < known.bundle.sequence {
                return Err(NotTaken::Older);
            }
            let is_from_there = known.origin == Origin::File || known.endpoint == endpoint;
            if is_from_there && member::is_same(&known.bundle, &bundle) {
                return self.settle_one(member).await;
            }
        }
        let taken = Kept {
            bundle: Arc::new(bundle),
            document,
            origin: Origin::Endpoint,
            endpoint,
            at_seconds: self.outside.clock.now_seconds(),
            file: known.and_then(|known| known.file),
        };
        if member.decide(taken) {
            self.publish();
        }
        self.settle_one(member).await
    }

    /// Tells everybody who waits.
    fn publish(&self) {
        self.bundles.replace(self.members().iter().filter_map(|member| member.held()).collect());
    }

    /// From now on these are the foreign trust domains. Of each it is known what was known before, or what its file says
    /// where that is new here.
    fn replace(&self, configured: Vec<(Federated, Option<BundleFile>)>, before: Vec<Standing>) {
        let domain = |standing: &Standing| standing.known().map(|kept| kept.bundle.trust_domain.clone());
        let mut before: HashMap<TrustDomain, Standing> =
            before.into_iter().filter_map(|standing| Some((domain(&standing)?, standing))).collect();
        let mut members = Vec::new();
        for (federated, file) in configured {
            let stood = before.remove(&federated.trust_domain).unwrap_or_default();
            let now_seconds = self.outside.clock.now_seconds();
            let chosen = member::choose(&federated, file, stood.known().cloned(), now_seconds);
            members.push(Arc::new(Member::new(federated, stood, chosen)));
        }
        for member in &members {
            member.measure();
        }
        *lock(&self.members) = members;
        // SPIFFE Federation §6.3: with the relationship its bundle goes.
        lock(&self.forgotten).extend(before.into_values().filter_map(|stood| stood.known().cloned()));
        self.publish();
    }

    fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.members).clone()
    }
}

impl RereadBundles<'_> {
    /// They hold from now on, and their endpoints are asked at once: what trusts less at once, what trusts more as soon as
    /// it is on record, which is when this returns, or later where there can be no record now.
    pub async fn take(self) {
        let before = self.federation.members().iter().map(|member| member.standing()).collect();
        self.federation.replace(self.configured, before);
        self.federation.settle_in_turn().await;
        self.federation.rounds.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl std::fmt::Debug for Federation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Federation").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn read(configured: &[Federated]) -> Result<Vec<(Federated, Option<BundleFile>)>, CannotStart> {
    let texts = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let files = read_files(configured).map_err(|errors| CannotStart(texts(errors).join("\n")))?;
    Ok(configured.iter().cloned().zip(files).collect())
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two looks at an endpoint, whatever its bundle says.
const SHORTEST_REFRESH: Duration = Duration::from_secs(60);
const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 3600);
