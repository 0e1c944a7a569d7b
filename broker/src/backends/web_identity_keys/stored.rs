//! A key as its file holds it, and where it stands in its life.

use deputize_call::{
    json::{self, Object},
    keys::{Algorithm, PublicKey},
    sign::{SigningAlgorithm, SigningKey},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{ALGORITHMS, RETIRED_SECONDS};

/// A key that was read.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// When it begins to sign, in seconds since the Unix epoch; 0 for the first.
    pub signs_from_seconds: u64,
    pub(super) half: Half,
}

/// Where a key stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Published, to sign later.
    Announced,
    /// Published, and the one that signs.
    Signing,
    /// Published for those who still check what it signed.
    Retired {
        /// Since when it signs no more, in seconds since the Unix epoch.
        since_seconds: u64,
    },
    /// Published no more.
    Withdrawn {
        /// Since when it signs no more, in seconds since the Unix epoch.
        since_seconds: u64,
    },
}

/// What is left of a key.
#[derive(Debug, Clone)]
pub(super) enum Half {
    Private(Arc<SigningKey>),
    Public { key: PublicKey, retired_at_seconds: u64 },
}

/// What a key's file is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) algorithm: SigningAlgorithm,
    pub(super) signs_from_seconds: u64,
    pub(super) is_retired: bool,
}

/// The file of a public half.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retired {
    /// Seconds since the Unix epoch.
    pub(super) retired_at: u64,
    pub(super) jwk: Object,
}

impl StoredKey {
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        match &self.half {
            Half::Private(key) => key.public(),
            Half::Public { key, .. } => key,
        }
    }

    /// Where it stands among all of its folder.
    pub fn state(&self, all: &[Self], now_seconds: u64) -> State {
        let since_seconds = match &self.half {
            Half::Public { retired_at_seconds, .. } => *retired_at_seconds,
            Half::Private(_) => {
                if signing(all, self.algorithm, now_seconds)
                    .is_some_and(|key| key.signs_from_seconds == self.signs_from_seconds)
                {
                    return State::Signing;
                }
                if self.signs_from_seconds > now_seconds {
                    return State::Announced;
                }
                // The first to begin after this one replaced it.
                let later = privates(all, self.algorithm).map(|(key, _)| key.signs_from_seconds);
                later.filter(|&from| from > self.signs_from_seconds).min().unwrap_or(now_seconds)
            }
        };
        if now_seconds < since_seconds.saturating_add(RETIRED_SECONDS) {
            State::Retired { since_seconds }
        } else {
            State::Withdrawn { since_seconds }
        }
    }

    pub(super) fn is_of(&self, file: &KeyFile) -> bool {
        self.algorithm == file.algorithm && self.signs_from_seconds == file.signs_from_seconds
    }

    pub(super) fn file_name(&self, is_retired: bool) -> String {
        let (algorithm, signs_from_seconds) = (self.algorithm, self.signs_from_seconds);
        KeyFile { algorithm, signs_from_seconds, is_retired }.name()
    }
}

impl State {
    /// Whether the key is in the set that AWS reads.
    pub fn is_published(self) -> bool {
        !matches!(self, Self::Withdrawn { .. })
    }
}

/// The key that signs with this algorithm: the last to have begun. Where the clock says that none has, the first.
pub(super) fn signing(
    all: &[StoredKey],
    algorithm: SigningAlgorithm,
    now_seconds: u64,
) -> Option<&StoredKey> {
    let begun = privates(all, algorithm).filter(|(key, _)| key.signs_from_seconds <= now_seconds);
    let first = || privates(all, algorithm).min_by_key(|(key, _)| key.signs_from_seconds);
    begun.max_by_key(|(key, _)| key.signs_from_seconds).or_else(first).map(|(key, _)| key)
}

fn privates(
    all: &[StoredKey],
    algorithm: SigningAlgorithm,
) -> impl Iterator<Item = (&StoredKey, &Arc<SigningKey>)> {
    all.iter().filter(move |key| key.algorithm == algorithm).filter_map(|key| match &key.half {
        Half::Private(private) => Some((key, private)),
        Half::Public { .. } => None,
    })
}

impl Half {
    pub(super) fn from_pkcs8(bytes: &[u8]) -> Result<Self, String> {
        let key = SigningKey::from_pkcs8(bytes, None).map_err(|error| error.to_string())?;
        Ok(Self::Private(Arc::new(key)))
    }

    pub(super) fn from_retired(bytes: &[u8]) -> Result<Self, String> {
        let object = json::parse_object(bytes).map_err(|error| error.to_string())?;
        let retired = serde_json::from_value::<Retired>(object.into()).map_err(|error| error.to_string())?;
        let key = PublicKey::from_jwk(&retired.jwk).map_err(|error| error.to_string())?;
        Ok(Self::Public { key, retired_at_seconds: retired.retired_at })
    }

    pub(super) fn is_of(&self, algorithm: SigningAlgorithm) -> bool {
        match self {
            Self::Private(key) => key.algorithm() == algorithm,
            Self::Public { key, .. } => {
                Algorithm::from_name(algorithm.as_str()).is_some_and(|alg| key.fits(alg))
            }
        }
    }
}

impl KeyFile {
    pub(super) fn name(&self) -> String {
        let kind = if self.is_retired { "retired.json" } else { "p8" };
        format!("{}-{}.{kind}", self.algorithm.as_str().to_ascii_lowercase(), self.signs_from_seconds)
    }

    /// The key that a file's name means; nothing for drafts and whatever else lies there.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let (stem, kind) = name.split_once('.')?;
        let (algorithm, from) = stem.split_once('-')?;
        let is_retired = match kind {
            "p8" => false,
            "retired.json" => true,
            _ => return None,
        };
        let named = |known: &SigningAlgorithm| known.as_str().to_ascii_lowercase() == algorithm;
        let algorithm = ALGORITHMS.into_iter().find(named)?;
        let file = Self { algorithm, signs_from_seconds: from.parse().ok()?, is_retired };
        // One key has one name: `+5` and `05` are none.
        (file.name() == name).then_some(file)
    }
}
