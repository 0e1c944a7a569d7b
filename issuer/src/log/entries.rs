//! Entries one after the other, forwards and backwards.

use super::{
    LogError,
    reader::{LogReader, MARK_EVERY},
    segment::Frames,
};

/// Entries in ascending order, with their indices. Ends after an error.
#[derive(Debug)]
pub struct Entries {
    reader: LogReader,
    next: u64,
    end: u64,
    frames: Option<Frames>,
}

impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let index = self.next;
        let entry = self.read(index);
        self.next = if entry.is_ok() { index + 1 } else { self.end };
        Some(entry.map(|entry| (index, entry)))
    }
}

impl Entries {
    /// The entries from `next` up to, not including, `end`, which the reader has.
    pub(super) fn new(reader: LogReader, next: u64, end: u64) -> Self {
        Self { reader, next, end, frames: None }
    }

    fn read(&mut self, index: u64) -> Result<Vec<u8>, LogError> {
        let frames = match &mut self.frames {
            Some(frames) => frames,
            none => none.insert(self.reader.seek(index)?),
        };
        let mut entry = Vec::new();
        self.reader.next_frame(frames, index, |leaf| entry.extend(leaf.iter().skip(1)))?;
        Ok(entry)
    }
}

/// Entries in descending order, with their indices. Ends after an error.
#[derive(Debug)]
pub struct Tail {
    reader: LogReader,
    /// Read already, ascending.
    block: Vec<(u64, Vec<u8>)>,
    first: u64,
    end: u64,
}

impl Tail {
    /// The entries from `end`, exclusive, down to `first`.
    pub(super) fn new(reader: LogReader, first: u64, end: u64) -> Self {
        Self { reader, block: Vec::new(), first, end }
    }
}

impl Iterator for Tail {
    type Item = Result<(u64, Vec<u8>), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.block.is_empty() && self.end > self.first {
            let from = self.end.saturating_sub(MARK_EVERY).max(self.first);
            match self.reader.entries(from, self.end).collect::<Result<_, _>>() {
                Ok(block) => (self.block, self.end) = (block, from),
                Err(error) => {
                    self.end = self.first;
                    return Some(Err(error));
                }
            }
        }
        self.block.pop().map(Ok)
    }
}
