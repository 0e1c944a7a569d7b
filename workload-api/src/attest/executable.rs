//! The program that a process runs: the file itself, as the kernel holds it open, and what is in it.

use aws_lc_rs::digest::{Context, SHA256};
use deputize_issuer::clock::Clock;
use moka::sync::Cache;
use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An opened program. Whatever happens to its name, this is what runs.
#[derive(Debug)]
pub(crate) struct Executable {
    file: File,
    identity: Identity,
    /// The name that the kernel has for it, as seen from our root.
    named: PathBuf,
}

/// Tells whether a file is still the one that was read, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Digests of programs. Each file is read once, by one thread, however many ask.
pub(crate) struct Digests {
    known: Cache<Identity, [u8; 32]>,
    clock: Arc<dyn Clock>,
    max_bytes: u64,
}

impl Executable {
    /// Takes a file that was opened through /proc/PID/exe.
    pub(crate) fn opened(file: File, named: PathBuf) -> io::Result<Self> {
        let identity = Identity::of(&file.metadata()?);
        Ok(Self { file, identity, named })
    }

    /// What tells it from any other file, and from itself once it is changed.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Its path, if that leads to it from here too. So a name that means another file to us is none: that of a
    /// process in a mount namespace with other contents, or of a file that was deleted or replaced.
    pub(crate) fn path(&self) -> Option<&str> {
        let found = fs::metadata(&self.named).ok()?;
        let is_it = (found.dev(), found.ino()) == (self.identity.device, self.identity.inode);
        self.named.to_str().filter(|_| is_it)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What lies at this path now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

impl Digests {
    /// Reads files up to this size.
    pub(crate) fn new(max_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self { known: Cache::new(MAX_DIGESTS), clock, max_bytes }
    }

    /// The SHA-256 of a program; `None` if it is too large. May take as long as reading it does.
    ///
    /// # Errors
    /// If it cannot be read, or changes meanwhile.
    pub(crate) fn sha256(&self, executable: &Executable) -> io::Result<Option<[u8; 32]>> {
        let identity = executable.identity;
        if identity.bytes > self.max_bytes {
            return Ok(None);
        }
        // Times are as coarse as the kernel's tick: a file changed just now may change again and look the same.
        let settled_since =
            i64::try_from(self.clock.now_seconds()).unwrap_or(0).saturating_sub(SETTLE_SECONDS);
        if identity.changed.0 >= settled_since {
            return read_whole(executable).map(Some);
        }
        let digest = self.known.try_get_with(identity, || read_whole(executable));
        digest.map(Some).map_err(|error| io::Error::new(error.kind(), "the program cannot be read"))
    }
}

fn read_whole(executable: &Executable) -> io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = executable.identity.bytes;
    let mut file = &executable.file;
    while left > 0 {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        context.update(bytes);
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    if Identity::of(&file.metadata()?) != executable.identity {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the program changed while it was read"));
    }
    let digest = context.finish();
    digest.as_ref().try_into().map_err(io::Error::other)
}

const MAX_DIGESTS: u64 = 1024;
const SETTLE_SECONDS: i64 = 2;
const BUFFER_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_issuer::clock::TestClock;
    use std::{io::Write, time::Duration};

    fn open(path: &Path) -> Executable {
        Executable::opened(File::open(path).unwrap(), path.to_owned()).unwrap()
    }

    /// A clock by which this file was changed just now.
    fn clock_of(path: &Path) -> Arc<TestClock> {
        let changed = fs::metadata(path).unwrap().ctime();
        Arc::new(TestClock::at_seconds(changed.try_into().unwrap()))
    }

    fn digests(max_bytes: u64, clock: &Arc<TestClock>) -> Digests {
        Digests::new(max_bytes, Arc::clone(clock) as Arc<dyn Clock>)
    }

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn only_what_has_settled_is_remembered() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        let digests = digests(1024, &clock);
        let abc = deputize_call::digest::sha256(b"abc");
        assert_eq!(digests.sha256(&open(file.path())).unwrap(), Some(abc));
        assert!(!digests.known.contains_key(&open(file.path()).identity()), "it may change within this tick");
        clock.advance(Duration::from_secs(60));
        assert_eq!(digests.sha256(&open(file.path())).unwrap(), Some(abc));
        assert!(digests.known.contains_key(&open(file.path()).identity()));
    }

    #[test]
    fn what_is_remembered_is_not_read_again() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        clock.advance(Duration::from_secs(60));
        let digests = digests(1024, &clock);
        digests.sha256(&open(file.path())).unwrap();
        let mut read_before = open(file.path());
        read_before.file = File::open("/").unwrap();
        assert_eq!(digests.sha256(&read_before).unwrap(), Some(deputize_call::digest::sha256(b"abc")));
        read_before.identity.inode += 1;
        assert!(digests.sha256(&read_before).is_err(), "a folder cannot be read");
    }

    #[test]
    fn what_changes_while_it_is_read_has_no_digest() {
        let mut file = file(b"abc");
        let clock = clock_of(file.path());
        clock.advance(Duration::from_secs(60));
        let opened = open(file.path());
        file.write_all(b"def").unwrap();
        for uptime in [0, 120] {
            clock.advance(Duration::from_secs(uptime));
            let error = digests(1024, &clock).sha256(&opened).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn size_is_bounded_and_empty_files_have_a_digest_too() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        assert_eq!(digests(2, &clock).sha256(&open(file.path())).unwrap(), None);
        assert!(digests(3, &clock).sha256(&open(file.path())).unwrap().is_some());
        let empty = tempfile::NamedTempFile::new().unwrap();
        let of_nothing = deputize_call::digest::sha256(b"");
        assert_eq!(digests(3, &clock).sha256(&open(empty.path())).unwrap(), Some(of_nothing));
    }
}
