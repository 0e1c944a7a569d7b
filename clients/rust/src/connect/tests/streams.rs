//! Streams, and requests side by side.

use super::world::*;
use crate::connect::ConnectSettings;
use serde_json::{Value, json};
use std::time::Duration;

fn event(message: &Value) -> String {
    format!("data: {message}")
}

fn answer(id: &Value, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": text }] } })
}

fn progress() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": 1, "progress": 1 } })
}

fn question() -> Value {
    json!({ "jsonrpc": "2.0", "id": 77, "method": "roots/list" })
}

#[tokio::test]
async fn what_comes_before_the_answer_is_passed_on_and_responses_go_back() {
    let world = World::start().await;
    world.remote(|seen| {
        let id = &seen.body["id"];
        let foreign = json!({ "jsonrpc": "2.0", "id": 999, "result": {} });
        let events = [&progress(), &foreign, &question(), &answer(id, "done")].map(event);
        (seen.body["method"] == "tools/call").then(|| Reply::events(&events))
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    local.say(&call(1, "lookup", json!({}))).await;
    assert_eq!(local.hear().await, progress());
    assert_eq!(local.hear().await, question(), "and not the answer to what nobody asked");
    assert_eq!(local.hear().await["id"], 1);
    let response = json!({ "jsonrpc": "2.0", "id": 77, "result": { "roots": [] } });
    local.say(&response).await;
    until(|| world.seen("POST").iter().any(|seen| seen.body == response)).await;

    // In later versions servers ask in their results alone.
    local.say(&call_alone(2, "lookup", json!({}), json!({}))).await;
    assert_eq!(local.hear().await, progress());
    assert_eq!(local.hear().await["id"], 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_resumed_where_it_was() {
    let world = World::start().await;
    world.remote(|seen| match (seen.method.as_str(), seen.body["method"].as_str()) {
        (_, Some("tools/call")) => {
            let first = [format!("id: e1\nretry: 1\ndata: {}", progress())];
            Some(Reply::events(&first))
        }
        ("GET", _) if seen.headers.get("last-event-id").is_some_and(|id| id == "e1") => {
            Some(Reply::events(&[event(&answer(&json!(1), "late"))]))
        }
        _ => None,
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    local.say(&call(1, "lookup", json!({}))).await;
    assert_eq!(local.hear().await, progress());
    assert_eq!(local.hear().await["result"]["content"][0]["text"], "late");

    // Without a session nothing can be resumed: whether it ran nobody can tell.
    let lost = local.ask(&call_alone(2, "lookup", json!({}), json!({}))).await;
    assert_eq!(lost, progress());
    let lost = local.hear().await;
    assert!(lost["error"]["message"].as_str().unwrap().contains("may have run"), "{lost}");
}

#[tokio::test]
async fn what_the_server_says_unasked_comes_through() {
    let world = World::start().await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    let said = changed.clone();
    world.remote(move |seen| (seen.method == "GET").then(|| Reply::events(&[event(&said)]).hanging()));
    let mut local = world.local();
    local.initialize(json!({})).await;
    // The stream begins after the next message.
    local.say(&json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" })).await;
    assert_eq!(local.hear().await, changed);
    let listening = world.seen("GET").remove(0);
    assert_eq!(listening.headers["mcp-session-id"], "session-1");
    assert!(listening.headers["authorization"].starts_with("DPoP token-canary-"));
    until(|| world.seen("notifications/roots/list_changed").len() == 1).await;
}

#[tokio::test]
async fn one_slow_call_holds_no_other_and_can_be_cancelled() {
    let world = World::start().await;
    world.remote(|seen| {
        let is_slow = seen.body["params"]["arguments"]["slow"] == true;
        is_slow.then(|| Reply::events(&[event(&progress())]).hanging())
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    local.say(&call("slow", "lookup", json!({ "slow": true }))).await;
    assert_eq!(local.hear().await, progress());
    let twice = local.ask(&call("slow", "lookup", json!({}))).await;
    assert!(twice["error"]["message"].as_str().unwrap().contains("has its id"), "{twice}");
    assert_eq!(local.ask(&call(2, "lookup", json!({}))).await["id"], 2);
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "slow" } });
    local.say(&cancel).await;
    until(|| world.seen("notifications/cancelled").len() == 1).await;
    assert_eq!(world.seen("notifications/cancelled")[0].body, cancel);
    assert_eq!(local.ask(&call("slow", "lookup", json!({}))).await["id"], "slow", "its id is free again");

    // In later versions to close the stream is to cancel, and nothing is said.
    local.say(&call_alone(5, "lookup", json!({ "slow": true }), json!({}))).await;
    assert_eq!(local.hear().await, progress());
    local
        .say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } }))
        .await;
    assert_eq!(local.ask(&call(5, "lookup", json!({}))).await["id"], 5);
    assert_eq!(world.seen("notifications/cancelled").len(), 1);
}

#[tokio::test]
async fn there_is_room_for_many_requests_but_not_for_endlessly_many() {
    let world = World::start().await;
    world.remote(|seen| (seen.body["method"] == "x").then(|| Reply::events(&[]).hanging()));
    let mut local = world.local();
    for id in 0..64 {
        local.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "x" })).await;
    }
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 64, "method": "x" })).await;
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("too many")
            || answer["error"]["message"].as_str().unwrap().contains("Too many"),
        "{answer}"
    );
    assert_eq!(answer["id"], 64);
}

#[tokio::test]
async fn a_server_that_takes_too_long_is_left_and_told() {
    let world = World::start().await;
    world.remote(|seen| (seen.body["method"] == "tools/call").then(|| Reply::events(&[]).hanging()));
    let settings = ConnectSettings { request_timeout: Duration::from_millis(1500), ..world.settings() };
    let mut local = world.local_of(world.connector(settings));
    local.initialize(json!({})).await;
    let answer = local.ask(&call(1, "lookup", json!({}))).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("in time"), "{answer}");
    until(|| world.seen("notifications/cancelled").len() == 1).await;
    assert_eq!(world.seen("notifications/cancelled")[0].body["params"]["requestId"], 1);
}
