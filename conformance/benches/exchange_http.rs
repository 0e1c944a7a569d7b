//! `cargo bench -p deputize-conformance --bench exchange_http`: whole exchanges over keep-alive, against the bare
//! cryptography that each of them needs: three verifications and one signature (3V+S), measured in the same run.
//!
//! A B A B: in each pair first the floor, then the broker. The ratio is floor ÷ the broker's own CPU time for each
//! request (from `/proc`), so that it does not depend on what else the machine does. A pair is void if any answer is not a token, or
//! if the client needed over 0.9 of a core. Nothing here gates; the numbers are printed, drawn, and saved as JSON.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures in real time, speaks to people, and stops at anything unexpected"
)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use deputize_conformance::{
    exchange::Lab,
    forge::{Key, decode},
    wire::Request,
    world::World,
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    process::Command,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::task::JoinSet;

/// One pair, in microseconds and requests a second.
struct Pair {
    floor_us: f64,
    server_cpu_us: f64,
    client_cpu_us: f64,
    rate: f64,
    void: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    build_the_broker();
    let mut world = World::new().await;
    world.add_policies(POLICIES);
    world.behind_proxy();
    let lab = Arc::new(Lab::start(world).await);
    round(&lab, REQUESTS / 4).await;
    let mut pairs = Vec::new();
    println!(
        "{:>4} {:>10} {:>12} {:>12} {:>9} {:>6}",
        "pair", "3V+S us", "server us", "client us", "req/s", "ratio"
    );
    for number in 1..=PAIRS {
        let floor_us = floor();
        let pair = Pair { floor_us, ..round(&lab, REQUESTS).await };
        println!(
            "{number:>4} {:>10.1} {:>12.1} {:>12.1} {:>9.0} {:>6.3}{}",
            pair.floor_us,
            pair.server_cpu_us,
            pair.client_cpu_us,
            pair.rate,
            pair.ratio(),
            if pair.void { " void" } else { "" },
        );
        pairs.push(pair);
    }
    report(&pairs);
}

/// The program in the profile of this benchmark. Nothing happens if it is there already.
fn build_the_broker() {
    if std::env::var_os("DEPUTIZE_BIN").is_some() {
        return;
    }
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let built =
        Command::new(env!("CARGO")).args(["build", "--locked", "-p", "deputize"]).args(profile).status();
    assert!(built.unwrap().success(), "the broker does not build");
}

/// 3V+S on this machine now, in microseconds.
fn floor() -> f64 {
    let key = Key::es256();
    let message = [7_u8; 512];
    let signature = key.sign(&message);
    let jwk = key.jwk();
    let point =
        [&[4], &decode(jwk["x"].as_str().unwrap())[..], &decode(jwk["y"].as_str().unwrap())[..]].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let verify = microseconds(|| public.verify(&message, &signature).unwrap());
    let sign = microseconds(|| drop(key.sign(&message)));
    3.0 * verify + sign
}

/// CPU time of this thread for one call, in microseconds.
fn microseconds(mut call: impl FnMut()) -> f64 {
    let before = thread_cpu_nanoseconds();
    for _ in 0..FLOOR_CALLS {
        call();
    }
    (thread_cpu_nanoseconds() - before) / 1e3 / f64::from(FLOOR_CALLS)
}

/// So many exchanges, signed beforehand, in a closed loop over keep-alive connections.
async fn round(lab: &Arc<Lab>, requests: usize) -> Pair {
    let nonce = lab.nonce().await;
    let template = lab.template("desk", &lab.world.user_token("alice"));
    let queue: VecDeque<Request> = (0..requests)
        .map(|_| {
            let mut exchange = template.clone();
            exchange.set("subject_token", &lab.world.user_token("alice"));
            exchange.set("client_assertion", &lab.assertion("desk"));
            exchange.prove(vec![Key::es256().proof(&lab.proof_claims(&nonce))]);
            exchange.request()
        })
        .collect();
    let queue = Arc::new(Mutex::new(queue));
    let (broker, own) = (lab.started.process.id().to_string(), "self".to_owned());
    let before = (cpu_seconds(&broker), cpu_seconds(&own), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (lab, queue) = (Arc::clone(lab), Arc::clone(&queue));
        callers.spawn(async move {
            let mut connection = lab.world.door.connect().await.unwrap();
            let mut refused = 0;
            while let Some(request) = { queue.lock().unwrap().pop_front() } {
                let answer = connection.send(&request).await.unwrap();
                refused += usize::from(answer.status != 200);
            }
            refused
        });
    }
    let refused: usize = callers.join_all().await.into_iter().sum();
    let wall = before.2.elapsed().as_secs_f64();
    let (server, client) = (cpu_seconds(&broker) - before.0, cpu_seconds(&own) - before.1);
    let each = 1e6 / requests as f64;
    Pair {
        floor_us: 0.0,
        server_cpu_us: server * each,
        client_cpu_us: client * each,
        rate: requests as f64 / wall,
        void: refused > 0 || client / wall > 0.9,
    }
}

/// The first field of the scheduler's statistics is the time on a CPU.
fn thread_cpu_nanoseconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// User and system time of a process so far (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / 100.0
}

fn report(pairs: &[Pair]) {
    let good: Vec<&Pair> = pairs.iter().filter(|pair| !pair.void).collect();
    let ratio = median(good.iter().map(|pair| pair.ratio()).collect());
    let bar = "#".repeat((ratio.unwrap_or_default() * 50.0) as usize);
    println!(
        "\nexchange_http  floor / server CPU, median of {} pairs: {ratio:?}  (goal 0.75)\n|{bar:<50}| 1.0",
        good.len()
    );
    let result = json!({
        "bench": "exchange_http", "goal": 0.75, "ratio": ratio, "pairs_void": pairs.len() - good.len(),
        "profile": if cfg!(debug_assertions) { "dev" } else { "release" }, "policies": POLICIES,
        "connections": CONNECTIONS, "requests_per_round": REQUESTS,
        "pairs": pairs.iter().map(Pair::to_json).collect::<Vec<_>>(),
    });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("exchange_http.json"), format!("{result:#}\n")).unwrap();
    println!("saved as target/bench/exchange_http.json");
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.floor_us / self.server_cpu_us
    }

    fn to_json(&self) -> Value {
        json!({
            "floor_us": self.floor_us, "server_cpu_us": self.server_cpu_us, "client_cpu_us": self.client_cpu_us,
            "requests_per_second": self.rate, "ratio": self.ratio(), "void": self.void,
        })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

const PAIRS: usize = 5;
/// A debug build is slow, and what is signed beforehand is good for a short while only.
const REQUESTS: usize = if cfg!(debug_assertions) { 400 } else { 4000 };
const CONNECTIONS: usize = 32;
const POLICIES: usize = 97;
const FLOOR_CALLS: u32 = 2000;
