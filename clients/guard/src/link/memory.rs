//! What a guard must not forget: the highest version that it has seen, and the last snapshot.

use crate::{SignedSnapshot, snapshot::Snapshot};
use deputize_call::keys::KeySet;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::LinkError;

/// The memory of one guard, in its state folder.
#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    highest: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// The highest version that was installed.
    version: u64,
    /// The snapshot of that version.
    snapshot: SignedSnapshot,
}

impl Memory {
    /// Opens the state folder, which is its owner's alone; what is remembered there, if anything.
    ///
    /// # Errors
    /// The folder cannot be used, or what it holds cannot be read: then nobody knows what the highest version was.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<SignedSnapshot>), LinkError> {
        make_private(folder)?;
        let path = folder.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok((Self { folder: folder.to_owned(), highest: None }, None));
            }
            Err(error) => return Err(problem(&path, &error)),
        };
        let remembered: Remembered = serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!("{error}; remove it if you are sure that the broker was not put back");
            problem(&path, &text)
        })?;
        let memory = Self { folder: folder.to_owned(), highest: Some(remembered.version) };
        Ok((memory, Some(remembered.snapshot)))
    }

    /// The highest version that was seen, by this process or an earlier one.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Takes note of a version that was installed.
    pub(super) fn saw(&mut self, version: u64) {
        self.highest = self.highest.max(Some(version));
    }

    /// The state folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Remembers a snapshot for the processes that come after this one.
///
/// # Errors
/// It is not in the folder.
pub(super) fn write(folder: &Path, version: u64, snapshot: SignedSnapshot) -> Result<(), LinkError> {
    let path = folder.join(FILE);
    let bytes = serde_json::to_vec(&Remembered { version, snapshot });
    let bytes = bytes.map_err(|error| problem(&path, &error))?;
    replace(&path, &bytes).map_err(|error| problem(&path, &error))
}

/// A remembered snapshot that still holds.
pub(super) fn reopen(snapshot: SignedSnapshot, keys: &KeySet, now_seconds: u64) -> Option<Snapshot> {
    snapshot.open(keys, now_seconds).ok()
}

/// Whole or not at all: written beside its place, then renamed.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn make_private(folder: &Path) -> Result<(), LinkError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| problem(folder, &error))?;
    let mode = fs::metadata(folder).map_err(|error| problem(folder, &error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(problem(folder, &"others may enter it: chmod 700"));
    }
    // Known now rather than when something has to be remembered.
    let probe = folder.join("probe.draft");
    fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(|error| problem(&probe, &error))
}

pub(super) fn problem(path: &Path, problem: &dyn std::fmt::Display) -> LinkError {
    LinkError::State { path: path.to_owned(), problem: problem.to_string() }
}

const FILE: &str = "snapshot.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(text: &str) -> SignedSnapshot {
        SignedSnapshot { snapshot: text.to_owned(), signature: "a.b.c".to_owned() }
    }

    #[test]
    fn the_highest_version_is_known_after_a_restart() {
        let parent = std::env::temp_dir().join(format!("deputize-memory-{}", std::process::id()));
        let folder = parent.join("state");
        let (memory, last) = Memory::open(&folder).unwrap();
        assert_eq!((last.is_none(), memory.highest()), (true, None));
        write(&folder, 7, signed("seven")).unwrap();
        let (mut memory, last) = Memory::open(&folder).unwrap();
        assert_eq!((last.unwrap().snapshot.as_str(), memory.highest()), ("seven", Some(7)));
        memory.saw(9);
        memory.saw(8);
        assert_eq!(memory.highest(), Some(9));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));

        fs::write(folder.join(FILE), "{").unwrap();
        let text = Memory::open(&folder).unwrap_err().to_string();
        assert!(text.contains("remove it"), "what was seen is not known, and that is said: {text}");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Memory::open(&folder).unwrap_err().to_string().contains("chmod 700"));
        fs::remove_dir_all(&parent).unwrap();
    }
}
