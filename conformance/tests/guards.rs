//! The broker's door for guards: who may come in, what they are told and how soon, and what becomes of their reports.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use deputize_call::digest::{prompt_digest, tool_digest};
use deputize_conformance::{
    exchange::Lab,
    forge::{Key, claims, now},
    guarding::{Follower, content, event},
    wire::{Request, Response},
    world::{CRM, LEDGER, World, token_of},
};
use deputize_guard::SignedSnapshot;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

#[tokio::test]
async fn a_guard_is_told_of_its_own_server_alone() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let keys = lab.world.snapshot_keys();
    for (client, resource, tools) in [("crm", CRM, 5), ("ledger", LEDGER, 2)] {
        let answer = ask(&lab, client).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        let signed: SignedSnapshot = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(signed.open(&keys, now().unsigned_abs()).unwrap().server_id(), client);
        let content = content(&answer.json());
        assert_eq!(
            (content["resource"].as_str(), content["issuer"].as_str()),
            (Some(resource), Some(&*lab.world.base))
        );
        assert_eq!(content["tools"].as_array().unwrap().len(), tools, "a disabled tool is not among them");
        let life = content["expires_at"].as_u64().unwrap() - content["issued_at"].as_u64().unwrap();
        assert!((600..=3600).contains(&life));
        let published = lab.world.door.send(&Request::get("/jwks")).await.unwrap().json();
        assert_eq!(content["jwks"], published);
        assert!(
            keys.iter().all(|key| !published.to_string().contains(key.thumbprint())),
            "no token key signs snapshots"
        );
    }
}

#[tokio::test]
async fn only_a_fresh_assertion_of_a_registered_server_opens_the_door() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let token = lab.token(&Key::es256()).await;
    let claims_with = |name: &str, value: Value| {
        let mut claims = lab.assertion_claims("crm");
        claims[name] = value;
        format!("Bearer {}", lab.world.client_keys["crm"].token("JWT", &claims))
    };
    let good = || format!("Bearer {}", lab.assertion("crm"));
    let used = good();
    assert_eq!(send(&lab, "GET", "/guard/snapshot", Some(&used)).await.status, 200);
    let foreign = lab.world.client_keys["ledger"].token("JWT", &lab.assertion_claims("crm"));
    for (method, path) in [("GET", "/guard/snapshot"), ("GET", "/guard/events"), ("POST", "/guard/events")] {
        for (bearer, expected) in [
            (None, "401 invalid_client"),
            (Some(used.clone()), "401 invalid_client"),
            (Some(good().replace("Bearer", "Basic")), "401 invalid_client"),
            (Some(claims_with("aud", json!(format!("{}{path}", lab.world.base)))), "401 invalid_client"),
            (Some(claims_with("aud", json!(CRM))), "401 invalid_client"),
            (Some(claims_with("exp", json!(now() - 60))), "401 invalid_client"),
            (Some(format!("Bearer {foreign}")), "401 invalid_client"),
            (Some(format!("Bearer {token}")), "401 invalid_client"),
            (Some(format!("Bearer {}", lab.assertion("desk"))), "400 invalid_target"),
            (Some(format!("Bearer {}", lab.assertion("other"))), "400 invalid_target"),
            (Some(format!("Bearer {}", lab.assertion("globex-desk"))), "400 invalid_target"),
        ] {
            let answer = send(&lab, method, path, bearer.as_deref()).await;
            assert_eq!(code(&answer), expected, "{method} {path} {bearer:?}");
        }
        assert_eq!(send(&lab, "DELETE", path, Some(&good())).await.status, 405);
        // What two could read differently in the query says nobody's name.
        for query in
            ["client_id=crm&client_id=crm", "client_id=", "client_id", "client_id=%zz", "client_id=%00"]
        {
            let answer = send(&lab, method, &format!("{path}?{query}"), Some(&good())).await;
            assert_eq!(code(&answer), "400 invalid_request", "{method} {path}?{query}");
        }
        let another = send(&lab, method, &format!("{path}?client_id=ledger"), Some(&good())).await;
        assert_eq!(code(&another), "401 invalid_client", "{method} {path}");
    }
    let (entries, _) = lab.world.log(0).await;
    let denied = |client: &str, reason: &str| {
        let fits = |entry: &&Value| entry["client"] == client && entry["reason"] == reason;
        entries.iter().filter(fits).count()
    };
    assert_eq!(denied("desk", "client_is_no_server"), 3);
    assert_eq!(denied("crm", "assertion_replayed"), 3);
}

