//! The log's tests: what they share, and how an open log behaves.

mod crash;
mod damage;
mod load;
mod oracle;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{
    Class, Finding, Log, LogConfig, LogError, LogReader, Recovery,
    checkpoint::{CheckpointError, CheckpointSigner},
    disk::{Disk, RealDisk},
    queue::QUEUE_ENTRIES,
    recover::CHECKED_BYTES,
    segment,
};

const ORIGIN: &str = "broker.example/log/test";

/// A folder, an anchor beside it, and a key.
struct Place {
    root: TempDir,
    key: Zeroizing<Vec<u8>>,
    segment_bytes: u64,
    reserve_bytes: u64,
}

impl Place {
    fn new(segment_bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, key: CheckpointSigner::generate_pkcs8().unwrap(), segment_bytes, reserve_bytes: 0 }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("log")
    }

    fn anchor(&self) -> PathBuf {
        self.root.path().join("anchor")
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder().join("checkpoint")
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            folder: self.folder(),
            origin: ORIGIN.to_owned(),
            anchor: Some(self.anchor()),
            segment_bytes: self.segment_bytes,
            reserve_bytes: self.reserve_bytes,
        }
    }

    fn signer(&self) -> CheckpointSigner {
        CheckpointSigner::from_pkcs8(ORIGIN, &self.key).unwrap()
    }

    fn open(&self) -> Result<(Log, Recovery), LogError> {
        self.open_on(Arc::new(TestDisk::default()))
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<(Log, Recovery), LogError> {
        Log::open_on(disk, self.config(), self.signer(), CHECKED_BYTES)
    }

    /// Fills an empty log with `entry(0)..entry(count)`, each in its own group, and closes it.
    async fn fill(&self, from: u64, to: u64) {
        let (log, _) = self.open().unwrap();
        for index in from..to {
            assert_eq!(log.append(Class::Vital, entry(index)).await.unwrap(), index);
        }
        log.close().await.unwrap();
    }

    fn verify(&self) -> Result<super::Verified, Vec<Finding>> {
        let verifier = self.signer().verifier().clone();
        LogReader::open(&self.folder()).unwrap().verify(Some(&verifier), Some(&self.anchor()), &mut |_, _| {})
    }

    fn segments(&self) -> Vec<PathBuf> {
        let firsts = segment::list(&self.folder()).unwrap();
        firsts.into_iter().map(|first| self.folder().join(segment::file_name(first))).collect()
    }
}

/// Entries of different lengths.
fn entry(index: u64) -> Vec<u8> {
    format!("{{\"entry\":{index},\"pad\":\"{}\"}}", "x".repeat((index % 7) as usize)).into_bytes()
}

fn assert_prefix(reader: &LogReader, size: u64) {
    let entries: Vec<_> = reader.entries(0, u64::MAX).map(Result::unwrap).collect();
    assert_eq!(entries, (0..size).map(|index| (index, entry(index))).collect::<Vec<_>>());
}

/// The disk without waiting for it, and with faults.
#[derive(Default)]
struct TestDisk {
    fault: Mutex<Option<Fault>>,
    /// Operations so far.
    steps: AtomicU64,
    sync_fails: AtomicBool,
    /// Bytes that may still be written, where limited.
    space: Mutex<Option<u64>>,
    /// Held by a test to keep the writer waiting.
    gate: Mutex<()>,
}

#[derive(Clone, Copy)]
enum Fault {
    /// The process dies in this step: half of it is done, and nothing after it.
    CrashAt(u64),
    /// There is no space in this one step.
    FullAt(u64),
}

