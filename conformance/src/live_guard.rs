//! A guard from outside: `deputize dev` knows a server of ours, `deputize guard` stands before it, and an agent calls.

use crate::{
    dev::Dev,
    process::Process,
    wire::{Connection, Endpoint, Request, Response},
};
use deputize_call::{action::Action, digest::tool_digest, json::Object, sign::SigningKey};
use deputize_client::{Client, Detail, ExchangeError, ExchangeRequest, ToolToken};
use serde_json::{Value, json};
use std::{io, net::TcpListener};
use tempfile::TempDir;
use url::Url;

/// A guard, the environment that knows its server, and an agent with alice's token.
pub struct LiveGuard {
    /// The environment.
    pub dev: Dev,
    /// The guard's process.
    pub process: Process,
    /// URL of the MCP endpoint.
    pub url: String,
    /// The agent platform of the environment.
    pub client: Client,
    endpoint: Endpoint,
    _folder: TempDir,
}

/// One request to a guard, and everything that can be done to it before it is sent.
#[derive(Clone)]
pub struct GuardRequest {
    /// As it goes over the wire.
    pub request: Request,
}

impl LiveGuard {
    /// Registers a server with these definitions (of the lowest tier, all of them reading), and starts a guard before
    /// it with these arguments.
    pub async fn start(definitions: &[Value], arguments: &[&str]) -> Self {
        Self::start_with(definitions, &json!({}), arguments).await
    }

    /// As [`LiveGuard::start`], with more members in the server's record: prompts, resources.
    pub async fn start_with(definitions: &[Value], more: &Value, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let url = format!("http://127.0.0.1:{}/mcp", free_port());
        let endpoint = Endpoint::new(&Url::parse(&url).unwrap(), None);
        let mut record = record(&url, definitions);
        for (member, value) in more.as_object().unwrap() {
            record[member] = value.clone();
        }
        std::fs::write(path("record.json"), record.to_string()).unwrap();
        let dev = Dev::start_with(&["--register", &path("record.json")]).await;
        let ready = dev.ready_file().to_str().unwrap().to_owned();
        let (listen, state, announced) = (endpoint.authority.clone(), path("state"), path("guard.json"));
        let fixed = [
            "guard",
            "--from-dev",
            &ready,
            "--public-url",
            &url,
            "--listen",
            &listen,
            "--state-dir",
            &state,
            "--ready-file",
            &announced,
        ];
        let all: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        let process = Process::start(&all, &folder.path().join("guard.log"));
        process.wait_until(async || std::path::Path::new(&announced).exists()).await;
        let jwk: Object = serde_json::from_value(dev.ready["client"]["private_jwk"].clone()).unwrap();
        let client = Client::builder(dev.text("/issuer"), dev.text("/client/client_id"))
            .private_key_jwt(SigningKey::from_private_jwk(&jwk).unwrap())
            .build()
            .unwrap();
        Self { dev, process, url, client, endpoint, _folder: folder }
    }

    /// A token of alice for looking.
    pub async fn look(&self) -> ToolToken {
        self.token("alice", &self.url, Detail::Listing).await
    }

    /// A token of alice for any calls of this tool.
    pub async fn tool(&self, name: &str) -> ToolToken {
        self.token("alice", &self.url, Detail::Tool { name: name.to_owned() }).await
    }

    /// A token of alice for one call.
    pub async fn call(&self, name: &str, arguments: &Value) -> ToolToken {
        let (name, arguments) = (name.to_owned(), arguments.clone());
        let detail = Detail::Call { name, arguments, input_responses: None, request_state: None };
        self.token("alice", &self.url, detail).await
    }

    /// A token of this user for this resource.
    pub async fn token(&self, user: &str, resource: &str, detail: Detail) -> ToolToken {
        let request =
            ExchangeRequest::new(resource, self.dev.text(&format!("/user_tokens/{user}"))).detail(detail);
        self.client.exchange(&request).await.unwrap()
    }