#[tokio::test]
async fn a_client_that_the_registry_does_not_name_is_no_guard() {
    let _place = PORTS.read().await;
    let world = World::new().await;
    world.write_files();
    world.change_record("ledger", |record| record["client_id"] = json!("another"));
    let started = world.start_again(&world.config()).await;
    let lab = Lab::of(world, started);
    assert_eq!(code(&ask(&lab, "ledger").await), "400 invalid_target");
    assert_eq!(ask(&lab, "crm").await.status, 200);
}

#[tokio::test]
async fn a_revocation_is_pushed_at_once_with_everything_that_it_reaches() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let mut crm = lab.follow("crm").await;
    let mut ledger = lab.follow("ledger").await;
    let first = crm.snapshot().await;
    assert_eq!(first["revocations"], json!([]));
    ledger.snapshot().await;

    let (parent, child) = parent_and_child(&lab).await;
    let [parent_claims, child_claims] = [claims(&parent), claims(&child)];
    let before = now_ms();
    let revoked = lab.order("/admin/revocations", &json!({ "token": parent_claims["jti"] })).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    assert_eq!(revocation(&mut crm).await["jti"], parent_claims["jti"]);
    let descendant = revocation(&mut ledger).await["jti"].clone();
    let took = now_ms() - before;
    println!("both revocations came {took} ms after the order was sent");
    assert!(took < 2000, "{took} ms");
    assert_eq!(descendant, child_claims["jti"], "the descendant too, each where it is used");

    for (order, told) in [
        (
            json!({ "transaction": parent_claims["txn"] }),
            json!({ "kind": "transaction", "txn": parent_claims["txn"] }),
        ),
        (json!({ "person": parent_claims["sub"] }), json!({ "kind": "person", "sub": parent_claims["sub"] })),
    ] {
        assert_eq!(lab.order("/admin/revocations", &order).await.status, 200);
        assert_eq!(revocation(&mut crm).await, told, "nothing of the descendant came in between");
        assert_eq!(revocation(&mut ledger).await, told, "every guard is told of this");
    }
    // Who comes later is told all of it at once; a person of another tenant is nobody's business here.
    let foreign = parent_claims["sub"].as_str().unwrap().replace("user:acme:", "user:globex:");
    assert_eq!(lab.order("/admin/revocations", &json!({ "person": foreign })).await.status, 200);
    let later = lab.follow("crm").await.snapshot().await;
    assert!(later["version"].as_u64() > first["version"].as_u64());
    let names = later["revocations"].to_string();
    for known in [&parent_claims["jti"], &parent_claims["txn"], &parent_claims["sub"]] {
        assert!(names.contains(known.as_str().unwrap()), "{known} in {names}");
    }
    assert!(!names.contains(child_claims["jti"].as_str().unwrap()), "it is used elsewhere");
    assert!(!names.contains("globex"));

    // What is lifted is told as what holds now.
    let mut lift = Request::get("/admin/revocations");
    lift.method = "DELETE".to_owned();
    lift.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    lift.body = json!({ "person": parent_claims["sub"] }).to_string().into_bytes();
    assert_eq!(lab.world.administration.send(&lift).await.unwrap().status, 200);
    let lifted = crm.snapshot().await;
    assert!(!lifted["revocations"].to_string().contains(parent_claims["sub"].as_str().unwrap()));
    assert!(lifted["version"].as_u64() > later["version"].as_u64());
}

