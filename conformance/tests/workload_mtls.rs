//! Two processes that authenticate each other with our SVIDs, through SPIFFE's own Python library.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::spiffe_lab::{SpiffeLab, program, python};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

const ID: &str = "spiffe://example.org/myservice";
const OTHER_ID: &str = "spiffe://example.org/myservice2";

/// One of the two. It ends with this value.
struct Peer {
    child: Child,
    said: Option<Lines<BufReader<ChildStdout>>>,
}

impl Peer {
    fn start(lab: &SpiffeLab, arguments: &[&str]) -> Self {
        let mut command = Command::new(python());
        command.arg(program("peer.py")).args(arguments).env("SPIFFE_ENDPOINT_SOCKET", lab.endpoint());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said: Some(said) }
    }

    fn hear(&mut self) -> Value {
        let line = self.said.as_mut().unwrap().next().unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, what: &str) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.hear()
    }

    /// What it tells by itself, kept up to date from now on.
    fn follow(&mut self) -> Arc<Mutex<Value>> {
        let (newest, said) = (Arc::new(Mutex::new(json!({}))), self.said.take().unwrap());
        let kept = Arc::clone(&newest);
        thread::spawn(move || {
            for line in said.map_while(Result::ok) {
                *kept.lock().unwrap() = serde_json::from_str(&line).unwrap();
            }
        });
        newest
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_authenticate_each_other_and_expect_the_right_one() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut server = Peer::start(&lab, &["serve", ID]);
        let port = server.hear()["port"].to_string();
        let mut client = Peer::start(&lab, &["call", &port, ID]);
        assert_eq!(client.ask("once")["ok"], true);
        let refused = Peer::start(&lab, &["call", &port, OTHER_ID]).ask("once");
        assert_eq!(refused["ok"], false, "another identity was expected: {refused}");
        let mut choosy = Peer::start(&lab, &["serve", OTHER_ID]);
        let port = choosy.hear()["port"].to_string();
        let refused = Peer::start(&lab, &["call", &port, ID]).ask("once");
        assert_eq!(refused["ok"], false, "the client is another than is let in: {refused}");
        assert_eq!(client.ask("once")["ok"], true);
    });
}

/// Connects again and again until this holds of what both have; every connection and the one that is held must work.
fn until(
    client: &mut Peer,
    server: &Mutex<Value>,
    what: &str,
    holds: impl Fn(&Value, &Value, &Value) -> bool,
) {
    for _ in 0..2_000 {
        let call = client.ask("once");
        assert_eq!(call["ok"], true, "{what}: {call}");
        let held = client.ask("held");
        assert_eq!(held["ok"], true, "{what}: {held}");
        let state = client.ask("state");
        if holds(&call, &state, &server.lock().unwrap()) {
            return;
        }
    }
    panic!("{what} has not come: client {}, server {}", client.ask("state"), server.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_dropped_while_the_authority_changes() {
    let lab = SpiffeLab::start().await;
    tokio::task::block_in_place(|| {
        let mut server = Peer::start(&lab, &["serve", ID]);
        let port = server.hear()["port"].to_string();
        let mut client = Peer::start(&lab, &["call", &port, ID]);
        let old = client.ask("hold");
        assert_eq!(old["ok"], true, "{old}");
        let at_server = server.follow();
        lab.deputize(&["keys", "prepare", "--purpose", "x509-svids"]);
        until(&mut client, &at_server, "two authorities", |_, client, server| {
            client["authorities"] == 2 && server["authorities"] == 2
        });
        lab.deputize(&["keys", "activate", "--purpose", "x509-svids", "--at-once"]);
        let keys: Value = serde_json::from_str(&lab.deputize(&["keys", "ls", "-o", "json"])).unwrap();
        let id = |key: &Value| key["id"].as_str().or(key["kid"].as_str()).unwrap().to_owned();
        let is_old = |key: &&Value| {
            key["purpose"] == "X.509-SVIDs" && key["state"].as_str().unwrap().starts_with("old")
        };
        let outgoing =
            keys["keys"].as_array().unwrap_or_else(|| keys.as_array().unwrap()).iter().find(is_old).map(id);
        let outgoing = outgoing.unwrap_or_else(|| panic!("no old authority in {keys}"));
        lab.deputize(&["keys", "taint", &outgoing]);
        until(&mut client, &at_server, "new SVIDs", |call, client, server| {
            ![&call["signer"], &client["signer"], &server["signer"]].contains(&&old["signer"])
        });
        lab.deputize(&["keys", "revoke", &outgoing]);
        until(&mut client, &at_server, "the old authority gone", |_, client, server| {
            client["authorities"] == 1 && server["authorities"] == 1
        });
        for _ in 0..20 {
            assert_eq!(client.ask("once")["ok"], true);
        }
    });
}
