//! The program that a process runs: the file itself, as the kernel holds it open, and what is in it.

use super::allowance::Allowance;
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
    allowance: Allowance,
}

/// What is known of what is in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Its SHA-256.
    Sha256([u8; 32]),
    /// It would have to be read.
    Unread,
    /// It is too large, or too much was read for this user already.
    Unknown,
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
    /// Reads files up to this size, and for each user in a minute as much as a few of that size.
    pub(crate) fn new(max_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let allowance = Allowance::of(max_bytes.saturating_mul(LARGEST_IN_A_MINUTE), Arc::clone(&clock));
        Self { known: Cache::new(MAX_DIGESTS), clock, max_bytes, allowance }
    }

    /// The SHA-256 of a program. If it must be read for that, it is read for this user, if for any; that takes its
    /// time.
    ///
    /// # Errors
    /// If it cannot be read, or changes meanwhile.
    pub(crate) fn sha256(&self, executable: &Executable, reader: Option<u32>) -> io::Result<Content> {
        let identity = executable.identity;
        if identity.bytes > self.max_bytes {
            return Ok(Content::Unknown);
        }
        // Times are as coarse as the kernel's tick: a file changed just now may change again and look the same.
        let settled_since =
            i64::try_from(self.clock.now_seconds()).unwrap_or(0).saturating_sub(SETTLE_SECONDS);
        let is_settled = identity.changed.0 < settled_since;
        if let Some(known) = self.known.get(&identity).filter(|_| is_settled) {
            return Ok(Content::Sha256(known));
        }
        let Some(reader) = reader else { return Ok(Content::Unread) };
        if !self.allowance.spend(reader, identity.bytes) {
            tracing::warn!(uid = reader, "too much would be read to tell programs of a user apart");
            return Ok(Content::Unknown);
        }
        if !is_settled {
            return read_whole(executable).map(Content::Sha256);
        }
        let digest = self.known.try_get_with(identity, || read_whole(executable));
        let digest = digest.map_err(|error| io::Error::new(error.kind(), "the program cannot be read"))?;
        Ok(Content::Sha256(digest))
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
const LARGEST_IN_A_MINUTE: u64 = 4;
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

    const READER: u32 = 7;

    impl Digests {
        fn read(&self, executable: &Executable) -> io::Result<Option<[u8; 32]>> {
            self.sha256(executable, Some(READER)).map(|content| match content {
                Content::Sha256(digest) => Some(digest),
                Content::Unread => panic!("it is not read"),
                Content::Unknown => None,
            })
        }
    }

    #[test]
    fn only_what_has_settled_is_remembered() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        let digests = digests(1024, &clock);
        let abc = deputize_call::digest::sha256(b"abc");
        assert_eq!(digests.read(&open(file.path())).unwrap(), Some(abc));
        assert!(!digests.known.contains_key(&open(file.path()).identity()), "it may change within this tick");
        clock.advance(Duration::from_secs(60));
        assert_eq!(digests.read(&open(file.path())).unwrap(), Some(abc));
        assert!(digests.known.contains_key(&open(file.path()).identity()));
    }

    #[test]
    fn what_is_remembered_is_not_read_again() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        clock.advance(Duration::from_secs(60));
        let digests = digests(1024, &clock);
        digests.read(&open(file.path())).unwrap();
        let mut read_before = open(file.path());
        read_before.file = File::open("/").unwrap();
        assert_eq!(digests.read(&read_before).unwrap(), Some(deputize_call::digest::sha256(b"abc")));
        read_before.identity.inode += 1;
        assert!(digests.read(&read_before).is_err(), "a folder cannot be read");
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
            let error = digests(1024, &clock).read(&opened).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn size_is_bounded_and_empty_files_have_a_digest_too() {
        let file = file(b"abc");
        let clock = clock_of(file.path());
        assert_eq!(digests(2, &clock).read(&open(file.path())).unwrap(), None);
        assert!(digests(3, &clock).read(&open(file.path())).unwrap().is_some());
        let empty = tempfile::NamedTempFile::new().unwrap();
        let of_nothing = deputize_call::digest::sha256(b"");
        assert_eq!(digests(3, &clock).read(&open(empty.path())).unwrap(), Some(of_nothing));
    }

    #[test]
    fn what_is_read_for_one_user_is_bounded_and_what_is_known_costs_nothing() {
        let (file, other) = (file(b"abcd"), file(b"efgh"));
        let clock = clock_of(file.path());
        clock.advance(Duration::from_secs(60));
        let digests = digests(4, &clock);
        let unsettled = |reader| {
            let mut opened = open(other.path());
            opened.identity.changed.0 = i64::MAX;
            // What is read differs from what was opened; that it was read is what counts here.
            digests.sha256(&opened, reader).map_err(|error| error.kind())
        };
        assert_eq!(digests.sha256(&open(file.path()), None).unwrap(), Content::Unread);
        let known = digests.read(&open(file.path())).unwrap();
        assert!(known.is_some());
        for _ in 1..LARGEST_IN_A_MINUTE {
            assert_eq!(unsettled(Some(READER)), Err(io::ErrorKind::InvalidData));
        }
        assert_eq!(unsettled(Some(READER)), Ok(Content::Unknown));
        assert_eq!(unsettled(Some(READER + 1)), Err(io::ErrorKind::InvalidData), "another user");
        assert_eq!(digests.read(&open(file.path())).unwrap(), known);
        clock.advance(Duration::from_secs(60));
        assert_eq!(unsettled(Some(READER)), Err(io::ErrorKind::InvalidData));
    }
}
