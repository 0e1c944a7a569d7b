//! The local side over HTTP, and who is kept out.

use super::world::*;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

const SECRET: &str = "secret-of-this-start";

struct Door {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Door {
    async fn open(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let secret = Zeroizing::new(SECRET.to_owned());
        let router = world.connector(world.settings()).router(address, &secret);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, http: crate::transport::http(None, None).unwrap() }
    }

    fn request(&self, method: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("http://{}/mcp", self.address))
    }

    fn post(&self, message: &Value) -> reqwest::RequestBuilder {
        self.request("POST")
            .bearer_auth(SECRET)
            .header("content-type", "application/json")
            .body(message.to_string())
    }

    /// What stands alone, with the headers that it needs.
    fn alone(&self, message: &Value) -> reqwest::RequestBuilder {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&message["params"]["name"]);
        let request = self.post(message).header("mcp-protocol-version", "2026-07-28");
        let request = request.header("mcp-method", text(&message["method"]));
        if name.is_empty() { request } else { request.header("mcp-name", name) }
    }

    /// A session, by its id.
    async fn initialize(&self) -> String {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} });
        let opening = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let response = self.post(&opening).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let response = self.post(&initialized).header("mcp-session-id", &id).send().await.unwrap();
        assert_eq!(response.status(), 202);
        id
    }
}

async fn json_of(response: reqwest::Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_with_the_secret_has_sessions_of_its_own() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let (first, second) = (door.initialize().await, door.initialize().await);
    assert_ne!(first, second);
    for id in [&first, &second] {
        let response =
            door.post(&call(1, "lookup", json!({}))).header("mcp-session-id", id).send().await.unwrap();
        assert_eq!(json_of(response).await["result"]["isError"], false);
    }
    let ended =
        door.request("DELETE").bearer_auth(SECRET).header("mcp-session-id", &first).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    assert_eq!(world.seen("DELETE").len(), 1);
    for (id, status) in [(Some(&first), 404), (Some(&second), 200), (None, 404)] {
        let mut request = door.post(&call(2, "lookup", json!({})));
        if let Some(id) = id {
            request = request.header("mcp-session-id", id);
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{id:?}");
    }
    let alone = door.alone(&call_alone(3, "lookup", json!({}), json!({}))).send().await.unwrap();
    assert_eq!(json_of(alone).await["id"], 3, "what stands alone needs no session");
}

#[tokio::test]
async fn what_comes_before_the_answer_makes_it_a_stream() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let id = door.initialize().await;
    world.remote(|seen| {
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress" });
        let answer = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": {} });
        let events = [progress, answer].map(|message| format!("data: {message}"));
        (seen.body["method"] == "tools/call").then(|| Reply::events(&events))
    });
    let response =
        door.post(&call(1, "lookup", json!({}))).header("mcp-session-id", &id).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert_eq!(
        (events.len(), &events[0]["method"], &events[1]["id"]),
        (2, &json!("notifications/progress"), &json!(1))
    );
}

#[tokio::test]
async fn what_stands_alone_says_in_its_headers_what_it_says_in_its_body() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let call = |arguments: Value| call_alone(7, "lookup", arguments, json!({}));
    let region =
        |value: &'static str| door.alone(&call(json!({ "region": "eu" }))).header("mcp-param-region", value);
    let (none, eu) = (call(json!({})), call(json!({ "region": "eu" })));
    let unnamed = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {} });
    for (request, code) in [
        (door.post(&none), Some(-32020)),
        (door.alone(&none).header("mcp-method", "tools/list"), Some(-32020)),
        (door.alone(&none).header("mcp-param-region", "eu"), Some(-32020)),
        (door.alone(&eu), Some(-32020)),
        (region("us"), Some(-32020)),
        (region("=?base64?ZXU?="), Some(-32020)),
        (region("eu").header("mcp-param-region", "eu"), Some(-32020)),
        (door.post(&unnamed).header("mcp-protocol-version", "2026-07-28"), Some(-32602)),
        (door.alone(&none), None),
        (door.alone(&none).header("mcp-param-other", "x"), None),
        (region("eu"), None),
        (region("=?base64?ZXU=?="), None),
    ] {
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer = json_of(response).await;
        assert_eq!((status.as_u16(), &answer["id"]), (if code.is_some() { 400 } else { 200 }, &json!(7)));
        assert_eq!(answer["error"]["code"].as_i64(), code, "{answer}");
    }
    assert_eq!(world.seen("tools/call").len(), 4, "what disagrees goes nowhere");
}

#[tokio::test]
async fn the_status_of_an_error_is_the_servers_where_the_version_gives_it_a_meaning() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let session = door.initialize().await;
    world.remote(|seen| {
        let error = json!({ "code": -32601, "message": "no" });
        let answer = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "error": error });
        (seen.body["method"] == "odd/method")
            .then(|| Reply::json(if seen.headers.contains_key("mcp-method") { 404 } else { 400 }, &answer))
    });
    let mut odd = call_alone(1, "lookup", json!({}), json!({}));
    odd["method"] = json!("odd/method");
    let mut request = door.post(&odd).header("mcp-protocol-version", "2026-07-28");
    request = request.header("mcp-method", "odd/method");
    assert_eq!(request.send().await.unwrap().status(), 404);
    let odd = json!({ "jsonrpc": "2.0", "id": 2, "method": "odd/method" });
    let response = door.post(&odd).header("mcp-session-id", &session).send().await.unwrap();
    assert_eq!(response.status(), 200, "here 404 would say that the session is gone");
    assert_eq!(json_of(response).await["error"]["code"], -32601);
}

