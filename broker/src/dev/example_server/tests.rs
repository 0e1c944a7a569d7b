use super::*;
use deputize_call::{level::Level, schema::PinnedSchema};
use serde_json::json;

fn crm() -> ExampleServer {
    ExampleServer::crm("http://127.0.0.1:7001/mcp", "crm-guard").unwrap()
}

fn call(server: &ExampleServer, tool: &str, arguments: Value) -> Value {
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments }
    });
    server.answer(message.as_object().unwrap()).unwrap()
}

#[test]
fn every_tool_accepts_its_own_example_and_refuses_a_stranger_in_it() {
    let mailer = ExampleServer::mailer("http://127.0.0.1:7002/mcp", "mailer-guard").unwrap();
    for server in [crm(), mailer] {
        for tool in &server.record().tools {
            let schema = PinnedSchema::compile(&tool.definition["inputSchema"]).unwrap();
            let mut arguments = tool.example_arguments.clone().unwrap();
            schema.validate(&arguments).unwrap();
            let answer = call(&server, tool.definition["name"].as_str().unwrap(), arguments.clone().into());
            assert_eq!(answer["result"]["isError"], false, "{answer}");
            arguments.insert("stranger".to_owned(), 1.into());
            schema.validate(&arguments).unwrap_err();
        }
    }
}

#[test]
fn the_first_tool_is_the_harmless_one() {
    let server = crm();
    let first = &server.record().tools[0];
    assert_eq!((first.tier, first.effect), (Tier::Low, Effect::Read));
    assert_eq!(first.tier.least_level(), Level::L1);
}

#[test]
fn a_refund_takes_from_what_is_left_and_never_more() {
    let server = crm();
    let refund = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
    assert_eq!(
        call(&server, "refund_payment", refund.clone())["result"]["structuredContent"]["refundable_cents"],
        4200
    );
    assert_eq!(
        call(&server, "refund_payment", refund.clone())["result"]["structuredContent"]["refundable_cents"],
        0
    );
    assert_eq!(call(&server, "refund_payment", refund)["result"]["isError"], true);
    assert_eq!(server.calls_run(), 3);
}

#[test]
fn the_protocol_is_answered_and_what_is_unknown_runs_nothing() {
    let server = crm();
    let ask = |message: Value| server.answer(message.as_object().unwrap());
    let initialized =
        ask(json!({ "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18" } }));
    assert_eq!(initialized.unwrap()["result"]["protocolVersion"], "2025-06-18");
    let listed = ask(json!({ "id": "a", "method": "tools/list" })).unwrap();
    assert_eq!(listed["id"], "a");
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 3);
    assert_eq!(ask(json!({ "method": "notifications/initialized" })), None);
    assert_eq!(ask(json!({ "id": 2, "method": "resources/read" })).unwrap()["error"]["code"], -32601);
    assert_eq!(call(&server, "drop_tables", json!({}))["error"]["code"], -32602);
    assert_eq!(call(&server, "lookup_customer", json!([]))["error"]["code"], -32602);
    assert_eq!(server.calls_run(), 0);
}
