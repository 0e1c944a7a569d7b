//! Streams of changes (MCP 2026-07-28): what is subscribed to, what is heard, and when it ends.

use super::bench::{Bench, Got};
use crate::{Revocation, tests::fixture::*};
use axum::body::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

const HEADERS: [(&str, &str); 2] =
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];

fn listen() -> Value {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {} });
    let asked =
        json!({ "toolsListChanged": true, "resourceSubscriptions": ["file:///etc/passwd"], "other": 1 });
    json!({ "jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen",
        "params": { "_meta": meta, "notifications": asked } })
}

fn event(message: &Value) -> Bytes {
    format!("data: {message}\n\n").into()
}

fn note(method: &str) -> Value {
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": 7 });
    json!({ "jsonrpc": "2.0", "method": format!("notifications/{method}"), "params": { "_meta": meta } })
}

async fn listening(bench: &Bench) -> Got {
    bench.granted(l0(), &HEADERS, &listen()).await
}

#[tokio::test]
async fn only_that_lists_changed_is_asked_for_and_heard() {
    let bench = Bench::with(true, |_| {}).await;
    let end = json!({ "jsonrpc": "2.0", "id": 7, "result": { "resultType": "complete" } });
    let said = [
        note("subscriptions/acknowledged"),
        note("message"),
        note("tools/list_changed"),
        note("resources/updated"),
        json!({ "jsonrpc": "2.0", "id": "s", "method": "elicitation/create", "params": {} }),
        end.clone(),
        note("tools/list_changed"),
    ];
    let saying = async {
        let stream = bench.server.live_stream().await;
        for message in &said {
            // It may have ended by then.
            let _ = stream.send(event(message)).await;
        }
    };
    let (got, ()) = tokio::join!(listening(&bench), saying);
    assert_eq!(got.events(), [said[0].clone(), said[2].clone(), end], "{}", got.text);
    let [(_, asked)] = bench.server.asked_of("subscriptions/listen").try_into().unwrap();
    assert_eq!(asked["params"]["notifications"], json!({ "toolsListChanged": true }));
    for (grant, status) in [(l1("lookup"), 403), (l3("lookup", &json!({})), 403)] {
        assert_eq!(bench.granted(grant, &HEADERS, &listen()).await.status, status);
    }
    let mut nothing = listen();
    nothing["params"]["notifications"] = Value::Null;
    assert_eq!(bench.granted(l0(), &HEADERS, &nothing).await.status, 400);
}

#[tokio::test]
async fn a_subscription_ends_with_what_its_token_stood_for() {
    for (person, heard) in
        [("user:acme:x:bob", "notifications/tools/list_changed"), ("user:acme:x:alice", "")]
    {
        let bench = Bench::with(true, |_| {}).await;
        let saying = async {
            let stream = bench.server.live_stream().await;
            let revocation = Revocation::Person { sub: person.to_owned() };
            bench.proxy.guard().revoke(revocation, Duration::from_secs(1000));
            stream.send(event(&note("tools/list_changed"))).await.unwrap();
            // The server keeps the stream of who is revoked open for as long as it likes.
            heard.is_empty().then_some(stream)
        };
        let (got, _open) = tokio::join!(listening(&bench), saying);
        let events = got.events();
        assert_eq!(events[0]["method"].as_str().unwrap_or_default(), heard, "{person}");
        let last = events.last().unwrap();
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(7), &json!("complete")), "{last}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_it_at_the_server() {
    let bench = Bench::with(true, |_| {}).await;
    let stream = tokio::select! {
        got = listening(&bench) => panic!("it goes on: {got:?}"),
        stream = async {
            let stream = bench.server.live_stream().await;
            stream.send(event(&note("subscriptions/acknowledged"))).await.unwrap();
            stream
        } => stream,
    };
    tokio::time::timeout(Duration::from_secs(5), stream.closed()).await.expect("the server hears of it");
}