    /// A token of this user for one prompt or resource; `arguments` bind it to one use.
    pub async fn material(
        &self,
        user: &str,
        (action, name): (Action, &str),
        arguments: Option<&Value>,
    ) -> Result<ToolToken, ExchangeError> {
        let (name, user) = (name.to_owned(), self.dev.text(&format!("/user_tokens/{user}")));
        let detail = match arguments.cloned() {
            None => Detail::Tool { name },
            Some(arguments) => Detail::Call { name, arguments, input_responses: None, request_state: None },
        };
        let request = ExchangeRequest::new(&self.url, user).action(action).detail(detail);
        self.client.exchange(&request).await
    }

    /// A good request with a fresh nonce, for the caller to spoil.
    pub async fn request(&self, method: &str, token: &ToolToken, body: &[u8]) -> GuardRequest {
        let mut request = GuardRequest::bare(method, self.path(), body);
        let nonce = self.send(&request).await.header("dpop-nonce").expect("a nonce").to_owned();
        let proof = self.client.proof_for(method, &self.url, token.access_token(), Some(&nonce)).unwrap();
        request.header("authorization", &token.authorization()).header("dpop", &proof);
        request
    }

    /// A message of the agent.
    pub async fn message(&self, token: &ToolToken, message: &Value) -> GuardRequest {
        self.request("POST", token, message.to_string().as_bytes()).await
    }

    /// Sends a request on a connection of its own.
    pub async fn send(&self, request: &GuardRequest) -> Response {
        self.endpoint.send(&request.request).await.unwrap()
    }

    /// Sends what may break the connection.
    pub async fn try_send(&self, request: &GuardRequest) -> io::Result<Response> {
        self.endpoint.send(&request.request).await
    }

    /// A connection to the guard.
    pub async fn connect(&self) -> Connection {
        self.endpoint.connect().await.unwrap()
    }

    /// Sends a message and gives back the answer.
    pub async fn say(&self, token: &ToolToken, headers: &[(&str, &str)], message: &Value) -> Response {
        let mut request = self.message(token, message).await;
        for (name, value) in headers {
            request.header(name, value);
        }
        self.send(&request).await
    }

    fn path(&self) -> &'static str {
        "/mcp"
    }
}

impl GuardRequest {
    /// A request without token and proof.
    pub fn bare(method: &str, target: &str, body: &[u8]) -> Self {
        let headers = match body {
            [] => Vec::new(),
            _ => vec![
                ("content-type".into(), "application/json".into()),
                ("accept".into(), "application/json, text/event-stream".into()),
            ],
        };
        Self {
            request: Request { method: method.into(), target: target.into(), headers, body: body.to_vec() },
        }
    }

    /// Adds a header field.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Self {
        self.request.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A call, as the agent says it.
pub fn call(name: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

/// A request without parameters.
pub fn ask(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": {} })
}

/// A prompt, as the agent asks for it.
pub fn prompt(name: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": { "name": name, "arguments": arguments } })
}

/// A resource, as the agent asks for it.
pub fn read(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": { "uri": uri } })
}

/// The messages of an answer, whether it is one or a stream of events.
pub fn messages(response: &Response) -> Vec<Value> {
    if response.header("content-type") != Some("text/event-stream") {
        return vec![response.json()];
    }
    let text = String::from_utf8(response.body.clone()).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn record(url: &str, definitions: &[Value]) -> Value {
    let tools = definitions.iter().map(|definition| {
        json!({
            "tier": "low", "effect": "read", "definition": definition,
            "tool_digest": tool_digest(definition.as_object().unwrap()).unwrap(),
        })
    });
    json!({
        "id": "guarded", "resource": url, "tenant": "dev", "version": "1.0.0", "owner": "owner@corp.example",
        "purpose": "To be guarded", "environment": "staging", "data_class": "internal", "verifier": "guard",
        "tools": tools.collect::<Vec<_>>(),
    })
}
