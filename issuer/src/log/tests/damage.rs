//! Damage and rollback are found, and named.

use super::*;

#[tokio::test]
async fn every_flipped_byte_is_found_and_names_its_record() {
    let place = Place::new(150);
    place.fill(0, 10).await;
    let segments = place.segments();
    assert!(segments.len() > 2);
    for (segment, first) in segments.iter().zip(segment::list(&place.folder()).unwrap()) {
        let sound = fs::read(segment).unwrap();
        let mut index = first;
        let mut next = sound.len() as u64 - frames_bytes(first, &sound);
        for offset in 0..sound.len() as u64 {
            while offset >= next + entry(index).len() as u64 + 17 {
                next += entry(index).len() as u64 + 17;
                index += 1;
            }
            for mask in [0x01, 0x80] {
                let mut flipped = sound.clone();
                flipped[offset as usize] ^= mask;
                fs::write(segment, &flipped).unwrap();
                let findings = place.verify().expect_err("a flipped byte is found");
                let named = findings.iter().any(|f| f.index == Some(index) && f.file == *segment);
                assert!(named, "byte {offset} of {segment:?} is of record {index}: {findings:?}");
                match place.open() {
                    Err(LogError::Damaged { index: named, file, .. }) => {
                        assert_eq!((named, &file), (index, segment))
                    }
                    other => panic!("byte {offset} of {segment:?}: {other:?}"),
                }
            }
        }
        fs::write(segment, &sound).unwrap();
    }
    place.verify().unwrap();
}

/// Bytes of all frames of the segment starting with `first`, by the lengths of the entries.
fn frames_bytes(first: u64, segment: &[u8]) -> u64 {
    let header = segment::encode_header(ORIGIN, first).len() as u64;
    segment.len() as u64 - header
}

#[tokio::test]
async fn one_flipped_byte_is_one_finding() {
    let place = Place::new(1 << 20);
    place.fill(0, 20).await;
    let [segment] = place.segments().try_into().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&segment, bytes).unwrap();
    let findings = place.verify().unwrap_err();
    assert_eq!(findings.len(), 1, "the records after it are read on: {findings:?}");
}

#[tokio::test]
async fn every_flipped_byte_of_a_checkpoint_is_found() {
    let place = Place::new(1 << 20);
    place.fill(0, 3).await;
    for file in [place.checkpoint(), place.anchor()] {
        let sound = fs::read(&file).unwrap();
        for offset in 0..sound.len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut flipped = sound.clone();
                flipped[offset] ^= mask;
                fs::write(&file, &flipped).unwrap();
                let findings = place.verify().expect_err("a flipped byte is found");
                assert!(findings.iter().any(|finding| finding.file == file), "{findings:?}");
                assert!(matches!(place.open(), Err(LogError::Checkpoint { .. })));
            }
        }
        fs::write(&file, &sound).unwrap();
    }
    place.verify().unwrap();
}

#[tokio::test]
async fn a_wrong_tile_is_found_and_built_again() {
    let place = Place::new(1 << 20);
    place.fill(0, 520).await;
    let tile = place.folder().join("tile/0/001");
    let sound = fs::read(&tile).unwrap();
    for offset in (0..sound.len()).step_by(397) {
        let mut flipped = sound.clone();
        flipped[offset] ^= 2;
        fs::write(&tile, &flipped).unwrap();
        let findings = place.verify().unwrap_err();
        assert_eq!((findings[0].index, &findings[0].file), (Some(256), &tile));
    }
    let (log, recovery) = place.open().unwrap();
    assert!(recovery.tiles_rebuilt);
    log.close().await.unwrap();
    assert_eq!(fs::read(&tile).unwrap(), sound);
    fs::remove_file(&tile).unwrap();
    place.verify().unwrap();
    let (log, recovery) = place.open().unwrap();
    assert!(!recovery.tiles_rebuilt);
    log.close().await.unwrap();
    assert_eq!(fs::read(&tile).unwrap(), sound, "a missing tile is derived");
}

