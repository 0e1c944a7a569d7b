//! Remembers the highest approval of each server that was ever in force, so that nobody can put an older one back.

use deputize_issuer::registry::approval::Seal;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Why approvals are not admitted; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// The file cannot be read or written.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An approval is older than one that was in force.
    #[error(
        "server {id:?}: its approval ({offered}) is older than one that was in force ({highest}): somebody put the \
         registry back; approve the record anew if it is meant"
    )]
    Older {
        /// The server.
        id: String,
        /// Serial of the approval.
        offered: u64,
        /// The highest serial seen.
        highest: u64,
    },
    /// More servers than are remembered.
    #[error("more than {MAX_SERVERS} servers were approved over time: remove old ones from {}", .0.display())]
    Full(PathBuf),
}

/// Admits approvals that are as new as those seen before, and remembers them, durably, before they are in force.
///
/// # Errors
/// [`SeenError`]; nothing is remembered then.
pub fn admit(data_dir: &Path, seals: &[Seal]) -> Result<(), SeenError> {
    let path = data_dir.join(FILE);
    let mut seen = read(&path)?;
    let before = seen.clone();
    for seal in seals {
        let highest = seen.entry(seal.id.clone()).or_insert(seal.serial);
        if seal.serial < *highest {
            return Err(SeenError::Older { id: seal.id.clone(), offered: seal.serial, highest: *highest });
        }
        *highest = seal.serial;
    }
    if seen == before {
        return Ok(());
    }
    if seen.len() > MAX_SERVERS {
        return Err(SeenError::Full(path));
    }
    write(&path, &seen).map_err(|error| file(&path, &error))
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>, SeenError> {
    match fs::read(path) {
        // What cannot be read is not forgotten: an older approval might pass.
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| file(path, &error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(file(path, &error)),
    }
}

/// Beside its place, then renamed: never half a file.
fn write(path: &Path, seen: &BTreeMap<String, u64>) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    out.write_all(&serde_json::to_vec_pretty(seen)?)?;
    out.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn file(path: &Path, problem: &dyn std::fmt::Display) -> SeenError {
    SeenError::File { path: path.to_owned(), problem: problem.to_string() }
}

const FILE: &str = "approvals-seen.json";
const MAX_SERVERS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(id: &str, serial: u64) -> Seal {
        Seal {
            id: id.to_owned(),
            serial,
            approved_by: "carol".to_owned(),
            key: "k".to_owned(),
            accepted_findings: Vec::new(),
        }
    }

    #[test]
    fn an_older_approval_is_refused_and_nothing_remembered_of_its_company() {
        let folder = tempfile::tempdir().unwrap();
        let admit = |seals: &[Seal]| admit(folder.path(), seals);
        admit(&[seal("crm", 5), seal("bank", 7)]).unwrap();
        admit(&[seal("crm", 5)]).unwrap();
        admit(&[seal("crm", 6)]).unwrap();
        let refused = admit(&[seal("bank", 9), seal("crm", 5)]).unwrap_err();
        assert!(matches!(refused, SeenError::Older { offered: 5, highest: 6, .. }), "{refused}");
        admit(&[seal("bank", 8)]).unwrap();
        // A server that was away is not forgotten.
        assert!(admit(&[seal("crm", 5)]).is_err());
        admit(&[]).unwrap();
        assert!(admit(&[seal("crm", 5)]).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_not_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        admit(folder.path(), &[seal("crm", 5)]).unwrap();
        for damage in ["", "{", "[]", "{\"crm\":-1}"] {
            fs::write(folder.path().join(FILE), damage).unwrap();
            assert!(
                matches!(admit(folder.path(), &[seal("crm", 6)]), Err(SeenError::File { .. })),
                "{damage}"
            );
        }
    }
}
