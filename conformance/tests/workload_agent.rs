//! Nodes other than the broker's own: a broker and agents as processes, over TLS on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_conformance::{
    forge::now,
    node_lab::{Agent, NodeLab, node_id, shown},
    trust::{Authority, write_private},
    workload_api::{Connection, JwtSvidRequest, JwtSvidResponse, X509SvidResponse},
};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use reqwest::Client;
use serde_json::{Value, json};
use std::time::Duration;

/// A certificate signing request for this ID, and its key: both base64 of DER.
fn request(id: Option<&str>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = id.map(|id| SanType::URI(id.try_into().unwrap())).into_iter().collect();
    let request = params.serialize_request(&key).unwrap();
    (STANDARD.encode(request.der()), STANDARD.encode(key.serialize_der()))
}

/// This process, as an agent would tell of it.
fn process() -> Value {
    use std::os::unix::fs::MetadataExt as _;
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    json!({ "selectors": [format!("unix:uid:{uid}")], "contained": false })
}

/// The next line of a stream of states that is a state.
async fn state(stream: &mut reqwest::Response, buffer: &mut Vec<u8>) -> Option<Value> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line: Value = serde_json::from_slice(&line).unwrap();
            if line["state"].is_object() {
                return Some(line["state"].clone());
            }
            continue;
        }
        let chunk = tokio::time::timeout(Duration::from_secs(30), stream.chunk()).await.unwrap();
        buffer.extend_from_slice(&chunk.ok()??);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_becomes_a_node_and_its_processes_get_their_identities() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("early", &node_id("edge-1")).await;
    let agent = lab.joined("edge-1").await;
    let told = agent.svids().await.unwrap();
    assert_eq!(told.svids.len(), 1, "those of the broker's own node are not this one's");
    assert_eq!(told.svids[0].spiffe_id, "spiffe://example.org/early");
    let connection = Connection::open(&agent.socket).await.unwrap();
    let asked = JwtSvidRequest { audience: vec!["reports".to_owned()], spiffe_id: String::new() };
    let fetch = async || -> JwtSvidResponse {
        connection.ask_once("FetchJWTSVID", Some("true"), &asked).await.unwrap()
    };
    let (first, again) = (fetch().await, fetch().await);
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/early");
    assert_eq!(first.svids[0].svid, again.svids[0].svid, "kept until half of its life is over");

    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let mut stream =
        connection.ask::<X509SvidResponse>("FetchX509SVID", Some("true"), &nothing).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 1);
    let pushed = async {
        lab.entry("late", &node_id("edge-1")).await;
        stream.next().await.unwrap().unwrap()
    };
    let pushed =
        tokio::time::timeout(Duration::from_secs(1), pushed).await.expect("pushed in less than a second");
    assert_eq!(pushed.svids.len(), 2);

    let listed = lab.lab.deputize(&["node", "ls", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["id"], node_id("edge-1"));
    assert_eq!((&listed[0]["state"], &listed[0]["attestation"]), (&json!("attested"), &Value::Null));
    assert_eq!(listed[0]["attested"]["attestation"], "join_token");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let attested = records.iter().find(|record| record["spiffe"]["attested"] == "join_token").unwrap();
    assert_eq!(
        (&attested["kind"], &attested["spiffe"]["spiffe_id"]),
        (&json!("intent"), &json!(node_id("edge-1")))
    );
    let of_node = |record: &&Value| record["spiffe"]["entry"] == "early" && record["kind"] == "intent";
    assert!(records.iter().filter(of_node).all(|record| record["spiffe"]["node"] == node_id("edge-1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hears_of_its_own_entries_alone_and_no_key_crosses_the_wire() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("mine", &node_id("edge-1")).await;
    lab.entry("others", &node_id("edge-2")).await;
    let agent = lab.joined("edge-1").await;
    let client = lab.as_agent(&agent);
    let mut stream = client.get(lab.url("/node/watch")).send().await.unwrap();
    let mut buffer = Vec::new();
    let first = state(&mut stream, &mut buffer).await.unwrap();
    let ids = |state: &Value| -> Vec<String> {
        state["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!((ids(&first), first["version"].as_u64()), (vec!["mine".to_owned()], Some(1)));
    assert!(!first.to_string().contains("edge-"), "no node's name is in it: {first}");
    lab.entry("others-too", &node_id("edge-2")).await;
    lab.entry("mine-too", &node_id("edge-1")).await;
    let second = state(&mut stream, &mut buffer).await.unwrap();
    assert_eq!(
        (ids(&second), second["version"].as_u64()),
        (vec!["mine".to_owned(), "mine-too".to_owned()], Some(2))
    );

    let (csr, _) = request(Some("spiffe://example.org/mine"));
    let body = json!({ "entry": "mine", "process": process(), "csr": csr });
    let (status, answer) = lab.ask(&client, "/node/x509-svid", &body).await;
    assert_eq!(status, 200, "{answer}");
    let members: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["spiffe_id", "chain", "not_before", "not_after", "hint", "authorities"]);
    // `id-ecPublicKey` in a PKCS#8 envelope begins so, in each of the three ways that base64 can cut it.
    for secret in ["PRIVATE KEY", "MIGHAgEAMBMGByqGSM49", "AwgYcCAQAwEwYHKoZIzj0"] {
        assert!(![&first, &second, &answer].iter().any(|said| said.to_string().contains(secret)), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_serves_on_while_the_broker_is_away_and_comes_back_to_it() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("early", &node_id("edge-1")).await;
    let agent = lab.joined("edge-1").await;
    let before = agent.svids().await.unwrap();
    lab.lab.started.process.kill();
    let during = agent.svids().await.unwrap();
    assert_eq!(before.svids[0].x509_svid, during.svids[0].x509_svid);
    assert!(!during.svids[0].bundle.is_empty());
    let again = lab.lab.world.start_again(&lab.lab.world.config()).await;
    lab.entry("late", &node_id("edge-1")).await;
    agent.until_it_gives("late").await;
    assert!(again.process.id() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_known_again_after_a_restart_without_another_token() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("mine", &node_id("edge-1")).await;
    let agent = lab.joined("edge-1").await;
    agent.process.terminate();
    assert!(agent.process.ended().await.success(), "{}", agent.process.said());
    let data = agent.folder.join("data");
    let again = lab.agent("edge-1", &["--data-dir", shown(&data)]);
    again.ready().await;
    assert_eq!(again.svids().await.unwrap().svids.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(data.join("node.json")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_good_once() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    let token = lab.token("edge-1").await;
    let attest = async |token: &str| {
        let (csr, _) = request(None);
        lab.ask(&lab.nobody(), "/node/attest", &json!({ "csr": csr, "join_token": token })).await
    };
    // What cannot be signed uses nothing up.
    let (status, answer) =
        lab.ask(&lab.nobody(), "/node/attest", &json!({ "csr": "AAAA", "join_token": token })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    let (one, other) = tokio::join!(attest(&token), attest(&token));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401], "of two at once one has it: {one:?} {other:?}");
    assert_eq!(attest(&token).await.0, 401, "and nobody later");
    for bad in ["", "deputize-join-", "x", &token.replace("deputize", "Deputize"), &format!("{token}A")] {
        let (status, answer) = attest(bad).await;
        assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "{bad}");
    }
    assert_eq!(attest(&lab.token("edge-2").await).await.0, 200, "the next honest one works");
    let listed: Value = serde_json::from_str(&lab.lab.deputize(&["node", "ls", "-o", "json"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_agents_with_one_join_token_one_is_the_node() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("mine", &node_id("edge-1")).await;
    let token = lab.lab.world.folder().join("token");
    write_private(&token, &lab.token("edge-1").await);
    let agents = ["one", "other"].map(|name| lab.agent(name, &["--join-token-file", shown(&token)]));
    let [one, other] = &agents;
    let (winner, loser) = tokio::select! {
        status = one.process.ended() => { assert_eq!(status.code(), Some(3)); (other, one) }
        status = other.process.ended() => { assert_eq!(status.code(), Some(3)); (one, other) }
    };
    assert!(loser.process.said().contains("deputize node token"), "{}", loser.process.said());
    winner.ready().await;
    assert_eq!(winner.svids().await.unwrap().svids.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_ends() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    let answer = lab.order("token", &json!({ "node": "edge-1", "ttl_seconds": 1 })).await.json();
    while now() < answer["expires_at"].as_i64().unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (csr, _) = request(None);
    let body = json!({ "csr": csr, "join_token": answer["join_token"] });
    let (status, answer) = lab.ask(&lab.nobody(), "/node/attest", &body).await;
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")));
    let (csr, _) = request(None);
    let body = json!({ "csr": csr, "join_token": lab.token("edge-1").await });
    assert_eq!(lab.ask(&lab.nobody(), "/node/attest", &body).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_goes_ends_the_streams_of_its_processes_on_other_nodes_too() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("mine", &node_id("edge-1")).await;
    let agent = lab.joined("edge-1").await;
    let connection = Connection::open(&agent.socket).await.unwrap();
    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let mut stream =
        connection.ask::<X509SvidResponse>("FetchX509SVID", Some("true"), &nothing).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 1);
    let deleted = lab.lab.world.order("DELETE", "/admin/entries/mine", &json!({})).await;
    assert_eq!(deleted.status, 200);
    assert_eq!(stream.next().await.unwrap_err().code(), Some(7), "PermissionDenied");
    lab.entry("mine", &node_id("edge-1")).await;
    agent.until_it_gives("mine").await;
}

/// An agent that proves itself by a certificate of this authority.
fn by_certificate(lab: &NodeLab, name: &str) -> Agent {
    let folder = lab.lab.world.folder();
    let (certificate, key) = (folder.join("machine.pem"), folder.join("machine.key"));
    lab.agent(name, &["--certificate", shown(&certificate), "--key", shown(&key)])
}

/// A lab whose machines prove themselves by certificates, their authority with its file, and a machine's node.
async fn machines() -> (NodeLab, (Authority, tempfile::NamedTempFile), String) {
    let authority = Authority::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    let lab = NodeLab::start(&json!({ "x509pop": { "authority_file": file.path() } })).await;
    let machine = authority.certify_client("machine-1");
    machine.write(lab.lab.world.folder(), "machine");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, machine.der());
    let fingerprint: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (lab, (authority, file), format!("x509pop/{fingerprint}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_node_is_none_until_that_is_lifted() {
    let (lab, _authority, node) = machines().await;
    lab.entry("mine", &node_id(&node)).await;
    let agent = by_certificate(&lab, "one");
    agent.ready().await;
    let connection = Connection::open(&agent.socket).await.unwrap();
    let nothing = JwtSvidRequest { audience: Vec::new(), spiffe_id: String::new() };
    let mut stream =
        connection.ask::<X509SvidResponse>("FetchX509SVID", Some("true"), &nothing).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().svids.len(), 1);
    assert!(lab.lab.deputize(&["node", "ban", &node]).contains("is banned"));
    assert_eq!(stream.next().await.unwrap_err().code(), Some(7), "PermissionDenied");
    let refused = by_certificate(&lab, "again").process.ended().await;
    assert_eq!(refused.code(), Some(3), "the same certificate makes no node");
    assert_eq!(lab.order("lift", &json!({ "node": "never-banned" })).await.status, 409);
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let denials =
        records.iter().filter(|record| record["reason"] == "node_banned" && record["node"] == node_id(&node));
    assert!(denials.count() >= 1, "its refusals are on record");
    assert!(records.iter().any(|record| record["kind"] == "node" && record["result"] == "banned"));
    assert!(lab.lab.deputize(&["node", "show", &node]).contains("banned since"));
    // It stays so over a restart, until it is lifted.
    lab.lab.started.process.kill();
    let _again = lab.lab.world.start_again(&lab.lab.world.config()).await;
    assert_eq!(by_certificate(&lab, "third").process.ended().await.code(), Some(3));
    lab.lab.deputize(&["node", "ban", "--lift", &node]);
    agent.until_it_gives("mine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_attests_itself_anew_replaces_the_former_one() {
    let (lab, _authority, node) = machines().await;
    lab.entry("mine", &node_id(&node)).await;
    let data = lab.lab.world.folder().join("agents/one/data");
    let folder = lab.lab.world.folder();
    let (certificate, key) = (folder.join("machine.pem"), folder.join("machine.key"));
    let one = lab.agent(
        "one",
        &["--certificate", shown(&certificate), "--key", shown(&key), "--data-dir", shown(&data)],
    );
    one.ready().await;
    let former = lab.as_agent(&one);
    let mut stream = former.get(lab.url("/node/watch")).send().await.unwrap();
    let mut buffer = Vec::new();
    assert!(state(&mut stream, &mut buffer).await.is_some());
    one.process.kill();
    let other = by_certificate(&lab, "other");
    other.ready().await;
    assert_eq!(other.svids().await.unwrap().svids.len(), 1);
    assert_eq!(state(&mut stream, &mut buffer).await, None, "the stream of the former SVID ends");
    let refused = former.get(lab.url("/node/watch")).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    lab.lab.deputize(&["node", "evict", &node]);
    let (before, _) = lab.lab.world.log(0).await;
    // It proves itself anew, by itself.
    lab.entry("later", &node_id(&node)).await;
    other.until_it_gives("later").await;
    let (after, _) = lab.lab.world.log(before.len() as u64).await;
    assert!(after.iter().any(|record| record["spiffe"]["attested"] == "x509pop"), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_the_authority_of_machines_make_nodes() {
    let (lab, (authority, _file), _) = machines().await;
    let good = authority.certify_client("machine-2");
    let encoded = |pem: &str| pem.lines().filter(|line| !line.starts_with("---")).collect::<String>();
    let attest = async |client: &Client| {
        let (csr, _) = request(None);
        lab.ask(client, "/node/attest", &json!({ "csr": csr })).await.0
    };
    for (what, certificate) in [
        ("another authority's", Authority::new().certify_client("machine-2")),
        ("a server's", authority.certify()),
        ("the broker's own", lab.lab.world.authority.certify()),
    ] {
        let shown = lab.showing(&[&STANDARD.encode(certificate.der())], &encoded(&certificate.key_pem));
        assert_eq!(attest(&shown).await, 401, "{what}");
    }
    assert_eq!(attest(&lab.nobody()).await, 401, "none");
    let (csr, _) = request(None);
    let body =
        json!({ "csr": csr, "join_token": "deputize-join-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
    assert_eq!(lab.ask(&lab.nobody(), "/node/attest", &body).await.0, 401, "join tokens are not taken here");
    assert_eq!(lab.order("token", &json!({ "node": "edge-1" })).await.status, 400, "and not made");
    let shown = lab.showing(&[&STANDARD.encode(good.der())], &encoded(&good.key_pem));
    assert_eq!(attest(&shown).await, 200);
}

/// A certificate with this SPIFFE ID, under an authority of its own of that trust domain.
fn forged(lab: &NodeLab, trust_domain: &str, id: &str) -> Client {
    let uri = |id: &str| vec![SanType::URI(id.try_into().unwrap())];
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = uri(&format!("spiffe://{trust_domain}"));
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = uri(id);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    lab.showing(&[&STANDARD.encode(leaf.der())], &STANDARD.encode(key.serialize_der()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_as_a_node_that_he_is_not() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    lab.entry("mine", &node_id("edge-1")).await;
    lab.entry("others", &node_id("edge-2")).await;
    let agent = lab.joined("edge-1").await;
    let _other = lab.joined("edge-2").await;
    let client = lab.as_agent(&agent);
    let (csr, key) = request(Some("spiffe://example.org/mine"));
    let asked = json!({ "entry": "mine", "process": process(), "csr": csr });
    let (status, svid) = lab.ask(&client, "/node/x509-svid", &asked).await;
    assert_eq!(status, 200, "{svid}");
    let chain: Vec<&str> =
        svid["chain"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for (who, stranger) in [
        ("without a certificate", lab.nobody()),
        (
            "a node of another trust domain",
            forged(&lab, "other.org", "spiffe://other.org/deputize/node/edge-1"),
        ),
        (
            "a node of a federated one",
            forged(&lab, "example-federated.org", "spiffe://example-federated.org/deputize/node/edge-1"),
        ),
        ("a node of another's making", forged(&lab, "example.org", &node_id("edge-1"))),
        ("a workload of this node", lab.showing(&chain, &key)),
    ] {
        for path in ["/node/x509-svid", "/node/jwt-svid", "/node/renew", "/node/denied"] {
            let (status, answer) = lab.ask(&stranger, path, &asked).await;
            assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "{who}, {path}");
        }
        assert_eq!(stranger.get(lab.url("/node/watch")).send().await.unwrap().status(), 401, "{who}");
    }
    let with = |member: &str, value: Value| {
        let mut changed = asked.clone();
        changed[member] = value;
        changed
    };
    for (what, body, expected) in [
        ("another node's entry", with("entry", json!("others")), (400, "access_denied")),
        ("no entry", with("entry", json!("nobodys")), (400, "access_denied")),
        (
            "another process",
            with("process", json!({ "selectors": ["unix:uid:4"], "contained": false })),
            (400, "access_denied"),
        ),
        (
            "a CSR for another ID",
            with("csr", json!(request(Some("spiffe://example.org/others")).0)),
            (400, "invalid_request"),
        ),
        ("a node in the body", with("node", json!(node_id("edge-2"))), (400, "invalid_request")),
        (
            "a selector that is none",
            with("process", json!({ "selectors": ["x"], "contained": false })),
            (400, "invalid_request"),
        ),
    ] {
        let (status, answer) = lab.ask(&client, "/node/x509-svid", &body).await;
        assert_eq!((status, answer["error"].as_str().unwrap()), expected, "{what}: {answer}");
    }
    let (csr, _) = request(Some(&node_id("edge-2")));
    let (status, answer) = lab.ask(&client, "/node/renew", &json!({ "csr": csr })).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")), "another node's SVID");
    let forwarded = client
        .post(lab.url("/node/x509-svid"))
        .header("x-forwarded-client-cert", "URI=spiffe://example.org/deputize/node/edge-2");
    let forwarded =
        forwarded.header("content-type", "application/json").body(with("entry", json!("others")).to_string());
    assert_eq!(forwarded.send().await.unwrap().status(), 400, "a header says nothing");
    assert_eq!(lab.ask(&client, "/node/x509-svid", &asked).await.0, 200, "the next honest one works");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let minted = |entry: &str| {
        records
            .iter()
            .filter(|record| record["kind"] == "intent" && record["spiffe"]["entry"] == entry)
            .count()
    };
    assert_eq!(minted("others"), 0, "nothing was minted for anybody");
}
