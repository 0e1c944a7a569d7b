//! Clients that know nothing of us: they present the person's own token, and the guard exchanges it.

use super::{
    HandClock,
    bench::{Bench, Got},
};
use crate::{
    Revocation,
    proxy::{Exchanger, Minted, ProxySettings},
    tests::fixture::*,
};
use async_trait::async_trait;
use axum::{body::Body, http::Request};
use deputize_call::action::Action;
use deputize_call::{
    claims::{TYP, ToolCallClaims},
    dpop::{self, NewProof},
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_client::{Clock as _, DenialReason, Detail, ErrorDetails, ExchangeError};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use zeroize::Zeroizing;

const IDP: &str = "https://id.example.com";

/// The broker's part: grants what is asked, unless it is told to say no.
struct FakeBroker {
    /// The broker's key, and the time.
    of: OnceLock<(SigningKey, Arc<HandClock>)>,
    key: SigningKey,
    asked: Mutex<Vec<(String, Detail)>>,
    noes: Mutex<VecDeque<ExchangeError>>,
}

#[async_trait]
impl Exchanger for FakeBroker {
    async fn exchange(&self, token: &str, (_, asked): (Action, Detail)) -> Result<Minted, ExchangeError> {
        let serial = {
            let mut all = self.asked.lock().unwrap();
            all.push((token.to_owned(), asked.clone()));
            all.len()
        };
        if let Some(no) = self.noes.lock().unwrap().pop_front() {
            return Err(no);
        }
        let detail = match &asked {
            Detail::Listing => l0(),
            Detail::Tool { name } => l1(name),
            Detail::Call { name, arguments, .. } => l3(name, arguments),
            other => panic!("{other:?}"),
        };
        let payload = token.split('.').nth(1).unwrap();
        let payload =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap();
        let person: Value = serde_json::from_slice(&payload).unwrap();
        let (broker, clock) = self.of.get().unwrap();
        let now = clock.now_seconds();
        let claims: ToolCallClaims = serde_json::from_value(json!({
            "iss": ISSUER, "sub": format!("user:acme:x:{}", person["sub"].as_str().unwrap()), "tenant": "acme",
            "aud": RESOURCE, "client_id": "pay-guard", "iat": now, "nbf": now, "exp": now + 60,
            "jti": format!("own-{serial}"), "scope": "tool", "cnf": { "jkt": self.key.public().thumbprint() },
            "act": { "sub": "pay-guard" }, "bearer": { "iss": IDP, "client": person["client_id"] },
            "txn": "txn", "authorization_details": [detail], "log": { "origin": "replica-1", "index": serial },
        }))
        .unwrap();
        let token = Zeroizing::new(broker.sign(TYP, &claims).unwrap());
        Ok(Minted { token, lives: Duration::from_secs(60), max_uses: None })
    }

    fn prove(&self, htm: &str, htu: &str, token: &str, nonce: &str) -> Result<String, ExchangeError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let jti = format!("own-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let iat = self.of.get().unwrap().1.now_seconds();
        let proof = NewProof { htm, htu, jti: &jti, iat, nonce: Some(nonce), access_token: Some(token) };
        Ok(dpop::prove(&self.key, &proof).unwrap())
    }
}

impl FakeBroker {
    fn asked(&self) -> Vec<Detail> {
        self.asked.lock().unwrap().iter().map(|(_, detail)| detail.clone()).collect()
    }

    fn say(&self, no: ExchangeError) {
        self.noes.lock().unwrap().push_back(no);
    }
}

/// A bench whose proxy accepts the tokens of [`IDP`].
struct Front {
    bench: Bench,
    broker: Arc<FakeBroker>,
    idp: SigningKey,
}

impl Front {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ProxySettings)) -> Self {
        let key = || SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let broker =
            FakeBroker { of: OnceLock::new(), key: key(), asked: Mutex::default(), noes: Mutex::default() };
        let broker = Arc::new(broker);
        let bench = Bench::with(false, |settings| {
            settings.guard.accept_issuers = vec![IDP.to_owned()];
            settings.exchanger = Some(Arc::clone(&broker) as _);
            change(settings);
        });
        let bench = bench.await;
        let signer = SigningKey::from_pkcs8(&bench.fixture.broker.to_pkcs8().unwrap(), None).unwrap();
        assert!(broker.of.set((signer, Arc::clone(&bench.clock))).is_ok());
        Self { bench, broker, idp: key() }
    }

    /// Alice's access token for the server, as her MCP client got it, with `changes` (`null` leaves a claim out).
    fn alice(&self, changes: Value) -> String {
        let now = self.bench.clock.now_seconds();
        let mut claims = json!({
            "iss": IDP, "sub": "alice", "aud": RESOURCE, "client_id": "desk-app", "scope": "openid mcp",
            "iat": now, "exp": now + 600,
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.idp.sign("at+jwt", &claims).unwrap()
    }

    async fn send(&self, token: &str, headers: &[(&str, &str)], body: &Value) -> Got {
        self.request("POST", token, headers, Some(body)).await
    }

    async fn request(
        &self,
        method: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Got {
        let mut request =
            Request::builder().method(method).uri("/mcp").header("authorization", format!("Bearer {token}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.bench.raw(request.body(body).unwrap()).await
    }

    async fn session(&self, token: &str) -> String {
        let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "ordinary" } } });
        let got = self.send(token, &[], &begin).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.header("mcp-session-id").to_owned()
    }
}

