//! What happens to tokens and persons after an exchange, and who may make it happen; seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{Key, claims, now, unique},
    process,
    wire::{Request, Response},
    world::{World, token_of},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_is_redeemed_once_by_its_server_and_by_nobody_else() {
    let lab = Lab::start(World::new().await).await;
    let token = lab.token(&Key::es256()).await;
    let no = |reason: &str| json!({ "redeemed": false, "reason": reason });
    // Another server, the holder, and a client of another tenant: none of them learns whether it is good elsewhere.
    for stranger in ["ledger", "desk", "globex-desk"] {
        assert_eq!(redeem(&lab, stranger, &token).await.json(), no("not_redeemable"), "{stranger}");
    }
    let nobody = Request::form("/redeem", &[("token".into(), token.clone())]);
    let answer = lab.world.door.send(&nobody).await.unwrap();
    assert_eq!((answer.status, answer.error_code().as_deref()), (401, Some("invalid_client")));
    assert_eq!(
        redeem(&lab, "crm", &token).await.json(),
        json!({ "redeemed": true }),
        "strangers used nothing up"
    );
    assert_eq!(redeem(&lab, "crm", &token).await.json(), no("already_used"));
    let twin = deputize_conformance::forge::malleable_twin(&token);
    assert_eq!(redeem(&lab, "crm", &twin).await.json(), no("already_used"), "its twin is the same token");
    let misuse = misuses(&lab).await;
    assert_eq!(
        misuse,
        [
            ("ledger", "not_the_audience"),
            ("desk", "not_the_audience"),
            ("globex-desk", "not_the_audience"),
            ("crm", "already_used"),
            ("crm", "already_used"),
        ]
        .map(|(client, reason)| (client.to_owned(), reason.to_owned()))
    );
}

#[tokio::test]
async fn of_many_at_once_one_redeems() {
    let lab = std::sync::Arc::new(Lab::start(World::new().await).await);
    let token = lab.token(&Key::es256()).await;
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (lab, token) = (std::sync::Arc::clone(&lab), token.clone());
        racers.spawn(async move { redeem(&lab, "crm", &token).await.json()["redeemed"] == true });
    }
    assert_eq!(racers.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test]
