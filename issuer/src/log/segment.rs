//! Segment files: a header, then frames, each with its own checksum.
//!
//! ```text
//! header  magic (8) | version u16 | origin length u16 | first index u64 | origin | CRC-32C u32
//! frame   CRC-32C u32 | index u64 | place u16 | length u16 | 0x00 | entry
//! ```
//!
//! All numbers are big-endian; a CRC covers the other bytes of its header or frame. `place` is the
//! position within the group that was written and synced at once: it tells a torn last group from
//! damage in the middle. The zero byte is the leaf prefix of RFC 6962 §2.1, so that a frame from
//! there on is what the leaf hash is taken over.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::tree::LEAF_PREFIX;

/// The name of the segment that starts with entry `first`.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:020}.{EXTENSION}")
}

/// The first indices of all segments in a folder, ascending.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for item in fs::read_dir(folder)? {
        let name = item?.file_name();
        let Some(digits) = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.'))
        else {
            continue;
        };
        if let Ok(first) = digits.parse::<u64>()
            && digits.len() == 20
        {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

pub(super) fn encode_header(origin: &str, first: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_be_bytes());
    // INVARIANT: an origin has at most 255 bytes, checked when the log is opened.
    header.extend(u16::try_from(origin.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(first.to_be_bytes());
    header.extend(origin.as_bytes());
    let crc = crc32c::crc32c(&header);
    header.extend(crc.to_be_bytes());
    header
}

/// Appends the frame of an entry to a group's buffer.
pub(super) fn encode_frame(buffer: &mut Vec<u8>, index: u64, place: u16, entry: &[u8]) {
    let start = buffer.len();
    buffer.extend([0; 4]);
    buffer.extend(index.to_be_bytes());
    buffer.extend(place.to_be_bytes());
    // INVARIANT: an entry has at most 65,535 bytes, checked when it is queued.
    buffer.extend(u16::try_from(entry.len()).unwrap_or(u16::MAX).to_be_bytes());
    buffer.push(LEAF_PREFIX);
    buffer.extend(entry);
    let Some((space, covered)) = buffer.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<4>())
    else {
        return;
    };
    *space = crc32c::crc32c(covered).to_be_bytes();
}

/// An open segment whose header is sound.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) first: u64,
    pub(super) origin: String,
    pub(super) header_bytes: u64,
}

/// Why a segment cannot be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Io(io::Error),
    /// The header is wrong.
    Header(&'static str),
}

impl Segment {
    /// Opens the segment that starts with `first`; `writable` for the one that will be appended to.
    pub(super) fn open(folder: &Path, first: u64, writable: bool) -> Result<Self, OpenError> {
        let path = folder.join(file_name(first));
        let file = File::options().read(true).write(writable).open(&path).map_err(OpenError::Io)?;
        let (origin, header_bytes) = read_header(&file, first)?;
        Ok(Self { file: Arc::new(file), path, first, origin, header_bytes })
    }

    /// The frames from the first on.
    pub(super) fn frames(&self) -> Frames {
        Frames::new(Arc::clone(&self.file), self.header_bytes, self.first, SCAN_BYTES)
    }
}

fn read_header(file: &File, first: u64) -> Result<(String, u64), OpenError> {
    let mut bytes = vec![0; HEADER_MOST];
    let filled = read_up_to(file, 0, &mut bytes).map_err(OpenError::Io)?;
    bytes.truncate(filled);
    let broken = OpenError::Header;
    let fixed = bytes.first_chunk::<HEADER_FIXED>().ok_or(broken("the header is incomplete"))?;
    let [m @ .., v0, v1, l0, l1, i0, i1, i2, i3, i4, i5, i6, i7] = *fixed;
    if m != *MAGIC {
        return Err(broken("the header does not start as a segment does"));
    }
    let covered = HEADER_FIXED + usize::from(u16::from_be_bytes([l0, l1]));
    let (covered, rest) = bytes.split_at_checked(covered).ok_or(broken("the header is incomplete"))?;
    let crc = rest.first_chunk::<4>().ok_or(broken("the header is incomplete"))?;
    if crc32c::crc32c(covered).to_be_bytes() != *crc {
        return Err(broken("the header's checksum is wrong"));
    }
    if u16::from_be_bytes([v0, v1]) != VERSION {
        return Err(broken("the segment has a version that is not known here"));
    }
    if u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]) != first {
        return Err(broken("the header's first index is not that of the file's name"));
    }
    let origin = covered.get(HEADER_FIXED..).and_then(|origin| std::str::from_utf8(origin).ok());
    let origin = origin.ok_or(broken("the origin is not text"))?.to_owned();
    Ok((origin, covered.len() as u64 + 4))
}

/// Reads frames in order, with their checksums.
#[derive(Debug)]
pub(super) struct Frames {
    file: Arc<File>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where the next frame starts in the file.
    offset: u64,
    next_index: u64,
}

/// What stands next in a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Frame(Frame<'a>),
    /// The segment ends here.
    End,
    /// What stands here is not the frame of the next index.
    Broken(&'static str),
}

