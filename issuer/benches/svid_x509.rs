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

mod measure;
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
use measure::{Begun, Cost, counted, median, save};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use spiffe::{SpiffeWorld, process};
use std::{hint::black_box, time::Duration};
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
    save("svid_x509", &report(&rows));
}

async fn with_csr(world: &SpiffeWorld, requests: &Requests) -> Cost {
    let begun = Begun::now();
    for request in &requests.csrs {
        black_box(world.x509_for(request).await.unwrap());
        world.world.clock.advance(BETWEEN);
    }
    begun.cost()
}

async fn with_new_key(world: &SpiffeWorld) -> Cost {
    let process = process();
    let begun = Begun::now();
    for _ in 0..REQUESTS {
        black_box(world.x509(&process, "web").await.unwrap());
        world.world.clock.advance(BETWEEN);
    }
    begun.cost()
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
        each(|| {
            self.verifying.verify_sig(black_box(&self.message), &self.signature).unwrap();
            self.sign();
        })
    }

    fn generate_and_sign(&self) -> Cost {
        each(|| {
            black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap().public_key());
            self.sign();
        })
    }

    fn sign(&self) {
        let certificate = [b'x'; CERTIFICATE_BYTES];
        black_box(self.authority.sign(&SystemRandom::new(), black_box(&certificate)).unwrap());
    }
}

fn each(work: impl Fn()) -> Cost {
    counted(|| (0..REQUESTS).for_each(|_| work()))
}

fn report(rows: &[(&str, &str, Vec<Cost>, Vec<Cost>)]) -> Value {
    println!(
        "\n{:<8}{:>12}{:>14}{:>14}{:>14}{:>10}",
        "", "floor", "floor µs", "CPU µs each", "rate/s (wall)", "ratio"
    );
    let mut lines = Vec::new();
    for (name, against, floors, costs) in rows {
        let floor = median(floors.iter().map(|cost| cost.microseconds(REQUESTS)).collect());
        let cpu = median(costs.iter().map(|cost| cost.microseconds(REQUESTS)).collect());
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

const REQUESTS: usize = 2_000;
/// By the clock of the line, so that one entry has as many as that at all.
const BETWEEN: Duration = Duration::from_millis(50);
const ROUNDS: usize = 7;
/// About as long as what is signed in a request, and in a certificate.
const CSR_BYTES: usize = 200;
const CERTIFICATE_BYTES: usize = 420;