#[tokio::test]
async fn snapshots_of_one_version_say_the_same_of_a_person_who_is_enabled_again() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let sub = claims(&lab.token(&Key::es256()).await)["sub"].clone();
    let mut said: BTreeMap<u64, bool> = BTreeMap::new();
    for _ in 0..8 {
        assert_eq!(lab.order("/admin/revocations", &json!({ "person": sub })).await.status, 200);
        let order = json!({ "person": sub });
        let lift = lab.world.order("DELETE", "/admin/revocations", &order);
        let (lifted, first, second, third) =
            tokio::join!(lift, ask(&lab, "crm"), ask(&lab, "crm"), ask(&lab, "crm"));
        assert_eq!(lifted.status, 200);
        for answer in [first, second, third, ask(&lab, "crm").await] {
            let snapshot = content(&answer.json());
            let version = snapshot["version"].as_u64().unwrap();
            let is_named = snapshot["revocations"].to_string().contains(sub.as_str().unwrap());
            assert_eq!(*said.entry(version).or_insert(is_named), is_named, "version {version}");
        }
    }
    assert!(said.values().any(|named| !named));
}

#[tokio::test]
async fn a_reload_reaches_guards_as_what_holds_now() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let mut stream = lab.follow("crm").await;
    let first = stream.snapshot().await;
    let tools = |snapshot: &Value| snapshot["tools"].as_array().unwrap().len();

    lab.world.change_record("crm", |record| record["tools"][0]["enabled"] = json!(false));
    lab.world.reload(&lab.started).await;
    let without_tool = stream.snapshot().await;
    assert_eq!(tools(&without_tool), tools(&first) - 1);

    lab.world.change_record("crm", |record| record["enabled"] = json!(false));
    lab.world.reload(&lab.started).await;
    let killed = stream.snapshot().await;
    assert_eq!(killed["revocations"], json!([{ "kind": "everything" }]));

    lab.world.change_record("crm", |record| {
        (record["enabled"], record["tools"][0]["enabled"]) = (json!(true), json!(true));
    });
    lab.world.reload(&lab.started).await;
    let lifted = stream.snapshot().await;
    assert_eq!((&lifted["revocations"], tools(&lifted)), (&json!([]), tools(&first)));
    let versions: Vec<u64> =
        [&first, &without_tool, &killed, &lifted].map(|each| each["version"].as_u64().unwrap()).into();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");

    // A server that is gone from the registry is told to stop, and its stream ends.
    std::fs::remove_file(lab.world.folder().join("registry/globex-crm.json")).unwrap();
    lab.world.change_record("crm", |record| record["client_id"] = json!("another"));
    lab.world.reload(&lab.started).await;
    assert_eq!(revocation(&mut stream).await, json!({ "kind": "everything" }));
    assert!(stream.next().await.is_none());
    assert_eq!(code(&ask(&lab, "crm").await), "400 invalid_target");
}

#[tokio::test]
async fn versions_grow_through_restarts() {
    let _place = PORTS.write().await;
    let mut lab = Lab::start(World::new().await).await;
    let mut versions = Vec::new();
    for _ in 0..4 {
        let snapshot = lab.follow("crm").await.snapshot().await;
        versions.push(snapshot["version"].as_u64().unwrap());
        let txn = claims(&lab.token(&Key::es256()).await)["txn"].clone();
        assert_eq!(lab.order("/admin/revocations", &json!({ "transaction": txn })).await.status, 200);
        lab.started.process.kill();
        lab.started = lab.world.start_again(&lab.world.config()).await;
    }
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
}