impl TestDisk {
    fn with(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault: Mutex::new(Some(fault)), ..Self::default() })
    }

    /// Counts a step; `half` is what a crash in it still does.
    fn step(&self, needs_space: bool, half: impl FnOnce()) -> io::Result<()> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        match *self.fault.lock().unwrap() {
            Some(Fault::CrashAt(at)) if step == at => {
                half();
                Err(io::Error::other("crashed"))
            }
            Some(Fault::CrashAt(at)) if step > at => Err(io::Error::other("crashed")),
            Some(Fault::FullAt(at)) if step == at && needs_space => {
                half();
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.step(true, || ())?;
        RealDisk.create(path)
    }

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(true, || RealDisk.write(file, offset, &bytes[..bytes.len() / 2]).unwrap())?;
        if let Some(space) = &mut *self.space.lock().unwrap() {
            let fits = usize::try_from(*space).unwrap().min(bytes.len());
            *space -= fits as u64;
            if fits < bytes.len() {
                RealDisk.write(file, offset, &bytes[..fits])?;
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        RealDisk.write(file, offset, bytes)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.step(false, || ())?;
        drop(self.gate.lock().unwrap());
        if self.sync_fails.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.step(false, || ())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.step(false, || ())?;
        RealDisk.truncate(file, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(false, || ())?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(false, || ())?;
        RealDisk.remove(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.space.lock().unwrap().unwrap_or(u64::MAX))
    }
}

#[tokio::test]
async fn appended_entries_are_read_back() {
    let place = Place::new(512);
    let (log, recovery) = place.open().unwrap();
    assert_eq!((recovery.size, recovery.torn_bytes_dropped, recovery.anchored), (0, 0, None));
    assert_eq!((log.size(), log.checkpoint().size()), (0, 0));
    let reader = log.reader();
    for index in 0..200 {
        assert_eq!(log.append(Class::Routine, entry(index)).await.unwrap(), index);
        assert_eq!(reader.entry(index).unwrap(), entry(index));
    }
    log.append_later(Class::Denial, entry(200)).unwrap();
    log.close().await.unwrap();
    assert_eq!((log.size(), log.checkpoint().size()), (201, 201));
    assert_prefix(&reader, 201);
    assert_prefix(&LogReader::open(&place.folder()).unwrap(), 201);
    assert!(place.segments().len() > 10, "segments are rotated");
    let verified = place.verify().unwrap();
    assert_eq!((verified.size, verified.signed, verified.anchored), (201, Some(201), Some(201)));
    assert_eq!((verified.root, verified.origin.as_deref()), (log.checkpoint().root(), Some(ORIGIN)));
}

#[tokio::test]
async fn ranges_and_the_tail_are_read_over_segments() {
    let place = Place::new(512);
    place.fill(0, 300).await;
    let reader = LogReader::open(&place.folder()).unwrap();
    let range: Vec<u64> = reader.entries(95, 240).map(|entry| entry.unwrap().0).collect();
    assert_eq!(range, (95..240).collect::<Vec<_>>());
    let tail: Vec<_> = reader.tail(170).map(Result::unwrap).collect();
    assert_eq!(tail, (130..300).rev().map(|index| (index, entry(index))).collect::<Vec<_>>());
    assert_eq!(reader.tail(1000).count(), 300);
    assert_eq!(reader.entries(300, 400).count(), 0);
    assert!(matches!(reader.entry(300), Err(LogError::Absent { index: 300, size: 300 })));
    assert!(matches!(reader.entry(u64::MAX), Err(LogError::Absent { .. })));
}

#[tokio::test]
async fn entries_are_bounded() {
    let place = Place::new(1 << 20);
    let (log, _) = place.open().unwrap();
    assert!(matches!(log.append(Class::Vital, Vec::new()).await, Err(LogError::Length { bytes: 0 })));
    let longest = vec![7; 65_535];
    assert!(matches!(
        log.append(Class::Vital, vec![7; 65_536]).await,
        Err(LogError::Length { bytes: 65_536 })
    ));
    assert_eq!(log.append(Class::Vital, longest.clone()).await.unwrap(), 0);
    assert_eq!(log.reader().entry(0).unwrap(), longest);
}

#[tokio::test]
async fn a_closed_log_takes_nothing() {
    let place = Place::new(1 << 20);
    let (log, _) = place.open().unwrap();
    log.append(Class::Vital, entry(0)).await.unwrap();
    log.close().await.unwrap();
    log.close().await.unwrap();
    assert!(matches!(log.append(Class::Vital, entry(1)).await, Err(LogError::Closed)));
    assert!(matches!(log.append_later(Class::Vital, entry(1)), Err(LogError::Closed)));
}

#[tokio::test]
async fn a_reopened_log_goes_on() {
    let place = Place::new(700);
    for round in 0..5 {
        place.fill(round * 130, (round + 1) * 130).await;
    }
    let (log, recovery) = place.open().unwrap();
    assert_eq!((recovery.size, recovery.beyond_checkpoint, recovery.anchored), (650, 0, Some(650)));
    assert!(!recovery.tiles_rebuilt);
    assert_prefix(&log.reader(), 650);
    log.close().await.unwrap();
    place.verify().unwrap();
}

#[tokio::test]
async fn two_cannot_have_one_folder_open() {
    let place = Place::new(1 << 20);
    let (log, _) = place.open().unwrap();
    assert!(matches!(place.open(), Err(LogError::Locked { .. })));
    log.append(Class::Vital, entry(0)).await.unwrap();
    log.close().await.unwrap();
    let (again, recovery) = place.open().unwrap();
    assert_eq!(recovery.size, 1);
    again.close().await.unwrap();
}

#[tokio::test]
async fn files_are_for_their_owner_only() {
    let place = Place::new(100);
    place.fill(0, 300).await;
    let mut folders = vec![place.folder()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            }
        }
    }
    assert!(files > 10);
}

