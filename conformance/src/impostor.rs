//! A broker that says to a guard whatever it is told to say.

use crate::forge::{Key, now, unique};
use deputize_call::{
    digest::{Digest, sha256, tool_digest},
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_guard::{SignedSnapshot, SnapshotDocument, ToolDocument};
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// It runs as long as this value.
pub struct Impostor {
    /// Its issuer URL.
    pub issuer: String,
    /// What it signs tokens with.
    pub token_key: Key,
    /// What it signs snapshots with.
    pub snapshot_key: SigningKey,
    script: watch::Sender<Vec<String>>,
    told: Arc<AtomicUsize>,
    /// What it was asked for AWS credentials, and how it answers.
    pub aws: Arc<AwsDoor>,
}

/// Where it is asked for AWS credentials.
#[derive(Default)]
pub struct AwsDoor {
    /// The forms that came.
    pub forms: Mutex<Vec<String>>,
    /// Whether it says no.
    pub refuses: AtomicBool,
}

/// The one tool of its server.
pub const TOOL: &str = "look";

impl Impostor {
    /// Starts it; it has nothing to say yet.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (script, told, aws) = (watch::Sender::new(Vec::new()), Arc::default(), Arc::<AwsDoor>::default());
        let serving = (issuer.clone(), script.subscribe(), Arc::clone(&told), Arc::clone(&aws));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        let snapshot_key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        Self { issuer, token_key: Key::es256(), snapshot_key, script, told, aws }
    }

    /// Every stream says this from now on, from its beginning; those that are open end.
    pub fn say(&self, messages: &[(&str, Value)]) {
        let lines = messages.iter().map(|(event, data)| format!("event: {event}\ndata: {data}\n\n"));
        self.script.send_replace(lines.collect());
        self.told.store(0, Ordering::SeqCst);
    }

    /// Waits until so many streams were told everything.
    pub async fn told(&self, times: usize) {
        for _ in 0..2000 {
            if self.told.load(Ordering::SeqCst) >= times {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("the guard did not come {times} times");
    }

    /// The keys with which its guards are configured.
    pub fn snapshot_keys(&self) -> KeySet {
        KeySet::new(vec![self.snapshot_key.public().clone()])
    }

    /// A good snapshot for the server, of this version.
    pub fn document(&self, resource: &str, version: u64) -> SnapshotDocument {
        let tools = [definition()];
        SnapshotDocument {
            version,
            issued_at: now().unsigned_abs(),
            expires_at: now().unsigned_abs() + 600,
            issuer: self.issuer.clone(),
            server_id: "crm".to_owned(),
            resource: resource.to_owned(),
            tenant: "acme".to_owned(),
            manifest_digest: Digest::from_bytes(sha256(b"manifest")),
            jwks: json!({ "keys": [self.token_key.jwk()] }),
            tools: tools.iter().map(low).collect(),
            prompts: Vec::new(),
            resources: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// The message with this snapshot, signed as it should be.
    pub fn signed(&self, document: &SnapshotDocument) -> (&'static str, Value) {
        let signed = SignedSnapshot::sign(document, &self.snapshot_key).unwrap();
        ("snapshot", serde_json::to_value(signed).unwrap())
    }

    /// A token for its tool, at L1, bound to this key.
    pub fn token(&self, resource: &str, holder: &Key) -> String {
        self.token_for(resource, &definition(), &json!({ "jkt": holder.thumbprint() }))
    }

    /// A token for this tool, at L1, with this `cnf`.
    pub fn token_for(&self, resource: &str, tool: &Value, cnf: &Value) -> String {
        self.token_acting(resource, tool, cnf, None)
    }

    /// As [`Impostor::token_for`], with this `act.sub`.
    pub fn token_acting(&self, resource: &str, tool: &Value, cnf: &Value, actor: Option<&str>) -> String {
        let digest = tool_digest(tool.as_object().unwrap()).unwrap();
        let mut claims = json!({
                "iss": self.issuer, "sub": "user:acme:x:alice", "tenant": "acme", "aud": resource,
                "client_id": "desk", "iat": now(), "nbf": now(), "exp": now() + 600, "jti": unique(),
                "scope": tool["name"], "cnf": cnf, "txn": unique(),
                "authorization_details": [{
                    "type": "mcp_tool_call", "locations": [resource], "actions": ["tools/call"],
                    "identifier": tool["name"], "tool_digest": digest,
                    "manifest_digest": Digest::from_bytes(sha256(b"manifest")),
                    "policy": { "digest": "p", "ids": [] },
                }],
                "log": { "origin": "impostor", "index": 1 },
        });
        if let Some(actor) = actor {
            claims["act"] = json!({ "sub": actor });
        }
        self.token_key.token("at+jwt", &claims)
    }
}

/// A tool of the lowest tier, as a snapshot has it.
pub fn low(definition: &Value) -> ToolDocument {
    let definition = definition.as_object().unwrap().clone();
    ToolDocument {
        tool_digest: tool_digest(&definition).unwrap(),
        definition,
        least_level: deputize_call::level::Level::L1,
        tier: "low".to_owned(),
    }
}

/// The definition of the tool.
pub fn definition() -> Value {
    json!({ "name": TOOL, "description": "Looks.", "inputSchema": { "type": "object", "properties": {} } })
}

type Serving = (String, watch::Receiver<Vec<String>>, Arc<AtomicUsize>, Arc<AwsDoor>);

async fn serve(mut stream: TcpStream, (issuer, mut script, told, aws): Serving) {
    let Some((head, form)) = read(&mut stream).await else { return };
    if head.starts_with("GET /guard/events") {
        let lines = script.borrow_and_update().clone();
        let mut text =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
        text.extend(lines);
        if stream.write_all(text.as_bytes()).await.is_ok() {
            told.fetch_add(1, Ordering::SeqCst);
        }
        // Until there is something else to say, or the guard hangs up.
        let mut byte = [0];
        tokio::select! {
            _ = script.changed() => {}
            _ = stream.read(&mut byte) => {}
        }
        return;
    }
    let (status, body) = if head.contains("/.well-known/") {
        (200, json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/token") }))
    } else if head.starts_with("POST /aws/credentials ") {
        aws.answer(form)
    } else {
        (200, json!({ "redeemed": true, "accepted": 1 }))
    };
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Who hangs up needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// The next request: its head and its body.
async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(read) if read > 0 => bytes.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return None,
        }
    }
}

impl AwsDoor {
    /// Other credentials each time, so that it is seen which one has.
    fn answer(&self, form: String) -> (u16, Value) {
        let mut forms = self.forms.lock().unwrap();
        forms.push(form);
        if self.refuses.load(Ordering::SeqCst) {
            let said = "no role template is for this call";
            return (
                400,
                json!({ "error": "access_denied", "error_description": said, "decision_id": "dec-1" }),
            );
        }
        let credentials = json!({
            "Version": 1, "AccessKeyId": format!("ASIA{}", forms.len()), "SecretAccessKey": "canary-secret",
            "SessionToken": "canary-token".repeat(80), "Expiration": "2099-01-01T00:00:00Z",
            "AccountId": "111122223333", "decision_id": "dec-1",
        });
        (200, credentials)
    }
}
