//! A proxy, the agent before it, and a scripted server behind it on loopback.

use super::HandClock;
use crate::{
    Event, EventKind, GuardConfig, Redeemed, Redeemer,
    proxy::{
        Limits, Proxy, ProxySettings, Reports,
        relay::EventBody,
        settings::{HttpUpstream, UpstreamKind},
    },
    tests::fixture::{Fixture, ISSUER, NOW, RESOURCE, definitions},
};
use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Request, Response, StatusCode},
};
use deputize_call::{
    dpop::{self, NewProof},
    sign::{SigningAlgorithm, SigningKey},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::ServiceExt as _;

/// Everything around a proxy.
pub(super) struct Bench {
    pub(super) proxy: Arc<Proxy>,
    pub(super) fixture: Fixture,
    pub(super) server: Arc<Scripted>,
    pub(super) outside: Arc<Outside>,
    pub(super) clock: Arc<HandClock>,
    pub(super) key: SigningKey,
}

/// The broker's part: redeems in memory, keeps what is reported.
#[derive(Default)]
pub(super) struct Outside {
    pub(super) redeemed: Mutex<Vec<String>>,
    /// What happens while the next token is redeemed.
    pub(super) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    pub(super) seen: Mutex<Vec<Event>>,
}

#[async_trait]
impl Redeemer for Outside {
    async fn redeem(&self, token: &str) -> Redeemed {
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        let mut redeemed = self.redeemed.lock().unwrap();
        if redeemed.iter().any(|known| known == token) {
            return Redeemed::AlreadyUsed;
        }
        redeemed.push(token.to_owned());
        Redeemed::Yes
    }
}

impl Reports for Outside {
    fn report(&self, event: Event) {
        self.seen.lock().unwrap().push(event);
    }
}

impl Outside {
    pub(super) fn of_kind(&self, kind: EventKind) -> Vec<Event> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.kind == kind).cloned().collect()
    }
}

