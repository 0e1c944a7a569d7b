//! A guard before a payment server, a broker's key, an agent's key, and fakes of the outside.

use crate::*;
use async_trait::async_trait;
use deputize_call::{
    action::Action,
    claims::*,
    constraints::Constraints,
    digest::{CallInput, Digest, call_digest, prompt_digest, sha256, tool_digest},
    dpop::{self, NewProof},
    json::Object,
    keys::KeySet,
    level::Level,
    offers::Offers,
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) const ISSUER: &str = "https://deputize.example.com";
pub(crate) const RESOURCE: &str = "https://pay.example.com/mcp";
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) struct Fixture {
    pub(crate) guard: Guard,
    pub(crate) broker: SigningKey,
    pub(crate) agent: SigningKey,
    pub(crate) outside: Arc<Outside>,
    pub(crate) uptime: Duration,
    pub(crate) now: u64,
}

/// Redeems in memory; says what it is told about the server.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) redeemed: Mutex<BTreeSet<String>>,
    pub(crate) redemption: Mutex<Option<Redeemed>>,
    pub(crate) admission: Mutex<Option<Admission>>,
}

#[async_trait]
impl Redeemer for Outside {
    async fn redeem(&self, token: &str) -> Redeemed {
        if let Some(answer) = *self.redemption.lock().unwrap() {
            return answer;
        }
        if self.redeemed.lock().unwrap().insert(token.to_owned()) {
            Redeemed::Yes
        } else {
            Redeemed::AlreadyUsed
        }
    }
}

#[async_trait]
impl Upstream for Outside {
    async fn admit(&self, _: &ToolCallClaims) -> Admission {
        self.admission.lock().unwrap().unwrap_or(Admission::Ready)
    }
}

