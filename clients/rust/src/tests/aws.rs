//! AWS credentials: what is asked, and what is taken for an answer.

use super::stub::*;
use crate::*;
use serde_json::{Value, json};

fn answered() -> Value {
    json!({ "Version": 1, "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "canary/secret+", "SessionToken": "canary\"\\tok==",
        "Expiration": "2026-11-22T01:02:03Z", "AccountId": "111122223333", "decision_id": "dec-9" })
}

fn json_answer(status: u16, body: Value) -> Answer {
    Answer::json(status, body).header("content-type", "application/json; charset=utf-8")
}

fn arguments() -> deputize_call::json::Object {
    json!({ "instance_id": "i-0123456789abcdef0" }).as_object().unwrap().clone()
}

async fn asked(stub: &Stub, answer: Answer) -> Result<AwsCredentials, ExchangeError> {
    let client = stub.client().build().unwrap();
    stub.will(answer);
    client.aws_credentials(&AwsAsk::new("canary.token", &arguments())).await
}

#[tokio::test]
async fn they_are_asked_for_the_call_that_runs_in_the_servers_name() {
    let stub = Stub::start().await;
    let got = asked(&stub, json_answer(200, answered())).await.unwrap();
    assert_eq!((got.access_key_id(), got.secret_access_key()), ("ASIAEXAMPLE", "canary/secret+"));
    assert_eq!((got.session_token(), got.account_id()), ("canary\"\\tok==", Some("111122223333")));
    assert_eq!((got.expires_at_seconds(), got.decision_id()), (1_795_309_323, Some("dec-9")));

    let sent = stub.asked().remove(0);
    assert_eq!(
        (sent.line.as_str(), sent.headers["accept"].as_str()),
        ("POST /aws/credentials HTTP/1.1", "application/json")
    );
    assert_eq!(sent.form["subject_token"], "canary.token");
    assert_eq!(sent.form["subject_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(sent.form["arguments"], r#"{"instance_id":"i-0123456789abcdef0"}"#);
    assert_eq!(sent.form["client_id"], "agent");
    assert!(sent.form.contains_key("client_assertion") && !sent.headers.contains_key("dpop"));
    for absent in ["input_responses", "request_state", "template"] {
        assert!(!sent.form.contains_key(absent), "{absent}");
    }

    let client = stub.client().build().unwrap();
    let (arguments, responses, state) = (arguments(), json!({ "q": { "action": "accept" } }), json!("st"));
    let steered = AwsAsk::new("t", &arguments).steered_by(Some(&responses), Some(&state)).template("restart");
    stub.will(json_answer(200, answered()));
    client.aws_credentials(&steered).await.unwrap();
    let sent = stub.asked().remove(0);
    assert_eq!(sent.form["input_responses"], r#"{"q":{"action":"accept"}}"#);
    assert_eq!((sent.form["request_state"].as_str(), sent.form["template"].as_str()), (r#""st""#, "restart"));
}

#[tokio::test]
async fn they_are_written_as_sdks_read_them_and_never_shown() {
    let stub = Stub::start().await;
    let got = asked(&stub, json_answer(200, answered())).await.unwrap();
    let process: Value = serde_json::from_str(&got.to_process_json()).unwrap();
    let mut expected = answered();
    expected.as_object_mut().unwrap().remove("decision_id");
    assert_eq!(process, expected);
    let container: Value = serde_json::from_str(&got.to_container_json()).unwrap();
    let token = expected["SessionToken"].take();
    let members = expected.as_object_mut().unwrap();
    members.retain(|name, _| !matches!(name.as_str(), "Version" | "SessionToken"));
    members.insert("Token".to_owned(), token);
    assert_eq!(container, expected);
    let again = AwsCredentials::from_json(got.to_container_json().as_bytes()).unwrap();
    assert_eq!((&again.to_process_json(), again.decision_id()), (&got.to_process_json(), None));
    let shown = format!("{got:?} {:?}", AwsAsk::new("canary.token", &arguments()));
    assert!(shown.contains("dec-9") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    let stub = Stub::start().await;
    for (member, value) in [
        ("Version", json!(2)),
        ("AccessKeyId", json!("")),
        ("SecretAccessKey", json!("two words")),
        ("SessionToken", json!("line\nbreak")),
        ("SessionToken", json!("x".repeat(20_000))),
        ("Expiration", json!("tomorrow")),
        ("AccountId", json!("a b")),
        ("decision_id", json!(1)),
    ] {
        let mut answer = answered();
        answer[member] = value;
        let error = asked(&stub, json_answer(200, answer)).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Protocol(_)), "{member}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    for answer in [
        Answer::json(200, answered()),
        Answer::json(200, answered()).header("content-type", "text/html"),
        Answer::raw(200, vec![b' '; 300_000]).header("content-type", "application/json"),
        Answer::raw(200, b"a.b.c.d.e".to_vec()).header("content-type", "application/jose"),
    ] {
        assert!(matches!(asked(&stub, answer).await, Err(ExchangeError::Protocol(_))));
    }
}

#[tokio::test]
async fn refusals_keep_their_kind() {
    let stub = Stub::start().await;
    let denied = asked(&stub, Answer::error(400, "access_denied")).await;
    assert!(matches!(&denied, Err(ExchangeError::AccessDenied { .. })), "{denied:?}");
    let throttled =
        asked(&stub, Answer::error(503, "temporarily_unavailable").header("retry-after", "4")).await;
    assert!(
        matches!(throttled, Err(ExchangeError::Unavailable { retry_after_seconds: Some(4), .. })),
        "{throttled:?}"
    );
    let none = asked(&stub, Answer::json(404, json!({}))).await;
    assert!(matches!(none, Err(ExchangeError::Refused { status: 404, .. })), "{none:?}");
}

#[tokio::test]
async fn with_a_decryption_key_only_a_sealed_answer_is_taken() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/vectors/sealed.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let key = || DecryptionKey::from_private_jwk(vectors["keys"]["ec"].as_object().unwrap()).unwrap();
    let stub = Stub::start().await;
    let client = stub.client().decryption_key(key()).build().unwrap();
    let arguments = arguments();
    let ask = AwsAsk::new("t", &arguments);
    stub.will(json_answer(200, answered()));
    assert!(matches!(client.aws_credentials(&ask).await, Err(ExchangeError::Protocol(_))), "not sealed");
    assert_eq!(stub.asked()[0].headers["accept"], "application/jose");
    for (group, jwe) in [("opened", "ECDH-ES+A256KW"), ("refused", "another key")] {
        let jwe = vectors[group][jwe].as_str().unwrap();
        stub.will(Answer::raw(200, jwe.into()).header("content-type", "application/jose"));
        let got = client.aws_credentials(&ask).await;
        assert_eq!(got.is_ok(), group == "opened", "{got:?}");
    }
    // A refusal has no secrets in it, and is not sealed.
    stub.will(Answer::error(400, "access_denied"));
    assert!(matches!(client.aws_credentials(&ask).await, Err(ExchangeError::AccessDenied { .. })));
}
