//! The tree, proofs, tiles and notes against an independent implementation.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use tlog_tiles::{Checkpoint as TheirCheckpoint, Hash as TheirHash, HashReader, Tile, tlog};

use super::*;
use crate::log::{
    CheckpointVerifier, Hash, ProofError, bundle_path, empty_root, leaf_hash, node_hash, tile_path,
    tree::Tree, verify_consistency, verify_inclusion,
};

struct Oracle(Vec<TheirHash>);

impl HashReader for Oracle {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<TheirHash>, tlog::Error> {
        Ok(indexes.iter().map(|&index| self.0[index as usize]).collect())
    }
}

impl Oracle {
    fn of(size: u64) -> Self {
        let mut oracle = Self(Vec::new());
        for index in 0..size {
            let hashes = tlog::stored_hashes(index, &entry(index), &oracle).unwrap();
            oracle.0.extend(hashes);
        }
        oracle
    }

    fn root(&self, size: u64) -> Hash {
        tlog::tree_hash(size, self).unwrap().0
    }
}

const SIZE: u64 = 1400;

/// A log of [`SIZE`] entries and its oracle, made once.
fn both() -> &'static (Place, LogReader, Oracle) {
    static BOTH: OnceLock<(Place, LogReader, Oracle)> = OnceLock::new();
    BOTH.get_or_init(|| {
        let place = Place::new(4096);
        let (log, _) = place.open().unwrap();
        for index in 0..SIZE {
            log.append_later(Class::Vital, entry(index)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(log.close()).unwrap();
        let reader = LogReader::open(&place.folder()).unwrap();
        (place, reader, Oracle::of(SIZE))
    })
}

#[test]
fn hashes_are_those_of_the_oracle() {
    assert_eq!(empty_root(), tlog::EMPTY_HASH.0);
    assert_eq!(leaf_hash(b"entry"), tlog::record_hash(b"entry").0);
    let (left, right) = ([1; 32], [2; 32]);
    assert_eq!(node_hash(&left, &right), tlog::node_hash(TheirHash(left), TheirHash(right)).0);
}

#[test]
fn roots_of_all_sizes_are_those_of_the_oracle() {
    let (_, reader, oracle) = both();
    let mut tree = Tree::default();
    for size in 0..=SIZE {
        assert_eq!(tree.root(), oracle.root(size), "at {size}");
        if size % 13 == 0 {
            assert_eq!(reader.root_at(size).unwrap(), oracle.root(size), "at {size}");
        }
        tree.push(leaf_hash(&entry(size)), |_, _| ());
    }
}

#[test]
fn a_tree_of_three_tile_levels_has_the_oracles_root() {
    let size = 256 * 256 + 300;
    let mut tree = Tree::default();
    let mut tiles = Vec::new();
    (0..size)
        .for_each(|index| tree.push(leaf_hash(&entry(index)), |id, _| tiles.push((id.level, id.number))));
    let full: Vec<_> = (0..257).map(|number| (0, number)).collect();
    let mut expected = full[..256].to_vec();
    expected.push((1, 0));
    expected.push(full[256]);
    assert_eq!(tiles, expected);
    assert_eq!(tree.root(), Oracle::of(size).root(size));
}

#[test]
fn tiles_are_those_of_the_oracle() {
    let (place, reader, oracle) = both();
    for tile in Tile::new_tiles(8, 0, SIZE) {
        let (level, number, width) = (tile.level(), tile.level_index(), tile.width() as u16);
        assert_eq!(reader.tile(level, number, width).unwrap(), tile.read_data(oracle).unwrap());
        let path = place.folder().join(tile_path(level, number, width));
        assert_eq!(path.is_file(), width == 256, "full tiles lie at their paths");
        for narrower in [1, width / 2 + 1] {
            let partial = Tile::new(8, level, number, u32::from(narrower), false);
            assert_eq!(reader.tile(level, number, narrower).unwrap(), partial.read_data(oracle).unwrap());
        }
    }
    let beyond = [
        (0, SIZE / 256, (SIZE % 256) as u16 + 1),
        (0, 0, 0),
        (0, 0, 257),
        (1, 0, 6),
        (8, 0, 1),
        (0, u64::MAX, 1),
    ];
    for (level, number, width) in beyond {
        assert!(
            matches!(reader.tile(level, number, width), Err(LogError::Absent { .. })),
            "{level} {number} {width}"
        );
    }
}

#[test]
fn tile_paths_are_those_of_the_oracle() {
    for number in [0, 1, 999, 1000, 1234, 999_999, 1_000_000, 1_234_067, u64::MAX >> 8] {
        for width in [1, 17, 255, 256] {
            for level in 0..8 {
                // The oracle names the tile's height too, which C2SP tlog-tiles fixes at 8 and leaves out.
                let theirs = Tile::new(8, level, number, u32::from(width), false).path();
                assert_eq!(tile_path(level, number, width), theirs.replacen("tile/8/", "tile/", 1));
            }
            let theirs = Tile::new(8, 0, number, u32::from(width), true).path();
            let theirs = theirs.replacen("tile/8/data/", "tile/entries/", 1);
            assert_eq!(bundle_path(number, width), theirs.replacen("tile/data/", "tile/entries/", 1));
        }
    }
}

#[test]
fn entry_bundles_hold_the_entries_with_their_lengths() {
    let (_, reader, _) = both();
    for (number, width) in [(0, 256), (2, 256), (5, 120), (0, 1)] {
        let bundle = reader.entry_bundle(number, width).unwrap();
        let mut rest = bundle.as_slice();
        for index in number * 256..number * 256 + u64::from(width) {
            let (length, after) = rest.split_first_chunk().unwrap();
            let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            assert_eq!(bytes, entry(index));
            rest = after;
        }
        assert!(rest.is_empty());
    }
    assert!(reader.entry_bundle(5, 121).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inclusion_is_proven_as_by_the_oracle(size in 1..=SIZE, at in any::<prop::sample::Index>(), other in 0..32_usize) {
        let (_, reader, oracle) = both();
        let index = at.index(size as usize) as u64;
        let proof = reader.inclusion_proof(index, size).unwrap();
        let theirs = tlog::prove_record(size, index, oracle).unwrap();
        prop_assert_eq!(&proof, &theirs.iter().map(|hash| hash.0).collect::<Vec<_>>());
        let (leaf, root) = (leaf_hash(&entry(index)), oracle.root(size));
        prop_assert_eq!(verify_inclusion(index, size, &leaf, &proof, &root), Ok(()));
        // Its neighbours.
        prop_assert_eq!(verify_inclusion(index, size, &leaf_hash(b"other"), &proof, &root), Err(ProofError::Root));
        prop_assert_eq!(verify_inclusion(size, size, &leaf, &proof, &root), Err(ProofError::Bounds));
        prop_assert!(verify_inclusion(index ^ 1, size, &leaf, &proof, &root).is_err() || size == 1);
        let mut longer = proof.clone();
        longer.push([0; 32]);
        prop_assert_eq!(verify_inclusion(index, size, &leaf, &longer, &root), Err(ProofError::Length));
        if let Some((_, shorter)) = proof.split_last() {
            prop_assert!(verify_inclusion(index, size, &leaf, shorter, &root).is_err());
            let mut changed = proof.clone();
            changed[at.index(proof.len())][other] ^= 1;
            prop_assert_eq!(verify_inclusion(index, size, &leaf, &changed, &root), Err(ProofError::Root));
        }
    }

    #[test]
    fn consistency_is_proven_as_by_the_oracle(new in 1..=SIZE, at in any::<prop::sample::Index>(), other in 0..32_usize) {
        let (_, reader, oracle) = both();
        let old = at.index(new as usize) as u64 + 1;
        let proof = reader.consistency_proof(old, new).unwrap();
        let theirs = tlog::prove_tree(new, old, oracle).unwrap();
        prop_assert_eq!(&proof, &theirs.iter().map(|hash| hash.0).collect::<Vec<_>>());
        let (old_root, new_root) = (oracle.root(old), oracle.root(new));
        prop_assert_eq!(verify_consistency(old, new, &old_root, &new_root, &proof), Ok(()));
        // Its neighbours.
        let mut wrong = old_root;
        wrong[other] ^= 1;
        prop_assert_eq!(verify_consistency(old, new, &wrong, &new_root, &proof), Err(ProofError::Root));
        let mut wrong = new_root;
        wrong[other] ^= 1;
        prop_assert_eq!(verify_consistency(old, new, &old_root, &wrong, &proof), Err(ProofError::Root));
        prop_assert_eq!(verify_consistency(new + 1, new, &old_root, &new_root, &proof), Err(ProofError::Bounds));
        let mut longer = proof.clone();
        longer.push([0; 32]);
        prop_assert!(verify_consistency(old, new, &old_root, &new_root, &longer).is_err());
        if let Some((_, shorter)) = proof.split_last() {
            prop_assert!(verify_consistency(old, new, &old_root, &new_root, shorter).is_err());
            let mut changed = proof.clone();
            changed[at.index(proof.len())][other] ^= 1;
            prop_assert_eq!(verify_consistency(old, new, &old_root, &new_root, &changed), Err(ProofError::Root));
        }
    }

    #[test]
    fn notes_do_not_panic(note in any::<Vec<u8>>(), text in "\\PC{0,40}\n[0-9]{0,22}\n\\PC{0,50}\n\n— \\PC{0,60}\n") {
        let (place, ..) = both();
        let verifier = place.signer().verifier().clone();
        prop_assert!(verifier.verify(&note).is_err());
        prop_assert!(verifier.verify(text.as_bytes()).is_err());
    }
}

#[test]
fn the_empty_tree_begins_every_tree() {
    let (_, reader, oracle) = both();
    assert_eq!(reader.consistency_proof(0, 9).unwrap(), Vec::<Hash>::new());
    let root = oracle.root(9);
    assert_eq!(verify_consistency(0, 9, &empty_root(), &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, 9, &root, &root, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, 9, &empty_root(), &root, &[root]), Err(ProofError::Length));
    assert!(matches!(reader.inclusion_proof(9, 9), Err(LogError::Absent { .. })));
    assert!(matches!(reader.inclusion_proof(0, SIZE + 1), Err(LogError::Absent { .. })));
    assert!(matches!(reader.consistency_proof(9, 8), Err(LogError::Absent { .. })));
    assert!(matches!(reader.consistency_proof(9, SIZE + 1), Err(LogError::Absent { .. })));
}

#[test]
fn the_oracle_reads_our_checkpoints() {
    let (place, _, oracle) = both();
    let note = fs::read_to_string(place.checkpoint()).unwrap();
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let theirs = TheirCheckpoint::from_bytes(format!("{text}\n").as_bytes()).unwrap();
    assert_eq!((theirs.origin(), theirs.size(), theirs.hash().0), (ORIGIN, SIZE, oracle.root(SIZE)));
    assert!(signatures.starts_with(&format!("\u{2014} {ORIGIN} ")));
    let verified = place.signer().verifier().verify(note.as_bytes()).unwrap();
    assert_eq!((verified.size(), verified.root(), verified.note()), (SIZE, oracle.root(SIZE), note.as_str()));
}

#[test]
fn verifier_keys_are_parsed_and_printed() {
    // The example key of C2SP signed-note: a public key that others print in the same way.
    let example = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(CheckpointVerifier::parse(example).unwrap().to_string(), example);
    let key = &both().0;
    let printed = key.signer().verifier().to_string();
    assert_eq!(&CheckpointVerifier::parse(&printed).unwrap(), key.signer().verifier());
    for wrong in [
        "",
        "name",
        "PeterNeumann+c74f20a3",
        &example.replace("c74f", "C74F"),
        &example.replace("a3", "a4"),
        &example.replace("+AR", "+BR"),
        &example.replace("Peter", "Petra"),
        &example[..example.len() - 4],
    ] {
        assert_eq!(CheckpointVerifier::parse(wrong), Err(CheckpointError::Key), "{wrong}");
    }
    assert!(!format!("{:?}", key.signer()).contains(&STANDARD.encode(&*key.key)));
}

#[test]
fn checkpoints_are_believed_only_as_signed() {
    let (place, ..) = both();
    let signer = place.signer();
    let note = signer.sign(7, [9; 32]).unwrap().note().to_owned();
    let verify = |note: &str| signer.verifier().verify(note.as_bytes()).map(|checkpoint| checkpoint.size());
    assert_eq!(verify(&note), Ok(7));
    let witness =
        CheckpointSigner::from_pkcs8("witness.example", &CheckpointSigner::generate_pkcs8().unwrap())
            .unwrap();
    let line = witness.sign(7, [9; 32]).unwrap().note().lines().last().unwrap().to_owned();
    assert_eq!(verify(&format!("{note}{line}\n")), Ok(7), "signatures by others are passed over");
    let (text, _) = note.split_once("\n\n").unwrap();
    assert_eq!(verify(&format!("{text}\n\n{line}\n")), Err(CheckpointError::Unsigned));
    assert_eq!(verify(&note.replacen("\n7\n", "\n8\n", 1)), Err(CheckpointError::Signature));
    assert_eq!(verify(&note.replacen("\n7\n", "\n+7\n", 1)), Err(CheckpointError::Signature));
    assert_eq!(verify(note.trim_end()), Err(CheckpointError::Malformed));
    assert_eq!(verify(&format!("{note}no signature\n")), Err(CheckpointError::Malformed));
    assert_eq!(verify(text), Err(CheckpointError::Malformed));
    assert_eq!(verify(&"x".repeat(20_000)), Err(CheckpointError::Malformed));
    let other = CheckpointSigner::from_pkcs8("other.example", &place.key).unwrap();
    let foreign = other.sign(7, [9; 32]).unwrap();
    assert_eq!(verify(foreign.note()), Err(CheckpointError::Unsigned));
}
