//! The guard as a layer before a service of the same process.

use super::{
    aws::Source,
    bench::{Bench, Got},
};
use crate::{Revocation, VerifiedCall, proxy::layer::GuardLayer, tests::fixture::*};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request},
    response::IntoResponse,
    routing::any,
};
use deputize_call::dpop::{self, NewProof};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tower::ServiceExt as _;

/// Answers with what reached it.
async fn echo(request: Request<Body>) -> impl IntoResponse {
    let call = request.extensions().get::<Arc<VerifiedCall>>().map(|call| call.claims().sub.clone());
    let (parts, body) = request.into_parts();
    let body: Bytes = body.collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let names: Vec<&str> = parts.headers.keys().map(|name| name.as_str()).collect();
    let mut tools = definitions();
    tools.push(json!({ "name": "new", "inputSchema": {} }));
    let result = json!({ "person": call, "headers": names, "said": message, "tools": tools });
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string();
    ([("set-cookie", "a=b"), ("mcp-session-id", "its own"), ("x-any", "kept")], answer)
}

/// Says which credentials it got for its call, twice.
async fn restart(request: Request<Body>) -> impl IntoResponse {
    let call = request.extensions().get::<Arc<VerifiedCall>>().unwrap();
    let said = match tokio::join!(call.aws_credentials(), call.aws_credentials()) {
        (Ok(one), Ok(two)) => format!("{} {}", one.access_key_id(), two.access_key_id()),
        (Err(error), _) | (_, Err(error)) => error.to_string(),
    };
    ([("deputize-aws-authorization", "its own")], json!({ "result": said }).to_string())
}

async fn send(bench: &Bench, method: &str, token: &str, headers: &[(&str, &str)], body: &Value) -> Got {
    let layer = GuardLayer::new(Arc::clone(bench.proxy.guard()), bench.clock.clone());
    let router = Router::new().route("/mcp", any(echo)).layer(layer);
    answer(router, request(bench, method, token, headers, body)).await
}

