//! H-32: what a guard is told that it must not believe. The broker is an impostor; the guard and its link are real.
//! Each case ends with a good snapshot, under which the same call is let through.

use crate::cases;
use deputize_conformance::{
    exchange::Lab,
    forge::{self, Key},
    guarding::{Guarded, Setting},
    impostor::{Impostor, TOOL, definition},
    wire::Response,
    world::{CRM, LEDGER},
};
use deputize_guard::{SignedSnapshot, SnapshotDocument};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

cases![snapshots:
    expired, not_begun_or_too_long, unsigned, altered, signed_by_another_key, of_another_server, of_another_broker,
    definition_unlike_its_digest, word_without_a_snapshot, older_than_the_highest_seen, registry_rolled_back,
    older_after_a_restart, restarted_before_any_word,
];

fn now() -> u64 {
    forge::now().unsigned_abs()
}

/// An impostor, a guard that listens to it, and one who calls.
struct Scene {
    impostor: Impostor,
    state: TempDir,
    server_key: Key,
    caller: Key,
}

impl Scene {
    async fn new() -> Self {
        let (impostor, state) = (Impostor::start().await, tempfile::tempdir().unwrap());
        Self { impostor, state, server_key: Key::es256(), caller: Key::es256() }
    }

    fn guard(&self) -> Guarded {
        let setting = Setting {
            issuer: &self.impostor.issuer,
            ca_pem: None,
            resource: CRM,
            client: ("crm", &self.server_key),
            snapshot_keys: self.impostor.snapshot_keys(),
            definitions: &[definition()],
        };
        Guarded::start(&setting, &self.state.path().join("state"))
    }

    /// A snapshot of this version, changed before it is signed.
    fn snapshot(&self, version: u64, change: impl FnOnce(&mut SnapshotDocument)) -> (&'static str, Value) {
        let mut document = self.impostor.document(CRM, version);
        change(&mut document);
        self.impostor.signed(&document)
    }

    async fn call(&self, guarded: &Guarded) -> Result<(), Response> {
        let token = self.impostor.token(CRM, &self.caller);
        let called = guarded.call(&token, &self.caller, TOOL, &json!({})).await;
        called.map_err(|refusal| Response {
            status: refusal.status,
            headers: vec![("refused-by".to_owned(), "guard".to_owned())],
            body: refusal.body().to_string().into_bytes(),
        })
    }

    /// Says something, waits until the guard has had it twice, and calls.
    async fn refused_after(&self, guarded: &Guarded, messages: &[(&str, Value)]) -> Response {
        self.impostor.say(messages);
        self.impostor.told(2).await;
        self.call(guarded).await.unwrap_err()
    }

