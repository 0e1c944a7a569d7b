//! MCP clients that know nothing of Deputize, with their own OAuth, at a guard that takes persons' own tokens.
#![expect(clippy::panic, reason = "a test that meets something unexpected should stop there")]

use deputize_conformance::{
    forge::{Key, claims, now},
    live_guard::{ask, call, messages},
    ordinary::{Ordinary, guards_client},
    process,
    wire::Request,
};
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};

fn echo() -> Value {
    call("echo", &json!({ "message": "hello" }))
}

fn sum() -> Value {
    call("get-sum", &json!({ "a": 2, "b": 40 }))
}

/// Steps of the TypeScript client.
fn step(name: &str, arguments: &Value) -> Value {
    json!({ "step": "call", "name": name, "arguments": arguments })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_typescript_client_signs_its_user_in_and_calls() {
    let ordinary = Ordinary::start().await;
    let (mut client, url) = (ordinary.typescript(), ordinary.url.clone());
    let connected = tokio::task::block_in_place(|| {
        let connected = client.ask(&json!({ "step": "connect", "url": url, "user": "alice" }));
        assert!(
            connected["server"]["name"].as_str().is_some_and(|name| name.contains("everything")),
            "{connected}"
        );
        assert!(
            connected["asked_scope"].as_str().unwrap().starts_with("mcp"),
            "as the guard says: {connected}"
        );
        assert_eq!(connected["resource"], url.as_str(), "it asks for a token for this server (RFC 8707)");
        let token = claims(connected["access_token"].as_str().unwrap());
        assert_eq!((&token["aud"], &token["client_id"]), (&json!(url), &connected["client_id"]), "{token}");

        let listed = client.ask(&json!({ "step": "list" }));
        assert!(listed["tools"].as_array().unwrap().contains(&json!("echo")), "{listed}");
        for _ in 0..2 {
            let said = client.ask(&step("echo", &json!({ "message": "hello" })));
            assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("hello"), "{said}");
        }
        for (a, b) in [(2, 40), (2, 40), (3, 4)] {
            let summed = client.ask(&step("get-sum", &json!({ "a": a, "b": b })));
            let text = summed["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{summed}"));
            assert!(text.contains(&(a + b).to_string()), "{summed}");
        }
        let refused = client.ask(&step("get-tiny-image", &json!({})));
        assert_eq!(refused["error"]["status"], 403, "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("policy does not allow"), "{refused}");
        let away = client.ask(&json!({ "step": "sent_away" }));
        assert_eq!(away["sent_away"], false, "no sign-in helps where policy says no");
        client.ask(&json!({ "step": "close" }));
        connected
    });
    let intents = ordinary.recorded("intent").await;
    let by = json!({ "iss": ordinary.accounts, "client": connected["client_id"] });
    for intent in &intents {
        assert!(intent["sub"].as_str().unwrap().ends_with(":alice"), "{intent}");
        assert_eq!((&intent["bearer"], &intent["actors"]), (&by, &json!(["everything-guard"])), "{intent}");
    }
    let made = |tool: &str, level: &str| {
        intents.iter().filter(|intent| intent["tool"] == tool && intent["level"] == level).count()
    };
    assert_eq!((made("echo", "L1"), made("get-sum", "L3"), made("get-tiny-image", "L3")), (1, 3, 0));
    let denials = ordinary.recorded("denial").await;
    let [denial] = denials.as_slice() else { panic!("{denials:?}") };
    assert_eq!((&denial["reason"], &denial["bearer"]), (&json!("policy"), &by));
    assert!(denial["detail"].as_str().unwrap().contains("baseline-bound-tokens"), "{denial}");

    let decision = denial["decision"].as_str().unwrap();
    let data = ordinary.world.folder().join("data");
    let (ok, story, complaint) = process::run(&["explain", decision, "--data", data.to_str().unwrap()]);
    assert!(ok && story.contains("a bearer token, which proves nothing"), "{story}{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_client_signs_its_user_in_and_calls() {
    let ordinary = Ordinary::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../target/python/bin/python");
    assert!(python.exists(), "python packages are missing: run ./test, which installs them");
    let (url, authority) = (ordinary.url.clone(), ordinary.authority());
    let ran = tokio::task::block_in_place(|| {
        Command::new(python).arg(root.join("python/ordinary.py")).arg(url).arg(authority).arg("bob").output()
    });
    let ran = ran.unwrap();
    let (printed, complaint) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{printed}\n{complaint}\n{}", ordinary.guard.said());
    let said: Value = serde_json::from_str(printed.trim()).unwrap();
    assert!(said["tools"].as_array().unwrap().contains(&json!("echo")), "{said}");
    assert!(said["echo"][0]["text"].as_str().unwrap().contains("hello"), "{said}");
    assert!(said["get-sum"][0]["text"].as_str().unwrap().contains("42"), "{said}");
    assert!(said["refused"].as_str().unwrap().contains("policy does not allow"), "{said}");
    assert_eq!(said["sign_ins"], 1, "no sign-in helps where policy says no");
    let intents = ordinary.recorded("intent").await;
    assert!(intents.iter().all(|intent| intent["bearer"]["client"] == said["client_id"]), "{intents:?}");
    assert!(intents.iter().any(|intent| intent["tool"] == "get-sum" && intent["level"] == "L3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_a_user_gets_nothing() {
    let ordinary = Ordinary::start().await;
    let (mut client, url) = (ordinary.typescript(), ordinary.url.clone());
    let answer = tokio::task::block_in_place(|| {
        client.ask(&json!({ "step": "connect_as_machine", "url": url, "issuer": ordinary.accounts }))
    });
    assert!(answer["error"].is_object(), "{answer}");
    assert!(ordinary.recorded("intent").await.is_empty());
    let denials = ordinary.recorded("denial").await;
    assert!(
        !denials.is_empty() && denials.iter().all(|denial| denial["reason"] == "not_a_person"),
        "{denials:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_made_for_this_server_and_an_accepted_client_is_refused() {
    let ordinary = Ordinary::start().await;
    let session = ordinary.begin(&ordinary.token(&json!({}))).await;
    let here = [("mcp-session-id", session.as_str())];
    let honest = async || {
        let answer = ordinary.say(&ordinary.token(&json!({})), &here, &sum()).await;
        let said = messages(&answer).pop().unwrap();
        assert!(said["result"]["content"][0]["text"].as_str().unwrap_or_default().contains("42"), "{said}");
    };
    honest().await;
    let jkt = Key::es256().thumbprint();
    let stranger = Key::es256();
    let forged = stranger.token("at+jwt", &claims(&ordinary.token(&json!({}))));
    let id_token = ordinary.world.issuer_keys["a"].token(
        "JWT",
        &json!({ "iss": ordinary.world.identity.issuer("a"), "sub": "alice", "aud": ordinary.url, "nonce": "n", "scope": "mcp",
            "iat": now(), "exp": now() + 600 }),
    );
    for (what, token) in [
        ("another audience", ordinary.token(&json!({ "aud": "https://other.test/mcp" }))),
        ("a platform's audience", ordinary.token(&json!({ "aud": "desk-app" }))),
        ("two audiences", ordinary.token(&json!({ "aud": [ordinary.url, "https://other.test/mcp"] }))),
        ("another issuer", ordinary.token(&json!({ "iss": ordinary.world.identity.issuer("b") }))),
        ("another client", ordinary.token(&json!({ "client_id": "other-app" }))),
        ("no client", ordinary.token(&json!({ "client_id": null }))),
        ("two clients", ordinary.token(&json!({ "azp": "other-app" }))),
        ("expired", ordinary.token(&json!({ "exp": now() - 60 }))),
        ("bound to a key", ordinary.token(&json!({ "cnf": { "jkt": jkt } }))),
        ("a machine's own", ordinary.token(&json!({ "sub": "desk-app" }))),
        ("another key", forged),
        ("an ID token", id_token),
        ("garbage", "garbage".to_owned()),
    ] {
        for message in [ask("tools/list"), echo(), sum()] {
            let answer = ordinary.say(&token, &here, &message).await;
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(
                challenge.starts_with("Bearer ") && challenge.contains("invalid_token"),
                "{what}: {challenge}"
            );
        }
        honest().await;
    }
    let minted = ordinary.recorded("intent").await;
    let calls = minted.iter().filter(|intent| intent["level"] != "L0");
    assert!(
        calls.clone().count() > 10 && calls.clone().all(|intent| intent["tool"] == "get-sum"),
        "{minted:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tool_call_tokens_are_never_bearer_tokens() {
    let ordinary = Ordinary::start().await;
    // A token of the broker's, for another server, and one for this server: of an agent's, by the book.
    let lab = async |resource: &str| {
        let key = deputize_call::sign::SigningKey::from_private_jwk(
            ordinary.world.client_keys["desk"].private_jwk().as_object().unwrap(),
        );
        let client = deputize_client::Client::builder(&ordinary.world.base, "desk")
            .private_key_jwt(key.unwrap())
            .ca_pem(ordinary.world.authority.pem())
            .build()
            .unwrap();
        let user = ordinary.world.user_token("alice");
        let request = deputize_client::ExchangeRequest::new(resource, &user);
        client.exchange(&request).await.unwrap().access_token().to_owned()
    };
    for resource in [deputize_conformance::world::CRM, ordinary.url.as_str()] {
        let token = lab(resource).await;
        let answer = ordinary.say(&token, &[], &ask("tools/list")).await;
        assert_eq!(
            (answer.status, answer.error_code().as_deref()),
            (401, Some("invalid_token")),
            "{resource}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_withdrawn_at_the_broker_is_out_at_once() {
    let ordinary = Ordinary::start().await;
    let (alice, bob) = (ordinary.token(&json!({})), ordinary.token(&json!({ "sub": "bob" })));
    let (of_alice, of_bob) = (ordinary.begin(&alice).await, ordinary.begin(&bob).await);
    let hers = (alice.as_str(), of_alice.as_str());
    let here = [("mcp-session-id", of_alice.as_str())];
    assert_eq!(ordinary.say(&alice, &here, &echo()).await.status, 200);
    assert_eq!(ordinary.say(&alice, &here, &ask("tools/list")).await.status, 200);

    ordinary
        .reconfigure(|config| guards_client(config)["accepts_bearer"][1]["clients"] = json!(["other-app"]))
        .await;
    until(&ordinary, hers, 401).await;
    assert_eq!(ordinary.say(&alice, &here, &ask("tools/list")).await.status, 401, "looking too");
    ordinary
        .reconfigure(|config| guards_client(config)["accepts_bearer"][1]["clients"] = json!(["desk-app"]))
        .await;
    until(&ordinary, hers, 200).await;

    let sub = ordinary.recorded("intent").await[0]["sub"].clone();
    let answer = ordinary.world.order("POST", "/admin/revocations", &json!({ "person": sub })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until(&ordinary, hers, 401).await;
    assert_eq!(ordinary.say(&alice, &here, &ask("tools/list")).await.status, 401, "looking too");
    until(&ordinary, (&bob, &of_bob), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_broker_they_are_told_to_come_back() {
    let ordinary = Ordinary::start().await;
    let alice = ordinary.token(&json!({}));
    let session = ordinary.begin(&alice).await;
    let here = [("mcp-session-id", session.as_str())];
    assert_eq!(ordinary.say(&alice, &here, &sum()).await.status, 200);
    ordinary.started.process.kill();
    for _ in 0..3 {
        let answer = ordinary.say(&alice, &here, &sum()).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(
            answer.header("retry-after").is_some() && answer.json()["error"]["code"].is_i64(),
            "{answer:?}"
        );
    }
    let again = ordinary.world.start_again(&ordinary.world.config()).await;
    until(&ordinary, (&alice, &session), 200).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_and_challenge_lead_to_the_identity_provider() {
    let ordinary = Ordinary::start().await;
    let mut bare = Request::get("/mcp");
    bare.method = "POST".to_owned();
    bare.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    bare.body = ask("tools/list").to_string().into_bytes();
    let answer = ordinary.send(&bare).await;
    assert_eq!(answer.status, 401);
    let metadata_url = answer.header("www-authenticate").unwrap().split('"').nth(1).unwrap().to_owned();
    let target = metadata_url.split_once("://").unwrap().1.split_once('/').unwrap().1;
    let metadata = ordinary.send(&Request::get(&format!("/{target}"))).await.json();
    assert_eq!(metadata["resource"], ordinary.url.as_str());
    assert_eq!(metadata["authorization_servers"][0], ordinary.accounts.as_str(), "{metadata}");
    assert_eq!(metadata["scopes_supported"], json!(["mcp"]), "{metadata}");
    assert_ne!(metadata["dpop_bound_access_tokens_required"], true, "{metadata}");

    let narrow = ordinary.token(&json!({ "scope": "openid" }));
    let answer = ordinary.say(&narrow, &[], &ask("tools/list")).await;
    let challenge = answer.header("www-authenticate").unwrap();
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(
        challenge.contains("error=\"insufficient_scope\"") && challenge.contains("scope=\"mcp\""),
        "{challenge}"
    );
}

/// Waits until a call is answered so: news goes from the broker to its guards within milliseconds.
async fn until(ordinary: &Ordinary, (token, session): (&str, &str), status: u16) {
    let mut last = None;
    for _ in 0..500 {
        let answer = ordinary.say(token, &[("mcp-session-id", session)], &echo()).await;
        if answer.status == status {
            return;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {status}: {last:?}\n{}", ordinary.guard.said());
}
