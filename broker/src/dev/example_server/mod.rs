//! Two small MCP servers to call: `crm`, which knows customers and payments, and `mailer`.
//!
//! They hold their data in memory and answer JSON-RPC; who may call what is no concern of theirs. They count the
//! calls that ran, so that a refusal can be shown to have stopped one.

mod crm;
pub(crate) mod door;
mod mailer;
mod rpc;
#[cfg(test)]
mod tests;

use deputize_call::{
    digest,
    json::{JsonError, Object},
};
use deputize_issuer::registry::{DataClass, Effect, ServerRecord, Tier, ToolRecord, Verifier};
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};

/// One MCP server: its record in the registry, and what its tools do.
#[derive(Debug)]
pub(crate) struct ExampleServer {
    record: ServerRecord,
    tools: Box<dyn Tools>,
    calls_run: AtomicU64,
}

/// What the tools of a server do.
trait Tools: Send + Sync + std::fmt::Debug {
    /// Runs a tool on arguments that satisfy its schema; an error is for the caller to read.
    fn run(&self, tool: &str, arguments: &Object) -> Result<Value, String>;
}

impl ExampleServer {
    /// The server `crm` at this resource URI, to the broker known as this client.
    pub(crate) fn crm(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let record = ServerRecord {
            tools: crm::tools()?,
            ..record("crm", resource, client_id, "Customers and their payments", DataClass::Confidential)
        };
        Ok(Self { record, tools: Box::new(crm::Crm::default()), calls_run: AtomicU64::new(0) })
    }

    /// The server `mailer`.
    pub(crate) fn mailer(resource: &str, client_id: &str) -> Result<Self, JsonError> {
        let record = ServerRecord {
            tools: mailer::tools()?,
            ..record("mailer", resource, client_id, "Sends e-mail", DataClass::Internal)
        };
        Ok(Self { record, tools: Box::new(mailer::Mailer), calls_run: AtomicU64::new(0) })
    }

    /// What the registry says of it.
    pub(crate) fn record(&self) -> &ServerRecord {
        &self.record
    }

    /// How many tool calls it has run.
    pub(crate) fn calls_run(&self) -> u64 {
        self.calls_run.load(Ordering::Relaxed)
    }

    fn run(&self, tool: &str, arguments: &Object) -> Result<Value, String> {
        self.calls_run.fetch_add(1, Ordering::Relaxed);
        self.tools.run(tool, arguments)
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

fn object(value: Value) -> Result<Object, JsonError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JsonError::NotAnObject),
    }
}

/// The one tenant of a development environment.
pub(crate) const TENANT: &str = "dev";
