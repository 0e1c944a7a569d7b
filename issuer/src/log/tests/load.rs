//! Many at once, on the machine's own disk.

use std::collections::HashSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_their_flushes() {
    let place = Place::new(1 << 20);
    let (log, _) = Log::open(place.config(), place.signer()).unwrap();
    let (tasks, each) = (64_u64, 100_u64);
    #[expect(clippy::disallowed_methods, reason = "the rate is printed, nothing depends on it")]
    let started = std::time::Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut indices = Vec::new();
                for number in 0..each {
                    let record =
                        format!("{{\"task\":{task},\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(900));
                    indices.push((
                        log.append(Class::Routine, record.clone().into_bytes()).await.unwrap(),
                        record,
                    ));
                }
                indices
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in running {
        let records = task.await.unwrap();
        assert!(records.is_sorted_by_key(|(index, _)| *index), "one caller's records keep their order");
        for (index, record) in records {
            assert!(seen.insert(index), "index {index} was given twice");
            assert_eq!(log.reader().entry(index).unwrap(), record.into_bytes());
        }
    }
    let elapsed = started.elapsed();
    let statistics = log.statistics();
    assert_eq!((log.size(), statistics.entries), (tasks * each, tasks * each));
    let per_flush = statistics.entries as f64 / statistics.flushes as f64;
    println!(
        "{:.0} records/s, {per_flush:.1} records a flush",
        statistics.entries as f64 / elapsed.as_secs_f64()
    );
    assert!(per_flush > 1.0, "{statistics:?}");
    log.close().await.unwrap();
    place.verify().unwrap();
}

#[tokio::test]
async fn a_reader_follows_a_running_log() {
    let place = Place::new(300);
    let (log, _) = place.open().unwrap();
    let reader = log.reader();
    for index in 0..100 {
        log.append(Class::Vital, entry(index)).await.unwrap();
        assert_eq!(reader.size(), index + 1);
        assert_eq!(reader.tail(1).next().unwrap().unwrap(), (index, entry(index)));
        let proof = reader.inclusion_proof(index, index + 1).unwrap();
        let (leaf, root) = (crate::log::leaf_hash(&entry(index)), reader.root_at(index + 1).unwrap());
        crate::log::verify_inclusion(index, index + 1, &leaf, &proof, &root).unwrap();
    }
    log.close().await.unwrap();
    assert_eq!(log.checkpoint().root(), reader.root_at(100).unwrap());
}
