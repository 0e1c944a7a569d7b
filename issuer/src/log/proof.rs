//! Inclusion and consistency proofs, RFC 9162 §2.1 (the tree is that of RFC 6962).

use std::collections::HashMap;

use super::{
    LogError,
    reader::LogReader,
    tile::{FULL, TileId},
    tree::{Hash, empty_root, node_hash, perfect_root},
};

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index or the sizes do not fit together.
    #[error("the index or the sizes do not fit together")]
    Bounds,
    /// The proof has too few or too many hashes.
    #[error("the proof has a wrong number of hashes")]
    Length,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// Verifies that the tree of `size` entries with `root` has the leaf at `index` (RFC 9162 §2.1.3.2).
///
/// # Errors
/// Why it does not follow.
pub fn verify_inclusion(
    index: u64,
    size: u64,
    leaf: &Hash,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    // Step 1.
    if index >= size {
        return Err(ProofError::Bounds);
    }
    // Steps 2 and 3.
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    // Step 4.
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    // Step 5.
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Verifies that the tree of `old` entries is the beginning of that of `new` entries (RFC 9162 §2.1.4.2).
///
/// # Errors
/// Why it does not follow.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Bounds);
    }
    // The RFC defines the proof for 0 < old < new. Equal trees have equal roots, and the empty tree begins all.
    if old == new || old == 0 {
        let expected = if old == new { *new_root } else { empty_root() };
        return match (proof.is_empty(), *old_root == expected) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    // Steps 1 to 4: where `old` is a power of two, its root is the first hash and left out of the proof.
    let (first, rest) = match proof.split_first() {
        None => return Err(ProofError::Length),
        Some(_) if old.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
    };
    let (mut node, mut last) = (old - 1, new - 1);
    // Step 5.
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    // Step 6.
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    // Step 7.
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(ProofError::Root) }
}

/// RFC 9162 §2.1.3.1: `PATH(index, D[0:size])`.
pub(super) fn inclusion(hashes: &mut Hashes<'_>, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + largest_power_below(high - low);
        if index < middle {
            path.push(range_root(hashes, middle, high)?);
            high = middle;
        } else {
            path.push(range_root(hashes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// RFC 9162 §2.1.4.1: `PROOF(old, D[0:new])`; empty where one of the trees says nothing.
pub(super) fn consistency(hashes: &mut Hashes<'_>, old: u64, new: u64) -> Result<Vec<Hash>, LogError> {
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    let (mut low, mut high) = (0, new);
    while old != high {
        let middle = low + largest_power_below(high - low);
        if old <= middle {
            path.push(range_root(hashes, middle, high)?);
            high = middle;
        } else {
            path.push(range_root(hashes, low, middle)?);
            low = middle;
        }
    }
    // SUBPROOF(m, D_m, false) gives the subtree's root; with `true` the verifier has it already.
    if low != 0 {
        path.push(range_root(hashes, low, high)?);
    }
    path.reverse();
    Ok(path)
}

/// The root of the first `size` entries.
pub(super) fn root(hashes: &mut Hashes<'_>, size: u64) -> Result<Hash, LogError> {
    if size == 0 { Ok(empty_root()) } else { range_root(hashes, 0, size) }
}

/// `MTH(D[low:high])` of RFC 6962 §2.1, where `low` is aligned as the proofs split.
fn range_root(hashes: &mut Hashes<'_>, low: u64, high: u64) -> Result<Hash, LogError> {
    let count = high - low;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return hashes.subtree(level, low >> level);
    }
    let middle = low + largest_power_below(count);
    let left = range_root(hashes, low, middle)?;
    Ok(node_hash(&left, &range_root(hashes, middle, high)?))
}

/// The largest power of two below `count`, which is at least 2.
fn largest_power_below(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The roots of perfect subtrees, from tiles.
pub(super) struct Hashes<'r> {
    reader: &'r LogReader,
    size: u64,
    tiles: HashMap<TileId, Vec<Hash>>,
}

impl<'r> Hashes<'r> {
    pub(super) fn new(reader: &'r LogReader) -> Self {
        Self { reader, size: reader.size(), tiles: HashMap::new() }
    }

    /// The root of the `number`th subtree of 2^`level` entries.
    fn subtree(&mut self, level: u32, number: u64) -> Result<Hash, LogError> {
        let absent = LogError::Absent { index: number, size: self.size };
        let tile_level = u8::try_from(level / 8).map_err(|_| absent.clone())?;
        let run = 1_u64 << (level % 8);
        let start = number * run;
        let id = TileId { level: tile_level, number: start / u64::from(FULL) };
        if !self.tiles.contains_key(&id) {
            let there =
                (self.size >> (8 * u32::from(tile_level))).saturating_sub(id.number * u64::from(FULL));
            let width = u16::try_from(there.min(u64::from(FULL))).unwrap_or(FULL);
            self.tiles.insert(id, self.reader.tile_hashes(id, width)?);
        }
        let within = usize::try_from(start % u64::from(FULL)).map_err(|_| absent.clone())?;
        let run = usize::try_from(run).map_err(|_| absent.clone())?;
        let hashes = self.tiles.get(&id).and_then(|hashes| hashes.get(within..within + run));
        hashes.map(perfect_root).ok_or(absent)
    }
}
