//! Clients that other people wrote: at the guard itself with tokens and proofs that other people's libraries make, and
//! through `deputize connect`.

use crate::{
    stage::Stage,
    third_party::{call, node_command, python, repository, run},
};
use deputize_conformance::{dev::Dev, live_connect::LiveConnect, node::Script, process::binary};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

const VERSIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// What the official TypeScript client does with a server, told in steps: lists, calls, calls again.
fn uses_it(client: &mut Script) {
    let listed = client.ask(&json!({ "step": "list" }));
    assert!(listed["tools"].as_array().unwrap().contains(&json!("test_simple_text")), "{listed}");
    for region in ["eu", "Zürich"] {
        let said = client.ask(&call("test_x_mcp_header", &json!({ "region": region, "level": 3 })));
        assert_eq!(said["result"]["content"][0]["text"], format!("region: {region}"), "{said}");
    }
    let failed = client.ask(&call("test_error_handling", &json!({})));
    assert_eq!(failed["result"]["isError"], true, "{failed}");
}

/// `connect` without a version speaks the newest one with sessions.
fn connect_to(given: &Value, version: &str) -> (Script, Value) {
    let mut given = given.clone();
    given["step"] = json!("connect");
    if version == "2026-07-28" {
        given["version"] = json!(version);
    }
    let mut client = Script::start("connect.mjs", &[], None);
    let connected = client.ask(&given);
    (client, connected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_typescript_client_proves_its_key_itself() {
    let stage = Stage::set(&[]).await;
    let dev = &stage.guarded.dev;
    let given = |user: &str| {
        let user_token = dev.text(&format!("/user_tokens/{user}"));
        json!({ "url": stage.guarded.url, "dpop": {
            "issuer": dev.text("/issuer"), "client": dev.ready["client"], "user_token": user_token,
            "resource": stage.guarded.url,
        } })
    };
    tokio::task::block_in_place(|| {
        for version in VERSIONS {
            let (mut client, connected) = connect_to(&given("alice"), version);
            assert_eq!(connected["version"], version, "{connected}");
            uses_it(&mut client);
            let odd = client.ask(&call("no_such_tool", &json!({})));
            assert!(odd["error"].is_object(), "{odd}");
            client.ask(&json!({ "step": "close" }));
        }
        // Without tokens, and with the user's own token in place of one.
        for headers in
            [json!({}), json!({ "authorization": format!("Bearer {}", dev.text("/user_tokens/alice")) })]
        {
            let (_, refused) =
                connect_to(&json!({ "url": stage.guarded.url, "headers": headers }), VERSIONS[0]);
            assert!(refused["error"].is_object(), "{refused}");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_of_the_official_typescript_client_goes_through_connect() {
    let stage = Stage::set(&[]).await;
    let ready_file = stage.guarded.dev.ready_file();
    let http =
        json!({ "url": stage.connect.url, "headers": { "authorization": stage.connect.authorization() } });
    let arguments = ["connect", &stage.guarded.url, "--ready-file", ready_file.to_str().unwrap()];
    let stdio = json!({ "command": binary(), "args": arguments });
    tokio::task::block_in_place(|| {
        for (given, version) in [&http, &stdio].into_iter().flat_map(|given| VERSIONS.map(|v| (given, v))) {
            let (mut client, connected) = connect_to(given, version);
            assert_eq!(
                (&connected["version"], &connected["server"]["name"]),
                (&json!(version), &json!("scenarios"))
            );
            uses_it(&mut client);
            let odd = client.ask(&call("no_such_tool", &json!({})));
            assert!(odd["error"]["message"].as_str().unwrap().contains("no tool"), "{odd}");
            client.ask(&json!({ "step": "close" }));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_python_client_calls_with_the_httpx_auth_of_the_python_package() {
    let stage = Stage::set(&[]).await;
    let agent = async |tool: &str, arguments: Value| {
        let mut command = Command::new(python());
        command.current_dir(repository().join("clients/python/examples")).kill_on_drop(true);
        command.arg("agent.py").arg(stage.guarded.dev.ready_file());
        command.args([tool, &arguments.to_string(), &stage.guarded.url]);
        run(command).await
    };
    let (code, said, complaint) = agent("test_x_mcp_header", json!({ "region": "eu" })).await;
    assert!(code == Some(0) && said.contains("test_simple_text"), "{said}{complaint}");
    let (code, _, complaint) = agent("test_x_mcp_header", json!({ "region": 7 })).await;
    assert!(code == Some(3) && complaint.contains("refused"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inspector_looks_and_calls_through_connect() {
    let stage = Stage::set(&[]).await;
    let ready_file = stage.guarded.dev.ready_file();
    let authorization = format!("Authorization: {}", stage.connect.authorization());
    let binary = binary();
    let over_http = ["--header", &authorization, "--transport", "http", &stage.connect.url];
    let over_stdio = [
        binary.to_str().unwrap(),
        "connect",
        &stage.guarded.url,
        "--ready-file",
        ready_file.to_str().unwrap(),
    ];
    for target in [&over_http[..], &over_stdio] {
        let (code, listed) = inspect(target, &["--method", "tools/list"]).await;
        let tools: Value = serde_json::from_str(&listed).unwrap_or_else(|_| panic!("{listed}"));
        let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert!(code == Some(0) && names.contains(&&json!("test_x_mcp_header")), "{listed}");
        let call = ["--method", "tools/call", "--tool-name", "test_x_mcp_header", "--tool-arg", "region=eu"];
        let (code, called) = inspect(target, &call).await;
        assert!(code == Some(0) && called.contains("region: eu"), "{called}");
        let call = ["--method", "tools/call", "--tool-name", "no_such_tool"];
        assert_ne!(inspect(target, &call).await.0, Some(0));
    }
    let bare = ["--transport", "http", &stage.connect.url];
    assert_ne!(inspect(&bare, &["--method", "tools/list"]).await.0, Some(0), "without the secret");
}

/// Runs the inspector's command line.
async fn inspect(target: &[&str], asked: &[&str]) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = node_command();
    command.arg("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js").arg("--cli");
    command.args(asked).args(["--stored-auth-only"]).args(target);
    command.env("HOME", home.path()).env("MCP_STORAGE_DIR", home.path());
    let (code, said, complaint) = run(command).await;
    (code, if said.is_empty() { complaint } else { said })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signs_in_at_the_provider_is_served_and_nobody_before() {
    let dev = Dev::start().await;
    let connect = LiveConnect::start(&dev, "signing-in", &["--sign-in"]).await;
    let said = connect.process.said();
    let page = said.lines().find_map(|line| line.split_once("sign in at ")).expect("an address").1.to_owned();
    let given = json!({ "url": connect.url, "headers": { "authorization": connect.authorization() } });
    let signing_in = async {
        // What a browser does: it shows the page, the user chooses, and it follows where that leads.
        let browser = reqwest::Client::new();
        let choice = browser.get(&page).send().await.unwrap().text().await.unwrap();
        let link = choice.split('"').find(|part| part.contains("login_hint=bob")).expect("a link").to_owned();
        let link = url::Url::parse(&page).unwrap().join(&link.replace("&amp;", "&")).unwrap();
        let landed = browser.get(link).send().await.unwrap();
        assert!(landed.url().path() == "/callback" && landed.status() == 200, "{landed:?}");
    };
    // An error says that the process has one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let using = tokio::task::spawn_blocking(move || {
        let (mut client, connected) = connect_to(&given, VERSIONS[0]);
        assert_eq!(connected["server"]["name"], "crm", "{connected}");
        client.ask(&call("lookup_customer", &json!({ "customer_id": "cus_17" })))
    });
    let ((), answer) = tokio::join!(signing_in, using);
    let answer = answer.unwrap();
    assert!(answer["result"].is_object(), "{answer}");
    let mut audit = Command::new(binary());
    audit.args(["audit", "query", "--data"]).arg(dev.data()).args(["--kind", "intent", "-o", "json"]);
    audit.stdin(Stdio::null());
    let (_, intents, complaint) = run(audit).await;
    let of_bob = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["entry"]["sub"].as_str().is_some_and(|sub| sub.ends_with(":bob"))
    };
    assert!(!intents.is_empty() && intents.lines().all(of_bob), "{intents}{complaint}");
}
