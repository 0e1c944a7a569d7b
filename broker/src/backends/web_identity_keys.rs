//! The keys that sign web-identity tokens, which AWS verifies: files under `data_dir/keys/web-identity`.
//!
//! AWS keeps the key set that it read. So a key is published for a day at least before it signs, and for a day after
//! it was replaced. When a key begins to sign stands in its file's name: there is no index that could say otherwise.
//!
//! - `es256-1795253400.p8` signs from that second on (Unix time), until a later one does. One of second 0 is the first
//!   of its folder: nobody can hold an older set, so that it signs at once.
//! - `es256-1795253400.retired.json` is the public half of one that signs no more. Its private half is gone.

mod ring;
mod stored;

pub use ring::WebIdentityRing;
pub use stored::{State, StoredKey};

use deputize_call::sign::{SigningAlgorithm, SigningKey};
use std::{
    fs,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use super::key_files::{KeyFileError, make_private_folder, problem, read_private, replace, write_new};
use stored::{Half, KeyFile, Retired};

/// The web-identity keys of one data folder.
#[derive(Debug, Clone)]
pub struct WebIdentityKeys {
    folder: PathBuf,
}

impl WebIdentityKeys {
    /// The keys of this data folder, which is the caller's alone. The first ones are made if there are none.
    ///
    /// # Errors
    /// If they cannot be read or made.
    pub fn open(data_dir: &Path, now_seconds: u64) -> Result<Self, KeyFileError> {
        let keys = Self::existing(data_dir);
        make_private_folder(&keys.folder)?;
        let files = keys.files()?;
        for algorithm in ALGORITHMS {
            let mut of_this = files.iter().filter(|file| file.algorithm == algorithm).peekable();
            let is_first = of_this.peek().is_none();
            if !of_this.any(|file| !file.is_retired) {
                keys.make(algorithm, if is_first { 0 } else { now_seconds })?;
            }
        }
        Ok(keys)
    }

    /// The keys that are there already: for who only looks, and makes nothing.
    pub fn existing(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("keys").join("web-identity") }
    }

    /// All of them, oldest first; none where the folder is not there.
    ///
    /// # Errors
    /// If one cannot be read, is readable by others, or is no key.
    pub fn read(&self) -> Result<Vec<StoredKey>, KeyFileError> {
        let mut stored: Vec<StoredKey> = Vec::new();
        for file in self.files()? {
            // Where both halves' files are there, the private one was about to go.
            if stored.last().is_some_and(|key| key.is_of(&file)) {
                continue;
            }
            // Another process may take a private key away between the two looks.
            if let Some(key) = self.read_file(&file)? {
                stored.push(key);
            }
        }
        Ok(stored)
    }

    /// Makes the next keys: they are published from now on and sign from `signs_from_seconds` on. An algorithm whose
    /// next key is announced already keeps it.
    ///
    /// # Errors
    /// If all are announced already, `signs_from_seconds` is less than [`ANNOUNCED_SECONDS`] away, or they cannot be
    /// written.
    pub fn rotate(&self, now_seconds: u64, signs_from_seconds: u64) -> Result<(), KeyFileError> {
        if signs_from_seconds < now_seconds.saturating_add(ANNOUNCED_SECONDS) {
            return Err(problem(&self.folder, &"a key is published for a day at least before it signs"));
        }
        let stored = self.read()?;
        let is_announced = |algorithm: SigningAlgorithm| {
            stored
                .iter()
                .any(|key| key.algorithm == algorithm && key.state(&stored, now_seconds) == State::Announced)
        };
        let due: Vec<_> = ALGORITHMS.into_iter().filter(|&algorithm| !is_announced(algorithm)).collect();
        if due.is_empty() {
            return Err(problem(&self.folder, &"the next keys are announced already: wait until they sign"));
        }
        due.into_iter().try_for_each(|algorithm| self.make(algorithm, signs_from_seconds))
    }

    /// Somebody else has the keys: new ones sign at once, the private ones go, and the old ones are published no more.
    /// Until AWS reads the new set it takes no token of ours.
    ///
    /// # Errors
    /// If there are keys of this very second, or files cannot be written or removed.
    pub fn replace_compromised(&self, now_seconds: u64) -> Result<(), KeyFileError> {
        // Before anything is written: one of RSA takes its time.
        let made = ALGORITHMS.into_iter().map(|algorithm| Ok((algorithm, self.generate(algorithm)?)));
        let made = made.collect::<Result<Vec<_>, KeyFileError>>()?;
        let stored = self.read()?;
        // A new key by the name of a withdrawn one would be taken for that.
        if stored.iter().any(|key| key.signs_from_seconds == now_seconds) {
            return Err(problem(&self.folder, &"there are keys of this very second: run it again"));
        }
        // INVARIANT: the new keys come last. A running broker that looks in between finds no key and stays as it was:
        // it never takes a stolen key for one that was replaced in its time, and what comes last makes it look again.
        self.withdraw(&stored, now_seconds)?;
        made.into_iter().try_for_each(|(algorithm, pkcs8)| self.write(algorithm, now_seconds, &pkcs8))
    }

    /// Takes all that are left out of the set at once.
    fn withdraw(&self, stored: &[StoredKey], now_seconds: u64) -> Result<(), KeyFileError> {
        let long_ago = now_seconds.saturating_sub(RETIRED_SECONDS);
        let is_left = |key: &&StoredKey| {
            matches!(key.half, Half::Private(_)) || key.state(stored, now_seconds).is_published()
        };
        stored.iter().filter(is_left).try_for_each(|key| {
            let (path, bytes) = self.retired(key, long_ago)?;
            // A running broker may have retired it since we looked: ours is the last word.
            replace(&path, &bytes)?;
            self.remove(&key.file_name(false))
        })
    }

    /// Destroys the private halves of keys that were replaced, and forgets public ones that nobody asks for any more.
    fn tidy(&self, stored: &[StoredKey], now_seconds: u64) -> Result<(), KeyFileError> {
        for key in stored {
            match key.state(stored, now_seconds) {
                State::Retired { since_seconds } | State::Withdrawn { since_seconds }
                    if matches!(key.half, Half::Private(_)) =>
                {
                    self.retire(key, since_seconds)?;
                }
                State::Withdrawn { since_seconds }
                    if since_seconds.saturating_add(REMEMBERED_SECONDS) <= now_seconds =>
                {
                    self.remove(&key.file_name(true))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// First the public half is safe, then the private one goes.
    fn retire(&self, key: &StoredKey, since_seconds: u64) -> Result<(), KeyFileError> {
        let (path, bytes) = self.retired(key, since_seconds)?;
        match write_new(&path, &bytes) {
            // `keys rotate --compromised` was here since we looked: what it withdrew is not published again.
            Err(_) if path.exists() => {}
            written => written?,
        }
        self.remove(&key.file_name(false))
    }

    fn retired(&self, key: &StoredKey, since_seconds: u64) -> Result<(PathBuf, Vec<u8>), KeyFileError> {
        let path = self.folder.join(key.file_name(true));
        let retired = Retired { retired_at: since_seconds, jwk: key.public().to_jwk() };
        let bytes = serde_json::to_vec(&retired).map_err(|error| problem(&path, &error))?;
        Ok((path, bytes))
    }

    fn remove(&self, name: &str) -> Result<(), KeyFileError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(problem(&path, &error)),
            _ => Ok(()),
        }
    }

    fn make(&self, algorithm: SigningAlgorithm, signs_from_seconds: u64) -> Result<(), KeyFileError> {
        self.write(algorithm, signs_from_seconds, &self.generate(algorithm)?)
    }

    fn generate(&self, algorithm: SigningAlgorithm) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let pkcs8 = SigningKey::generate(algorithm).and_then(|key| key.to_pkcs8());
        pkcs8.map_err(|error| problem(&self.folder, &error))
    }

    fn write(
        &self,
        algorithm: SigningAlgorithm,
        signs_from_seconds: u64,
        pkcs8: &[u8],
    ) -> Result<(), KeyFileError> {
        let file = KeyFile { algorithm, signs_from_seconds, is_retired: false };
        write_new(&self.folder.join(file.name()), pkcs8)
    }

    /// The names that mean a key; of one key its retired half first.
    fn files(&self) -> Result<Vec<KeyFile>, KeyFileError> {
        let cannot = |error: std::io::Error| problem(&self.folder, &error);
        let mut files = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(cannot(error)),
        };
        for entry in entries {
            let name = entry.map_err(cannot)?.file_name();
            files.extend(name.to_str().and_then(KeyFile::from_name));
            if files.len() > MAX_FILES {
                return Err(problem(&self.folder, &format!("more than {MAX_FILES} keys")));
            }
        }
        files.sort_unstable_by_key(|file| {
            (file.signs_from_seconds, file.algorithm.as_str(), !file.is_retired)
        });
        Ok(files)
    }

    fn read_file(&self, file: &KeyFile) -> Result<Option<StoredKey>, KeyFileError> {
        let path = self.folder.join(file.name());
        let Some(bytes) = read_private(&path)? else { return Ok(None) };
        let half = if file.is_retired { Half::from_retired(&bytes) } else { Half::from_pkcs8(&bytes) };
        let half = half.map_err(|error| problem(&path, &error))?;
        if !half.is_of(file.algorithm) {
            return Err(problem(&path, &"the key is of another algorithm than its name says"));
        }
        let KeyFile { algorithm, signs_from_seconds, .. } = *file;
        Ok(Some(StoredKey { algorithm, signs_from_seconds, half }))
    }
}

/// How long a key is published before it signs, at least, in seconds: AWS may go on with the set that it read.
pub const ANNOUNCED_SECONDS: u64 = 24 * 3600;
/// How long a key stays published after it was replaced, in seconds; longer by far than a token lives.
pub const RETIRED_SECONDS: u64 = 24 * 3600;
/// Both are there, so that the one that signs can be changed without waiting a day.
pub const ALGORITHMS: [SigningAlgorithm; 2] = [SigningAlgorithm::ES256, SigningAlgorithm::RS256];
/// How long it is remembered that a key is published no more, in seconds: `keys publish` then knows it may go.
const REMEMBERED_SECONDS: u64 = 400 * 24 * 3600;
/// Two a day for longer than they are remembered.
const MAX_FILES: usize = 1024;

#[cfg(test)]
mod tests;
