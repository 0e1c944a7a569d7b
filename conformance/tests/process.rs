//! How the process starts and stops, and what connections may do to it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    exchange::Lab,
    forge::Key,
    identity::{self, Document},
    process,
    wire::{Request, Response},
    world::{World, token_of},
};
use serde_json::json;
use std::{io, os::unix::process::ExitStatusExt, time::Duration};
use tokio::time::Instant;

#[tokio::test]
async fn a_stop_signal_is_never_lost_however_early_it_comes() {
    let world = World::new().await;
    let config = world.write_files();
    for delay in [0, 1, 2, 5, 10, 20, 40, 80, 160, 320] {
        let process = world.spawn(&config);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        process.terminate();
        let status = process.ended().await;
        // In order; or before the program could take hold of the signal, as the system ends any program.
        assert!(status.success() || status.signal() == Some(15), "after {delay} ms: {status}");
    }
    let started = world.start().await;
    started.process.terminate();
    assert!(started.process.ended().await.success(), "a broker that runs stops in order");
    assert!(started.process.said().contains("stopped"));
    let (ok, out, err) = process::run(&["audit", "verify", "--config", config.to_str().unwrap()]);
    assert!(ok, "{out}{err}");
}

#[tokio::test]
async fn a_broker_that_would_trust_itself_does_not_start() {
    for path in ["", "/", "/spiffe", "/web-identity", "/web-identity/"] {
        let mut world = World::new().await;
        let own = format!("{}{path}", world.base);
        world.trust_issuer_of(&own, &json!({}));
        refuses_to_start(&world, &own);
        let mut world = World::new().await;
        let shouted = format!("{}{path}", world.base.replace("localhost", "LOCALHOST"));
        world.trust_issuer_of(&shouted, &json!({}));
        refuses_to_start(&world, &shouted);
    }
}

fn refuses_to_start(world: &World, issuer: &str) {
    let config = world.write_files();
    let (ok, _, err) = process::run(&["serve", "--config", config.to_str().unwrap()]);
    assert!(!ok && err.contains("own issuers are no identity providers"), "{issuer}: {err}");
}

#[tokio::test]
async fn a_start_waits_for_no_identity_provider_and_neither_does_readiness() {
    let mut world = World::new().await;
    for name in ["dripping", "down", "later"] {
        world.trust_issuer(name, &json!({}));
    }
    world.identity.publish("dripping", Document::Drip);
    world.identity.publish("down", Document::Down);
    world.identity.publish("later", Document::Down);
    let config = world.write_files();
    let process = world.spawn(&config);
    let asked = Instant::now();
    let ready = async || {
        let answer = world.observation.send(&Request::get("/readyz")).await;
        answer.is_ok_and(|answer| answer.status == 200)
    };
    process.wait_until(ready).await;
    let available = async |name: &str| {
        let lines = world.metric_lines("deputize_provider_keys_available").await;
        let label = format!("issuer=\"{}\"", world.identity.issuer(name));
        lines.iter().find(|line| line.contains(&label)).unwrap().ends_with(" 1")
    };
    assert!(!available("dripping").await, "ready after {:?}, without waiting for it", asked.elapsed());
    process.wait_until(async || available("a").await).await;
    let started = deputize_conformance::world::Started { process, ready_after: asked.elapsed() };
    let lab = Lab::of(world, started);
    token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
    let key = Key::es256();
    for name in ["dripping", "down", "later"] {
        let answer = bring(&lab, name, &key).await;
        assert_eq!(answer.error_code().as_deref(), Some("temporarily_unavailable"), "{name}");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{name}");
    }
    assert!(lab.started.process.said().contains("identity provider's keys not available"));
    lab.world.identity.publish("later", identity::jwks(&[&key]));
    while bring(&lab, "later", &key).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = lab.world.observation.send(&Request::get("/readyz")).await.unwrap();
    assert_eq!(answer.status, 200, "a provider's outage does not take the broker out of balance");
}

async fn bring(lab: &Lab, issuer: &str, key: &Key) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    let claims = lab.world.user_claims_of(issuer, "alice", "desk-app");
    exchange.set("subject_token", &key.token("JWT", &claims));
    lab.send(&exchange).await
}

#[tokio::test]
async fn silent_and_dripping_connections_are_left_and_hold_up_nobody() {
    let mut world = World::new().await;
    // Without TLS, so that each byte is seen.
    world.behind_proxy();
    let lab = Lab::start(world).await;
    let half_of_head = "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100";
    let head = format!("{half_of_head}\r\ncontent-type: application/x-www-form-urlencoded\r\n\r\n");
    // What is sent at once, what then drips, and how it must end.
    let cases = [
        ("silent", String::new(), "", End::Closed),
        (
            "dripping first bytes",
            String::new(),
            "POST /token HTTP/1.1\r\nhost: x\r\nx-a: bbbbbbbbbbbbbbbbbbbb",
            End::Closed,
        ),
        ("half of the headers", half_of_head.to_owned(), "", End::Closed),
        (
            "dripping headers",
            format!("{half_of_head}\r\nx-drip: "),
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            End::Closed,
        ),
        ("headers without a body", head.clone(), "", End::Timeout),
        ("half of a body", format!("{head}grant_type=client_credentials"), "", End::Timeout),
        ("dripping body", head, "grant_type=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", End::Timeout),
    ];
    let mut held = tokio::task::JoinSet::new();
    for (name, at_once, drip, end) in cases {
        let mut connection = lab.world.door.connect().await.unwrap();
        held.spawn(async move {
            let began = Instant::now();
            connection.write_bytes(at_once.as_bytes()).await.unwrap();
            let got = connection.answer_while_dripping(drip.as_bytes(), Duration::from_secs(1)).await;
            assert!(end.is(&got), "{name}: {got:?}");
            assert!(began.elapsed() < LEFT_WITHIN, "{name}: left after {:?}", began.elapsed());
        });
    }
    // Honest requests are served while all of them are held.
    for _ in 0..5 {
        token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
    }
    held.join_all().await;
    token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
}

/// How a connection that dawdles must end.
enum End {
    /// Without an answer, or with one that closes it.
    Closed,
    /// With 408.
    Timeout,
}

impl End {
    fn is(&self, got: &io::Result<Response>) -> bool {
        match (self, got) {
            (Self::Closed, Ok(answer)) => answer.status == 408,
            (Self::Closed, Err(error)) => error.kind() != io::ErrorKind::TimedOut,
            (Self::Timeout, Ok(answer)) => answer.status == 408 && answer.json()["decision_id"].is_string(),
            (Self::Timeout, Err(_)) => false,
        }
    }
}

/// The longest patience of the broker is fifteen seconds, for headers; a loaded machine is given time.
const LEFT_WITHIN: Duration = Duration::from_secs(28);
