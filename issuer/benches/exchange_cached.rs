//! `exchange_cached`: the whole line without sockets for a client that keeps its connections and comes again for the same
//! user: its TLS certificate was verified when the connection was made, the user's token is held by its hash. What is left
//! is one verification, of the DPoP proof, and one signature: against these two alone, in the same process, with the same
//! keys and bytes. A hundred policies are in force.
//!
//! ```text
//! cargo bench -p deputize-issuer --bench exchange_cached
//! ```
//!
//! Runs alternate (floor, `tls_client_auth`, X.509-SVID), medians are shown. Every proof is made beforehand and has its own
//! id; 64 exchanges are in flight on one thread, each on a connection of its own. The ratio counts CPU time of the whole
//! process, which does not change when others use the machine; the rate is by the wall clock. An answer other than a
//! token voids the run.
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
#[path = "../tests/line/spiffe.rs"]
mod spiffe;
#[expect(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/line/world.rs"]
mod world;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{dpop, dpop::NewProof};
use deputize_issuer::{
    authenticate::{Possession, Presented, PresentedProof},
    certificate::{ExpectedCertificate, ExpectedName, PresentedCertificate},
    client::ClientCertificates,
    clock::{Clock, SystemClock, new_id},
    desk::Desk,
    fakes::FakeAudit,
    svid::Bundle,
};
use exchange::{IN_FLIGHT, POLICIES, REQUESTS, ROUNDS, SetupKeys, TOKEN_BYTES, desk, parsed, run};
use measure::{Cost, counted, median, save};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};
use spiffe::SpiffeWorld;
use std::{hint::black_box, rc::Rc, sync::Arc};
use tokio::{runtime, task::LocalSet};
use world::{IDP, ISSUER, PLATFORM_AUDIENCE, Setup, TOKEN_ENDPOINT};

fn main() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let (keys, authority) = (Keys::new(), Authority::new());
    let memory = Arc::new(FakeAudit::new("bench.example/log"));
    let sites = [("tls_client_auth", Way::Vouched), ("X.509-SVID", Way::Svid)].map(|(name, way)| {
        let change = |setup: &mut Setup| authority.configure(setup, way);
        (name, desk(&keys.setup_keys, &clock, memory.clone() as _, change), way)
    });
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let (mut floors, mut lines) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 0..=ROUNDS {
        let floor = keys.floor(&keys.proofs(&sites[0].1));
        let costs = sites.each_ref().map(|(_, desk, way)| {
            let one = client(desk, &keys, authority.leaf(*way));
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
    save(
        "exchange_cached",
        &report(&floors, sites.each_ref().map(|(name, ..)| *name).into_iter().zip(&lines)),
    );
}

/// What a client does on its connections: request after request with one user's token, each with a proof of its own.
fn client(
    desk: &Rc<Desk>,
    keys: &Keys,
    leaf: &[u8],
) -> impl Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = String>>> + 'static {
    let desk = Rc::clone(desk);
    let (subject, proofs) = (Rc::new(keys.subject(&desk)), Rc::new(keys.proofs(&desk)));
    let connections: Rc<Vec<_>> = Rc::new((0..IN_FLIGHT).map(|_| shown(leaf)).collect());
    move |number| {
        let (desk, subject) = (Rc::clone(&desk), Rc::clone(&subject));
        let (proofs, connections) = (Rc::clone(&proofs), Rc::clone(&connections));
        Box::pin(async move {
            let certificate = &connections[number % connections.len()];
            let presented = Presented::Certificate { client_id: Some("platform"), certificate };
            let proof = Some(PresentedProof { header: &proofs[number], htu: TOKEN_ENDPOINT });
            let shown = Possession { proof, certificate: Some(certificate) };
            exchange::exchange(&desk, presented, shown, &subject).await
        })
    }
}

/// How the client is known.
#[derive(Clone, Copy)]
enum Way {
    Vouched,
    Svid,
}

/// An authority, and what it says of the client: a certificate with a DNS name, and an X.509-SVID.
struct Authority {
    der: Vec<u8>,
    named: Vec<u8>,
    svid: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(parameters, key);
        let leaf = |name: SanType| {
            let mut leaf = CertificateParams::new(Vec::new()).unwrap();
            leaf.subject_alt_names.push(name);
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().to_vec()
        };
        let named = leaf(SanType::DnsName(NAME.try_into().unwrap()));
        Self { der, named, svid: leaf(SanType::URI(SVID.try_into().unwrap())) }
    }

    fn leaf(&self, way: Way) -> &[u8] {
        match way {
            Way::Vouched => &self.named,
            Way::Svid => &self.svid,
        }
    }

    fn configure(&self, setup: &mut Setup, way: Way) {
        let platform = setup.find_client("platform");
        match way {
            Way::Vouched => {
                let name = ExpectedName::Dns(NAME.to_owned());
                let expected = ExpectedCertificate::new(&[self.der.clone().into()], name).unwrap();
                platform.certificates = Some(ClientCertificates::Vouched(Arc::new(expected)));
            }
            Way::Svid => {
                platform.spiffe_id = Some(SVID.parse().unwrap());
                let door = SpiffeWorld::new().door;
                door.foreign.replace(vec![Arc::new(Bundle {
                    trust_domain: "partner.test".parse().unwrap(),
                    x509_authorities: vec![self.der.clone()],
                    jwt_authorities: deputize_call::keys::KeySet::default(),
                    sequence: 1,
                    refresh_hint_seconds: 300,
                })]);
                setup.spiffe = Some(door);
            }
        }
    }
}

