//! Keys in files of the data folder: made on first use, readable by their owner alone, never overwritten.

use deputize_call::sign::{SigningAlgorithm, SigningKey};
use deputize_issuer::{
    clock,
    log::{CheckpointSigner, CheckpointVerifier},
    secret::Secret,
};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use crate::config::private_file::is_private;

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub problem: String,
}

/// The keys of one data folder.
#[derive(Debug)]
pub struct KeyFiles {
    folder: PathBuf,
}

impl KeyFiles {
    /// The keys under `data_dir/keys`; the folder is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, KeyFileError> {
        let folder = data_dir.join("keys");
        make_private_folder(&folder)?;
        Ok(Self { folder })
    }

    /// The keys that are there already: for who only looks, and makes nothing.
    pub fn existing(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("keys") }
    }

    /// What verifies checkpoints of the log named `origin`, if their key is there; it is not made.
    ///
    /// # Errors
    /// If the key cannot be read, is readable by others, or is no key.
    pub fn checkpoint_verifier(&self, origin: &str) -> Result<Option<CheckpointVerifier>, KeyFileError> {
        let path = self.folder.join(CHECKPOINT_KEY);
        let signer =
            |pkcs8| CheckpointSigner::from_pkcs8(origin, &pkcs8).map_err(|error| problem(&path, &error));
        Ok(read_private(&path)?.map(signer).transpose()?.map(|signer| signer.verifier().clone()))
    }

    /// The key that signs tool-call tokens, if it is there; it is not made.
    ///
    /// # Errors
    /// As [`Self::checkpoint_verifier`].
    pub fn existing_token_key(&self) -> Result<Option<SigningKey>, KeyFileError> {
        self.existing_key(TOKEN_KEY)
    }

    /// The key that signs guards' snapshots, if it is there; it is not made.
    ///
    /// # Errors
    /// As [`Self::checkpoint_verifier`].
    pub fn existing_snapshot_key(&self) -> Result<Option<SigningKey>, KeyFileError> {
        self.existing_key(SNAPSHOT_KEY)
    }

    /// The key that signs tool-call tokens.
    ///
    /// # Errors
    /// If it cannot be read, is readable by others, or is no key.
    pub fn token_key(&self) -> Result<SigningKey, KeyFileError> {
        self.key(TOKEN_KEY)
    }

    /// The key that signs guards' snapshots. Guards are configured with its public half, so it is none of the keys
    /// that a snapshot itself announces.
    ///
    /// # Errors
    /// As [`Self::token_key`].
    pub fn snapshot_key(&self) -> Result<SigningKey, KeyFileError> {
        self.key(SNAPSHOT_KEY)
    }

    /// The key that signs checkpoints of the log.
    ///
    /// # Errors
    /// As [`Self::token_key`].
    pub fn checkpoint_signer(&self, origin: &str) -> Result<CheckpointSigner, KeyFileError> {
        let path = self.folder.join(CHECKPOINT_KEY);
        let pkcs8 = self.read_or_make(&path, CheckpointSigner::generate_pkcs8)?;
        CheckpointSigner::from_pkcs8(origin, &pkcs8).map_err(|error| problem(&path, &error))
    }

    /// 32 random bytes for a purpose: seals of transactions, pseudonyms in the log.
    ///
    /// # Errors
    /// As [`Self::token_key`].
    pub fn secret(&self, purpose: &str) -> Result<Secret<[u8; 32]>, KeyFileError> {
        let path = self.folder.join(format!("{purpose}.secret"));
        let bytes = self.read_or_make(&path, || {
            let mut bytes = Zeroizing::new(vec![0; 32]);
            clock::fill_random(&mut bytes).map(|()| bytes)
        })?;
        let bytes =
            <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| problem(&path, &"it must have 32 bytes"))?;
        Ok(Secret::new(bytes))
    }

    fn key(&self, name: &str) -> Result<SigningKey, KeyFileError> {
        let path = self.folder.join(name);
        let pkcs8 = self.read_or_make(&path, || SigningKey::generate(SigningAlgorithm::ES256)?.to_pkcs8())?;
        SigningKey::from_pkcs8(&pkcs8, None).map_err(|error| problem(&path, &error))
    }

    fn existing_key(&self, name: &str) -> Result<Option<SigningKey>, KeyFileError> {
        let path = self.folder.join(name);
        let key = |pkcs8: Zeroizing<Vec<u8>>| {
            SigningKey::from_pkcs8(&pkcs8, None).map_err(|error| problem(&path, &error))
        };
        read_private(&path)?.map(key).transpose()
    }

    fn read_or_make<E: std::fmt::Display>(
        &self,
        path: &Path,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        if let Some(bytes) = read_private(path)? {
            return Ok(bytes);
        }
        let bytes = make().map_err(|error| problem(path, &error))?;
        write_new(path, &bytes)?;
        Ok(bytes)
    }
}

