//! The web-identity keys of a data folder, as commands show them.

use deputize_call::keys::KeySet;
use serde::Serialize;
use std::path::Path;

use super::{CommandError, unusable};
use crate::{
    backends::web_identity_keys::{ANNOUNCED_SECONDS, RETIRED_SECONDS, State, StoredKey, WebIdentityKeys},
    commands::moment,
};

/// All of them, and the set that AWS is to read.
pub(super) struct WebIdentitySet {
    pub(super) keys: Vec<Shown>,
    pub(super) published: KeySet,
}

/// One key.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Shown {
    pub(super) kid: String,
    pub(super) alg: &'static str,
    pub(super) state: &'static str,
    /// When it begins to sign, where that is to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signs_from: Option<String>,
    /// Until when it has to stay in the set, where it signs no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) published_until: Option<String>,
    /// When the set that has it has to be out, in seconds since the Unix epoch.
    #[serde(skip)]
    pub(super) publish_before_seconds: Option<u64>,
}

impl WebIdentitySet {
    /// What the data folder holds at this moment.
    pub(super) fn read(data_dir: &Path, now_seconds: u64) -> Result<Self, CommandError> {
        let stored = WebIdentityKeys::existing(data_dir).read().map_err(unusable)?;
        let published = stored.iter().filter(|key| key.state(&stored, now_seconds).is_published());
        let published = KeySet::new(published.map(|key| key.public().clone()).collect());
        let keys = stored.iter().map(|key| Shown::of(key, key.state(&stored, now_seconds))).collect();
        Ok(Self { keys, published })
    }

    /// The key of this id.
    pub(super) fn find(&self, kid: &str) -> Option<&Shown> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}

impl Shown {
    fn of(key: &StoredKey, state: State) -> Self {
        let (name, signs_from, published_until) = match state {
            State::Announced => ("announced", Some(key.signs_from_seconds), None),
            State::Signing => ("signing", None, None),
            State::Retired { since_seconds } => {
                ("retired", None, Some(since_seconds.saturating_add(RETIRED_SECONDS)))
            }
            State::Withdrawn { .. } => ("withdrawn", None, None),
        };
        Self {
            kid: key.public().kid().unwrap_or_default().to_owned(),
            alg: key.algorithm.as_str(),
            state: name,
            signs_from: signs_from.map(moment::format_seconds),
            published_until: published_until.map(moment::format_seconds),
            publish_before_seconds: signs_from.map(|from| from.saturating_sub(ANNOUNCED_SECONDS)),
        }
    }

    /// Its state, in words.
    pub(super) fn says(&self) -> String {
        match (&self.signs_from, &self.published_until) {
            (Some(from), _) => format!("{}, signs from {from}", self.state),
            (None, Some(until)) => format!("{}, published until {until}", self.state),
            (None, None) if self.state == "signing" => "signing, published".to_owned(),
            (None, None) => self.state.to_owned(),
        }
    }
}
