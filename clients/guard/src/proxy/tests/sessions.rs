//! Sessions, streams, and what the server asks in them: all of it its owner's alone.

use super::bench::{Bench, Got, Reply, until};
use crate::{EventKind, Revocation, tests::fixture::*};
use deputize_call::sign::{SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use std::time::Duration;

fn ask(id: Value, method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": {} })
}

fn done() -> Value {
    json!({ "jsonrpc": "2.0", "id": "same", "result": { "content": [] } })
}

fn response(id: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "action": "accept" } })
}

async fn listen(bench: &Bench, session: &str, cursor: Option<&str>) -> Got {
    let mut headers = vec![("mcp-session-id", session)];
    headers.extend(cursor.map(|cursor| ("last-event-id", cursor)));
    bench.send_as(&bench.key, "GET", &bench.token(l0()), (&headers, None)).await
}

#[tokio::test]
async fn a_session_is_bound_to_person_and_key_and_ends_for_its_owner() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    assert!(!session.starts_with("inner"), "the server's own id stays inside");
    let [(_, begun)] = bench.server.asked_of("initialize").try_into().unwrap();
    assert_eq!(
        begun["params"]["capabilities"],
        json!({ "roots": {} }),
        "sampling is not offered to the server"
    );

    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(bench.granted(l0(), &headers, &list()).await.status, 200);
    assert_eq!(bench.granted(l1("lookup"), &headers, &call("lookup", json!({}))).await.status, 200);
    let (sent, _) = bench.server.asked_of("tools/call").pop().unwrap();
    assert!(sent["mcp-session-id"].to_str().unwrap().starts_with("inner-"));
    assert_eq!(sent["mcp-protocol-version"], "2025-11-25");

    let other_key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    for (person, key) in [("user:acme:x:mallory", &bench.key), ("user:acme:x:alice", &other_key)] {
        let token = || bench.token_of(person, key, l0());
        let unknown =
            bench.send_as(key, "POST", &token(), (&[("mcp-session-id", "made-up")], Some(&list()))).await;
        for method in ["POST", "GET", "DELETE"] {
            let body = (method == "POST").then(list);
            let got = bench.send_as(key, method, &token(), (&headers[..1], body.as_ref())).await;
            assert_eq!(
                (got.status, &got.text),
                (404, &unknown.text),
                "{person} {method}: as one that never was"
            );
        }
        let l3_token = bench.token_of(person, key, l3("refund", &json!({})));
        let refund = call("refund", json!({}));
        assert_eq!(bench.send_as(key, "POST", &l3_token, (&headers, Some(&refund))).await.status, 404);
        assert!(bench.outside.redeemed.lock().unwrap().is_empty(), "no token is spent on another's session");
    }
    assert_eq!(
        bench.granted(l1("lookup"), &[], &response(json!(1))).await.status,
        403,
        "a call's token answers nothing"
    );
    let ended = bench.send_as(&bench.key, "DELETE", &bench.token(l0()), (&headers[..1], None)).await;
    assert_eq!(ended.status, 204);
    assert_eq!(bench.server.asked_of("DELETE").len(), 1);
    assert_eq!(bench.granted(l0(), &headers, &list()).await.status, 404);
}

#[tokio::test]
async fn what_the_server_asks_is_answered_once_by_the_owner() {
    let bench = Bench::new().await;
    let (session, other) = (bench.session().await, bench.session().await);
    bench
        .server
        .reply("lookup", Reply::Events(vec![(None, ask(json!(5), "elicitation/create")), (None, done())]));
    let here = [("mcp-session-id", session.as_str())];
    let got = bench.granted(l1("lookup"), &here, &call("lookup", json!({}))).await;
    assert_eq!((got.status, got.header("content-type")), (200, "text/event-stream"));
    assert_eq!(
        got.events(),
        [
            ask(json!(5), "elicitation/create"),
            json!({ "jsonrpc": "2.0", "id": 1,
        "result": { "content": [] } })
        ]
    );

    let there = [("mcp-session-id", other.as_str())];
    assert_eq!(
        bench.granted(l0(), &there, &response(json!(5))).await.status,
        400,
        "asked in another session"
    );
    assert_eq!(bench.granted(l0(), &[], &response(json!(5))).await.status, 400, "no session");
    assert_eq!(bench.granted(l0(), &here, &response(json!("5"))).await.status, 400, "another id");
    assert_eq!(bench.granted(l0(), &here, &response(json!(5))).await.status, 202);
    assert_eq!(bench.granted(l0(), &here, &response(json!(5))).await.status, 400, "answered already");
    let answers = bench.server.asked_of("POST");
    assert_eq!(answers.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>(), [response(json!(5))]);
    let rubbish = json!({ "jsonrpc": "2.0", "id": 5, "result": {}, "error": { "code": 1, "message": "m" } });
    assert_eq!(bench.granted(l0(), &here, &rubbish).await.status, 400);
}