/// One request in the making; every part can be changed before it is sent.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) certificate: Option<String>,
    /// Whose X.509-SVID the certificate was found to be, or why it is none.
    pub(crate) workload: Option<Result<String, &'static str>>,
    /// Whoever terminates TLS could not look at it.
    pub(crate) is_undecided: bool,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut GuardConfig)) -> Self {
        let mut config = GuardConfig::new(
            ISSUER,
            RESOURCE,
            RESOURCE,
            "https://pay.example.com/.well-known/oauth-protected-resource/mcp",
        );
        change(&mut config);
        let outside = Arc::new(Outside::default());
        let guard = Guard::new(config, outside.clone(), outside.clone(), NOW - 1000).unwrap();
        let broker = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let agent = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let fixture = Self { guard, broker, agent, outside, uptime: Duration::from_secs(1000), now: NOW };
        fixture.guard.install(fixture.snapshot(|_| {}), fixture.uptime).unwrap();
        fixture.observe(&definitions());
        fixture.observe_prompts(&prompts());
        fixture
    }

    pub(crate) fn observe(&self, definitions: &[Value]) -> ObservedTools {
        let definitions: Vec<Object> =
            definitions.iter().map(|each| each.as_object().unwrap().clone()).collect();
        self.guard.observe_tools(&definitions)
    }

    pub(crate) fn observe_prompts(&self, definitions: &[Value]) -> ObservedTools {
        let definitions: Vec<Object> =
            definitions.iter().map(|each| each.as_object().unwrap().clone()).collect();
        self.guard.observe_prompts(&definitions)
    }

    pub(crate) fn document(&self) -> SnapshotDocument {
        let tools = definitions().into_iter().zip([Level::L1, Level::L2, Level::L3]).map(
            |(definition, least_level)| {
                let definition = definition.as_object().unwrap().clone();
                ToolDocument {
                    tool_digest: tool_digest(&definition).unwrap(),
                    definition,
                    least_level,
                    tier: "low".into(),
                }
            },
        );
        SnapshotDocument {
            version: 1,
            issued_at: NOW - 10,
            expires_at: NOW + 1800,
            issuer: ISSUER.into(),
            server_id: "pay".into(),
            resource: RESOURCE.into(),
            tenant: "acme".into(),
            manifest_digest: Digest::from_bytes(sha256(b"manifest")),
            jwks: KeySet::new(vec![self.broker.public().clone()]).to_jwks(),
            tools: tools.collect(),
            prompts: prompts()
                .into_iter()
                .zip([Level::L1, Level::L2])
                .map(|(definition, least_level)| {
                    let definition = definition.as_object().unwrap().clone();
                    let prompt_digest = prompt_digest(&definition).unwrap();
                    PromptDocument { definition, prompt_digest, least_level, tier: "low".into() }
                })
                .collect(),
            resources: resources(),
            revocations: Vec::new(),
        }
    }

    pub(crate) fn snapshot(&self, change: impl FnOnce(&mut SnapshotDocument)) -> Snapshot {
        let mut document = self.document();
        change(&mut document);
        Snapshot::from_document(document, self.now).unwrap()
    }

    pub(crate) fn claims(&self, detail: Value) -> ToolCallClaims {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        serde_json::from_value(json!({
            "iss": ISSUER, "sub": "user:acme:x:alice", "tenant": "acme", "aud": RESOURCE, "client_id": "platform",
            "iat": self.now, "nbf": self.now, "exp": self.now + 60, "jti": format!("token-{serial}"),
            "scope": "tool", "cnf": { "jkt": self.agent.public().thumbprint() },
            "act": { "sub": "agent:support", "act": { "sub": "agent:planner" } }, "txn": format!("txn-{serial}"),
            "pjti": format!("parent-{serial}"),
            "authorization_details": [detail], "log": { "origin": "replica-1", "index": serial }
        }))
        .unwrap()
    }

    pub(crate) fn sign(&self, claims: &ToolCallClaims) -> String {
        self.broker.sign(TYP, claims).unwrap()
    }

    pub(crate) fn proof(&self, token: &str, change: impl FnOnce(&mut NewProof<'_>)) -> String {
        self.proof_by(&self.agent, token, change)
    }

    pub(crate) fn proof_by(
        &self,
        key: &SigningKey,
        token: &str,
        change: impl FnOnce(&mut NewProof<'_>),
    ) -> String {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let jti = format!("proof-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let nonce = self.nonce();
        let mut proof = NewProof {
            htm: "POST",
            htu: RESOURCE,
            jti: &jti,
            iat: self.now,
            nonce: Some(&nonce),
            access_token: Some(token),
        };
        change(&mut proof);
        dpop::prove(key, &proof).unwrap()
    }

    /// A proof that is right in all but its nonce.
    pub(crate) fn proof_with_nonce(&self, token: &str, nonce: Option<&str>, jti: &str) -> String {
        let access_token = Some(token);
        let proof = NewProof { htm: "POST", htu: RESOURCE, jti, iat: self.now, nonce, access_token };
        dpop::prove(&self.agent, &proof).unwrap()
    }

    /// A nonce as an agent gets it: from the answer to a request without a token.
    pub(crate) fn nonce(&self) -> String {
        let request = Request::bare(json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }));
        self.send(&request).unwrap_err().dpop_nonce.unwrap()
    }

    /// The request of an honest agent.
    pub(crate) fn request(&self, token: &str, body: Value) -> Request {
        let mut request = Request::bare(body);
        request.header("Authorization", &format!("DPoP {token}"));
        request.header("DPoP", &self.proof(token, |_| {}));
        request
    }

    pub(crate) fn send(&self, request: &Request) -> Result<Verified, Box<Refusal>> {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let call = IncomingCall {
            method: &request.method,
            headers: &headers,
            body: &request.body,
            client_certificate: request.certificate.as_deref(),
            caller: match &request.workload {
                _ if request.is_undecided => Caller::undecided(),
                None => Caller::default(),
                Some(Ok(id)) => Caller::workload(id),
                Some(Err(why)) => Caller::no_workload(why),
            },
            uptime: self.uptime,
            now_seconds: self.now,
        };
        block_on(self.guard.verify(&call)).map_err(Box::new)
    }

    /// Sends `body` with a fresh token of this grant.
    pub(crate) fn with_grant(&self, detail: Value, body: Value) -> Result<Verified, Box<Refusal>> {
        let token = self.sign(&self.claims(detail));
        self.send(&self.request(&token, body))
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.uptime += time;
        self.now += time.as_secs();
    }
}

impl Request {
    pub(crate) fn bare(body: Value) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self {
            method: "POST".into(),
            headers,
            body: body.to_string().into_bytes(),
            certificate: None,
            workload: None,
            is_undecided: false,
        }
    }

    pub(crate) fn header(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn replace(&mut self, name: &str, value: &str) {
        self.headers.retain(|(present, _)| present != name);
        self.header(name, value);
    }
}

/// `lookup` (L1), `transfer` (L2), `refund` (L3).
pub(crate) fn definitions() -> Vec<Value> {
    let properties = json!({
        "payment_id": { "type": "string", "x-mcp-header": "Payment" },
        "amount_cents": { "type": "number" }, "note": { "type": "string" },
        "lines": { "type": "array", "items": { "type": "object", "properties": { "sku": {}, "n": {} } } },
    });
    ["lookup", "transfer", "refund"]
        .map(|name| {
            json!({ "name": name, "description": name,
                "inputSchema": { "type": "object", "properties": properties } })
        })
        .to_vec()
}

