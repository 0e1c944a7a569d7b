//! The guard's side: requests in the name of a server, the stream, and a guard in this process with its link.

use crate::{
    exchange::Lab,
    forge::{Key, now, unique},
    process::{self, Process},
    trust::write_private,
    wire::{Connection, Endpoint, Request, Response},
    world::World,
};
use async_trait::async_trait;
use deputize_call::{claims::ToolCallClaims, json::Object, keys::KeySet, sign::SigningKey};
use deputize_guard::{
    Admission, Guard, GuardConfig, IncomingCall, Refusal, Upstream, Verified,
    link::{Clock, Link, LinkSettings, SystemClock},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

impl Lab {
    /// A request in the name of this client, whose fresh assertion is its bearer.
    pub fn as_client(&self, client: &str, method: &str, target: &str) -> Request {
        let bearer = format!("Bearer {}", self.assertion(client));
        let mut request = Request::get(target);
        method.clone_into(&mut request.method);
        request.headers.push(("authorization".to_owned(), bearer));
        request
    }

    /// What a guard reports, in the name of this client.
    pub fn report(&self, client: &str, events: &Value) -> Request {
        let mut request = self.as_client(client, "POST", "/guard/events");
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        request.body = json!({ "events": events }).to_string().into_bytes();
        request
    }

    /// The stream of this client's server.
    pub async fn follow(&self, client: &str) -> Follower {
        let mut connection = self.world.door.connect().await.unwrap();
        let head = connection.open(&self.as_client(client, "GET", "/guard/events")).await.unwrap();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Follower { connection, text: String::new() }
    }

    /// An order to administration.
    pub async fn order(&self, target: &str, order: &Value) -> Response {
        let mut request = Request::get(target);
        request.method = "POST".to_owned();
        request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
        request.body = order.to_string().into_bytes();
        self.world.administration.send(&request).await.unwrap()
    }
}

impl World {
    /// The keys with which guards are configured, as the program prints them.
    pub fn snapshot_keys(&self) -> KeySet {
        let config = self.config();
        let (ok, out, err) =
            process::run(&["keys", "jwks", "--config", config.to_str().unwrap(), "-o", "json"]);
        assert!(ok, "{err}");
        KeySet::from_jwks(out.as_bytes()).unwrap()
    }

    /// Starts `deputize guard` before the server of this client, with these settings and files in `folder`; and where it
    /// listens.
    pub async fn start_guard(
        &self,
        (client, resource): (&'static str, &str),
        settings: &Value,
        folder: &Path,
    ) -> (Process, Endpoint) {
        let place = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        std::fs::write(place("snapshot.jwks.json"), self.snapshot_keys().to_jwks().to_string()).unwrap();
        let key = self.client_keys[client].private_jwk().to_string();
        write_private(&folder.join("guard.private.jwk.json"), &key);
        let mut all = json!({
            "listen": "127.0.0.1:0", "public_url": resource, "issuer": self.base,
            "ca_file": self.folder().join("ca.pem"), "client_id": client,
            "key_file": place("guard.private.jwk.json"), "snapshot_keys": place("snapshot.jwks.json"),
            "state_dir": place("state"),
        });
        for (name, value) in settings.as_object().unwrap() {
            all[name] = value.clone();
        }
        std::fs::write(place("guard.yaml"), all.to_string()).unwrap();
        let (file, ready) = (place("guard.yaml"), place("ready.json"));
        let arguments = ["guard", "--config", &file, "--ready-file", &ready];
        let process = Process::start(&arguments, &folder.join("guard.log"));
        process.wait_until(async || Path::new(&ready).exists()).await;
        let ready: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = ready["address"].as_str().unwrap_or_else(|| panic!("an address in {ready}"));
        (process, Endpoint::new(&format!("http://{address}/mcp").parse().unwrap(), None))
    }
}

/// An event of this kind, with more members.
pub fn event(kind: &str, more: Value) -> Value {
    let mut event = json!({ "id": uuid::Uuid::now_v7(), "kind": kind, "at_ms": now() * 1000 });
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

/// A stream that is followed.
pub struct Follower {
    connection: Connection,
    text: String,
}

impl Follower {
    /// The next message: its name and its data. `None` where the stream has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (event, data) = message.split_once('\n').unwrap();
                let event = event.strip_prefix("event: ").unwrap().to_owned();
                let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                return Some((event, data));
            }
            let chunk = tokio::time::timeout(MESSAGE_WITHIN, self.connection.chunk()).await.unwrap();
            match chunk {
                Ok(chunk) if !chunk.is_empty() => self.text.push_str(&String::from_utf8(chunk).unwrap()),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The next message but for those that say that nothing is new.
    pub async fn news(&mut self) -> (String, Value) {
        loop {
            let (event, data) = self.next().await.expect("the stream goes on");
            if event != "alive" {
                return (event, data);
            }
        }
    }

    /// The next message, which must be a snapshot: its content.
    pub async fn snapshot(&mut self) -> Value {
        let (event, data) = self.news().await;
        assert_eq!(event, "snapshot", "{data}");
        content(&data)
    }
}

/// What a signed snapshot says.
pub fn content(signed: &Value) -> Value {
    serde_json::from_str(signed["snapshot"].as_str().unwrap()).unwrap()
}

/// A guard in this process, with its link to a broker.
pub struct Guarded {
    /// The link.
    pub link: Link,
    /// The guard.
    pub guard: Arc<Guard>,
    /// Its time, which can be made to pass.
    pub clock: Arc<ShiftedClock>,
    resource: String,
    state: PathBuf,
}

/// The system's time, and more.
pub struct ShiftedClock {
    system: SystemClock,
    shift_seconds: AtomicU64,
}

/// What a guard in this process is told of its broker.
pub struct Setting<'s> {
    /// The broker's issuer URL.
    pub issuer: &'s str,
    /// Its certification authority.
    pub ca_pem: Option<Vec<u8>>,
    /// The server.
    pub resource: &'s str,
    /// The server's client at the broker, and its key.
    pub client: (&'s str, &'s Key),
    /// The keys of snapshots.
    pub snapshot_keys: KeySet,
    /// The server's tools as it lists them.
    pub definitions: &'s [Value],
}

struct Ready;

#[async_trait]
impl Upstream for Ready {
    async fn admit(&self, _: &ToolCallClaims) -> Admission {
        Admission::Ready
    }
}

impl ShiftedClock {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.shift_seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now_seconds(&self) -> u64 {
        self.system.now_seconds() + self.shift_seconds.load(Ordering::SeqCst)
    }
    fn uptime(&self) -> Duration {
        self.system.uptime() + Duration::from_secs(self.shift_seconds.load(Ordering::SeqCst))
    }
    fn unique_id(&self) -> String {
        self.system.unique_id()
    }
}

impl Guarded {
    /// Starts a guard that remembers in `state`.
    pub fn start(setting: &Setting<'_>, state: &Path) -> Self {
        let clock = Arc::new(ShiftedClock { system: SystemClock::new(), shift_seconds: AtomicU64::new(0) });
        let (client_id, key) = setting.client;
        let link = Link::start(LinkSettings {
            issuer: setting.issuer.to_owned(),
            resource: setting.resource.to_owned(),
            client_id: client_id.to_owned(),
            private_key: SigningKey::from_private_jwk(key.private_jwk().as_object().unwrap()).unwrap(),
            decryption_keys: Vec::new(),
            snapshot_keys: setting.snapshot_keys.clone(),
            state_folder: state.to_owned(),
            ca_pem: setting.ca_pem.clone(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
        })
        .unwrap();
        let resource = setting.resource;
        let config = GuardConfig::new(setting.issuer, resource, resource, "https://metadata.test");
        let guard = Guard::new(config, link.redeemer(), Arc::new(Ready), clock.now_seconds()).unwrap();
        let guard = Arc::new(guard);
        link.follow(Arc::clone(&guard));
        let definitions: Vec<Object> =
            setting.definitions.iter().map(|each| each.as_object().unwrap().clone()).collect();
        guard.observe_tools(&definitions);
        Self { link, guard, clock, resource: resource.to_owned(), state: state.to_owned() }
    }

    /// Ends it, and waits until nothing of it is left: another may take its folder then.
    pub async fn stop(self) {
        let Self { link, guard, state, .. } = self;
        drop((link, guard));
        for _ in 0..1000 {
            if std::fs::File::open(state.join("lock")).unwrap().try_lock().is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the guard goes on");
    }

    /// Calls a tool with a token, as the holder of its key.
    pub async fn call(&self, token: &str, key: &Key, tool: &str, arguments: &Value) -> Result<(), Refusal> {
        let params = json!({ "name": tool, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let access_token_hash = crate::forge::encode(deputize_call::digest::sha256(token.as_bytes()));
        let nonce = self.send(None, &body).await.err().and_then(|refusal| refusal.dpop_nonce);
        let proof = key.proof(&json!({
            "htm": "POST", "htu": self.resource, "iat": self.clock.now_seconds(), "jti": unique(),
            "ath": access_token_hash, "nonce": nonce,
        }));
        self.send(Some((token, &proof)), &body).await
    }

    async fn send(&self, credentials: Option<(&str, &str)>, body: &str) -> Result<(), Refusal> {
        let authorization = credentials.map(|(token, _)| format!("DPoP {token}"));
        let mut headers = vec![("content-type", "application/json")];
        if let (Some(authorization), Some((_, proof))) = (&authorization, credentials) {
            headers.extend([("authorization", authorization.as_str()), ("dpop", proof)]);
        }
        let call = IncomingCall {
            method: "POST",
            headers: &headers,
            body: body.as_bytes(),
            client_certificate: None,
            caller: deputize_guard::Caller::default(),
            uptime: self.clock.uptime(),
            now_seconds: self.clock.now_seconds(),
        };
        self.guard.verify(&call).await.map(|verified| assert!(matches!(verified, Verified::Call(_))))
    }
}

/// The broker says every ten seconds that it is there.
const MESSAGE_WITHIN: Duration = Duration::from_secs(20);
