//! What must be refused at the socket of the Workload API, against a running broker. After each attempt the next honest
//! request works.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    process::run,
    raw_http2::{Came, block, request, send},
    spiffe_lab::{FOREIGN, SpiffeLab, TRUST_DOMAIN, program},
    workload_api::{Connection, JwtSvidRequest, JwtSvidResponse, X509SvidResponse, join_queue},
};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

/// How many identities this process gets: the honest request.
async fn identities(lab: &SpiffeLab) -> Result<usize, String> {
    let connection = Connection::open(&lab.socket).await.map_err(|ended| ended.to_string())?;
    let first = connection.first::<X509SvidResponse>("FetchX509SVID", Some("true")).await;
    first.map(|told| told.svids.len()).map_err(|ended| ended.to_string())
}

/// What a process gets that is not what it was when it connected.
fn crooked(lab: &SpiffeLab, mode: &str, executable: &str) -> Value {
    let bytes: String = request(&block(&[]), 16_384).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new(system_python());
    command.arg(program("crooked.py")).args([mode, lab.socket.to_str().unwrap(), &bytes, executable]);
    let said = tokio::task::block_in_place(|| lab.run(&mut command));
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{mode} said {said:?}"))
}

/// The interpreter itself, whatever links lead to it.
fn system_python() -> PathBuf {
    let mut command = Command::new("python3");
    let output =
        command.args(["-c", "import os, sys; print(os.path.realpath(sys.executable))"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_inherits_a_connection_gets_nothing_over_it() {
    let lab = SpiffeLab::start().await;
    assert_eq!(crooked(&lab, "straight", "")["messages"], true, "whoever connected is answered");
    for mode in ["inherited", "orphaned"] {
        assert_eq!(crooked(&lab, mode, ""), json!({ "messages": false, "closed": true }), "{mode}");
    }
    assert_eq!(identities(&lab).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_became_another_program_after_it_connected_is_that_one() {
    let lab = SpiffeLab::start_with(&json!({ "entries": "by-path" })).await;
    let python = system_python();
    let other = lab.world.folder().join("another-program");
    std::fs::copy(&python, &other).unwrap();
    let entry = json!({
        "id": "python", "spiffe_id": "spiffe://example.org/python",
        "selectors": [format!("unix:path:{}", python.display())],
    });
    std::fs::write(lab.world.folder().join("by-path/python.yaml"), entry.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
    assert_eq!(crooked(&lab, "straight", "")["messages"], true);
    let replaced = crooked(&lab, "replaced", other.to_str().unwrap());
    assert_eq!(replaced, json!({ "messages": false, "closed": true }));
    assert_eq!(crooked(&lab, "straight", "")["messages"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_leave_the_door_open() {
    let lab = SpiffeLab::start().await;
    let opening = async {
        for _ in 0..10_000 {
            join_queue(&lab.socket).await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), opening).await.unwrap();
    assert_eq!(identities(&lab).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_may_come_in_many_frames_and_must_not_be_large() {
    let lab = SpiffeLab::start().await;
    assert_eq!(send(&lab.socket, &request(&block(&[]), 64)).await, Came::Message, "split into CONTINUATION");
    assert_eq!(send(&lab.socket, &request(&block(&[]), 1)).await, Came::End, "a flood of CONTINUATION");
    let large = "x".repeat(1 << 20);
    assert_eq!(send(&lab.socket, &request(&block(&[("x-large", &large)]), 16_384)).await, Came::End);
    assert_eq!(identities(&lab).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_identity_is_given_for_an_id_that_is_none() {
    let lab = SpiffeLab::start().await;
    let connection = Connection::open(&lab.socket).await.unwrap();
    for id in [
        "spiffe://example.org/MyService".to_owned(),
        "spiffe://EXAMPLE.org/myservice".to_owned(),
        "spiffe://example.org/%6dyservice".to_owned(),
        "spiffe://example.org/x/../myservice".to_owned(),
        "spiffe://example.org//myservice".to_owned(),
        "spiffe://example.org/myservice/".to_owned(),
        "spiffe://example.org:443/myservice".to_owned(),
        "spiffe://example.org/myservice?x".to_owned(),
        format!("spiffe://example.org/{}", "m".repeat(2028)),
        "spiffe://example.org/myservicé".to_owned(),
    ] {
        let asked = JwtSvidRequest { audience: vec!["reports".to_owned()], spiffe_id: id.clone() };
        let answer: Result<JwtSvidResponse, _> =
            connection.ask_once("FetchJWTSVID", Some("true"), &asked).await;
        let code = answer.expect_err(&id).code();
        // InvalidArgument, or PermissionDenied for what is an ID, if not one of this process.
        assert!(matches!(code, Some(3 | 7)), "{id}: {code:?}");
    }
    assert_eq!(identities(&lab).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_goes_ends_the_streams_of_whoever_had_it() {
    let lab = SpiffeLab::start().await;
    let connection = Connection::open(&lab.socket).await.unwrap();
    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let mut stream =
        connection.ask::<X509SvidResponse>("FetchX509SVID", Some("true"), &nothing).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 2);
    std::fs::remove_file(lab.world.folder().join("entries/myservice2.yaml")).unwrap();
    lab.world.reload(&lab.started).await;
    assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 1, "what is redacted is absent");
    std::fs::remove_file(lab.world.folder().join("entries/myservice.yaml")).unwrap();
    lab.world.reload(&lab.started).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Some(7), "PermissionDenied");
    assert_eq!(identities(&lab).await.unwrap_err().split(' ').next(), Some("PermissionDenied"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_made_where_nobody_else_can_put_another() {
    let lab = SpiffeLab::start().await;
    let (folder, config) = (lab.world.folder().to_owned(), lab.world.config());
    lab.started.process.terminate();
    lab.started.process.ended().await;
    let refused = async || {
        let process = lab.world.spawn(&config);
        assert!(!process.ended().await.success(), "{}", process.said());
    };
    let _ = std::fs::remove_file(&lab.socket);
    std::os::unix::fs::symlink(folder.join("elsewhere.sock"), &lab.socket).unwrap();
    refused().await;
    std::fs::remove_file(&lab.socket).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o770)).unwrap();
    refused().await;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    let started = lab.world.start_again(&config).await;
    started.process.wait_until(async || identities(&lab).await == Ok(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federation_with_ourselves_or_with_what_is_no_bundle_is_refused() {
    let lab = SpiffeLab::start().await;
    let config = lab.world.config();
    let original: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let lint = |federation: Value| {
        let mut changed = original.clone();
        changed["spiffe"]["federation"] = federation;
        std::fs::write(&config, changed.to_string()).unwrap();
        run(&["lint", "--config", config.to_str().unwrap()])
    };
    std::fs::write(lab.world.folder().join("rubbish.json"), "{\"keys\": [").unwrap();
    std::fs::write(lab.world.folder().join("empty.json"), "{\"keys\": []}").unwrap();
    let of = |domain: &str, file: &str| json!({ "trust_domain": domain, "bundle_file": file });
    let good = of(FOREIGN, "foreign.json");
    let (success, said, complained) = lint(json!([good]));
    assert!(success, "{said}{complained}");
    for (federation, reason) in [
        (json!([of(TRUST_DOMAIN, "foreign.json")]), "our own trust domain"),
        (json!([good, good]), "twice"),
        (json!([of("Other.example", "foreign.json")]), "small letters"),
        (json!([of("other.example", "rubbish.json")]), "a bundle is a strict JSON object"),
        (json!([of("other.example", "empty.json")]), "there is no authority"),
        (json!([of("other.example", "missing.json")]), "missing.json"),
    ] {
        let (success, said, complained) = lint(federation);
        assert!(!success && (said.clone() + &complained).contains(reason), "{reason}: {said}{complained}");
    }
    // A running broker keeps what it has.
    assert_eq!(identities(&lab).await, Ok(2));
}
