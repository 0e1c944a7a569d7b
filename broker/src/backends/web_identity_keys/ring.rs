//! What a running broker signs with and publishes, as time goes by.

use deputize_call::sign::SigningAlgorithm;
use deputize_issuer::keys::{KeySource, Ring};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    super::key_files::{KeyFileError, problem},
    StoredKey, WebIdentityKeys,
    stored::{Half, KeyFile, signing},
};

/// The ring of a running broker. It turns by itself: with time, and with what `deputize keys rotate` puts there.
#[derive(Debug)]
pub struct WebIdentityRing {
    files: WebIdentityKeys,
    source: Arc<KeySource>,
    seen: Mutex<Seen>,
}

/// What was seen in the folder last.
#[derive(Debug)]
struct Seen {
    algorithm: SigningAlgorithm,
    names: Vec<KeyFile>,
    stored: Vec<StoredKey>,
}

impl WebIdentityRing {
    /// The ring of this data folder, whose first keys are made if there are none. Tokens are signed with `algorithm`.
    ///
    /// # Errors
    /// If keys cannot be read or made.
    pub fn open(
        data_dir: &Path,
        algorithm: SigningAlgorithm,
        now_seconds: u64,
    ) -> Result<Self, KeyFileError> {
        let files = WebIdentityKeys::open(data_dir, now_seconds)?;
        let (names, stored) = (files.files()?, files.read()?);
        let ring = ring(&files, &stored, algorithm, now_seconds)?;
        let source = Arc::new(KeySource::of(ring));
        Ok(Self { files, source, seen: Mutex::new(Seen { algorithm, names, stored }) })
    }

    /// Where the mint gets its key and AWS gets the set.
    pub fn source(&self) -> Arc<KeySource> {
        Arc::clone(&self.source)
    }

    /// Signs with this algorithm from the next turn on: both are published, so that none has to be announced.
    pub fn sign_with(&self, algorithm: SigningAlgorithm) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).algorithm = algorithm;
    }

    /// Takes what is due at this moment, and what came into the folder. Cheap where nothing changed: asked once a second.
    ///
    /// # Errors
    /// If keys cannot be read or written; the ring stays as it was.
    pub fn turn(&self, now_seconds: u64) -> Result<(), KeyFileError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.files.files()?;
        if names != seen.names {
            seen.stored = self.files.read()?;
            seen.names = names;
        }
        let next = ring(&self.files, &seen.stored, seen.algorithm, now_seconds)?;
        let kids = |ring: &Ring| {
            let published: Vec<_> =
                ring.published.iter().filter_map(|key| key.kid()).map(str::to_owned).collect();
            (ring.signing_kid().to_owned(), published)
        };
        if kids(&next) != kids(&self.source.ring()) {
            tracing::info!(
                signing = next.signing_kid(),
                published = next.published.iter().count(),
                "web-identity keys turned"
            );
            self.source.turn_to(next);
        }
        // Only once nobody is given the replaced keys any more.
        self.files.tidy(&seen.stored, now_seconds)
    }
}

/// The ring of a moment: the key that signs, and all that are published.
fn ring(
    files: &WebIdentityKeys,
    stored: &[StoredKey],
    algorithm: SigningAlgorithm,
    now_seconds: u64,
) -> Result<Ring, KeyFileError> {
    let current = signing(stored, algorithm, now_seconds);
    let Some(StoredKey { half: Half::Private(key), .. }) = current else {
        return Err(problem(&files.folder, &format!("there is no {} key", algorithm.as_str())));
    };
    let others = published(stored, now_seconds).filter(|other| other.public().kid() != Some(key.kid()));
    Ok(Ring::new(Arc::clone(key), others.map(|other| other.public().clone()).collect()))
}

/// The keys of the set that AWS reads.
pub(super) fn published(stored: &[StoredKey], now_seconds: u64) -> impl Iterator<Item = &StoredKey> {
    stored.iter().filter(move |key| key.state(stored, now_seconds).is_published())
}
