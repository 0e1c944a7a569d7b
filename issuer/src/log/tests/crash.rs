//! What a crash leaves is recovered; nothing that was answered is lost.

use super::*;

/// Appends until the disk stops; gives how many appends were answered with an index.
async fn run(place: &Place, disk: Arc<TestDisk>, from: u64, to: u64) -> u64 {
    let Ok((log, _)) = place.open_on(disk) else { return from };
    let mut answered = from;
    for index in from..to {
        match log.append(Class::Vital, entry(index)).await {
            Ok(at) => {
                assert_eq!(at, index);
                answered = index + 1;
            }
            Err(LogError::Failed) => break,
            Err(other) => panic!("{other}"),
        }
        if index % 3 == 0 {
            log.handle.shared.tick();
        }
    }
    let _ = log.close().await;
    answered
}

#[tokio::test]
async fn a_crash_in_any_step_loses_nothing_answered() {
    let mut step = 0;
    loop {
        let place = Place::new(120);
        let disk = TestDisk::with(Fault::CrashAt(step));
        let answered = run(&place, disk.clone(), 0, 10).await;
        let (log, recovery) =
            place.open().unwrap_or_else(|error| panic!("after a crash in step {step}: {error}"));
        assert!(recovery.size >= answered, "after a crash in step {step} {answered} answered, {recovery:?}");
        assert_prefix(&log.reader(), recovery.size);
        assert_eq!(log.append(Class::Vital, entry(recovery.size)).await.unwrap(), recovery.size);
        log.close().await.unwrap();
        place.verify().unwrap_or_else(|findings| panic!("after a crash in step {step}: {findings:?}"));
        if disk.steps.load(Ordering::SeqCst) <= step {
            assert_eq!(answered, 10);
            break;
        }
        step += 1;
    }
    assert!(step > 50, "rotations, checkpoints and anchors were among the steps");
}