#[tokio::test]
async fn reports_are_recorded_once_as_their_guard_said_them() {
    let _place = PORTS.write().await;
    let mut lab = Lab::start(World::new().await).await;
    let token = claims(&lab.token(&Key::es256()).await);
    let of_call = json!({ "txn": token["txn"], "jti": token["jti"], "tool": "refund_payment" });
    let executed = event("executed", merged(&of_call, json!({ "class": "ok", "bytes": 512 })));
    let reports = json!([event("connected", json!({})), executed, executed]);
    for _ in 0..2 {
        assert_eq!(lab_send(&lab, &lab.report("crm", &reports)).await.json(), json!({ "accepted": 3 }));
    }
    lab.started.process.kill();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    assert_eq!(lab_send(&lab, &lab.report("crm", &reports)).await.json(), json!({ "accepted": 3 }));
    // The same id of another server is another report.
    assert_eq!(
        lab_send(&lab, &lab.report("ledger", &json!([executed]))).await.json(),
        json!({ "accepted": 1 })
    );

    let seen = of_kind(&lab, "guard").await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    // The ledger has no such token: what it says of it stands in nobody's transaction.
    assert_eq!((&seen[2]["txn"], &seen[2]["jti"]), (&Value::Null, &Value::Null));
    assert_eq!(seen[2]["seen"]["unconfirmed"], json!({ "txn": token["txn"], "jti": token["jti"] }));
    let entry = &seen[1];
    assert_eq!((&entry["txn"], &entry["jti"]), (&token["txn"], &token["jti"]));
    assert_eq!(
        (&entry["client"], &entry["server"], &entry["tenant"]),
        (&json!("crm"), &json!(CRM), &json!("acme"))
    );
    assert_eq!(
        entry["seen"],
        json!({ "id": executed["id"], "event": "executed", "at": executed["at_ms"], "class": "ok", "bytes": 512 })
    );
    assert_eq!((&seen[2]["client"], &seen[2]["server"]), (&json!("ledger"), &json!(LEDGER)));
}

#[tokio::test]
async fn a_guard_writes_into_no_transaction_but_those_of_its_own_tokens() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let (own, foreign) = parent_and_child(&lab).await;
    // It can have no children, and is not among those that are remembered: only the log knows of it.
    let leaf = {
        let mut exchange = lab.honest(&Key::es256()).await;
        exchange.call(CRM, "find_customer", &json!({ "name": "grace" }));
        token_of(&lab.send(&exchange).await)
    };
    let [own, foreign, leaf] = [own, foreign, leaf].map(|token| claims(&token));
    let index = |token: &Value| token["log"]["index"].clone();
    let stranger = uuid::Uuid::now_v7().to_string();
    for (txn, jti, place, confirmed) in [
        (&own["txn"], &own["jti"], Value::Null, true),
        (&own["txn"], &own["jti"], index(&own), true),
        (&leaf["txn"], &leaf["jti"], index(&leaf), true),
        (&Value::Null, &leaf["jti"], index(&leaf), true),
        (&Value::Null, &Value::Null, Value::Null, true),
        (&leaf["txn"], &leaf["jti"], Value::Null, false),
        (&leaf["txn"], &leaf["jti"], index(&own), false),
        (&leaf["txn"], &leaf["jti"], index(&foreign), false),
        (&leaf["txn"], &json!(stranger), index(&leaf), false),
        (&leaf["txn"], &json!(stranger), json!(1_u64 << 52), false),
        (&own["txn"], &leaf["jti"], index(&leaf), false),
        (&leaf["txn"], &own["jti"], index(&own), false),
        (&foreign["txn"], &foreign["jti"], index(&foreign), false),
        (&own["txn"], &json!(stranger), index(&own), false),
        (&own["txn"], &Value::Null, index(&own), false),
    ] {
        let mut event = event("executed", json!({ "tool": "find_customer" }));
        for (name, value) in [("txn", txn), ("jti", jti), ("index", &place)] {
            if !value.is_null() {
                event[name] = value.clone();
            }
        }
        assert_eq!(lab_send(&lab, &lab.report("crm", &json!([event]))).await.status, 200);
        let entry = of_kind(&lab, "guard").await.pop().unwrap();
        let (own_place, said) = if confirmed {
            (&entry, &entry["seen"]["unconfirmed"])
        } else {
            (&entry["seen"]["unconfirmed"], &entry)
        };
        assert_eq!((&own_place["txn"], &own_place["jti"]), (txn, jti), "{entry}");
        assert_eq!((&said["txn"], &said["jti"]), (&Value::Null, &Value::Null), "{entry}");
    }
}

