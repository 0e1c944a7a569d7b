//! A broker with nodes, and agents as processes of their own.

use crate::{
    process::Process,
    spiffe_lab::{SpiffeLab, TRUST_DOMAIN},
    trust::write_private,
    wire::Response,
    workload_api::{Connection, X509SvidResponse},
};
use reqwest::Client;
use serde_json::{Value, json};
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A running broker, and where its agents are.
pub struct NodeLab {
    /// The broker.
    pub lab: SpiffeLab,
}

/// A running agent.
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// The socket of its Workload API.
    pub socket: PathBuf,
    /// Its folder.
    pub folder: PathBuf,
}

impl NodeLab {
    /// Starts a broker whose machines become nodes in this way.
    pub async fn start(nodes: &Value) -> Self {
        Self { lab: SpiffeLab::start_with(&json!({ "nodes": nodes })).await }
    }

    /// Makes a join token for a node of this name.
    pub async fn token(&self, name: &str) -> String {
        let answer = self.order("token", &json!({ "node": name })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["join_token"].as_str().unwrap().to_owned()
    }

    /// An order of an administrator about nodes.
    pub async fn order(&self, what: &str, body: &Value) -> Response {
        self.lab.world.order("POST", &format!("/admin/nodes/{what}"), body).await
    }

    /// An entry for processes of this user on this node.
    pub async fn entry(&self, id: &str, node: &str) {
        let uid = std::fs::metadata(self.lab.world.folder()).unwrap().uid();
        let entry = json!({
            "id": id, "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/{id}"), "nodes": [node],
            "selectors": [format!("unix:uid:{uid}")],
        });
        let answer = self.lab.world.order("POST", "/admin/entries", &entry).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Starts an agent with these arguments beside those that every agent here has.
    pub fn agent(&self, name: &str, arguments: &[&str]) -> Agent {
        let folder = self.lab.world.folder().join("agents").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("agent.sock");
        let ca = self.lab.world.folder().join("ca.pem");
        let (base, shown, ca) = (&self.lab.world.base, socket.to_str().unwrap(), ca.to_str().unwrap());
        let mut all = vec!["agent", "--broker", base, "--ca-file", ca, "--socket", shown];
        all.extend(arguments);
        Agent { process: Process::start(&all, &folder.join("agent.log")), socket, folder }
    }

    /// Starts an agent with a join token, which it is ready by.
    pub async fn joined(&self, name: &str) -> Agent {
        let token = self.token(name).await;
        let file = self.lab.world.folder().join(format!("{name}.token"));
        write_private(&file, &token);
        let data = self.lab.world.folder().join(format!("agents/{name}/data"));
        let agent = self.agent(
            name,
            &["--join-token-file", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()],
        );
        agent.ready().await;
        agent
    }

    /// A client of the broker that shows what this agent shows.
    pub fn as_agent(&self, agent: &Agent) -> Client {
        let kept: Value =
            serde_json::from_slice(&std::fs::read(agent.folder.join("data/node.json")).unwrap()).unwrap();
        let chain: Vec<&str> =
            kept["chain"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        self.showing(&chain, kept["key"].as_str().unwrap())
    }

    /// A client of the broker that shows these certificates, DER in base64, the first of which is for this key.
    pub fn showing(&self, chain: &[&str], key: &str) -> Client {
        let block =
            |label: &str, der: &str| format!("-----BEGIN {label}-----\n{der}\n-----END {label}-----\n");
        let mut pem: String = chain.iter().map(|der| block("CERTIFICATE", der)).collect();
        pem += &block("PRIVATE KEY", key);
        let identity = reqwest::Identity::from_pem(pem.as_bytes()).unwrap();
        self.builder().identity(identity).build().unwrap()
    }

    /// A client of the broker that shows nothing.
    pub fn nobody(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// The URL of a path of the broker.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.lab.world.base)
    }

    /// Asks the broker as this client: status and body.
    pub async fn ask(&self, client: &Client, path: &str, body: &Value) -> (u16, Value) {
        let request =
            client.post(self.url(path)).header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.lab.world.authority.pem().as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([authority])
    }
}

impl Agent {
    /// Waits until processes are served.
    pub async fn ready(&self) {
        self.process.wait_until(async || Connection::open(&self.socket).await.is_ok()).await;
    }

    /// The X.509-SVIDs that this process gets there, or how it is refused.
    ///
    /// # Errors
    /// What the stream ended with.
    pub async fn svids(&self) -> Result<X509SvidResponse, String> {
        let connection = Connection::open(&self.socket).await.map_err(|ended| ended.to_string())?;
        connection.first("FetchX509SVID", Some("true")).await.map_err(|ended| ended.to_string())
    }

    /// Waits until this process has this identity there.
    pub async fn until_it_gives(&self, id: &str) {
        let id = format!("spiffe://{TRUST_DOMAIN}/{id}");
        self.process
            .wait_until(async || {
                let told = self.svids().await;
                told.is_ok_and(|told| told.svids.iter().any(|svid| svid.spiffe_id == id))
            })
            .await;
    }
}

/// SPIFFE ID of the node of this name.
pub fn node_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/deputize/node/{name}")
}

/// A file's path, as an argument.
pub fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
