//! `exchange_inproc`: the whole line without sockets, `authenticate → verify_subject → issue`, with 100 policies in
//! force, three ES256 verifications (user's token, client assertion, DPoP proof) and one signature; against the same
//! three verifications and signature alone, in the same process, with the same keys and bytes.
//!
//! ```text
//! cargo bench -p deputize-issuer --bench exchange_inproc
//! ```
//!
//! Runs alternate (floor, line with a record in memory, line with the log on disk), medians are shown. Every request
//! is signed beforehand and has its own ids, so nothing is answered from a cache; 64 are in flight on one thread. The
//! ratio counts CPU time of the whole process, the log's writer included, which does not change when others use the
//! machine; the rate is by the wall clock. An answer other than a token voids the run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, takes the time, and stops at the first surprise"
)]

mod exchange;
mod measure;
#[expect(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/line/world.rs"]
mod world;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{dpop, dpop::NewProof};
use deputize_issuer::{
    authenticate::{Possession, Presented, PresentedProof, authenticate},
    clock::{Clock, SystemClock, new_id},
    decide::Application,
    desk::Desk,
    fakes::FakeAudit,
    issue::issue,
    log::{CheckpointSigner, Log, LogConfig},
    provider::SubjectTokenType,
    verify_subject::{PresentedSubject, verify_subject},
};
use exchange::{IN_FLIGHT, POLICIES, REQUESTS, ROUNDS, SetupKeys, TOKEN_BYTES, ask, desk, parsed, run};
use measure::{Cost, counted, median, save};
use serde_json::{Value, json};
use std::{hint::black_box, path::Path, rc::Rc, sync::Arc, time::Instant};
use tokio::{runtime, task::LocalSet};
use world::{IDP, ISSUER, PLATFORM_AUDIENCE, Setup, TOKEN_ENDPOINT};

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let keys = Keys::new();
    let memory = Arc::new(FakeAudit::new("bench.example/log"));
    let log = open_log(folder.path());
    let sites = [
        ("record in memory", desk(&keys.setup_keys, &clock, memory.clone() as _, |_| ())),
        ("log on disk", desk(&keys.setup_keys, &clock, Arc::new(log.clone()) as _, |_| ())),
    ];
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let mut floors = Vec::new();
    let mut lines = [Vec::new(), Vec::new()];
    let flushes_before = log.statistics();
    for round in 0..=ROUNDS {
        let floor = keys.floor(&keys.requests(&sites[0].1));
        let costs = sites.each_ref().map(|(_, desk)| {
            let (desk, requests) = (Rc::clone(desk), Rc::new(keys.requests(desk)));
            let one = move |number: usize| {
                let (desk, requests) = (Rc::clone(&desk), Rc::clone(&requests));
                async move {
                    let Request { subject, assertion, proof } = &requests[number];
                    let presented = Presented::Assertion { assertion, client_id: Some("platform") };
                    let proof = Some(PresentedProof { header: proof, htu: TOKEN_ENDPOINT });
                    exchange::exchange(&desk, presented, Possession { proof, certificate: None }, subject)
                        .await
                }
            };
            let cost = runtime.block_on(LocalSet::new().run_until(run(REQUESTS, one)));
            memory.clear();
            cost
        });
        // The first round only warms what is held.
        if round > 0 {
            floors.push(floor);
            lines.iter_mut().zip(costs).for_each(|(line, cost)| line.push(cost));
        }
    }
    let flushed = log.statistics();
    let stages = runtime.block_on(by_stage(&sites[0].1, &keys));
    let report = report(&floors, sites.each_ref().map(|(name, _)| *name).into_iter().zip(&lines), &stages);
    println!(
        "\nlog: {:.1} records a flush",
        (flushed.entries - flushes_before.entries) as f64 / (flushed.flushes - flushes_before.flushes) as f64
    );
    save("exchange_inproc", &report);
}

