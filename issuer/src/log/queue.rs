//! What the handles and the writer thread share: the bounded queue, the durable size, the counters.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::{Class, LogError, LogStatistics, checkpoint::SignedCheckpoint, tree::Hash};

/// An entry that waits to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Vec<u8>,
    pub(super) leaf: Hash,
    /// Who waits for the index; nobody after `append_later`.
    pub(super) answer: Option<oneshot::Sender<Result<u64, LogError>>>,
}

impl Waiting {
    pub(super) fn answer(self, answer: Result<u64, LogError>) {
        if let Some(sender) = self.answer {
            // Who stopped waiting has no use for the answer; the entry stays.
            let _ = sender.send(answer);
        }
    }
}

/// What the writer has to do next.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) group: Vec<Waiting>,
    /// The time for a checkpoint has come.
    pub(super) due: bool,
    /// Nothing will come after this.
    pub(super) last: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    due: bool,
    closing: bool,
    /// The writer thread is gone.
    ended: bool,
    closers: Vec<oneshot::Sender<Result<(), LogError>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Durable entries.
    size: AtomicU64,
    /// INVARIANT: never goes back to `false`: after an error of the disk nothing in memory can be trusted.
    failed: AtomicBool,
    /// Bytes free on the disk, as last asked, less what was written since.
    free_bytes: AtomicU64,
    reserve_bytes: u64,
    latest: ArcSwap<SignedCheckpoint>,
    pub(super) counters: Counters,
}

/// Counts since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) checkpoint_failures: AtomicU64,
    pub(super) tile_failures: AtomicU64,
    refused_busy: AtomicU64,
    refused_space: AtomicU64,
}