fn lookup() -> Value {
    call("lookup", json!({ "payment_id": "pay_1" }))
}

fn refund(cents: u64) -> Value {
    call("refund", json!({ "payment_id": "pay_1", "amount_cents": cents }))
}

fn details(description: &str) -> ErrorDetails {
    ErrorDetails {
        code: String::new(),
        description: description.to_owned(),
        decision_id: Some("decision-7".to_owned()),
    }
}

fn policy_says_no() -> ExchangeError {
    ExchangeError::AccessDenied { reason: DenialReason::Policy, details: details("policy does not allow it") }
}

/// What is demanded, one challenge each.
fn challenges(got: &Got) -> Vec<&str> {
    got.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_client_with_nothing_but_a_token_lists_and_calls() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    let session = front.session(&alice).await;
    let here = [("mcp-session-id", session.as_str())];
    let listed = front.send(&alice, &here, &list()).await;
    assert_eq!(listed.json()["result"]["tools"].as_array().map(Vec::len), Some(3), "{listed:?}");
    for _ in 0..3 {
        let got = front.send(&alice, &here, &lookup()).await;
        assert_eq!((got.status, got.json()["id"].clone()), (200, json!(1)), "{got:?}");
    }
    for cents in [100, 100, 200] {
        assert_eq!(front.send(&alice, &here, &refund(cents)).await.status, 200);
    }
    let asked = front.broker.asked();
    let levels: Vec<&str> = asked
        .iter()
        .map(|detail| match detail {
            Detail::Listing => "L0",
            Detail::Tool { .. } => "L1",
            _ => "L3",
        })
        .collect();
    assert_eq!(
        levels,
        ["L0", "L1", "L3", "L3", "L3"],
        "what the tool's level allows serves again, and no more"
    );
    assert_eq!(front.bench.outside.redeemed.lock().unwrap().len(), 3, "each of those once");
    for (sent, _) in front.bench.server.asked_of("tools/call") {
        assert!(!sent.contains_key("authorization") && !sent.contains_key("dpop"));
        assert_ne!(sent["deputize-call"].to_str().unwrap(), alice);
    }
    let ended = front.request("DELETE", &alice, &here, None).await;
    assert_eq!(ended.status, 204, "{ended:?}");
}

