//! A broker on loopback that answers what it is told to and remembers what it was asked.

use crate::*;
use deputize_call::sign::{SigningAlgorithm, SigningKey};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(super) const RESOURCE: &str = "https://crm.example.com/mcp";
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) struct Stub {
    pub(super) issuer: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) form: BTreeMap<String, String>,
}

impl Stub {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let stub = Self { issuer, answers: Arc::default(), asked: Arc::default() };
        let (answers, asked) = (stub.answers.clone(), stub.asked.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read(&mut stream).await;
                asked.lock().unwrap().push(request);
                let answer =
                    answers.lock().unwrap().pop_front().unwrap_or_else(|| Answer::json(404, json!({})));
                let _ = stream.write_all(&answer.bytes()).await;
            }
        });
        stub
    }

    pub(super) fn will(&self, answer: Answer) -> &Self {
        self.answers.lock().unwrap().push_back(answer);
        self
    }

    /// What was asked since the last look.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// A client that knows the token endpoint.
    pub(super) fn client(&self) -> ClientBuilder {
        let endpoint = format!("{}/token", self.issuer);
        self.discovering().token_endpoint(&endpoint)
    }

    /// A client that has to ask for the metadata.
    pub(super) fn discovering(&self) -> ClientBuilder {
        Client::builder(&self.issuer, "agent").private_key_jwt(key()).clock(Arc::new(TestClock::default()))
    }
}

impl Answer {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    pub(super) fn raw(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// A token that was granted with this detail.
    pub(super) fn token(name: &str, detail: Value) -> Self {
        Self::json(
            200,
            json!({ "access_token": name, "token_type": "DPoP", "expires_in": 60, "scope": "tool:x",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "authorization_details": [detail], "transaction_id": "txn-1", "decision_id": "dec-1" }),
        )
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::json(
            status,
            json!({ "error": code, "error_description": "what to do", "decision_id": "dec-1" }),
        )
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n",
            self.status,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

async fn read(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let line = lines.next().unwrap().to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
                return Asked { line, headers, form };
            }
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the request ended early: {text}");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Time that passes when it is told to; ids that count.
#[derive(Default)]
pub(super) struct TestClock {
    pub(super) passed_seconds: AtomicU64,
    ids: AtomicU64,
}

impl Clock for TestClock {
    fn now_seconds(&self) -> u64 {
        NOW + self.passed_seconds.load(Ordering::Relaxed)
    }
    fn uptime(&self) -> Duration {
        Duration::from_secs(self.passed_seconds.load(Ordering::Relaxed))
    }
    fn unique_id(&self) -> String {
        format!("id-{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

pub(super) fn key() -> SigningKey {
    SigningKey::generate(SigningAlgorithm::ES256).unwrap()
}

pub(super) fn request() -> ExchangeRequest {
    ExchangeRequest::new(RESOURCE, "user.jwt.canary")
}
