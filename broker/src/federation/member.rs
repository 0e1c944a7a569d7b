//! One foreign trust domain: what is known of it, and how that came.

use deputize_call::digest::Digest;
use deputize_issuer::{authority::AuthorityError, bundle, svid::Bundle};
use spiffe::TrustDomain;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    LONGEST_REFRESH, NotFetched, SHORTEST_REFRESH, lock,
    status::{Failure, Held, Status},
};
use crate::{
    config::federation::{BundleFile, Endpoint, Federated},
    moment,
};

/// A bundle, as it is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// What it says.
    pub bundle: Arc<Bundle>,
    /// The document that says so.
    pub document: Vec<u8>,
    /// Where that came from.
    pub origin: Origin,
    /// Which endpoint, where it was one ([`Endpoint::identity`](crate::config::federation::Endpoint::identity)): only
    /// what the same one says is ordered by its number.
    pub endpoint: Option<String>,
    /// When, in Unix seconds.
    pub at_seconds: u64,
    /// Digest of the file that was looked at last: what stands in it is taken once.
    pub file: Option<Digest>,
}

/// What was decided of a trust domain and is not known to be on record.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The bundle that is its one from then on.
    pub kept: Kept,
    /// What is trusted until that is on record; nothing where nothing is.
    pub held: Option<Arc<Bundle>>,
}

/// What is on disk of a trust domain.
#[derive(Debug, Clone)]
pub struct OnDisk {
    /// Its bundle, which is on record.
    pub settled: Kept,
    /// What was decided since.
    pub decided: Option<Decided>,
}

/// Where a bundle came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file of the configuration.
    File,
    /// Its endpoint.
    Endpoint,
}

/// Why what an endpoint says is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTaken {
    /// It said nothing that could be believed.
    #[error("{0}")]
    Fetch(NotFetched),
    /// It is no bundle of this trust domain.
    #[error("{0}")]
    Document(#[from] AuthorityError),
    /// It goes back (SPIFFE Federation §4.2).
    #[error("its sequence number is lower than that of the bundle that is known")]
    Older,
    /// There is no record of it, so it does not hold.
    #[error("the change could not be recorded")]
    Unrecorded,
    /// The configuration changed meanwhile.
    #[error("the configuration changed meanwhile")]
    Superseded,
}

/// A foreign trust domain of the configuration.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) configured: Federated,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    standing: Standing,
    /// When its endpoint was last asked with success, in Unix seconds.
    fetched_at_seconds: Option<u64>,
    failure: Option<Failure>,
    /// How often in a row its endpoint gave nothing that could be taken.
    failures: u32,
}

/// What is decided of a trust domain, and what holds of that.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// The bundle that was taken last: the next one follows it.
    known: Option<Kept>,
    /// What is trusted: that bundle; while it is not on record, no more of it than was trusted before.
    held: Option<Arc<Bundle>>,
    /// What is known is not on record yet.
    is_unsettled: bool,
    /// That is on disk.
    is_noted: bool,
}

impl Standing {
    /// As it stood when it was put on disk.
    pub(super) fn of(on_disk: OnDisk) -> Self {
        let OnDisk { settled, decided } = on_disk;
        let Some(Decided { kept, held }) = decided else {
            let held = Some(Arc::clone(&settled.bundle));
            return Self { held, known: Some(settled), is_unsettled: false, is_noted: false };
        };
        // INVARIANT: whatever stands there, no more than is on record, and no more than was decided.
        let held = held
            .and_then(|held| bundle::intersection(&held, &settled.bundle))
            .and_then(|held| bundle::intersection(&held, &kept.bundle));
        Self { held: held.map(Arc::new), known: Some(kept), is_unsettled: true, is_noted: true }
    }

    pub(super) fn known(&self) -> Option<&Kept> {
        self.known.as_ref()
    }

