//! Opens a folder after whatever ended the log last, or refuses.
//!
//! What is believed at boot, and why it is quick: the newest segments are read whole (at most
//! [`CHECKED_BYTES`], and always the last one); of the tree only what is beyond the last full tile is
//! hashed again; its root is compared with the signed checkpoints, which a wrong tile on the right edge
//! cannot pass. Older segments are read by [`scrub`] in the background.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    thread,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    LogConfig, LogError, Recovery,
    checkpoint::{CheckpointSigner, SignedCheckpoint},
    disk::{self, Disk, FILE_MODE},
    queue::{GROUP_BYTES, Shared},
    reader::LogReader,
    records::{Records, rolled_back},
    segment::{self, FRAME_HEADER, FRAME_MOST, OpenError, Segment, Step},
    tile::{self, FULL, TILE_WIDTH, TileId},
    tree::Tree,
    writer::Tail,
};

/// A log ready to be written to.
pub(super) struct Recovered {
    pub(super) lock: File,
    pub(super) tree: Tree,
    pub(super) tail: Option<Tail>,
    pub(super) checkpoint: SignedCheckpoint,
    /// Segments not read yet: the first index of each and of the one that follows.
    pub(super) unchecked: Vec<(u64, u64)>,
    pub(super) recovery: Recovery,
}

pub(super) fn recover(
    config: &LogConfig,
    signer: &CheckpointSigner,
    disk: &Arc<dyn Disk>,
    checked_bytes: u64,
) -> Result<Recovered, LogError> {
    check_config(config, signer)?;
    create_folder(config, &**disk).map_err(|cause| LogError::io(&config.folder, cause))?;
    let lock = lock(&config.folder)?;
    let records = Records::read(config, signer)?;
    let mut firsts = segment::list(&config.folder).map_err(|cause| LogError::io(&config.folder, cause))?;
    records.check_presence(config, &firsts)?;
    let end = End::find(config, disk, &mut firsts, records.covered())?;
    records.check_size(end.size)?;
    let unchecked = check_newest(config, &firsts, checked_bytes)?;
    if let Some(tail) = &end.tail {
        // What was only in memory when the process was killed must be durable before it is signed.
        disk.sync(&tail.file).map_err(|cause| LogError::io(&config.folder, cause))?;
    }
    let (tree, tiles_rebuilt) = load_tree(config, disk, &records, end.size)?;
    let recovery = Recovery {
        size: end.size,
        torn_bytes_dropped: end.torn_bytes,
        beyond_checkpoint: end.size - records.own.as_ref().map_or(0, |(_, own)| own.size()),
        tiles_rebuilt,
        anchored: records.anchor.as_ref().map(|(_, anchor)| anchor.size()),
        unchecked_bytes: unchecked.iter().map(|&(first, _)| segment_bytes(config, first)).sum(),
    };
    let checkpoint = records.renew(config, signer, &**disk, &tree)?;
    Ok(Recovered { lock, tree, tail: end.tail, checkpoint, unchecked, recovery })
}

/// Reads the older segments in the background; damage stops the log.
pub(super) fn scrub(
    config: &LogConfig,
    unchecked: Vec<(u64, u64)>,
    shared: &Arc<Shared>,
) -> Result<(), LogError> {
    if unchecked.is_empty() {
        return Ok(());
    }
    let (config, shared) = (config.clone(), Arc::clone(shared));
    let folder = config.folder.clone();
    let thread = thread::Builder::new().name("log-scrub".to_owned()).spawn(move || {
        for (first, next) in unchecked.into_iter().rev() {
            match check_segment(&config, first, next, &|| shared.ended()) {
                Ok(()) if shared.ended() => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "the log is damaged");
                    shared.fail();
                    return;
                }
            }
        }
    });
    thread.map(drop).map_err(|cause| LogError::io(&folder, cause))
}

fn check_config(config: &LogConfig, signer: &CheckpointSigner) -> Result<(), LogError> {
    // The signer's name was checked for length and characters.
    if signer.verifier().name() != config.origin {
        return Err(LogError::Config { reason: "the checkpoint key's name is not the log's origin" });
    }
    if config.segment_bytes == 0 {
        return Err(LogError::Config { reason: "a segment of the log must have at least one byte" });
    }
    match &config.anchor {
        Some(anchor) if anchor.starts_with(&config.folder) => {
            Err(LogError::Config { reason: "the log's anchor must be outside its folder" })
        }
        _ => Ok(()),
    }
}

