//! `deputize dev`: everything in one process, started and found through its ready file.

use crate::process::Process;
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

/// A running `deputize dev`.
pub struct Dev {
    /// What its ready file says.
    pub ready: Value,
    /// Its process.
    pub process: Process,
    folder: TempDir,
}

impl Dev {
    /// Starts it on free ports and waits for the ready file.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts it with these arguments besides.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("ready.json"), folder.path().join("dev.log"));
        let environment = folder.path().join("environment");
        let fixed =
            ["dev", "--folder", environment.to_str().unwrap(), "--ready-file", file.to_str().unwrap()];
        let arguments: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        let process = Process::start(&arguments, &log);
        process.wait_until(async || file.exists()).await;
        // It comes by rename, so what is there is whole.
        let ready = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(mode(&file), 0o600, "the ready file holds a private key");
        Self { ready, process, folder }
    }

    /// Its ready file.
    pub fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// The data folder of its broker.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("environment/data")
    }

    /// A place for a file of the test's own.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A member of the ready file that is a text, by JSON Pointer.
    pub fn text(&self, pointer: &str) -> &str {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} in {}", self.ready))
    }
}

fn mode(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
