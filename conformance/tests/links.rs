//! The guard's link to the broker: calls go on while the broker restarts and stop when it is silent for too long, a
//! restarted guard remembers, and reports wait.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    exchange::Lab,
    forge::{Key, claims},
    guarding::{Guarded, Setting},
    impostor::{Impostor, TOOL, definition},
    world::{CRM, World, token_of},
};
use deputize_guard::{Event, EventKind};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

#[tokio::test]
async fn calls_go_on_through_a_restart_of_the_broker() {
    let _place = PORTS.write().await;
    let (mut lab, state) = (Lab::start(World::new().await).await, tempfile::tempdir().unwrap());
    let (guarded, holder) = (guard(&lab, &state.path().join("state")), Key::es256());
    guarded.link.ready().await;
    let arguments = json!({ "name": "Grace" });
    let token = looking(&lab, &holder).await;
    guarded.call(&token, &holder, "find_customer", &arguments).await.unwrap();
    let version = guarded.link.status().version;

    lab.started.process.kill();
    until(async || !guarded.link.status().connected).await;
    guarded.call(&token, &holder, "find_customer", &arguments).await.unwrap();

    lab.started = lab.world.start_again(&lab.world.config()).await;
    until(async || guarded.link.status().connected).await;
    assert!(guarded.link.status().version > version);
    let token = looking(&lab, &holder).await;
    guarded.call(&token, &holder, "find_customer", &arguments).await.unwrap();

    // And what is revoked afterwards is heard.
    assert_eq!(lab.order("/admin/revocations", &json!({ "token": claims(&token)["jti"] })).await.status, 200);
    until(async || {
        let called = guarded.call(&token, &holder, "find_customer", &arguments).await;
        called.is_err_and(|refusal| (refusal.status, refusal.error) == (401, "invalid_token"))
    })
    .await;
}

#[tokio::test]
async fn a_call_is_redeemed_at_the_broker_once() {
    let _place = PORTS.read().await;
    let (lab, state) = (Lab::start(World::new().await).await, tempfile::tempdir().unwrap());
    let (guarded, holder) = (guard(&lab, &state.path().join("state")), Key::es256());
    guarded.link.ready().await;
    let token = lab.token(&holder).await;
    let arguments = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
    guarded.call(&token, &holder, "refund_payment", &arguments).await.unwrap();
    let again = guarded.call(&token, &holder, "refund_payment", &arguments).await.unwrap_err();
    assert_eq!((again.status, again.error), (401, "invalid_token"));
    // A second guard of the same server, and one that was restarted, ask the same broker.
    guarded.stop().await;
    let restarted = guard(&lab, &state.path().join("state"));
    restarted.link.ready().await;
    let again = restarted.call(&token, &holder, "refund_payment", &arguments).await.unwrap_err();
    assert_eq!((again.status, again.error), (401, "invalid_token"));
}

#[tokio::test]
async fn a_token_is_of_no_use_after_its_window() {
    let _place = PORTS.read().await;
    let (lab, state) = (Lab::start(World::new().await).await, tempfile::tempdir().unwrap());
    let (guarded, holder) = (guard(&lab, &state.path().join("state")), Key::es256());
    guarded.link.ready().await;
    let (many, once) = (looking(&lab, &holder).await, lab.token(&holder).await);
    guarded.call(&many, &holder, "find_customer", &json!({ "name": "Grace" })).await.unwrap();
    guarded.clock.pass(Duration::from_secs(125));
    let refund = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
    for (token, tool, arguments) in
        [(&many, "find_customer", &json!({ "name": "Grace" })), (&once, "refund_payment", &refund)]
    {
        let refused = guarded.call(token, &holder, tool, arguments).await.unwrap_err();
        assert_eq!((refused.status, refused.error), (401, "invalid_token"), "{tool}");
    }
}

