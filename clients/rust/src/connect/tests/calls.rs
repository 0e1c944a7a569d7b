//! What goes to the server, and with which token.

use super::world::*;
use crate::connect::{ConnectSettings, Level};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

#[tokio::test]
async fn each_call_has_a_token_of_its_own_and_listing_shares_one() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    let listed = local.ask(&json!({ "jsonrpc": "2.0", "id": "list", "method": "tools/list" })).await;
    assert_eq!((&listed["id"], listed["result"]["tools"].as_array().unwrap().len()), (&json!("list"), 2));
    for id in [1, 2] {
        let answer = local.ask(&call(id, "lookup", json!({ "n": 7 }))).await;
        assert_eq!(
            (&answer["id"], &answer["result"]["content"][0]["text"]),
            (&json!(id), &json!("{\"n\":7}"))
        );
    }

    let asked = world.asked();
    assert_eq!(asked.len(), 3, "one for listing, one for each call");
    for form in &asked[1..] {
        assert_eq!(form["transaction_id"], "txn-1", "all in the first one's transaction");
        let detail: Value = serde_json::from_str(&form["authorization_details"]).unwrap();
        assert_eq!(detail[0]["arguments"], json!({ "n": 7 }));
    }
    let calls = world.seen("tools/call");
    assert_eq!(calls[0].headers["authorization"], "DPoP token-canary-2");
    assert_eq!(calls[1].headers["authorization"], "DPoP token-canary-3");
    assert_eq!(world.seen("tools/list")[0].headers["authorization"], "DPoP token-canary-1");
    for seen in &calls {
        assert_eq!(seen.headers["mcp-session-id"], "session-1");
        assert_eq!(seen.headers["mcp-protocol-version"], "2025-11-25");
        assert!(!seen.headers.contains_key("mcp-method"), "a later version's");
    }
    assert!(!local.heard.contains("canary"), "no token comes to the local client");
    local.leave().await;
    let ended = world.seen("DELETE");
    assert_eq!(ended[0].headers["mcp-session-id"], "session-1");
}

#[tokio::test]
async fn a_prompt_and_a_resource_have_tokens_of_their_own() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    let uri = "file:///srv/a%20b.md";
    let get = json!({ "jsonrpc": "2.0", "id": 1, "method": "prompts/get",
        "params": { "name": "lookup", "arguments": { "city": "Bonn" } } });
    let read = json!({ "jsonrpc": "2.0", "id": 2, "method": "resources/read", "params": { "uri": uri } });
    for message in [&get, &read] {
        let answer = local.ask(message).await;
        assert_eq!((&answer["id"], answer.get("error")), (&message["id"], None), "{answer}");
    }
    let details: Vec<Value> = world.asked()[..]
        .iter()
        .filter_map(|form| {
            Some(serde_json::from_str::<Value>(form.get("authorization_details")?).unwrap()[0].clone())
        })
        .collect();
    let named = |detail: &Value| {
        (detail["actions"].clone(), detail["identifier"].clone(), detail["arguments"].clone())
    };
    assert_eq!(
        details.iter().map(named).collect::<Vec<_>>(),
        [
            (json!(["prompts/get"]), json!("lookup"), json!({ "city": "Bonn" })),
            (json!(["resources/read"]), json!(uri), json!({})),
        ]
    );
    let tokens = [world.seen("prompts/get"), world.seen("resources/read")]
        .map(|seen| seen[0].headers["authorization"].clone());
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(world.seen("resources/read")[0].body["params"]["uri"], uri, "as it was");

    // What is refused is an error: only a tool's result can say so to a model.
    world.broker(|form| {
        let asked = form.get("authorization_details").is_some_and(|detail| detail.contains("passwd"));
        asked.then(|| Reply::refusal(400, "invalid_authorization_details", None))
    });
    let outside = json!({ "jsonrpc": "2.0", "id": 3, "method": "resources/read", "params": { "uri": "file:///etc/passwd" } });
    let refused = local.ask(&outside).await;
    assert!(refused["error"]["code"].is_i64(), "{refused}");
    for params in [json!({}), json!({ "uri": 1 })] {
        let malformed = json!({ "jsonrpc": "2.0", "id": 4, "method": "resources/read", "params": params });
        assert!(local.ask(&malformed).await["error"].is_object());
    }
    assert_eq!(world.seen("resources/read").len(), 1, "nothing of it reached the server");
}

