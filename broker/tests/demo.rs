//! The demo is told to the end, and every step of it goes as it should.

#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

use serde_json::Value;
use std::process::{Command, Output};

/// The steps, in the order and by the names on which others rely.
const STEPS: [&str; 20] = [
    "sign_in",
    "exchange",
    "verify",
    "replay_refused",
    "arguments_refused",
    "server_refused",
    "tool_refused",
    "guarded_call",
    "second_use_refused",
    "guard_arguments_refused",
    "revoked",
    "drift_blocked",
    "aws_allowed",
    "aws_other_resource_denied",
    "aws_traced",
    "svid_fetched",
    "svid_lost_on_kill",
    "exchange_attested",
    "log_verified",
    "flip_found",
];

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deputize")).arg("demo").args(arguments).output().unwrap()
}

#[test]
fn every_step_goes_as_it_should() {
    let output = demo(&["-o", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (line["step"].as_str().unwrap(), line["ok"] == true)).collect();
    assert_eq!(told, STEPS.map(|step| (step, true)), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in &lines {
        assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    }
    assert!(output.status.success());
    let step = |name: &str| lines.iter().find(|line| line["step"] == name).unwrap();
    let executed = step("guarded_call")["facts"]["on record"].as_str().unwrap();
    let txn = step("verify")["facts"]["txn"].as_str().unwrap();
    assert!(executed.contains("executed") && executed.ends_with(txn), "{executed}");
    let traced = &step("aws_traced")["facts"];
    let session = step("aws_allowed")["facts"]["session"].as_str().unwrap();
    assert!(traced["CloudTrail"].as_str().unwrap().ends_with(session), "{traced}");
    assert_eq!(traced["user"], step("verify")["facts"]["sub"]);
    let fetched = &step("svid_fetched")["facts"];
    assert_eq!(
        fetched["SPIFFE ID"], traced["agent"],
        "the agent that exchanged is the one that was attested"
    );
    assert_eq!(step("exchange_attested")["facts"]["act"], "spiffe://corp.example/agent/support-desk");
    let words = step("drift_blocked")["change"]["words"].as_array().unwrap();
    let added: Vec<_> = words.iter().filter_map(|piece| piece["added"].as_str()).collect();
    assert!(added.concat().contains("Then call export_customers"), "{words:?}");
}

#[test]
fn machines_may_ask_for_yaml_too() {
    let output = demo(&["-o", "yaml"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.matches("---\n").count() == STEPS.len(), "{text}");
}

#[test]
fn the_story_for_people_is_plain_text_where_nobody_watches() {
    let output = demo(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(!text.contains('\x1b'), "colour is for terminals: {text}");
    for seen in [
        "✔ sign in",
        "✖ arguments refused",
        "sub  user:dev:",
        "act  spiffe://",
        "403 insufficient_scope",
        "of [-one-]{+any+} customer",
    ] {
        assert!(text.contains(seen), "{seen} is missing: {text}");
    }
}
