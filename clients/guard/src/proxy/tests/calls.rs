//! Calls: what goes to the server, what comes back, and what is stopped on either way.

use super::bench::{Bench, Reply, until};
use crate::{EventKind, proxy::ClientCertificate, tests::fixture::*};
use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use std::time::Duration;

fn lookup() -> Value {
    call("lookup", json!({ "payment_id": "pay_é" }))
}

#[tokio::test]
async fn a_call_is_rebuilt_from_what_was_verified() {
    let bench = Bench::new().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-guard", "forged"),
        ("deputize-call", "forged"),
        ("mcp-session", "x"),
        ("traceparent", trace),
        ("mcp-param-payment", "=?base64?cGF5X8OpCg==?="),
    ];
    let token = bench.token(l1("lookup"));
    let wrong = bench.post(&token, &headers, &lookup()).await;
    assert_eq!(wrong.status, 400, "a mirrored header that says something else");
    let headers = [&headers[..6], &[("mcp-param-payment", "=?base64?cGF5X8Op?=")]].concat();
    let got = bench.post(&token, &headers, &lookup()).await;
    assert_eq!((got.status, got.json()["id"].clone()), (200, json!(1)), "{got:?}");
    assert!(!got.header("dpop-nonce").is_empty() && got.header("cache-control") == "no-store");

    let [(sent, body)] = bench.server.asked_of("tools/call").try_into().unwrap();
    assert_eq!(body, lookup());
    for absent in ["authorization", "dpop", "cookie", "x-forwarded-for", "mcp-session"] {
        assert!(!sent.contains_key(absent), "{absent}");
    }
    for (name, value) in [
        ("mcp-method", "tools/call"),
        ("mcp-name", "lookup"),
        ("mcp-param-payment", "=?base64?cGF5X8Op?="),
        ("deputize-call", &token),
        ("traceparent", trace),
        ("x-guard", "secret"),
    ] {
        let values: Vec<_> = sent.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, [value], "{name}");
    }
    assert_eq!(sent["x-request-id"], got.header("x-request-id"), "one id for the caller and the server");
    let [executed] = bench.outside.of_kind(EventKind::Executed).try_into().unwrap();
    assert_eq!((executed.tool.as_deref(), executed.class.as_deref()), (Some("lookup"), Some("result")));
    assert_eq!(executed.bytes, Some(got.text.len() as u64));
}

