//! What `./test` installed: node with its packages, python with its own, and how they are run.

pub use deputize_conformance::own_clients::python;

use deputize_conformance::node::{Script, node, npm};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

/// Node in the folder of its packages; it ends with what is made of it.
pub fn node_command() -> Command {
    let mut command = Command::new(node());
    command.current_dir(npm()).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a program to its end: its exit code, and what it said.
pub async fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(ENDS_WITHIN, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The tools that a server lists, as its operator sees them: `given` says where it is, or which command starts it.
pub fn definitions(given: &Value) -> Vec<Value> {
    listed(given, "definitions", "tools")
}

/// The prompts of such a server.
pub fn prompts(given: &Value) -> Vec<Value> {
    listed(given, "prompts", "prompts")
}

fn listed(given: &Value, step: &str, member: &str) -> Vec<Value> {
    let mut given = given.clone();
    given["step"] = json!("connect");
    let mut client = Script::start("connect.mjs", &[], None);
    let connected = client.ask(&given);
    assert!(connected.get("error").is_none(), "{connected}");
    let listed = client.ask(&json!({ "step": step }));
    client.ask(&json!({ "step": "close" }));
    listed[member].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
}

/// A call, as the official TypeScript client is told to make it.
pub fn call(name: &str, arguments: &Value) -> Value {
    json!({ "step": "call", "name": name, "arguments": arguments })
}

const ENDS_WITHIN: Duration = Duration::from_secs(120);
