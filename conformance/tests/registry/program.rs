//! Runs the program on a registry's folder of its own.

use deputize_conformance::process::binary;
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// How the program ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A registry's folder.
pub(crate) struct Folder(TempDir);

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("DEPUTIZE_CONFIG").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            code != 1 && code < 3
                || format!("{}{}", self.stdout, self.stderr).contains("next:")
                || self.stdout.starts_with('{'),
            "{self:?}"
        );
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `deputize registry …` on this folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let (command, rest) = arguments.split_first().unwrap();
        let folder = self.0.path().to_str().unwrap();
        run(&[&["registry", command, "--folder", folder][..], rest].concat())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A saved answer to `tools/list`. Its ending is none of a record's.
    pub(crate) fn tools(&self, name: &str, tools: &[Value]) -> String {
        let name = format!("{name}.txt");
        self.write(&name, &json!({ "tools": tools }).to_string());
        self.path(&name).to_str().unwrap().to_owned()
    }
}
