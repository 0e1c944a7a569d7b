//! The append-only Merkle log: the write-ahead record of every credential.
//!
//! Entries are bytes; what they mean is no matter of this module. An entry counts once
//! [`Log::append`] has answered with its index: then it is durable, and it is never changed,
//! removed or reordered without being noticed.
//!
//! - Segments hold the entries in frames with checksums (`segment.rs`). One thread writes: it takes all that is
//!   queued, writes once, syncs once, answers all (`writer.rs`). After an error of the disk the log
//!   takes nothing more until it is opened again; lack of space is no such error.
//! - The entries are the leaves of an RFC 6962 tree (`tree.rs`), whose full tiles lie at the paths of
//!   C2SP tlog-tiles (`tile.rs`). Proofs are derived on demand (`proof.rs`).
//! - At most each second the tree's size and root are signed (`checkpoint.rs`) and written to the
//!   folder, and to the anchor outside it.
//! - At boot (`recover.rs`) the log is compared with both. A torn last group is cut off and reported;
//!   everything else that is missing or wrong refuses.
//! - [`LogReader`] reads, proves and verifies, with or without a running log (`reader.rs`, `verify.rs`).

mod checkpoint;
mod disk;
mod entries;
mod proof;
mod queue;
mod reader;
mod records;
mod recover;
mod segment;
mod tile;
mod tree;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::{io, path::Path, path::PathBuf, sync::Arc};

use tokio::sync::oneshot;

pub use self::{
    checkpoint::{Checkpoint, CheckpointError, CheckpointSigner, CheckpointVerifier, SignedCheckpoint},
    entries::{Entries, Tail},
    proof::{ProofError, verify_consistency, verify_inclusion},
    reader::LogReader,
    tile::{bundle_path, tile_path},
    tree::{Hash, empty_root, leaf_hash, node_hash},
    verify::{Finding, Verified},
};
use self::{
    disk::{Disk, RealDisk},
    queue::{Shared, Waiting},
    writer::Writer,
};

/// Where and how a log is kept.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The folder that belongs to this log alone. Created where it is missing.
    pub folder: PathBuf,
    /// Which log this is, for instance `broker.example/log/replica-1` (C2SP tlog-checkpoint, "Note text").
    pub origin: String,
    /// A file outside the folder that keeps the latest checkpoint, so that a rollback of the folder is seen.
    pub anchor: Option<PathBuf>,
    /// A segment with so many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// Free bytes below which only [`Class::Vital`] entries are taken; [`Class::Denial`] stops at twice as many.
    pub reserve_bytes: u64,
}

/// How urgent an entry is when space runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Revocations, decisions by humans, outcomes, redemptions: taken to the end.
    Vital,
    /// Intents: stop below the reserve.
    Routine,
    /// Denials, and what guards report: stop first, below twice the reserve.
    Denial,
}

/// A handle to the open log. The log is closed when the last one is dropped; [`Log::close`] also waits.
#[derive(Debug, Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    folder: PathBuf,
    origin: String,
    reader: LogReader,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close(None);
    }
}

impl Log {
    /// Opens the log, recovers it from whatever ended it last, and locks the folder.
    ///
    /// Reads at most the newest 256 MiB; what is older is checked in the background, and damage found
    /// there stops the log.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::Damaged`], [`LogError::RolledBack`], [`LogError::Checkpoint`],
    /// [`LogError::Config`] or [`LogError::Io`].
    pub fn open(config: LogConfig, signer: CheckpointSigner) -> Result<(Self, Recovery), LogError> {
        Self::open_on(Arc::new(RealDisk), config, signer, recover::CHECKED_BYTES)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        config: LogConfig,
        signer: CheckpointSigner,
        checked_bytes: u64,
    ) -> Result<(Self, Recovery), LogError> {
        let recovered = recover::recover(&config, &signer, &disk, checked_bytes)?;
        let free_bytes =
            disk.free_bytes(&config.folder).map_err(|cause| LogError::io(&config.folder, cause))?;
        let size = recovered.tree.size();
        let shared = Arc::new(Shared::new(size, recovered.checkpoint, config.reserve_bytes, free_bytes));
        let (folder, origin) = (config.folder.clone(), config.origin.clone());
        let reader = LogReader::live(&folder, Arc::clone(&shared));
        let handle = Arc::new(Handle { shared: Arc::clone(&shared), folder, origin, reader });
        recover::scrub(&config, recovered.unchecked, &shared)?;
        let (tree, tail, lock) = (recovered.tree, recovered.tail, recovered.lock);
        Writer { config, disk, signer, shared, tree, tail, lock }.start()?;
        Ok((Self { handle }, recovered.recovery))
    }

    /// Appends an entry and waits until it is durable. Gives its index.
    ///
    /// The entry is written even when the caller stops waiting.
    ///
    /// # Errors
    /// [`LogError::Length`], [`LogError::Busy`], [`LogError::NoSpace`], [`LogError::Failed`] or [`LogError::Closed`].
    pub async fn append(&self, class: Class, entry: Vec<u8>) -> Result<u64, LogError> {
        let (sender, receiver) = oneshot::channel();
        self.push(class, entry, Some(sender))?;
        receiver.await.unwrap_or(Err(LogError::Failed))
    }