#[tokio::test]
async fn a_proof_is_for_its_token_and_is_made_anew_with_the_servers_nonce() {
    let world = World::start().await;
    world.remote(|seen| {
        let nonce = dpop_of(&seen.headers["dpop"]).nonce;
        (nonce.as_deref() != Some("n1")).then(|| {
            Reply::refusal(401, "use_dpop_nonce", None)
                .header("www-authenticate", "DPoP error=\"use_dpop_nonce\"")
                .header("dpop-nonce", "n1")
        })
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    local.ask(&call(1, "lookup", json!({}))).await;
    let calls = world.seen("tools/call");
    assert_eq!(calls.len(), 1, "the nonce was known by then");
    assert_eq!(world.seen("initialize").len(), 2);
    let [first, second] = [0, 1].map(|n| dpop_of(&world.seen("initialize")[n].headers["dpop"]));
    assert_ne!(first.jti, second.jti);
    assert_eq!((second.htm.as_str(), second.htu), ("POST", format!("{}/mcp", world.base)));
}

#[tokio::test]
async fn a_server_that_always_wants_another_nonce_is_asked_twice() {
    let world = World::start().await;
    world.remote(|_| {
        Some(
            Reply::refusal(401, "use_dpop_nonce", None)
                .header("www-authenticate", "DPoP error=\"use_dpop_nonce\"")
                .header("dpop-nonce", "n"),
        )
    });
    let mut local = world.local();
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("clock"), "{answer}");
    assert_eq!(world.seen("ping").len(), 2);
}

#[tokio::test]
async fn a_request_that_stands_alone_carries_its_metadata_in_headers() {
    let world = World::start().await;
    let mut local = world.local();
    local.ask(&call_alone(1, "lookup", json!({ "region": "Zürich" }), json!({}))).await;
    let seen = world.seen("tools/call").remove(0);
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "lookup"),
        ("mcp-param-region", "=?base64?WsO8cmljaA==?="),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    assert!(!seen.headers.contains_key("mcp-session-id"));
    let listed = world.seen("tools/list").remove(0);
    assert_eq!(listed.headers["mcp-method"], "tools/list");
    assert_eq!(listed.body["params"]["_meta"], seen.body["params"]["_meta"], "listed on its behalf");
    assert_eq!(world.seen("initialize").len(), 0);
}

#[derive(serde::Deserialize)]
struct Proof {
    jti: String,
    htm: String,
    htu: String,
    nonce: Option<String>,
}

