//! Delegated exchange on nodes other than the broker's own: by the socket of an agent, and by whoever asks the broker in its
//! place.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    attested_agent::fields,
    forge::{Key, claims, now, unique},
    node_lab::{Agent, NodeLab, node_id, shown},
    process::run,
    trust::write_private,
    world::{CRM, LEDGER},
};
use reqwest::Client;
use serde_json::{Value, json};
use std::{os::unix::fs::MetadataExt as _, time::Duration};

const WEB: &str = "spiffe://example.org/web";

/// Writes an entry for this user's processes on this node into its file, and has the broker read it.
async fn register(lab: &NodeLab, id: &str, node: &str, exchange: &Value) {
    let entry = json!({
        "id": id, "spiffe_id": format!("spiffe://example.org/{id}"), "nodes": [node_id(node)],
        "selectors": [uid()], "exchange": exchange,
    });
    let file = lab.lab.world.folder().join(format!("entries/{id}.yaml"));
    std::fs::write(file, entry.to_string()).unwrap();
    lab.lab.world.reload(&lab.lab.started).await;
}

fn allowed() -> Value {
    let may_call = json!([{ "resource": CRM, "tools": ["refund_payment"] }]);
    json!({ "tenant": "acme", "subject_audiences": ["desk-app"], "may_call": may_call })
}

fn uid() -> String {
    format!("unix:uid:{}", std::fs::metadata("/proc/self").unwrap().uid())
}

