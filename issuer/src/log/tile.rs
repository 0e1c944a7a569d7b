//! Full tiles on disk, at the paths of C2SP tlog-tiles.
//!
//! Tiles are derived from the segments: they are written without being synced, a missing one is
//! derived again, and `recover` compares the tree that they make with the signed checkpoint.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    disk::{self, Disk},
    tree::Hash,
};

/// Which tile: the level (in steps of eight tree levels) and the number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TileId {
    pub(super) level: u8,
    pub(super) number: u64,
}

impl TileId {
    pub(super) fn file(self, folder: &Path) -> PathBuf {
        folder.join(tile_path(self.level, self.number, FULL))
    }

    /// How many entries lie under one full tile of this level; `None` beyond 64 bits.
    pub(super) fn span(self) -> Option<u64> {
        1_u64.checked_shl(8 * (u32::from(self.level) + 1))
    }
}

/// The path of a hash tile, `tile/<level>/<number>[.p/<width>]` (C2SP tlog-tiles, "Merkle Tree").
#[must_use]
pub fn tile_path(level: u8, number: u64, width: u16) -> String {
    format!("tile/{level}/{}", number_path(number, width))
}

/// The path of an entry bundle, `tile/entries/<number>[.p/<width>]` (C2SP tlog-tiles, "Log Entries").
#[must_use]
pub fn bundle_path(number: u64, width: u16) -> String {
    format!("tile/entries/{}", number_path(number, width))
}

fn number_path(number: u64, width: u16) -> String {
    let mut path = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < FULL {
        path.push_str(&format!(".p/{width}"));
    }
    path
}

/// Reads a full tile; `None` where it is missing or was left incomplete by a crash.
pub(super) fn read(folder: &Path, id: TileId) -> io::Result<Option<Vec<Hash>>> {
    match fs::read(id.file(folder)) {
        Ok(bytes) => {
            let (hashes, rest) = bytes.as_chunks::<32>();
            Ok((hashes.len() == TILE_WIDTH && rest.is_empty()).then(|| hashes.to_vec()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn write(disk: &dyn Disk, folder: &Path, id: TileId, hashes: &[Hash]) -> io::Result<()> {
    let file = id.file(folder);
    if let Some(parent) = file.parent() {
        disk::create_folder(parent)?;
    }
    disk::replace(disk, &file, hashes.as_flattened(), disk::Durable::Eventually)
}

/// Removes the tiles that reach beyond `size`: they belong to entries that were cut off.
pub(super) fn remove_beyond(folder: &Path, size: u64) -> io::Result<()> {
    for level in 0..LEVELS {
        let first = TileId { level, number: 0 };
        let mut number = first.span().map_or(0, |span| size / span);
        loop {
            match fs::remove_file(TileId { level, number }.file(folder)) {
                Ok(()) => number += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Hashes in a full tile.
pub(super) const TILE_WIDTH: usize = 256;
/// The same, as a width in paths and requests.
pub(super) const FULL: u16 = 256;
/// Tile levels of a tree with 64-bit indices.
pub(super) const LEVELS: u8 = 8;
