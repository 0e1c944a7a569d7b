//! Reads entries, tiles and proofs, beside a running log or without one.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    LogError,
    disk::Disk,
    entries::{Entries, Tail},
    proof::{self, Hashes},
    queue::Shared,
    segment::{self, FRAME_MOST, Frames, OpenError, Segment, Step},
    tile::{self, FULL, LEVELS, TileId},
    tree::{Hash, perfect_root, prefixed_leaf_hash},
};

/// Reads a log. It needs no lock, so it also works on the folder of a log that another process has open.
#[derive(Clone)]
pub struct LogReader {
    folder: PathBuf,
    extent: Extent,
    segments: Arc<Mutex<Segments>>,
    /// Where derived tiles are written back; only while the log is being recovered.
    repair: Option<Arc<dyn Disk>>,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogReader").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Extent {
    /// As many entries as the running log has.
    Live(Arc<Shared>),
    /// As many as were found.
    Fixed(u64),
}

/// The segments known, and those open.
#[derive(Debug, Default)]
struct Segments {
    /// The first index of each, ascending.
    firsts: Vec<u64>,
    /// At most [`OPEN_MOST`], the latest used last.
    open: VecDeque<(u64, Arc<Mutex<Marks>>)>,
}

/// Where some of a segment's entries stand, learnt as they are asked for.
#[derive(Debug)]
struct Marks {
    segment: Segment,
    /// Offset of each [`MARK_EVERY`]th frame, from the first on.
    offsets: Vec<u64>,
    next_index: u64,
    next_offset: u64,
}

impl LogReader {
    /// Opens a log's folder for reading. Finds its size by the sound frames of the last segment.
    ///
    /// # Errors
    /// [`LogError::Io`] where the folder or its last segment cannot be read.
    pub fn open(folder: &Path) -> Result<Self, LogError> {
        let firsts = segment::list(folder).map_err(|cause| LogError::io(folder, cause))?;
        let mut size = 0;
        if let Some(&last) = firsts.last() {
            size = last;
            match Segment::open(folder, last, false) {
                Ok(segment) => {
                    let mut frames = segment.frames();
                    while let Step::Frame(_) =
                        frames.step().map_err(|cause| LogError::io(&segment.path, cause))?
                    {
                    }
                    size = frames.next_index();
                }
                Err(OpenError::Header(_)) => {}
                Err(OpenError::Io(cause)) => return Err(LogError::io(folder, cause)),
            }
        }
        Ok(Self::new(folder, Extent::Fixed(size), None))
    }

    pub(super) fn live(folder: &Path, shared: Arc<Shared>) -> Self {
        Self::new(folder, Extent::Live(shared), None)
    }

    pub(super) fn repairing(folder: &Path, size: u64, disk: Arc<dyn Disk>) -> Self {
        Self::new(folder, Extent::Fixed(size), Some(disk))
    }

    fn new(folder: &Path, extent: Extent, repair: Option<Arc<dyn Disk>>) -> Self {
        Self { folder: folder.to_owned(), extent, segments: Arc::default(), repair }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many entries can be read.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.extent {
            Extent::Live(shared) => shared.size(),
            Extent::Fixed(size) => *size,
        }
    }