#[tokio::test]
async fn the_queue_is_bounded_and_leaves_room_for_what_is_vital() {
    let place = Place::new(1 << 30);
    let disk = Arc::new(TestDisk::default());
    let (log, _) = place.open_on(disk.clone()).unwrap();
    let gate = disk.gate.lock().unwrap();
    let fill = |class| {
        let mut queued = 0;
        while log.append_later(class, entry(0)).is_ok() {
            queued += 1;
            assert!(queued <= 2 * QUEUE_ENTRIES, "the queue has no bound");
        }
        assert!(matches!(log.append_later(class, entry(0)), Err(LogError::Busy)));
        queued
    };
    assert!(fill(Class::Denial) > 0);
    assert!(fill(Class::Routine) > 0);
    assert!(fill(Class::Vital) > 0);
    assert_eq!(log.statistics().refused_busy, 6);
    drop(gate);
    log.close().await.unwrap();
    place.verify().unwrap();
}

#[tokio::test]
async fn the_reserve_is_kept_for_what_is_vital() {
    let mut place = Place::new(1 << 30);
    place.reserve_bytes = 10_000;
    let disk = Arc::new(TestDisk::default());
    let (log, _) = place.open_on(disk.clone()).unwrap();
    let ask = |free: u64| {
        *disk.space.lock().unwrap() = Some(free);
        log.handle.shared.tick();
    };
    let mut index = 0;
    for (free, routine, denial) in
        [(20_001_000, true, true), (15_000, true, false), (5_000, false, false), (20_002_000, true, true)]
    {
        ask(free);
        // The writer asks for space in the same round, or in the one before the second of these.
        for _ in 0..2 {
            assert_eq!(log.append(Class::Vital, entry(index)).await.unwrap(), index);
            index += 1;
        }
        for (class, taken) in [(Class::Routine, routine), (Class::Denial, denial)] {
            let answer = log.append(class, entry(index)).await;
            assert_eq!(answer.is_ok(), taken, "{class:?} with {free} bytes free: {answer:?}");
            assert!(taken || matches!(answer, Err(LogError::NoSpace)));
            index += u64::from(taken);
        }
    }
    log.close().await.unwrap();
    assert_prefix(&log.reader(), index);
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    let place = Place::new(1 << 30);
    let disk = Arc::new(TestDisk::default());
    let (log, _) = place.open_on(disk.clone()).unwrap();
    for index in 0..5 {
        log.append(Class::Vital, entry(index)).await.unwrap();
    }
    *disk.space.lock().unwrap() = Some(20);
    assert!(matches!(log.append(Class::Vital, entry(5)).await, Err(LogError::NoSpace)));
    assert!(matches!(log.append(Class::Vital, entry(5)).await, Err(LogError::NoSpace)));
    assert!(!log.failed());
    *disk.space.lock().unwrap() = None;
    assert_eq!(log.append(Class::Vital, entry(5)).await.unwrap(), 5);
    log.close().await.unwrap();
    assert_prefix(&LogReader::open(&place.folder()).unwrap(), 6);
    place.verify().unwrap();
}

