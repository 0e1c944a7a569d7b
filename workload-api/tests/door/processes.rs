//! Processes that leave their connection to a child: this program starts itself again and plays them.

use crate::client::{Door, NODE, Wire, next, open_in_front_of, secured, web};
use deputize_workload_api::{
    attest::{AttestSettings, Attestor},
    proto::{X509svidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient},
    reception::Doorkeeper,
};
use rustix::process::geteuid;
use spiffe::SpiffeId;
use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as Connection,
    },
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::UnixStream,
    process::{Child, ChildStderr, Command},
};

#[tokio::test]
async fn a_stream_ends_with_its_process_while_a_child_holds_the_connection() {
    let door = open_to_this_user();
    let (mut parent, mut told) = start(&door, "silent child");
    assert_eq!(line(&mut told).await, "parent has spiffe://example.org/web");
    assert_eq!(line(&mut told).await, "child holds");
    // The parent reads no more: what is pushed now, the child gets. As long as the parent lives, it might as well have
    // been handed to the child by it.
    let mut entry = entry_of_this_user();
    entry.hint = "changed".to_owned();
    door.source.set_entries(vec![entry.clone()]);
    assert_eq!(line(&mut told).await, "child got something");
    parent.start_kill().unwrap();
    assert_eq!(line(&mut told).await, "child finds it ended");
    // Nothing was in between, and nothing follows.
    entry.hint = "changed again".to_owned();
    door.source.set_entries(vec![entry]);
    parent.wait().await.unwrap();
    assert_eq!(told.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn a_child_that_speaks_on_the_connection_ends_it_for_its_parent_too() {
    let door = open_to_this_user();
    let (mut parent, mut told) = start(&door, "speaking child");
    assert_eq!(line(&mut told).await, "parent has spiffe://example.org/web");
    assert_eq!(line(&mut told).await, "child holds");
    assert_eq!(line(&mut told).await, "child finds it ended");
    assert_eq!(parent.try_wait().unwrap(), None, "the parent has not");
    // It may come again.
    assert!(door.try_x509().await.is_some());
    parent.start_kill().unwrap();
    parent.wait().await.unwrap();
}

fn open_to_this_user() -> Door {
    let attestor = Attestor::new(SpiffeId::new(NODE).unwrap(), AttestSettings::default());
    let door = open_in_front_of(Arc::new(Doorkeeper::new(attestor)));
    door.source.set_entries(vec![entry_of_this_user()]);
    door
}

fn entry_of_this_user() -> deputize_issuer::entry::Entry {
    let mut entry = web();
    entry.selectors = [format!("unix:uid:{}", geteuid().as_raw()).parse().unwrap()].into();
    entry
}

/// A process that connects, and what it and its child say.
fn start(door: &Door, child: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = Command::from(played(child));
    command.env("DOOR", &door.path).stdin(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut parent = command.spawn().unwrap();
    let told = BufReader::new(parent.stderr.take().unwrap()).lines();
    (parent, told)
}

async fn line(told: &mut Lines<BufReader<ChildStderr>>) -> String {
    let line = tokio::time::timeout(Duration::from_secs(30), told.next_line());
    line.await.expect("nobody says anything").unwrap().expect("nobody is there any more")
}

fn played(role: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["processes::plays", "--exact"]).env("ROLE", role).stdout(Stdio::null());
    command
}

/// What the processes run; in the test program itself nothing.
#[tokio::test]
async fn plays() {
    match (std::env::var("ROLE").ok(), std::env::var_os("CHILD").is_some()) {
        (None, _) => {}
        (Some(role), false) => play_parent(&role).await,
        (Some(role), true) => play_child(&role).await,
    }
}

#[expect(clippy::zombie_processes, reason = "a child that outlives its parent is what is played")]
async fn play_parent(child: &str) {
    let connection = Connection::connect(std::env::var_os("DOOR").unwrap()).unwrap();
    let handed_on: OwnedFd = connection.as_fd().try_clone_to_owned().unwrap();
    connection.set_nonblocking(true).unwrap();
    let wire = Wire::over(UnixStream::from_std(connection).unwrap()).await.unwrap();
    let origin = http::Uri::from_static("http://localhost");
    let mut client = SpiffeWorkloadApiClient::with_origin(wire, origin);
    let mut stream = client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap().into_inner();
    let state = next(&mut stream).await.unwrap();
    say(&format!("parent has {}", state.svids[0].spiffe_id));
    played(child).env("CHILD", "").stdin(handed_on).spawn().unwrap();
    // Blocks the one thread, so that nothing here touches the connection any more.
    let _ = std::io::stdin().read(&mut [0]);
}

async fn play_child(role: &str) {
    let connection = Connection::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    connection.set_nonblocking(true).unwrap();
    let mut connection = UnixStream::from_std(connection).unwrap();
    say("child holds");
    if role == "speaking child" {
        // PING (RFC 9113 §6.7), which the server would answer.
        let frame = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        connection.write_all(&frame).await.unwrap();
    }
    let mut has_got = false;
    while connection.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
        if !has_got && role == "silent child" {
            has_got = true;
            say("child got something");
        }
    }
    say("child finds it ended");
}

/// Past the test runner, which keeps what is printed to itself.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
