//! `cargo bench -p deputize-conformance --bench svid_push`: from the order of an administrator that makes an entry to the SVID at a
//! client that waits on an open stream: durable, recorded, decided, minted and pushed.
//!
//! One entry after the other, each deleted again. Two times are shown: from the moment that the order is sent, and from its
//! answer (an SVID that is there first counts as none). A run in which an SVID does not come is void. Nothing here gates; the
//! numbers are printed, drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
#![expect(clippy::unwrap_used, reason = "a measuring program stops at the first surprise")]

use deputize_conformance::{
    measure::{build_the_program, percentile, profile, save},
    spiffe_lab::{SpiffeLab, TRUST_DOMAIN},
    workload_api::{Answers, Connection, JwtSvidRequest, X509SvidResponse},
};
use serde_json::json;
use std::{os::unix::fs::MetadataExt as _, time::Instant};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os("DEPUTIZE_BENCH_SERVER").is_none() {
        build_the_program();
    }
    let lab = SpiffeLab::start().await;
    let connection = Connection::open(&lab.socket).await.unwrap();
    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let mut stream = connection.ask("FetchX509SVID", Some("true"), &nothing).await.unwrap();
    until(&mut stream, 2).await;
    let uid = std::fs::metadata(lab.world.folder()).unwrap().uid();
    let (mut sent, mut answered) = (Vec::new(), Vec::new());
    for number in 0..WARM + ENTRIES {
        let id = format!("pushed-{number}");
        let entry = json!({
            "id": id, "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/{id}"), "selectors": [format!("unix:uid:{uid}")],
        });
        let start = Instant::now();
        let order = async {
            let answer = lab.world.order("POST", "/admin/entries", &entry).await;
            assert!(answer.status < 300, "{answer:?}");
            start.elapsed()
        };
        let arrival = async {
            until(&mut stream, 3).await;
            start.elapsed()
        };
        let (made, there) = tokio::join!(order, arrival);
        if number >= WARM {
            sent.push(there.as_secs_f64() * 1e3);
            answered.push(there.saturating_sub(made).as_secs_f64() * 1e3);
        }
        let answer = lab.world.order("DELETE", &format!("/admin/entries/{id}"), &json!({})).await;
        assert!(answer.status < 300, "{answer:?}");
        until(&mut stream, 2).await;
    }
    report(sent, answered);
}

/// Waits until the stream has told so many SVIDs.
async fn until(stream: &mut Answers<X509SvidResponse>, svids: usize) {
    while stream.next().await.unwrap().unwrap().svids.len() != svids {}
}

fn report(sent: Vec<f64>, answered: Vec<f64>) {
    let of = |values: &Vec<f64>| [0.5, 0.9, 0.99].map(|part| percentile(values, part));
    let (from_order, from_answer) = (of(&sent), of(&answered));
    println!(
        "\nsvid_push  milliseconds to the SVID at the client, {ENTRIES} entries  (goal: p99 at most {GOAL_MS} from the answer)"
    );
    println!("{:<22} {:>8} {:>8} {:>8}", "", "p50", "p90", "p99");
    for (name, [p50, p90, p99]) in [("from the order", from_order), ("from its answer", from_answer)] {
        let bar = "#".repeat((p99.min(4.0 * GOAL_MS) / GOAL_MS * 12.0) as usize);
        println!("{name:<22} {p50:>8.2} {p90:>8.2} {p99:>8.2} |{bar:<48}| {}", 4.0 * GOAL_MS);
    }
    let [order_p50, _, order_p99] = from_order;
    let [answer_p50, _, answer_p99] = from_answer;
    let result = json!({
        "bench": "svid_push", "goal_p99_ms": GOAL_MS, "profile": profile(), "entries": ENTRIES,
        "from_order_ms": { "p50": order_p50, "p99": order_p99 },
        "from_answer_ms": { "p50": answer_p50, "p99": answer_p99 },
    });
    println!("saved as {}", save("svid_push", &result).display());
}

const GOAL_MS: f64 = 10.0;
const WARM: usize = 5;
const ENTRIES: usize = if cfg!(debug_assertions) { 100 } else { 500 };
