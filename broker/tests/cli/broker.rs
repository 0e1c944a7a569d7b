//! A broker under `serve`, with a trust domain where a test wants one, and who watches its Workload API.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};
use tempfile::TempDir;

use crate::program::{Ran, command, run};

/// A broker under `serve`; it ends with this.
pub struct Broker {
    pub child: Child,
    pub folder: TempDir,
    /// What it logged before it was ready.
    pub said: Vec<String>,
    address: String,
}

impl Broker {
    pub fn start(spiffe: &str) -> Self {
        Self::start_as(spiffe, command(&["serve"]))
    }

    /// Started by this command, which has no arguments yet but what makes it `serve`.
    pub fn start_as(spiffe: &str, serving: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["registry", "entries", "anchor", "run"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        let text = format!(
            "issuer: https://broker.example\ndata_dir: data\n\
             listen: {{ address: '127.0.0.1:0', behind_proxy: true }}\naudit: {{ anchor: anchor/checkpoint }}\n\
             registry: {{ folder: registry, unsigned_approvals: allow }}\npolicies: {}\n{spiffe}",
            policies.display()
        );
        std::fs::write(folder.path().join("deputize.yaml"), text).unwrap();
        let (child, address, said) = serve(serving, &folder.path().join("deputize.yaml"));
        Self { child, folder, said, address }
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }

    pub fn start_again(&mut self) {
        (self.child, self.address, self.said) = serve(command(&["serve"]), &self.config());
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("deputize.yaml")
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config();
        run(&[arguments, &["--config", config.to_str().unwrap()]].concat())
    }

    pub fn create(&self, id: &str, spiffe_id: &str, selector: &str) -> Ran {
        self.run(&["entry", "create", "--id", id, "--spiffe-id", spiffe_id, "--selector", selector]).expect(0)
    }

    pub fn watch(&self) -> Watch {
        self.watch_with(&[])
    }

    pub fn watch_with(&self, arguments: &[&str]) -> Watch {
        let mut child = command(&["svid", "watch", "-o", "json", "--config"])
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }

    /// What the public door answers.
    pub fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: broker.example\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker and waits until it takes requests; where it does, and what it said until then.
fn serve(mut serving: Command, config: &Path) -> (Child, String, Vec<String>) {
    let mut child = serving
        .args(["--log-format", "json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (address, said) = address_of(&mut lines);
    // Who writes must not wait for who reads.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address, said)
}

fn address_of(lines: &mut Lines<BufReader<ChildStderr>>) -> (String, Vec<String>) {
    let mut said = Vec::new();
    for line in lines.map_while(Result::ok) {
        let is_ready = line.contains("\"ready\"");
        if let Some((_, rest)) = line.split_once("127.0.0.1:").filter(|_| is_ready) {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return (format!("127.0.0.1:{port}"), said);
        }
        said.push(line);
    }
    panic!("serve did not start: {said:?}");
}

/// A `svid watch` that runs.
pub struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    /// The next message.
    pub fn message(&mut self) -> Value {
        let line = self.lines.next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The identities of the next message.
    pub fn ids(&mut self) -> Vec<String> {
        let message = self.message();
        let svids = message["svids"].as_array().unwrap();
        svids.iter().map(|svid| svid["spiffe_id"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it ends by itself; its exit code, and what it said.
    pub fn end(&mut self) -> (i32, String) {
        assert!(self.lines.next().is_none(), "nothing more comes");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is true of every process of this test.
pub fn own_uid() -> String {
    format!("unix:uid:{}", std::fs::metadata("/proc/self").unwrap().uid())
}

pub const SPIFFE: &str =
    "spiffe: { trust_domain: example.org, socket: run/workload-api.sock, entries: entries }\n";