/// Asks at this agent's socket, as an operator would try it: whether it worked, what was printed, and what was complained of.
fn exchange(lab: &NodeLab, agent: &Agent, resource: &str, more: &[&str]) -> (bool, String, String) {
    let token = lab.lab.world.folder().join("user.jwt");
    write_private(&token, &lab.lab.world.user_token("alice"));
    let mut all = vec!["exchange", "--workload-api", shown(&agent.socket), "--issuer", &lab.lab.world.base];
    all.extend(["--subject-token", shown(&token), "--resource", resource, "--tool", "refund_payment"]);
    all.extend(["--arguments", r#"{"payment_id":"pay_81","amount_cents":4200}"#, "-o", "json"]);
    all.extend(more);
    tokio::task::block_in_place(|| run(&all))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_on_another_node_swaps_its_users_token_as_at_the_brokers_own_socket() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    register(&lab, "web", "edge-1", &allowed()).await;
    register(&lab, "plain", "edge-1", &Value::Null).await;
    let agent = lab.joined("edge-1").await;
    let (granted, said, complained) = exchange(&lab, &agent, CRM, &[]);
    assert!(granted, "{said}{complained}");
    let said: Value = serde_json::from_str(&said).unwrap();
    let token = claims(said["access_token"].as_str().unwrap());
    assert_eq!(
        (&token["act"], &token["client_id"], &token["aud"]),
        (&json!({ "sub": WEB }), &json!(WEB), &json!(CRM))
    );
    let (log, _) = lab.lab.world.log(0).await;
    let intent = log.iter().find(|entry| entry["decision"] == said["decision_id"]).unwrap();
    assert_eq!(
        (&intent["spiffe"]["entry"], &intent["spiffe"]["node"], &intent["spiffe"]["reported_by_node"]),
        (&json!("web"), &json!(node_id("edge-1")), &json!(true))
    );
    assert!(intent["spiffe"]["asked_by"].to_string().contains(&uid()), "{intent}");
    let story = lab.lab.deputize(&["explain", said["decision_id"].as_str().unwrap()]);
    for part in ["✔ granted", WEB, "edge-1", "as its node says", "minted"] {
        assert!(story.contains(part), "{part}: {story}");
    }

    let plain = ["--spiffe-id", "spiffe://example.org/plain"];
    for (what, resource, more, word) in [
        ("a server beyond the entry", LEDGER, &[][..], "invalid_target"),
        ("an entry without exchange", CRM, &plain[..], "access_denied"),
    ] {
        let (granted, said, complained) = exchange(&lab, &agent, resource, more);
        assert!(!granted && complained.contains(word), "{what}: {said}{complained}");
        let told = complained.split("deputize explain ").nth(1).unwrap_or_default();
        let decision: String = told.chars().take_while(|c| *c == '-' || c.is_ascii_hexdigit()).collect();
        let story = lab.lab.deputize(&["explain", &decision]);
        assert!(story.contains("as its node says"), "{what}: the decision is known here: {story}");
    }
    lab.lab.started.process.kill();
    let asked = tokio::spawn(async move { exchange(&lab, &agent, CRM, &[]) });
    let answered = tokio::time::timeout(Duration::from_secs(5), asked).await;
    let (granted, said, complained) = answered.expect("at once").unwrap();
    assert!(!granted && complained.contains("the broker cannot be asked now"), "{said}{complained}");
}

/// Who asks the broker itself, with a key for proofs.
struct Asker<'l> {
    lab: &'l NodeLab,
    client: Client,
    key: Key,
}

impl Asker<'_> {
    /// A proof for the exchange at sockets, with this nonce.
    fn proof(&self, htu: &str, nonce: &str) -> String {
        let htu = format!("{}{htu}", self.lab.lab.world.base);
        let claims = json!({ "htm": "POST", "htu": htu, "iat": now(), "jti": unique(), "nonce": nonce });
        self.key.proof(&claims)
    }

    /// What a good agent sends, with this proof.
    fn body(&self, proof: &str) -> Value {
        let token = self.lab.lab.world.user_token("alice");
        let arguments = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
        let mut request = fields(&token, CRM, "refund_payment", &arguments);
        request["dpop"] = json!(proof);
        json!({ "entry": "web", "process": { "selectors": [uid()], "contained": false }, "request": request })
    }

    /// Status, nonce and body of the answer.
    async fn send(&self, body: &Value) -> (u16, String, Value) {
        let request =
            self.client.post(self.lab.url("/node/exchange")).header("content-type", "application/json");
        let response = request.body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let nonce = response.headers().get("dpop-nonce").map(|it| it.to_str().unwrap().to_owned());
        let answer = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
        (status, nonce.unwrap_or_default(), answer)
    }

    async fn nonce(&self) -> String {
        let (status, nonce, answer) =
            self.send(&self.body(&self.proof("/spiffe/exchange", "bm9ib2R5"))).await;
        assert_eq!((status, &answer["error"]), (400, &json!("use_dpop_nonce")), "{answer}");
        nonce
    }

    /// A good request with a fresh proof.
    async fn good(&self) -> Value {
        self.body(&self.proof("/spiffe/exchange", &self.nonce().await))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_exchanges_for_its_own_entries_alone_and_only_as_long_as_it_is_one() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    register(&lab, "web", "edge-1", &allowed()).await;
    register(&lab, "plain", "edge-1", &Value::Null).await;
    register(&lab, "others", "edge-2", &allowed()).await;
    let agent = lab.joined("edge-1").await;
    let asker = Asker { lab: &lab, client: lab.as_agent(&agent), key: Key::es256() };
    let (status, _, granted) = asker.send(&asker.good().await).await;
    assert_eq!(status, 200, "{granted}");
    assert_eq!(claims(granted["access_token"].as_str().unwrap())["act"]["sub"], WEB);

    let used = asker.good().await;
    assert_eq!(asker.send(&used).await.0, 200);
    let nonce = asker.nonce().await;
    let good = || asker.body(&asker.proof("/spiffe/exchange", &nonce));
    let with = |pointer: &str, value: Value| {
        let mut body = good();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[member] = value;
        body
    };
    let mut beyond = good();
    for (name, value) in
        fields(&lab.lab.world.user_token("alice"), LEDGER, "list_entries", &json!({})).as_object().unwrap()
    {
        beyond["request"][name] = value.clone();
    }
    let process = |selector: &str| json!({ "selectors": [selector], "contained": false });
    for (what, body, expected) in [
        ("another node's entry", with("/entry", json!("others")), (400, "access_denied")),
        ("nobody's entry", with("/entry", json!("nobodys")), (400, "access_denied")),
        ("an entry without exchange", with("/entry", json!("plain")), (400, "access_denied")),
        ("another process", with("/process", process("unix:uid:4")), (400, "access_denied")),
        ("a selector that is none", with("/process", process("x")), (400, "invalid_request")),
        ("a node in the body", with("/node", json!(node_id("edge-2"))), (400, "invalid_request")),
        ("a client in the request", with("/request/client_id", json!("desk")), (400, "invalid_request")),
        ("no token", with("/request/subject_token", json!("")), (400, "invalid_request")),
        ("a server beyond the entry", beyond, (400, "invalid_target")),
        ("no proof", with("/request/dpop", json!("")), (400, "invalid_dpop_proof")),
        (
            "a proof for the token endpoint",
            asker.body(&asker.proof("/token", &nonce)),
            (400, "invalid_dpop_proof"),
        ),
        ("a proof that was used", used, (400, "invalid_dpop_proof")),
        (
            "longer than a socket takes",
            with("/request/model", json!("m".repeat(81 * 1024))),
            (413, "invalid_request"),
        ),
        ("longer than any", with("/request/model", json!("m".repeat(512 * 1024))), (413, "invalid_request")),
    ] {
        let (status, fresh, answer) = asker.send(&body).await;
        assert_eq!((status, answer["error"].as_str().unwrap()), expected, "{what}: {answer}");
        assert!(
            answer["decision_id"].is_string() && answer.get("access_token").is_none(),
            "{what}: {answer}"
        );
        assert_eq!(!fresh.is_empty(), expected.1 == "invalid_dpop_proof", "{what}: what helps is told");
    }
    let stranger = Asker { lab: &lab, client: lab.nobody(), key: Key::es256() };
    let (status, _, answer) = stranger.send(&good()).await;
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "without a node's SVID");
    assert_eq!(asker.send(&good()).await.0, 200, "the next honest one works");

    assert_eq!(lab.order("ban", &json!({ "node": "edge-1" })).await.status, 200);
    let (status, _, answer) = asker.send(&good()).await;
    assert_eq!((status, &answer["error"]), (400, &json!("access_denied")), "banned");
    let (granted, said, complained) = exchange(&lab, &agent, CRM, &[]);
    assert!(!granted, "at its agent too: {said}{complained}");
    assert_eq!(lab.order("lift", &json!({ "node": "edge-1" })).await.status, 200);
    assert_eq!(lab.order("evict", &json!({ "node": "edge-1" })).await.status, 200);
    let (status, _, answer) = asker.send(&good()).await;
    assert_eq!((status, &answer["error"]), (401, &json!("invalid_client")), "evicted");
    lab.lab.world.recorded().await;
    let (records, _) = lab.lab.world.log(0).await;
    let minted = records.iter().filter(|record| record["kind"] == "intent" && record["client"] == WEB);
    assert_eq!(minted.count(), 3, "nothing was minted for anybody else");
    assert!(records.iter().any(|record| record["reason"] == "node_banned"), "who is banned is on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_join_token_that_cannot_be_read_is_said() {
    let lab = NodeLab::start(&json!({ "join_tokens": true })).await;
    let folder = lab.lab.world.folder();
    let (missing, empty) = (folder.join("missing.token"), folder.join("empty.token"));
    write_private(&empty, "\n");
    for (what, name, file, word) in [
        ("none", "one", &missing, "is not there"),
        ("nothing in it", "two", &empty, "nothing in it"),
        ("a folder", "three", &folder.to_owned(), "--join-token-file"),
    ] {
        let data = folder.join(format!("agents/{name}/data"));
        let agent = lab.agent(name, &["--join-token-file", shown(file), "--data-dir", shown(&data)]);
        assert_eq!(agent.process.ended().await.code(), Some(5), "{what}: {}", agent.process.said());
        let said = agent.process.said();
        assert!(said.contains("--join-token-file") && said.contains(word), "{what}: {said}");
    }
    // Used up and taken away: what is kept does.
    let agent = lab.joined("edge-1").await;
    agent.process.terminate();
    assert!(agent.process.ended().await.success(), "{}", agent.process.said());
    let data = agent.folder.join("data");
    let again = lab.agent("edge-1", &["--join-token-file", shown(&missing), "--data-dir", shown(&data)]);
    again.ready().await;
}
