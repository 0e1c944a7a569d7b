use super::{door::Door, *};
use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use deputize_call::schema::PinnedSchema;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::sync::Arc;
use tower::ServiceExt as _;

fn crm() -> ExampleServer {
    ExampleServer::crm("http://127.0.0.1:7001/mcp", "crm-guard").unwrap()
}

async fn call(server: &ExampleServer, tool: &str, arguments: Value) -> Value {
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments }
    });
    server.answer(message.as_object().unwrap(), &Handed::default()).await.unwrap()
}

#[tokio::test]
async fn every_tool_accepts_its_own_example_and_refuses_a_stranger_in_it() {
    let mailer = ExampleServer::mailer("http://127.0.0.1:7002/mcp", "mailer-guard").unwrap();
    for server in [crm(), mailer] {
        for tool in server.record()["tools"].as_array().unwrap() {
            let schema = PinnedSchema::compile(&tool["definition"]["inputSchema"]).unwrap();
            let mut arguments = tool["example_arguments"].as_object().unwrap().clone();
            schema.validate(&arguments).unwrap();
            let name = tool["definition"]["name"].as_str().unwrap();
            let answer = call(&server, name, arguments.clone().into()).await;
            assert_eq!(answer["result"]["isError"], false, "{answer}");
            arguments.insert("stranger".to_owned(), 1.into());
            schema.validate(&arguments).unwrap_err();
        }
    }
}

#[test]
fn the_first_tool_is_the_harmless_one() {
    let server = crm();
    let first = &server.record()["tools"][0];
    assert_eq!((&first["tier"], &first["effect"]), (&json!("low"), &json!("read")));
}

#[tokio::test]
async fn a_refund_takes_from_what_is_left_and_never_more() {
    let server = crm();
    let refund = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
    for left in [4200, 0] {
        let answer = call(&server, "refund_payment", refund.clone()).await;
        assert_eq!(answer["result"]["structuredContent"]["refundable_cents"], left);
    }
    assert_eq!(call(&server, "refund_payment", refund).await["result"]["isError"], true);
    assert_eq!(server.calls_run(), 3);
}

#[tokio::test]
async fn the_protocol_is_answered_and_what_is_unknown_runs_nothing() {
    let server = crm();
    let ask = async |message: Value| server.answer(message.as_object().unwrap(), &Handed::default()).await;
    let initialized =
        ask(json!({ "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18" } })).await;
    assert_eq!(initialized.unwrap()["result"]["protocolVersion"], "2025-06-18");
    let listed = ask(json!({ "id": "a", "method": "tools/list" })).await.unwrap();
    assert_eq!(listed["id"], "a");
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 3);
    assert_eq!(ask(json!({ "method": "notifications/initialized" })).await, None);
    assert_eq!(ask(json!({ "id": 2, "method": "resources/read" })).await.unwrap()["error"]["code"], -32601);
    assert_eq!(call(&server, "drop_tables", json!({})).await["error"]["code"], -32602);
    assert_eq!(call(&server, "lookup_customer", json!([])).await["error"]["code"], -32602);
    assert_eq!(server.calls_run(), 0);
}

/// A server behind its door, and how its guard speaks to it.
struct Served {
    server: Arc<ExampleServer>,
    router: Router,
    secret: String,
    stop: watch::Sender<bool>,
}

fn served() -> Served {
    let (server, stop) = (Arc::new(crm()), watch::Sender::new(false));
    let door = Door::new(Arc::clone(&server), stop.subscribe()).unwrap();
    let secret = door.secret().1.as_str().to_owned();
    Served { server, router: door.router(), secret, stop }
}

