//! `svid_x509`: an X.509-SVID from what a process asks to what it gets, decided and recorded. With a certificate signing
//! request, against the verification of its signature and one signature alone; with a key made here, against the
//! generation of one and a signature.
//!
//! ```text
//! cargo bench -p deputize-issuer --bench svid_x509
//! ```
//!
//! Runs alternate (floor, line), medians are shown. The ratio counts CPU time of the whole process, which does not change
//! when others use the machine; the rate is by the wall clock. An answer other than an SVID voids the run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, takes the time, and stops at the first surprise"
)]

#[expect(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/line/spiffe.rs"]
mod spiffe;
#[expect(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/line/world.rs"]
mod world;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
        UnparsedPublicKey,
    },
};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use spiffe::{SpiffeWorld, process};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::runtime;

fn main() {
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let world = SpiffeWorld::new();
    let requests = Requests::new();
    let mut rows: [(&str, &str, Vec<Cost>, Vec<Cost>); 2] =
        [("csr", "V+S", Vec::new(), Vec::new()), ("mint", "keygen+S", Vec::new(), Vec::new())];
    for round in 0..=ROUNDS {
        let costs = [
            (requests.verify_and_sign(), runtime.block_on(with_csr(&world, &requests))),
            (requests.generate_and_sign(), runtime.block_on(with_new_key(&world))),
        ];
        world.world.audit.clear();
        // The first round only warms what is held.
        if round > 0 {
            for (row, (floor, line)) in rows.iter_mut().zip(costs) {
                row.2.push(floor);
                row.3.push(line);
            }
        }
    }
    save(&report(&rows));
}

/// CPU time of the process and wall time for all requests of a run.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

impl Cost {
    fn microseconds(self) -> f64 {
        self.cpu * 1e6 / REQUESTS as f64
    }
}

async fn with_csr(world: &SpiffeWorld, requests: &Requests) -> Cost {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    for request in &requests.csrs {
        black_box(world.x509_for(request).await.unwrap());
    }
    Cost { cpu: cpu_seconds() - cpu, wall: start.elapsed().as_secs_f64() }
}

async fn with_new_key(world: &SpiffeWorld) -> Cost {
    let process = process();
    let (cpu, start) = (cpu_seconds(), Instant::now());
    for _ in 0..REQUESTS {
        black_box(world.x509(&process, "web").await.unwrap());
    }
    Cost { cpu: cpu_seconds() - cpu, wall: start.elapsed().as_secs_f64() }
}

/// Certificate signing requests of a process, signed beforehand; and what is to be verified and signed of each, alone.
struct Requests {
    csrs: Vec<Vec<u8>>,
    verifying: ParsedPublicKey,
    signature: Vec<u8>,
    message: Vec<u8>,
    authority: EcdsaKeyPair,
}

impl Requests {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let csr = || CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        let message = vec![b'x'; CSR_BYTES];
        let point = key.der_bytes().to_vec();
        let verifying = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).parse().unwrap();
        Self {
            csrs: (0..REQUESTS).map(|_| csr()).collect(),
            verifying,
            signature: rcgen::SigningKey::sign(&key, &message).unwrap(),
            message,
            authority: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
        }
    }

    fn verify_and_sign(&self) -> Cost {
        counted(|| {
            self.verifying.verify_sig(black_box(&self.message), &self.signature).unwrap();
            self.sign();
        })
    }

    fn generate_and_sign(&self) -> Cost {
        counted(|| {
            black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap().public_key());
            self.sign();
        })
    }

    fn sign(&self) {
        let certificate = [b'x'; CERTIFICATE_BYTES];
        black_box(self.authority.sign(&SystemRandom::new(), black_box(&certificate)).unwrap());
    }
}

fn counted(work: impl Fn()) -> Cost {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    for _ in 0..REQUESTS {
        work();
    }
    Cost { cpu: cpu_seconds() - cpu, wall: start.elapsed().as_secs_f64() }
}

fn report(rows: &[(&str, &str, Vec<Cost>, Vec<Cost>)]) -> Value {
    println!(
        "\n{:<8}{:>12}{:>14}{:>14}{:>14}{:>10}",
        "", "floor", "floor µs", "CPU µs each", "rate/s (wall)", "ratio"
    );
    let mut lines = Vec::new();
    for (name, against, floors, costs) in rows {
        let floor = median(floors.iter().map(|cost| cost.microseconds()).collect());
        let cpu = median(costs.iter().map(|cost| cost.microseconds()).collect());
        // Of each pair, so that what slows both slows neither's ratio.
        let ratio = median(floors.iter().zip(costs).map(|(floor, cost)| floor.cpu / cost.cpu).collect());
        let rate = REQUESTS as f64 / median(costs.iter().map(|cost| cost.wall).collect());
        let goal = if *name == "csr" { 0.90 } else { 0.85 };
        println!("{name:<8}{against:>12}{floor:>14.1}{cpu:>14.1}{rate:>14.0}{ratio:>10.3}   goal: ≥ {goal}");
        lines.push(json!({ "name": name, "against": against, "floor_cpu_us": floor, "cpu_us": cpu,
            "per_second": rate, "ratio": ratio, "goal": goal }));
    }
    json!({ "bench": "svid_x509", "pairs": ROUNDS, "requests": REQUESTS, "lines": lines })
}

fn save(report: &Value) {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("svid_x509.json"), format!("{report:#}\n")).unwrap();
}

/// CPU time that all threads of this process have used.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux keeps the CPU time of each thread there");
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
}

const REQUESTS: usize = 2_000;
const ROUNDS: usize = 7;
/// About as long as what is signed in a request, and in a certificate.
const CSR_BYTES: usize = 200;
const CERTIFICATE_BYTES: usize = 420;
