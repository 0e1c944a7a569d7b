//! What goes out: parameters, credentials, proofs, nonces.

use super::stub::*;
use crate::*;
use deputize_call::{
    dpop,
    jws::{self, EmbeddedKey},
    keys::KeySet,
};
use serde_json::{Value, json};

#[tokio::test]
async fn an_exchange_says_who_for_whom_and_what() {
    let stub = Stub::start().await;
    let signing = key();
    let keys = KeySet::new(vec![signing.public().clone()]);
    let client = stub.client().private_key_jwt(signing).build().unwrap();
    stub.will(Answer::token("t", json!({})));
    let asked = request()
        .subject_token_type(TokenType::IdToken)
        .actor_token("actor.jwt", TokenType::Jwt)
        .scope("tool:refund")
        .transaction("txn-0")
        .model("m")
        .call("refund", json!({ "amount": 1 }));
    let token = client.exchange(&asked).await.unwrap();
    assert_eq!((token.access_token(), token.transaction_id(), token.decision_id()), ("t", "txn-1", "dec-1"));
    assert_eq!(*token.authorization(), "DPoP t");

    let sent = stub.asked().remove(0);
    assert_eq!(sent.line, "POST /token HTTP/1.1");
    assert_eq!(sent.headers["content-type"], "application/x-www-form-urlencoded");
    for (name, value) in [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "user.jwt.canary"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ("actor_token", "actor.jwt"),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("resource", RESOURCE),
        ("scope", "tool:refund"),
        ("transaction_id", "txn-0"),
        ("model", "m"),
        ("client_id", "agent"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
    ] {
        assert_eq!(sent.form[name], value, "{name}");
    }
    let details: Value = serde_json::from_str(&sent.form["authorization_details"]).unwrap();
    let expected = json!([{ "type": "mcp_tool_call", "locations": [RESOURCE], "actions": ["tools/call"],
        "identifier": "refund", "arguments": { "amount": 1 } }]);
    assert_eq!(details, expected);

    let assertion = jws::parse(&sent.form["client_assertion"], EmbeddedKey::Refused).unwrap();
    keys.verify(&assertion).unwrap();
    for (claim, value) in
        [("iss", json!("agent")), ("sub", json!("agent")), ("aud", json!(stub.issuer)), ("iat", json!(NOW))]
    {
        assert_eq!(assertion.claims[claim], value);
    }
    assert_eq!(assertion.claims["exp"], json!(NOW + 60));
}

#[tokio::test]
async fn a_nonce_is_fetched_once_with_the_same_assertion_and_then_kept() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(Answer::error(400, "use_dpop_nonce").header("DPoP-Nonce", "n1"))
        .will(Answer::token("t", json!({})).header("dpop-nonce", "n2"))
        .will(Answer::token("t", json!({})));
    let call = || request().call("refund", json!({}));
    client.exchange(&call()).await.unwrap();
    client.exchange(&call()).await.unwrap();

    let sent = stub.asked();
    assert_eq!(sent[0].form["client_assertion"], sent[1].form["client_assertion"]);
    assert_ne!(sent[1].form["client_assertion"], sent[2].form["client_assertion"]);
    let mut ids = std::collections::BTreeSet::new();
    for (asked, nonce) in sent.iter().zip([None, Some("n1"), Some("n2")]) {
        let proof = dpop::parse(&asked.headers["dpop"]).unwrap();
        assert_eq!(proof.nonce(), nonce);
        let expected = dpop::Expected {
            htm: "POST",
            htu: &format!("{}/token", stub.issuer),
            access_token: None,
            jkt: Some(client.dpop_public_key().thumbprint()),
            now_seconds: NOW,
            window_seconds: 0,
        };
        assert!(ids.insert(proof.verify(&expected).unwrap().jti), "each proof has its own id");
    }
}