#[tokio::test]
async fn an_older_folder_is_refused_by_the_anchor() {
    let place = Place::new(200);
    place.fill(0, 10).await;
    let backup: Vec<_> = files(&place.folder());
    place.fill(10, 20).await;
    fs::remove_dir_all(place.folder()).unwrap();
    restore(&backup);
    match place.open() {
        Err(error @ LogError::RolledBack { recorded: 20, found: 10, .. }) => {
            assert!(error.to_string().contains("restore the newest copy"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(place.verify().unwrap_err().iter().any(|finding| finding.file == place.anchor()));
    // Without the anchor nothing shows it: hence the anchor.
    fs::remove_file(place.anchor()).unwrap();
    place.open().unwrap().0.close().await.unwrap();
}

#[tokio::test]
async fn an_emptied_folder_is_refused_by_the_anchor() {
    let place = Place::new(200);
    place.fill(0, 10).await;
    fs::remove_dir_all(place.folder()).unwrap();
    assert!(matches!(place.open(), Err(LogError::RolledBack { recorded: 10, found: 0, .. })));
}

#[tokio::test]
async fn lost_segments_and_checkpoints_are_refused() {
    let place = Place::new(200);
    place.fill(0, 30).await;
    fs::remove_file(place.anchor()).unwrap();
    let backup = files(&place.folder());
    let segments = place.segments();
    let count = segments.len();
    for (at, segment) in segments.iter().enumerate() {
        fs::remove_file(segment).unwrap();
        let opened = place.open();
        let refused = matches!(opened, Err(LogError::RolledBack { .. } | LogError::Damaged { .. }));
        assert!(refused, "without segment {at} of {count}: {opened:?}");
        assert!(place.verify().is_err());
        restore(&backup);
        fs::remove_file(place.anchor()).ok();
    }
    fs::remove_file(place.checkpoint()).unwrap();
    assert!(matches!(place.open(), Err(LogError::RolledBack { .. })));
    restore(&backup);
    place.open().unwrap().0.close().await.unwrap();
}

#[tokio::test]
async fn rewritten_history_is_refused() {
    let place = Place::new(1 << 20);
    place.fill(0, 10).await;
    let [segment] = place.segments().try_into().unwrap();
    // The same length, checksums and indices, but another entry: only the signed root tells.
    let mut bytes = segment::encode_header(ORIGIN, 0);
    for index in 0..10 {
        let mut entry = entry(index);
        if index == 4 {
            entry[3] ^= 1;
        }
        segment::encode_frame(&mut bytes, index, 0, &entry);
    }
    assert_eq!(bytes.len(), fs::read(&segment).unwrap().len());
    fs::write(&segment, bytes).unwrap();
    assert!(matches!(place.open(), Err(LogError::RolledBack { recorded: 10, found: 10, .. })));
    let findings = place.verify().unwrap_err();
    assert_eq!((findings[0].index, &findings[0].file), (Some(10), &place.checkpoint()));
}

#[tokio::test]
async fn another_key_is_not_believed() {
    let mut place = Place::new(1 << 20);
    place.fill(0, 3).await;
    place.key = CheckpointSigner::generate_pkcs8().unwrap();
    let opened = place.open();
    assert!(
        matches!(opened, Err(LogError::Checkpoint { cause: CheckpointError::Unsigned, .. })),
        "{opened:?}"
    );
    assert!(place.verify().is_err());
}

#[tokio::test]
async fn damage_in_older_segments_is_found_in_the_background() {
    let place = Place::new(200);
    place.fill(0, 300).await;
    let oldest = &place.segments()[0];
    let mut bytes = fs::read(oldest).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(oldest, &bytes).unwrap();
    let (log, recovery) =
        Log::open_on(Arc::new(TestDisk::default()), place.config(), place.signer(), 0).unwrap();
    assert!(recovery.unchecked_bytes > 0);
    let failed = async {
        while !log.failed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), failed).await.expect("the damage is found");
    assert!(matches!(log.append(Class::Vital, entry(300)).await, Err(LogError::Failed)));
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files
}

fn restore(files: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
