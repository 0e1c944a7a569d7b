//! A guard that takes persons' own tokens: a broker under `serve` that allows it, an OpenID provider that other people
//! wrote, a guard, and the reference server of MCP behind it.

use crate::{
    forge::{Key, now, unique},
    live_guard::{ask, free_port, messages},
    node::Script,
    process::{self, Process},
    wire::{Endpoint, Request, Response},
    world::{Started, World},
};
use deputize_call::digest::tool_digest;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use url::Url;

/// All of it, running.
pub struct Ordinary {
    /// The broker's world.
    pub world: World,
    /// The broker.
    pub started: Started,
    /// The guard.
    pub guard: Process,
    /// URL of the guard's MCP endpoint: the server's resource too.
    pub url: String,
    /// The OpenID provider that clients sign in at.
    pub accounts: String,
    endpoint: Endpoint,
    _accounts: Script,
    _everything: Script,
}

impl Ordinary {
    /// Starts everything. The guard takes tokens of the provider that other people wrote, for whichever client, and of
    /// the world's issuer `/a`, for `desk-app` alone.
    ///
    /// `echo` is of the lowest level; `get-sum` of the lowest tier, but for single calls alone; `get-tiny-image` of the
    /// highest but one.
    pub async fn start() -> Self {
        let mut world = World::new().await;
        let folder = world.folder().to_owned();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        std::fs::write(path("ca.pem"), world.authority.pem()).unwrap();
        world.authority.certify().write(&folder, "accounts");
        let mut accounts = Script::start(
            "accounts.mjs",
            &[&path("accounts.pem"), &path("accounts.key")],
            Some(&folder.join("ca.pem")),
        );
        let issuer = tokio::task::block_in_place(|| accounts.hear())["issuer"].as_str().unwrap().to_owned();
        world.trust_issuer_of(&issuer, &json!({}));
        let mut everything = Script::start("everything.mjs", &[], None);
        let upstream = tokio::task::block_in_place(|| everything.hear())["url"].as_str().unwrap().to_owned();

        let url = format!("http://127.0.0.1:{}/mcp", free_port());
        let endpoint = Endpoint::new(&Url::parse(&url).unwrap(), None);
        let config = world.write_files();
        let key = Key::es256();
        std::fs::write(path("clients/everything-guard.json"), json!({ "keys": [key.jwk()] }).to_string())
            .unwrap();
        std::fs::write(path("guard.jwk"), key.private_jwk().to_string()).unwrap();
        std::fs::set_permissions(path("guard.jwk"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let record = record(&url, &tools(&upstream).await);
        std::fs::write(path("registry/everything.json"), record.to_string()).unwrap();
        std::fs::write(path("policies/baseline.cedar"), BASELINE).unwrap();
        let this = [issuer.clone(), world.identity.issuer("a")];
        change(&config, |config| allow(config, &url, &this));

        let started = world.start_again(&config).await;
        let (ok, keys, complaint) =
            process::run(&["keys", "jwks", "--config", &path("deputize.yaml"), "-o", "json"]);
        assert!(ok, "{complaint}");
        std::fs::write(path("snapshot.jwks.json"), keys).unwrap();
        let settings = json!({
            "upstream": upstream, "public_url": url, "listen": endpoint.authority, "issuer": world.base,
            "ca_file": path("ca.pem"), "client_id": "everything-guard", "key_file": path("guard.jwk"),
            "snapshot_keys": path("snapshot.jwks.json"), "state_dir": path("guard-state"),
            "accept_issuers": this, "accept_scopes": ["mcp"],
        });
        std::fs::write(path("guard.yaml"), settings.to_string()).unwrap();
        let (guard_yaml, announced) = (path("guard.yaml"), path("guard-ready.json"));
        let line = ["guard", "--config", &guard_yaml, "--insecure-loopback", "--ready-file", &announced];
        let guard = Process::start(&line, &folder.join("guard.log"));
        guard.wait_until(async || Path::new(&announced).exists()).await;
        Self {
            world,
            started,
            guard,
            url,
            accounts: issuer,
            endpoint,
            _accounts: accounts,
            _everything: everything,
        }
    }

    /// The certification authority of broker and provider.
    pub fn authority(&self) -> PathBuf {
        self.world.folder().join("ca.pem")
    }

    /// The official TypeScript client, not yet connected.
    pub fn typescript(&self) -> Script {
        Script::start("ordinary.mjs", &[], Some(&self.authority()))
    }

    /// An access token of issuer `/a` for this server, made for `desk-app`, with `changes` (`null` leaves a claim out).
    pub fn token(&self, changes: &Value) -> String {
        let mut claims = json!({
            "iss": self.world.identity.issuer("a"), "sub": "alice", "aud": self.url, "client_id": "desk-app",
            "scope": "mcp", "iat": now(), "exp": now() + 600, "jti": unique(),
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        self.world.issuer_keys["a"].token("at+jwt", &claims)
    }

    /// Sends a message with this token as bearer, and nothing else.
    pub async fn say(&self, token: &str, headers: &[(&str, &str)], message: &Value) -> Response {
        let mut all = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("accept".to_owned(), "application/json, text/event-stream".to_owned()),
            ("authorization".to_owned(), format!("Bearer {token}")),
        ];
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let body = message.to_string().into_bytes();
        let request = Request { method: "POST".into(), target: "/mcp".into(), headers: all, body };
        self.endpoint.send(&request).await.unwrap()
    }

    /// Begins a session with this token; its id.
    pub async fn begin(&self, token: &str) -> String {
        let mut begin = ask("initialize");
        begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "ordinary", "version": "1" } });
        let answer = self.say(token, &[], &begin).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let answer = self.say(token, &[("mcp-session-id", &session)], &ready).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        session
    }