/// `greet` (L1), and `lookup` (L2), which has the name of a tool.
pub(crate) fn prompts() -> Vec<Value> {
    vec![
        json!({ "name": "greet", "description": "Greets." }),
        json!({ "name": "lookup", "description": "Looks up.", "arguments": [{ "name": "city", "required": true }] }),
    ]
}

/// All below `demo://docs/` (L1) but for `secret` (L3), and for `old/`, which is switched off.
pub(crate) fn resources() -> Vec<ResourceDocument> {
    let entry = |uri: &str, least_level, enabled| ResourceDocument {
        shown: json!({ "uri": uri, "name": "Docs" }).as_object().unwrap().clone(),
        least_level,
        tier: "low".into(),
        enabled,
    };
    vec![
        entry("demo://docs/*", Level::L1, true),
        entry("demo://docs/secret", Level::L3, true),
        entry("demo://docs/old/*", Level::L1, false),
    ]
}

/// What is offered, and of it what is to be shown.
pub(crate) fn shown(is_shown: impl FnMut(Action, &str) -> bool) -> Value {
    let name = |definition: Value| definition["name"].as_str().unwrap().to_owned();
    let tools: Vec<String> = definitions().into_iter().map(name).collect();
    let prompts: Vec<String> = prompts().into_iter().map(name).collect();
    let entries: Vec<String> = resources()
        .into_iter()
        .filter(|entry| entry.enabled)
        .map(|entry| entry.shown["uri"].as_str().unwrap().to_owned())
        .collect();
    let kinds = [(Action::CallTool, &tools), (Action::GetPrompt, &prompts), (Action::ReadResource, &entries)];
    let all =
        kinds.into_iter().flat_map(|(action, names)| names.iter().map(move |name| (action, name.as_str())));
    json!(Offers::new(all).unwrap().show(is_shown))
}

pub(crate) fn digest_of(name: &str) -> Digest {
    let definition = definitions().into_iter().find(|definition| definition["name"] == name).unwrap();
    tool_digest(definition.as_object().unwrap()).unwrap()
}

pub(crate) fn call(name: &str, arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": name, "arguments": arguments } })
}

pub(crate) fn list() -> Value {
    json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/list" })
}

pub(crate) fn l0() -> Value {
    let mut detail = plain();
    detail["shown"] = shown(|_, _| true);
    detail
}

/// An L0 grant that says nothing of lists.
pub(crate) fn plain() -> Value {
    json!({ "type": DETAIL_TYPE, "locations": [RESOURCE], "actions": ["tools/list"],
        "manifest_digest": Digest::from_bytes(sha256(b"manifest")), "policy": { "digest": "p", "ids": [] } })
}

pub(crate) fn l1(name: &str) -> Value {
    let mut detail = l1_of(Action::CallTool, name);
    detail["tool_digest"] = json!(digest_of(name));
    detail
}

/// An L1 grant of a prompt or resource; a prompt is pinned.
pub(crate) fn l1_of(action: Action, name: &str) -> Value {
    let mut detail = plain();
    detail["actions"] = json!([action]);
    detail["identifier"] = json!(name);
    if action == Action::GetPrompt {
        let definition = prompts().into_iter().find(|definition| definition["name"] == name).unwrap();
        detail["prompt_digest"] = json!(prompt_digest(definition.as_object().unwrap()).unwrap());
    }
    detail
}

/// An L3 grant of one use of a prompt or resource.
pub(crate) fn l3_of(action: Action, name: &str, arguments: &Value) -> Value {
    let input = CallInput {
        method: action.as_str(),
        name,
        arguments: arguments.as_object().unwrap(),
        input_responses: None,
        request_state: None,
    };
    let mut detail = l1_of(action, name);
    detail["call_digest"] = json!(call_digest(&input).unwrap());
    detail["max_uses"] = json!(1);
    detail
}

pub(crate) fn l2(name: &str, constraints: Value, max_uses: u32) -> Value {
    let mut detail = l1(name);
    detail["constraints"] = json!(serde_json::from_value::<Constraints>(constraints).unwrap());
    detail["max_uses"] = json!(max_uses);
    detail
}

pub(crate) fn l3(name: &str, arguments: &Value) -> Value {
    let input = CallInput {
        method: "tools/call",
        name,
        arguments: arguments.as_object().unwrap(),
        input_responses: None,
        request_state: None,
    };
    let mut detail = l1(name);
    detail["call_digest"] = json!(call_digest(&input).unwrap());
    detail["max_uses"] = json!(1);
    detail
}

pub(crate) fn block_on<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
