//! What may serve again, for how long, and what never.

use super::stub::*;
use crate::*;
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};

fn tool() -> ExchangeRequest {
    request().detail(Detail::Tool { name: "lookup".into() })
}

async fn names(client: &Client, asked: &[ExchangeRequest]) -> Vec<String> {
    let mut names = Vec::new();
    for each in asked {
        names.push(client.exchange(each).await.unwrap().access_token().to_owned());
    }
    names
}

fn will(stub: &Stub, names: &[&str], detail: Value) {
    for name in names {
        stub.will(Answer::token(name, detail.clone()));
    }
}

#[tokio::test]
async fn the_same_question_has_the_same_answer_until_shortly_before_it_expires() {
    let stub = Stub::start().await;
    let clock = Arc::new(TestClock::default());
    let client = stub.client().clock(clock.clone()).build().unwrap();
    will(&stub, &["a", "b"], json!({}));
    assert_eq!(names(&client, &[tool(), tool()]).await, ["a", "a"]);
    clock.passed_seconds.store(54, Ordering::Relaxed);
    assert_eq!(names(&client, &[tool()]).await, ["a"]);
    clock.passed_seconds.store(55, Ordering::Relaxed);
    assert_eq!(names(&client, &[tool()]).await, ["b"]);
}

#[tokio::test]
async fn every_part_of_the_question_counts() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    let asked = [
        tool(),
        request(),
        ExchangeRequest::new(RESOURCE, "another.user.jwt").detail(Detail::Tool { name: "lookup".into() }),
        ExchangeRequest::new("https://other.example.com/mcp", "user.jwt.canary"),
        request().detail(Detail::Tool { name: "other".into() }),
        tool().scope("tool:lookup"),
        tool().transaction("txn-9"),
        ExchangeRequest::own(RESOURCE),
    ];
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    will(&stub, &all, json!({}));
    assert_eq!(names(&client, &asked).await, all);
    assert_eq!(names(&client, &asked).await, all);
}

#[tokio::test]
async fn a_token_for_one_call_never_serves_again() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    will(&stub, &["a", "b"], json!({ "call_digest": "d", "max_uses": 1 }));
    let call = || request().call("refund", json!({}));
    assert_eq!(names(&client, &[call(), call()]).await, ["a", "b"]);
    // Even where less was asked for than was granted.
    will(&stub, &["c", "d"], json!({ "call_digest": "d" }));
    assert_eq!(names(&client, &[tool(), tool()]).await, ["c", "d"]);
    // And not where a person had to be waited for.
    will(&stub, &["e", "f"], json!({}));
    let waited = || request().detail(Detail::Tool { name: "x".into() }).approval("apr", None);
    assert_eq!(names(&client, &[waited(), waited()]).await, ["e", "f"]);
}

#[tokio::test]
async fn a_token_serves_as_often_as_it_may() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    will(&stub, &["a", "b"], json!({ "max_uses": 3 }));
    assert_eq!(names(&client, &[tool(), tool(), tool(), tool()]).await, ["a", "a", "a", "b"]);
    will(&stub, &["c", "d"], json!({ "max_uses": 1 }));
    assert_eq!(names(&client, &[request(), request()]).await, ["c", "d"]);
}

#[tokio::test]
async fn the_cache_is_bounded_and_can_be_off() {
    let stub = Stub::start().await;
    let client = stub.client().cache_capacity(1).build().unwrap();
    will(&stub, &["a", "b", "c"], json!({}));
    assert_eq!(names(&client, &[tool(), request(), request(), tool()]).await, ["a", "b", "b", "c"]);
    let client = stub.client().cache_capacity(0).build().unwrap();
    will(&stub, &["d", "e"], json!({}));
    assert_eq!(names(&client, &[tool(), tool()]).await, ["d", "e"]);
}

#[tokio::test]
async fn what_is_revoked_or_forgotten_is_gone() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    will(&stub, &["a"], json!({}));
    let token = client.exchange(&tool()).await.unwrap();
    client.forget(&token);
    will(&stub, &["b"], json!({}));
    assert_eq!(names(&client, &[tool()]).await, ["b"]);
    stub.will(Answer::raw(200, Vec::new()));
    client.revoke("b").await.unwrap();
    will(&stub, &["c"], json!({}));
    assert_eq!(names(&client, &[tool()]).await, ["c"]);
}

#[tokio::test]
async fn an_error_is_not_remembered() {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(Answer::error(503, "temporarily_unavailable"));
    assert!(client.exchange(&tool()).await.is_err());
    will(&stub, &["a"], json!({}));
    assert_eq!(names(&client, &[tool()]).await, ["a"]);
}
