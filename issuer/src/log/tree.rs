//! The Merkle tree of RFC 6962 §2.1, kept as its right edge only.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::tile::{TILE_WIDTH, TileId};

/// A SHA-256 node of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256(0x00 ‖ entry), RFC 6962 §2.1.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[LEAF_PREFIX]);
    context.update(entry);
    into_hash(&context.finish())
}

/// The hash of a leaf whose bytes already start with [`LEAF_PREFIX`], as they lie in a segment.
pub(super) fn prefixed_leaf_hash(prefixed: &[u8]) -> Hash {
    into_hash(&digest(&SHA256, prefixed))
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 6962 §2.1.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [NODE_PREFIX; 65];
    let (_, children) = bytes.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    into_hash(&digest(&SHA256, &bytes))
}

/// The root of the tree without entries: SHA-256 of nothing, RFC 6962 §2.1.
#[must_use]
pub fn empty_root() -> Hash {
    into_hash(&digest(&SHA256, &[]))
}

/// The root over a run of hashes whose count is a power of two.
pub(super) fn perfect_root(hashes: &[Hash]) -> Hash {
    debug_assert!(hashes.len().is_power_of_two(), "only a perfect subtree has one root");
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        let (pairs, _) = row.as_chunks::<2>();
        row = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or_else(empty_root)
}

/// The right edge of the tree: for each tile level the hashes of the tile that is not yet full.
#[derive(Debug, Default, Clone)]
pub(super) struct Tree {
    levels: Vec<Vec<Hash>>,
    size: u64,
}

impl Tree {
    /// The tree of `size` entries whose unfinished tiles are `levels`, lowest first.
    pub(super) fn from_edge(size: u64, levels: Vec<Vec<Hash>>) -> Self {
        Self { levels, size }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; each tile that it completes goes to `full`.
    pub(super) fn push(&mut self, leaf: Hash, mut full: impl FnMut(TileId, &[Hash])) {
        let mut carried = Some(leaf);
        let mut level = 0_u8;
        while let Some(hash) = carried.take() {
            if self.levels.len() <= usize::from(level) {
                self.levels.push(Vec::with_capacity(TILE_WIDTH));
            }
            let Some(row) = self.levels.get_mut(usize::from(level)) else { break };
            row.push(hash);
            if row.len() == TILE_WIDTH {
                let number = self.size >> (8 * (u32::from(level) + 1));
                full(TileId { level, number }, row);
                carried = Some(perfect_root(row));
                row.clear();
                level += 1;
            }
        }
        self.size += 1;
    }

    /// The root of all entries pushed.
    pub(super) fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        for row in &self.levels {
            let mut rest = row.as_slice();
            // The smallest perfect subtrees stand rightmost and are folded in first.
            while !rest.is_empty() {
                let run = 1_usize << rest.len().trailing_zeros();
                let (before, perfect) = rest.split_at(rest.len() - run);
                let left = perfect_root(perfect);
                root = Some(root.map_or(left, |right| node_hash(&left, &right)));
                rest = before;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}

fn into_hash(digest: &aws_lc_rs::digest::Digest) -> Hash {
    let mut hash = [0; 32];
    // INVARIANT: SHA-256 gives 32 bytes.
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// What precedes a leaf in its hash, RFC 6962 §2.1.
pub(super) const LEAF_PREFIX: u8 = 0x00;
const NODE_PREFIX: u8 = 0x01;