#[tokio::test]
async fn sampling_is_refused_by_the_guard_on_every_stream() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    let events = vec![
        (None, ask(json!("s"), "sampling/createMessage")),
        (None, ask(json!("x"), "x/y")),
        (None, done()),
    ];
    bench.server.reply("lookup", Reply::Events(events.clone()));
    *bench.server.stream.lock().unwrap() = Some(Reply::Events(events[..1].to_vec()));
    for got in [
        bench.granted(l1("lookup"), &here, &call("lookup", json!({}))).await,
        bench.granted(l1("lookup"), &[], &call("lookup", json!({}))).await,
        listen(&bench, &session, None).await,
    ] {
        assert_eq!(got.status, 200);
        assert!(!got.text.contains("sampling"), "{}", got.text);
    }
    let refusals = || {
        let posts = bench.server.asked_of("POST");
        posts.into_iter().filter(|(_, body)| body["id"] == "s" && body["error"]["code"] == 1).count()
    };
    until(|| refusals() == 3).await;
    assert_eq!(bench.granted(l0(), &here, &response(json!("s"))).await.status, 400, "nobody else answers it");
}

#[tokio::test]
async fn nothing_steers_a_call_whose_token_fixes_it() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    bench
        .server
        .reply("refund", Reply::Events(vec![(None, ask(json!(7), "elicitation/create")), (None, done())]));
    let got = bench.granted(l3("refund", &json!({})), &here, &call("refund", json!({}))).await;
    assert_eq!(got.events().len(), 1, "{}", got.text);
    until(|| {
        bench.server.asked_of("POST").iter().any(|(_, body)| body["id"] == 7 && body["error"].is_object())
    })
    .await;
    assert_eq!(bench.granted(l0(), &here, &response(json!(7))).await.status, 400);
}

#[tokio::test]
async fn a_stream_is_bounded_screened_and_resumed_only_where_it_ran() {
    let bench = Bench::new().await;
    let (session, other) = (bench.session().await, bench.session().await);
    let here = [("mcp-session-id", session.as_str())];
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "x" } });
    bench.server.reply("lookup", Reply::Events(vec![(Some("e1"), note.clone())]));
    let broken_off = bench.granted(l1("lookup"), &here, &call("lookup", json!({}))).await;
    assert!(broken_off.text.contains("id: e1\n"), "{}", broken_off.text);

    let list_here = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": [{ "name": "unapproved" }] } });
    *bench.server.stream.lock().unwrap() = Some(Reply::Events(vec![(Some("e2"), list_here)]));
    assert_eq!(listen(&bench, &other, Some("e1")).await.status, 404, "the cursor of another session");
    assert_eq!(listen(&bench, &session, Some("e9")).await.status, 404, "a cursor that never was");
    let resumed = listen(&bench, &session, Some("e1")).await;
    assert_eq!(resumed.events().len(), 1, "the response to the call: {}", resumed.text);
    assert_eq!(bench.server.asked_of("GET").last().unwrap().0["last-event-id"], "e1");
    let again = listen(&bench, &session, Some("e2")).await;
    assert!(again.events().is_empty(), "a response to nothing that was asked: {}", again.text);

    let many = vec![(None, note); 100];
    bench.server.reply("lookup", Reply::Events(many));
    let cut = bench.granted(l1("lookup"), &here, &call("lookup", json!({}))).await;
    assert!(cut.text.len() < 6_000, "{}", cut.text.len());
    assert_eq!(
        cut.events().last().unwrap()["error"]["code"],
        -32603,
        "the response that is owed is an error"
    );
    bench
        .server
        .reply("lookup", Reply::Events(vec![(None, json!({ "jsonrpc": "2.0", "id": 2, "result": {} }))]));
    let another = bench.granted(l1("lookup"), &here, &call("lookup", json!({}))).await;
    assert_eq!(another.events().last().unwrap()["error"]["code"], -32603, "the response to another request");
    *bench.server.stream.lock().unwrap() = None;
    assert_eq!(listen(&bench, &session, None).await.status, 405, "the server offers none");
}

