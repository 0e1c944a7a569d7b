//! The one thread that writes: group commit, rotation, tiles, checkpoints.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use super::{
    LogConfig, LogError,
    checkpoint::CheckpointSigner,
    disk::{self, Disk},
    queue::{Shared, Waiting},
    segment, tile,
    tree::Tree,
};

/// What the writer thread owns.
pub(super) struct Writer {
    pub(super) config: LogConfig,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) signer: CheckpointSigner,
    pub(super) shared: Arc<Shared>,
    pub(super) tree: Tree,
    pub(super) tail: Option<Tail>,
    /// Held as long as the thread lives: the exclusive lock on the folder.
    pub(super) lock: File,
}

/// The segment that is appended to.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) file: Arc<File>,
    /// INVARIANT: everything before `end` is durable.
    pub(super) end: u64,
}

/// Why a group was not written.
enum Refusal {
    /// There is no space; there may be later.
    Space,
    /// The disk failed: nothing is certain any more.
    Disk(&'static str, io::Error),
}

impl Writer {
    /// Starts the writer's threads: the writer, and one that says each second that a checkpoint is due.
    pub(super) fn start(self) -> Result<(), LogError> {
        let (alive, gone) = mpsc::channel::<()>();
        let shared = Arc::clone(&self.shared);
        let failure = |cause: io::Error| LogError::io(&self.config.folder, cause);
        let interval = thread::Builder::new().name("log-interval".to_owned()).spawn(move || {
            while gone.recv_timeout(CHECKPOINT_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                shared.tick();
            }
        });
        interval.map_err(failure)?;
        let folder = self.config.folder.clone();
        let shared = Arc::clone(&self.shared);
        let writer = thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            let _alive = alive;
            let _ended = Ended(shared);
            self.run();
        });
        writer.map(drop).map_err(|cause| LogError::io(&folder, cause))
    }

    /// Runs until the log is closed and drained, or has failed. Gives the lock back before anybody is told.
    fn run(mut self) {
        let mut last_group = 0;
        let mut unsigned = 0;
        let mut groups = 0_u32;
        loop {
            let work = self.shared.take(last_group);
            if self.shared.failed() {
                work.group.into_iter().for_each(|waiting| waiting.answer(Err(LogError::Failed)));
                break;
            }
            if !work.group.is_empty() {
                last_group = work.group.len();
                unsigned += last_group;
                groups = groups.wrapping_add(1);
                self.commit(work.group);
            }
            if work.due || groups.is_multiple_of(SPACE_GROUPS) {
                self.ask_space();
            }
            if work.due || work.last || unsigned >= CHECKPOINT_ENTRIES {
                unsigned = 0;
                self.publish_checkpoint();
            }
            if work.last || self.shared.failed() {
                break;
            }
        }
        drop(self.lock);
    }

    /// Writes a group, makes it durable, answers, and lets the tree grow.
    fn commit(&mut self, group: Vec<Waiting>) {
        match self.write(&group) {
            Ok(()) => {}
            Err(Refusal::Space) => {
                tracing::error!(entries = group.len(), "no space for log entries");
                self.shared.set_free_bytes(0);
                group.into_iter().for_each(|waiting| waiting.answer(Err(LogError::NoSpace)));
                return;
            }
            Err(Refusal::Disk(doing, error)) => {
                tracing::error!(doing, %error, "the log failed");
                self.shared.fail();
                group.into_iter().for_each(|waiting| waiting.answer(Err(LogError::Failed)));
                return;
            }
        }
        let first = self.tree.size();
        self.shared.set_size(first + group.len() as u64);
        self.shared.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.entries.fetch_add(group.len() as u64, Ordering::Relaxed);
        let leaves: Vec<_> = group.iter().map(|waiting| waiting.leaf).collect();
        for (index, waiting) in (first..).zip(group) {
            waiting.answer(Ok(index));
        }
        for leaf in leaves {
            self.tree.push(leaf, |id, hashes| {
                // A missing tile is derived again: it must not stop what is recorded already.
                if let Err(error) = tile::write(&*self.disk, &self.config.folder, id, hashes) {
                    tracing::warn!(%error, "a tile of the log was not written");
                    self.shared.counters.tile_failures.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }

    /// INVARIANT: a group is written only when the one before it is durable, so that after a crash at most
    /// one group is torn.
    fn write(&mut self, group: &[Waiting]) -> Result<(), Refusal> {
        let full = |tail: &Tail| tail.end >= self.config.segment_bytes;
        let tail = match self.tail.take() {
            Some(tail) if !full(&tail) => tail,
            // A full segment needs no second look: all of it is durable.
            _ => self.new_segment()?,
        };
        let tail = self.tail.insert(tail);
        let mut buffer =
            Vec::with_capacity(group.iter().map(|w| w.entry.len() + segment::FRAME_HEADER).sum());
        for ((index, place), waiting) in (self.tree.size()..).zip(0_u16..).zip(group) {
            segment::encode_frame(&mut buffer, index, place, &waiting.entry);
        }
        if let Err(error) = self.disk.write(&tail.file, tail.end, &buffer) {
            if !disk::is_out_of_space(&error) {
                return Err(Refusal::Disk("writing", error));
            }
            let cut = self.disk.truncate(&tail.file, tail.end);
            return Err(cut.map_or_else(|error| Refusal::Disk("cutting off", error), |()| Refusal::Space));
        }
        // A failed sync may have dropped the pages: a second one could succeed and mean nothing.
        self.disk.sync(&tail.file).map_err(|error| Refusal::Disk("syncing", error))?;
        tail.end += buffer.len() as u64;
        self.shared.spend(buffer.len() as u64);
        self.shared.counters.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn new_segment(&self) -> Result<Tail, Refusal> {
        let first = self.tree.size();
        let path = self.config.folder.join(segment::file_name(first));
        let header = segment::encode_header(&self.config.origin, first);
        let refusal = |doing| {
            let path = path.clone();
            move |error: io::Error| {
                if !disk::is_out_of_space(&error) {
                    return Refusal::Disk(doing, error);
                }
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Refusal::Disk("removing", error),
                    _ => Refusal::Space,
                }
            }
        };
        let file = self.disk.create(&path).map_err(refusal("creating a segment"))?;
        self.disk.write(&file, 0, &header).map_err(refusal("writing a header"))?;
        self.disk.sync(&file).map_err(|error| Refusal::Disk("syncing a segment", error))?;
        self.disk
            .sync_folder(&self.config.folder)
            .map_err(|error| Refusal::Disk("syncing the folder", error))?;
        Ok(Tail { file: Arc::new(file), end: header.len() as u64 })
    }

    /// INVARIANT: a checkpoint covers durable entries only, and the anchor never runs ahead of the folder's own.
    fn publish_checkpoint(&self) {
        if self.tree.size() == self.shared.latest().size() {
            return;
        }
        let signed = match self.signer.sign(self.tree.size(), self.tree.root()) {
            Ok(signed) => signed,
            Err(error) => return self.checkpoint_failed(&error),
        };
        let own = self.config.folder.join(CHECKPOINT_FILE);
        match disk::replace(&*self.disk, &own, signed.note().as_bytes(), disk::Durable::Now) {
            Ok(()) => {}
            Err(error) if disk::is_out_of_space(&error) => return self.checkpoint_failed(&error),
            Err(error) => {
                self.shared.fail();
                return self.checkpoint_failed(&error);
            }
        }
        if let Some(anchor) = &self.config.anchor
            && let Err(error) =
                disk::replace(&*self.disk, anchor, signed.note().as_bytes(), disk::Durable::Now)
        {
            // The anchor stays behind, which is safe; the next checkpoint tries again.
            self.checkpoint_failed(&error);
        }
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.shared.set_latest(signed);
    }

    fn checkpoint_failed(&self, error: &dyn std::error::Error) {
        tracing::error!(%error, "a checkpoint of the log was not written");
        self.shared.counters.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
    }

    fn ask_space(&self) {
        match self.disk.free_bytes(&self.config.folder) {
            Ok(free_bytes) => self.shared.set_free_bytes(free_bytes),
            Err(error) => tracing::warn!(%error, "the free space of the log is not known"),
        }
    }
}

/// Tells who waits that the thread is gone, however it went.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
        self.0.end();
    }
}

/// The file of the latest checkpoint in the log's folder.
pub(super) const CHECKPOINT_FILE: &str = "checkpoint";
/// A checkpoint at least each so many entries.
const CHECKPOINT_ENTRIES: usize = 65_536;
/// A checkpoint at most so long after an entry.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Free space is asked at least each so many groups.
const SPACE_GROUPS: u32 = 256;
