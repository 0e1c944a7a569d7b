//! A running `deputize dev`, for the commands that talk to a broker.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};
use tempfile::TempDir;

use crate::program::command;

/// A development environment; it ends with this.
pub struct Environment {
    child: Child,
    folder: TempDir,
    pub ready: serde_json::Value,
}

impl Environment {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (files, ready) = (folder.path().join("dev"), folder.path().join("ready.json"));
        let mut child = command(&["dev"])
            .args([Path::new("--folder"), &files, Path::new("--ready-file"), &ready])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It greets when everything answers.
        let greeting = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready_said = greeting.map_while(Result::ok).any(|line| line.contains("Ctrl-C"));
        assert!(ready_said, "dev did not start");
        let ready = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        Self { child, folder, ready }
    }

    pub fn ready_file(&self) -> String {
        self.folder.path().join("ready.json").to_str().unwrap().to_owned()
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("dev/deputize.yaml")
    }

    pub fn config_str(&self) -> String {
        self.config().to_str().unwrap().to_owned()
    }

    pub fn user_token(&self, user: &str) -> &str {
        self.ready["user_tokens"][user].as_str().unwrap()
    }

    /// The configuration with something else in it, beside the real one.
    pub fn config_with(&self, from: &str, to: &str) -> String {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from}: {text}");
        let path = self.config().with_file_name("changed.yaml");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