#[tokio::test]
async fn a_failed_sync_ends_the_log() {
    let place = Place::new(1 << 30);
    let disk = Arc::new(TestDisk::default());
    let (log, _) = place.open_on(disk.clone()).unwrap();
    log.append(Class::Vital, entry(0)).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(log.append(Class::Vital, entry(1)).await, Err(LogError::Failed)));
    // The disk may say that all is well again: it is not believed.
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(log.append(Class::Vital, entry(2)).await, Err(LogError::Failed)));
    assert!(matches!(log.close().await, Err(LogError::Failed)));
    assert!(log.failed());
    assert_eq!(log.size(), 1);
    let (log, recovery) = place.open().unwrap();
    assert!(
        (1..=2).contains(&recovery.size),
        "an entry that was refused may be there, none that was answered is lost"
    );
    assert_prefix(&log.reader(), recovery.size);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_follows_each_tick_with_news() {
    let place = Place::new(1 << 30);
    let (log, _) = place.open().unwrap();
    log.append(Class::Vital, entry(0)).await.unwrap();
    log.handle.shared.tick();
    log.append(Class::Vital, entry(1)).await.unwrap();
    log.append(Class::Vital, entry(2)).await.unwrap();
    let first = log.checkpoint();
    assert!(first.size() >= 1, "signed in the round of one of the appends");
    assert_eq!(fs::read_to_string(place.checkpoint()).unwrap(), first.note());
    assert_eq!(fs::read_to_string(place.anchor()).unwrap(), first.note());
    log.close().await.unwrap();
    assert_eq!(log.checkpoint().size(), 3);
    assert_eq!(fs::read_to_string(place.checkpoint()).unwrap(), log.checkpoint().note());
}

#[tokio::test]
async fn an_unwritable_anchor_delays_nothing() {
    let place = Place::new(1 << 30);
    let (log, _) = place.open().unwrap();
    fs::remove_file(place.anchor()).unwrap();
    fs::create_dir(place.anchor()).unwrap();
    log.append(Class::Vital, entry(0)).await.unwrap();
    log.close().await.unwrap();
    assert_eq!((log.checkpoint().size(), log.statistics().checkpoint_failures), (1, 1));
}

#[test]
fn unusable_configurations_are_refused() {
    let place = Place::new(1 << 20);
    let refused =
        |config: LogConfig| matches!(Log::open(config, place.signer()), Err(LogError::Config { .. }));
    assert!(refused(LogConfig { origin: "broker.example/log/other".to_owned(), ..place.config() }));
    assert!(refused(LogConfig { anchor: Some(place.folder().join("anchor")), ..place.config() }));
    assert!(refused(LogConfig { segment_bytes: 0, ..place.config() }));
    for name in ["", "two words", "plus+sign", "line\nbreak", &"x".repeat(256)] {
        assert_eq!(CheckpointSigner::from_pkcs8(name, &place.key).unwrap_err(), CheckpointError::Name);
    }
    let no_key = Zeroizing::new(vec![1, 2, 3]);
    assert_eq!(CheckpointSigner::from_pkcs8(ORIGIN, &no_key).unwrap_err(), CheckpointError::Key);
}
