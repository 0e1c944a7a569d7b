//! A broker and an MCP server on loopback that do what a test tells them and remember what they were asked, and a
//! local client that speaks to a connector over a pipe.

use crate::{
    Client, TokenType,
    connect::{
        ConnectSettings, Connector,
        user_tokens::{TokenFile, UserTokens},
    },
};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::State,
    http::{HeaderMap, Method, Response},
    routing::{any, post},
};
use deputize_call::{
    digest::tool_digest,
    json::Object,
    sign::{SigningAlgorithm, SigningKey},
};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf},
    net::TcpListener,
    sync::watch,
};

pub(super) const USER: &str = "user.jwt.canary";

/// What both servers do.
type Script<A> = Arc<dyn Fn(&A) -> Option<Reply> + Send + Sync>;

pub(super) struct World {
    pub(super) base: String,
    pub(super) folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    definitions: Mutex<Vec<Value>>,
    approved: Mutex<Vec<Value>>,
    asked: Mutex<Vec<BTreeMap<String, String>>>,
    seen: Mutex<Vec<Seen>>,
    broker: Mutex<Script<BTreeMap<String, String>>>,
    remote: Mutex<Script<Seen>>,
}

/// A request as the MCP server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

/// What a server answers.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// The body is followed by nothing, for ever.
    hangs: bool,
    /// It waits until this is true.
    held: Option<watch::Receiver<bool>>,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string(), hangs: false, held: None }
    }

    /// Events: each a text as it stands in the stream.
    pub(super) fn events(events: &[String]) -> Self {
        let headers = vec![("content-type", "text/event-stream".to_owned())];
        Self {
            status: 200,
            headers,
            body: events.iter().map(|event| format!("{event}\n\n")).collect(),
            hangs: false,
            held: None,
        }
    }

    /// An answer that begins and does not end.
    pub(super) fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }

    /// An answer that waits until this is true.
    pub(super) fn after(mut self, held: watch::Receiver<bool>) -> Self {
        self.held = Some(held);
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// A guard's no.
    pub(super) fn refusal(status: u16, code: &str, needed: Option<Value>) -> Self {
        let mut body = json!({ "error": code, "error_description": "because" });
        if let Some(needed) = needed {
            body["authorization_details"] = needed;
        }
        Self::json(status, &body)
    }

    /// The broker's no.
    pub(super) fn denial(code: &str) -> Self {
        Self::json(400, &json!({ "error": code, "error_description": "because", "decision_id": "dec-no" }))
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let body = match self.hangs {
            false => Body::from(self.body),
            true => Body::new(Endless(Some(self.body.into()))),
        };
        response.body(body).unwrap()
    }
}

impl World {
    pub(super) async fn start() -> Self {
        let definitions = vec![definition("lookup"), definition("refund")];
        let shared = Arc::new(Shared {
            approved: Mutex::new(definitions.clone()),
            definitions: Mutex::new(definitions),
            asked: Mutex::default(),
            seen: Mutex::default(),
            broker: Mutex::new(Arc::new(|_| None)),
            remote: Mutex::new(Arc::new(|_| None)),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/token", post(exchange))
            .route("/mcp", any(serve))
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let world = Self { base, shared, folder: tempfile::tempdir().unwrap() };
        std::fs::write(world.user_file(), USER).unwrap();
        world
    }

    /// What the broker answers where it is not what it should be.
    pub(super) fn broker(
        &self,
        script: impl Fn(&BTreeMap<String, String>) -> Option<Reply> + Send + Sync + 'static,
    ) {
        *self.shared.broker.lock().unwrap() = Arc::new(script);
    }

    /// What the server answers where it is not what it should be.
    pub(super) fn remote(&self, script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) {
        *self.shared.remote.lock().unwrap() = Arc::new(script);
    }

    /// What the server lists from now on.
    pub(super) fn list(&self, definitions: Vec<Value>) {
        *self.shared.definitions.lock().unwrap() = definitions;
    }

    /// What the broker approved.
    pub(super) fn approve(&self, definitions: Vec<Value>) {
        *self.shared.approved.lock().unwrap() = definitions;
    }

    /// The exchanges so far.
    pub(super) fn asked(&self) -> Vec<BTreeMap<String, String>> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The exchanges so far for calls or tools, listing aside.
    pub(super) fn asked_details(&self) -> Vec<Value> {
        let asked = self.asked();
        let details = asked.iter().filter_map(|form| form.get("authorization_details"));
        details.map(|text| serde_json::from_str::<Value>(text).unwrap()[0].clone()).collect()
    }

    /// What the server saw of this method of JSON-RPC; of HTTP for requests without a body.
    pub(super) fn seen(&self, method: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.body["method"] == method || seen.method == method).cloned().collect()
    }

    pub(super) fn user_file(&self) -> std::path::PathBuf {
        self.folder.path().join("user.jwt")
    }

    pub(super) fn settings(&self) -> ConnectSettings {
        ConnectSettings {
            request_timeout: Duration::from_secs(20),
            ..ConnectSettings::new(&format!("{}/mcp", self.base))
        }
    }

    pub(super) fn client(&self) -> Arc<Client> {
        let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let client = Client::builder(&self.base, "agent").private_key_jwt(key);
        Arc::new(client.token_endpoint(&format!("{}/token", self.base)).build().unwrap())
    }

    pub(super) fn connector(&self, settings: ConnectSettings) -> Arc<Connector> {
        self.connector_of(settings, Arc::new(TokenFile::new(&self.user_file(), TokenType::Jwt)))
    }

    pub(super) fn connector_of(
        &self,
        settings: ConnectSettings,
        users: Arc<dyn UserTokens>,
    ) -> Arc<Connector> {
        Connector::new(self.client(), users, settings).unwrap()
    }

    /// A local client over a pipe.
    pub(super) fn local(&self) -> Local {
        self.local_of(self.connector(self.settings()))
    }

    pub(super) fn local_of(&self, connector: Arc<Connector>) -> Local {
        let (client, here) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(here);
        let served = tokio::spawn(connector.serve_stdio(input, output));
        let (reading, writing) = tokio::io::split(client);
        Local { writing: Some(writing), lines: BufReader::new(reading).lines(), served, heard: String::new() }
    }
}

pub(super) struct Local {
    writing: Option<WriteHalf<DuplexStream>>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    pub(super) served: tokio::task::JoinHandle<std::io::Result<()>>,
    /// Everything that came.
    pub(super) heard: String,
}

impl Local {
    pub(super) async fn say(&mut self, message: &Value) {
        self.say_raw(&format!("{message}\n")).await;
    }