#[tokio::test]
async fn whoever_is_no_guard_takes_up_no_room_with_a_body() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let unfinished = |mut request: Request| {
        request.headers.push(("content-length".to_owned(), "5000".to_owned()));
        request.body = b"{".to_vec();
        request
    };
    // Refused by the head alone.
    let mut refused = lab.report("desk", &json!([]));
    refused = unfinished(refused);
    let answer = tokio::time::timeout(Duration::from_secs(3), lab.world.door.send(&refused)).await;
    assert_eq!(code(&answer.unwrap().unwrap()), "400 invalid_target");
    // A guard that dawdles takes up its own share.
    let mut dawdling = Vec::new();
    for _ in 0..70 {
        let mut connection = lab.world.door.connect().await.unwrap();
        connection.write(&unfinished(lab.report("crm", &json!([])))).await.unwrap();
        dawdling.push(connection);
    }
    let other = lab_send(&lab, &lab.report("ledger", &json!([event("connected", json!({}))]))).await;
    assert_eq!(other.json(), json!({ "accepted": 1 }));
    let mut answers = Vec::new();
    for connection in &mut dawdling {
        answers.push(connection.answer().await.unwrap().status);
    }
    assert_eq!(answers.iter().filter(|status| **status == 408).count(), 8, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 62, "{answers:?}");
    assert_eq!(lab_send(&lab, &lab.report("crm", &json!([]))).await.json(), json!({ "accepted": 0 }));
}

#[tokio::test]
async fn a_report_that_is_not_one_is_refused_as_a_whole() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let good = || event("connected", json!({}));
    let with = |name: &str, value: Value| {
        let mut event = event("executed", json!({}));
        event[name] = value;
        event
    };
    for bad in [
        json!({}),
        json!(7),
        with("id", json!("7")),
        with("id", json!("00000000-0000-4000-8000-000000000000")),
        with("id", json!(uuid::Uuid::now_v7().to_string().to_uppercase())),
        with("kind", json!("exploded")),
        with("at_ms", json!("now")),
        with("at_ms", json!(-1)),
        with("tool", json!("x".repeat(257))),
        with("txn", json!("a\nb")),
        with("class", json!("")),
        with("detail", json!("x".repeat(4096))),
        with("server", json!(LEDGER)),
        with("client", json!("ledger")),
        event("drifted", json!({})),
    ] {
        let answer = lab_send(&lab, &lab.report("crm", &json!([good(), bad]))).await;
        assert_eq!(code(&answer), "400 invalid_request", "{bad}");
    }
    let too_many: Vec<Value> = (0..101).map(|_| good()).collect();
    assert_eq!(code(&lab_send(&lab, &lab.report("crm", &json!(too_many))).await), "400 invalid_request");
    assert_eq!(
        of_kind(&lab, "guard").await,
        Vec::<Value>::new(),
        "nothing was taken, not even what was good"
    );

    let mut raw = lab.report("crm", &json!([]));
    raw.body = br#"{"events":[],"events":[]}"#.to_vec();
    assert_eq!(code(&lab_send(&lab, &raw).await), "400 invalid_request", "one reading alone");
    let mut raw = lab.report("crm", &json!([]));
    raw.body = vec![b' '; 700 * 1024];
    assert_eq!(lab_send(&lab, &raw).await.status, 413);
    let mut raw = lab.report("crm", &json!([good()]));
    raw.headers.retain(|(name, _)| name != "content-type");
    assert_eq!(lab_send(&lab, &raw).await.status, 415);

    let full: Vec<Value> = (0..100).map(|_| with("detail", json!("x".repeat(4000)))).collect();
    assert_eq!(lab_send(&lab, &lab.report("crm", &json!(full))).await.json(), json!({ "accepted": 100 }));
}

