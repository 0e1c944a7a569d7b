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
    config::federation::{BundleFile, Federated},
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
    /// When, in Unix seconds.
    pub at_seconds: u64,
    /// Digest of the file that was looked at last: what stands in it is taken once.
    pub file: Option<Digest>,
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

#[derive(Debug)]
struct State {
    known: Option<Kept>,
    /// What holds is not on record yet.
    is_unsettled: bool,
    /// When its endpoint was last asked with success, in Unix seconds.
    fetched_at_seconds: Option<u64>,
    failure: Option<Failure>,
}

impl Member {
    pub(super) fn new(configured: Federated, known: Option<Kept>) -> Self {
        let state = State { known, is_unsettled: false, fetched_at_seconds: None, failure: None };
        Self { configured, state: Mutex::new(state) }
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.configured.trust_domain
    }

    pub(super) fn known(&self) -> Option<Kept> {
        lock(&self.state).known.clone()
    }

    /// Holds a bundle from now on. It is unsettled until somebody says otherwise.
    pub(super) fn hold(&self, kept: Kept) {
        let mut state = lock(&self.state);
        state.known = Some(kept);
        state.is_unsettled = true;
    }

    pub(super) fn settled(&self) {
        lock(&self.state).is_unsettled = false;
    }

    pub(super) fn is_unsettled(&self) -> bool {
        lock(&self.state).is_unsettled
    }

    /// Notes how a look at its endpoint went.
    pub(super) fn note(&self, error: Option<NotTaken>, now_seconds: u64) {
        let mut state = lock(&self.state);
        match error {
            None => {
                state.fetched_at_seconds = Some(now_seconds);
                state.failure = None;
            }
            Some(error) => {
                state.failure = Some(Failure {
                    at: moment::format_seconds(now_seconds),
                    reason: error.reason().to_owned(),
                    detail: error.to_string(),
                });
            }
        }
    }

    /// How long until its endpoint is asked again. After a failure no sooner (SPIFFE Federation §6.2), as long as there is
    /// something to go on with.
    pub(super) fn until_next(&self) -> Duration {
        let hint = self.known().map(|known| Duration::from_secs(known.bundle.refresh_hint_seconds));
        hint.map_or(SHORTEST_REFRESH, |hint| hint.clamp(SHORTEST_REFRESH, LONGEST_REFRESH))
    }

    pub(super) fn measure(&self) {
        let domain = self.trust_domain().to_string();
        let state = lock(&self.state);
        if let Some(known) = &state.known {
            let sequence = known.bundle.sequence as f64;
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
        let held = |known: &Kept| Held {
            sequence: known.bundle.sequence,
            from: known.origin.name().to_owned(),
            since: moment::format_seconds(known.at_seconds),
            x509_authorities: known.bundle.x509_authorities.len(),
            jwt_authorities: known.bundle.jwt_authorities.iter().count(),
            refresh_seconds: known.bundle.refresh_hint_seconds,
        };
        Status {
            trust_domain: self.trust_domain().to_string(),
            endpoint: endpoint.map(|endpoint| endpoint.url.to_string()),
            profile: endpoint.map(|endpoint| endpoint.profile.name().to_owned()),
            bundle: state.known.as_ref().map(held),
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