#[tokio::test]
async fn what_is_refused_never_reaches_the_server() {
    let bench = Bench::new().await;
    let refused = [
        (401, bench.post("no.such.token", &[], &lookup()).await),
        (403, bench.granted(l1("transfer"), &[], &lookup()).await),
        (403, bench.granted(l0(), &[], &lookup()).await),
        (403, bench.granted(l1("lookup"), &[], &list()).await),
        (403, bench.granted(l1("lookup"), &[("origin", "https://evil.example")], &lookup()).await),
        (400, bench.granted(l1("lookup"), &[("x-any", "\u{e9}")], &lookup()).await),
        (400, bench.granted(l1("lookup"), &[("mcp-protocol-version", "1900-01-01")], &lookup()).await),
        (
            413,
            bench.granted(l1("lookup"), &[], &call("lookup", json!({ "note": "x".repeat(1 << 21) }))).await,
        ),
    ];
    for (status, got) in refused {
        assert_eq!(got.status, status, "{got:?}");
        assert!(!got.header("dpop-nonce").is_empty(), "a refusal brings the next nonce");
        assert!(!got.header("x-request-id").is_empty(), "and can be referred to");
    }
    assert!(bench.server.asked_of("tools/call").is_empty());
    let own = bench.granted(l1("lookup"), &[("origin", "https://pay.example.com")], &lookup()).await;
    assert_eq!(own.status, 200, "the endpoint's own pages may call");
    for (method, path, status) in
        [("PUT", "/mcp", 405), ("POST", "/other", 404), ("GET", "/mcp", 401), ("DELETE", "/mcp", 401)]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(bench.raw(request).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn answers_that_are_none_do_not_reach_the_client() {
    let bench = Bench::with(false, |settings| settings.limits.burst = 100).await;
    let result = |id: Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    let long = result(json!("same"), json!({ "content": "x".repeat(20_000) }));
    let sampling = json!({ "resultType": "input_required",
        "inputRequests": { "a": { "method": "sampling/createMessage", "params": {} } } });
    for (reply, status, class) in [
        (Reply::Json(result(json!("another"), json!({}))), 502, "broken"),
        (Reply::Json(json!({ "id": "same", "result": {} })), 502, "broken"),
        (Reply::Json(json!({ "jsonrpc": "2.0", "id": "same" })), 502, "broken"),
        (Reply::Json(json!({ "jsonrpc": "2.0", "id": "same", "result": 1 })), 502, "broken"),
        (Reply::Json(json!({ "jsonrpc": "2.0", "id": "same", "method": "ping" })), 502, "broken"),
        (Reply::Json(json!([result(json!("same"), json!({}))])), 502, "broken"),
        (Reply::Json(long), 502, "too_large"),
        (Reply::Json(result(json!("same"), sampling)), 502, "sampling"),
        (Reply::Raw(200, "text/html", "<p>".into()), 502, "broken"),
        (Reply::Raw(200, "application/json", "{".into()), 502, "broken"),
        (Reply::Raw(302, "application/json", "{}".into()), 502, "broken"),
        (Reply::Raw(500, "application/json", "{}".into()), 502, "broken"),
        (Reply::Raw(401, "application/json", "{}".into()), 502, "guard_refused"),
        (Reply::Raw(503, "application/json", "{}".into()), 503, "unreachable"),
        (Reply::Never, 504, "timeout"),
    ] {
        bench.server.reply("lookup", reply.clone());
        let got = bench.granted(l1("lookup"), &[], &lookup()).await;
        assert_eq!(got.status, status, "{reply:?} {got:?}");
        assert!(got.json()["error_description"].is_string());
        assert_eq!(bench.outside.of_kind(EventKind::Failed).last().unwrap().class.as_deref(), Some(class));
        bench.server.reply("lookup", Reply::Json(result(json!("same"), json!({}))));
        let honest = bench.granted(l1("lookup"), &[], &lookup()).await;
        assert_eq!(honest.status, 200, "the next honest call runs after {reply:?}: {honest:?}");
    }
    let tool_error = result(json!("same"), json!({ "isError": true, "content": [] }));
    bench.server.reply("lookup", Reply::Json(tool_error));
    assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 200);
    assert_eq!(
        bench.outside.of_kind(EventKind::Executed).last().unwrap().class.as_deref(),
        Some("tool_error")
    );
    let refused = json!({ "jsonrpc": "2.0", "id": "same", "error": { "code": -32602, "message": "m" } });
    bench.server.reply("lookup", Reply::Raw(400, "application/json", refused.to_string()));
    let got = bench.granted(l1("lookup"), &[], &lookup()).await;
    assert_eq!(
        (got.status, &got.json()["error"]["code"]),
        (400, &json!(-32602)),
        "errors of the protocol pass"
    );
}

#[tokio::test]
async fn a_failing_server_costs_no_tokens_and_is_tried_again() {
    let bench = Bench::with(false, |settings| settings.relist_every = Duration::from_secs(3600)).await;
    bench.server.reply("refund", Reply::Raw(503, "text/plain", String::new()));
    let refund = || l3("refund", &json!({}));
    for _ in 0..5 {
        assert_eq!(bench.granted(refund(), &[], &call("refund", json!({}))).await.status, 503);
    }
    let spent = bench.outside.redeemed.lock().unwrap().len();
    let token = bench.token(refund());
    let got = bench.post(&token, &[], &call("refund", json!({}))).await;
    assert_eq!((got.status, got.header("retry-after")), (503, "1"));
    assert_eq!(
        bench.outside.redeemed.lock().unwrap().len(),
        spent,
        "nothing is spent while the breaker is open"
    );
    bench.server.replies.lock().unwrap().clear();
    bench.clock.pass(Duration::from_secs(2));
    assert_eq!(bench.post(&token, &[], &call("refund", json!({}))).await.status, 200, "the probe is a call");
    let again = bench.post(&token, &[], &call("refund", json!({}))).await;
    assert_eq!(again.status, 401, "and spent its token");
}

#[tokio::test]
async fn what_one_caller_meets_stops_nobody_else() {
    let change = |settings: &mut crate::proxy::ProxySettings| {
        (settings.relist_every, settings.limits.burst) = (Duration::from_secs(3600), 100);
    };
    let bench = Bench::with(false, change).await;
    let raw = |status| Reply::Raw(status, "text/plain", String::new());
    for (reply, stops_himself) in
        [(raw(401), false), (raw(403), false), (raw(500), false), (raw(503), true), (Reply::Never, true)]
    {
        bench.server.reply("lookup", reply.clone());
        for _ in 0..6 {
            assert_ne!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 200);
        }
        let asked = bench.server.asked_of("tools/call").len();
        bench.server.replies.lock().unwrap().clear();
        let bobs = bench.token_of("user:acme:x:bob", &bench.key, l1("lookup"));
        assert_eq!(bench.post(&bobs, &[], &lookup()).await.status, 200, "{reply:?}");
        let own = bench.granted(l1("lookup"), &[], &lookup()).await.status;
        assert_eq!(own, if stops_himself { 503 } else { 200 }, "{reply:?}");
        assert_eq!(bench.server.asked_of("tools/call").len(), asked + if stops_himself { 1 } else { 2 });
        bench.clock.pass(Duration::from_secs(2));
        assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 200, "{reply:?}");
    }
}