fn request(
    bench: &Bench,
    method: &str,
    token: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Body> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let jti = format!("layer-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let nonce = bench.proxy.guard().next_nonce(Duration::from_secs(1000));
    let (nonce, access_token) = (Some(nonce.as_str()), Some(token));
    let proof = NewProof { htm: method, htu: RESOURCE, jti: &jti, iat: bench.now(), nonce, access_token };
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("authorization", format!("DPoP {token}"))
        .header("dpop", dpop::prove(&bench.key, &proof).unwrap())
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

async fn answer(router: Router, request: Request<Body>) -> Got {
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let headers: HeaderMap = parts.headers;
    Got { status: parts.status.as_u16(), headers, text }
}

#[tokio::test]
async fn a_service_gets_what_was_verified_and_knows_who_calls() {
    let bench = Bench::new().await;
    let call = call("lookup", json!({ "payment_id": "p" }));
    let headers = [
        ("mcp-session-id", "another's"),
        ("deputize-call", "forged"),
        ("mcp-name", "lookup"),
        ("mcp-param-payment", "p"),
        ("mcp-protocol-version", "2026-07-28"),
        ("cookie", "session=another's"),
        ("forwarded", "for=10.0.0.1;proto=https"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-request-id", "chosen"),
        ("proxy-authorization", "Basic eDp4"),
        ("tracestate", "vendor=x"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("accept", "application/json, text/event-stream"),
        ("origin", "https://pay.example.com"),
        ("user-agent", "agent/1"),
    ];
    let got = send(&bench, "POST", &bench.token(l1("lookup")), &headers, &call).await;
    assert_eq!(got.status, 200, "{got:?}");
    assert!(!got.header("dpop-nonce").is_empty());
    let result = &got.json()["result"];
    assert_eq!((&result["person"], &result["said"]), (&json!("user:acme:x:alice"), &call));
    let names = result["headers"].as_array().unwrap();
    let mut names: Vec<&str> = names.iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    let mut known = [
        "accept",
        "content-type",
        "mcp-method",
        "mcp-name",
        "mcp-param-payment",
        "mcp-protocol-version",
        "origin",
        "traceparent",
        "user-agent",
    ];
    known.sort_unstable();
    assert_eq!(names, known, "and nothing else");
    assert_eq!(got.header("x-any"), "kept");
    for absent in ["set-cookie", "mcp-session-id"] {
        assert_eq!(got.header(absent), "", "{absent}");
    }
}

#[tokio::test]
async fn a_service_asks_for_the_aws_credentials_of_its_call() {
    let bench = Bench::new().await;
    let source = Arc::<Source>::default();
    let without = GuardLayer::new(Arc::clone(bench.proxy.guard()), bench.clock.clone());
    let with = without.clone().aws_credentials(source.clone());
    let call = call("lookup", json!({}));
    let calls = async |layer: &GuardLayer| {
        let router = Router::new().route("/mcp", any(restart)).layer(layer.clone());
        let got = answer(router, request(&bench, "POST", &bench.token(l1("lookup")), &[], &call)).await;
        assert_eq!((got.status, got.header("deputize-aws-authorization")), (200, ""), "{got:?}");
        got.json()["result"].as_str().unwrap().to_owned()
    };
    assert_eq!(calls(&with).await, "ASIA0 ASIA0", "asked once");
    assert_eq!((calls(&with).await.as_str(), source.asked()), ("ASIA1 ASIA1", 2), "each call has its own");
    assert!(calls(&without).await.contains("not told whom to ask"));
}

#[tokio::test]
async fn a_service_gets_no_aws_credentials_for_a_call_that_is_revoked_meanwhile() {
    for what in ["token", "tool", "another token"] {
        let bench = Arc::new(Bench::new().await);
        let source = Arc::<Source>::default();
        let layer = GuardLayer::new(Arc::clone(bench.proxy.guard()), bench.clock.clone());
        let revoking = Arc::clone(&bench);
        let service = async move |request: Request<Body>| {
            let call = request.extensions().get::<Arc<VerifiedCall>>().unwrap();
            let before = call.aws_credentials().await;
            let uptime = deputize_client::Clock::uptime(&*revoking.clock);
            let revoked = match what {
                "token" => Revocation::Token { jti: call.claims().jti.clone() },
                "tool" => Revocation::Tool { name: "lookup".to_owned() },
                _ => Revocation::Token { jti: "another".to_owned() },
            };
            revoking.proxy.guard().revoke(revoked, uptime);
            let after = call.aws_credentials().await;
            json!({ "result": [before.is_ok(), after.is_ok()] }).to_string()
        };
        let router = Router::new().route("/mcp", any(service)).layer(layer.aws_credentials(source.clone()));
        let call = call("lookup", json!({}));
        let got = answer(router, request(&bench, "POST", &bench.token(l1("lookup")), &[], &call)).await;
        assert_eq!(
            (got.json()["result"].clone(), source.asked()),
            (json!([true, what == "another token"]), 1),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_service_is_not_asked_what_was_not_granted() {
    let bench = Bench::new().await;
    let call = call("lookup", json!({}));
    let other = bench.token(l1("transfer"));
    assert_eq!(send(&bench, "POST", &other, &[], &call).await.status, 403);
    let listen = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
        "params": { "notifications": { "toolsListChanged": true } } });
    let headers = [("mcp-protocol-version", "2026-07-28")];
    let got = send(&bench, "POST", &bench.token(l0()), &headers, &listen).await;
    assert_eq!((got.status, &got.json()["error"]["code"]), (404, &json!(-32601)), "no stream lasts here");
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    assert_eq!(
        send(&bench, "POST", &bench.token(l0()), &[], &response).await.status,
        400,
        "it keeps no sessions"
    );
    for method in ["GET", "DELETE"] {
        assert_eq!(send(&bench, method, &bench.token(l0()), &[], &call).await.status, 405);
    }
    let listed = send(&bench, "POST", &bench.token(l0()), &[], &list()).await;
    assert_eq!(listed.json()["result"]["tools"], json!(definitions()), "what is not approved is not shown");
    assert_eq!(listed.json()["result"]["person"], json!(null), "who only looks calls nothing");
}