#[tokio::test]
async fn garbage_is_refused_before_it_costs_the_broker_anything() {
    let front = Front::new().await;
    let jkt = front.bench.key.public().thumbprint();
    let own = front.bench.token(l1("lookup"));
    let now = front.bench.clock.now_seconds();
    let unsigned = |token: &str| token.rsplit_once('.').unwrap().0.to_owned();
    for token in [
        front.alice(json!({ "aud": "https://other.example.com/mcp" })),
        front.alice(json!({ "aud": "desk-app" })),
        front.alice(json!({ "aud": null })),
        front.alice(json!({ "iss": "https://evil.example" })),
        front.alice(json!({ "iss": format!("{IDP}/") })),
        front.alice(json!({ "iss": null })),
        front.alice(json!({ "exp": now - 5 })),
        front.alice(json!({ "exp": null })),
        front.alice(json!({ "nbf": now + 60 })),
        front.alice(json!({ "sub": null })),
        front.alice(json!({ "cnf": { "jkt": jkt } })),
        unsigned(&front.alice(json!({}))),
        "garbage".to_owned(),
        "a.b.c.d.e".to_owned(),
        "x".repeat(20_000),
    ] {
        let got = front.send(&token, &[], &lookup()).await;
        assert_eq!(got.status, 401, "{token}: {got:?}");
        let [challenge] = challenges(&got).try_into().expect("one challenge");
        assert!(
            challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
            "{challenge}"
        );
        assert!(
            challenge.contains("resource_metadata=\"https://pay.example.com/.well-known/"),
            "{challenge}"
        );
        assert_eq!(got.header("dpop-nonce"), "", "nothing of proofs for those who have none");
    }
    let proof = [("dpop", "a.b.c")];
    assert_eq!(front.send(&front.alice(json!({})), &proof, &lookup()).await.status, 401);
    // The broker's own tokens stay bound, whatever else is accepted.
    let got = front.send(&own, &[], &lookup()).await;
    assert_eq!(got.status, 401);
    assert!(challenges(&got)[0].starts_with("DPoP "), "{got:?}");
    assert_eq!(front.broker.asked().len(), 0);
    assert!(front.bench.server.asked_of("tools/call").is_empty());
}

#[tokio::test]
async fn who_has_no_token_learns_where_to_get_one() {
    let front = Front::with(|settings| settings.guard.accept_scopes = vec!["mcp".to_owned()]).await;
    let bare = || Request::builder().method("POST").uri("/mcp").header("content-type", "application/json");
    let got = front.bench.raw(bare().body(Body::from(lookup().to_string())).unwrap()).await;
    let [first, second] = challenges(&got).try_into().unwrap();
    assert!(
        first.starts_with("Bearer ") && first.contains("scope=\"mcp\"") && !first.contains("error"),
        "{first}"
    );
    assert!(second.starts_with("DPoP "), "{second}");
    let at = Request::builder().uri("/.well-known/oauth-protected-resource/mcp").body(Body::empty()).unwrap();
    let metadata = front.bench.raw(at).await.json();
    assert_eq!(metadata["authorization_servers"], json!([IDP, ISSUER]));
    assert_eq!(metadata["dpop_bound_access_tokens_required"], false);
    assert_eq!((&metadata["resource"], &metadata["scopes_supported"]), (&json!(RESOURCE), &json!(["mcp"])));

    for scope in [json!("openid mcp"), json!(["mcp"])] {
        let got = front.send(&front.alice(json!({ "scope": null, "scp": scope })), &[], &lookup()).await;
        assert_eq!(got.status, 200, "{got:?}");
    }
    for changes in [json!({ "scope": "openid" }), json!({ "scope": "mcp2 xmcp" }), json!({ "scope": null })] {
        let got = front.send(&front.alice(changes), &[], &lookup()).await;
        assert_eq!(got.status, 403);
        let [challenge] = challenges(&got).try_into().unwrap();
        assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\"mcp\""));
    }
    let plain = Bench::new().await;
    let at = Request::builder().uri("/.well-known/oauth-protected-resource/mcp").body(Body::empty()).unwrap();
    let metadata = plain.raw(at).await.json();
    assert_eq!(metadata["authorization_servers"], json!([ISSUER]));
    assert_eq!(metadata["dpop_bound_access_tokens_required"], true);
}

#[tokio::test]
async fn who_does_not_accept_them_takes_none() {
    let front = Front::with(|settings| settings.guard.accept_issuers.clear()).await;
    let got = front.send(&front.alice(json!({})), &[], &lookup()).await;
    assert_eq!(got.status, 401);
    assert!(challenges(&got).iter().all(|challenge| challenge.starts_with("DPoP ")), "{got:?}");
    assert!(front.broker.asked().is_empty());
}