fn event(message: &Value) -> axum::body::Bytes {
    format!("id: e1\ndata: {message}\n\n").into()
}

#[tokio::test]
async fn a_stream_ends_with_what_its_token_stood_for() {
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "x" } });
    for (person, heard) in [("user:acme:x:bob", 1), ("user:acme:x:alice", 0)] {
        let bench = Bench::new().await;
        let session = bench.session().await;
        *bench.server.stream.lock().unwrap() = Some(Reply::Live);
        let saying = async {
            let stream = bench.server.live_stream().await;
            let revocation = Revocation::Person { sub: person.to_owned() };
            bench.proxy.guard().revoke(revocation, Duration::from_secs(1000));
            stream.send(event(&note)).await.unwrap();
            // The server keeps the stream of who is revoked open for as long as it likes.
            if heard == 0 { Some(stream) } else { None }
        };
        let (got, _open) = tokio::join!(listen(&bench, &session, None), saying);
        assert_eq!((got.status, got.events().len()), (200, heard), "{person} is revoked: {}", got.text);
    }
}

#[tokio::test]
async fn streams_are_asked_for_at_a_rate_as_calls_are() {
    let bench = Bench::with(false, |settings| settings.limits.burst = 2).await;
    let session = bench.session().await;
    for (status, cursor) in [(405, None), (404, Some("never-given")), (429, None)] {
        let got = listen(&bench, &session, cursor).await;
        assert_eq!(got.status, status, "{}", got.text);
    }
    let other = bench.token_of("user:acme:x:bob", &bench.key, l0());
    let headers = [("mcp-session-id", session.as_str())];
    let got = bench.send_as(&bench.key, "GET", &other, (&headers, None)).await;
    assert_eq!(got.status, 404, "another person has a rate of his own: {}", got.text);
    bench.clock.pass(Duration::from_secs(1));
    assert_eq!(listen(&bench, &session, None).await.status, 405, "and time gives more");
}

/// A server that answers a call with a stream cannot keep it open for who is revoked.
#[tokio::test]
async fn a_call_that_is_answered_with_a_stream_ends_with_what_its_token_stood_for() {
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "x" } });
    for (revoked, is_ended) in [
        (Revocation::Person { sub: "user:acme:x:bob".to_owned() }, false),
        (Revocation::Person { sub: "user:acme:x:alice".to_owned() }, true),
        (Revocation::Everything, true),
    ] {
        let bench = Bench::new().await;
        let session = bench.session().await;
        let here = [("mcp-session-id", session.as_str())];
        bench.server.reply("lookup", Reply::Live);
        let lookup = call("lookup", json!({}));
        let response =
            json!({ "jsonrpc": "2.0", "id": lookup["id"], "result": { "content": [{ "text": "done" }] } });
        let saying = async {
            let stream = bench.server.live_stream().await;
            bench.proxy.guard().revoke(revoked.clone(), Duration::from_secs(1000));
            stream.send(event(&note)).await.unwrap();
            // The stream may be gone by then.
            drop(stream.send(event(&response)).await);
            stream
        };
        let (got, _open) = tokio::join!(bench.granted(l1("lookup"), &here, &lookup), saying);
        let events = got.events();
        let last = events.last().unwrap();
        assert_eq!((got.status, &last["id"]), (200, &lookup["id"]), "{revoked:?}: {}", got.text);
        if is_ended {
            assert_eq!(
                (events.len(), &last["error"]["code"]),
                (1, &json!(-32603)),
                "{revoked:?}: {}",
                got.text
            );
            assert!(last["error"]["message"].as_str().unwrap().contains("revoked"), "{last}");
            until(|| !bench.outside.of_kind(EventKind::Failed).is_empty()).await;
            assert!(bench.outside.of_kind(EventKind::Executed).is_empty());
        } else {
            assert_eq!(
                (events.len(), &last["result"]),
                (2, &response["result"]),
                "{revoked:?}: {}",
                got.text
            );
        }
    }
}