    /// Decides that this is its bundle from now on.
    ///
    /// INVARIANT: what trusts less holds at once; what trusts more holds when it is on record, and until then as much of it
    /// as was trusted already.
    fn decide(&mut self, kept: Kept) {
        self.held = self.held.take().and_then(|held| {
            if !bundle::widens(&kept.bundle, &held) {
                return Some(Arc::clone(&kept.bundle));
            }
            let common = bundle::intersection(&held, &kept.bundle)?;
            // Nothing was taken away: who holds it already sees no change.
            Some(if bundle::has_same_authorities(&common, &held) { held } else { Arc::new(common) })
        });
        self.known = Some(kept);
        (self.is_unsettled, self.is_noted) = (true, false);
    }
}

impl Member {
    /// One that stands as it stood before; and if another bundle is chosen for it, that is decided.
    pub(super) fn new(configured: Federated, before: Standing, chosen: Option<Kept>) -> Self {
        let mut standing = before;
        let is_changed = |kept: &Kept| {
            standing
                .known
                .as_ref()
                .is_none_or(|known| known.file != kept.file || !is_same(&known.bundle, &kept.bundle))
        };
        if let Some(kept) = chosen.filter(is_changed) {
            standing.decide(kept);
        }
        Self { configured, state: Mutex::new(State { standing, ..State::default() }) }
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.configured.trust_domain
    }

    pub(super) fn standing(&self) -> Standing {
        lock(&self.state).standing.clone()
    }

    pub(super) fn known(&self) -> Option<Kept> {
        lock(&self.state).standing.known.clone()
    }

    /// What is trusted.
    pub(super) fn held(&self) -> Option<Arc<Bundle>> {
        lock(&self.state).standing.held.clone()
    }

    /// Decides that this is its bundle from now on; and says whether something else is trusted therefore.
    pub(super) fn decide(&self, kept: Kept) -> bool {
        let mut state = lock(&self.state);
        let before = state.standing.held.clone();
        state.standing.decide(kept);
        match (before, &state.standing.held) {
            (Some(before), Some(now)) => !Arc::ptr_eq(&before, now),
            (before, now) => before.is_some() != now.is_some(),
        }
    }

    /// What is decided and not on record yet.
    pub(super) fn unsettled(&self) -> Option<Kept> {
        let state = lock(&self.state);
        state.standing.known.clone().filter(|_| state.standing.is_unsettled)
    }

    /// What is decided, and neither on record nor on disk.
    pub(super) fn unnoted(&self) -> Option<Decided> {
        let Standing { known, held, is_unsettled, is_noted } = self.standing();
        let kept = known.filter(|_| is_unsettled && !is_noted)?;
        Some(Decided { kept, held })
    }

    /// What is decided is on disk.
    pub(super) fn noted(&self) {
        lock(&self.state).standing.is_noted = true;
    }

    /// What is decided is on record: it is trusted as a whole.
    pub(super) fn settled(&self) {
        let mut state = lock(&self.state);
        state.standing.held = state.standing.known.as_ref().map(|known| Arc::clone(&known.bundle));
        state.standing.is_unsettled = false;
        if state.failure.as_ref().is_some_and(|failure| failure.reason == NotTaken::Unrecorded.reason()) {
            state.failure = None;
        }
    }

    /// Whether the number of what is known orders what the endpoint says: that of a file does, for whoever configures it
    /// knows better, and that of this very endpoint. Of another endpoint's numbers this one knows nothing. What was kept
    /// before endpoints were told apart is that of this one, as far as anybody knows.
    pub(super) fn is_ordered_by(&self, known: &Kept) -> bool {
        known.origin == Origin::File || known.endpoint.is_none() || known.endpoint == self.endpoint()
    }

    /// Which endpoint it has.
    pub(super) fn endpoint(&self) -> Option<String> {
        self.configured.endpoint.as_ref().map(Endpoint::identity)
    }

    /// Notes how a look at its endpoint went.
    pub(super) fn note(&self, error: Option<NotTaken>, now_seconds: u64) {
        let mut state = lock(&self.state);
        match error {
            None => {
                state.fetched_at_seconds = Some(now_seconds);
                state.failure = None;
                state.failures = 0;
            }
            Some(error) => {
                if error.is_theirs() {
                    state.failures = state.failures.saturating_add(1);
                }
                state.failure = Some(Failure {
                    at: moment::format_seconds(now_seconds),
                    reason: error.reason().to_owned(),
                    detail: error.to_string(),
                });
            }
        }
    }