#[tokio::test]
async fn each_no_of_the_broker_is_told_in_words_that_the_client_knows() {
    let waiting = ExchangeError::Waiting {
        approval_id: "a".into(),
        approval_uri: Some("https://deputize.example.com/approvals/a".into()),
        interval_seconds: 2,
        expires_in_seconds: 300,
        decision_id: Some("decision-7".into()),
    };
    let weak = ExchangeError::InsufficientUserAuthentication {
        acr_values: vec!["aal2".into(), "aal3".into()],
        max_age_seconds: Some(60),
        details: details("sign in again"),
    };
    let busy = ExchangeError::RateLimited { retry_after_seconds: Some(7), details: details("slowly") };
    let uncertain = ExchangeError::Unavailable { retry_after_seconds: None, details: details("not now") };
    for (no, status, error) in [
        (policy_says_no(), 403, "insufficient_scope"),
        (waiting, 403, "authorization_pending"),
        (weak, 401, "insufficient_user_authentication"),
        (ExchangeError::InvalidRequest(details("bad")), 401, "invalid_token"),
        (ExchangeError::InvalidTarget(details("disabled")), 403, "insufficient_scope"),
        (busy, 429, "temporarily_unavailable"),
        (uncertain, 503, "temporarily_unavailable"),
        (ExchangeError::Unreachable("refused".into()), 503, "temporarily_unavailable"),
        (ExchangeError::InvalidClient(details("who?")), 503, "temporarily_unavailable"),
    ] {
        let front = Front::new().await;
        front.broker.say(no.clone());
        let got = front.send(&front.alice(json!({})), &[], &refund(1)).await;
        assert_eq!(got.status, status, "{no:?}: {got:?}");
        let body = got.json();
        assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(1)), "{body}");
        assert_eq!(body["error"]["data"]["error"], error, "{body}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty());
        match status {
            // A challenge sends the user to sign in again: not where that is of no use.
            403 => {
                assert!(challenges(&got).is_empty(), "{got:?}");
                assert_eq!(body["error"]["data"]["decision_id"], "decision-7", "{body}");
            }
            401 => assert!(challenges(&got)[0].contains(error), "{got:?}"),
            _ => assert!(!got.header("retry-after").is_empty(), "{got:?}"),
        }
        assert!(front.bench.server.asked_of("tools/call").is_empty());
        if error == "insufficient_user_authentication" {
            assert!(challenges(&got)[0].contains("acr_values=\"aal2 aal3\", max_age=\"60\""), "{got:?}");
        }
        if error == "authorization_pending" {
            assert_eq!(body["error"]["data"]["approval_uri"], "https://deputize.example.com/approvals/a");
        }
    }
}

#[tokio::test]
async fn a_no_is_not_asked_for_again_at_once() {
    let front = Front::new().await;
    let bad = front.alice(json!({ "sub": "mallory" }));
    front.broker.say(ExchangeError::InvalidRequest(details("bad")));
    for _ in 0..5 {
        assert_eq!(front.send(&bad, &[], &refund(1)).await.status, 401);
        assert_eq!(front.send(&bad, &[], &list()).await.status, 401, "whatever is asked with it");
    }
    assert_eq!(front.broker.asked().len(), 1);
    front.bench.clock.pass(Duration::from_secs(30));
    assert_eq!(front.send(&bad, &[], &refund(1)).await.status, 200, "whoever configured it meanwhile");

    let alice = front.alice(json!({}));
    front.broker.say(policy_says_no());
    let before = front.broker.asked().len();
    for _ in 0..3 {
        assert_eq!(front.send(&alice, &[], &refund(1)).await.status, 403);
    }
    assert_eq!(front.broker.asked().len(), before + 1);
    assert_eq!(front.send(&alice, &[], &refund(2)).await.status, 200, "another call");
    assert_eq!(
        front.send(&front.alice(json!({ "jti": "2" })), &[], &refund(1)).await.status,
        200,
        "another token"
    );
}

