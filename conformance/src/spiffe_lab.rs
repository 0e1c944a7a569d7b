//! A broker under `serve` whose Workload API knows this very process: two identities of `example.org`, told apart by
//! their hints, and the bundle of one foreign trust domain.

use crate::{
    forge::Key,
    workload_api::Connection,
    workload_server::{authority_of, self_signed},
    world::{Started, World},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The running broker.
pub struct SpiffeLab {
    /// What surrounds it.
    pub world: World,
    /// Its process.
    pub started: Started,
    /// The socket of its Workload API.
    pub socket: PathBuf,
}

impl SpiffeLab {
    /// Starts it.
    pub async fn start() -> Self {
        Self::start_with(&json!({})).await
    }

    /// Starts it with these members of its `spiffe` section besides.
    pub async fn start_with(settings: &Value) -> Self {
        Self::start_with_clients(settings, &[]).await
    }

    /// The same with these clients besides.
    pub async fn start_with_clients(settings: &Value, clients: &[Value]) -> Self {
        let world = World::new().await;
        let config = world.write_files();
        let folder = world.folder().to_owned();
        std::fs::create_dir(folder.join("entries")).unwrap();
        for name in ["myservice", "myservice2"] {
            std::fs::write(folder.join(format!("entries/{name}.yaml")), entry(&folder, name).to_string())
                .unwrap();
        }
        std::fs::write(folder.join("foreign.json"), foreign_bundle().to_string()).unwrap();
        let mut spiffe = json!({
            "trust_domain": TRUST_DOMAIN, "socket": "workload.sock", "entries": "entries",
            "federation": [{ "trust_domain": FOREIGN, "bundle_file": "foreign.json" }],
        });
        for (member, value) in settings.as_object().unwrap() {
            spiffe[member] = value.clone();
        }
        if let Some(entries) = spiffe["entries"].as_str() {
            std::fs::create_dir_all(folder.join(entries)).unwrap();
        }
        let mut configuration: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        configuration["spiffe"] = spiffe;
        configuration["clients"].as_array_mut().unwrap().extend_from_slice(clients);
        std::fs::write(&config, configuration.to_string()).unwrap();
        let started = world.start_again(&config).await;
        let socket = folder.join("workload.sock");
        started.process.wait_until(async || Connection::open(&socket).await.is_ok()).await;
        Self { world, started, socket }
    }

    /// The endpoint, as clients are told of it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs a client to its end; what it printed. A client that fails is a failure of the test.
    pub fn run(&self, command: &mut Command) -> String {
        let output = command.env("SPIFFE_ENDPOINT_SOCKET", self.endpoint()).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{said}\n{complained}\nbroker:\n{}", self.started.process.said());
        said
    }

    /// Runs a command of the operator's on this broker's configuration.
    pub fn deputize(&self, arguments: &[&str]) -> String {
        let (success, said, complained) = self.run_deputize(arguments);
        assert!(success, "{arguments:?}: {said}{complained}");
        said
    }

    /// What such a command printed, whether it succeeded or not.
    pub fn deputize_to_any_end(&self, arguments: &[&str]) -> String {
        let (_, said, complained) = self.run_deputize(arguments);
        said + &complained
    }

    fn run_deputize(&self, arguments: &[&str]) -> (bool, String, String) {
        let config = self.world.config();
        let mut all = arguments.to_vec();
        all.extend(["--config", config.to_str().unwrap()]);
        crate::process::run(&all)
    }
}

/// Python with SPIFFE's own library.
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/spiffe/bin/python");
    assert!(path.exists(), "SPIFFE's Python library is missing: run ./test, which installs it");
    path
}

/// A program of `conformance/spiffe`.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spiffe").join(name)
}

fn entry(folder: &Path, name: &str) -> Value {
    let uid = std::fs::metadata(folder).unwrap().uid();
    json!({
        "id": name, "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/{name}"), "hint": name,
        "selectors": [format!("unix:uid:{uid}")], "federates_with": [FOREIGN],
    })
}

/// A bundle as that trust domain publishes it.
fn foreign_bundle() -> Value {
    let authority = self_signed(authority_of(FOREIGN));
    let mut x509 = Key::es256().bare_jwk();
    x509["use"] = json!("x509-svid");
    x509["x5c"] = json!([STANDARD.encode(authority.der())]);
    let mut jwt = Key::es256().jwk();
    jwt["use"] = json!("jwt-svid");
    json!({ "keys": [x509, jwt], "spiffe_sequence": 1, "spiffe_refresh_hint": 300 })
}

/// Ours.
pub const TRUST_DOMAIN: &str = "example.org";
/// Another one.
pub const FOREIGN: &str = "example-federated.org";