fn create_folder(config: &LogConfig, disk: &dyn Disk) -> io::Result<()> {
    if config.folder.is_dir() {
        return Ok(());
    }
    disk::create_folder(&config.folder)?;
    match config.folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => disk.sync_folder(parent),
        _ => Ok(()),
    }
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).mode(FILE_MODE).open(&path);
    let file = file.map_err(|cause| LogError::io(&path, cause))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LogError::Locked { folder: folder.to_owned() }),
        Err(error) => Err(LogError::io(&path, error.into())),
    }
}

/// Where the log ends.
struct End {
    size: u64,
    tail: Option<Tail>,
    torn_bytes: u64,
}

impl End {
    /// Finds the end of the last segment; a torn last group is cut off, as is a segment without a whole header.
    fn find(
        config: &LogConfig,
        disk: &Arc<dyn Disk>,
        firsts: &mut Vec<u64>,
        covered: u64,
    ) -> Result<Self, LogError> {
        let mut torn = None;
        while let Some(&first) = firsts.last() {
            match Segment::open(&config.folder, first, true) {
                Ok(segment) => return Self::of_segment(config, disk, &segment, covered, torn),
                Err(OpenError::Io(cause)) => {
                    return Err(LogError::io(&config.folder.join(segment::file_name(first)), cause));
                }
                // A crash in creating a segment leaves at most a header; its first entry follows a second sync.
                Err(OpenError::Header(reason)) => {
                    let file = config.folder.join(segment::file_name(first));
                    let bytes = segment_bytes(config, first);
                    let header_bytes = segment::encode_header(&config.origin, first).len() as u64;
                    if torn.is_some() || bytes > header_bytes || covered > first {
                        return Err(LogError::Damaged { index: first, file, reason });
                    }
                    remove_torn(config, &**disk, &file)?;
                    torn = Some(bytes);
                    firsts.pop();
                }
            }
        }
        Ok(Self { size: 0, tail: None, torn_bytes: torn.unwrap_or(0) })
    }

    /// `torn`: the bytes of a segment removed after this one.
    fn of_segment(
        config: &LogConfig,
        disk: &Arc<dyn Disk>,
        segment: &Segment,
        covered: u64,
        torn: Option<u64>,
    ) -> Result<Self, LogError> {
        let failure = |cause| LogError::io(&segment.path, cause);
        let damaged = |index, reason| LogError::Damaged { index, file: segment.path.clone(), reason };
        if segment.origin != config.origin {
            return Err(damaged(segment.first, "the segment belongs to a log with another origin"));
        }
        let mut frames = segment.frames();
        let broken = loop {
            match frames.step().map_err(failure)? {
                Step::Frame(_) => {}
                Step::End => break None,
                Step::Broken(reason) => break Some(reason),
            }
        };
        let (size, end) = (frames.next_index(), frames.offset());
        let length = segment.file.metadata().map_err(failure)?.len();
        if let Some(reason) = broken {
            // The group before a new segment was durable, as was everything that a checkpoint covers.
            if torn.is_some()
                || size < covered
                || is_followed(&segment.file, end, length, size).map_err(failure)?
            {
                return Err(damaged(size, reason));
            }
            disk.truncate(&segment.file, end).map_err(failure)?;
            disk.sync(&segment.file).map_err(failure)?;
        }
        let tail = Some(Tail { file: Arc::clone(&segment.file), end });
        Ok(Self { size, tail, torn_bytes: torn.unwrap_or(0) + length.saturating_sub(end) })
    }
}

/// Whether a sound frame of a later group stands after the broken frame of `index`: then the broken one had
/// been durable, and is damaged rather than torn. (The entries' own bytes could only imitate a frame by
/// holding zero bytes, which JSON does not; a log with an imitation would refuse, not lose.)
fn is_followed(file: &File, offset: u64, length: u64, index: u64) -> io::Result<bool> {
    let Some(rest) = usize::try_from(length - offset).ok().filter(|&rest| rest <= GROUP_MOST) else {
        return Ok(true);
    };
    let mut bytes = vec![0; rest];
    let filled = segment::read_up_to(file, offset, &mut bytes)?;
    bytes.truncate(filled);
    Ok((1..bytes.len()).any(|at| {
        let candidate = bytes.get(at..).unwrap_or_default();
        let later =
            segment::claimed_group(candidate).is_some_and(|group| group > index && group - index < 1 << 16);
        later && segment::parse(candidate).is_ok()
    }))
}

fn remove_torn(config: &LogConfig, disk: &dyn Disk, file: &Path) -> Result<(), LogError> {
    disk.remove(file).map_err(|cause| LogError::io(file, cause))?;
    disk.sync_folder(&config.folder).map_err(|cause| LogError::io(&config.folder, cause))
}