#[tokio::test]
async fn reports_wait_for_the_broker_through_restarts_of_both() {
    let _place = PORTS.write().await;
    let (mut lab, folder) = (Lab::start(World::new().await).await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let guarded = guard(&lab, &state);
    guarded.link.ready().await;
    guarded.link.report(executed("txn-0"));
    until(async || reported(&lab).await.len() == 1 && guarded.link.status().waiting == 0).await;
    lab.started.process.kill();
    for n in 1..=250 {
        guarded.link.report(executed(&format!("txn-{n}")));
    }
    until(async || guarded.link.status().waiting == 250).await;
    guarded.stop().await;
    let guarded = guard(&lab, &state);
    assert_eq!(guarded.link.status().waiting, 250, "a restart of the guard loses none");
    lab.started = lab.world.start_again(&lab.world.config()).await;
    until(async || guarded.link.status().waiting == 0).await;
    let expected: Vec<String> = (0..=250).map(|n| format!("txn-{n}")).collect();
    assert_eq!(reported(&lab).await, expected, "each once, in their order");
    assert_eq!(guarded.link.status().lost, 0);
}

#[tokio::test]
async fn a_drift_that_a_guard_sees_stops_issuance() {
    let _place = PORTS.read().await;
    let (lab, state) = (Lab::start(World::new().await).await, tempfile::tempdir().unwrap());
    let guarded = guard(&lab, &state.path().join("state"));
    guarded.link.ready().await;
    let mut live = lab.world.definitions("crm").remove(0);
    assert!(guarded.guard.drift(live.as_object().unwrap()).is_none());
    live["description"] = json!("Does refund_payment, and more.");
    let drift = guarded.guard.drift(live.as_object().unwrap()).unwrap();
    guarded.link.report(drift.into_event());
    until(async || {
        let answer = lab.send(&lab.honest(&Key::es256()).await).await;
        answer.error_code().as_deref() == Some("invalid_authorization_details")
    })
    .await;
    let (entries, _) = lab.world.log(0).await;
    let stop = entries.iter().find(|entry| entry["kind"] == "drift").unwrap();
    let shown: Value = serde_json::from_str(stop["detail"].as_str().unwrap()).unwrap();
    assert_eq!(
        shown["changes"],
        json!([{ "at": "/description", "approved": "Does refund_payment.", "live": "Does refund_payment, and more." }])
    );
}

#[tokio::test]
async fn silence_stops_calls_after_a_minute_and_word_lets_them_go_on() {
    let _place = PORTS.read().await;
    let (impostor, state) = (Impostor::start().await, tempfile::tempdir().unwrap());
    impostor.say(&[impostor.signed(&impostor.document(CRM, 1))]);
    let (guarded, holder) = (guard_of(&impostor, &state.path().join("state")), Key::es256());
    guarded.link.ready().await;
    let token = impostor.token(CRM, &holder);
    let call =
        async || guarded.call(&token, &holder, TOOL, &json!({})).await.map_err(|refusal| refusal.status);
    assert_eq!(call().await, Ok(()));
    guarded.clock.pass(Duration::from_secs(58));
    assert_eq!(call().await, Ok(()));
    guarded.clock.pass(Duration::from_secs(3));
    assert_eq!(call().await, Err(503));
    impostor.say(&[impostor.signed(&impostor.document(CRM, 1)), ("alive", json!({}))]);
    until(async || call().await.is_ok()).await;
}

#[tokio::test]
async fn a_state_folder_serves_one_guard() {
    let _place = PORTS.read().await;
    let (impostor, folder) = (Impostor::start().await, tempfile::tempdir().unwrap());
    let state = folder.path().join("state");
    let first = guard_of(&impostor, &state);
    let second = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard_of(&impostor, &state)));
    assert!(second.is_err(), "the lock is held");
    first.stop().await;
    guard_of(&impostor, &state).stop().await;
}

/// A guard in front of the CRM, as its own client of the broker.
fn guard(lab: &Lab, state: &Path) -> Guarded {
    let world = &lab.world;
    let setting = Setting {
        issuer: &world.base,
        ca_pem: Some(world.authority.pem().into_bytes()),
        resource: CRM,
        client: ("crm", &world.client_keys["crm"]),
        snapshot_keys: world.snapshot_keys(),
        definitions: &world.definitions("crm"),
    };
    Guarded::start(&setting, state)
}

fn guard_of(impostor: &Impostor, state: &Path) -> Guarded {
    let key = Key::es256();
    let setting = Setting {
        issuer: &impostor.issuer,
        ca_pem: None,
        resource: CRM,
        client: ("crm", &key),
        snapshot_keys: impostor.snapshot_keys(),
        definitions: &[definition()],
    };
    Guarded::start(&setting, state)
}

/// A token for looking customers up, at L1.
async fn looking(lab: &Lab, holder: &Key) -> String {
    let mut exchange = lab.honest(holder).await;
    exchange.tool(CRM, "find_customer");
    token_of(&lab.send(&exchange).await)
}

fn executed(txn: &str) -> Event {
    Event { txn: Some(txn.to_owned()), ..Event::new(EventKind::Executed) }
}

/// The transactions that guards named, in the order of the log; there are none of these names.
async fn reported(lab: &Lab) -> Vec<String> {
    let (entries, _) = lab.world.log(0).await;
    let of_guards = entries.iter().filter(|entry| entry["kind"] == "guard");
    of_guards.map(|entry| entry["seen"]["unconfirmed"]["txn"].as_str().unwrap().to_owned()).collect()
}

async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to that");
}

/// A broker that starts again needs the port that it had: nobody else of this program takes one meanwhile.
static PORTS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