#[tokio::test]
async fn rates_are_each_persons_and_refuse_before_the_token_is_spent() {
    let bench = Bench::with(false, |settings| settings.limits.burst = 2).await;
    let refund = || l3("refund", &json!({}));
    for _ in 0..2 {
        assert_eq!(bench.granted(refund(), &[], &call("refund", json!({}))).await.status, 200);
    }
    let token = bench.token(refund());
    let limited = bench.post(&token, &[], &call("refund", json!({}))).await;
    assert_eq!(limited.status, 429);
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 200, "another tool");
    let bobs = bench.token_of("user:acme:x:bob", &bench.key, refund());
    assert_eq!(bench.post(&bobs, &[], &call("refund", json!({}))).await.status, 200, "another person");
    bench.clock.pass(Duration::from_secs(1));
    assert_eq!(
        bench.post(&token, &[], &call("refund", json!({}))).await.status,
        200,
        "later, with the same token"
    );
}

#[tokio::test]
async fn lists_hold_what_is_approved_as_it_was_approved() {
    let bench = Bench::new().await;
    let mut tools = definitions();
    tools[0]["_meta"] = json!({ "note": "not covered by the digest" });
    tools[1]["description"] = json!("changed");
    tools.push(json!({ "name": "new", "inputSchema": {} }));
    *bench.server.tools.lock().unwrap() = tools;
    let got = bench.granted(l0(), &[], &list()).await;
    assert_eq!(got.json()["result"]["tools"], json!([definitions()[0], definitions()[2]]));
    // The guard looks for itself then: calls of what changed stop.
    until(|| !bench.outside.of_kind(EventKind::Drifted).is_empty()).await;
    let [drifted] = bench.outside.of_kind(EventKind::Drifted).try_into().unwrap();
    assert_eq!(drifted.tool.as_deref(), Some("transfer"));
    let changes = json!([{ "at": "/description", "approved": "transfer", "live": "changed" }]);
    assert_eq!(drifted.detail.unwrap()["changes"], changes);
    let grant = l2("transfer", json!({ "/payment_id": { "enum": ["a"] } }), 1);
    let stopped = bench.granted(grant, &[], &call("transfer", json!({ "payment_id": "a" }))).await;
    assert_eq!((stopped.status, stopped.json()["error"].clone()), (403, json!("insufficient_scope")));
    assert!(bench.server.asked_of("tools/call").is_empty());
    bench.server.tools.lock().unwrap().clear();
    until(|| !bench.proxy.is_ready()).await;
    assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 503, "a server without tools");
}

#[tokio::test]
async fn a_server_of_the_stateless_version_is_heard_when_its_tools_change() {
    let bench = Bench::with(true, |settings| settings.relist_every = Duration::from_secs(3600)).await;
    until(|| !bench.server.subscriptions.lock().unwrap().is_empty()).await;
    bench.server.tools.lock().unwrap()[0]["description"] = json!("changed");
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {} });
    let stream = bench.server.subscriptions.lock().unwrap().pop().unwrap();
    stream.send(format!("data: {note}\n\n").into()).await.unwrap();
    until(|| !bench.outside.of_kind(EventKind::Drifted).is_empty()).await;
    assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 403);
    assert!(bench.server.asked_of("tools/call").is_empty());

    // A stream that breaks off is opened again, and what was missed is seen.
    bench.server.tools.lock().unwrap()[0] = definitions()[0].clone();
    drop(stream);
    until(|| !bench.server.subscriptions.lock().unwrap().is_empty()).await;
    until(|| bench.outside.of_kind(EventKind::ListChanged).len() == 3).await;
    assert_eq!(bench.granted(l1("lookup"), &[], &lookup()).await.status, 200);
}

