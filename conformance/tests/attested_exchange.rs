//! Delegated exchange at the socket of a running broker, by a client that is made of other people's libraries: an attested
//! process brings its user's token, and nobody else can do it in its place.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    attested_agent::{AttestedAgent, fields},
    dev::Dev,
    exchange::Lab,
    forge::{Key, claims, now, sha256, unique},
    process::run,
    spiffe_lab::SpiffeLab,
    wire::{Endpoint, Request, Response},
    world::{CRM, GLOBEX, LEDGER, token_of},
};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use url::Url;

const AGENT: &str = "spiffe://example.org/agent";

/// An entry for the processes of whoever runs this.
fn entry(id: &str, spiffe_id: &str, exchange: &Value) -> Value {
    let uid = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().uid();
    json!({ "id": id, "spiffe_id": spiffe_id, "selectors": [format!("unix:uid:{uid}")], "exchange": exchange })
}

fn allowed() -> Value {
    let may_call = json!([{ "resource": CRM, "tools": ["refund_payment"] }, { "resource": LEDGER }]);
    json!({ "tenant": "acme", "subject_audiences": ["desk-app"], "may_call": may_call })
}

fn register(lab: &SpiffeLab, entry: &Value) {
    let file = lab.world.folder().join("entry.json");
    std::fs::write(&file, entry.to_string()).unwrap();
    lab.deputize(&["entry", "create", "--file", file.to_str().unwrap()]);
}

/// A broker at whose socket this process and its children may exchange.
async fn open() -> SpiffeLab {
    let lab = SpiffeLab::start().await;
    register(&lab, &entry("agent", AGENT, &allowed()));
    lab
}

fn refund(token: &str) -> Value {
    fields(token, CRM, "refund_payment", &json!({ "payment_id": "pay_81", "amount_cents": 4200 }))
}