    pub(super) async fn say_raw(&mut self, text: &str) {
        self.writing.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// The next message.
    pub(super) async fn hear(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line()).await;
        let line = line.expect("an answer in time").unwrap().expect("an answer before the end");
        self.heard.push_str(&line);
        serde_json::from_str(&line).unwrap()
    }

    pub(super) async fn ask(&mut self, message: &Value) -> Value {
        self.say(message).await;
        self.hear().await
    }

    /// A session of this version.
    pub(super) async fn initialize(&mut self, capabilities: Value) -> Value {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" } });
        let answer =
            self.ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        answer
    }

    /// The client leaves: waits for the end.
    pub(super) async fn leave(mut self) {
        self.writing.take().unwrap().shutdown().await.unwrap();
        drop(self.lines);
        self.served.await.unwrap().unwrap();
    }
}

/// Waits until something is so.
pub(super) async fn until(mut so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come to pass");
}

pub(super) fn definition(name: &str) -> Value {
    json!({ "name": name, "description": format!("does {name}"),
        "inputSchema": { "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } } })
}

pub(super) fn call(id: impl Into<Value>, name: &str, arguments: Value) -> Value {
    let id: Value = id.into();
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

/// The same for MCP 2026-07-28.
pub(super) fn call_alone(id: i64, name: &str, arguments: Value, capabilities: Value) -> Value {
    let mut call = call(id, name, arguments);
    call["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    call
}

async fn exchange(State(shared): State<Arc<Shared>>, body: Bytes) -> Response<Body> {
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let count = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push(form.clone());
        asked.len()
    };
    let script = Arc::clone(&shared.broker.lock().unwrap());
    if let Some(reply) = script(&form) {
        return reply.response();
    }
    let mut detail: Object = form
        .get("authorization_details")
        .map(|text| serde_json::from_str::<Vec<Object>>(text).unwrap().remove(0))
        .unwrap_or_default();
    if let Some(tool) = detail.get("identifier").cloned() {
        let approved = shared.approved.lock().unwrap();
        // Prompts and resources are pinned otherwise, or not at all.
        if let Some(definition) = approved.iter().find(|definition| definition["name"] == tool) {
            let digest = tool_digest(definition.as_object().unwrap()).unwrap();
            detail.insert("tool_digest".to_owned(), json!(digest));
        }
        if detail.remove("arguments").is_some() {
            detail.insert("call_digest".to_owned(), json!("x"));
            detail.insert("max_uses".to_owned(), json!(1));
        }
    }
    let transaction = form.get("transaction_id").cloned().unwrap_or_else(|| format!("txn-{count}"));
    let body = json!({ "access_token": format!("token-canary-{count}"), "token_type": "DPoP", "expires_in": 60,
        "scope": "x", "authorization_details": [detail], "transaction_id": transaction,
        "decision_id": format!("dec-{count}") });
    Reply::json(200, &body).response()
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let headers =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let seen = Seen { method: method.to_string(), headers, body };
    shared.seen.lock().unwrap().push(seen.clone());
    let script = Arc::clone(&shared.remote.lock().unwrap());
    let mut reply = script(&seen).unwrap_or_else(|| answer(&shared, &seen));
    if let Some(mut held) = reply.held.take() {
        drop(held.wait_for(|go_on| *go_on).await);
    }
    reply.response()
}

/// What a good server does.
fn answer(shared: &Shared, seen: &Seen) -> Reply {
    let id = &seen.body["id"];
    let result = |result: Value| Reply::json(200, &json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    match seen.body["method"].as_str() {
        Some("initialize") => {
            let version = &seen.body["params"]["protocolVersion"];
            result(json!({ "protocolVersion": version, "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } }))
                .header("mcp-session-id", "session-1")
        }
        Some("tools/list") => result(json!({ "tools": *shared.definitions.lock().unwrap() })),
        Some("tools/call") => {
            let said = seen.body["params"]["arguments"].to_string();
            result(json!({ "content": [{ "type": "text", "text": said }], "isError": false }))
        }
        Some(method) if method.starts_with("notifications/") => Reply::json(202, &Value::Null),
        Some(_) => result(json!({})),
        None if seen.method == "GET" => Reply::json(405, &json!({})),
        None => Reply::json(202, &Value::Null),
    }
}

/// A body that never ends.
struct Endless(Option<Bytes>);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}
