//! An X.509-SVID in three PEM files, for programs that only read files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use super::received::Svid;
use crate::commands::exit::CommandError;

/// Where the files are.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) svid: PathBuf,
    pub(super) key: PathBuf,
    pub(super) bundle: PathBuf,
}

impl Written {
    /// Writes them. Each appears whole, and replaces the one before; the key first, so that no reader pairs a new
    /// certificate with a key that is not there yet for longer than it must.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn write(folder: &Path, svid: &Svid) -> Result<Self, CommandError> {
        let written = Self {
            svid: folder.join("svid.pem"),
            key: folder.join("key.pem"),
            bundle: folder.join("bundle.pem"),
        };
        prepare(folder)?;
        let chain = svid.svid.cert_chain().iter().map(|certificate| certificate.as_bytes());
        let authorities = svid.bundle.authorities().iter().map(|certificate| certificate.as_bytes());
        let all = replace(&written.bundle, &pem("CERTIFICATE", authorities), 0o644)
            .and_then(|()| {
                replace(&written.key, &pem("PRIVATE KEY", [svid.svid.private_key().as_bytes()]), 0o600)
            })
            .and_then(|()| replace(&written.svid, &pem("CERTIFICATE", chain), 0o644));
        all.map_err(|error| cannot(folder, &error))?;
        Ok(written)
    }
}

/// Makes the folder, if it is not there; whoever else may write to it could put another key or bundle in place of ours.
fn prepare(folder: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(folder).map_err(|error| cannot(folder, &error))?;
    let found = fs::metadata(folder).map_err(|error| cannot(folder, &error))?;
    let shown = folder.display();
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(CommandError::failure(
            format!("{shown}: the folder is another user's, who could replace the key and the bundle"),
            "give a folder of this user's own",
        ));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(CommandError::failure(
            format!("{shown}: others may write to the folder, and could replace the key and the bundle"),
            format!("chmod go-w {shown}"),
        ));
    }
    Ok(())
}

fn cannot(folder: &Path, error: &io::Error) -> CommandError {
    CommandError::failure(
        format!("{}: {error}", folder.display()),
        "give a folder that this user may write to",
    )
}

/// Textual encoding (RFC 7468 §2), one block for each.
fn pem<'d>(label: &str, blocks: impl IntoIterator<Item = &'d [u8]>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for der in blocks {
        let encoded = Zeroizing::new(STANDARD.encode(der));
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        for (at, character) in encoded.char_indices() {
            if at > 0 && at % 64 == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str(&format!("\n-----END {label}-----\n"));
    }
    text
}

/// Puts a file in the place of another in one step; it was never readable by more than it should be.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let done = done.and_then(|()| fs::rename(&beside, path));
    if done.is_err() {
        // What is left of it is nobody's.
        let _ = fs::remove_file(&beside);
    }
    done
}

const WRITABLE_BY_OTHERS: u32 = 0o022;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn pem_has_lines_of_64_and_a_block_for_each() {
        let text = pem("CERTIFICATE", [&[7_u8; 100][..], &[8; 3]]);
        assert_eq!(text.matches("-----BEGIN CERTIFICATE-----").count(), 2);
        assert!(text.lines().all(|line| line.len() <= 64), "{}", *text);
        assert!(text.ends_with("-----END CERTIFICATE-----\n"));
        let first: String = text.lines().skip(1).take_while(|line| !line.starts_with('-')).collect();
        assert_eq!(STANDARD.decode(first).unwrap(), [7; 100]);
    }

    #[test]
    fn a_key_is_its_owners_alone_even_where_another_file_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, "new", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_folder_that_others_own_or_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        for (mode, is_good) in [(0o700, true), (0o755, true), (0o775, false), (0o702, false), (0o1777, false)]
        {
            set(mode);
            let prepared = prepare(folder.path());
            assert_eq!(prepared.is_ok(), is_good, "{mode:o}");
            assert!(prepared.err().is_none_or(|error| error.next.starts_with("chmod go-w ")));
        }
        set(0o700);
        assert!(prepare(&folder.path().join("made/anew")).is_ok());
        let others = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(1), None).unwrap();
            folder.path()
        } else {
            Path::new("/")
        };
        assert!(prepare(others).unwrap_err().next.contains("own"));
    }
}