impl Served {
    async fn send(&self, method: &str, headers: &[(&str, &str)], message: &Value) -> Response<Body> {
        let mut request = Request::builder().method(method).uri("/mcp");
        request = request.header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::from(message.to_string())).unwrap()).await.unwrap()
    }

    /// As its guard, in the stateless version.
    async fn post(&self, message: &Value) -> (u16, Value) {
        let name = message["params"]["name"].as_str().unwrap_or_default();
        let method = message["method"].as_str().unwrap();
        let headers = [
            ("deputize-guard", self.secret.as_str()),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
            ("mcp-name", name),
        ];
        read(self.send("POST", &headers, message).await).await
    }
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn modern(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn lookup() -> Value {
    json!({ "name": "lookup_customer", "arguments": { "customer_id": "cus_17" } })
}

#[tokio::test]
async fn it_answers_its_guard_alone() {
    let served = served();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": lookup() });
    let guessed = format!("{}x", served.secret);
    for headers in [&[][..], &[("deputize-guard", "")], &[("deputize-guard", &guessed)]] {
        for method in ["POST", "GET", "DELETE"] {
            assert_eq!(served.send(method, headers, &call).await.status(), 401, "{method} {headers:?}");
        }
    }
    assert_eq!(served.server.calls_seen(), 0);
    let (status, answer) =
        read(served.send("POST", &[("deputize-guard", &served.secret)], &call).await).await;
    assert_eq!((status, &answer["result"]["isError"]), (200, &json!(false)));
    let another = self::served();
    assert_eq!(another.send("POST", &[("deputize-guard", &served.secret)], &call).await.status(), 401);
}

#[tokio::test]
async fn the_stateless_version_has_what_it_demands() {
    let served = served();
    let (status, discovered) = served.post(&modern("server/discover", json!({}))).await;
    let versions = json!(["2026-07-28", "2025-11-25", "2025-06-18"]);
    assert_eq!((status, &discovered["result"]["supportedVersions"]), (200, &versions));
    let (_, listed) = served.post(&modern("tools/list", json!({}))).await;
    let result = &listed["result"];
    assert_eq!((&result["resultType"], &result["cacheScope"]), (&json!("complete"), &json!("public")));
    assert_eq!((&result["ttlMs"], result["tools"].as_array().map(Vec::len)), (&json!(0), Some(3)));
    let (_, called) = served.post(&modern("tools/call", lookup())).await;
    assert_eq!(called["result"]["structuredContent"]["name"], "Grace Gray");
    assert_eq!(called["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "crm");

    for method in ["ping", "initialize", "resources/read"] {
        let (status, answer) = served.post(&modern(method, json!({}))).await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!(-32601)), "{method}");
    }
    let seen = served.server.calls_seen();
    let guard = ("deputize-guard", served.secret.as_str());
    let version = ("mcp-protocol-version", "2026-07-28");
    let method = ("mcp-method", "tools/call");
    for headers in [
        &[guard, method, ("mcp-name", "lookup_customer")][..],
        &[guard, version, ("mcp-name", "lookup_customer")],
        &[guard, version, method],
        &[guard, version, method, ("mcp-name", "refund_payment")],
        &[guard, version, ("mcp-method", "tools/list"), ("mcp-name", "lookup_customer")],
    ] {
        let (status, answer) =
            read(served.send("POST", headers, &modern("tools/call", lookup())).await).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32020)), "{headers:?}");
    }
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let older = [guard, ("mcp-protocol-version", "2024-11-05")];
    let (status, answer) = read(served.send("POST", &older, &list).await).await;
    assert_eq!((status, &answer["error"]["data"]["supported"]), (400, &versions));
    assert_eq!(served.server.calls_seen(), seen);
}

#[tokio::test]
async fn whoever_listens_hears_that_tools_changed() {
    let served = served();
    let guard = ("deputize-guard", served.secret.as_str());
    let modern_headers =
        [guard, ("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];
    let subscribe = modern("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut subscription = served.send("POST", &modern_headers, &subscribe).await.into_body();
    let mut older = served.send("GET", &[guard], &Value::Null).await.into_body();
    let next = async |stream: &mut Body| loop {
        let piece = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        if let Some(data) = std::str::from_utf8(&piece).unwrap().strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    let acknowledged = next(&mut subscription).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");

    served.server.describe_otherwise("lookup_customer", "Another.");
    let (told, told_older) = (next(&mut subscription).await, next(&mut older).await);
    assert_eq!(told["method"], "notifications/tools/list_changed");
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    assert_eq!(told_older["method"], told["method"]);
    let (_, listed) = served.post(&modern("tools/list", json!({}))).await;
    assert_eq!(listed["result"]["tools"][0]["description"], "Another.");
    assert_eq!(served.server.record()["tools"][0]["definition"]["title"], "Look up a customer");

    served.stop.send_replace(true);
    assert!(subscription.collect().await.unwrap().to_bytes().is_empty());
}