async fn what_is_no_live_single_use_token_is_not_redeemed() {
    let mut lab = Lab::start(World::new().await).await;
    let no = |reason: &str| json!({ "redeemed": false, "reason": reason });
    let genuine = lab.token(&Key::es256()).await;
    let forged = Key::es256().token("at+jwt", &claims(&genuine));
    for garbage in ["garbage", "a.b.c", &forged, &lab.world.user_token("alice"), &lab.assertion("crm")] {
        assert_eq!(redeem(&lab, "crm", garbage).await.json(), no("not_redeemable"), "{garbage}");
    }
    let missing = about(&lab, "/redeem", "crm", &[]).await;
    assert_eq!((missing.status, missing.error_code().as_deref()), (400, Some("invalid_request")));
    // Good for many calls: there is nothing to use up.
    let mut tool = lab.honest(&Key::es256()).await;
    tool.tool(deputize_conformance::world::CRM, "find_customer");
    let many = token_of(&lab.send(&tool).await);
    assert_eq!(redeem(&lab, "crm", &many).await.json(), no("not_a_single_use_token"));
    // Revoked.
    let revoked = lab.token(&Key::es256()).await;
    about(&lab, "/revoke", "desk", &[("token", &revoked)]).await;
    assert_eq!(redeem(&lab, "crm", &revoked).await.json(), no("not_redeemable"));
    // Expired: it ends with the user's sign-in.
    let mut ending = lab.world.user_claims("alice");
    ending["exp"] = json!(now() + 6);
    let mut short = lab.honest(&Key::es256()).await;
    short.set("subject_token", &lab.world.issuer_keys["a"].token("JWT", &ending));
    let expired = token_of(&lab.send(&short).await);
    while about(&lab, "/introspect", "crm", &[("token", &expired)]).await.json()["active"] == true {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(redeem(&lab, "crm", &expired).await.json(), no("not_redeemable"));
    // Made by a process that is no more: nobody knows whether it was used.
    lab.started.process.kill();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    assert_eq!(redeem(&lab, "crm", &genuine).await.json(), no("made_before_this_start"));
}

#[tokio::test]
async fn orders_of_administrators_are_exact_or_refused() {
    let lab = Lab::start(World::new().await).await;
    let token = lab.token(&Key::es256()).await;
    let said = claims(&token);
    let (sub, jti, txn) = (&said["sub"], &said["jti"], &said["txn"]);
    for order in [
        json!({}),
        json!([]),
        json!("alice"),
        json!({ "person": "alice" }),
        json!({ "person": "" }),
        json!({ "person": 7 }),
        json!({ "person": format!("{} ", sub.as_str().unwrap()) }),
        json!({ "person": jti }),
        json!({ "token": sub }),
        json!({ "token": token }),
        json!({ "transaction": jti }),
        json!({ "person": sub, "token": jti }),
        json!({ "person": sub, "reason": "left" }),
        json!({ "client": "desk" }),
    ] {
        for method in ["POST", "DELETE"] {
            let answer = lab.world.order(method, "/admin/revocations", &order).await;
            refused(&answer, 400, "invalid_request", &format!("{method} {order}"));
        }
    }
    // What was revoked one by one stays so.
    for order in [json!({ "token": jti }), json!({ "transaction": txn })] {
        let answer = lab.world.order("DELETE", "/admin/revocations", &order).await;
        refused(&answer, 400, "invalid_request", &order.to_string());
    }
    let get = lab.world.order("GET", "/admin/revocations", &json!({})).await;
    refused(&get, 405, "invalid_request", "GET");
    assert_eq!(get.header("allow"), Some("POST,DELETE"));
    let mut page = Request::get("/admin/keys");
    page.headers.push(("origin".into(), "https://evil.example".into()));
    refused(
        &lab.world.administration.send(&page).await.unwrap(),
        403,
        "access_denied",
        "a page in a browser",
    );
    for path in ["/admin/log?from=x", "/admin/log?offset=1"] {
        let answer = lab.world.administration.send(&Request::get(path)).await.unwrap();
        refused(&answer, 400, "invalid_request", path);
    }
    for path in ["/admin/revocations", "/admin/log", "/admin/keys", "/log/checkpoint", "/metrics"] {
        let answer = lab.world.door.send(&Request::get(path)).await.unwrap();
        refused(&answer, 404, "not_found", path);
        let answer = lab.world.observation.send(&Request::get("/admin/keys")).await.unwrap();
        refused(&answer, 404, "not_found", "administration is on its socket");
    }
    assert!(ask_for(&lab, "alice").await.is_ok(), "nothing of all that disabled anybody");
}

#[tokio::test]
async fn a_person_is_disabled_and_enabled_at_once_and_through_every_restart() {
    let mut lab = Lab::start(World::new().await).await;
    let (leaver, stayer) = (format!("leaver-{}", unique()), format!("stayer-{}", unique()));
    let [left, stays] = [ask_for(&lab, &leaver).await.unwrap(), ask_for(&lab, &stayer).await.unwrap()];
    let person = json!({ "person": claims(&left)["sub"] });
    let order = async |lab: &Lab, method: &str, order: &Value| {
        let answer = lab.world.order(method, "/admin/revocations", order).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    order(&lab, "POST", &person).await;
    order(&lab, "POST", &json!({ "token": claims(&stays)["jti"] })).await;
    assert_eq!(ask_for(&lab, &leaver).await.unwrap_err(), "invalid_request");

    let log_alone = [false, true];
    for without_store in log_alone {
        restart(&mut lab, without_store).await;
        assert_eq!(ask_for(&lab, &leaver).await.unwrap_err(), "invalid_request", "{without_store}");
        assert!(ask_for(&lab, &stayer).await.is_ok());
        assert!(!is_active(&lab, &stays).await, "a revoked token stays so: {without_store}");
    }
    order(&lab, "DELETE", &person).await;
    assert!(ask_for(&lab, &leaver).await.is_ok(), "enabled at once");
    for without_store in log_alone {
        restart(&mut lab, without_store).await;
        assert!(ask_for(&lab, &leaver).await.is_ok(), "{without_store}");
        assert!(!is_active(&lab, &stays).await, "{without_store}");
    }
    order(&lab, "POST", &person).await;
    restart(&mut lab, true).await;
    assert_eq!(ask_for(&lab, &leaver).await.unwrap_err(), "invalid_request", "the last word counts");
    let (entries, _) = lab.world.log(0).await;
    let about_leaver: Vec<_> = entries
        .iter()
        .filter(|entry| entry["revoked"] == json!([person]))
        .map(|entry| entry["kind"].as_str().unwrap())
        .collect();
    assert_eq!(about_leaver, ["revocation", "lifted", "revocation"]);
}

#[tokio::test]
async fn every_refusal_has_an_id_that_explain_knows_something_about() {
    let lab = Lab::start(World::new().await).await;
    // Before the client is authenticated: counted.
    let mut stranger = lab.honest(&Key::es256()).await;
    stranger.set("client_assertion", &Key::es256().token("JWT", &lab.assertion_claims("desk")));
    let counted = lab.send(&stranger).await.json()["decision_id"].as_str().unwrap().to_owned();
    // Misuse by a client that is known: recorded.
    let mut exchange = lab.honest(&Key::es256()).await;
    token_of(&lab.send(&exchange).await);
    exchange.set("client_assertion", &lab.assertion("desk"));
    let misused = lab.send(&exchange).await.json()["decision_id"].as_str().unwrap().to_owned();
    // Of the door.
    let lost = lab.world.door.send(&Request::get("/nowhere")).await.unwrap().json()["decision_id"].clone();
    // Counts are written once a second.
    let written = async || {
        let (entries, _) = lab.world.log(0).await;
        entries.iter().any(|entry| entry["reason"] == "assertion_signature")
    };
    while !written().await {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    lab.world.recorded().await;
    let data = lab.world.folder().join("data");
    let explain = |id: &str| process::run(&["explain", id, "--data", data.to_str().unwrap()]);
    let (known, story, _) = explain(&misused);
    assert!(known && story.contains("denied") && story.contains("proof_replayed"), "{story}");
    let (known, _, said) = explain(&counted);
    assert!(!known && said.contains("1 × assertion_signature"), "{said}");
    let (known, _, said) = explain(lost.as_str().unwrap());
    assert!(!known && said.contains("no record of decision"), "{said}");
}

/// A refusal in the form that all have.
fn refused(answer: &Response, status: u16, code: &str, what: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["error"].as_str()), (status, Some(code)), "{what}: {body}");
    assert!(body["error_description"].is_string() && body["error_uri"].is_string(), "{what}: {body}");
    assert_eq!(body["decision_id"].as_str(), answer.header("x-request-id"), "{what}: {body}");
}

/// What `about` of these parameters says to this client.
async fn about(lab: &Lab, path: &str, client: &str, parameters: &[(&str, &str)]) -> Response {
    let mut exchange: Exchange = lab.template(client, "none");
    exchange.at("POST", path).form.retain(|(name, _)| name.starts_with("client_"));
    for (name, value) in parameters {
        exchange.set(name, value);
    }
    lab.send(&exchange).await
}

async fn redeem(lab: &Lab, client: &str, token: &str) -> Response {
    about(lab, "/redeem", client, &[("token", token)]).await
}

async fn is_active(lab: &Lab, token: &str) -> bool {
    about(lab, "/introspect", "crm", &[("token", token)]).await.json()["active"] == true
}

/// A token for a next hop in this person's name, or the error's code.
async fn ask_for(lab: &Lab, user: &str) -> Result<String, String> {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", &lab.world.user_token(user));
    let answer = lab.send(&exchange).await;
    answer.error_code().map_or_else(|| Ok(token_of(&answer)), Err)
}

/// Kills the broker and starts it again, perhaps without its store of revocations.
async fn restart(lab: &mut Lab, without_store: bool) {
    lab.started.process.kill();
    if without_store {
        std::fs::remove_file(lab.world.folder().join("data/facts.redb")).unwrap();
    }
    lab.started = lab.world.start_again(&lab.world.config()).await;
}

/// The clients that misused a token, and how.
async fn misuses(lab: &Lab) -> Vec<(String, String)> {
    lab.world.recorded().await;
    let (entries, _) = lab.world.log(0).await;
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let denials = entries.iter().filter(|entry| entry["kind"] == "denial" && entry["jti"].is_string());
    denials
        .map(|denial| {
            assert!(denial["decision"].is_string(), "{denial}");
            (text(denial, "client"), text(denial, "reason"))
        })
        .collect()
}