/// As a connection has it that was made with this certificate.
fn shown(leaf: &[u8]) -> PresentedCertificate {
    PresentedCertificate::proved(&[leaf.to_vec().into()]).unwrap()
}

struct Keys {
    setup_keys: SetupKeys,
    verifying: ParsedPublicKey,
}

impl Keys {
    fn new() -> Self {
        let setup_keys = Setup::new().keys;
        Self { verifying: parsed(&setup_keys["spare"]), setup_keys }
    }

    fn subject(&self, desk: &Desk) -> String {
        let now = desk.clock.now_seconds();
        let claims = json!({
            "iss": IDP, "sub": "alice", "aud": PLATFORM_AUDIENCE, "client_id": "platform", "scope": "openid",
            "iat": now, "nbf": now, "exp": now + 600, "jti": "j", "acr": "aal1", "auth_time": now,
            "groups": ["staff", "emea", "crm-users", "on-call"], "amr": ["pwd", "otp"],
        });
        self.setup_keys[IDP].sign("at+jwt", &claims).unwrap()
    }

    fn proofs(&self, desk: &Desk) -> Vec<String> {
        let proof = |_| {
            dpop::prove(
                &self.setup_keys["spare"],
                &NewProof {
                    htm: "POST",
                    htu: TOKEN_ENDPOINT,
                    jti: &new_id(desk.clock.as_ref()).unwrap().to_string(),
                    iat: desk.clock.now_seconds(),
                    nonce: Some(&desk.nonces.make(desk.clock.uptime())),
                    access_token: None,
                },
            )
            .unwrap()
        };
        (0..REQUESTS).map(proof).collect()
    }

    /// A verification and a signature over as many bytes as the line's, and nothing else.
    fn floor(&self, proofs: &[String]) -> Cost {
        let decoded: Vec<(&str, Vec<u8>)> = proofs
            .iter()
            .map(|proof| {
                let (signed, signature) = proof.rsplit_once('.').unwrap();
                (signed, URL_SAFE_NO_PAD.decode(signature).unwrap())
            })
            .collect();
        let (signing, token) = (&self.setup_keys[ISSUER], vec![b'x'; TOKEN_BYTES]);
        counted(|| {
            for (signed, signature) in &decoded {
                self.verifying.verify_sig(signed.as_bytes(), signature).unwrap();
                black_box(signing.sign_bytes(black_box(&token)).unwrap());
            }
        })
    }
}

fn report<'l>(floors: &[Cost], lines: impl Iterator<Item = (&'static str, &'l Vec<Cost>)>) -> Value {
    let each = |costs: &[Cost]| median(costs.iter().map(|cost| cost.microseconds(REQUESTS)).collect());
    let rate = |costs: &[Cost]| REQUESTS as f64 / median(costs.iter().map(|cost| cost.wall).collect());
    let floor = each(floors);
    println!("\n{:<22}{:>12}{:>14}{:>10}", "", "CPU µs each", "rate/s (wall)", "ratio");
    println!("{:<22}{floor:>12.1}{:>14.0}{:>10}", "floor, V+S", rate(floors), "1");
    let mut rows = Vec::new();
    for (name, costs) in lines {
        // Of each pair, so that what slows both slows neither's ratio.
        let ratio = median(floors.iter().zip(costs).map(|(floor, cost)| floor.cpu / cost.cpu).collect());
        println!("{name:<22}{:>12.1}{:>14.0}{ratio:>10.3}", each(costs), rate(costs));
        rows.push(json!({ "name": name, "cpu_us": each(costs), "per_second": rate(costs), "ratio": ratio,
            "goal": GOAL }));
    }
    println!("goal: ratio ≥ {GOAL}");
    json!({ "bench": "exchange_cached", "pairs": ROUNDS, "requests": REQUESTS, "in_flight": IN_FLIGHT,
        "policies": POLICIES, "floor_cpu_us": floor, "lines": rows })
}

const NAME: &str = "bot.partner.test";
const SVID: &str = "spiffe://partner.test/agent";
const GOAL: f64 = 0.70;