/// A frame whose checksum holds.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) index: u64,
    /// The leaf prefix and the entry: what the leaf hash is taken over.
    pub(super) leaf: &'a [u8],
}

impl Frames {
    /// Reads from `offset`, where the frame of `next_index` starts, `at_once` bytes at a time.
    pub(super) fn new(file: Arc<File>, offset: u64, next_index: u64, at_once: usize) -> Self {
        let buffer = vec![0; at_once.max(FRAME_MOST)];
        Self { file, buffer, start: 0, end: 0, offset, next_index }
    }

    /// Where the next frame starts.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The index of the next frame.
    pub(super) fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Whether nothing stands after the last frame read.
    pub(super) fn at_end(&mut self) -> io::Result<bool> {
        self.fill(1)?;
        Ok(self.start == self.end)
    }

    /// The next frame. After [`Step::Broken`] the position stays.
    pub(super) fn step(&mut self) -> io::Result<Step<'_>> {
        self.fill(FRAME_HEADER)?;
        if self.start == self.end {
            return Ok(Step::End);
        }
        let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(header) = rest.first_chunk::<FRAME_HEADER>() else {
            return Ok(Step::Broken("the frame is incomplete"));
        };
        let bytes = FRAME_HEADER + usize::from(claimed_length(header));
        self.fill(bytes)?;
        let frame = match parse(self.buffer.get(self.start..self.end).unwrap_or_default()) {
            Ok(frame) if frame.index == self.next_index => frame,
            Ok(_) => return Ok(Step::Broken("the frame has another record's index")),
            Err(reason) => return Ok(Step::Broken(reason)),
        };
        self.start += bytes;
        self.offset += bytes as u64;
        self.next_index += 1;
        Ok(Step::Frame(frame))
    }

    /// Passes over a broken frame by the length that it claims, if a sound frame of the next index follows.
    pub(super) fn pass_broken(&mut self) -> io::Result<bool> {
        self.fill(FRAME_HEADER)?;
        let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(header) = rest.first_chunk::<FRAME_HEADER>() else { return Ok(false) };
        let offset = self.offset + (FRAME_HEADER + usize::from(claimed_length(header))) as u64;
        let beyond = |at_once| Self::new(Arc::clone(&self.file), offset, self.next_index + 1, at_once);
        let sound = matches!(beyond(FRAME_MOST).step()?, Step::Frame(_));
        if sound {
            *self = beyond(self.buffer.len());
        }
        Ok(sound)
    }

    /// Has at least `bytes` in the buffer, or all that the file still holds.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if self.end - self.start >= bytes {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let space = self.buffer.get_mut(self.end..).unwrap_or_default();
        self.end += read_up_to(&self.file, self.offset + self.end as u64, space)?;
        Ok(())
    }
}

/// Parses the frame at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Frame<'_>, &'static str> {
    let header = bytes.first_chunk::<FRAME_HEADER>().ok_or("the frame is incomplete")?;
    let length = claimed_length(header);
    let frame = bytes.get(..FRAME_HEADER + usize::from(length)).ok_or("the frame is incomplete")?;
    let (crc, covered) = frame.split_first_chunk::<4>().ok_or("the frame is incomplete")?;
    if crc32c::crc32c(covered).to_be_bytes() != *crc {
        return Err("the frame's checksum is wrong");
    }
    let [_, _, _, _, i0, i1, i2, i3, i4, i5, i6, i7, .., prefix] = *header;
    if prefix != LEAF_PREFIX || length == 0 {
        return Err("the frame has no entry");
    }
    Ok(Frame {
        index: u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        leaf: frame.get(FRAME_HEADER - 1..).unwrap_or_default(),
    })
}

/// The index of the first entry of the group that the frame at the start of `bytes` claims to belong to.
pub(super) fn claimed_group(bytes: &[u8]) -> Option<u64> {
    let [_, _, _, _, i0, i1, i2, i3, i4, i5, i6, i7, p0, p1, _, _, LEAF_PREFIX] =
        *bytes.first_chunk::<FRAME_HEADER>()?
    else {
        return None;
    };
    let index = u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
    index.checked_sub(u64::from(u16::from_be_bytes([p0, p1])))
}

fn claimed_length(header: &[u8; FRAME_HEADER]) -> u16 {
    let [.., l0, l1, _] = *header;
    u16::from_be_bytes([l0, l1])
}

/// Fills `space` from `offset` on, as far as the file goes.
pub(super) fn read_up_to(file: &File, offset: u64, space: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

const MAGIC: &[u8; 8] = b"dputzlog";
const VERSION: u16 = 1;
const EXTENSION: &str = "seg";
const HEADER_FIXED: usize = 20;
/// More than the longest header with an origin of 255 bytes.
const HEADER_MOST: usize = 512;
/// Bytes of a frame before its entry.
pub(super) const FRAME_HEADER: usize = 17;
/// The longest frame.
pub(super) const FRAME_MOST: usize = FRAME_HEADER + 65_535;
/// Read at once when a whole segment is read.
const SCAN_BYTES: usize = 1 << 20;