    /// Sends any request.
    pub async fn send(&self, request: &Request) -> Response {
        self.endpoint.send(request).await.unwrap()
    }

    /// What the broker has on record of this kind for this server, in their order.
    pub async fn recorded(&self, kind: &str) -> Vec<Value> {
        self.world.recorded().await;
        let (entries, _) = self.world.log(0).await;
        let is = |entry: &Value| entry["kind"] == kind && entry["client"] == "everything-guard";
        entries.into_iter().filter(is).collect()
    }

    /// Changes the broker's configuration and has it read again.
    pub async fn reconfigure(&self, change_it: impl FnOnce(&mut Value)) {
        change(&self.world.config(), change_it);
        self.world.reload(&self.started).await;
    }
}

/// The client that the server's guard is, in a configuration.
pub fn guards_client(config: &mut Value) -> &mut Value {
    let clients = config["clients"].as_array_mut().unwrap();
    clients.iter_mut().find(|client| client["id"] == "everything-guard").unwrap()
}

fn change(config: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(config, value.to_string()).unwrap();
}

fn allow(config: &mut Value, url: &str, [accounts, forged]: &[String; 2]) {
    config["clients"].as_array_mut().unwrap().push(json!({
        "id": "everything-guard", "tenant": "acme", "jwks_file": "clients/everything-guard.json", "server": url,
        "accepts_bearer": [
            { "issuer": accounts, "clients": ["*"] },
            { "issuer": forged, "clients": ["desk-app"] },
        ],
    }));
}

fn record(url: &str, definitions: &[Value]) -> Value {
    let tools = definitions.iter().map(|definition| {
        let mut tool = json!({
            "tier": "low", "effect": "read", "definition": definition,
            "tool_digest": tool_digest(definition.as_object().unwrap()).unwrap(),
        });
        match definition["name"].as_str() {
            Some("get-sum") => tool["level"] = json!("L3"),
            Some("get-tiny-image") => tool["tier"] = json!("high"),
            _ => {}
        }
        tool
    });
    json!({
        "id": "everything", "resource": url, "tenant": "acme", "version": "1.0.0", "owner": "conformance",
        "purpose": "to be called by ordinary clients", "environment": "staging", "data_class": "internal",
        "verifier": "guard", "client_id": "everything-guard", "tools": tools.collect::<Vec<_>>(),
    })
}

/// What the server lists to an operator.
async fn tools(url: &str) -> Vec<Value> {
    let endpoint = Endpoint::new(&Url::parse(url).unwrap(), None);
    let mut session = None;
    let mut say = async |message: Value| {
        let accept = ("accept".to_owned(), "application/json, text/event-stream".to_owned());
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned()), accept];
        headers.extend(session.clone().map(|session| ("mcp-session-id".to_owned(), session)));
        let body = message.to_string().into_bytes();
        let request = Request { method: "POST".into(), target: "/mcp".into(), headers, body };
        let answer = endpoint.send(&request).await.unwrap();
        session = session.take().or_else(|| answer.header("mcp-session-id").map(str::to_owned));
        messages(&answer).pop().unwrap_or_default()
    };
    let mut begin = ask("initialize");
    begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {} },
        "clientInfo": { "name": "operator", "version": "1" } });
    say(begin).await;
    say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    let listed = say(ask("tools/list")).await;
    listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
}

/// The policies that the project ships for everyone.
const BASELINE: &str = include_str!("../../broker/policies/baseline.cedar");