#[tokio::test]
async fn reports_beyond_the_quota_wait_at_the_guard() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let mut accepted = 0;
    let refused = loop {
        let reports: Vec<Value> = (0..100).map(|_| event("executed", json!({}))).collect();
        let answer = lab_send(&lab, &lab.report("crm", &json!(reports))).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 100;
        assert!(accepted < 100_000, "there is a quota");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(lab.world.metric("deputize_guard_events_refused_total").await, 100.0);
    let other = lab_send(&lab, &lab.report("ledger", &json!([event("executed", json!({}))]))).await;
    assert_eq!(other.status, 200, "each server has its own");
    token_of(&lab.send(&lab.honest(&Key::es256()).await).await);
}

#[tokio::test]
async fn a_tool_that_drifted_gets_no_token_until_somebody_looked() {
    let _place = PORTS.write().await;
    let mut lab = Lab::start(World::new().await).await;
    let tool = lab.world.definitions("crm").remove(0);
    let approved = tool_digest(tool.as_object().unwrap()).unwrap();
    let detail = json!({ "approved": approved, "changes": [{ "at": "/description", "live": "Does more." }] });
    let drifted = || event("drifted", json!({ "tool": "refund_payment", "detail": detail }));

    // Of another server's tool, of one that nobody approved, and of an earlier definition a guard has nothing to say.
    let earlier = json!({ "approved": tool_digest(json!({ "name": "x" }).as_object().unwrap()).unwrap() });
    for (client, tool, detail) in [
        ("ledger", "refund_payment", &detail),
        ("crm", "list_entries", &detail),
        ("crm", "unheard_of", &detail),
        ("crm", "refund_payment", &earlier),
    ] {
        let event = event("drifted", json!({ "tool": tool, "detail": detail }));
        assert_eq!(lab_send(&lab, &lab.report(client, &json!([event]))).await.status, 200);
    }
    token_of(&refund(&lab).await);
    assert_eq!(of_kind(&lab, "drift").await.len(), 0);

    let (parent, _) = parent_and_child(&lab).await;
    assert_eq!(lab_send(&lab, &lab.report("crm", &json!([drifted()]))).await.status, 200);
    assert_eq!(code(&refund(&lab).await), "400 invalid_authorization_details");
    assert_eq!(
        redeem(&lab, "crm", &parent).await["redeemed"],
        false,
        "what was issued before is not used either"
    );
    token_of(&find(&lab).await);

    lab.started.process.kill();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    assert_eq!(code(&refund(&lab).await), "400 invalid_authorization_details", "after a restart too");
    lab.started.process.kill();
    std::fs::remove_file(lab.world.folder().join("data/facts.redb")).unwrap();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    assert_eq!(code(&refund(&lab).await), "400 invalid_authorization_details", "the log has it too");
    token_of(&find(&lab).await);
    let entries = of_kind(&lab, "drift").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["definition"], json!(approved));
    assert_eq!((&entries[0]["result"], &entries[0]["by"]), (&json!("stopped"), &json!("crm")));
    let shown: Value = serde_json::from_str(entries[0]["detail"].as_str().unwrap()).unwrap();
    assert_eq!(shown, detail, "the difference is on record");

    let listed = lab.world.administration.send(&Request::get("/admin/drifted")).await.unwrap().json();
    assert_eq!(listed["drifted"], json!([{ "server": CRM, "tool": "refund_payment", "approved": approved }]));
    let order = json!({ "server": CRM, "tool": "refund_payment" });
    assert_eq!(lab.order("/admin/drifted/lift", &order).await.json(), json!({ "lifted": true }));
    assert_eq!(lab.order("/admin/drifted/lift", &order).await.json(), json!({ "lifted": false }));
    token_of(&refund(&lab).await);
    lab.started.process.kill();
    std::fs::remove_file(lab.world.folder().join("data/facts.redb")).unwrap();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    token_of(&refund(&lab).await);

    // It drifts again; this time the new definition is approved.
    assert_eq!(lab_send(&lab, &lab.report("crm", &json!([drifted()]))).await.status, 200);
    assert_eq!(code(&refund(&lab).await), "400 invalid_authorization_details");
    lab.world.change_record("crm", |record| {
        record["tools"][0]["definition"]["description"] = json!("Does more.");
        let definition = record["tools"][0]["definition"].as_object().unwrap();
        record["tools"][0]["tool_digest"] = json!(tool_digest(definition).unwrap());
    });
    lab.world.reload(&lab.started).await;
    token_of(&refund(&lab).await);
    let listed = lab.world.administration.send(&Request::get("/admin/drifted")).await.unwrap().json();
    assert_eq!(listed["drifted"], json!([]));
}

