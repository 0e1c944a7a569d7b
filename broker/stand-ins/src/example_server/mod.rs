//! Three small MCP servers to call: `crm`, which knows customers and payments, `mailer`, and `ops`, which works in AWS.
//!
//! They hold their data in memory and speak MCP over Streamable HTTP; who may call what is no concern of theirs, as long
//! as it is their guard that asks. They count the calls that they see, so that a refusal can be shown to have stopped one.

mod crm;
pub mod door;
mod mailer;
mod ops;
mod rpc;
mod stream;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use deputize_call::{
    digest::{self, Digest},
    json::{JsonError, Object},
};
use serde_json::{Value, json};
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::watch;

use crate::aws::call::{Aws, KeySource};
pub use ops::{Ops, reboot};

/// One MCP server: its record in the registry, and what its tools do.
#[derive(Debug)]
pub struct ExampleServer {
    id: &'static str,
    record: Value,
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
pub struct Handed {
    /// Where AWS keys for this call are, as long as it runs.
    pub aws: Option<KeySource>,
}

/// What the tools of a server do.
#[async_trait]
trait Tools: Send + Sync + std::fmt::Debug {
    /// Runs a tool on arguments that satisfy its schema; an error is for the caller to read.
    async fn run(&self, tool: &str, arguments: &Object, handed: &Handed) -> Result<Value, String>;
}

impl ExampleServer {
    /// The server `crm` at this resource URI, to the broker known as this client.
    ///
    /// # Errors
    /// If a tool's definition is none.
    pub fn crm(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let about = About { id: "crm", purpose: "Customers and their payments", data_class: "confidential" };
        Ok(Self::new(&about, (resource, client_id), crm::tools()?, Box::new(crm::Crm::default())))
    }

    /// The server `mailer`.
    ///
    /// # Errors
    /// If a tool's definition is none.
    pub fn mailer(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let about = About { id: "mailer", purpose: "Sends e-mail", data_class: "internal" };
        Ok(Self::new(&about, (resource, client_id), mailer::tools()?, Box::new(mailer::Mailer)))
    }

    /// The server `ops`, and what it does: it works in this AWS.
    ///
    /// # Errors
    /// If a tool's definition is none.
    pub fn ops(resource: &str, client_id: &str, aws: Aws) -> Result<(Self, Arc<Ops>), JsonError> {
        let about = About { id: "ops", purpose: "Instances and deployments", data_class: "internal" };
        let ops = Arc::new(Ops::new(aws));
        let server = Self::new(&about, (resource, client_id), ops::tools()?, Box::new(Arc::clone(&ops)));
        Ok((server, ops))
    }

    fn new(about: &About, known_as: (&str, &str), tools: Vec<Tool>, work: Box<dyn Tools>) -> Self {
        let record = about.record(known_as, &tools);
        let definitions = tools.into_iter().map(|tool| tool.definition).collect();
        Self {
            id: about.id,
            record,
            tools: work,
            definitions: RwLock::new(definitions),
            changes: watch::Sender::new(0),
            calls_seen: AtomicU64::new(0),
            calls_run: AtomicU64::new(0),
        }
    }

    /// What the registry is told of it: a record in the form of the registry's files.
    pub fn record(&self) -> &Value {
        &self.record
    }

    /// Describes a tool otherwise from now on, and says so to whoever listens.
    pub fn describe_otherwise(&self, tool: &str, description: &str) {
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        let named = |definition: &&mut Object| definition.get("name").and_then(Value::as_str) == Some(tool);
        if let Some(definition) = definitions.iter_mut().find(named) {
            definition.insert("description".to_owned(), description.into());
        }
        drop(definitions);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// How many tool calls came to it, whatever became of them.
    pub fn calls_seen(&self) -> u64 {
        self.calls_seen.load(Ordering::Relaxed)
    }

    /// How many tool calls it has run.
    pub fn calls_run(&self) -> u64 {
        self.calls_run.load(Ordering::Relaxed)
    }

    async fn run(&self, tool: &str, arguments: &Object, handed: &Handed) -> Result<Value, String> {
        self.calls_run.fetch_add(1, Ordering::Relaxed);
        self.tools.run(tool, arguments, handed).await
    }
}

/// What is said of a server beside its tools.
struct About {
    id: &'static str,
    purpose: &'static str,
    data_class: &'static str,
}

impl About {
    /// Everything that has a good default is left out, as an operator would.
    fn record(&self, (resource, client_id): (&str, &str), tools: &[Tool]) -> Value {
        json!({
            "id": self.id,
            "resource": resource,
            "tenant": TENANT,
            "version": VERSION,
            "owner": "platform@corp.example",
            "purpose": self.purpose,
            "environment": "staging",
            "data_class": self.data_class,
            "verifier": "guard",
            "client_id": client_id,
            "tools": tools.iter().map(Tool::record).collect::<Vec<_>>(),
        })
    }
}

/// A tool, and what is said of it in the registry.
#[derive(Debug)]
struct Tool {
    definition: Object,
    digest: Digest,
    /// How risky it is.
    tier: &'static str,
    /// Whether it reads or writes.
    effect: &'static str,
    /// The least binding level, where it is more than the tier demands.
    level: Option<&'static str>,
    example_arguments: Value,
}

impl Tool {
    fn new(
        definition: Value,
        (tier, effect): (&'static str, &'static str),
        example_arguments: Value,
    ) -> Result<Self, JsonError> {
        let definition = object(definition)?;
        let digest = digest::tool_digest(&definition)?;
        Ok(Self { definition, digest, tier, effect, level: None, example_arguments })
    }

    /// The same tool, for one exact call at a time.
    fn exact(self) -> Self {
        Self { level: Some("L3"), ..self }
    }

    fn record(&self) -> Value {
        json!({
            "tier": self.tier,
            "level": self.level,
            "effect": self.effect,
            "tool_digest": self.digest,
            "definition": self.definition,
            "example_arguments": self.example_arguments,
        })
    }
}

fn object(value: Value) -> Result<Object, JsonError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAnObject),
    }
}

/// The one tenant of a development environment.
pub const TENANT: &str = "dev";
/// The version of every one of them.
const VERSION: &str = "1.0.0";
