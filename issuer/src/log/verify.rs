//! Verifies a whole log offline: reads every byte and recomputes everything from the entries.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{
    checkpoint::{CheckpointVerifier, SignedCheckpoint},
    reader::LogReader,
    records::read_note,
    segment::{self, OpenError, Segment, Step},
    tile::TileId,
    tree::{Hash, Tree, prefixed_leaf_hash},
    writer::CHECKPOINT_FILE,
};

/// Something wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The record at which it stands; for a file's header its first record; for a checkpoint its size.
    pub index: Option<u64>,
    /// The file in which it stands.
    pub file: PathBuf,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(formatter, "record {index}: ")?;
        }
        write!(formatter, "{}: {}", self.file.display(), self.reason)
    }
}

/// What a sound log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries read.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Bytes read.
    pub bytes: u64,
    /// The log's origin; `None` where it has no segment yet.
    pub origin: Option<String>,
    /// Entries covered by the folder's checkpoint.
    pub signed: Option<u64>,
    /// Entries covered by the anchor.
    pub anchored: Option<u64>,
    /// Whether signatures were verified: no key was given otherwise, and checkpoints were not looked at.
    pub signatures: bool,
}

impl LogReader {
    /// Reads everything: checksums, order, the tree recomputed and compared with the tiles, and, with a
    /// verifier, the signatures and roots of the checkpoint and of the `anchor`.
    ///
    /// `progress` is told the bytes read and the bytes in all. The log should be closed: of a running one the
    /// last group may look torn.
    ///
    /// # Errors
    /// All that is wrong, at most some hundred findings.
    pub fn verify(
        &self,
        verifier: Option<&CheckpointVerifier>,
        anchor: Option<&Path>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified, Vec<Finding>> {
        let mut verification = Verification::new(self.folder(), progress);
        let (mut signed, mut anchored) = (None, None);
        if let Some(verifier) = verifier {
            signed = verification.read_record(verifier, &self.folder().join(CHECKPOINT_FILE));
            anchored = anchor.and_then(|anchor| verification.read_record(verifier, anchor));
        }
        verification.read_segments(verifier);
        verification.compare_missed_records();
        let Verification { findings, tree, bytes, origin, .. } = verification;
        if !findings.is_empty() {
            return Err(findings);
        }
        let (size, root, signatures) = (tree.size(), tree.root(), verifier.is_some());
        Ok(Verified { size, root, bytes, origin, signed, anchored, signatures })
    }
}

struct Verification<'v> {
    folder: &'v Path,
    progress: &'v mut dyn FnMut(u64, u64),
    findings: Vec<Finding>,
    tree: Tree,
    /// Whether the tree still is that of the entries: not after one that could not be read.
    whole: bool,
    /// Checkpoints to be compared once the tree has their size.
    records: Vec<(PathBuf, SignedCheckpoint)>,
    origin: Option<String>,
    bytes: u64,
    total: u64,
}

impl<'v> Verification<'v> {
    fn new(folder: &'v Path, progress: &'v mut dyn FnMut(u64, u64)) -> Self {
        Self {
            folder,
            progress,
            findings: Vec::new(),
            tree: Tree::default(),
            whole: true,
            records: Vec::new(),
            origin: None,
            bytes: 0,
            total: 0,
        }
    }

    fn find(&mut self, index: Option<u64>, file: &Path, reason: impl Into<String>) {
        if self.findings.len() < FINDINGS_MOST {
            self.findings.push(Finding { index, file: file.to_owned(), reason: reason.into() });
        }
    }

    /// Reads a checkpoint; gives how many entries it covers.
    fn read_record(&mut self, verifier: &CheckpointVerifier, file: &Path) -> Option<u64> {
        let note = match read_note(file) {
            Ok(note) => note,
            Err(error) => {
                self.find(None, file, format!("the checkpoint cannot be read: {error}"));
                return None;
            }
        };
        match verifier.verify(&note) {
            Ok(record) => {
                let size = record.size();
                self.records.push((file.to_owned(), record));
                Some(size)
            }
            Err(error) => {
                self.find(None, file, error.to_string());
                None
            }
        }
    }

