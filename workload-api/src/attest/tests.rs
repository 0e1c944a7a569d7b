//! Real processes, looked at.

use super::*;
use crate::peer::tests::actor::{self, Actor, Stage};
use deputize_issuer::workload::Selector;
use std::{collections::BTreeSet, process::Command};
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

/// The values of one word, such as `path`, of the kind `unix`.
fn values(workload: &Workload, word: &str) -> BTreeSet<String> {
    let of_unix = workload.selectors().iter().filter(|selector| selector.kind() == "unix");
    let values = of_unix.filter_map(|selector| selector.value().split_once(':'));
    values.filter(|(found, _)| *found == word).map(|(_, value)| value.to_owned()).collect()
}

async fn connected(stage: &Stage, steps: &str) -> (Actor, UnixStream, Peer) {
    let actor = stage.start(steps);
    let stream = stage.accept().await;
    let peer = Peer::of(&stream).unwrap();
    (actor, stream, peer)
}

fn sha256_of(path: &std::path::Path) -> String {
    let told = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(told.stdout).unwrap().split_ascii_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_true_of_a_process_is_told() {
    let stage = Stage::set();
    let (_actor, _stream, peer) = connected(&stage, "connect; await").await;
    let workload = attestor().attest(&peer).await.unwrap();
    let (uid, gid) = stage.own_ids();
    assert_eq!(workload.node().to_string(), "spiffe://example.org/deputize/node/local");
    assert!(has(&workload, &format!("unix:uid:{uid}")) && has(&workload, &format!("unix:gid:{gid}")));
    let program = actor::program();
    assert_eq!(values(&workload, "path"), [program.to_str().unwrap().to_owned()].into());
    assert_eq!(values(&workload, "sha256"), [sha256_of(&program)].into());
    assert_eq!(values(&workload, "uid").len(), 1);
}