#[tokio::test]
async fn a_lift_is_of_the_tool_or_of_the_prompt_of_a_name_and_never_of_both() {
    let _place = PORTS.write().await;
    let mut lab = Lab::start(World::new().await).await;
    let definition = json!({ "name": "refund_payment", "description": "How to ask for a refund." });
    let of_prompt = prompt_digest(definition.as_object().unwrap()).unwrap();
    lab.world.change_record("crm", |record| {
        record["prompts"] = json!([{ "tier": "low", "prompt_digest": of_prompt, "definition": definition }]);
    });
    lab.world.reload(&lab.started).await;
    let of_tool = tool_digest(lab.world.definitions("crm").remove(0).as_object().unwrap()).unwrap();
    let tool = json!({ "server": CRM, "tool": "refund_payment", "approved": of_tool });
    let prompt =
        json!({ "server": CRM, "action": "prompts/get", "tool": "refund_payment", "approved": of_prompt });
    let stop = async |lab: &Lab| {
        let changes = |approved| json!({ "approved": approved, "changes": [] });
        let events = json!([
            event("drifted", json!({ "tool": "refund_payment", "detail": changes(of_tool) })),
            event(
                "drifted",
                json!({ "tool": "refund_payment", "action": "prompts/get", "detail": changes(of_prompt) }),
            ),
        ]);
        assert_eq!(lab_send(lab, &lab.report("crm", &events)).await.status, 200);
        assert_eq!(stopped(lab).await, json!([tool, prompt]));
    };
    let order = |action: Option<&str>| {
        let mut order = json!({ "server": CRM, "tool": "refund_payment" });
        if let Some(action) = action {
            order["action"] = json!(action);
        }
        order
    };
    let lift = async |lab: &Lab, action| lab.order("/admin/drifted/lift", &order(action)).await;

    stop(&lab).await;
    for (action, why) in [(None, "which of the two is meant"), (Some("tools/list"), "no such kind")] {
        assert_eq!(lift(&lab, action).await.status, 400, "{why}");
    }
    assert_eq!(lift(&lab, Some("resources/read")).await.json(), json!({ "lifted": false }));
    assert_eq!(stopped(&lab).await, json!([tool, prompt]), "nothing was lifted by that");
    assert_eq!(lift(&lab, Some("tools/call")).await.json(), json!({ "lifted": true }));
    token_of(&refund(&lab).await);
    assert_eq!(stopped(&lab).await, json!([prompt]));
    assert_eq!(lift(&lab, None).await.status, 400, "a prompt alone is not meant by its name alone");

    // What is stopped and what is lifted outlast a restart, out of the log too.
    lab.started.process.kill();
    std::fs::remove_file(lab.world.folder().join("data/facts.redb")).unwrap();
    lab.started = lab.world.start_again(&lab.world.config()).await;
    assert_eq!(stopped(&lab).await, json!([prompt]));
    assert_eq!(lift(&lab, Some("prompts/get")).await.json(), json!({ "lifted": true }));
    assert_eq!(stopped(&lab).await, json!([]));

    stop(&lab).await;
    assert_eq!(lift(&lab, Some("prompts/get")).await.json(), json!({ "lifted": true }));
    assert_eq!(stopped(&lab).await, json!([tool]));
    assert_eq!(code(&refund(&lab).await), "400 invalid_authorization_details");
    assert_eq!(lift(&lab, None).await.json(), json!({ "lifted": true }), "a tool needs no word");
    token_of(&refund(&lab).await);
}

