//! A small world: one tenant, one person, one server with its tools.

use crate::{
    person::Person,
    policy::{ApprovalFacts, Binding, Claimed, Facts, PolicyEngine, PolicyFile},
    registry::{DataClass, Registry, Server, Tool},
};
use deputize_call::{
    constraints::Constraints,
    digest::{prompt_digest, tool_digest},
    json::Object,
    level::Level,
};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) struct World {
    pub(super) tenant: String,
    pub(super) person: Person,
    pub(super) actor_chain: Vec<String>,
    pub(super) server: Arc<Server>,
    pub(super) tool: Arc<Tool>,
    pub(super) arguments: Option<Object>,
    pub(super) call_digest_only: bool,
    pub(super) constraints: Option<Constraints>,
    pub(super) risk_score: u8,
    pub(super) approval: Option<ApprovalFacts>,
    pub(super) data_classes_read: Vec<DataClass>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_server(|_| ())
    }

    pub(super) fn with_server(change: impl FnOnce(&mut Value)) -> Self {
        let mut server = server("crm");
        change(&mut server);
        let registry = Registry::build(vec![serde_json::from_value(server).unwrap()]).unwrap();
        let server = Arc::clone(registry.servers().next().unwrap());
        Self {
            tenant: "acme".into(),
            person: person("user:acme:alice", &["crew"], &["support"]),
            actor_chain: Vec::new(),
            tool: Arc::clone(server.tool("refund_payment").unwrap()),
            server,
            arguments: None,
            call_digest_only: false,
            constraints: None,
            risk_score: 20,
            approval: None,
            data_classes_read: Vec::new(),
        }
    }

    /// Alice's agent asks for one refund, at 2026-11-21T11:26:40Z.
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            tenant: &self.tenant,
            person: Some(&self.person),
            client_id: "platform",
            actor: "spiffe://corp.example/agent/support-bot",
            actor_chain: &self.actor_chain,
            server: &self.server,
            tool: Some(&self.tool),
            action: "tools/call",
            level: Level::L3,
            binding: Binding::Dpop,
            bearer_client: None,
            arguments: self.arguments.as_ref(),
            call_digest_only: self.call_digest_only,
            constraints: self.constraints.as_ref(),
            claimed: Claimed {
                host: Some("desk"),
                model: Some("m-1"),
                workflow: None,
                parent_request_id: Some("req-1"),
            },
            risk_score: self.risk_score,
            approval: self.approval.as_ref(),
            data_classes_read: &self.data_classes_read,
            now: 1_795_260_400,
        }
    }
}

pub(super) fn person(sub: &str, groups: &[&str], roles: &[&str]) -> Person {
    Person {
        tenant: "acme".into(),
        issuer: "https://idp.example.com".into(),
        sub: sub.into(),
        groups: groups.iter().map(|group| format!("https://idp.example.com|{group}")).collect(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        claims: [].into(),
        acr: None,
        amr: Vec::new(),
        auth_time: None,
    }
}

/// A server's record with tools of several tiers.
pub(super) fn server(id: &str) -> Value {
    json!({
        "id": id, "resource": format!("https://{id}.example.com/mcp"), "tenant": "acme", "version": "1",
        "owner": "crm-team", "purpose": "p", "environment": "production", "data_class": "internal",
        "region": "eu-central-1", "verifier": "guard",
        "tools": [
            tool("refund_payment", "high", "write", Some("confidential")),
            tool("read_contact", "low", "read", None),
        ],
        "prompts": [prompt("greet")],
        "resources": [
            { "uri": "demo://docs/*", "tier": "low" }, { "uri": "demo://b", "tier": "high" },
            { "uri": "demo://docs/old/*", "tier": "low" }, { "uri": "demo://docs/old/c", "tier": "high" },
        ],
    })
}

fn tool(name: &str, tier: &str, effect: &str, data_class: Option<&str>) -> Value {
    let definition = json!({ "name": name, "description": "d", "inputSchema": { "type": "object" } });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "effect": effect, "data_class": data_class, "tool_digest": digest,
        "definition": definition })
}

fn prompt(name: &str) -> Value {
    let definition = json!({ "name": name, "arguments": [{ "name": "city" }] });
    let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": "medium", "prompt_digest": digest, "definition": definition })
}

pub(super) fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

/// An engine with one file of policies.
pub(super) fn engine(text: &str) -> PolicyEngine {
    let file = PolicyFile { name: "test.cedar".into(), text: text.into() };
    PolicyEngine::load(&[file]).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}