#[tokio::test]
async fn an_id_is_one_requests_while_it_is_under_way() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    bench.server.reply("lookup", Reply::Live);
    let lookup = call("lookup", json!({}));
    let saying = async {
        let stream = bench.server.live_stream().await;
        let ping = ask(lookup["id"].clone(), "ping");
        let other = bench.granted(l0(), &here, &ping).await;
        let response = json!({ "jsonrpc": "2.0", "id": lookup["id"], "result": { "content": [] } });
        stream.send(event(&response)).await.unwrap();
        other
    };
    let (got, other) = tokio::join!(bench.granted(l1("lookup"), &here, &lookup), saying);
    assert_eq!((got.status, got.events().len()), (200, 1), "{}", got.text);
    assert_eq!(other.status, 400, "{}", other.text);
    assert!(bench.server.asked_of("ping").is_empty(), "its answer would have been taken for the other's");
    bench.server.reply("lookup", Reply::Raw(500, "text/plain", String::new()));
    for _ in 0..2 {
        let failed = bench.granted(l1("lookup"), &here, &lookup).await;
        assert_eq!(failed.status, 502, "what failed is over, and its id is free");
    }
}

#[tokio::test]
async fn leaving_a_call_whose_token_fixes_it_opens_no_way_to_steer_it() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "x" } });
    // The stream breaks off where it can be resumed: the call runs on.
    bench.server.reply("refund", Reply::Events(vec![(Some("e1"), note)]));
    let left = bench.granted(l3("refund", &json!({})), &here, &call("refund", json!({}))).await;
    assert_eq!(left.events().len(), 1, "{}", left.text);
    until(|| !bench.outside.of_kind(EventKind::Executed).is_empty()).await;
    let asks = || Reply::Events(vec![(Some("e2"), ask(json!(7), "elicitation/create"))]);
    *bench.server.stream.lock().unwrap() = Some(asks());
    assert!(listen(&bench, &session, None).await.events().is_empty(), "nothing is asked while it runs");
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } });
    *bench.server.stream.lock().unwrap() = Some(Reply::Events(vec![(Some("e3"), response)]));
    assert_eq!(listen(&bench, &session, Some("e1")).await.events().len(), 1);
    *bench.server.stream.lock().unwrap() = Some(asks());
    assert_eq!(listen(&bench, &session, None).await.events().len(), 1, "it has its response");
}

#[tokio::test]
async fn what_a_notification_is_called_cannot_stop_other_callers() {
    let bench = Bench::new().await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    let note = |name: &str| json!({ "jsonrpc": "2.0", "method": format!("notifications/{name}") });
    for name in ["a\nb", "\u{1}", "\u{7f}", "é", "a b", &"x".repeat(200)] {
        for _ in 0..5 {
            assert_eq!(bench.granted(l0(), &here, &note(name)).await.status, 400, "{name:?}");
        }
    }
    assert_eq!(bench.granted(l0(), &here, &note("roots/list_changed")).await.status, 202);
    let other = bench.granted(l1("lookup"), &[], &call("lookup", json!({}))).await;
    assert_eq!(other.status, 200, "the server is not held to be ill: {}", other.text);
}

#[tokio::test]
async fn what_is_switched_off_while_a_token_is_redeemed_does_not_run() {
    let bench = Bench::new().await;
    for (switched_off, status, ran) in [("transfer", 200, 1), ("refund", 401, 1)] {
        let guard = std::sync::Arc::clone(bench.proxy.guard());
        let revocation = Revocation::Tool { name: switched_off.to_owned() };
        let switch_off = move || guard.revoke(revocation, Duration::from_secs(1000));
        *bench.outside.meanwhile.lock().unwrap() = Some(Box::new(switch_off));
        let got = bench.granted(l3("refund", &json!({})), &[], &call("refund", json!({}))).await;
        assert_eq!(got.status, status, "{switched_off}: {}", got.text);
        assert_eq!(bench.server.asked_of("tools/call").len(), ran);
    }
}