#[tokio::test]
async fn whoever_brings_garbage_takes_nothing_from_those_who_are_known() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    assert_eq!(front.send(&alice, &[], &refund(1)).await.status, 200);
    let garbage = async |n: u32| {
        front.broker.say(ExchangeError::InvalidRequest(details("bad")));
        front.send(&front.alice(json!({ "jti": n })), &[], &refund(1)).await.status
    };
    let mut asked = 0;
    while garbage(asked).await == 401 {
        asked += 1;
        assert!(asked < 1000, "it goes on for ever");
    }
    front.broker.noes.lock().unwrap().clear();
    let snapshot = front.bench.fixture.snapshot(|document| document.version = 2);
    front.bench.proxy.guard().install(snapshot, front.bench.clock.uptime()).unwrap();
    let before = front.broker.asked().len();
    assert_eq!(front.send(&front.alice(json!({ "jti": "new" })), &[], &refund(1)).await.status, 429);
    assert_eq!(front.broker.asked().len(), before);
    assert_eq!(front.send(&alice, &[], &refund(2)).await.status, 200);
    front.bench.clock.pass(Duration::from_secs(4));
    assert_eq!(front.send(&front.alice(json!({ "jti": "new" })), &[], &refund(1)).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_anyone_gets_makes_nobody_known() {
    for (no, status) in [
        (ExchangeError::InvalidAuthorizationDetails(details("malformed")), 403),
        (ExchangeError::InvalidScope(details("malformed")), 403),
        (ExchangeError::InvalidTarget(details("unknown")), 403),
        (ExchangeError::Refused { status: 413, details: details("too long") }, 413),
        (ExchangeError::InvalidClient(details("who?")), 503),
    ] {
        let front = Front::new().await;
        let garbage = front.alice(json!({ "jti": "garbage" }));
        let mut asked = 0;
        loop {
            front.broker.say(no.clone());
            let got = front.send(&garbage, &[], &refund(asked)).await.status;
            if got == 429 {
                break;
            }
            assert_eq!(got, status, "{no:?}");
            asked += 1;
            assert!(asked < 1000, "{no:?}: it goes on for ever");
        }
    }
    let front = Front::new().await;
    for cents in 0..200 {
        front
            .broker
            .say(ExchangeError::Unavailable { retry_after_seconds: None, details: details("not now") });
        let got = front.send(&front.alice(json!({ "jti": cents })), &[], &refund(cents)).await.status;
        assert_eq!(got, 503, "the broker's own trouble counts against nobody");
    }
}

#[tokio::test]
async fn what_no_token_could_be_had_for_is_not_asked_of_the_broker() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    for (member, value) in [("inputResponses", json!(1)), ("requestState", json!({}))] {
        let mut steered = refund(1);
        steered["params"][member] = value;
        assert_eq!(front.send(&alice, &[], &steered).await.status, 400, "{steered}");
    }
    assert!(front.broker.asked().is_empty());
    front.broker.say(ExchangeError::InvalidRequest(details("bad")));
    let garbage = front.alice(json!({ "jti": "garbage" }));
    assert_eq!(front.send(&garbage, &[], &call("get-env", json!({}))).await.status, 401, "nor what there is");
    for name in ["get-env".to_owned(), String::new(), "x".repeat(129)] {
        assert_eq!(front.send(&alice, &[], &call(&name, json!({}))).await.status, 403, "{name}");
    }
    let asked = front.broker.asked();
    assert!(matches!(asked.as_slice(), [Detail::Listing, Detail::Listing]), "{asked:?}");
    let mut steered = refund(1);
    steered["params"]["requestState"] = json!("state");
    assert_eq!(front.send(&alice, &[], &steered).await.status, 403, "granted without, by this broker");
    assert_eq!(front.broker.asked().len(), 3);
}

#[tokio::test]
async fn one_person_leaves_room_among_the_proofs_for_the_others() {
    let front = Front::with(|settings| {
        (settings.limits.calls_per_minute, settings.limits.burst) = (100_000, 100_000);
    });
    let front = front.await;
    let [one, other] = ["1", "2"].map(|jti| front.alice(json!({ "jti": jti })));
    let mut sent = 0;
    while front.send(if sent % 2 == 0 { &one } else { &other }, &[], &lookup()).await.status == 200 {
        sent += 1;
        assert!(sent < 1000, "it goes on for ever");
    }
    let got = front.send(&one, &[], &lookup()).await;
    assert_eq!((got.status, got.header("retry-after")), (429, "1"), "{got:?}");
    assert_eq!(front.broker.asked().len(), 2, "each token was exchanged once");
    assert_eq!(front.send(&front.alice(json!({ "sub": "bob" })), &[], &lookup()).await.status, 200);
}

#[tokio::test]
async fn without_the_broker_they_wait_and_those_with_tokens_do_not() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    front.broker.say(ExchangeError::Unreachable("refused".into()));
    for _ in 0..3 {
        let got = front.send(&alice, &[], &lookup()).await;
        assert_eq!((got.status, got.header("retry-after")), (503, "1"), "{got:?}");
    }
    assert_eq!(front.broker.asked().len(), 1, "it is not knocked at all the time");
    assert_eq!(front.bench.granted(l1("lookup"), &[], &lookup()).await.status, 200);
    front.bench.clock.pass(Duration::from_secs(1));
    assert_eq!(front.send(&alice, &[], &lookup()).await.status, 200);
}

