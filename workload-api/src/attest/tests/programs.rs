//! Programs that are replaced, deleted, hidden, and changed by `exec`.

use super::*;
use deputize_issuer::clock::TestClock;
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
};
use tokio::io::AsyncReadExt;

async fn hear(stream: &mut UnixStream, word: &str) {
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, word.as_bytes());
}

#[tokio::test]
async fn after_exec_the_new_program_counts() {
    let stage = Stage::set();
    let other = stage.other_program("other");
    let steps = format!("connect; await; become:{}:send:changed,linger", other.display());
    let (mut actor, mut stream, peer) = connected(&stage, &mut Command::new(program()), &steps).await;
    let attestor = attestor();
    let before = attestor.attest(&peer).await.unwrap();
    assert_eq!(values(&before, "unix", "sha256"), just(sha256_of(&program())));
    actor.go_on();
    hear(&mut stream, "changed").await;
    assert!(!peer.is_gone(), "the process is the same");
    let after = attestor.attest(&peer).await.unwrap();
    assert_eq!(values(&after, "unix", "path"), just(other.to_str().unwrap()));
    assert_eq!(values(&after, "unix", "sha256"), just(sha256_of(&other)));
    assert_ne!(sha256_of(&other), sha256_of(&program()));
}

#[tokio::test]
async fn a_program_that_makes_it_another_user_is_refused() {
    if !is_root() {
        return;
    }
    for (owner, mode) in [("12345:0", 0o4755), ("0:12345", 0o2755)] {
        let stage = Stage::set();
        let other = stage.other_program("changes-user");
        assert!(Command::new("chown").arg(owner).arg(&other).status().unwrap().success());
        fs::set_permissions(&other, fs::Permissions::from_mode(mode)).unwrap();
        let steps = format!("connect; await; become:{}:send:changed,linger", other.display());
        let (mut actor, mut stream, peer) = connected(&stage, &mut Command::new(program()), &steps).await;
        let attestor = attestor();
        assert!(attestor.attest(&peer).await.is_ok());
        actor.go_on();
        hear(&mut stream, "changed").await;
        let status = fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap();
        if !status.contains("\t12345\t") {
            return skip(NO_SET_USER_ID);
        }
        assert_eq!(attestor.attest(&peer).await.unwrap_err(), OTHER_USER, "{owner}");
    }
}

#[tokio::test]
async fn a_deleted_program_has_no_path_and_a_replaced_one_not_its_successors() {
    let stage = Stage::set();
    let other = stage.other_program("short-lived");
    let digest = sha256_of(&other);
    let (_actor, _stream, peer) = waiting(&stage, &other).await;
    let attestor = attestor();
    assert_eq!(values(&attestor.attest(&peer).await.unwrap(), "unix", "path"), just(other.to_str().unwrap()));
    fs::remove_file(&other).unwrap();
    let deleted = attestor.attest(&peer).await.unwrap();
    assert!(values(&deleted, "unix", "path").is_empty());
    assert_eq!(values(&deleted, "unix", "sha256"), just(digest.clone()));
    // The kernel's name for it now.
    fs::write(stage.folder().join("short-lived (deleted)"), "another").unwrap();
    fs::write(&other, "another").unwrap();
    let replaced = attestor.attest(&peer).await.unwrap();
    assert!(values(&replaced, "unix", "path").is_empty());
    assert_eq!(values(&replaced, "unix", "sha256"), just(digest));
}

#[tokio::test]
async fn a_name_that_is_no_text_is_no_path() {
    let stage = Stage::set();
    for name in [OsStr::from_bytes(b"\xff\xfe"), OsStr::new("line\nUid:\t0\t0\t0\t0\n")] {
        let other = stage.other_program(name);
        let mut command = Command::new(&other);
        let (_actor, _stream, peer) = connected(&stage, command.arg0("actor"), "connect; await").await;
        let workload = attestor().attest(&peer).await.unwrap();
        assert!(values(&workload, "unix", "path").is_empty());
        assert_eq!(values(&workload, "unix", "sha256").len(), 1);
        assert_eq!(values(&workload, "unix", "uid"), just(stage.own_ids().0.to_string()));
    }
}

#[tokio::test]
async fn a_program_that_is_too_large_is_not_read() {
    let stage = Stage::set();
    let (_actor, _stream, peer) = waiting(&stage, &program()).await;
    let size = fs::metadata(program()).unwrap().len();
    for (max_executable_bytes, digests) in [(size - 1, 0), (size, 1)] {
        let settings = AttestSettings { max_executable_bytes, ..AttestSettings::default() };
        let workload = attestor_with(settings).attest(&peer).await.unwrap();
        assert_eq!(values(&workload, "unix", "sha256").len(), digests);
        assert_eq!(values(&workload, "unix", "path").len(), 1);
    }
}

#[tokio::test]
async fn what_is_read_for_one_user_in_a_minute_is_bounded() {
    let stage = Stage::set();
    let (_actor, _stream, peer) = waiting(&stage, &program()).await;
    // By this clock the program was changed just now, so it is read each time.
    let clock = Arc::new(TestClock::at_seconds(1));
    let max_executable_bytes = fs::metadata(program()).unwrap().len();
    let settings =
        AttestSettings { max_executable_bytes, clock: Arc::clone(&clock) as _, ..AttestSettings::default() };
    let attestor = attestor_with(settings);
    for digests in [1, 1, 1, 1, 0, 0] {
        let workload = attestor.attest(&peer).await.unwrap();
        assert_eq!(values(&workload, "unix", "sha256").len(), digests);
        assert_eq!(values(&workload, "unix", "path").len(), 1);
    }
    clock.advance(Duration::from_secs(60));
    // While a program is read for a user, no other is.
    let turn = attestor.readers.enter(peer.uid()).await;
    let waits = tokio::time::timeout(Duration::from_millis(300), attestor.attest(&peer)).await;
    assert!(waits.is_err());
    drop(turn);
    assert_eq!(values(&attestor.attest(&peer).await.unwrap(), "unix", "sha256").len(), 1);
}

/// `unshare` becomes the program, so it is the process that was started.
#[tokio::test]
async fn in_another_mount_namespace_a_path_must_mean_the_same_file() {
    if !is_root() {
        return;
    }
    let stage = Stage::set();
    let (shown, evil) = (stage.other_program("trusted"), stage.other_program("evil-program"));
    let mut same = Command::new("unshare");
    same.arg("--mount").arg(&shown);
    let Some((_actor, _stream, peer)) = connected_if_allowed(&stage, &mut same).await else { return };
    let workload = attestor().attest(&peer).await.unwrap();
    assert_eq!(
        values(&workload, "unix", "path"),
        just(shown.to_str().unwrap()),
        "a service of systemd is so"
    );

    let script = "mount --bind \"$0\" \"$1\" && path=\"$1\" && shift && exec \"$path\" \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", script]).arg(&evil).arg(&shown);
    let Some((actor, _stream, peer)) = connected_if_allowed(&stage, &mut hidden).await else { return };
    let named = fs::read_link(format!("/proc/{}/exe", actor.pid())).unwrap();
    assert_eq!(named, shown, "the kernel has the name of what it was mounted over");
    let workload = attestor().attest(&peer).await.unwrap();
    assert!(values(&workload, "unix", "path").is_empty());
    assert_eq!(values(&workload, "unix", "sha256"), just(sha256_of(&evil)));
}