    /// How long until its endpoint is asked again. After a failure no sooner (SPIFFE Federation §6.2), and ever later after
    /// more of them, up to a bound.
    pub(super) fn until_next(&self) -> Duration {
        let state = lock(&self.state);
        let hint = state.standing.known.as_ref().map(|known| known.bundle.refresh_hint_seconds);
        let regular = hint.map_or(SHORTEST_REFRESH, |hint| {
            Duration::from_secs(hint).clamp(SHORTEST_REFRESH, LONGEST_REFRESH)
        });
        let doublings = state.failures.saturating_sub(1).min(MOST_DOUBLINGS);
        regular.saturating_mul(1 << doublings).min(LONGEST_BACKOFF.max(regular))
    }

    pub(super) fn measure(&self) {
        let domain = self.trust_domain().to_string();
        let state = lock(&self.state);
        if let Some(held) = &state.standing.held {
            let sequence = held.sequence as f64;
            metrics::gauge!("deputize_federation_sequence", "trust_domain" => domain.clone()).set(sequence);
        }
        if let Some(at) = state.fetched_at_seconds {
            metrics::gauge!("deputize_federation_fetched_at_seconds", "trust_domain" => domain)
                .set(at as f64);
        }
    }

    pub(super) fn status(&self) -> Status {
        let state = lock(&self.state);
        let endpoint = self.configured.endpoint.as_ref();
        let held = |(known, bundle): (&Kept, &Arc<Bundle>)| Held {
            sequence: bundle.sequence,
            from: known.origin.name().to_owned(),
            since: moment::format_seconds(known.at_seconds),
            x509_authorities: bundle.x509_authorities.len(),
            jwt_authorities: bundle.jwt_authorities.iter().count(),
            refresh_seconds: bundle.refresh_hint_seconds,
        };
        Status {
            trust_domain: self.trust_domain().to_string(),
            endpoint: endpoint.map(|endpoint| endpoint.url.to_string()),
            profile: endpoint.map(|endpoint| endpoint.profile.name().to_owned()),
            bundle: state.standing.known.as_ref().zip(state.standing.held.as_ref()).map(held),
            fetched_at: state.fetched_at_seconds.map(moment::format_seconds),
            failure: state.failure.clone(),
        }
    }
}

impl Origin {
    /// Its name, in records and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Endpoint => "endpoint",
        }
    }
}

impl NotTaken {
    /// Whether it is the endpoint's doing: what is ours is no reason to leave it alone.
    fn is_theirs(&self) -> bool {
        match self {
            Self::Fetch(_) | Self::Document(_) | Self::Older => true,
            Self::Unrecorded | Self::Superseded => false,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason,
            Self::Document(_) => "document",
            Self::Older => "sequence",
            Self::Unrecorded => "unrecorded",
            Self::Superseded => "superseded",
        }
    }
}

/// What is known of a trust domain: what its file says, where that is all there is, or new here; for whoever configures a
/// bundle knows better than what was known before (SPIFFE Federation §4.2). Otherwise what was known.
pub(super) fn choose(
    configured: &Federated,
    file: Option<BundleFile>,
    before: Option<Kept>,
    now_seconds: u64,
) -> Option<Kept> {
    let Some(file) = file else { return before };
    match before {
        // What stands in the file was taken already, and the endpoint went on from there.
        Some(before) if before.file == Some(file.digest) && configured.endpoint.is_some() => Some(before),
        Some(before) if before.document == file.document => Some(Kept { file: Some(file.digest), ..before }),
        _ => Some(Kept {
            bundle: file.bundle,
            document: file.document,
            origin: Origin::File,
            endpoint: None,
            at_seconds: now_seconds,
            file: Some(file.digest),
        }),
    }
}

/// Whether a bundle says nothing that the other does not.
pub(super) fn is_same(one: &Bundle, other: &Bundle) -> bool {
    one.sequence == other.sequence
        && one.refresh_hint_seconds == other.refresh_hint_seconds
        && bundle::has_same_authorities(one, other)
}

/// Doubled so often a wait is beyond its bound in any case.
const MOST_DOUBLINGS: u32 = 10;
/// Between two looks at an endpoint that fails, where its bundle does not ask for longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);