#[tokio::test]
async fn a_session_is_bound_to_the_person_and_the_client_that_the_token_was_made_for() {
    let front = Front::new().await;
    let session = front.session(&front.alice(json!({}))).await;
    let here = [("mcp-session-id", session.as_str())];
    let refreshed = front.alice(json!({ "jti": "refreshed" }));
    assert_eq!(front.send(&refreshed, &here, &list()).await.status, 200);
    for stranger in [json!({ "sub": "mallory" }), json!({ "client_id": "another-app" })] {
        for method in ["POST", "GET", "DELETE"] {
            let body = (method == "POST").then(list);
            let got = front.request(method, &front.alice(stranger.clone()), &here, body.as_ref()).await;
            assert_eq!(got.status, 404, "{stranger} {method}: {got:?}");
        }
    }
    assert_eq!(front.bench.granted(l0(), &here, &list()).await.status, 404, "alice through an agent of ours");
    let ours = front.bench.session().await;
    let got = front.send(&front.alice(json!({})), &[("mcp-session-id", &ours)], &list()).await;
    assert_eq!(got.status, 404, "nor the reverse");
}

#[tokio::test]
async fn what_is_revoked_stops_at_once_and_what_changed_is_asked_anew() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    for _ in 0..2 {
        assert_eq!(front.send(&alice, &[], &lookup()).await.status, 200);
    }
    assert_eq!(front.broker.asked().len(), 1);
    let uptime = front.bench.clock.uptime();
    let person = Revocation::Person { sub: "user:acme:x:alice".to_owned() };
    front.bench.proxy.guard().revoke(person, uptime);
    let got = front.send(&alice, &[], &lookup()).await;
    assert_eq!((got.status, got.json()["error"]["data"]["error"].clone()), (401, json!("invalid_token")));
    assert_eq!(front.send(&front.alice(json!({ "sub": "bob" })), &[], &lookup()).await.status, 200);

    let snapshot = front.bench.fixture.snapshot(|document| document.version = 2);
    front.bench.proxy.guard().install(snapshot, uptime).unwrap();
    let before = front.broker.asked().len();
    front.broker.say(policy_says_no());
    front.broker.say(policy_says_no());
    assert_eq!(front.send(&alice, &[], &lookup()).await.status, 403, "no longer what was granted before");
    assert!(front.broker.asked().len() > before);
}

#[tokio::test]
async fn policies_that_look_at_arguments_are_shown_them() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    front.broker.say(policy_says_no());
    for _ in 0..2 {
        assert_eq!(front.send(&alice, &[], &lookup()).await.status, 200);
    }
    let asked = front.broker.asked();
    assert!(
        matches!(asked.as_slice(), [Detail::Tool { .. }, Detail::Call { .. }, Detail::Call { .. }]),
        "learned at the first call: {asked:?}"
    );
}

#[tokio::test]
async fn the_guards_own_token_is_of_no_use_to_anyone_else() {
    let front = Front::new().await;
    assert_eq!(front.send(&front.alice(json!({})), &[], &lookup()).await.status, 200);
    let (sent, _) = front.bench.server.asked_of("tools/call").pop().unwrap();
    let own = sent["deputize-call"].to_str().unwrap();
    assert_eq!(front.send(own, &[], &lookup()).await.status, 401);
    let got = front.bench.post(own, &[], &lookup()).await;
    assert_eq!((got.status, got.json()["error"].clone()), (401, json!("invalid_dpop_proof")), "{got:?}");
    assert_eq!(front.bench.server.asked_of("tools/call").len(), 1);
}

#[tokio::test]
async fn what_the_guard_refuses_after_the_exchange_is_told_in_words_that_the_client_knows() {
    let front = Front::new().await;
    let alice = front.alice(json!({}));
    for (body, status) in [
        (call("get-env", json!({})), 403),
        (call("lookup", json!({ "payment_id": 7 })), 403),
        (json!([lookup()]), 400),
        (json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/subscribe" }), 403),
    ] {
        let got = front.send(&alice, &[], &body).await;
        assert_eq!(got.status, status, "{body}: {got:?}");
        assert_eq!(got.json()["jsonrpc"], "2.0", "{got:?}");
        assert!(challenges(&got).is_empty() && got.header("dpop-nonce").is_empty(), "{got:?}");
    }
    assert!(front.bench.server.asked_of("tools/call").is_empty());
}