fn with(mut fields: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_swaps_its_users_token_and_it_is_on_record_which_process_it_was() {
    let lab = open().await;
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    let granted = agent.ask(&refund(&lab.world.user_token("alice")));
    assert_eq!((&granted["code"], &granted["token_type"]), (&json!("OK"), &json!("DPoP")), "{granted}");
    assert_eq!(granted["authorization_details"][0]["identifier"], "refund_payment");
    let said = claims(granted["access_token"].as_str().unwrap());
    assert_eq!(said["act"], json!({ "sub": AGENT }));
    assert_eq!(
        (&said["client_id"], &said["tenant"], &said["aud"]),
        (&json!(AGENT), &json!("acme"), &json!(CRM))
    );
    assert_eq!(said["cnf"]["jkt"], json!(agent.key.thumbprint()));
    // Another call of the same transaction, with the nonce that came along.
    let transaction = json!({ "transaction_id": granted["transaction_id"] });
    let again = agent.ask(&with(refund(&lab.world.user_token("alice")), &transaction));
    assert_eq!((&again["code"], &again["transaction_id"]), (&json!("OK"), &granted["transaction_id"]));

    let (log, _) = lab.world.log(0).await;
    let intent = log.iter().find(|entry| entry["decision"] == granted["decision_id"]).unwrap();
    assert_eq!(
        (&intent["spiffe"]["entry"], &intent["spiffe"]["spiffe_id"]),
        (&json!("agent"), &json!(AGENT))
    );
    assert!(intent["spiffe"]["node"].as_str().unwrap().starts_with("spiffe://example.org/deputize/node/"));
    assert!(intent["spiffe"]["asked_by"].to_string().contains("unix:uid:"), "{intent}");
    let story = lab.deputize(&["explain", granted["decision_id"].as_str().unwrap()]);
    for part in ["✔ granted", AGENT, "by entry", "asked by", "refund_payment", "minted"] {
        assert!(story.contains(part), "{part}: {story}");
    }
    let found = lab.deputize(&["audit", "query", "--entry", "agent", "--kind", "intent", "-o", "json"]);
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_exchanged_is_refused_in_oauths_words() {
    let lab = open().await;
    register(&lab, &entry("plain", "spiffe://example.org/plain", &Value::Null));
    let others = json!({
        "id": "others", "spiffe_id": "spiffe://example.org/others", "selectors": ["unix:uid:4294967290"],
        "exchange": allowed(),
    });
    register(&lab, &others);
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    let world = &lab.world;
    let good = refund(&world.user_token("alice"));
    assert_eq!(agent.ask(&good)["code"], "OK");
    let signed = |change: Value| {
        refund(&world.issuer_keys["a"].token("JWT", &with(world.user_claims("alice"), &change)))
    };
    let of = |resource: &str, tool: &str| {
        fields(&world.user_token("alice"), resource, tool, &json!({ "name": "Ann" }))
    };
    let twisted = |with_what: Value| with(good.clone(), &json!({ "with": with_what }));
    let as_other = |id: &str| with(good.clone(), &json!({ "spiffe_id": id }));
    let (denied, invalid, first) = ("PERMISSION_DENIED", "INVALID_ARGUMENT", "FAILED_PRECONDITION");
    for (what, request, code, error) in [
        (
            "a token for another audience",
            signed(json!({ "aud": "other-app" })),
            invalid,
            Some("invalid_request"),
        ),
        (
            "one made for another client",
            signed(json!({ "azp": "other-app" })),
            invalid,
            Some("invalid_request"),
        ),
        (
            "an expired one",
            signed(json!({ "exp": now() - 60, "iat": now() - 660 })),
            invalid,
            Some("invalid_request"),
        ),
        (
            "one of another key",
            refund(&Key::es256().token("JWT", &world.user_claims("alice"))),
            invalid,
            Some("invalid_request"),
        ),
        ("no token", with(good.clone(), &json!({ "subject_token": "" })), invalid, Some("invalid_request")),
        (
            "a control character",
            with(good.clone(), &json!({ "scope": "a\u{0}b" })),
            invalid,
            Some("invalid_request"),
        ),
        ("a tool that it may not call", of(CRM, "find_customer"), invalid, Some("invalid_target")),
        ("another tenant's server", of(GLOBEX, "find_customer"), invalid, Some("invalid_target")),
        ("an unknown server", of("https://nobody.acme.test/mcp", "x"), invalid, Some("invalid_target")),
        ("policy says no", signed(json!({ "acr": "suspended" })), denied, Some("access_denied")),
        ("an entry without exchange", as_other("spiffe://example.org/plain"), denied, Some("access_denied")),
        ("somebody else's entry", as_other("spiffe://example.org/others"), denied, None),
        ("nobody's entry", as_other("spiffe://example.org/nobody"), denied, None),
        ("what is no SPIFFE ID", as_other("agent"), invalid, None),
        ("no header", twisted(json!({ "header": false })), invalid, None),
        ("no proof", twisted(json!({ "proof": "" })), first, Some("invalid_dpop_proof")),
        ("no proof but text", twisted(json!({ "proof": "a.b.c" })), first, Some("invalid_dpop_proof")),
        ("a proof that was used", twisted(json!({ "proof": "again" })), first, Some("invalid_dpop_proof")),
        (
            "one for the token endpoint",
            twisted(json!({ "htu": format!("{}/token", world.base) })),
            first,
            Some("invalid_dpop_proof"),
        ),
        (
            "one for another broker",
            twisted(json!({ "htu": "https://else.test/spiffe/exchange" })),
            first,
            Some("invalid_dpop_proof"),
        ),
        ("one for GET", twisted(json!({ "htm": "GET" })), first, Some("invalid_dpop_proof")),
        ("a nonce of nobody", twisted(json!({ "nonce": "bm9ib2R5" })), first, Some("use_dpop_nonce")),
    ] {
        let refused = agent.ask(&request);
        assert_eq!(
            (refused["code"].as_str(), refused["error"].as_str()),
            (Some(code), error),
            "{what}: {refused}"
        );
        assert!(refused.get("access_token").is_none(), "{what}");
        assert_eq!(refused["decision_id"].is_string(), error.is_some(), "{what}: {refused}");
    }
    assert_eq!(agent.ask(&refund(&world.user_token("alice")))["code"], "OK", "the next honest one works");
    let (log, _) = world.log(0).await;
    let minted = log.iter().filter(|entry| entry["kind"] == "intent" && entry["client"] == AGENT).count();
    assert_eq!(minted, 2, "nothing else was minted");
    let denials = log.iter().filter(|entry| entry["kind"] == "denial" && entry["spiffe"]["entry"] == "agent");
    assert!(denials.count() >= 8, "who asked is on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_hops_go_as_far_as_the_entry_and_end_with_it() {
    let lab = open().await;
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    let granted = agent.ask(&refund(&lab.world.user_token("alice")));
    let token = granted["access_token"].as_str().unwrap().to_owned();
    let narrow = |lab: &SpiffeLab, servers: Value| {
        lab.deputize(&["entry", "delete", "agent"]);
        let exchange = with(allowed(), &json!({ "may_call": servers }));
        register(lab, &entry("agent", AGENT, &exchange));
    };
    let hop = async |lab: &Lab| {
        let mut request = lab.for_client("crm", &Key::es256()).await;
        request.set("subject_token", &token).tool(LEDGER, "list_entries");
        lab.send(&request).await
    };
    let SpiffeLab { world, started, socket } = lab;
    let asked = Lab::of(world, started);
    let next = claims(&token_of(&hop(&asked).await));
    assert_eq!(next["act"], json!({ "sub": "crm", "act": { "sub": AGENT } }));
    assert_eq!(next["pjti"], claims(&token)["jti"]);
    let lab = SpiffeLab { world: asked.world, started: asked.started, socket };
    narrow(&lab, json!([{ "resource": CRM }]));
    let SpiffeLab { world, started, socket } = lab;
    let asked = Lab::of(world, started);
    assert_eq!(hop(&asked).await.error_code().as_deref(), Some("invalid_target"), "beyond the entry");
    let lab = SpiffeLab { world: asked.world, started: asked.started, socket };
    lab.deputize(&["entry", "delete", "agent"]);
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "PERMISSION_DENIED");
    let SpiffeLab { world, started, .. } = lab;
    let asked = Lab::of(world, started);
    assert_eq!(
        hop(&asked).await.error_code().as_deref(),
        Some("invalid_request"),
        "nobody acts by it any more"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_user_gets_nothing_for_the_same_token() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        // Only root can start processes of another user; `workload-api/tests/door` has its neighbours everywhere.
        return;
    }
    let lab = open().await;
    // So that it comes as far as the socket.
    std::fs::set_permissions(lab.world.folder(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let token = lab.world.user_token("alice");
    let mut other = AttestedAgent::start_as(&lab.endpoint(), &lab.world.base, Some(OTHER_USER));
    assert_eq!(other.ask(&refund(&token))["code"], "PERMISSION_DENIED");
    let mut own = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    assert_eq!(own.ask(&refund(&token))["code"], "OK");
    let (log, _) = lab.world.log(0).await;
    let denial = log.iter().find(|entry| entry["kind"] == "denial").unwrap();
    assert!(denial["spiffe"]["asked_by"].to_string().contains(&format!("unix:uid:{OTHER_USER}")), "{denial}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_is_a_clients_and_a_processes() {
    let lab = open().await;
    let (file, config) = (lab.world.folder().join("clash.json"), lab.world.config());
    let create = |entry: &Value| {
        std::fs::write(&file, entry.to_string()).unwrap();
        run(&["entry", "create", "--file", file.to_str().unwrap(), "--config", config.to_str().unwrap()])
    };
    // A client that acts under a name of this trust domain: no process may exchange under it too.
    let mut configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    configuration["clients"][0]["actor"] = json!("spiffe://example.org/desk");
    std::fs::write(&config, configuration.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
    let (success, _, said) = create(&entry("desk", "spiffe://example.org/desk", &allowed()));
    assert!(!success && said.contains("is the client"), "{said}");
    // Another entry of the same ID that says something else.
    let other = with(allowed(), &json!({ "subject_audiences": ["other-app"] }));
    let (success, _, said) = create(&entry("second", AGENT, &other));
    assert!(!success && said.contains("says something else"), "{said}");
    // A client that comes later: entries of files are wrong then, and those of administration hold no longer.
    let in_file = lab.world.folder().join("entries/in-file.yaml");
    std::fs::write(&in_file, entry("in-file", "spiffe://example.org/desk", &allowed()).to_string()).unwrap();
    let (success, said, complained) = run(&["lint", "--config", config.to_str().unwrap()]);
    assert!(!success && (said.clone() + &complained).contains("is the client"), "{said}{complained}");
    std::fs::remove_file(in_file).unwrap();
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "OK");
    configuration["clients"][0]["actor"] = json!(AGENT);
    std::fs::write(&config, configuration.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "PERMISSION_DENIED");
}

/// One that no entry is for.
const OTHER_USER: u32 = 54_321;

/// Calls a tool through the environment's own guard, with a proof of this key.
async fn call(url: &str, token: &str, key: &Key) -> Response {
    let endpoint = Endpoint::new(&Url::parse(url).unwrap(), None);
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "lookup_customer", "arguments": { "customer_id": "cus_17" },
            "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" },
        },
    });
    let request = |proof: &str| Request {
        method: "POST".to_owned(),
        target: Url::parse(url).unwrap().path().to_owned(),
        headers: [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "lookup_customer"),
            ("authorization", &format!("DPoP {token}")),
            ("dpop", proof),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        body: message.to_string().into_bytes(),
    };
    let prove = |nonce: Option<&str>| {
        let mut claims =
            json!({ "htm": "POST", "htu": url, "iat": now(), "jti": unique(), "ath": sha256(token) });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        key.proof(&claims)
    };
    let challenged = endpoint.send(&request(&prove(None))).await.unwrap();
    match challenged.header("dpop-nonce") {
        Some(nonce) if challenged.status == 401 => {
            endpoint.send(&request(&prove(Some(nonce)))).await.unwrap()
        }
        _ => challenged,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_works_at_a_guard_with_the_processs_key_alone() {
    let dev = Dev::start().await;
    let crm = dev.text("/servers/0/resource").to_owned();
    let file = dev.place("entry.json");
    let exchange = json!({
        "tenant": "dev", "subject_audiences": [dev.text("/client/client_id")],
        "may_call": [{ "resource": crm, "tools": ["lookup_customer"] }],
    });
    let agent = "spiffe://corp.example/agent/python";
    std::fs::write(&file, entry("python", agent, &exchange).to_string()).unwrap();
    let socket = dev.data().join("admin.sock");
    let (made, said, complained) =
        run(&["entry", "create", "--file", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    assert!(made, "{said}{complained}");
    let mut process = AttestedAgent::start(dev.text("/workload_api_socket"), dev.text("/issuer"));
    let arguments = json!({ "customer_id": "cus_17" });
    let request = fields(dev.text("/user_tokens/alice"), &crm, "lookup_customer", &arguments);
    let request = with(request, &json!({ "spiffe_id": agent }));
    let granted = process.ask(&request);
    assert_eq!(granted["code"], "OK", "{granted}");
    let token = granted["access_token"].as_str().unwrap();
    assert_eq!(claims(token)["act"]["sub"], agent);
    let url = dev.text("/servers/0/guard_url").to_owned();
    let stolen = call(&url, token, &Key::es256()).await;
    assert_eq!(stolen.status, 401, "{stolen:?}");
    let answer = call(&url, token, &process.key).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("Grace Gray"), "{answer:?}");
    let again = call(&url, token, &process.key).await;
    assert_eq!(again.status, 401, "one call: {again:?}");
}
