//! An agent that other people's libraries make: a process of Python that exchanges at the socket of the Workload API.

use crate::{
    forge::Key,
    spiffe_lab::{program, python},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// A running agent. It ends with this value.
pub struct AttestedAgent {
    /// The key of its proofs.
    pub key: Key,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl AttestedAgent {
    /// Starts one that asks at this endpoint of a broker of this issuer.
    pub fn start(endpoint: &str, issuer: &str) -> Self {
        Self::start_as(endpoint, issuer, None)
    }

    /// The same, which becomes another user first.
    pub fn start_as(endpoint: &str, issuer: &str, user: Option<u32>) -> Self {
        let mut command = Command::new(python());
        command.arg(program("exchange.py")).arg(descriptor()).arg(issuer);
        command.env("SPIFFE_ENDPOINT_SOCKET", endpoint).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.args(user.map(|user| user.to_string()));
        let mut child = command.spawn().expect("python starts: run ./test, which installs it");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut agent = Self { key: Key::es256(), child, lines };
        let jwk = agent.key.private_jwk();
        agent.write(&jwk);
        agent
    }

    /// Sends a request with these fields; what came of it.
    pub fn ask(&mut self, request: &Value) -> Value {
        tokio::task::block_in_place(|| {
            self.write(request);
            let line = self.lines.by_ref().next().expect("the agent ended").unwrap();
            serde_json::from_str(&line).unwrap()
        })
    }

    fn write(&mut self, value: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{value}").unwrap();
    }
}

impl Drop for AttestedAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fields of a request: one call of this tool in the name of whose token it is.
pub fn fields(subject_token: &str, resource: &str, tool: &str, arguments: &Value) -> Value {
    let details = json!([{
        "type": "mcp_tool_call", "locations": [resource], "actions": ["tools/call"], "identifier": tool,
        "arguments": arguments,
    }]);
    json!({
        "subject_token": subject_token, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "resource": resource, "authorization_details": details.to_string(),
    })
}

/// The description of the messages, as it is published.
fn descriptor() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workload-api/src/proto/exchange.bin")
}