    /// The next honest snapshot holds.
    async fn recovers(&self, guarded: &Guarded, version: u64) {
        self.impostor.say(&[self.snapshot(version, |_| {})]);
        for _ in 0..2000 {
            if self.call(guarded).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.call(guarded).await.unwrap();
    }
}

/// A fresh guard is told this; then something good.
async fn told(message: impl FnOnce(&Scene) -> (&'static str, Value)) -> Response {
    let scene = Scene::new().await;
    let message = message(&scene);
    let guarded = scene.guard();
    let refused = scene.refused_after(&guarded, &[message, ("alive", json!({}))]).await;
    scene.recovers(&guarded, 1).await;
    refused
}

async fn expired(_: &Lab) -> Vec<Response> {
    let expired = |document: &mut SnapshotDocument| {
        (document.issued_at, document.expires_at) = (now() - 600, now() - 1);
    };
    vec![told(|scene| scene.snapshot(1, expired)).await]
}

async fn not_begun_or_too_long(_: &Lab) -> Vec<Response> {
    let ahead = |document: &mut SnapshotDocument| {
        (document.issued_at, document.expires_at) = (now() + 120, now() + 600);
    };
    let long = |document: &mut SnapshotDocument| document.expires_at = document.issued_at + 3601;
    vec![told(|scene| scene.snapshot(1, ahead)).await, told(|scene| scene.snapshot(1, long)).await]
}

async fn unsigned(_: &Lab) -> Vec<Response> {
    let with = |scene: &Scene, change: fn(&str) -> String| {
        let (event, mut signed) = scene.snapshot(1, |_| {});
        signed["signature"] = json!(change(signed["signature"].as_str().unwrap()));
        (event, signed)
    };
    let none = |signature: &str| {
        let header = forge::encode(r#"{"alg":"none","typ":"deputize-snapshot+jwt"}"#);
        format!("{header}.{}.", signature.split('.').nth(1).unwrap())
    };
    vec![told(|scene| with(scene, |_| String::new())).await, told(|scene| with(scene, none)).await]
}

async fn altered(_: &Lab) -> Vec<Response> {
    let altered = |scene: &Scene| {
        let (event, mut signed) = scene.snapshot(1, |_| {});
        signed["snapshot"] = json!(signed["snapshot"].as_str().unwrap().replace("acme", "acne"));
        (event, signed)
    };
    vec![told(altered).await]
}

async fn signed_by_another_key(_: &Lab) -> Vec<Response> {
    // One that the snapshot itself announces: it signs tokens, and nothing else.
    let by_token_key = |scene: &Scene| {
        let document = scene.impostor.document(CRM, 1);
        let private = scene.impostor.token_key.private_jwk();
        let key = deputize_call::sign::SigningKey::from_private_jwk(private.as_object().unwrap()).unwrap();
        ("snapshot", serde_json::to_value(SignedSnapshot::sign(&document, &key).unwrap()).unwrap())
    };
    vec![told(by_token_key).await]
}

async fn of_another_server(_: &Lab) -> Vec<Response> {
    vec![told(|scene| scene.snapshot(1, |document| LEDGER.clone_into(&mut document.resource))).await]
}

async fn of_another_broker(_: &Lab) -> Vec<Response> {
    let another = "https://another.example";
    vec![told(|scene| scene.snapshot(1, |document| another.clone_into(&mut document.issuer))).await]
}

async fn definition_unlike_its_digest(_: &Lab) -> Vec<Response> {
    let changed = |document: &mut SnapshotDocument| {
        document.tools[0].definition.insert("description".to_owned(), json!("Looks, and more."));
    };
    vec![told(|scene| scene.snapshot(1, changed)).await]
}

async fn word_without_a_snapshot(_: &Lab) -> Vec<Response> {
    let revocation = json!({ "kind": "transaction", "txn": "any" });
    vec![told(|_| ("alive", json!({}))).await, told(|_| ("revocation", revocation)).await]
}

/// It keeps what it has and hears nothing more, until that is too old.
async fn older_than_the_highest_seen(_: &Lab) -> Vec<Response> {
    let scene = Scene::new().await;
    scene.impostor.say(&[scene.snapshot(5, |_| {})]);
    let guarded = scene.guard();
    guarded.link.ready().await;
    scene.call(&guarded).await.unwrap();
    scene.impostor.say(&[scene.snapshot(4, |_| {}), ("alive", json!({}))]);
    scene.impostor.told(2).await;
    guarded.clock.pass(Duration::from_secs(50));
    scene.impostor.told(3).await;
    guarded.clock.pass(Duration::from_secs(11));
    let refused = scene.call(&guarded).await.unwrap_err();
    scene.recovers(&guarded, 6).await;
    vec![refused]
}

/// A tool that is no longer approved does not come back with an older registry.
async fn registry_rolled_back(_: &Lab) -> Vec<Response> {
    let scene = Scene::new().await;
    let guarded = scene.guard();
    let withdrawn = scene.snapshot(5, |document| document.tools.clear());
    scene.impostor.say(&[withdrawn]);
    guarded.link.ready().await;
    let mut refused = vec![scene.call(&guarded).await.unwrap_err()];
    refused.push(scene.refused_after(&guarded, &[scene.snapshot(4, |_| {})]).await);
    scene.recovers(&guarded, 6).await;
    refused
}

async fn older_after_a_restart(_: &Lab) -> Vec<Response> {
    let scene = Scene::new().await;
    let guarded = scene.guard();
    scene.impostor.say(&[scene.snapshot(5, |_| {})]);
    guarded.link.ready().await;
    guarded.stop().await;
    let restarted = scene.guard();
    let refused = scene.refused_after(&restarted, &[scene.snapshot(4, |_| {}), ("alive", json!({}))]).await;
    scene.recovers(&restarted, 5).await;
    vec![refused]
}

/// A restarted guard remembers its snapshot, but not what was revoked since: it waits for word.
async fn restarted_before_any_word(_: &Lab) -> Vec<Response> {
    let scene = Scene::new().await;
    let guarded = scene.guard();
    scene.impostor.say(&[scene.snapshot(5, |_| {})]);
    guarded.link.ready().await;
    guarded.stop().await;
    scene.impostor.say(&[]);
    let restarted = scene.guard();
    scene.impostor.told(1).await;
    let refused = scene.call(&restarted).await.unwrap_err();
    scene.recovers(&restarted, 5).await;
    vec![refused]
}