    /// The entry at `index`.
    ///
    /// # Errors
    /// [`LogError::Absent`], [`LogError::Damaged`] or [`LogError::Io`].
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let mut entries = self.entries(index, index.saturating_add(1));
        entries.next().map_or_else(|| Err(self.absent(index)), |entry| entry.map(|(_, entry)| entry))
    }

    /// The entries from `from` up to, not including, `to`, ascending; what the log does not have is left out.
    #[must_use]
    pub fn entries(&self, from: u64, to: u64) -> Entries {
        Entries::new(self.clone(), from, to.min(self.size()))
    }

    /// The newest `count` entries, the newest first.
    #[must_use]
    pub fn tail(&self, count: u64) -> Tail {
        let end = self.size();
        Tail::new(self.clone(), end.saturating_sub(count), end)
    }

    /// The hash tile at `level`, `number` with its first `width` hashes (C2SP tlog-tiles, "Merkle Tree").
    ///
    /// # Errors
    /// [`LogError::Absent`] where the log has not so many; [`LogError::Damaged`]; [`LogError::Io`].
    pub fn tile(&self, level: u8, number: u64, width: u16) -> Result<Vec<u8>, LogError> {
        Ok(self.tile_hashes(TileId { level, number }, width)?.as_flattened().to_vec())
    }

    /// The entries of the level-0 tile `number`, each with its length in 16 bits (C2SP tlog-tiles, "Log Entries").
    ///
    /// # Errors
    /// As [`LogReader::tile`].
    pub fn entry_bundle(&self, number: u64, width: u16) -> Result<Vec<u8>, LogError> {
        let first = self.tile_start(TileId { level: 0, number }, width)?;
        let mut bundle = Vec::new();
        for entry in self.entries(first, first + u64::from(width)) {
            let (_, entry) = entry?;
            bundle.extend(u16::try_from(entry.len()).unwrap_or(u16::MAX).to_be_bytes());
            bundle.extend(entry);
        }
        Ok(bundle)
    }

    /// The root of the tree's first `size` entries.
    ///
    /// # Errors
    /// As [`LogReader::tile`].
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        self.has(size)?;
        proof::root(&mut Hashes::new(self), size)
    }

    /// The proof that the tree of `size` entries includes that at `index` (RFC 9162 §2.1.3.1).
    ///
    /// # Errors
    /// As [`LogReader::tile`].
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        self.has(size)?;
        if index >= size {
            return Err(LogError::Absent { index, size });
        }
        proof::inclusion(&mut Hashes::new(self), index, size)
    }

    /// The proof that the tree of `old` entries is the beginning of that of `new` (RFC 9162 §2.1.4.1).
    ///
    /// # Errors
    /// As [`LogReader::tile`].
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
        self.has(new)?;
        if old > new {
            return Err(LogError::Absent { index: old, size: new });
        }
        proof::consistency(&mut Hashes::new(self), old, new)
    }

    pub(super) fn tile_hashes(&self, id: TileId, width: u16) -> Result<Vec<Hash>, LogError> {
        let start = self.tile_start(id, width)?;
        if width == FULL
            && let Some(hashes) = tile::read(&self.folder, id).map_err(|e| LogError::io(&self.folder, e))?
        {
            return Ok(hashes);
        }
        let mut hashes = Vec::with_capacity(usize::from(width));
        match id.level.checked_sub(1) {
            None => {
                let mut frames = self.seek(start)?;
                for index in start..start + u64::from(width) {
                    self.next_frame(&mut frames, index, |leaf| hashes.push(prefixed_leaf_hash(leaf)))?;
                }
            }
            Some(below) => {
                for number in (id.number * u64::from(FULL)..).take(usize::from(width)) {
                    hashes.push(perfect_root(&self.tile_hashes(TileId { level: below, number }, FULL)?));
                }
            }
        }
        if let Some(disk) = self.repair.as_ref().filter(|_| width == FULL)
            && let Err(error) = tile::write(&**disk, &self.folder, id, &hashes)
        {
            tracing::warn!(%error, "a tile of the log was not written");
        }
        Ok(hashes)
    }

    /// The first hash's number in a tile's level, if the log has `width` from there on.
    fn tile_start(&self, id: TileId, width: u16) -> Result<u64, LogError> {
        let absent = || self.absent(id.number);
        if id.level >= LEVELS || width == 0 || width > FULL {
            return Err(absent());
        }
        let start = id.number.checked_mul(u64::from(FULL)).ok_or_else(absent)?;
        let end = start.checked_add(u64::from(width)).ok_or_else(absent)?;
        if end > self.size() >> (8 * u32::from(id.level)) { Err(absent()) } else { Ok(start) }
    }

    fn has(&self, size: u64) -> Result<(), LogError> {
        if size > self.size() { Err(self.absent(size)) } else { Ok(()) }
    }

    fn absent(&self, index: u64) -> LogError {
        LogError::Absent { index, size: self.size() }
    }

    /// Gives the leaf at `index`, which is the next or the first of the next segment.
    pub(super) fn next_frame(
        &self,
        frames: &mut Frames,
        index: u64,
        use_leaf: impl FnOnce(&[u8]),
    ) -> Result<(), LogError> {
        let failure = |cause| LogError::io(&self.folder, cause);
        if frames.at_end().map_err(failure)? {
            *frames = self.seek(index)?;
        }
        match frames.step().map_err(failure)? {
            Step::Frame(frame) => use_leaf(frame.leaf),
            Step::End => return Err(self.damaged(index, "the record is missing")),
            Step::Broken(reason) => return Err(self.damaged(index, reason)),
        }
        Ok(())
    }

    fn damaged(&self, index: u64, reason: &'static str) -> LogError {
        let first = self.lock().first_of(index).unwrap_or(0);
        LogError::Damaged { index, file: self.folder.join(segment::file_name(first)), reason }
    }

    /// Frames whose next is that of `index`.
    pub(super) fn seek(&self, index: u64) -> Result<Frames, LogError> {
        let known = self.lock().first_of(index);
        if let Some(first) = known
            && let Some(frames) = self.seek_in(first, index)?
        {
            return Ok(frames);
        }
        // The newest segment known may not be the newest any more.
        let firsts = segment::list(&self.folder).map_err(|cause| LogError::io(&self.folder, cause))?;
        self.lock().firsts = firsts;
        let newer = self.lock().first_of(index);
        let frames = match newer {
            Some(first) if newer != known => self.seek_in(first, index)?,
            _ => None,
        };
        frames.ok_or_else(|| self.damaged(index, "the record is missing"))
    }

    fn marks(&self, first: u64) -> Result<Arc<Mutex<Marks>>, LogError> {
        let mut segments = self.lock();
        let at = segments.open.iter().position(|(open, _)| *open == first);
        let marks = match at.and_then(|at| segments.open.remove(at)) {
            Some((_, marks)) => marks,
            None => Arc::new(Mutex::new(Marks::new(self.open_segment(first)?))),
        };
        segments.open.push_back((first, Arc::clone(&marks)));
        if segments.open.len() > OPEN_MOST {
            segments.open.pop_front();
        }
        Ok(marks)
    }

    fn open_segment(&self, first: u64) -> Result<Segment, LogError> {
        let file = self.folder.join(segment::file_name(first));
        Segment::open(&self.folder, first, false).map_err(|error| match error {
            OpenError::Io(cause) => LogError::io(&file, cause),
            OpenError::Header(reason) => LogError::Damaged { index: first, file, reason },
        })
    }

    /// `None` where the segment ends before `index`.
    fn seek_in(&self, first: u64, index: u64) -> Result<Option<Frames>, LogError> {
        let failure = |cause| LogError::io(&self.folder, cause);
        let marks = self.marks(first)?;
        let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut frames = marks.nearest(index);
        while frames.next_index() <= index {
            marks.note(&frames);
            if frames.next_index() == index {
                // The segment's end looks the same as the next segment's beginning.
                let ended = frames.at_end().map_err(failure)?;
                return Ok((!ended).then_some(frames));
            }
            let at = frames.next_index();
            match frames.step().map_err(failure)? {
                Step::Frame(_) => {}
                Step::End => return Ok(None),
                Step::Broken(reason) => {
                    return Err(LogError::Damaged { index: at, file: marks.segment.path.clone(), reason });
                }
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segments {
    /// The first index of the segment that has `index`, as far as is known.
    fn first_of(&self, index: u64) -> Option<u64> {
        let after = self.firsts.partition_point(|&first| first <= index);
        self.firsts.get(after.checked_sub(1)?).copied()
    }
}

impl Marks {
    fn new(segment: Segment) -> Self {
        let (next_index, next_offset) = (segment.first, segment.header_bytes);
        Self { segment, offsets: Vec::new(), next_index, next_offset }
    }

    /// Frames that start at or before `index`, as near as is known.
    fn nearest(&self, index: u64) -> Frames {
        let (mut offset, mut at) = (self.next_offset, self.next_index);
        if index < self.next_index {
            let mark = (index - self.segment.first) / MARK_EVERY;
            let known = usize::try_from(mark).ok().and_then(|mark| self.offsets.get(mark));
            offset = known.copied().unwrap_or(self.segment.header_bytes);
            at = known.map_or(self.segment.first, |_| self.segment.first + mark * MARK_EVERY);
        }
        Frames::new(Arc::clone(&self.segment.file), offset, at, READ_BYTES)
    }

    /// Remembers where frames have come.
    fn note(&mut self, frames: &Frames) {
        let (index, offset) = (frames.next_index(), frames.offset());
        if index >= self.next_index {
            (self.next_index, self.next_offset) = (index, offset);
            let from_first = index - self.segment.first;
            if from_first.is_multiple_of(MARK_EVERY) && self.offsets.len() as u64 == from_first / MARK_EVERY {
                self.offsets.push(offset);
            }
        }
    }
}

/// Segments held open at once.
const OPEN_MOST: usize = 32;
/// Frames between two remembered offsets.
pub(super) const MARK_EVERY: u64 = 64;
/// Read at once when single entries are read.
const READ_BYTES: usize = FRAME_MOST;