#[tokio::test]
async fn a_second_challenge_is_an_error_and_no_loop() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(Answer::error(400, "use_dpop_nonce").header("DPoP-Nonce", "n1"))
        .will(Answer::error(400, "use_dpop_nonce").header("DPoP-Nonce", "n2"));
    let refused = client.exchange(&request()).await;
    assert!(matches!(refused, Err(ExchangeError::InvalidProof(_))), "{refused:?}");
    assert_eq!(stub.asked().len(), 2);
}

#[tokio::test]
async fn a_bootstrap_secret_goes_in_the_body_and_nowhere_else() {
    let stub = Stub::start().await;
    let client = stub.client().bootstrap_secret("canary-secret").build().unwrap();
    stub.will(Answer::token("canary-token", json!({})));
    let token = client.exchange(&ExchangeRequest::own(RESOURCE)).await.unwrap();
    let sent = stub.asked().remove(0);
    assert_eq!(sent.form["client_secret"], "canary-secret");
    assert_eq!(sent.form["grant_type"], "client_credentials");
    for absent in ["client_assertion", "subject_token", "authorization_details"] {
        assert!(!sent.form.contains_key(absent), "{absent}");
    }
    let shown =
        format!("{client:?} {token:?} {:?} {:?}", stub.client().bootstrap_secret("canary-secret"), request());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_wait_asks_the_broker_to_hold_its_answer() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(Answer::token("t", json!({ "call_digest": "d" })));
    client.exchange(&request().call("refund", json!({})).approval("apr-1", Some(30))).await.unwrap();
    let sent = stub.asked().remove(0);
    assert_eq!((sent.form["approval_id"].as_str(), sent.headers["prefer"].as_str()), ("apr-1", "wait=30"));
}

#[test]
fn a_proof_names_request_token_and_nonce() {
    let client =
        Client::builder("https://deputize.example.com", "agent").private_key_jwt(key()).build().unwrap();
    let header = client.proof_for("POST", RESOURCE, "token", Some("n")).unwrap();
    let now_seconds = SystemClock::new().now_seconds();
    let expected = |access_token| dpop::Expected {
        htm: "POST",
        htu: RESOURCE,
        access_token: Some(access_token),
        jkt: Some(client.dpop_public_key().thumbprint()),
        now_seconds,
        window_seconds: 60,
    };
    assert_eq!(dpop::parse(&header).unwrap().nonce(), Some("n"));
    assert!(dpop::parse(&header).unwrap().verify(&expected("token")).is_ok());
    assert!(dpop::parse(&header).unwrap().verify(&expected("another")).is_err());
}

#[tokio::test]
async fn introspection_revocation_and_redemption() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(Answer::json(200, json!({ "active": true, "sub": "alice" })));
    let known = client.introspect("t").await.unwrap();
    assert!(known.active);
    assert_eq!(known.members["sub"], "alice");
    stub.will(Answer::json(200, json!({ "active": "yes" })));
    assert!(matches!(client.introspect("t").await, Err(ExchangeError::Protocol(_))));
    stub.will(Answer::raw(200, Vec::new()));
    client.revoke("t").await.unwrap();
    for (answer, expected) in [
        (json!({ "redeemed": true }), Redemption::Redeemed),
        (json!({ "redeemed": false, "reason": "already_used" }), Redemption::AlreadyUsed),
        (json!({ "redeemed": false, "reason": "revoked" }), Redemption::Revoked),
        (json!({ "redeemed": false }), Redemption::Revoked),
    ] {
        stub.will(Answer::json(200, answer));
        assert_eq!(client.redeem("t").await, Ok(expected));
    }
    stub.will(Answer::json(200, json!({})));
    assert!(matches!(client.redeem("t").await, Err(ExchangeError::Protocol(_))));
    stub.will(Answer::error(503, "temporarily_unavailable"));
    assert!(matches!(client.redeem("t").await, Err(ExchangeError::Unavailable { .. })));

    let sent = stub.asked();
    let lines: Vec<&str> = sent.iter().map(|asked| asked.line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(lines[..4], ["/introspect", "/introspect", "/revoke", "/redeem"]);
    assert!(
        sent.iter().all(|asked| asked.form["token"] == "t" && asked.form.contains_key("client_assertion"))
    );
}