    fn read_segments(&mut self, verifier: Option<&CheckpointVerifier>) {
        let firsts = match segment::list(self.folder) {
            Ok(firsts) => firsts,
            Err(error) => return self.find(None, self.folder, format!("the folder cannot be read: {error}")),
        };
        let length = |first: &u64| fs::metadata(self.folder.join(segment::file_name(*first)));
        self.total =
            firsts.iter().filter_map(|first| length(first).ok()).map(|metadata| metadata.len()).sum();
        self.compare_records();
        let mut expected = 0;
        for (at, &first) in firsts.iter().enumerate() {
            let path = self.folder.join(segment::file_name(first));
            if first != expected {
                self.whole = false;
                self.find(Some(expected.min(first)), &path, "the segments before leave a gap or overlap");
            }
            expected = firsts.get(at + 1).copied().unwrap_or(0);
            match Segment::open(self.folder, first, false) {
                Ok(segment) => {
                    self.check_origin(&segment, verifier);
                    expected = self.read_segment(&segment, firsts.get(at + 1).copied());
                }
                Err(OpenError::Header(reason)) => {
                    self.whole = false;
                    self.find(Some(first), &path, reason);
                }
                Err(OpenError::Io(error)) => {
                    self.whole = false;
                    self.find(Some(first), &path, format!("the segment cannot be read: {error}"));
                }
            }
        }
    }

    fn check_origin(&mut self, segment: &Segment, verifier: Option<&CheckpointVerifier>) {
        let expected = verifier.map(|verifier| verifier.name().to_owned()).or_else(|| self.origin.clone());
        if expected.is_some_and(|expected| expected != segment.origin) {
            self.find(Some(segment.first), &segment.path, "the segment belongs to a log with another origin");
        }
        self.origin.get_or_insert_with(|| segment.origin.clone());
    }

    /// Reads a segment to its end, past broken frames as far as their lengths can be believed. Gives the index
    /// with which the next one has to start.
    fn read_segment(&mut self, segment: &Segment, next: Option<u64>) -> u64 {
        let mut frames = segment.frames();
        let mut told = self.bytes;
        let before = self.bytes;
        loop {
            let index = frames.next_index();
            let broken = match frames.step() {
                Ok(Step::Frame(frame)) => {
                    let leaf = prefixed_leaf_hash(frame.leaf);
                    self.bytes = before + frames.offset();
                    self.add_leaf(leaf);
                    None
                }
                Ok(Step::End) => {
                    self.bytes = before + frames.offset();
                    (self.progress)(self.bytes, self.total);
                    return index;
                }
                Ok(Step::Broken(reason)) => Some(reason.to_owned()),
                Err(error) => Some(format!("the segment cannot be read: {error}")),
            };
            if let Some(reason) = broken {
                self.whole = false;
                self.find(Some(index), &segment.path, reason);
                if !frames.pass_broken().unwrap_or(false) {
                    // Where the next record starts is not known; the next segment is.
                    return next.unwrap_or(index);
                }
            }
            if self.bytes - told >= PROGRESS_BYTES {
                told = self.bytes;
                (self.progress)(self.bytes, self.total);
            }
        }
    }

    fn add_leaf(&mut self, leaf: Hash) {
        if !self.whole {
            return;
        }
        let folder = self.folder;
        let mut differing: Vec<(TileId, String)> = Vec::new();
        self.tree.push(leaf, |id, hashes| match read_tile(&id.file(folder)) {
            // A tile is derived: one that is missing hides nothing.
            Ok(None) => {}
            Ok(Some(bytes)) if bytes == hashes.as_flattened() => {}
            Ok(Some(_)) => differing.push((id, "the tile is not that of the records".to_owned())),
            Err(error) => differing.push((id, format!("the tile cannot be read: {error}"))),
        });
        for (id, reason) in differing {
            let first = id.span().and_then(|span| span.checked_mul(id.number));
            self.find(first, &id.file(folder), reason);
        }
        self.compare_records();
    }

    /// Compares the checkpoints of the tree's present size.
    fn compare_records(&mut self) {
        let size = self.tree.size();
        if !self.records.iter().any(|(_, record)| record.size() == size) {
            return;
        }
        let root = self.tree.root();
        let (reached, left) =
            std::mem::take(&mut self.records).into_iter().partition(|(_, r)| r.size() == size);
        self.records = left;
        let reached: Vec<(PathBuf, SignedCheckpoint)> = reached;
        for (file, record) in reached {
            if record.root() != root {
                self.find(Some(size), &file, "the records before it are not those that were signed");
            }
        }
    }

    /// Checkpoints whose size the tree did not reach.
    fn compare_missed_records(&mut self) {
        let size = self.tree.size();
        for (file, record) in std::mem::take(&mut self.records) {
            if self.whole {
                let reason = format!("{} records were signed, {size} are there", record.size());
                self.find(Some(size), &file, reason);
            }
        }
    }
}

fn read_tile(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Findings reported: a log with so many is beyond details.
const FINDINGS_MOST: usize = 256;
/// How often progress is told.
const PROGRESS_BYTES: u64 = 1 << 20;