/// Makes a folder that only its owner may enter.
///
/// # Errors
/// If it cannot be made, or others may write to it.
pub fn make_private_folder(folder: &Path) -> Result<(), KeyFileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| problem(folder, &error))?;
    let mode = fs::metadata(folder).map_err(|error| problem(folder, &error))?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(problem(folder, &"others may write to it: chmod 700"));
    }
    Ok(())
}

/// A key's bytes, if its file is there and its owner's alone.
pub(super) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
    match fs::metadata(path) {
        Ok(metadata) if !is_private(&metadata) => {
            Err(problem(path, &"others may read it: chmod 600, and rotate the key if they did"))
        }
        Ok(_) => {
            fs::read(path).map(|bytes| Some(Zeroizing::new(bytes))).map_err(|error| problem(path, &error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(path, &error)),
    }
}

/// Written whole beside its place, then linked there: never half a key, never over another.
///
/// # Errors
/// If it cannot be written, or is there already.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let written = (|| {
        let draft = path.with_extension("draft");
        write_draft(&draft, bytes)?;
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        linked?;
        sync_folder(path)
    })();
    written.map_err(|error| problem(path, &error))
}

/// Written whole beside its place, then put there, whatever is there already.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let written = (|| {
        // Another name than that of `write_new`, which another process may be in the middle of.
        let draft = path.with_extension("replacement");
        write_draft(&draft, bytes)?;
        fs::rename(&draft, path)?;
        sync_folder(path)
    })();
    written.map_err(|error| problem(path, &error))
}

fn write_draft(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let _ = fs::remove_file(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

pub(super) fn problem(path: &Path, problem: &dyn std::fmt::Display) -> KeyFileError {
    KeyFileError { path: path.to_owned(), problem: problem.to_string() }
}

const TOKEN_KEY: &str = "tool-call.p8";
const SNAPSHOT_KEY: &str = "snapshot.p8";
const CHECKPOINT_KEY: &str = "checkpoint.p8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let first = KeyFiles::open(folder.path()).unwrap();
        let (kid, secret) =
            (first.token_key().unwrap().kid().to_owned(), first.secret("pseudonyms").unwrap());
        let again = KeyFiles::open(folder.path()).unwrap();
        assert_eq!(again.token_key().unwrap().kid(), kid);
        let snapshot_kid = again.snapshot_key().unwrap().kid().to_owned();
        assert_ne!(snapshot_kid, kid, "each purpose has its own");
        assert_eq!(first.existing_snapshot_key().unwrap().unwrap().kid(), snapshot_kid);
        assert_eq!(again.secret("pseudonyms").unwrap().expose(), secret.expose());
        assert_ne!(again.secret("transactions").unwrap().expose(), secret.expose());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFiles::open(folder.path()).unwrap();
        keys.token_key().unwrap();
        let path = folder.path().join("keys/tool-call.p8");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(keys.token_key().unwrap_err().to_string().contains("chmod 600"));
    }
}