impl Shared {
    pub(super) fn new(size: u64, latest: SignedCheckpoint, reserve_bytes: u64, free_bytes: u64) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            size: AtomicU64::new(size),
            failed: AtomicBool::new(false),
            free_bytes: AtomicU64::new(free_bytes),
            reserve_bytes,
            latest: ArcSwap::from_pointee(latest),
            counters: Counters::default(),
        }
    }

    /// Queues an entry, or says at once why not.
    pub(super) fn push(&self, class: Class, waiting: Waiting) -> Result<(), LogError> {
        if !self.has_space(class) {
            self.counters.refused_space.fetch_add(1, Ordering::Relaxed);
            return Err(LogError::NoSpace);
        }
        let mut queue = self.lock();
        if self.failed() {
            return Err(LogError::Failed);
        }
        if queue.closing || queue.ended {
            return Err(LogError::Closed);
        }
        // Less urgent classes leave room, so that a flood of denials cannot keep a revocation out.
        let (numerator, denominator) = match class {
            Class::Vital => (1, 1),
            Class::Routine => (3, 4),
            Class::Denial => (1, 2),
        };
        let bytes = queue.bytes + waiting.entry.len();
        if queue.waiting.len() >= QUEUE_ENTRIES * numerator / denominator
            || bytes > QUEUE_BYTES * numerator / denominator
        {
            self.counters.refused_busy.fetch_add(1, Ordering::Relaxed);
            return Err(LogError::Busy);
        }
        queue.bytes = bytes;
        queue.waiting.push_back(waiting);
        let wake = queue.waiting.len() == 1 || queue.waiting.len() == GATHER_ENTRIES;
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for the next group. `last_group` is how many entries the group before had.
    pub(super) fn take(&self, last_group: usize) -> Work {
        let mut queue = self.lock();
        while queue.waiting.is_empty() && !queue.due && !queue.closing {
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue = self.gather(queue, last_group);
        let mut work = Work { due: std::mem::take(&mut queue.due), ..Work::default() };
        let mut bytes = 0;
        while work.group.len() < GROUP_ENTRIES && bytes < GROUP_BYTES {
            let Some(waiting) = queue.waiting.pop_front() else { break };
            bytes += waiting.entry.len();
            work.group.push(waiting);
        }
        queue.bytes -= bytes;
        work.last = queue.closing && queue.waiting.is_empty();
        work
    }

    /// Lets a group grow while others are arriving anyway, so that a quick disk does not get a flush per
    /// entry. A lone caller never waits here; under load the pauses grow with the groups.
    fn gather<'q>(&'q self, mut queue: MutexGuard<'q, Queue>, last_group: usize) -> MutexGuard<'q, Queue> {
        let pauses = (last_group.max(queue.waiting.len()) / 2).min(GATHER_PAUSES);
        for _ in 0..pauses {
            let before = queue.waiting.len();
            if before == 0 || before >= GATHER_ENTRIES || queue.closing {
                break;
            }
            let waited = self.wake.wait_timeout(queue, GATHER_PAUSE);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            if queue.waiting.len() == before {
                break;
            }
        }
        queue
    }

    /// Says that the time for a checkpoint has come.
    pub(super) fn tick(&self) {
        self.lock().due = true;
        self.wake.notify_one();
    }

    /// Takes no more entries; the writer drains the queue and ends.
    pub(super) fn begin_close(&self, closer: Option<oneshot::Sender<Result<(), LogError>>>) {
        let mut queue = self.lock();
        queue.closing = true;
        match closer {
            Some(closer) if queue.ended => drop(closer.send(self.outcome())),
            Some(closer) => queue.closers.push(closer),
            None => {}
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Refuses everything from now on.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.begin_close(None);
    }

    /// The writer thread is gone: answers who still waits.
    pub(super) fn end(&self) {
        let mut queue = self.lock();
        queue.ended = true;
        queue.bytes = 0;
        let waiting = std::mem::take(&mut queue.waiting);
        let closers = std::mem::take(&mut queue.closers);
        drop(queue);
        waiting.into_iter().for_each(|waiting| waiting.answer(Err(LogError::Failed)));
        for closer in closers {
            let _ = closer.send(self.outcome());
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.lock().ended
    }

    fn outcome(&self) -> Result<(), LogError> {
        if self.failed() { Err(LogError::Failed) } else { Ok(()) }
    }

    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    pub(super) fn latest(&self) -> SignedCheckpoint {
        SignedCheckpoint::clone(&self.latest.load())
    }

    pub(super) fn set_latest(&self, checkpoint: SignedCheckpoint) {
        self.latest.store(checkpoint.into());
    }

    pub(super) fn set_free_bytes(&self, free_bytes: u64) {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
    }

    /// Only the writer thread calls this.
    pub(super) fn spend(&self, bytes: u64) {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        self.free_bytes.store(free_bytes.saturating_sub(bytes), Ordering::Relaxed);
    }

    fn has_space(&self, class: Class) -> bool {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        match class {
            Class::Vital => true,
            Class::Routine => free_bytes >= self.reserve_bytes,
            Class::Denial => free_bytes >= self.reserve_bytes.saturating_mul(2),
        }
    }

    pub(super) fn statistics(&self) -> LogStatistics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStatistics {
            entries: read(&self.counters.entries),
            bytes: read(&self.counters.bytes),
            flushes: read(&self.counters.flushes),
            checkpoints: read(&self.counters.checkpoints),
            checkpoint_failures: read(&self.counters.checkpoint_failures),
            tile_failures: read(&self.counters.tile_failures),
            refused_busy: read(&self.counters.refused_busy),
            refused_space: read(&self.counters.refused_space),
            free_bytes: read(&self.free_bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that may wait at once.
pub(super) const QUEUE_ENTRIES: usize = 8192;
/// Bytes that may wait at once.
const QUEUE_BYTES: usize = 16 << 20;
/// Entries in one group; at most 65,536, since a frame's place in its group has 16 bits.
const GROUP_ENTRIES: usize = 4096;
/// Bytes of entries after which a group is full.
pub(super) const GROUP_BYTES: usize = 4 << 20;
/// Enough entries to flush at once.
const GATHER_ENTRIES: usize = 32;
const GATHER_PAUSES: usize = 8;
const GATHER_PAUSE: Duration = Duration::from_micros(250);