#[tokio::test]
async fn clients_that_stand_alone_may_use_the_same_ids() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    world.remote(|seen| {
        let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        (seen.body["method"] == "subscriptions/listen")
            .then(|| Reply::events(&[format!("data: {changed}")]).hanging())
    });
    let mut listen = call_alone(1, "", json!({}), json!({}));
    (listen["method"], listen["params"]["name"]) = (json!("subscriptions/listen"), Value::Null);
    let mut listening = door.alone(&listen).send().await.unwrap();
    assert!(listening.chunk().await.unwrap().is_some(), "it is under way");
    let other = door.alone(&call_alone(1, "lookup", json!({}), json!({}))).send().await.unwrap();
    assert_eq!(json_of(other).await["result"]["isError"], false);
}

#[tokio::test]
async fn what_the_server_says_unasked_comes_on_the_stream_of_the_session() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let id = door.initialize().await;
    world.remote(|seen| {
        let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        (seen.method == "GET").then(|| Reply::events(&[format!("data: {changed}")]).hanging())
    });
    let listening = door.request("GET").bearer_auth(SECRET).header("mcp-session-id", &id).send().await;
    let mut listening = listening.unwrap();
    assert_eq!(listening.headers()["content-type"], "text/event-stream");
    let piece = listening.chunk().await.unwrap().unwrap();
    assert!(piece.starts_with(b"data: {") && piece.ends_with(b"\n\n"));
}

#[tokio::test]
async fn whoever_lacks_the_secret_or_is_a_browser_is_kept_out() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let request = |secret: Option<&str>, headers: &[(&str, String)]| {
        let mut request =
            door.request("POST").header("content-type", "application/json").body(ping.to_string());
        if let Some(secret) = secret {
            request = request.header("authorization", secret);
        }
        headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    };
    let good = format!("Bearer {SECRET}");
    let port = door.address.port();
    for (secret, headers, status) in [
        (None, vec![], 401),
        (Some("Bearer wrong"), vec![], 401),
        (Some(SECRET), vec![], 401),
        (Some(&format!("Basic {SECRET}")), vec![], 401),
        (Some(&format!("Bearer {SECRET}x")), vec![], 401),
        (Some(good.as_str()), vec![("host", "crm.example.com".to_owned())], 403),
        (Some(&good), vec![("host", format!("evil.example:{port}"))], 403),
        (Some(&good), vec![("host", "127.0.0.1:1".to_owned())], 403),
        (Some(&good), vec![("origin", "https://evil.example".to_owned())], 403),
        (Some(&good), vec![("origin", format!("http://127.0.0.1:{port}"))], 403),
        (Some(&good), vec![("origin", "null".to_owned())], 403),
        (Some(&good), vec![("sec-fetch-site", "none".to_owned())], 403),
    ] {
        let response = request(secret, &headers).send().await.unwrap();
        assert_eq!(response.status(), status, "{secret:?} {headers:?}");
        assert!(!response.headers().contains_key("access-control-allow-origin"));
    }
    assert!(world.asked().is_empty() && world.seen("ping").is_empty(), "nothing went on");
    let preflight = door.request("OPTIONS").header("origin", "https://evil.example").send().await.unwrap();
    assert_eq!(preflight.status(), 403);
    let localhost =
        request(Some(&good), &[("host", format!("localhost:{port}")), ("sec-fetch-mode", "cors".to_owned())])
            .send()
            .await
            .unwrap();
    assert_eq!(localhost.status(), 404, "it is let in, and told to begin a session");
}

#[tokio::test]
async fn bodies_are_json_and_bounded() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let send = |media: &'static str, body: String| {
        door.request("POST").bearer_auth(SECRET).header("content-type", media).body(body).send()
    };
    // A form, which a page could send without asking first.
    assert_eq!(send("text/plain", ping.clone()).await.unwrap().status(), 415);
    assert_eq!(send("application/json", "x".repeat(4 * 1024 * 1024 + 1)).await.unwrap().status(), 413);
    let malformed = send("application/json; charset=utf-8", "{".to_owned()).await.unwrap();
    assert_eq!(malformed.status(), 400);
    assert_eq!(json_of(malformed).await["error"]["code"], -32700);
    let put = door.request("PUT").bearer_auth(SECRET).send().await.unwrap();
    assert_eq!(put.status(), 405);
}

#[tokio::test]
async fn clients_that_stand_alone_know_nothing_of_each_other() {
    let world = World::start().await;
    let door = Door::open(&world).await;
    let (release, held) = tokio::sync::watch::channel(false);
    world.remote(move |seen| {
        let is_slow = seen.body["params"]["arguments"]["note"] == "slow";
        let result = json!({ "of": seen.body["params"]["arguments"] });
        let answer = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result });
        let reply = Reply::json(200, &answer);
        (seen.body["method"] == "tools/call").then(|| if is_slow { reply.after(held.clone()) } else { reply })
    });
    let slow = door.alone(&call_alone(1, "lookup", json!({ "note": "slow" }), json!({}))).send();
    let slow = tokio::spawn(slow);
    until(|| world.seen("tools/call").len() == 1).await;
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert_eq!(door.post(&cancel).send().await.unwrap().status(), 202);
    let other =
        door.alone(&call_alone(1, "lookup", json!({ "note": "quick" }), json!({}))).send().await.unwrap();
    assert_eq!(json_of(other).await["result"]["of"]["note"], "quick", "the same id at the same time");
    release.send_replace(true);
    let slow = slow.await.unwrap().unwrap();
    assert_eq!(json_of(slow).await["result"]["of"]["note"], "slow", "nobody else cancelled it");
}
