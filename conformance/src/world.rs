//! A broker under `serve` with everything around it: two tenants, three issuers, clients, servers, policies.

mod aws;
mod servers;

pub use self::servers::{ARCHIVE, CRM, GLOBEX, LEDGER, PROPOSED};
use self::{
    aws::Aws,
    servers::{POLICY, servers},
};
use crate::{
    certified::Certified,
    forge::{Key, now, unique},
    identity::{self, IdentityServer},
    process::Process,
    trust::Authority,
    wire::{Endpoint, Request, Response},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use url::Url;

/// Everything that surrounds one broker, and the files that it is started from.
pub struct World {
    /// Issues user tokens: `/a` and `/b` of tenant acme, `/g` of tenant globex.
    pub identity: IdentityServer,
    /// The keys of those issuers by name.
    pub issuer_keys: BTreeMap<&'static str, Key>,
    /// The clients' keys by id.
    pub client_keys: BTreeMap<&'static str, Key>,
    /// The broker's issuer URL.
    pub base: String,
    /// Its public door.
    pub door: Endpoint,
    /// Health and metrics.
    pub observation: Endpoint,
    /// Administration, on its socket.
    pub administration: Endpoint,
    /// Trusts both the broker and the identity provider.
    pub authority: Authority,
    /// Clients that show certificates and SVIDs, where there are any.
    pub certified: Option<Certified>,
    folder: TempDir,
    extra_issuers: Vec<Value>,
    extra_policies: usize,
    behind_proxy: bool,
    decryption_key: Option<String>,
    more_client_keys: Vec<(&'static str, Value)>,
    aws: Option<Aws>,
}

/// A started broker and how long it took until it was ready.
pub struct Started {
    /// The process.
    pub process: Process,
    /// From the start of the process to its first ready answer.
    pub ready_after: std::time::Duration,
}

impl World {
    /// Makes the files. Nothing runs yet but the identity provider.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let identity = IdentityServer::start(&authority).await;
        let issuer_keys: BTreeMap<_, _> =
            ["a", "b", "g"].into_iter().map(|name| (name, Key::es256())).collect();
        for (name, key) in &issuer_keys {
            identity.publish(name, identity::jwks(&[key]));
        }
        let client_keys = CLIENTS.into_iter().map(|name| (name, Key::es256())).collect();
        let (port, admin_port) = (free_port(), free_port());
        let base = format!("https://localhost:{port}");
        let observation = format!("http://127.0.0.1:{admin_port}").parse().unwrap();
        Self {
            door: Endpoint::new(&base.parse::<Url>().unwrap(), Some(authority.client())),
            observation: Endpoint::new(&observation, None),
            administration: Endpoint::unix(&folder.path().join("data/admin.sock")),
            identity,
            issuer_keys,
            client_keys,
            base,
            authority,
            certified: None,
            folder,
            extra_issuers: Vec::new(),
            extra_policies: 0,
            behind_proxy: false,
            decryption_key: None,
            more_client_keys: Vec::new(),
            aws: None,
        }
    }

    /// The folder of all files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Trusts one more issuer of tenant acme, before the start; `members` are added to its entry.
    pub fn trust_issuer(&mut self, name: &str, members: &Value) {
        self.trust_issuer_of(&self.identity.issuer(name), members);
    }

    /// Trusts one more issuer by its URL.
    pub fn trust_issuer_of(&mut self, issuer: &str, members: &Value) {
        let mut entry = self.issuer_entry(issuer, "acme");
        for (member, value) in members.as_object().into_iter().flatten() {
            entry[member] = value.clone();
        }
        self.extra_issuers.push(entry);
    }

    /// Adds so many policies about other tools, before the start.
    pub fn add_policies(&mut self, number: usize) {
        self.extra_policies = number;
    }

    /// Listens without TLS, as behind a proxy that terminates it.
    pub fn behind_proxy(&mut self) {
        self.behind_proxy = true;
        self.door = Endpoint::new(&self.base.replace("https", "http").parse().unwrap(), None);
    }

    /// Gives the broker a private JWK to decrypt tokens with, before the start.
    pub fn decrypt_with(&mut self, private_jwk: &str) {
        self.decryption_key = Some(private_jwk.to_owned());
    }

    /// Starts the broker and waits until it takes requests.
    pub async fn start(&self) -> Started {
        let config = self.write_files();
        self.start_again(&config).await
    }

    /// Starts the broker on the files that are there.
    pub async fn start_again(&self, config: &Path) -> Started {
        #[expect(
            clippy::disallowed_methods,
            reason = "the black-box side measures the broker's process in real time"
        )]
        let before = std::time::Instant::now();
        let process = self.spawn(config);
        process
            .wait_until(async || {
                let answer = self.observation.send(&Request::get("/readyz")).await;
                answer.is_ok_and(|answer| answer.status == 200)
            })
            .await;
        let ready_after = before.elapsed();
        // It is ready before it has asked the identity providers; those who exchange want their keys.
        let issuers = 3 + self.extra_issuers.len();
        process.wait_until(async || self.issuers_asked().await >= issuers).await;
        Started { process, ready_after }
    }

    /// Starts the broker on the files that are there, and waits for nothing.
    pub fn spawn(&self, config: &Path) -> Process {
        let log = self.folder().join("broker.log");
        Process::start(&["serve", "--config", config.to_str().unwrap()], &log)
    }

    /// How many issuers the broker has asked for their keys.
    async fn issuers_asked(&self) -> usize {
        let lines = self.metric_lines("deputize_jwks_fetches_total").await;
        let issuer = |line: &String| line.split("issuer=\"").nth(1)?.split('"').next().map(str::to_owned);
        lines.iter().filter_map(issuer).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Changes a server's registry record, on disk alone.
    pub fn change_record(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let file = self.folder().join(format!("registry/{id}.json"));
        let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut record);
        std::fs::write(file, record.to_string()).unwrap();
    }

    /// The definitions of a server's tools, as they are registered on disk.
    pub fn definitions(&self, id: &str) -> Vec<Value> {
        let file = self.folder().join(format!("registry/{id}.json"));
        let record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        record["tools"].as_array().unwrap().iter().map(|tool| tool["definition"].clone()).collect()
    }

    /// Has the broker read its files again, and waits until the new ones hold.
    pub async fn reload(&self, started: &Started) {
        let loaded = async || {
            let (entries, _) = self.log(0).await;
            entries.iter().filter(|entry| entry["kind"] == "configuration").count()
        };
        let before = loaded().await;
        let pid = started.process.id().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        for _ in 0..1000 {
            if loaded().await > before {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("not reloaded:\n{}", started.process.said());
    }

    /// Where the configuration is.
    pub fn config(&self) -> PathBuf {
        self.folder().join("deputize.yaml")
    }

    /// The claims of a good token of `user` from issuer `/a`, for the client `desk`.
    pub fn user_claims(&self, user: &str) -> Value {
        self.user_claims_of("a", user, "desk-app")
    }

    /// The claims of a good token of `user` from this issuer, for this audience.
    pub fn user_claims_of(&self, issuer: &str, user: &str, audience: &str) -> Value {
        json!({
            "iss": self.identity.issuer(issuer), "sub": user, "aud": audience, "iat": now(), "exp": now() + 600,
            "jti": unique(), "auth_time": now() - 5, "acr": "basic", "amr": ["pwd"], "groups": ["support"],
        })
    }

    /// A good token of `user` from issuer `/a`.
    pub fn user_token(&self, user: &str) -> String {
        self.issuer_keys["a"].token("JWT", &self.user_claims(user))
    }

    /// The sum of a metric over all its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let lines = self.metric_lines(name).await;
        lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The lines of a metric: `name{label="…"} value`.
    pub async fn metric_lines(&self, name: &str) -> Vec<String> {
        let answer = self.observation.send(&Request::get("/metrics")).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_name).map(str::to_owned).collect()
    }

    /// An order of an administrator, on its socket.
    pub async fn order(&self, method: &str, target: &str, order: &Value) -> Response {
        let request = Request {
            method: method.into(),
            target: target.into(),
            headers: vec![("content-type".into(), "application/json".into())],
            body: order.to_string().into_bytes(),
        };
        self.administration.send(&request).await.unwrap()
    }

    /// Waits until everything that the broker has recorded so far is durable and can be read: entries have one order,
    /// and this order of an administrator, about a token that never was, is answered when its own is.
    pub async fn recorded(&self) {
        let token = uuid::Uuid::from_u128(0x7000 << 64 | 0x8000 << 48).to_string();
        let answer = self.order("POST", "/admin/revocations", &json!({ "token": token })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The entries of the audit log from this index on, and its size.
    pub async fn log(&self, from: u64) -> (Vec<Value>, u64) {
        let (mut entries, mut next) = (Vec::new(), from);
        loop {
            let request = Request::get(&format!("/admin/log?from={next}&limit=1000"));
            let answer = self.administration.send(&request).await.unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json();
            let size = page["size"].as_u64().unwrap();
            let found = page["entries"].as_array().unwrap();
            entries.extend(found.iter().map(|found| found["entry"].clone()));
            next += found.len() as u64;
            if next >= size || found.is_empty() {
                return (entries, size);
            }
        }
    }

    /// How many entries the audit log has.
    pub async fn log_size(&self) -> u64 {
        let answer = self.administration.send(&Request::get("/admin/log?from=0&limit=1")).await.unwrap();
        answer.json()["size"].as_u64().unwrap()
    }

    /// Writes configuration, certificates, keys, registry and policies; returns the configuration's path.
    pub fn write_files(&self) -> PathBuf {
        let folder = self.folder();
        for name in ["registry", "policies", "clients"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("ca.pem"), self.authority.pem()).unwrap();
        self.authority.certify().write(folder, "tls");
        for (id, key) in &self.client_keys {
            self.write_key_set(id, key);
        }
        for server in servers() {
            let file = folder.join(format!("registry/{}.json", server["id"].as_str().unwrap()));
            std::fs::write(file, server.to_string()).unwrap();
        }
        let more = (0..self.extra_policies).map(|n| {
            format!(
                "@id(\"other-{n}\")\npermit (principal is User, action == Action::\"tools/call\", \
                 resource == Tool::\"other#tool-{n}\") when {{ context.level == 3 }};\n"
            )
        });
        let policies = more.fold(POLICY.to_owned(), |all, policy| all + &policy);
        std::fs::write(folder.join("policies/acme.cedar"), policies).unwrap();
        if let Some(key) = &self.decryption_key {
            std::fs::write(folder.join("decryption.json"), key).unwrap();
        }
        let config = self.config();
        let mut configuration = self.configuration();
        if let Some(certified) = &self.certified {
            certified.write(folder);
            certified.configure(&mut configuration);
        }
        std::fs::write(&config, configuration.to_string()).unwrap();
        config
    }

    fn configuration(&self) -> Value {
        let mut issuers = vec![
            self.issuer_entry(&self.identity.issuer("a"), "acme"),
            self.issuer_entry(&self.identity.issuer("b"), "acme"),
            self.issuer_entry(&self.identity.issuer("g"), "globex"),
        ];
        issuers.extend(self.extra_issuers.iter().cloned());
        let client = |id: &str, tenant: &str, more: Value| {
            let mut client = json!({ "id": id, "tenant": tenant, "jwks_file": format!("clients/{id}.json") });
            for (member, value) in more.as_object().unwrap() {
                client[member] = value.clone();
            }
            client
        };
        let mut listen = json!({ "address": self.door.authority.replace("localhost", "127.0.0.1") });
        if self.behind_proxy {
            listen["behind_proxy"] = json!(true);
        } else {
            listen["tls"] = json!({ "certificate_file": "tls.pem", "key_file": "tls.key" });
        }
        json!({
            "issuer": self.base,
            "aws": self.aws.as_ref().map(Aws::configuration),
            "data_dir": "data",
            "listen": listen,
            "admin": { "address": self.observation.authority },
            "audit": { "anchor": "anchor.json" },
            "identity_providers": issuers,
            // Its servers are the tests' own; signed approvals have a suite of their own.
            "registry": { "folder": "registry", "unsigned_approvals": "allow" },
            "policies": "policies",
            "jwe_key_files": self.decryption_key.iter().map(|_| "decryption.json").collect::<Vec<_>>(),
            // Each denial is to have its own record, so that records can be counted against answers.
            "limits": { "source_per_second": 100_000, "client_per_second": 100_000, "denials_per_second": 100_000 },
            "clients": [
                client("desk", "acme", json!({
                    "actor": "spiffe://acme.test/agent/desk", "subject_audiences": ["desk-app"],
                    "may_call": [{ "resource": "*" }], "client_credentials": true,
                    "presents_actors": [{ "issuer": self.base, "subject": "helper-agent", "actor": "helper-agent" }],
                })),
                client("other", "acme", json!({ "subject_audiences": ["other-app"], "may_call": [{ "resource": "*" }] })),
                client("narrow", "acme", json!({
                    "subject_audiences": ["desk-app"],
                    "may_call": [{ "resource": CRM, "tools": ["find_customer"] }],
                })),
                client("crm", "acme", json!({ "server": CRM, "may_call": [{ "resource": LEDGER }] })),
                client("ledger", "acme", json!({
                    "server": LEDGER, "may_call": [{ "resource": "*" }],
                    "accepts_bearer": [{ "issuer": self.identity.issuer("a"), "clients": ["desk-app"] }],
                })),
                client("retired", "acme", json!({ "enabled": false, "may_call": [{ "resource": "*" }] })),
                client("globex-desk", "globex", json!({
                    "subject_audiences": ["desk-app"], "may_call": [{ "resource": "*" }],
                })),
            ],
        })
    }

    fn issuer_entry(&self, issuer: &str, tenant: &str) -> Value {
        json!({
            "issuer": issuer, "tenant": tenant, "preset": "generic", "ca_file": "ca.pem",
            "allow_private_addresses": true,
        })
    }
}

/// The token of an answer.
pub fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()["access_token"].as_str().expect("an access token").to_owned()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const CLIENTS: [&str; 7] = ["desk", "other", "narrow", "crm", "ledger", "retired", "globex-desk"];
