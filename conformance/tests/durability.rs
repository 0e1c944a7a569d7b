//! What was promised is kept: under load, and when the broker dies at any instant.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{Key, claims},
    wire::{Connection, Response},
    world::{World, token_of},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinSet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_exchanges_at_64_in_flight_are_all_granted_and_recorded() {
    let _alone = ALONE.lock().await;
    let lab = Arc::new(Lab::start(World::new().await).await);
    let left = Arc::new(AtomicUsize::new(EXCHANGES));
    let mut callers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (lab, left) = (Arc::clone(&lab), Arc::clone(&left));
        callers.spawn(async move {
            let mut caller = Caller::new(&lab).await;
            let mut tokens = Vec::new();
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                let (_, answer) = caller.exchange(&lab).await;
                tokens.push(token_of(&answer.unwrap()));
            }
            tokens
        });
    }
    let tokens: Vec<String> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(tokens.len(), EXCHANGES);
    let outcomes = settled_outcomes(&lab).await;
    let intents = intents_by_jti(&lab).await;
    for token in &tokens {
        let decision = &intents[claims(token)["jti"].as_str().unwrap()];
        assert!(outcomes.contains(decision), "{decision} has its outcome");
    }
    println!("{EXCHANGES} exchanges, each with intent and outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_deaths_under_load_lose_no_record_and_forget_no_proof() {
    let _alone = ALONE.lock().await;
    let mut lab = Lab::start(World::new().await).await;
    let mut slowest = lab.started.ready_after;
    let mut held = Vec::new();
    for death in 0..DEATHS {
        let delay = Duration::from_millis(u64::from(any_number()) % 400);
        let load = Load::start(lab).await;
        // At a random instant from then on, as soon as there is a crowd.
        tokio::time::sleep(delay).await;
        let Killed { lab: back, accepted, in_flight } = load.kill_in_a_crowd().await;
        lab = back;
        lab.started = lab.world.start_again(&lab.world.config()).await;
        slowest = slowest.max(lab.started.ready_after);
        println!(
            "death {death}: after {delay:?} more, {in_flight} requests in flight, {} tokens held, ready again after {:?}",
            accepted.len(),
            lab.started.ready_after
        );
        assert!(in_flight >= IN_FLIGHT_AT_DEATH, "{in_flight} requests were in flight");
        check_held(&lab, &accepted).await;
        held.extend(accepted);
        token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
    }
    replay_everything(&lab, &held).await;
    token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
    println!("{DEATHS} deaths, {} tokens, slowest start {slowest:?}", held.len());
    assert!(slowest < READY_WITHIN, "slowest start: {slowest:?}");
    let (ok, out, err) = deputize_conformance::process::run(&[
        "audit",
        "verify",
        "--config",
        lab.world.config().to_str().unwrap(),
    ]);
    assert!(ok, "the log verifies: {out}{err}");
}

/// Each test has the machine to itself, as far as this program is concerned.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Callers that go on until the broker dies.
struct Load {
    lab: Arc<Lab>,
    callers: JoinSet<()>,
    shared: Arc<Shared>,
}

/// What callers tell each other.
#[derive(Default)]
struct Shared {
    /// Requests that are written whole and not answered.
    waiting: AtomicUsize,
    /// Set before the broker is killed.
    killing: AtomicBool,
    /// Requests that were written whole before it was killed, and never answered.
    lost: AtomicUsize,
    accepted: Mutex<Vec<(Exchange, String)>>,
}

/// What is left of a broker that was killed.
struct Killed {
    lab: Lab,
    accepted: Vec<(Exchange, String)>,
    in_flight: usize,
}

impl Load {
    /// Starts the callers; there is an answer when this returns, so the load is on.
    async fn start(lab: Lab) -> Self {
        let (lab, shared) = (Arc::new(lab), Arc::new(Shared::default()));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS_AT_DEATH {
            let (lab, shared) = (Arc::clone(&lab), Arc::clone(&shared));
            callers.spawn(async move {
                let Some(mut caller) = Caller::try_new(&lab).await else { return };
                while caller.exchange_watched(&lab, &shared).await {}
            });
        }
        let load = Self { lab, callers, shared };
        while load.shared.accepted.lock().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        load
    }

    /// Kills the broker while a crowd waits for its answers.
    async fn kill_in_a_crowd(self) -> Killed {
        while self.shared.waiting.load(Ordering::SeqCst) < CROWD {
            tokio::task::yield_now().await;
        }
        self.shared.killing.store(true, Ordering::SeqCst);
        self.lab.started.process.kill();
        self.callers.join_all().await;
        let shared = Arc::into_inner(self.shared).unwrap();
        Killed {
            lab: Arc::into_inner(self.lab).unwrap(),
            accepted: shared.accepted.into_inner(),
            in_flight: shared.lost.into_inner(),
        }
    }
}

/// A client of one connection that goes on with the nonce of each answer.
struct Caller {
    key: Key,
    connection: Connection,
    template: Exchange,
    nonce: String,
}

impl Caller {
    async fn new(lab: &Lab) -> Self {
        Self::try_new(lab).await.unwrap()
    }