    /// Appends entries in this order and waits until all are durable. On an error some may have become so.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn append_all(&self, class: Class, entries: Vec<Vec<u8>>) -> Result<(), LogError> {
        let mut waiting = Vec::with_capacity(entries.len());
        for entry in entries {
            let (sender, receiver) = oneshot::channel();
            self.push(class, entry, Some(sender))?;
            waiting.push(receiver);
        }
        for receiver in waiting {
            receiver.await.unwrap_or(Err(LogError::Failed))?;
        }
        Ok(())
    }

    /// Queues an entry, to be durable with its group. Whether it became durable is not told.
    ///
    /// # Errors
    /// As [`Log::append`], as far as it is known at once.
    pub fn append_later(&self, class: Class, entry: Vec<u8>) -> Result<(), LogError> {
        self.push(class, entry, None)
    }

    fn push(
        &self,
        class: Class,
        entry: Vec<u8>,
        answer: Option<oneshot::Sender<Result<u64, LogError>>>,
    ) -> Result<(), LogError> {
        if entry.is_empty() || entry.len() > ENTRY_MOST {
            return Err(LogError::Length { bytes: entry.len() });
        }
        // Hashed here, so that the one writer thread has less to do.
        let leaf = leaf_hash(&entry);
        self.handle.shared.push(class, Waiting { entry, leaf, answer })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.handle.folder
    }

    /// Which log this is.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.handle.origin
    }

    /// How many entries are durable.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.handle.shared.size()
    }

    /// The latest checkpoint. It covers durable entries only, and trails them by at most a second.
    #[must_use]
    pub fn checkpoint(&self) -> SignedCheckpoint {
        self.handle.shared.latest()
    }

    /// Whether the log takes no more entries because of an error or found damage.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.handle.shared.failed()
    }

    /// Counts since the log was opened.
    #[must_use]
    pub fn statistics(&self) -> LogStatistics {
        self.handle.shared.statistics()
    }

    /// A reader of the durable entries; it sees those that are added later.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.handle.reader.clone()
    }

    /// Takes no more entries, writes those that are queued, signs a last checkpoint, unlocks the folder.
    ///
    /// # Errors
    /// [`LogError::Failed`] where the log failed earlier or in doing so.
    pub async fn close(&self) -> Result<(), LogError> {
        let (sender, receiver) = oneshot::channel();
        self.handle.shared.begin_close(Some(sender));
        receiver.await.unwrap_or(Err(LogError::Failed))
    }
}

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Entries in the log.
    pub size: u64,
    /// Bytes of a last group that was never acknowledged, cut off.
    pub torn_bytes_dropped: u64,
    /// Entries beyond the checkpoint that was found; the log had not been closed if there are any.
    pub beyond_checkpoint: u64,
    /// Whether the tiles had to be derived again.
    pub tiles_rebuilt: bool,
    /// Size recorded by the anchor, where one is configured and was found.
    pub anchored: Option<u64>,
    /// Bytes of older segments that are being checked in the background.
    pub unchecked_bytes: u64,
}

/// Counts since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStatistics {
    /// Entries made durable.
    pub entries: u64,
    /// Bytes written for them.
    pub bytes: u64,
    /// Syncs that made them durable: `entries / flushes` is the records per flush.
    pub flushes: u64,
    /// Checkpoints signed and written.
    pub checkpoints: u64,
    /// Checkpoints or anchors that could not be written.
    pub checkpoint_failures: u64,
    /// Tiles that could not be written; they are derived again when asked for.
    pub tile_failures: u64,
    /// Entries refused because too many waited.
    pub refused_busy: u64,
    /// Entries refused because too little space was left for their class.
    pub refused_space: u64,
    /// Bytes free, as last asked.
    pub free_bytes: u64,
}

/// Why the log cannot be opened, read or appended to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The entry is empty or too long.
    #[error("an entry has 1 to 65535 bytes, not {bytes}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
    /// Too many entries wait to be written.
    #[error("too many entries wait to be written")]
    Busy,
    /// Too little space is left for an entry of this class.
    #[error("too little space is left on the disk of the log")]
    NoSpace,
    /// The disk failed or damage was found: nothing more is taken until the log is opened again.
    #[error("the log failed earlier and takes nothing more until it is opened again")]
    Failed,
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// Another process, or this one, has the log open.
    #[error("{folder}: the log is open elsewhere", folder = folder.display())]
    Locked {
        /// The log's folder.
        folder: PathBuf,
    },
    /// A record is damaged in a way that no crash explains.
    #[error("record {index} is damaged: {file}: {reason}; restore the file from a copy", file = file.display())]
    Damaged {
        /// The record.
        index: u64,
        /// The file it stands in.
        file: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The log is not, or no longer, what a checkpoint recorded.
    #[error(
        "{file} records {recorded} entries, the log has {found}: {reason}; restore the newest copy of the data \
         folder, or keep this one as evidence and begin an empty one with a new origin and anchor",
        file = file.display()
    )]
    RolledBack {
        /// The checkpoint.
        file: PathBuf,
        /// Entries that it covers.
        recorded: u64,
        /// Entries that are there.
        found: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A checkpoint is not believed.
    #[error("{file}: {cause}", file = file.display())]
    Checkpoint {
        /// The checkpoint.
        file: PathBuf,
        /// Why not.
        cause: CheckpointError,
    },
    /// There is no such record, tile or size.
    #[error("the log has {size} entries and nothing at {index}")]
    Absent {
        /// What was asked for.
        index: u64,
        /// How many entries there are.
        size: u64,
    },
    /// The configuration is unusable.
    #[error("{reason}")]
    Config {
        /// What is wrong.
        reason: &'static str,
    },
    /// The file system refused.
    #[error("{file}: {cause}", file = file.display())]
    Io {
        /// Where.
        file: PathBuf,
        /// Why.
        cause: Arc<io::Error>,
    },
}

impl LogError {
    fn io(file: &Path, cause: io::Error) -> Self {
        Self::Io { file: file.to_owned(), cause: Arc::new(cause) }
    }
}

/// Bytes of the longest entry: C2SP tlog-tiles gives an entry's length 16 bits.
const ENTRY_MOST: usize = 65_535;
