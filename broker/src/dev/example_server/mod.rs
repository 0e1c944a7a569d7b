//! Three small MCP servers to call: `crm`, which knows customers and payments, `mailer`, and `ops`, which works in AWS.
//!
//! They hold their data in memory and speak MCP over Streamable HTTP; who may call what is no concern of theirs, as long
//! as it is their guard that asks. They count the calls that they see, so that a refusal can be shown to have stopped one.

mod crm;
pub(crate) mod door;
mod mailer;
mod ops;
mod rpc;
mod stream;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use deputize_call::{
    digest,
    json::{JsonError, Object},
    level::Level,
};
use deputize_issuer::registry::{DataClass, Effect, ServerRecord, Tier, ToolRecord, Verifier};
use serde_json::Value;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

use super::aws::call::{Aws, KeySource};
pub(crate) use ops::{Ops, reboot};

/// One MCP server: its record in the registry, and what its tools do.
#[derive(Debug)]
pub(crate) struct ExampleServer {
    record: ServerRecord,
    tools: Box<dyn Tools>,
    /// What it says of its tools now.
    definitions: RwLock<Vec<Object>>,
    /// Counts how often that changed.
    changes: watch::Sender<u64>,
    calls_seen: AtomicU64,
    calls_run: AtomicU64,
}

/// What a server's guard hands it beside a call.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// Where AWS keys for this call are, as long as it runs.
    pub(crate) aws: Option<KeySource>,
}

/// What the tools of a server do.
#[async_trait]
trait Tools: Send + Sync + std::fmt::Debug {
    /// Runs a tool on arguments that satisfy its schema; an error is for the caller to read.
    async fn run(&self, tool: &str, arguments: &Object, handed: &Handed) -> Result<Value, String>;
}

impl ExampleServer {
    /// The server `crm` at this resource URI, to the broker known as this client.
    pub(crate) fn crm(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let record = ServerRecord {
            tools: crm::tools()?,
            ..record("crm", resource, client_id, "Customers and their payments", DataClass::Confidential)
        };
        Ok(Self::new(record, Box::new(crm::Crm::default())))
    }

    /// The server `mailer`.
    pub(crate) fn mailer(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let record = ServerRecord {
            tools: mailer::tools()?,
            ..record("mailer", resource, client_id, "Sends e-mail", DataClass::Internal)
        };
        Ok(Self::new(record, Box::new(mailer::Mailer)))
    }

    /// The server `ops`, and what it does: it works in this AWS.
    pub(crate) fn ops(resource: &str, client_id: &str, aws: Aws) -> Result<(Self, Arc<Ops>), JsonError> {
        let record = ServerRecord {
            tools: ops::tools()?,
            ..record("ops", resource, client_id, "Instances and deployments", DataClass::Internal)
        };
        let ops = Arc::new(Ops::new(aws));
        Ok((Self::new(record, Box::new(Arc::clone(&ops))), ops))
    }

    fn new(record: ServerRecord, tools: Box<dyn Tools>) -> Self {
        let definitions = record.tools.iter().map(|tool| tool.definition.clone()).collect();
        Self {
            record,
            tools,
            definitions: RwLock::new(definitions),
            changes: watch::Sender::new(0),
            calls_seen: AtomicU64::new(0),
            calls_run: AtomicU64::new(0),
        }
    }

    /// What the registry says of it.
    pub(crate) fn record(&self) -> &ServerRecord {
        &self.record
    }

    /// Describes a tool otherwise from now on, and says so to whoever listens.
    pub(crate) fn describe_otherwise(&self, tool: &str, description: &str) {
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let named = |definition: &&mut Object| definition.get("name").and_then(Value::as_str) == Some(tool);
        if let Some(definition) = definitions.iter_mut().find(named) {
            definition.insert("description".to_owned(), description.into());
        }
        drop(definitions);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// How many tool calls came to it, whatever became of them.
    pub(crate) fn calls_seen(&self) -> u64 {
        self.calls_seen.load(Ordering::Relaxed)
    }

    /// How many tool calls it has run.
    pub(crate) fn calls_run(&self) -> u64 {
        self.calls_run.load(Ordering::Relaxed)
    }

    async fn run(&self, tool: &str, arguments: &Object, handed: &Handed) -> Result<Value, String> {
        self.calls_run.fetch_add(1, Ordering::Relaxed);
        self.tools.run(tool, arguments, handed).await
    }
}

fn record(id: &str, resource: &str, client_id: &str, purpose: &str, data_class: DataClass) -> ServerRecord {
    ServerRecord {
        id: id.to_owned(),
        resource: resource.to_owned(),
        tenant: TENANT.to_owned(),
        version: "1.0.0".to_owned(),
        owner: "platform@corp.example".to_owned(),
        purpose: purpose.to_owned(),
        source_repository: None,
        packages: Vec::new(),
        publisher: None,
        environment: "staging".to_owned(),
        data_class,
        region: None,
        verifier: Verifier::Guard,
        client_id: Some(client_id.to_owned()),
        credentials: Vec::new(),
        approved: true,
        enabled: true,
        last_review: None,
        manifest_digest: None,
        tools: Vec::new(),
        resources: Vec::new(),
        prompts: Vec::new(),
    }
}

/// The record of a tool with this definition.
fn tool(
    definition: Value,
    tier: Tier,
    effect: Effect,
    example_arguments: Value,
) -> Result<ToolRecord, JsonError> {
    let definition = object(definition)?;
    Ok(ToolRecord {
        tier,
        level: None,
        effect,
        data_class: None,
        lifetime_seconds: None,
        max_uses: None,
        acr_values: Vec::new(),
        max_age_seconds: None,
        downstream: Vec::new(),
        enabled: true,
        tool_digest: digest::tool_digest(&definition)?,
        definition,
        example_arguments: Some(object(example_arguments)?),
    })
}

/// The same tool, for one exact call at a time.
fn exact(tool: ToolRecord) -> ToolRecord {
    ToolRecord { level: Some(Level::L3), ..tool }
}

fn object(value: Value) -> Result<Object, JsonError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAnObject),
    }
}

/// The one tenant of a development environment.
pub(crate) const TENANT: &str = "dev";
