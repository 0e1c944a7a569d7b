//! An identity provider under the test's control: any number of issuers on one https port, each a path, whose
//! documents can be as hostile as they have to be.

use crate::{forge::Key, trust::Authority};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// The server.
pub struct IdentityServer {
    /// `https://localhost:PORT`.
    pub base: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// What one path answers.
#[derive(Clone)]
pub enum Document {
    /// 200 with JSON.
    Json(Value),
    /// 200 with this media type, these headers and these bytes.
    Bytes(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// 302.
    Redirect(String),
    /// Headers, then one byte now and again.
    Drip,
    /// The connection is closed at once.
    Down,
}

#[derive(Default)]
struct State {
    documents: HashMap<String, Document>,
    fetches: HashMap<String, usize>,
}

impl IdentityServer {
    /// Listens on a free port of loopback.
    pub async fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State::default()));
        let acceptor = TlsAcceptor::from(authority.certify().server());
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&state)));
        Self { base, state, task }
    }

    /// The issuer of this name: `{base}/{name}`.
    pub fn issuer(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Publishes an issuer with discovery and this key set; again, to rotate.
    pub fn publish(&self, name: &str, jwks: Document) {
        let issuer = self.issuer(name);
        let discovery = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
            "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "EdDSA"],
        });
        self.set(&format!("/{name}/.well-known/openid-configuration"), Document::Json(discovery));
        self.set(&format!("/{name}/jwks"), jwks);
    }

    /// What a path answers from now on.
    pub fn set(&self, path: &str, document: Document) {
        self.state.lock().unwrap().documents.insert(path.to_owned(), document);
    }

    /// How often a path was asked for.
    pub fn fetches(&self, path: &str) -> usize {
        self.state.lock().unwrap().fetches.get(path).copied().unwrap_or(0)
    }
}

impl Drop for IdentityServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A key set of these keys.
pub fn jwks(keys: &[&Key]) -> Document {
    Document::Json(json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }))
}

/// About `megabytes` of zeros, gzipped to a thousandth (RFC 1951 §3.2.6: fixed codes, one match after another).
pub fn gzip_bomb(megabytes: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = vec![true, true, false];
    let code = |bits: &mut Vec<bool>, value: u16, length: u8| {
        bits.extend((0..length).rev().map(|at| value >> at & 1 == 1));
    };
    code(&mut bits, 0b0011_0000, 8);
    for _ in 0..megabytes * 1024 * 1024 / 258 {
        code(&mut bits, 0b1100_0101, 8);
        code(&mut bits, 0, 5);
    }
    code(&mut bits, 0, 7);
    let packed = bits
        .chunks(8)
        .map(|byte| byte.iter().enumerate().fold(0, |all, (at, bit)| all | u8::from(*bit) << at));
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    header.into_iter().chain(packed).chain([0; 8]).collect()
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move { answer(stream, acceptor, state).await });
    }
}

/// One request of one connection; a client that goes away is none of our business.
async fn answer(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        head.push(stream.read_u8().await.ok()?);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1)?.to_owned();
    let document = {
        let mut state = state.lock().unwrap();
        *state.fetches.entry(path.clone()).or_default() += 1;
        state.documents.get(&path).cloned()
    };
    let (status, media_type, headers, body) = match document {
        None => ("404 Not Found", "text/plain", Vec::new(), b"nothing here".to_vec()),
        Some(Document::Json(value)) => {
            ("200 OK", "application/json", Vec::new(), value.to_string().into_bytes())
        }
        Some(Document::Bytes(media_type, headers, body)) => ("200 OK", media_type, headers, body),
        Some(Document::Redirect(to)) => ("302 Found", "text/plain", vec![("location", to)], Vec::new()),
        Some(Document::Down) => return None,
        Some(Document::Drip) => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n")
                .await
                .ok()?;
            loop {
                stream.write_all(b" ").await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()?;
    stream.shutdown().await.ok()
}
