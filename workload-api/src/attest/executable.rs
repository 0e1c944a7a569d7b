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
