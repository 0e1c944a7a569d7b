//! `cargo bench -p deputize-conformance --bench svid_streams`: ten thousand open streams of X.509-SVIDs: what each takes of
//! the broker's memory; and how long after a restart all have their SVIDs again.
//!
//! A run in which a stream is refused, or ends, is void: the program stops. Nothing here gates; the numbers are printed,
//! drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
#![expect(clippy::unwrap_used, reason = "a measuring program stops at the first surprise")]

use deputize_conformance::{
    measure::{build_the_program, median, profile, resident_kib, save},
    spiffe_lab::SpiffeLab,
    workload_api::{Answers, Connection, JwtSvidRequest, X509SvidResponse},
};
use serde_json::json;
use std::{path::Path, time::Instant};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os("DEPUTIZE_BENCH_SERVER").is_none() {
        build_the_program();
    }
    let lab = SpiffeLab::start().await;
    let config = lab.world.config();
    // Whatever the first hundred take once, ten thousand take once too.
    let warm = open(&lab.socket, CONNECTIONS / 100).await;
    drop(warm);
    let before = resident_kib(lab.started.process.id());
    let start = Instant::now();
    let streams = open(&lab.socket, CONNECTIONS).await;
    let opened_after = start.elapsed().as_secs_f64();
    let with = resident_kib(lab.started.process.id());
    let each = (with - before) / STREAMS as f64;
    println!("{STREAMS} streams on {CONNECTIONS} connections, open after {opened_after:.2} s");
    println!("resident: {before:.0} KiB without them, {with:.0} KiB with them");

    drop(streams);
    lab.started.process.terminate();
    lab.started.process.ended().await;
    let mut restarts = Vec::new();
    for _ in 0..RESTARTS {
        let start = Instant::now();
        let process = lab.world.spawn(&config);
        process.wait_until(async || Connection::open(&lab.socket).await.is_ok()).await;
        let streams = open(&lab.socket, CONNECTIONS).await;
        restarts.push(start.elapsed().as_secs_f64());
        assert_eq!(streams.iter().map(|(_, streams)| streams.len()).sum::<usize>(), STREAMS);
        drop(streams);
        process.terminate();
        process.ended().await;
    }
    report(each, restarts);
}

/// A connection with its streams.
type Held = (Connection, Vec<Answers<X509SvidResponse>>);

/// Opens so many connections with a hundred streams each, all of which have had their SVIDs.
async fn open(socket: &Path, connections: usize) -> Vec<Held> {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let socket = socket.to_owned();
        opening.spawn(async move {
            let connection = Connection::open(&socket).await.unwrap();
            let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
            let mut streams = Vec::with_capacity(STREAMS_OF_A_CONNECTION);
            for _ in 0..STREAMS_OF_A_CONNECTION {
                let mut stream: Answers<X509SvidResponse> =
                    connection.ask("FetchX509SVID", Some("true"), &nothing).await.unwrap();
                assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 2);
                streams.push(stream);
            }
            (connection, streams)
        });
    }
    opening.join_all().await
}

fn report(each: f64, restarts: Vec<f64>) {
    let served = median(restarts.clone()).unwrap();
    println!("\nsvid_streams  (goals at most {GOAL_KIB} KiB each, all served after {GOAL_SECONDS} s)");
    for (name, value, goal) in
        [("KiB each", each, GOAL_KIB), ("s until all are served", served, GOAL_SECONDS)]
    {
        let bar = "#".repeat((value / goal).clamp(0.0, 4.0).mul_add(12.0, 0.0) as usize);
        println!("{name:<24} {value:>7.2} |{bar:<48}| {}", 4.0 * goal);
    }
    let result = json!({
        "bench": "svid_streams", "profile": profile(), "streams": STREAMS, "connections": CONNECTIONS,
        "kib_each": each, "goal_kib_each": GOAL_KIB, "served_after_seconds": restarts,
        "goal_served_after_seconds": GOAL_SECONDS,
    });
    println!("saved as {}", save("svid_streams", &result).display());
}

const GOAL_KIB: f64 = 16.0;
const GOAL_SECONDS: f64 = 10.0;
const STREAMS: usize = CONNECTIONS * STREAMS_OF_A_CONNECTION;
const CONNECTIONS: usize = 100;
const STREAMS_OF_A_CONNECTION: usize = 100;
const RESTARTS: usize = 3;