    /// None where the broker died meanwhile.
    async fn try_new(lab: &Lab) -> Option<Self> {
        let key = Key::es256();
        let mut connection = lab.world.door.connect().await.ok()?;
        let template = lab.template("desk", &lab.world.user_token("alice"));
        let challenge = lab.send_on(&mut connection, &lab.unproven(&template)).await.ok()?;
        let nonce = challenge.header("dpop-nonce")?.to_owned();
        Some(Self { key, connection, template, nonce })
    }

    async fn exchange(&mut self, lab: &Lab) -> (Exchange, std::io::Result<Response>) {
        let exchange = self.next_exchange(lab);
        let answer = lab.send_on(&mut self.connection, &exchange).await;
        self.remember_nonce(answer.as_ref().ok());
        (exchange, answer)
    }

    /// One exchange of which everybody knows whether it is in flight; false when the broker is gone.
    async fn exchange_watched(&mut self, lab: &Lab, shared: &Shared) -> bool {
        let exchange = self.next_exchange(lab);
        if self.connection.write(&exchange.request()).await.is_err() {
            return false;
        }
        let written_before = !shared.killing.load(Ordering::SeqCst);
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        let answer = self.connection.answer().await;
        shared.waiting.fetch_sub(1, Ordering::SeqCst);
        self.remember_nonce(answer.as_ref().ok());
        match answer {
            Ok(answer) => {
                shared.accepted.lock().await.push((exchange, token_of(&answer)));
                true
            }
            Err(_) => {
                shared.lost.fetch_add(usize::from(written_before), Ordering::SeqCst);
                false
            }
        }
    }

    fn next_exchange(&self, lab: &Lab) -> Exchange {
        let mut exchange = self.template.clone();
        exchange.set("client_assertion", &lab.assertion("desk"));
        exchange.prove(vec![self.key.proof(&lab.proof_claims(&self.nonce))]);
        exchange
    }

    fn remember_nonce(&mut self, answer: Option<&Response>) {
        if let Some(nonce) = answer.and_then(|answer| answer.header("dpop-nonce")) {
            nonce.clone_into(&mut self.nonce);
        }
    }
}

/// Every token that somebody holds has its intent in the log.
async fn check_held(lab: &Lab, held: &[(Exchange, String)]) {
    let intents = intents_by_jti(lab).await;
    for (_, token) in held {
        let jti = claims(token)["jti"].as_str().unwrap().to_owned();
        assert!(intents.contains_key(&jti), "a token is held whose record is lost: {jti}");
    }
}

/// Every accepted request again: as it was; with a fresh proof, so that its assertion is what is replayed; and, once
/// for each start, with a fresh assertion, so that its proof is. And every token by one who lacks its key.
async fn replay_everything(lab: &Lab, held: &[(Exchange, String)]) {
    let thief = Key::es256();
    for (exchange, token) in held {
        let nonce = lab.nonce().await;
        let mut again = exchange.clone();
        refused(&lab.send(&again).await, "use_dpop_nonce");
        again.prove(vec![thief.proof(&lab.proof_claims(&nonce))]);
        refused(&lab.send(&again).await, "invalid_client");
        again.clone_from(exchange);
        again.set("client_assertion", &lab.assertion("desk"));
        refused(&lab.send(&again).await, "use_dpop_nonce");
        again.prove(vec![thief.proof(&lab.proof_claims(&nonce))]);
        again.set("client_assertion", &lab.assertion("desk"));
        again.set("subject_token", token);
        refused(&lab.send(&again).await, "invalid_request");
    }
}

fn refused(answer: &Response, code: &str) {
    assert_eq!(answer.error_code().as_deref(), Some(code), "{}", answer.json());
}

async fn intents_by_jti(lab: &Lab) -> BTreeMap<String, String> {
    let (entries, _) = lab.world.log(0).await;
    let text = |entry: &Value, member: &str| entry[member].as_str().map(str::to_owned);
    entries
        .iter()
        .filter(|entry| entry["kind"] == "intent")
        .filter_map(|entry| Some((text(entry, "jti")?, text(entry, "decision")?)))
        .collect()
}

/// The decisions with an outcome, once all are recorded: they are written behind the answer.
async fn settled_outcomes(lab: &Lab) -> BTreeSet<String> {
    lab.world.recorded().await;
    let (entries, _) = lab.world.log(0).await;
    let minted = entries.iter().filter(|entry| entry["kind"] == "outcome" && entry["result"] == "minted");
    minted.filter_map(|entry| entry["decision"].as_str().map(str::to_owned)).collect()
}

/// Any number, different each time.
fn any_number() -> u16 {
    let bytes = deputize_conformance::forge::decode(&deputize_conformance::forge::unique());
    u16::from_be_bytes([bytes[0], bytes[1]])
}

const EXCHANGES: usize = 10_000;
const IN_FLIGHT: usize = 64;
const DEATHS: usize = 20;
/// At each death at least this many requests are written whole and not answered.
const IN_FLIGHT_AT_DEATH: usize = 32;
/// So many wait when the signal is sent: some are answered before it is delivered.
const CROWD: usize = 64;
const CALLERS_AT_DEATH: usize = 96;
/// A start takes a fraction of a second; a loaded machine in the dev profile is given time.
const READY_WITHIN: Duration = Duration::from_secs(10);
