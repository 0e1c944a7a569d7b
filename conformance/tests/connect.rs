//! `deputize connect`, used by an MCP client that knows nothing of Deputize.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    dev::Dev,
    live_connect::LiveConnect,
    node::Script,
    process::{binary, run},
};
use serde_json::{Value, json};
use std::process::Command;

/// An MCP client that has started `deputize connect` with these arguments.
fn connected(dev: &Dev, arguments: &[&str]) -> Script {
    let ready_file = dev.ready_file();
    let mut all = vec!["connect", "--ready-file", ready_file.to_str().unwrap()];
    all.extend(arguments);
    let mut client = Script::start("connect.mjs", &[], None);
    let answer = client.ask(&json!({ "step": "connect", "command": binary(), "args": all }));
    assert_eq!(answer["server"]["name"], "crm", "{answer}");
    client
}

fn call(name: &str, arguments: &Value) -> Value {
    json!({ "step": "call", "name": name, "arguments": arguments })
}

fn lookup() -> Value {
    call("lookup_customer", &json!({ "customer_id": "cus_17" }))
}

/// What the broker has on record of tokens for this tool.
fn intents(dev: &Dev, tool: &str) -> Vec<Value> {
    let data = dev.data();
    let arguments = [
        "audit",
        "query",
        "--data",
        data.to_str().unwrap(),
        "--kind",
        "intent",
        "--tool",
        tool,
        "-o",
        "json",
    ];
    let (succeeded, printed, complaint) = run(&arguments);
    assert!(succeeded, "{complaint}");
    printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["entry"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_mcp_client_that_knows_nothing_of_deputize_uses_a_guarded_server() {
    let dev = Dev::start().await;
    tokio::task::block_in_place(|| {
        let mut client = connected(&dev, &[]);
        let listed = client.ask(&json!({ "step": "list" }));
        assert_eq!(listed["tools"], json!(["lookup_customer", "refund_payment", "export_customers"]));
        let found = client.ask(&lookup());
        assert_eq!(found["result"]["structuredContent"]["name"], "Grace Gray", "{found}");
        let refund = call("refund_payment", &json!({ "payment_id": "pay_81", "amount_cents": 400 }));
        let refunded = client.ask(&refund);
        assert_eq!(refunded["result"]["structuredContent"]["refunded_cents"], 400, "{refunded}");

        let refused = client.ask(&call("export_customers", &json!({ "format": "json" })));
        assert_eq!(refused["result"]["isError"], true, "{refused}");
        let text = refused["result"]["content"][0]["text"].as_str().unwrap();
        for part in
            ["export_customers", "a person would have to approve", "othing was run", "deputize explain"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let decision = refused["result"]["_meta"]["deputize/refusal"]["decision_id"].as_str().unwrap();
        let data = dev.data();
        let (explained, story, complaint) = run(&["explain", decision, "--data", data.to_str().unwrap()]);
        assert!(explained && story.contains("export_customers"), "{story}{complaint}");

        // Arguments outside of the approved schema get no token either.
        let refused =
            client.ask(&call("refund_payment", &json!({ "payment_id": "pay_81", "amount_cents": -1 })));
        assert!(
            refused["result"]["content"][0]["text"].as_str().unwrap().contains("amount_cents"),
            "{refused}"
        );
        client.ask(&json!({ "step": "close" }));
    });
    assert_eq!(intents(&dev, "export_customers").len(), 0);
    assert_eq!(intents(&dev, "refund_payment").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_twice_is_two_tokens_of_one_transaction() {
    let dev = Dev::start().await;
    tokio::task::block_in_place(|| {
        let mut client = connected(&dev, &[]);
        client.ask(&lookup());
        let one = json!({ "name": "lookup_customer", "arguments": { "customer_id": "cus_17" } });
        let both = client.ask(&json!({ "step": "calls", "calls": [one, one] }));
        assert_eq!(both["results"].as_array().unwrap().len(), 2, "{both}");
        client.ask(&json!({ "step": "close" }));
    });
    let intents = intents(&dev, "lookup_customer");
    assert_eq!(intents.len(), 3);
    let distinct = |member: &str| {
        intents
            .iter()
            .map(|intent| intent[member].to_string())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!((distinct("jti"), distinct("txn"), distinct("key"), distinct("level")), (3, 1, 1, 1));
    assert_eq!(intents[0]["level"], "L3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_looser_start_shares_a_token_until_the_tool_wants_its_own() {
    let dev = Dev::start().await;
    tokio::task::block_in_place(|| {
        let mut client = connected(&dev, &["--level", "l1"]);
        for _ in 0..2 {
            client.ask(&lookup());
        }
        for amount in [1, 2] {
            let refund = call("refund_payment", &json!({ "payment_id": "pay_81", "amount_cents": amount }));
            let refunded = client.ask(&refund);
            assert_eq!(refunded["result"]["structuredContent"]["refunded_cents"], amount, "{refunded}");
        }
        client.ask(&json!({ "step": "close" }));
    });
    assert_eq!(intents(&dev, "lookup_customer").len(), 1);
    let refunds = intents(&dev, "refund_payment");
    assert_eq!(refunds.iter().map(|intent| &intent["level"]).collect::<Vec<_>>(), ["L3", "L3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_named_and_served_again_when_it_is_back() {
    let dev = Dev::start().await;
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &dev.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    tokio::task::block_in_place(|| {
        let mut client = connected(&dev, &[]);
        client.ask(&lookup());
        signal("-STOP");
        let answer = client.ask(&lookup());
        signal("-CONT");
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("an error: {answer}"));
        assert!(message.contains("broker cannot be reached"), "{message}");
        let found = client.ask(&lookup());
        assert_eq!(found["result"]["isError"], false, "{found}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_that_is_swapped_is_another_user_from_the_next_call_on() {
    let dev = Dev::start().await;
    let file = dev.place("user.jwt");
    let put = |token: &str| std::fs::write(&file, token).unwrap();
    put(dev.text("/user_tokens/alice"));
    tokio::task::block_in_place(|| {
        let mut client = connected(&dev, &["--token-file", file.to_str().unwrap()]);
        client.ask(&lookup());
        put("no.token.atall");
        let answer = client.ask(&lookup());
        assert!(answer["error"]["message"].as_str().unwrap().contains("sign in again"), "{answer}");
        put(dev.text("/user_tokens/bob"));
        client.ask(&lookup());
        put(dev.text("/user_tokens/alice"));
        let found = client.ask(&lookup());
        assert_eq!(found["result"]["isError"], false, "{found}");
        client.ask(&json!({ "step": "close" }));
    });
    let users: Vec<_> = intents(&dev, "lookup_customer")
        .iter()
        .map(|intent| intent["sub"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        users.first().unwrap().ends_with(":alice") && users.last().unwrap().ends_with(":alice"),
        "{users:?}"
    );
    assert!(users.len() >= 2 && users.iter().all(|user| !user.ends_with(":carol")), "{users:?}");
}

#[test]
fn arguments_that_make_no_sense_are_said_so_before_anything_is_served() {
    let (succeeded, _, complaint) = run(&["connect", "https://crm.example.com/mcp"]);
    assert!(!succeeded && complaint.contains("--issuer"), "{complaint}");
    let all = ["connect", "http://crm.example.com/mcp", "--issuer", "https://d.example", "--client-id", "a"];
    let missing_key = [&all[..], &["--key-file", "nowhere.jwk", "--token-file", "x"]].concat();
    let (succeeded, _, complaint) = run(&missing_key);
    assert!(!succeeded && complaint.contains("nowhere.jwk"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_a_client_with_the_secret_is_served_and_nobody_else() {
    let dev = Dev::start().await;
    let serving = LiveConnect::start(&dev, "connect", &[]).await;
    let (process, url) = (&serving.process, &serving.url);
    tokio::task::block_in_place(|| {
        let mut client = Script::start("connect.mjs", &[], None);
        let given =
            json!({ "step": "connect", "url": url, "headers": { "authorization": serving.authorization() } });
        let answer = client.ask(&given);
        assert_eq!(answer["server"]["name"], "crm", "{answer}");
        let found = client.ask(&lookup());
        assert_eq!(found["result"]["isError"], false, "{found}");
    });
    // An error says that the process has one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::new();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let post = |headers: &[(&str, &str)]| {
        let request = http.post(url).header("content-type", "application/json").body(ping.clone());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send()
    };
    let bearer = serving.authorization();
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer guessed")], 401),
        (&[("authorization", &bearer), ("host", "crm.example.com")], 403),
        (&[("authorization", &bearer), ("origin", "https://crm.example.com")], 403),
    ] {
        assert_eq!(post(headers).await.unwrap().status(), status, "{headers:?}");
    }
    process.terminate();
    assert!(process.ended().await.success());
    assert!(!dev.place("connect.secret").exists(), "it opens nothing any more");
}

#[test]
fn over_http_it_serves_this_machine_alone() {
    let arguments = [
        "connect",
        "https://crm.example.com/mcp",
        "--issuer",
        "https://d.example",
        "--client-id",
        "a",
        "--token-file",
        "x",
        "--key-file",
    ];
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.jwk");
    let jwk =
        deputize_call::sign::SigningKey::generate(deputize_call::sign::SigningAlgorithm::ES256).unwrap();
    std::fs::write(&key, jwk.to_private_jwk().unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let all = [&arguments[..], &[key.to_str().unwrap(), "--listen", "0.0.0.0:0"]].concat();
    let (succeeded, _, complaint) = run(&all);
    assert!(!succeeded && complaint.contains("127.0.0.1"), "{complaint}");
}