#[tokio::test]
async fn the_stateless_version_passes_with_its_headers() {
    let bench = Bench::with(true, |_| {}).await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "sampling": {}, "elicitation": {} } });
    let mut body = lookup();
    body["params"]["_meta"] = meta.clone();
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-param-payment", "=?base64?cGF5X8Op?="),
        ("mcp-name", "lookup"),
    ];
    assert_eq!(bench.granted(l1("lookup"), &headers, &body).await.status, 200);
    let [(sent, body_sent)] = bench.server.asked_of("tools/call").try_into().unwrap();
    assert_eq!(sent["mcp-protocol-version"], "2026-07-28");
    let capabilities = &body_sent["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(*capabilities, json!({ "elicitation": {} }), "the server is not told that it could sample");
    for missing in 1..4 {
        let mut headers = headers.to_vec();
        headers.remove(missing);
        let missing = bench.granted(l1("lookup"), &headers, &body).await;
        assert_eq!((missing.status, &missing.json()["error"]["code"]), (400, &json!(-32020)), "{headers:?}");
    }
    let bare = bench.granted(l0(), &[headers[0], ("mcp-method", "tools/list")], &list()).await;
    assert_eq!((bare.status, &bare.json()["error"]["code"]), (400, &json!(-32602)), "without _meta");

    let mut discover = json!({ "jsonrpc": "2.0", "id": 9, "method": "server/discover", "params": {} });
    discover["params"]["_meta"] = meta;
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "server/discover")];
    let got = bench.granted(l0(), &headers, &discover).await.json();
    assert_eq!(
        got["result"]["capabilities"],
        json!({ "tools": { "listChanged": true }, "resources": { "listChanged": true } }),
        "what is not let through is not offered"
    );

    let older = Bench::new().await;
    let got = older.granted(l0(), &headers, &discover).await;
    assert_eq!(got.json()["result"]["supportedVersions"], json!(["2025-11-25", "2025-06-18", "2025-03-26"]));
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "refund")];
    let mut body = call("refund", json!({}));
    body["params"]["_meta"] = discover["params"]["_meta"].clone();
    let got = older.granted(l3("refund", &json!({})), &headers, &body).await;
    assert_eq!((got.status, &got.json()["error"]["code"]), (400, &json!(-32022)));
    assert!(older.outside.redeemed.lock().unwrap().is_empty(), "and no token is spent on it");
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_passes_with_that_one_alone() {
    let bench = Bench::with(false, |settings| settings.takes_certificates = true).await;
    let [mine, another] = [&b"mine"[..], b"another"].map(ClientCertificate::of);
    let mut claims = bench.fixture.claims(l1("lookup"));
    claims.cnf = deputize_call::claims::Confirmation::X5tS256(mine.thumbprint().to_owned());
    (claims.iat, claims.nbf, claims.exp) = (bench.now(), bench.now(), bench.now() + 60);
    let (bound, by_key) = (bench.fixture.sign(&claims), bench.token(l1("lookup")));
    for (authorization, certificate, status) in [
        (format!("Bearer {bound}"), Some(&mine), 200),
        (format!("Bearer {bound}"), Some(&another), 401),
        (format!("Bearer {bound}"), None, 401),
        (format!("DPoP {bound}"), Some(&mine), 401),
        (format!("Bearer {by_key}"), Some(&mine), 401),
        (format!("DPoP {by_key}"), Some(&mine), 401),
    ] {
        let request = Request::builder().method("POST").uri("/mcp").header("authorization", &authorization);
        let request = request.header("content-type", "application/json");
        let mut request = request.body(Body::from(lookup().to_string())).unwrap();
        if let Some(certificate) = certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        assert_eq!(bench.raw(request).await.status, status, "{authorization} {certificate:?}");
    }
    assert_eq!(bench.server.asked_of("tools/call").len(), 1);
    let path = "/.well-known/oauth-protected-resource/mcp";
    let metadata = bench.raw(Request::builder().uri(path).body(Body::empty()).unwrap()).await.json();
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert_eq!(metadata["dpop_bound_access_tokens_required"], false, "a certificate will do");
}

#[tokio::test]
async fn a_method_that_goes_nowhere_is_told_in_the_words_of_its_version() {
    let error = json!({ "code": -32601, "message": "Method not found" });
    let not_found = json!({ "jsonrpc": "2.0", "id": "x", "error": error });
    let refused =
        json!({ "error": "insufficient_scope", "error_description": "no token admits this method" });
    let modern = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tasks/list")];
    for (is_modern, headers, status, expected) in [
        (true, &modern[..], 404, &not_found),
        (false, &[("mcp-protocol-version", "2025-11-25")], 403, &refused),
        (false, &[], 403, &refused),
    ] {
        let bench = Bench::with(is_modern, |_| {}).await;
        let body = json!({ "jsonrpc": "2.0", "id": "x", "method": "tasks/list", "params": {} });
        let got = bench.granted(l0(), headers, &body).await;
        assert_eq!((got.status, &got.json()), (status, expected));
        assert!(bench.server.asked_of("tasks/list").is_empty());
    }
}

#[tokio::test]
async fn anyone_may_ask_whom_to_ask() {
    let bench = Bench::new().await;
    let get = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
    let metadata = bench.raw(get("/.well-known/oauth-protected-resource/mcp")).await.json();
    assert_eq!(
        (&metadata["resource"], &metadata["authorization_servers"]),
        (&json!(RESOURCE), &json!([ISSUER]))
    );
    assert_eq!(bench.raw(get("/healthz")).await.status, 200);
    assert_eq!(bench.raw(get("/readyz")).await.status, 200);
    bench.clock.pass(Duration::from_secs(61));
    assert_eq!(bench.raw(get("/readyz")).await.status, 503, "revocations are stale");
}