/// What the server answers to one request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Json(Value),
    Events(Vec<(Option<&'static str>, Value)>),
    Raw(u16, &'static str, String),
    Never,
    /// A stream that is written to by whoever takes it out of [`Scripted::live`].
    Live,
}

/// A server that does as it is told, and remembers what it was asked.
pub(super) struct Scripted {
    /// Whether it speaks the stateless version.
    pub(super) modern: bool,
    pub(super) tools: Mutex<Vec<Value>>,
    /// The answers to `tools/call`, by tool; else the arguments come back.
    pub(super) replies: Mutex<Vec<(&'static str, Reply)>>,
    /// Answers to GET: none offers no stream.
    pub(super) stream: Mutex<Option<Reply>>,
    /// Method, header fields and body of what came, the guard's own listing aside.
    pub(super) asked: Mutex<Vec<(Method, HeaderMap, Value)>>,
    /// The open ends of live streams.
    pub(super) live: Mutex<Vec<tokio::sync::mpsc::Sender<Bytes>>>,
    /// The open ends of the guard's own subscriptions.
    pub(super) subscriptions: Mutex<Vec<tokio::sync::mpsc::Sender<Bytes>>>,
    sessions: Mutex<u32>,
}

impl Scripted {
    /// One that nobody asks.
    pub(super) fn idle() -> Arc<Self> {
        Arc::new(Self::new(false))
    }

    fn new(modern: bool) -> Self {
        Self {
            modern,
            tools: Mutex::new(definitions()),
            replies: Mutex::default(),
            stream: Mutex::default(),
            asked: Mutex::default(),
            live: Mutex::default(),
            subscriptions: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    async fn start(modern: bool) -> (Arc<Self>, String) {
        let server = Arc::new(Self::new(modern));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, url)
    }

    /// The open end of the only live stream, once there is one.
    pub(super) async fn live_stream(&self) -> tokio::sync::mpsc::Sender<Bytes> {
        until(|| !self.live.lock().unwrap().is_empty()).await;
        self.live.lock().unwrap().pop().unwrap()
    }

    pub(super) fn reply(&self, tool: &'static str, reply: Reply) {
        self.replies.lock().unwrap().insert(0, (tool, reply));
    }

    /// What came of this kind: a method of JSON-RPC, or of HTTP where there is no body.
    pub(super) fn asked_of(&self, method: &str) -> Vec<(HeaderMap, Value)> {
        let asked = self.asked.lock().unwrap();
        let is = |(http, _, body): &&(Method, HeaderMap, Value)| match body["method"].as_str() {
            Some(named) => named == method,
            None => http.as_str() == method,
        };
        asked.iter().filter(is).map(|(_, headers, body)| (headers.clone(), body.clone())).collect()
    }

    fn answer(&self, body: &Value) -> Reply {
        let result = match body["method"].as_str().unwrap_or_default() {
            "server/discover" if self.modern => json!({ "resultType": "complete",
                "supportedVersions": ["2026-07-28"], "capabilities": { "tools": { "listChanged": true },
                    "resources": { "subscribe": true, "listChanged": true }, "completions": {}, "tasks": {} } }),
            "initialize" => json!({ "protocolVersion": "2025-11-25", "serverInfo": { "name": "scripted" },
                "capabilities": { "tools": {}, "resources": {}, "sampling": {} } }),
            "subscriptions/listen" if self.modern => return Reply::Live,
            "tools/list" => json!({ "tools": *self.tools.lock().unwrap() }),
            "tools/call" => {
                let replies = self.replies.lock().unwrap();
                let told = replies.iter().find(|(tool, _)| body["params"]["name"] == *tool);
                match told {
                    Some((_, reply)) => return reply.clone(),
                    None => json!({ "content": [], "structuredContent": body["params"]["arguments"] }),
                }
            }
            _ => return Reply::Raw(404, "application/json", error(body).to_string()),
        };
        Reply::Json(json!({ "jsonrpc": "2.0", "id": body["id"], "result": result }))
    }
}

fn error(body: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": body["id"], "error": { "code": -32601, "message": "method not found" } })
}

async fn answer(State(server): State<Arc<Scripted>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = body.collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_own = body["id"].as_str().is_some_and(|id| id.starts_with("guard-"));
    if !is_own {
        server.asked.lock().unwrap().push((parts.method.clone(), parts.headers, body.clone()));
    }
    let reply = match parts.method.as_str() {
        "GET" => {
            server.stream.lock().unwrap().clone().unwrap_or(Reply::Raw(405, "text/plain", String::new()))
        }
        "DELETE" => Reply::Raw(204, "text/plain", String::new()),
        _ if body.get("id").is_none() || body.get("method").is_none() => {
            Reply::Raw(202, "text/plain", String::new())
        }
        _ => server.answer(&body),
    };
    let mut response = match reply {
        Reply::Json(mut value) => {
            if value["id"] == "same" {
                value["id"] = body["id"].clone();
            }
            with_type("application/json", value.to_string())
        }
        Reply::Events(events) => {
            let mut text = String::new();
            for (cursor, mut value) in events {
                if value["id"] == "same" {
                    value["id"] = body["id"].clone();
                }
                text += &cursor.map(|cursor| format!("id: {cursor}\n")).unwrap_or_default();
                text += &format!("event: message\ndata: {value}\n\n");
            }
            with_type("text/event-stream", text)
        }
        Reply::Raw(status, media, text) => {
            let mut response = with_type(media, text);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
            response
        }
        Reply::Never => std::future::pending().await,
        Reply::Live => {
            let (sender, body) = EventBody::channel();
            let streams = if is_own { &server.subscriptions } else { &server.live };
            streams.lock().unwrap().push(sender);
            let mut response = Response::new(body);
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
    };
    if body["method"] == "initialize" {
        let mut sessions = server.sessions.lock().unwrap();
        *sessions += 1;
        response.headers_mut().insert("mcp-session-id", format!("inner-{sessions}").parse().unwrap());
    }
    response
}

fn with_type(media: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert("content-type", media.parse().unwrap());
    response
}

/// An answer of the proxy.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Got {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The messages of a stream.
    pub(super) fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Bench {
    /// Before a server of the older versions.
    pub(super) async fn new() -> Self {
        Self::with(false, |_| {}).await
    }

    pub(super) async fn with(modern: bool, change: impl FnOnce(&mut ProxySettings)) -> Self {
        let (server, url) = Scripted::start(modern).await;
        let mut upstream = HttpUpstream::new(url.parse().unwrap());
        upstream.answer_timeout = Duration::from_millis(500);
        upstream.max_answer_bytes = 10_000;
        upstream.secret = Some(("x-guard".into(), "secret".to_owned().into()));
        Self::before(server, UpstreamKind::Http(upstream), change).await
    }

    pub(super) async fn before(
        server: Arc<Scripted>,
        upstream: UpstreamKind,
        change: impl FnOnce(&mut ProxySettings),
    ) -> Self {
        let metadata = "https://pay.example.com/.well-known/oauth-protected-resource/mcp";
        let mut settings =
            ProxySettings::new(GuardConfig::new(ISSUER, RESOURCE, RESOURCE, metadata), upstream);
        settings.limits = Limits { calls_per_minute: 60, burst: 50, concurrent: 4 };
        settings.max_stream_bytes = 5_000;
        settings.relist_every = Duration::from_millis(200);
        change(&mut settings);
        let (clock, outside) = (Arc::new(HandClock::default()), Arc::new(Outside::default()));
        clock.pass(Duration::from_secs(1000));
        let proxy = Proxy::new(settings, outside.clone(), outside.clone(), clock.clone()).unwrap();
        let fixture = Fixture::new();
        proxy.guard().install(fixture.snapshot(|_| {}), Duration::from_secs(1000)).unwrap();
        tokio::spawn(Arc::clone(&proxy).run());
        let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let bench = Self { proxy, fixture, server, outside, clock, key };
        until(|| bench.proxy.is_ready()).await;
        bench
    }

    pub(super) fn now(&self) -> u64 {
        NOW + 1000
    }

    /// A token of this grant for alice's agent.
    pub(super) fn token(&self, detail: Value) -> String {
        self.token_of("user:acme:x:alice", &self.key, detail)
    }

    pub(super) fn token_of(&self, person: &str, key: &SigningKey, detail: Value) -> String {
        let mut claims = self.fixture.claims(detail);
        claims.sub = person.to_owned();
        claims.cnf = deputize_call::claims::Confirmation::Jkt(key.public().thumbprint().to_owned());
        (claims.iat, claims.nbf, claims.exp) = (self.now(), self.now(), self.now() + 60);
        self.fixture.sign(&claims)
    }

    /// Sends with a proof of this key.
    pub(super) async fn send_as(
        &self,
        key: &SigningKey,
        method: &str,
        token: &str,
        (headers, body): (&[(&str, &str)], Option<&Value>),
    ) -> Got {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let jti = format!("bench-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let nonce = self.proxy.guard().next_nonce(Duration::from_secs(1000));
        let proof = NewProof {
            htm: method,
            htu: RESOURCE,
            jti: &jti,
            iat: self.now(),
            nonce: Some(&nonce),
            access_token: Some(token),
        };
        let mut request = Request::builder()
            .method(method)
            .uri("/mcp")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", dpop::prove(key, &proof).unwrap());
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.raw(request.body(body).unwrap()).await
    }

    pub(super) async fn raw(&self, request: Request<Body>) -> Got {
        let response = self.proxy.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let collected = tokio::time::timeout(Duration::from_secs(10), body.collect());
        let text = collected.await.expect("an answer that ends").unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        Got { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub(super) async fn post(&self, token: &str, headers: &[(&str, &str)], body: &Value) -> Got {
        self.send_as(&self.key, "POST", token, (headers, Some(body))).await
    }

    /// Sends `body` with a fresh token of this grant.
    pub(super) async fn granted(&self, detail: Value, headers: &[(&str, &str)], body: &Value) -> Got {
        self.post(&self.token(detail), headers, body).await
    }

    /// Begins a session as the client does; its id.
    pub(super) async fn session(&self) -> String {
        let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": { "sampling": {}, "roots": {} },
            "clientInfo": { "name": "bench" } } });
        let got = self.granted(crate::tests::fixture::l0(), &[], &begin).await;
        assert_eq!(got.status, 200, "{got:?}");
        got.header("mcp-session-id").to_owned()
    }
}

/// Waits for a condition, not for time.
pub(in crate::proxy) async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came true");
}
