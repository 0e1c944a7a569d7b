//! Servers that `deputize guard` starts: one over HTTP that accepts nobody but its guard, one over stdin and stdout that
//! learns whose call it runs.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_call::jws::{EmbeddedKey, parse};
use deputize_conformance::{
    live_guard::{LiveGuard, ask, call, free_port, messages},
    node::node,
    process::run,
    wire::{Endpoint, Request},
};
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};
use url::Url;

/// What the server of `conformance/npm/own.mjs` lists.
fn definition() -> Value {
    json!({
        "name": "tell",
        "description": "Tells what the server learned of the call.",
        "inputSchema": { "type": "object", "properties": { "note": { "type": "string" } }, "additionalProperties": false },
    })
}

fn script() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("npm/own.mjs").to_str().unwrap().to_owned()
}

/// A guard that has started the server over HTTP, and the server's URL.
async fn over_http() -> (LiveGuard, String) {
    let (port, node, script) = (free_port().to_string(), node(), script());
    let url = format!("http://127.0.0.1:{port}/mcp");
    let port = format!("PORT={port}");
    let command = ["--upstream", &url, "--env", &port, "--", node.to_str().unwrap(), &script, "http"];
    (LiveGuard::start(&[definition()], &command).await, url)
}

/// Calls the tool; what it tells.
async fn tell(guarded: &LiveGuard, headers: &[(&str, &str)], message: &Value) -> Result<Value, u16> {
    let answer = guarded.say(&guarded.tool("tell").await, headers, message).await;
    match answer.status {
        200 => Ok(messages(&answer).pop().unwrap()["result"]["structuredContent"].clone()),
        status => Err(status),
    }
}

/// Asks the server past its guard.
async fn past_the_guard(url: &str, headers: &[(&str, &str)]) -> Option<u16> {
    let endpoint = Endpoint::new(&Url::parse(url).unwrap(), None);
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let body = ask("tools/list").to_string().into_bytes();
    let request = Request { method: "POST".into(), target: "/mcp".into(), headers, body };
    endpoint.send(&request).await.ok().map(|answer| answer.status)
}

fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn gone(pid: u64) {
    for _ in 0..1000 {
        if !runs(pid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{pid} outlives its guard");
}

#[tokio::test]
async fn a_server_that_the_guard_starts_accepts_its_guard_alone() {
    let (guarded, url) = over_http().await;
    let told = tell(&guarded, &[], &call("tell", &json!({}))).await.unwrap();
    let token = parse(told["call"].as_str().unwrap(), EmbeddedKey::Refused).unwrap();
    assert!(token.claims["sub"].as_str().unwrap().ends_with(":alice"), "it learns whose call it is");

    for headers in [&[][..], &[("deputize-guard", "")], &[("deputize-guard", "guessed-it-is-not-that-easy")]]
    {
        assert_eq!(past_the_guard(&url, headers).await, Some(401), "{headers:?}");
    }
    let pid = told["pid"].as_u64().unwrap();
    let environment = String::from_utf8(std::fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap();
    let secret =
        environment.split('\0').find_map(|each| each.strip_prefix("DEPUTIZE_GUARD_SECRET=")).unwrap();
    assert_eq!(past_the_guard(&url, &[("deputize-guard", secret)]).await, Some(200));
    assert!(!guarded.process.said().contains(secret), "it is in no log");
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains(secret), "and on no command line");

    guarded.process.terminate();
    assert!(guarded.process.ended().await.success());
    gone(pid).await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_one_whose_guard_is_killed_ends() {
    let (guarded, _) = over_http().await;
    let message = call("tell", &json!({}));
    let first = tell(&guarded, &[], &message).await.unwrap()["pid"].as_u64().unwrap();
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    let second = loop {
        match tell(&guarded, &[], &message).await {
            Ok(told) => break told["pid"].as_u64().unwrap(),
            Err(status) => assert!(matches!(status, 502 | 503), "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(second != first && !runs(first));
    guarded.process.kill();
    gone(second).await;
}

#[test]
fn the_keeper_of_such_a_server_ends_nobody_elses_processes() {
    // This test's own group would go with it.
    let (succeeded, _, complaint) = run(&["keep", "--", "true"]);
    assert!(!succeeded && complaint.contains("for `deputize guard` alone"), "{complaint}");
}

#[tokio::test]
async fn a_program_over_stdin_learns_whose_call_it_runs_and_from_the_guard_alone() {
    let (node, script) = (node(), script());
    let guarded = LiveGuard::start(&[definition()], &["--", node.to_str().unwrap(), &script, "stdio"]).await;
    let mut begin = ask("initialize");
    begin["params"] = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": { "name": "agent", "version": "1" } });
    let begun = guarded.say(&guarded.look().await, &[], &begin).await;
    let session = begun.header("mcp-session-id").unwrap().to_owned();
    let here = [("mcp-session-id", session.as_str())];

    let arguments = json!({ "note": "n" });
    let mut message = call("tell", &arguments);
    message["params"]["_meta"] = json!({ "deputize/call": "forged", "example.com/mine": 1 });
    let token = guarded.call("tell", &arguments).await;
    let answer = guarded.say(&token, &here, &message).await;
    let meta = &messages(&answer).pop().unwrap()["result"]["structuredContent"]["meta"];
    assert_eq!(meta["example.com/mine"], 1, "what is the caller's to say goes through: {meta}");
    assert_eq!(meta["deputize/call"].as_str(), Some(token.access_token()));

    // Outside of a call nobody is named, whatever the caller says; and another's call names the other.
    let mut look = ask("tools/list");
    look["params"]["_meta"] = json!({ "deputize/call": "forged" });
    assert_eq!(guarded.say(&guarded.look().await, &here, &look).await.status, 200);
    let told = tell(&guarded, &here, &call("tell", &json!({}))).await.unwrap();
    let own = told["meta"]["deputize/call"].as_str().unwrap();
    assert!(own != token.access_token() && parse(own, EmbeddedKey::Refused).is_ok());
}
