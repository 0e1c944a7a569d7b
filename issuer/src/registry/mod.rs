//! The registry: which servers and tools exist, in the form in which they were approved (S-13, S-14). A tool
//! that is not here cannot get a token (S-16).

pub mod approval;
mod build;
pub mod diff;
pub mod propose;
pub mod publisher;
mod record;
mod resource;
pub mod review;
pub mod scan;
#[cfg(test)]
mod tests;

pub use record::{
    DataClass, Downstream, Effect, Package, Publisher, ServerRecord, Tier, ToolRecord, Verifier,
};
pub use resource::{check_resource, is_cloud_audience};

use deputize_call::{digest::Digest, level::Level, schema::PinnedSchema};
use std::{collections::BTreeMap, sync::Arc};

use approval::Seal;

/// Every approved server, by resource URI. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct Registry {
    servers: BTreeMap<String, Arc<Server>>,
    /// Records that nobody has approved: shown to operators, and to nobody else.
    proposed: Vec<ServerRecord>,
    seals: Vec<Seal>,
    digest: Digest,
}

/// One approved server.
#[derive(Debug)]
pub struct Server {
    /// What its file says.
    pub record: ServerRecord,
    /// Digest of its approved manifest.
    pub manifest_digest: Digest,
    tools: BTreeMap<String, Arc<Tool>>,
}

/// One approved tool of a server.
#[derive(Debug)]
pub struct Tool {
    /// Name in `tools/call`.
    pub name: String,
    /// What its record says.
    pub record: ToolRecord,
    /// Digest of its approved definition.
    pub tool_digest: Digest,
    /// The least level of its tokens: the record's, never below the tier's.
    pub least_level: Level,
    /// Its compiled input schema.
    pub schema: PinnedSchema,
}

/// What is wrong with a registry file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("server {server:?}{}: {problem}", tool.as_ref().map(|tool| format!(", tool {tool:?}")).unwrap_or_default())]
pub struct RegistryError {
    /// Id of the server.
    pub server: String,
    /// Name of the tool, where one is concerned.
    pub tool: Option<String>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Registry {
    /// Checks and pins all approved records; every problem found is reported, not only the first. Records that are
    /// only proposed are kept apart, whatever is wrong with them: they stop nothing and allow nothing.
    pub fn build(records: Vec<ServerRecord>) -> Result<Self, Vec<RegistryError>> {
        build::build(records)
    }
    /// With the approvals that were verified for its records.
    #[must_use]
    pub fn sealed(mut self, seals: Vec<Seal>) -> Self {
        self.seals = seals;
        self
    }
    /// Who approved which version; empty where approvals need no signature.
    pub fn seals(&self) -> &[Seal] {
        &self.seals
    }
    /// Records that nobody has approved yet.
    pub fn proposed(&self) -> &[ServerRecord] {
        &self.proposed
    }
    /// The server with this resource URI, compared exactly.
    pub fn server(&self, resource: &str) -> Option<&Arc<Server>> {
        self.servers.get(resource)
    }
    /// All servers, by resource URI.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }
    /// Digest over all manifests and records: recorded with every change.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Server {
    /// The approved tool of this name.
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }
    /// All approved tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }
}
