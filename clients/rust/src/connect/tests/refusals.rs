//! What the local client is told where there is no answer of the server.

use super::world::*;
use serde_json::{Value, json};

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("a result: {answer}"))
}

#[tokio::test]
async fn a_denial_is_a_result_that_says_what_why_and_what_next() {
    let world = World::start().await;
    world.broker(|form| {
        let denial = json!({ "error": "access_denied", "reason": "policy", "error_description": "not on Sundays",
            "decision_id": "dec-9" });
        form.contains_key("authorization_details").then(|| Reply::json(400, &denial))
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    let answer = local.ask(&call(1, "refund", json!({}))).await;
    assert_eq!(answer["result"]["isError"], true);
    for part in ["\"refund\"", "not on Sundays", "dec-9", "othing was run", "another way"] {
        assert!(text(&answer).contains(part), "{part} in {answer}");
    }
    let about = &answer["result"]["_meta"]["deputize/refusal"];
    assert_eq!((&about["refused_by"], &about["reason"]), (&json!("broker"), &json!("policy")));
    assert!(answer["result"].get("resultType").is_none(), "a later version's");
    let alone = local.ask(&call_alone(2, "refund", json!({}), json!({}))).await;
    assert_eq!(alone["result"]["resultType"], "complete");
    assert_eq!(world.seen("tools/call").len(), 0);
}

#[tokio::test]
async fn a_guards_no_is_a_result_and_is_not_argued_with() {
    let world = World::start().await;
    world.remote(|seen| {
        let needed = json!([{ "identifier": "refund", "arguments": {} }]);
        (seen.body["method"] == "tools/call").then(|| Reply::refusal(403, "insufficient_scope", Some(needed)))
    });
    let mut local = world.local();
    local.initialize(json!({})).await;
    let answer = local.ask(&call(1, "refund", json!({}))).await;
    assert!(text(&answer).contains("because"), "{answer}");
    assert_eq!(world.seen("tools/call").len(), 1, "there is no tighter token");
}

#[tokio::test]
async fn a_broker_that_is_away_is_named_and_once_back_serves() {
    let world = World::start().await;
    let mut local = world.local();
    local.initialize(json!({})).await;
    world.broker(|_| {
        Some(
            Reply::json(503, &json!({ "error_description": "the record is full" }))
                .header("retry-after", "2"),
        )
    });
    let answer = local.ask(&call(1, "refund", json!({}))).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("broker cannot decide now") && message.contains("in 2 s"), "{message}");
    world.broker(|_| None);
    let answer = local.ask(&call(2, "refund", json!({}))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
}

#[tokio::test]
async fn what_steers_a_call_has_the_form_that_the_version_gives_it() {
    let world = World::start().await;
    let mut local = world.local();
    for (name, value) in
        [("inputResponses", Value::Null), ("inputResponses", json!([])), ("requestState", json!(1))]
    {
        let mut call = call_alone(1, "lookup", json!({}), json!({}));
        call["params"][name] = value.clone();
        assert_eq!(local.ask(&call).await["error"]["code"], -32600, "{name}: {value}");
    }
    assert!(world.asked_details().is_empty() && world.seen("tools/call").is_empty(), "nothing went on");
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let world = World::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut settings = world.settings();
    settings.url = format!("http://{free}/mcp");
    let mut local = world.local_of(world.connector(settings));
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("MCP server cannot be reached"),
        "{answer}"
    );
}

#[tokio::test]
async fn errors_of_the_protocol_pass_and_an_answer_to_something_else_does_not() {
    let world = World::start().await;
    let mut local = world.local();
    world.remote(|seen| {
        let error = json!({ "code": -32022, "message": "version", "data": { "supported": ["2025-11-25"] } });
        match seen.body["id"].as_i64() {
            Some(1) => Some(Reply::json(400, &json!({ "jsonrpc": "2.0", "error": error }))),
            Some(2) => Some(Reply::json(200, &json!({ "jsonrpc": "2.0", "id": 1, "result": {} }))),
            Some(3) => Some(Reply::json(200, &json!("nonsense"))),
            _ => None,
        }
    });
    let ping = |id: i64| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let answer = local.ask(&ping(1)).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32022)));
    for id in [2, 3] {
        let answer = local.ask(&ping(id)).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32603)), "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_message_or_too_long_is_said_so_and_the_rest_goes_on() {
    let world = World::start().await;
    let mut local = world.local();
    local.say_raw("{\n\n").await;
    assert_eq!(local.hear().await["error"]["code"], -32700);
    local.say_raw(&format!("{{\"a\":\"{}\"}}\n", "x".repeat(4 * 1024 * 1024))).await;
    let answer = local.hear().await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("at most"), "{answer}");
    let answer = local.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    assert_eq!(answer["result"], json!({}));
}

