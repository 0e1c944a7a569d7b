//! Third-party programs on node: what `conformance/npm` holds.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A running script of `conformance/npm`. It ends with this value.
pub struct Script {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts a script that trusts this certification authority besides the usual ones.
    pub fn start(name: &str, arguments: &[&str], authority: Option<&Path>) -> Self {
        let mut command = Command::new(node());
        command.current_dir(npm()).arg(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(authority) = authority {
            command.env("NODE_EXTRA_CA_CERTS", authority);
        }
        let mut child = command.spawn().expect("node starts: run ./test, which installs it");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Gives it this on stdin, and the end of it.
    pub fn tell(&mut self, value: &Value) -> &mut Self {
        let mut stdin = self.child.stdin.take().expect("stdin is told once");
        stdin.write_all(value.to_string().as_bytes()).unwrap();
        self
    }

    /// Gives it one line and waits for the next JSON object that it prints.
    pub fn ask(&mut self, value: &Value) -> Value {
        writeln!(self.child.stdin.as_mut().expect("stdin is open"), "{value}").unwrap();
        self.hear()
    }

    /// The next JSON object that it prints; what else it says is passed over.
    pub fn hear(&mut self) -> Value {
        let line = self.lines.by_ref().map_while(Result::ok).find(|line| line.starts_with('{'));
        let line = line.unwrap_or_else(|| panic!("the script ended: {:?}", self.child.wait()));
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of third-party programs, with its packages.
pub fn npm() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("npm");
    assert!(
        folder.join("node_modules").exists(),
        "npm packages are missing: run ./test, which installs them"
    );
    folder
}

/// The node that `./test` installed, else the one on the path.
pub fn node() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/node_modules/.bin/node");
    if installed.exists() { installed } else { "node".into() }
}