/// Microseconds that each stage takes when requests come one by one, recorded in memory.
async fn by_stage(desk: &Desk, keys: &Keys) -> [(&'static str, f64); 4] {
    let mut stages = [
        ("parse", Vec::new()),
        ("authenticate", Vec::new()),
        ("verify_subject", Vec::new()),
        ("issue", Vec::new()),
    ];
    for request in keys.requests(desk) {
        let begun = Instant::now();
        let ask = ask();
        let parsed = Instant::now();
        let decision_id = new_id(desk.clock.as_ref()).unwrap();
        let caller = authenticate(
            desk,
            decision_id,
            Presented::Assertion { assertion: &request.assertion, client_id: Some("platform") },
            Possession {
                proof: Some(PresentedProof { header: &request.proof, htu: TOKEN_ENDPOINT }),
                certificate: None,
            },
        )
        .await
        .unwrap();
        let authenticated = Instant::now();
        let presented =
            PresentedSubject { token: &request.subject, kind: SubjectTokenType::AccessToken, actor: None };
        let subject = verify_subject(desk, &caller, &presented).await.unwrap();
        let verified = Instant::now();
        issue(desk, &Application { decision_id, caller: &caller, subject: Some(&subject), ask: &ask })
            .await
            .unwrap();
        let times = [begun, parsed, authenticated, verified, Instant::now()];
        for (stage, pair) in stages.iter_mut().zip(times.windows(2)) {
            stage.1.push((pair[1] - pair[0]).as_secs_f64() * 1e6);
        }
    }
    stages.map(|(name, costs)| (name, median(costs)))
}

struct Request {
    subject: String,
    assertion: String,
    proof: String,
}

struct Keys {
    setup_keys: SetupKeys,
    verifying: [ParsedPublicKey; 3],
}

impl Keys {
    fn new() -> Self {
        let mut setup_keys = Setup::new().keys;
        // The platform's DPoP key is another than that of its assertions.
        let spare = setup_keys["spare"].clone();
        setup_keys.insert("proofs".to_owned(), spare);
        let verifying = [IDP, "platform", "proofs"].map(|name| parsed(&setup_keys[name]));
        Self { setup_keys, verifying }
    }

    fn requests(&self, desk: &Desk) -> Vec<Request> {
        let now = desk.clock.now_seconds();
        let unique = || new_id(desk.clock.as_ref()).unwrap().to_string();
        (0..REQUESTS)
            .map(|_| Request {
                subject: self.sign(IDP, "at+jwt", &json!({
                    "iss": IDP, "sub": "alice", "aud": PLATFORM_AUDIENCE, "client_id": "platform", "scope": "openid",
                    "iat": now, "nbf": now, "exp": now + 600, "jti": unique(), "acr": "aal1", "auth_time": now,
                    "groups": ["staff", "emea", "crm-users", "on-call"], "amr": ["pwd", "otp"],
                })),
                assertion: self.sign("platform", "JWT", &json!({
                    "iss": "platform", "sub": "platform", "aud": ISSUER, "jti": unique(), "iat": now, "exp": now + 60,
                })),
                proof: dpop::prove(&self.setup_keys["proofs"], &NewProof {
                    htm: "POST",
                    htu: TOKEN_ENDPOINT,
                    jti: &unique(),
                    iat: now,
                    nonce: Some(&desk.nonces.make(desk.clock.uptime())),
                    access_token: None,
                })
                .unwrap(),
            })
            .collect()
    }

    fn sign(&self, key: &str, typ: &str, claims: &Value) -> String {
        self.setup_keys[key].sign(typ, claims).unwrap()
    }

    /// Three verifications and a signature over as many bytes as the line's, and nothing else.
    fn floor(&self, requests: &[Request]) -> Cost {
        let decoded: Vec<[(&str, Vec<u8>); 3]> = requests
            .iter()
            .map(|request| {
                [&request.subject, &request.assertion, &request.proof].map(|token| {
                    let (signed, signature) = token.rsplit_once('.').unwrap();
                    (signed, URL_SAFE_NO_PAD.decode(signature).unwrap())
                })
            })
            .collect();
        let (signing, token) = (&self.setup_keys[ISSUER], vec![b'x'; TOKEN_BYTES]);
        counted(|| {
            for request in &decoded {
                for (key, (signed, signature)) in self.verifying.iter().zip(request) {
                    key.verify_sig(signed.as_bytes(), signature).unwrap();
                }
                black_box(signing.sign_bytes(black_box(&token)).unwrap());
            }
        })
    }
}

fn open_log(folder: &Path) -> Log {
    let config = LogConfig {
        folder: folder.join("log"),
        origin: "bench.example/log".to_owned(),
        anchor: None,
        segment_bytes: 64 << 20,
        reserve_bytes: 1 << 20,
    };
    let signer =
        CheckpointSigner::from_pkcs8(&config.origin, &CheckpointSigner::generate_pkcs8().unwrap()).unwrap();
    Log::open(config, signer).unwrap().0
}

fn report<'l>(
    floors: &[Cost],
    lines: impl Iterator<Item = (&'static str, &'l Vec<Cost>)>,
    stages: &[(&'static str, f64)],
) -> Value {
    let floor = median(floors.iter().map(|cost| cost.microseconds(REQUESTS)).collect());
    println!("\n{:<22}{:>12}{:>14}{:>10}", "", "CPU µs each", "rate/s (wall)", "ratio");
    println!("{:<22}{floor:>12.1}{:>14.0}{:>10}", "floor, 3V+S", rate(floors), "1");
    let mut rows = Vec::new();
    for (name, costs) in lines {
        let cpu = median(costs.iter().map(|cost| cost.microseconds(REQUESTS)).collect());
        // Of each pair, so that what slows both slows neither's ratio.
        let ratio = median(floors.iter().zip(costs).map(|(floor, cost)| floor.cpu / cost.cpu).collect());
        println!("{name:<22}{cpu:>12.1}{:>14.0}{ratio:>10.3}", rate(costs));
        rows.push(
            json!({ "name": name, "cpu_us": cpu, "per_second": rate(costs), "ratio": ratio, "goal": GOAL }),
        );
    }
    println!("goal: ratio ≥ {GOAL}\n\none by one, by the wall clock:");
    for (stage, cost) in stages {
        println!("{stage:<22}{cost:>12.1} µs");
    }
    let stages: serde_json::Map<_, _> =
        stages.iter().map(|(name, cost)| ((*name).to_owned(), json!(cost))).collect();
    json!({ "bench": "exchange_inproc", "pairs": ROUNDS, "requests": REQUESTS, "in_flight": IN_FLIGHT,
        "policies": POLICIES, "floor_cpu_us": floor, "lines": rows, "stages_us": stages })
}

fn rate(costs: &[Cost]) -> f64 {
    REQUESTS as f64 / median(costs.iter().map(|cost| cost.wall).collect())
}

const GOAL: f64 = 0.85;