async fn stopped(lab: &Lab) -> Value {
    let answer = lab.world.administration.send(&Request::get("/admin/drifted")).await.unwrap();
    answer.json().get("drifted").cloned().unwrap()
}

#[tokio::test]
async fn guards_are_counted() {
    let _place = PORTS.read().await;
    let lab = Lab::start(World::new().await).await;
    let mut streams = vec![lab.follow("crm").await, lab.follow("crm").await, lab.follow("ledger").await];
    for stream in &mut streams {
        stream.snapshot().await;
    }
    assert_eq!(lab.world.metric("deputize_guards_connected").await, 3.0);
    assert!(lab.world.metric("deputize_guard_snapshot_version").await > 0.0);
    lab_send(&lab, &lab.report("crm", &json!([event("connected", json!({}))]))).await;
    assert_eq!(lab.world.metric("deputize_guard_events_total").await, 1.0);
    // So many for each server, and no more.
    for _ in 0..62 {
        streams.push(lab.follow("crm").await);
    }
    let refused = lab_send(&lab, &lab.as_client("crm", "GET", "/guard/events")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(lab_send(&lab, &lab.as_client("ledger", "GET", "/guard/snapshot")).await.status, 200);
}

/// A token of alice's for the CRM, and the ledger's token that the CRM made from it.
async fn parent_and_child(lab: &Lab) -> (String, String) {
    let parent = lab.token(&Key::es256()).await;
    let mut exchange = lab.for_client("crm", &Key::es256()).await;
    exchange
        .set("subject_token", &parent)
        .set("subject_token_type", "urn:ietf:params:oauth:token-type:access_token")
        .tool(LEDGER, "list_entries");
    let child = token_of(&lab.send(&exchange).await);
    (parent, child)
}

async fn refund(lab: &Lab) -> Response {
    lab.send(&lab.honest(&Key::es256()).await).await
}

async fn find(lab: &Lab) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.tool(CRM, "find_customer");
    lab.send(&exchange).await
}

async fn redeem(lab: &Lab, client: &str, token: &str) -> Value {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let form = [
        ("client_assertion_type", kind.to_owned()),
        ("client_assertion", lab.assertion(client)),
        ("token", token.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    lab_send(lab, &Request::form("/redeem", &form)).await.json()
}

async fn ask(lab: &Lab, client: &str) -> Response {
    lab_send(lab, &lab.as_client(client, "GET", "/guard/snapshot")).await
}

async fn lab_send(lab: &Lab, request: &Request) -> Response {
    lab.world.door.send(request).await.unwrap()
}

async fn send(lab: &Lab, method: &str, path: &str, authorization: Option<&str>) -> Response {
    let mut request = Request::get(path);
    method.clone_into(&mut request.method);
    if let Some(authorization) = authorization {
        request.headers.push(("authorization".to_owned(), authorization.to_owned()));
    }
    if method == "POST" {
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        request.body = br#"{"events":[]}"#.to_vec();
    }
    lab_send(lab, &request).await
}

async fn revocation(stream: &mut Follower) -> Value {
    let (event, data) = stream.news().await;
    assert_eq!(event, "revocation", "{data}");
    data
}

async fn of_kind(lab: &Lab, kind: &str) -> Vec<Value> {
    let (entries, _) = lab.world.log(0).await;
    entries.into_iter().filter(|entry| entry["kind"] == kind).collect()
}

fn code(answer: &Response) -> String {
    format!("{} {}", answer.status, answer.error_code().unwrap_or_default())
}

fn merged(one: &Value, other: Value) -> Value {
    let mut both = one.clone();
    both.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    both
}

fn now_ms() -> u128 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    since.as_millis()
}

/// A broker that starts again needs the port that it had: nobody else of this program takes one meanwhile.
static PORTS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
