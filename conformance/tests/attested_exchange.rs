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
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};
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

/// The file of an entry.
fn file(lab: &SpiffeLab, id: &str) -> PathBuf {
    lab.world.folder().join(format!("entries/{id}.yaml"))
}

/// Writes an entry into its file, and has the broker read it: only reviewed configuration lets exchange.
async fn register(lab: &SpiffeLab, entry: &Value) {
    std::fs::write(file(lab, entry["id"].as_str().unwrap()), entry.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
}

/// Has the broker read its files again; what it says where it takes nothing of them.
async fn reload_refused(lab: &SpiffeLab) -> String {
    let said_before = lab.started.process.said().len();
    let pid = lab.started.process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    let said = || lab.started.process.said()[said_before..].to_owned();
    lab.started.process.wait_until(async || said().contains("reloaded")).await;
    assert!(said().contains("not reloaded"), "{}", said());
    said()
}

/// A broker at whose socket this process and its children may exchange.
async fn open() -> SpiffeLab {
    let lab = SpiffeLab::start().await;
    register(&lab, &entry("agent", AGENT, &allowed())).await;
    lab
}

fn refund(token: &str) -> Value {
    fields(token, CRM, "refund_payment", &arguments())
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
    register(&lab, &entry("plain", "spiffe://example.org/plain", &Value::Null)).await;
    let others = json!({
        "id": "others", "spiffe_id": "spiffe://example.org/others", "selectors": ["unix:uid:4294967290"],
        "exchange": allowed(),
    });
    register(&lab, &others).await;
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
    let narrow = async |lab: &SpiffeLab, servers: Value| {
        let exchange = with(allowed(), &json!({ "may_call": servers }));
        register(lab, &entry("agent", AGENT, &exchange)).await;
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
    narrow(&lab, json!([{ "resource": CRM }])).await;
    let SpiffeLab { world, started, socket } = lab;
    let asked = Lab::of(world, started);
    assert_eq!(hop(&asked).await.error_code().as_deref(), Some("invalid_target"), "beyond the entry");
    let lab = SpiffeLab { world: asked.world, started: asked.started, socket };
    std::fs::remove_file(file(&lab, "agent")).unwrap();
    lab.world.reload(&lab.started).await;
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
    let config = lab.world.config();
    let lint = || {
        let (success, said, complained) = run(&["lint", "--config", config.to_str().unwrap()]);
        assert!(!success, "{said}");
        said + &complained
    };
    // A client that acts under a name of this trust domain: no process may exchange under it too.
    let mut configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    configuration["clients"][0]["actor"] = json!("spiffe://example.org/desk");
    std::fs::write(&config, configuration.to_string()).unwrap();
    lab.world.reload(&lab.started).await;
    // Nor another entry of the same ID that says something else; what holds goes on meanwhile.
    let other = with(allowed(), &json!({ "subject_audiences": ["other-app"] }));
    for (entry, word) in [
        (entry("desk", "spiffe://example.org/desk", &allowed()), "is the client"),
        (entry("second", AGENT, &other), "says something else"),
    ] {
        let place = file(&lab, entry["id"].as_str().unwrap());
        std::fs::write(&place, entry.to_string()).unwrap();
        assert!(lint().contains(word), "{word}");
        assert!(reload_refused(&lab).await.contains(word), "{word}");
        std::fs::remove_file(place).unwrap();
    }
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "OK");
    // A client that comes later is refused as well, by any of its names.
    for (member, value) in [
        ("actor", json!(AGENT)),
        ("presents_actors", json!([{ "issuer": lab.world.base, "subject": "helper", "actor": AGENT }])),
    ] {
        let mut clashing = configuration.clone();
        clashing["clients"][0][member] = value;
        std::fs::write(&config, clashing.to_string()).unwrap();
        assert!(lint().contains("is the client"), "{member}");
        assert!(reload_refused(&lab).await.contains("is the client"), "{member}");
    }
    // So that two clients have one name.
    configuration["clients"][1]["actor"] = json!("desk");
    std::fs::write(&config, configuration.to_string()).unwrap();
    assert!(reload_refused(&lab).await.contains("is a name of client"));
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_lets_nobody_exchange() {
    let lab = SpiffeLab::start().await;
    let order = entry("agent", AGENT, &allowed());
    let refused = lab.world.order("POST", "/admin/entries", &order).await;
    assert_eq!(refused.status, 400, "{}", refused.json());
    assert!(refused.json().to_string().contains("a file of spiffe.entries"), "{}", refused.json());
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    let asked = with(refund(&lab.world.user_token("alice")), &json!({ "spiffe_id": AGENT }));
    assert_eq!(agent.ask(&asked)["code"], "PERMISSION_DENIED");
    // Without it the same entry can be made, and exchanges nothing.
    let plain = lab.world.order("POST", "/admin/entries", &with(order, &json!({ "exchange": null }))).await;
    assert_eq!(plain.status, 201, "{}", plain.json());
    assert_eq!(agent.ask(&asked)["error"], "access_denied");
    let (log, _) = lab.world.log(0).await;
    let made: Vec<_> = log.iter().filter(|entry| entry["kind"] == "registration").collect();
    assert!(made.len() == 1 && made[0]["registration"].get("exchange").is_none(), "{made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_addressed_to_a_server_is_brought_by_nobody_else() {
    let lab = open().await;
    let config = lab.world.config();
    let configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    for (audience, word) in [
        (CRM.to_owned(), "is a registered server"),
        (format!("{CRM}/"), "is a registered server"),
        (lab.world.base.clone(), "this broker's own"),
    ] {
        let lists = json!({ "subject_audiences": ["desk-app", audience] });
        let entry = entry("second", "spiffe://example.org/second", &with(allowed(), &lists));
        std::fs::write(file(&lab, "second"), entry.to_string()).unwrap();
        let said = reload_refused(&lab).await;
        assert!(said.contains(word) && said.contains("second"), "{audience}: {said}");
        std::fs::remove_file(file(&lab, "second")).unwrap();
        let mut client = configuration.clone();
        client["clients"][0]["subject_audiences"] = lists["subject_audiences"].clone();
        std::fs::write(&config, client.to_string()).unwrap();
        let said = reload_refused(&lab).await;
        assert!(said.contains(word) && said.contains("desk"), "{audience}: {said}");
        std::fs::write(&config, configuration.to_string()).unwrap();
    }
    // A server that comes later, under an audience that is on a list: the registration is refused.
    let lists = json!({ "subject_audiences": ["desk-app", "https://late.acme.test/mcp"] });
    register(&lab, &entry("agent", AGENT, &with(allowed(), &lists))).await;
    lab.world.change_record("crm", |record| record["resource"] = json!("https://late.acme.test/mcp"));
    assert!(reload_refused(&lab).await.contains("is a registered server"));
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    assert_eq!(agent.ask(&refund(&lab.world.user_token("alice")))["code"], "OK", "what was there holds");
    // An access token with another audience beside the application's, which may be anybody but a server or the broker.
    let mut bring = |beside: &str| {
        let claims = json!({ "aud": ["desk-app", beside], "client_id": "desk-app", "azp": "desk-app" });
        let claims = with(lab.world.user_claims("alice"), &claims);
        agent.ask(&refund(&lab.world.issuer_keys["a"].token("at+jwt", &claims)))
    };
    let brought = bring("https://another.example");
    assert_eq!(brought["code"], "OK", "{brought}");
    for beside in [CRM, &lab.world.base] {
        let refused = bring(beside);
        assert_eq!(refused["error"], "invalid_request", "{beside}: {refused}");
        let story = lab.deputize(&["explain", refused["decision_id"].as_str().unwrap()]);
        assert!(story.contains("subject_token_for_another"), "{beside}: {story}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_names_the_file_and_what_to_write_there() {
    let lab = open().await;
    let mut agent = AttestedAgent::start(&lab.endpoint(), &lab.world.base);
    let of_other_app = with(lab.world.user_claims("alice"), &json!({ "aud": "other-app" }));
    let cases = [
        (refund(&lab.world.issuer_keys["a"].token("JWT", &of_other_app)), "exchange.subject_audiences"),
        (fields(&lab.world.user_token("alice"), CRM, "find_customer", &json!({})), "exchange.may_call"),
    ];
    for (request, member) in cases {
        let refused = agent.ask(&request);
        let story = lab.deputize(&["explain", refused["decision_id"].as_str().unwrap()]);
        for part in [member, "entries/agent.yaml", "entry \"agent\""] {
            assert!(story.contains(part), "{part}: {story}");
        }
        assert!(!story.contains("of the client"), "{story}");
    }
    // And who has no entry is told what to ask about.
    std::fs::remove_file(file(&lab, "agent")).unwrap();
    for name in ["myservice", "myservice2"] {
        std::fs::remove_file(file(&lab, name)).unwrap();
    }
    lab.world.reload(&lab.started).await;
    let refused = agent.ask(&refund(&lab.world.user_token("alice")));
    assert_eq!(refused["code"], "PERMISSION_DENIED");
    let story = lab.deputize(&["explain", refused["decision_id"].as_str().unwrap()]);
    assert!(story.contains("no_entry") && story.contains("unix:uid:"), "{story}");
}

/// One that no entry is for.
const OTHER_USER: u32 = 54_321;

fn arguments() -> Value {
    json!({ "payment_id": "pay_81", "amount_cents": 4200 })
}

/// Calls a tool through the environment's own guard, with a proof of this key.
async fn call(url: &str, token: &str, key: &Key) -> Response {
    let endpoint = Endpoint::new(&Url::parse(url).unwrap(), None);
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "refund_payment", "arguments": arguments(),
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
            ("mcp-name", "refund_payment"),
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
    // The program is what the environment's own entry is for.
    let (key, key_file, token_file) = (Key::es256(), dev.place("key.json"), dev.place("user.jwt"));
    std::fs::write(&key_file, key.private_jwk().to_string()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&token_file, dev.text("/user_tokens/alice")).unwrap();
    std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (granted, said, complained) = run(&[
        "exchange",
        "--workload-api",
        dev.text("/workload_api_socket"),
        "--issuer",
        dev.text("/issuer"),
        "--dpop-key",
        key_file.to_str().unwrap(),
        "--subject-token",
        token_file.to_str().unwrap(),
        "--resource",
        &crm,
        "--tool",
        "refund_payment",
        "--arguments",
        &arguments().to_string(),
    ]);
    assert!(granted, "{said}{complained}");
    let token = said.trim();
    assert_eq!(claims(token)["act"]["sub"], "spiffe://corp.example/agent/support-desk");
    let url = dev.text("/servers/0/guard_url").to_owned();
    let stolen = call(&url, token, &Key::es256()).await;
    assert_eq!(stolen.status, 401, "{stolen:?}");
    let answer = call(&url, token, &key).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("pay_81"), "{answer:?}");
    let again = call(&url, token, &key).await;
    assert_eq!(again.status, 401, "one call: {again:?}");
}
