//! Real processes, looked at.

mod placed;
mod programs;
mod users;

use super::*;
use crate::peer::tests::actor::{
    Actor, IN_USER_NAMESPACE, NO_ADMINISTRATOR, NO_GROUPS, NO_NUMBERS, NO_SET_USER_ID, Stage,
    is_administrator, is_root, program, skip,
};
use deputize_issuer::workload::Selector;
use std::{collections::BTreeSet, path::Path, process::Command};
use tokio::net::UnixStream;

fn attestor() -> Attestor {
    attestor_with(AttestSettings::default())
}

fn attestor_with(settings: AttestSettings) -> Attestor {
    Attestor::new("spiffe://example.org/deputize/node/local".parse().unwrap(), settings)
}

fn has(workload: &Workload, selector: &str) -> bool {
    workload.selectors().contains(&selector.parse::<Selector>().unwrap())
}

/// The values of one word, such as `path`, of one kind, such as `unix`.
fn values(workload: &Workload, kind: &str, word: &str) -> BTreeSet<String> {
    let of_kind = workload.selectors().iter().filter(|selector| selector.kind() == kind);
    let values = of_kind.filter_map(|selector| selector.value().split_once(':'));
    values.filter(|(found, _)| *found == word).map(|(_, value)| value.to_owned()).collect()
}

fn just(value: impl Into<String>) -> BTreeSet<String> {
    [value.into()].into()
}

/// A process that connects, and the connection. Processes of this list stay until they are dropped.
async fn connected(stage: &Stage, command: &mut Command, steps: &str) -> (Actor, UnixStream, Peer) {
    let actor = stage.start_as(command, steps);
    let stream = stage.accept().await;
    let peer = Peer::of(&stream).unwrap();
    (actor, stream, peer)
}

/// As [`connected`], where the command may be one that is not allowed here, and then ends.
async fn connected_if_allowed(stage: &Stage, command: &mut Command) -> Option<(Actor, UnixStream, Peer)> {
    let mut actor = stage.start_as(command, "connect; await");
    let stream = tokio::select! {
        stream = stage.accept() => stream,
        () = actor.ended() => {
            let why = format!("not allowed on this machine: {command:?}");
            skip(if is_administrator() { &why } else { NO_ADMINISTRATOR });
            return None;
        }
    };
    let peer = Peer::of(&stream).unwrap();
    Some((actor, stream, peer))
}

async fn waiting(stage: &Stage, program: &Path) -> (Actor, UnixStream, Peer) {
    connected(stage, &mut Command::new(program), "connect; await").await
}

fn sha256_of(path: &Path) -> String {
    let told = Command::new("sha256sum").arg("--").arg(path).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.trim_start_matches('\\').split_ascii_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_true_of_a_process_is_told() {
    let stage = Stage::set();
    let (_actor, _stream, peer) = waiting(&stage, &program()).await;
    let workload = attestor().attest(&peer).await.unwrap();
    let (uid, gid) = stage.own_ids();
    assert_eq!(workload.node().to_string(), "spiffe://example.org/deputize/node/local");
    assert_eq!(values(&workload, "unix", "uid"), just(uid.to_string()));
    assert_eq!(values(&workload, "unix", "gid"), just(gid.to_string()));
    assert_eq!(values(&workload, "unix", "path"), just(program().to_str().unwrap()));
    assert_eq!(values(&workload, "unix", "sha256"), just(sha256_of(&program())));
    assert_eq!(attestor().attest(&peer).await.unwrap(), workload, "the same twice");
}

#[tokio::test]
async fn of_who_is_gone_nothing_is_told() {
    let stage = Stage::set();
    let (mut actor, _stream, peer) = waiting(&stage, &program()).await;
    let attestor = attestor();
    let folder = Folder::of(&peer).unwrap();
    assert!(folder.examine(&attestor.digests, None).is_ok());
    actor.kill_without_reaping();
    peer.gone().await;
    assert_eq!(attestor.attest(&peer).await.unwrap_err(), NotAttested::Gone, "a zombie");
    actor.reap();
    assert_eq!(attestor.attest(&peer).await.unwrap_err(), NotAttested::Gone);
    assert_eq!(folder.examine(&attestor.digests, None).unwrap_err(), NotAttested::Gone);
}

#[tokio::test]
async fn who_gets_the_number_of_a_dead_process_gets_nothing_else_of_it() {
    let stage = Stage::set();
    let (mut actor, _stream, peer) = waiting(&stage, &program()).await;
    let attestor = attestor();
    let folder = Folder::of(&peer).unwrap();
    actor.kill_without_reaping();
    actor.reap();
    let Some(mut heir) = heir_of(peer.pid()) else {
        return skip(NO_NUMBERS);
    };
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", peer.pid())).unwrap();
    assert_eq!(comm.trim(), "sleep", "the number is in use again");
    assert_eq!(attestor.attest(&peer).await.unwrap_err(), NotAttested::Gone);
    assert_eq!(Folder::of(&peer).unwrap_err(), NotAttested::Gone);
    assert_eq!(
        folder.examine(&attestor.digests, None).unwrap_err(),
        NotAttested::Gone,
        "a folder held open is not the heir's"
    );
    heir.kill().unwrap();
    heir.wait().unwrap();
}

/// Starts processes until one has this number, if the kernel lets us say which number is next.
fn heir_of(pid: i32) -> Option<std::process::Child> {
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        if child.id() == pid.cast_unsigned() {
            // Until it has become the other program it is a copy of this one.
            while std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() != "sleep" {
                std::thread::yield_now();
            }
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}
