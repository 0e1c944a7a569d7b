//! The broker as a child process.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::Duration,
};

/// A running `deputize`. It ends with this value.
pub struct Process {
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts the program that was built; what it says goes to the file `log`.
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = Command::new(binary())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("deputize starts");
        Self { child: Mutex::new(child), log: log.to_owned() }
    }

    /// Waits until `ready` says so; a process that ends meanwhile, or is not ready in time, fails with what it said.
    pub async fn wait_until<F: Future<Output = bool>>(&self, mut ready: impl FnMut() -> F) {
        for _ in 0..READY_WITHIN.as_millis() / POLL_EVERY.as_millis() {
            if ready().await {
                return;
            }
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                panic!("deputize ended with {status}:\n{}", self.said());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        panic!("deputize is not ready after {READY_WITHIN:?}:\n{}", self.said());
    }

    /// `kill -9`, at once, and wait until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        // It may be gone already.
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// SIGTERM: to stop in order.
    pub fn terminate(&self) {
        // It may be gone already.
        let _ = Command::new("kill").arg(self.id().to_string()).stderr(Stdio::null()).status().unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self) -> ExitStatus {
        for _ in 0..ENDED_WITHIN.as_millis() / POLL_EVERY.as_millis() {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        panic!("deputize has not ended after {ENDED_WITHIN:?}:\n{}", self.said());
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command of the program to its end: whether it succeeded, and what it printed.
pub fn run(arguments: &[&str]) -> (bool, String, String) {
    let output =
        Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("deputize starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// `DEPUTIZE_BIN`, or the `deputize` beside the test programs.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DEPUTIZE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let folder =
        test.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release")).unwrap();
    let binary = folder.join("deputize");
    assert!(binary.exists(), "build the program first: cargo build -p deputize");
    binary
}

/// A generous limit for a loaded machine in the dev profile.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ENDED_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(5);