#[tokio::test]
async fn a_crash_around_a_full_tile_is_recovered() {
    let place = Place::new(1 << 20);
    place.fill(0, 254).await;
    let before = tempfile::tempdir().unwrap();
    copy_folder(&place.folder(), before.path());
    let anchor = fs::read(place.anchor()).unwrap();
    for step in 0..40 {
        fs::remove_dir_all(place.folder()).unwrap();
        copy_folder(before.path(), &place.folder());
        fs::write(place.anchor(), &anchor).unwrap();
        let answered = run(&place, TestDisk::with(Fault::CrashAt(step)), 254, 260).await;
        let (log, recovery) = place.open().unwrap();
        assert!(recovery.size >= answered);
        assert_prefix(&log.reader(), recovery.size);
        log.close().await.unwrap();
        place.verify().unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_in_any_one_step_is_survived() {
    let mut step = 0;
    loop {
        let place = Place::new(120);
        let disk = TestDisk::with(Fault::FullAt(step));
        if let Ok((log, _)) = place.open_on(disk.clone()) {
            let mut index = 0;
            let mut refusals = 0;
            while index < 10 {
                match log.append(Class::Vital, entry(index)).await {
                    Ok(at) => {
                        assert_eq!(at, index);
                        index += 1;
                    }
                    Err(LogError::NoSpace) => refusals += 1,
                    Err(other) => panic!("step {step}: {other}"),
                }
                log.handle.shared.tick();
            }
            assert!(refusals <= 1);
            log.close().await.unwrap();
            assert_prefix(&log.reader(), 10);
        }
        let (log, _) = place.open().unwrap();
        log.close().await.unwrap();
        place.verify().unwrap_or_else(|findings| panic!("step {step}: {findings:?}"));
        if disk.steps.load(Ordering::SeqCst) <= step {
            break;
        }
        step += 1;
    }
}

#[tokio::test]
async fn every_truncation_recovers_a_prefix_or_refuses_below_the_checkpoint() {
    let place = Place::new(1 << 20);
    place.fill(0, 6).await;
    let (old_checkpoint, old_anchor) =
        (fs::read(place.checkpoint()).unwrap(), fs::read(place.anchor()).unwrap());
    let [segment] = place.segments().try_into().unwrap();
    let covered = fs::metadata(&segment).unwrap().len();
    place.fill(6, 15).await;
    let whole = fs::read(&segment).unwrap();
    let ends = frame_ends(&whole, 15);
    for length in 0..=whole.len() as u64 {
        fs::write(&segment, &whole[..length as usize]).unwrap();
        fs::write(place.checkpoint(), &old_checkpoint).unwrap();
        fs::write(place.anchor(), &old_anchor).unwrap();
        let opened = place.open();
        if length < covered {
            let refused = matches!(opened, Err(LogError::RolledBack { .. } | LogError::Damaged { .. }));
            assert!(refused, "cut to {length} of {covered} covered bytes: {opened:?}");
            continue;
        }
        let (log, recovery) = opened.unwrap_or_else(|error| panic!("cut to {length}: {error}"));
        let end = ends.iter().copied().filter(|&end| end <= length).max().unwrap();
        let size = ends.iter().position(|&e| e == end).unwrap() as u64 + 1;
        assert_eq!((recovery.size, recovery.torn_bytes_dropped), (size, length - end));
        assert_eq!(recovery.beyond_checkpoint, size - 6);
        assert_prefix(&log.reader(), size);
        log.close().await.unwrap();
        assert_eq!(place.verify().unwrap().size, size);
    }
}

#[tokio::test]
async fn a_torn_group_is_cut_off_though_its_later_frames_arrived() {
    let place = Place::new(1 << 20);
    place.fill(0, 4).await;
    let [segment] = place.segments().try_into().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.len();
    for (place, index) in (4..10).enumerate() {
        segment::encode_frame(&mut bytes, index, place as u16, &entry(index));
    }
    // The page with the third frame of the group was not written.
    let ends = frame_ends(&bytes, 10);
    bytes[ends[5] as usize..ends[6] as usize].fill(0);
    fs::write(&segment, &bytes).unwrap();
    let (log, recovery) = place.open().unwrap();
    assert_eq!((recovery.size, recovery.torn_bytes_dropped), (6, bytes.len() as u64 - ends[5]));
    assert!(ends[5] > end as u64);
    log.close().await.unwrap();
    assert_prefix(&log.reader(), 6);
    place.verify().unwrap();
}

#[tokio::test]
async fn a_damaged_group_that_was_durable_is_not_taken_for_torn() {
    let place = Place::new(1 << 20);
    place.fill(0, 4).await;
    let (checkpoint, anchor) = (fs::read(place.checkpoint()).unwrap(), fs::read(place.anchor()).unwrap());
    place.fill(4, 10).await;
    fs::write(place.checkpoint(), checkpoint).unwrap();
    fs::write(place.anchor(), anchor).unwrap();
    let [segment] = place.segments().try_into().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let ends = frame_ends(&bytes, 10);
    for offset in ends[5]..ends[6] {
        let mut flipped = bytes.clone();
        flipped[offset as usize] ^= 0x10;
        fs::write(&segment, &flipped).unwrap();
        let opened = place.open();
        assert!(matches!(opened, Err(LogError::Damaged { index: 6, .. })), "{opened:?}");
    }
}

#[tokio::test]
async fn tiles_of_entries_cut_off_are_not_believed() {
    let place = Place::new(1 << 20);
    place.fill(0, 250).await;
    let (checkpoint, anchor) = (fs::read(place.checkpoint()).unwrap(), fs::read(place.anchor()).unwrap());
    place.fill(250, 256).await;
    fs::write(place.checkpoint(), checkpoint).unwrap();
    fs::write(place.anchor(), anchor).unwrap();
    let [segment] = place.segments().try_into().unwrap();
    let length = fs::metadata(&segment).unwrap().len();
    File::options().write(true).open(&segment).unwrap().set_len(length - 1).unwrap();
    let (log, recovery) = place.open().unwrap();
    assert_eq!(recovery.size, 255);
    for index in 255..300 {
        log.append(Class::Vital, entry(index + 1000)).await.unwrap();
    }
    log.close().await.unwrap();
    place.verify().unwrap();
}

fn frame_ends(segment: &[u8], entries: u64) -> Vec<u64> {
    let frames: u64 = (0..entries).map(|index| entry(index).len() as u64 + 17).sum();
    let mut end = segment.len() as u64 - frames;
    let next = |index| {
        end += entry(index).len() as u64 + 17;
        end
    };
    (0..entries).map(next).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
