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

#[expect(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/line/world.rs"]
mod world;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{dpop, dpop::NewProof, sign::SigningKey};
use deputize_issuer::{
    ask::{Ask, CallAsk, Claimed, ResourceUri},
    authenticate::{Possession, Presented, PresentedProof, authenticate},
    clock::{Clock, SystemClock, new_id},
    decide::Application,
    desk::Desk,
    fakes::FakeAudit,
    issue::issue,
    log::{CheckpointSigner, Log, LogConfig},
    provider::SubjectTokenType,
    record::Audit,
    replay::EmbeddedReplay,
    verify_subject::{PresentedSubject, verify_subject},
};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fmt::Write,
    hint::black_box,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime, task::LocalSet};
use world::{CRM, IDP, ISSUER, PLATFORM_AUDIENCE, Setup, TOKEN_ENDPOINT};

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let keys = Keys::new();
    let memory = Arc::new(FakeAudit::new("bench.example/log"));
    let log = open_log(folder.path());
    let sites = [
        ("record in memory", desk(&keys, &clock, memory.clone() as _)),
        ("log on disk", desk(&keys, &clock, Arc::new(log.clone()) as _)),
    ];
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let mut floors = Vec::new();
    let mut lines = [Vec::new(), Vec::new()];
    let flushes_before = log.statistics();
    for round in 0..=ROUNDS {
        let floor = keys.floor(&keys.requests(&sites[0].1));
        let costs = sites.each_ref().map(|(_, desk)| {
            let requests = Rc::new(keys.requests(desk));
            let cost = runtime.block_on(LocalSet::new().run_until(run(Rc::clone(desk), requests)));
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
    save(&report);
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

fn counted(work: impl FnOnce()) -> Cost {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    work();
    Cost { cpu: cpu_seconds() - cpu, wall: start.elapsed().as_secs_f64() }
}

/// All requests, 64 at a time.
async fn run(desk: Rc<Desk>, requests: Rc<Vec<Request>>) -> Cost {
    let next = Rc::new(Cell::new(0));
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (desk, requests, next) = (Rc::clone(&desk), Rc::clone(&requests), Rc::clone(&next));
            tokio::task::spawn_local(async move {
                while let Some(request) = requests.get(next.replace(next.get() + 1)) {
                    black_box(exchange(&desk, request).await);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    Cost { cpu: cpu_seconds() - cpu, wall: start.elapsed().as_secs_f64() }
}

/// What a door does between reading the form and writing the answer.
async fn exchange(desk: &Desk, request: &Request) -> String {
    let ask = ask();
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
    let presented =
        PresentedSubject { token: &request.subject, kind: SubjectTokenType::AccessToken, actor: None };
    let subject = verify_subject(desk, &caller, &presented).await.unwrap();
    let application = Application { decision_id, caller: &caller, subject: Some(&subject), ask: &ask };
    issue(desk, &application).await.unwrap().access_token.expose().clone()
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

/// As the door reads it from the form.
fn ask() -> Ask {
    let resource = ResourceUri::parse(CRM).unwrap();
    let call = CallAsk::parse(Some(DETAILS), &resource).unwrap();
    Ask { resource, scope: None, call, transaction_id: None, approval_id: None, claimed: Claimed::default() }
}

struct Request {
    subject: String,
    assertion: String,
    proof: String,
}

struct Keys {
    setup_keys: std::collections::HashMap<String, Arc<SigningKey>>,
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

fn parsed(key: &SigningKey) -> ParsedPublicKey {
    let jwk = key.public().to_jwk();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).parse().unwrap()
}

fn desk(keys: &Keys, clock: &Arc<dyn Clock>, audit: Arc<dyn Audit>) -> Rc<Desk> {
    let mut setup = Setup::new();
    setup.keys.clone_from(&keys.setup_keys);
    let platform = keys.setup_keys["platform"].public().clone();
    setup.find_client("platform").keys = deputize_call::keys::KeySet::new(vec![platform]);
    setup.policies = policies();
    setup.settings.proof_window_seconds = 300;
    setup.once_capacity = 4_000_000;
    for role in (0..ROLES).step_by(2) {
        setup.providers[0].claims.roles.insert(format!("r{role}"), vec!["staff".to_owned()]);
    }
    let replay = EmbeddedReplay::new(Arc::clone(clock), Duration::from_secs(310), 4_000_000);
    Rc::new(setup.desk(Arc::clone(clock), audit, Arc::new(replay)).0)
}

/// A hundred policies: four for everybody, the rest for a role on a server; a tenth forbids.
fn policies() -> String {
    let mut text = String::from(
        r#"
        permit (principal, action == Action::"tools/call", resource)
        when { !context.has_arguments || (context.text.hasTag("id") && context.text.getTag("id") like "c*") };
        forbid (principal, action == Action::"tools/call", resource)
        when { context.binding == "bearer" && resource.tier_rank >= 1 };
        forbid (principal, action, resource) when { context.delegation_depth > 5 };
        forbid (principal, action, resource) when { context.risk_score >= 90 };
        "#,
    );
    for n in 4..POLICIES {
        let (effect, condition) = match n % 10 {
            0 => ("forbid", r#"when { context has host && context.host == "unknown" }"#),
            1..=5 => ("permit", "when { resource.tier_rank <= 1 }"),
            _ => ("permit", r#"when { resource.effect == "read" && context.risk_score < 50 }"#),
        };
        let (role, server) = (n % ROLES, ["crm", "mailer", "abroad", "ledger", "wiki"][n / ROLES % 5]);
        writeln!(
            text,
            "{effect} (principal in Role::\"r{role}\", action == Action::\"tools/call\", resource in Server::\"{server}\") {condition};"
        )
        .unwrap();
    }
    text
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
    let floor = median(floors.iter().map(|cost| cost.microseconds()).collect());
    println!("\n{:<22}{:>12}{:>14}{:>10}", "", "CPU µs each", "rate/s (wall)", "ratio");
    println!("{:<22}{floor:>12.1}{:>14.0}{:>10}", "floor, 3V+S", rate(floors), "1");
    let mut rows = Vec::new();
    for (name, costs) in lines {
        let cpu = median(costs.iter().map(|cost| cost.microseconds()).collect());
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

fn save(report: &Value) {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("exchange_inproc.json"), format!("{report:#}\n")).unwrap();
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

const DETAILS: &str = r#"[{"type":"mcp_tool_call","locations":["https://crm.example.com/mcp"],"actions":["tools/call"],
    "identifier":"update_contact","arguments":{"id":"c4711","name":"Ann Example"}}]"#;
const POLICIES: usize = 100;
const ROLES: usize = 10;
const REQUESTS: usize = 3_000;
const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 7;
/// About as long as a tool-call token.
const TOKEN_BYTES: usize = 1_600;
const GOAL: f64 = 0.85;