fn segment_bytes(config: &LogConfig, first: u64) -> u64 {
    fs::metadata(config.folder.join(segment::file_name(first))).map_or(0, |metadata| metadata.len())
}

/// Reads the newest segments before the last, which was read already; gives those that were not read.
fn check_newest(config: &LogConfig, firsts: &[u64], checked_bytes: u64) -> Result<Vec<(u64, u64)>, LogError> {
    if firsts.first().is_some_and(|&first| first != 0) {
        let file = config.folder.join(segment::file_name(0));
        return Err(LogError::Damaged { index: 0, file, reason: "the first segment is missing" });
    }
    let mut bytes = firsts.last().map_or(0, |&last| segment_bytes(config, last));
    let mut pairs: Vec<_> = firsts.iter().copied().zip(firsts.iter().copied().skip(1)).collect();
    while let Some(&(first, next)) = pairs.last() {
        bytes += segment_bytes(config, first);
        if bytes > checked_bytes {
            break;
        }
        check_segment(config, first, next, &|| false)?;
        pairs.pop();
    }
    Ok(pairs)
}

/// Reads a segment that is followed by the one starting with `next`.
fn check_segment(config: &LogConfig, first: u64, next: u64, stop: &dyn Fn() -> bool) -> Result<(), LogError> {
    let file = config.folder.join(segment::file_name(first));
    let segment = match Segment::open(&config.folder, first, false) {
        Ok(segment) => segment,
        Err(OpenError::Io(cause)) => return Err(LogError::io(&file, cause)),
        Err(OpenError::Header(reason)) => return Err(LogError::Damaged { index: first, file, reason }),
    };
    if segment.origin != config.origin {
        let reason = "the segment belongs to a log with another origin";
        return Err(LogError::Damaged { index: first, file, reason });
    }
    let mut frames = segment.frames();
    loop {
        let index = frames.next_index();
        if index.is_multiple_of(TILE_WIDTH as u64) && stop() {
            return Ok(());
        }
        let reason = match frames.step().map_err(|cause| LogError::io(&file, cause))? {
            Step::Frame(_) if index < next => continue,
            Step::End if index == next => return Ok(()),
            Step::Frame(_) => "the record is also in the next segment",
            Step::End => "the record is missing",
            Step::Broken(reason) => reason,
        };
        return Err(LogError::Damaged { index, file, reason });
    }
}

/// The tree of `size` entries, in agreement with what was signed. Also says whether the tiles were rebuilt.
fn load_tree(
    config: &LogConfig,
    disk: &Arc<dyn Disk>,
    records: &Records,
    size: u64,
) -> Result<(Tree, bool), LogError> {
    tile::remove_beyond(&config.folder, size).map_err(|cause| LogError::io(&config.folder, cause))?;
    let reader = LogReader::repairing(&config.folder, size, Arc::clone(disk));
    if records.disagreement(&reader)?.is_none() {
        return Ok((edge_of(&reader, size)?, false));
    }
    // A crash may have left wrong tiles. The segments decide.
    let tiles = config.folder.join(TILE_FOLDER);
    match fs::remove_dir_all(&tiles) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LogError::io(&tiles, error)),
        _ => {}
    }
    let mut tree = Tree::default();
    for entry in reader.entries(0, size) {
        let (_, entry) = entry?;
        tree.push(super::leaf_hash(&entry), |id, hashes| {
            if let Err(error) = tile::write(&**disk, &config.folder, id, hashes) {
                tracing::warn!(%error, "a tile of the log was not written");
            }
        });
    }
    match records.disagreement(&reader)? {
        Some((file, record)) => {
            Err(rolled_back(file, record.size(), size, "the entries are not those that were signed"))
        }
        None => Ok((tree, true)),
    }
}

fn edge_of(reader: &LogReader, size: u64) -> Result<Tree, LogError> {
    let mut levels = Vec::new();
    let mut count = size;
    for level in 0..tile::LEVELS {
        if count == 0 {
            break;
        }
        let number = count / u64::from(FULL);
        let width = u16::try_from(count % u64::from(FULL)).unwrap_or(0);
        let id = TileId { level, number };
        levels.push(if width == 0 { Vec::new() } else { reader.tile_hashes(id, width)? });
        count = number;
    }
    Ok(Tree::from_edge(size, levels))
}

/// Bytes of the newest segments that are read before the log opens.
pub(super) const CHECKED_BYTES: u64 = 256 << 20;
/// More than the bytes of any group with its frames' headers.
const GROUP_MOST: usize = GROUP_BYTES + FRAME_MOST + (FRAME_HEADER << 16);
const LOCK_FILE: &str = "lock";
const TILE_FOLDER: &str = "tile";