fn waits(form: &std::collections::BTreeMap<String, String>) -> Option<Reply> {
    let waiting = json!({ "error": "authorization_pending", "approval_id": "apr-1", "interval": 2,
        "approval_uri": "https://deputize.example.com/approvals/apr-1", "expires_in": 300, "decision_id": "dec-1" });
    let calls = form.contains_key("authorization_details");
    (calls && !form.contains_key("approval_id")).then(|| Reply::json(400, &waiting))
}

#[tokio::test]
async fn a_call_that_waits_for_a_person_says_where_and_the_same_call_comes_back_for_the_decision() {
    let world = World::start().await;
    world.broker(waits);
    let mut local = world.local();
    local.initialize(json!({})).await;
    let answer = local.ask(&call(1, "refund", json!({ "n": 1 }))).await;
    assert!(text(&answer).contains("https://deputize.example.com/approvals/apr-1"), "{answer}");
    let other = local.ask(&call(2, "refund", json!({ "n": 2 }))).await;
    assert_eq!(other["result"]["isError"], true, "another call is another decision");
    let answer = local.ask(&call(3, "refund", json!({ "n": 1 }))).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let form = world.asked().pop().unwrap();
    assert_eq!(form["approval_id"], "apr-1");
    assert!(form["authorization_details"].contains("{\"n\":1}"));
    let again = local.ask(&call(4, "refund", json!({ "n": 1 }))).await;
    assert_eq!(again["result"]["isError"], true, "a decision is for one call");
}

#[tokio::test]
async fn a_client_that_can_show_urls_is_asked_to() {
    let world = World::start().await;
    world.broker(waits);
    let mut local = world.local();
    local.initialize(json!({ "elicitation": { "url": {} } })).await;
    let answer = local.ask(&call(1, "refund", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32042);
    let asked = &answer["error"]["data"]["elicitations"][0];
    assert_eq!((&asked["mode"], &asked["elicitationId"]), (&json!("url"), &json!("apr-1")));

    let answer =
        local.ask(&call_alone(2, "lookup", json!({}), json!({ "elicitation": { "url": {} } }))).await;
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required");
    assert_eq!(result["inputRequests"]["deputize-approval"]["params"]["mode"], "url");
    let mut retry = call_alone(3, "lookup", json!({}), json!({ "elicitation": { "url": {} } }));
    retry["params"]["requestState"] = result["requestState"].clone();
    retry["params"]["inputResponses"] = json!({ "deputize-approval": { "action": "accept" } });
    let answer = local.ask(&retry).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let sent = &world.seen("tools/call").pop().unwrap().body["params"];
    assert!(
        sent.get("requestState").is_none() && sent.get("inputResponses").is_none(),
        "they were for us: {sent}"
    );
}

#[tokio::test]
async fn what_the_server_itself_asked_for_goes_back_to_it_under_a_token_that_covers_it() {
    let world = World::start().await;
    let mut local = world.local();
    let mut retry = call_alone(1, "lookup", json!({ "n": 1 }), json!({}));
    retry["params"]["requestState"] = json!("opaque");
    retry["params"]["inputResponses"] = json!({ "name": { "action": "accept" } });
    local.ask(&retry).await;
    let detail = world.asked_details().pop().unwrap();
    assert_eq!(
        (&detail["requestState"], &detail["inputResponses"]),
        (&json!("opaque"), &retry["params"]["inputResponses"])
    );
    assert_eq!(world.seen("tools/call").pop().unwrap().body["params"], retry["params"]);
}