/// The claims of a proof.
fn dpop_of(header: &str) -> Proof {
    let payload = URL_SAFE_NO_PAD.decode(header.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn at_level(world: &World, unknown_tools: Level) -> ConnectSettings {
    ConnectSettings { unknown_tools, ..world.settings() }
}

#[tokio::test]
async fn a_token_for_the_tool_serves_again_until_the_server_wants_a_tighter_one() {
    let world = World::start().await;
    let mut local = world.local_of(world.connector(at_level(&world, Level::L1)));
    local.initialize(json!({})).await;
    for id in [1, 2] {
        local.ask(&call(id, "lookup", json!({}))).await;
    }
    assert_eq!(world.asked_details().len(), 1, "for the tool, once");
    assert!(world.asked_details()[0].get("arguments").is_none());

    // The details that the server names are of another call: only the level is learned from them.
    world.remote(|seen| {
        let loose =
            seen.body["method"] == "tools/call" && seen.headers["authorization"] == "DPoP token-canary-3";
        let needed = json!([{ "identifier": "refund", "arguments": { "amount": 1_000_000 } }]);
        loose.then(|| Reply::refusal(403, "insufficient_scope", Some(needed)))
    });
    for id in [3, 4] {
        let answer = local.ask(&call(id, "refund", json!({ "amount": 5 }))).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
    }
    let refunds: Vec<_> =
        world.asked_details().into_iter().filter(|detail| detail["identifier"] == "refund").collect();
    let arguments: Vec<_> = refunds.iter().map(|detail| detail.get("arguments").cloned()).collect();
    let exact = Some(json!({ "amount": 5 }));
    assert_eq!(arguments, [None, exact.clone(), exact], "learned once");
    assert_eq!(world.seen("tools/call").len(), 5);
}

#[tokio::test]
async fn what_the_broker_says_of_levels_is_learned_too() {
    for (start, code, other) in
        [(Level::L1, "invalid_authorization_details", true), (Level::L3, "invalid_target", false)]
    {
        let world = World::start().await;
        world.broker(move |form| {
            let is_exact =
                form.get("authorization_details").is_some_and(|text| text.contains("\"arguments\""));
            (form.contains_key("authorization_details") && is_exact != other).then(|| Reply::denial(code))
        });
        let mut local = world.local_of(world.connector(at_level(&world, start)));
        local.initialize(json!({})).await;
        for id in [1, 2] {
            let answer = local.ask(&call(id, "lookup", json!({ "n": id }))).await;
            assert_eq!(answer["result"]["isError"], false, "{answer}");
        }
        let levels: Vec<_> =
            world.asked_details().iter().map(|detail| detail.get("arguments").is_some()).collect();
        // At L1 the second call uses the first one's token again.
        let expected = if other { vec![false, true, true] } else { vec![true, false] };
        assert_eq!(levels, expected);
    }
}

#[tokio::test]
async fn a_token_that_the_server_no_longer_takes_is_replaced_once() {
    let world = World::start().await;
    world.remote(|seen| {
        let first = seen.headers["authorization"] == "DPoP token-canary-2";
        first.then(|| Reply::refusal(401, "invalid_token", None))
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    let answer = local.ask(&call(1, "lookup", json!({}))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    assert_eq!(world.seen("tools/call").len(), 2);

    world.remote(|seen| {
        (seen.body["method"] == "tools/call").then(|| Reply::refusal(401, "invalid_token", None))
    });
    let answer = local.ask(&call(2, "lookup", json!({}))).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("because"), "{answer}");
    assert_eq!(world.seen("tools/call").len(), 4, "tried twice, not for ever");
}

#[tokio::test]
async fn a_session_that_the_server_lost_is_begun_anew_and_the_client_need_not_know() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({ "roots": {} })).await;
    until(|| world.seen("notifications/initialized").len() == 1).await;
    world.remote(|seen| {
        let old = seen.headers.get("mcp-session-id").is_some_and(|id| id == "session-1");
        let begins = seen.body["method"] == "initialize";
        let result = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {} });
        let begun = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result });
        match (old, begins) {
            (true, _) => Some(Reply::json(404, &json!({}))),
            (_, true) => Some(Reply::json(200, &begun).header("mcp-session-id", "session-2")),
            _ => None,
        }
    });
    let answer = local.ask(&call(1, "lookup", json!({}))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let opened = world.seen("initialize");
    assert_eq!(opened[0].body["params"], opened[1].body["params"], "as the client began it");
    assert_eq!(world.seen("notifications/initialized")[1].headers["mcp-session-id"], "session-2");
    let call = world.seen("tools/call").pop().unwrap();
    assert_eq!(call.headers["mcp-session-id"], "session-2");
}

#[tokio::test]
async fn a_server_that_loses_every_session_is_not_asked_for_ever() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    world.remote(|seen| seen.headers.contains_key("mcp-session-id").then(|| Reply::json(404, &json!({}))));
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert!(answer.get("error").is_some(), "{answer}");
    assert_eq!(world.seen("ping").len(), 2);
}
