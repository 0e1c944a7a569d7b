//! The registry: which servers and tools exist, in the form in which they were approved (S-13, S-14). A tool
//! that is not here cannot get a token (S-16).

pub mod approval;
mod build;
pub mod diff;
mod material;
mod pin;
pub mod propose;
pub mod publisher;
mod record;
mod resource;
pub mod review;
pub mod scan;
#[cfg(test)]
mod tests;

pub use material::{PromptRecord, ResourceRecord};
pub use record::{
    DataClass, Downstream, Effect, Package, Publisher, ServerRecord, Tier, ToolRecord, Verifier,
};
pub(crate) use resource::audience_key;
pub use resource::{check_resource, is_cloud_audience};

use deputize_call::{
    action::Action, digest::Digest, level::Level, offers::Offers, resource::find, schema::PinnedSchema,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use approval::Seal;

/// Every approved server, by resource URI. Immutable: a reload makes a new one.
#[derive(Debug)]
pub struct Registry {
    servers: BTreeMap<String, Arc<Server>>,
    /// Their resource URIs, however they are spelled.
    addressed: HashSet<String>,
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
    prompts: BTreeMap<String, Arc<Tool>>,
    /// By their entries.
    resources: BTreeMap<String, Arc<Tool>>,
    offers: Offers,
}

/// One approved tool of a server; or a prompt or a resource, which are granted as tools are.
#[derive(Debug, Clone)]
pub struct Tool {
    /// What is done with it.
    pub action: Action,
    /// Name in `tools/call` or `prompts/get`; of a resource, its URI.
    pub name: String,
    /// What the registry calls it: its name, or the entry (`…/*`) that names this resource.
    pub entry: String,
    /// The wider entries of resources (`…/*`) that its entry lies below: what a policy says of them, it says of this.
    pub within: Vec<String>,
    /// What its record says; of a prompt or resource, its controls in a tool's words.
    pub record: ToolRecord,
    /// Digest of its approved definition.
    pub tool_digest: Digest,
    /// The least level of its tokens: the record's, never below the tier's.
    pub least_level: Level,
    /// Its compiled input schema; a prompt's is made of its list of arguments, a resource takes none.
    pub schema: Arc<PinnedSchema>,
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
    /// Whether tokens of this audience are for one of its servers, however it is spelled.
    pub fn is_addressed(&self, audience: &str) -> bool {
        self.addressed.contains(&audience_key(audience))
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
    /// The approved prompt of this name.
    pub fn prompt(&self, name: &str) -> Option<&Arc<Tool>> {
        self.prompts.get(name)
    }
    /// All approved prompts, by name.
    pub fn prompts(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.prompts.values()
    }
    /// The resource with this URI, if an approved entry names it: the most exact one decides, enabled or not.
    pub fn resource(&self, uri: &str) -> Option<Arc<Tool>> {
        let (_, found) = find(&self.resources, uri)?;
        if found.name == uri {
            return Some(Arc::clone(found));
        }
        Some(Arc::new(Tool { name: uri.to_owned(), ..Tool::clone(found) }))
    }
    /// All approved entries of resources.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.resources.values()
    }
    /// What this action acts on, if it is approved.
    pub fn offer(&self, action: Action, name: &str) -> Option<Arc<Tool>> {
        match action {
            Action::CallTool => self.tool(name).cloned(),
            Action::GetPrompt => self.prompt(name).cloned(),
            Action::ReadResource => self.resource(name),
        }
    }
    /// Everything that is approved: tools, prompts, entries of resources.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools().chain(self.prompts()).chain(self.resources())
    }
    /// What of it can be asked for now, counted.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }
    /// Whether this definition of a tool or prompt of this name is the approved one.
    pub fn approves(&self, action: Action, name: &str, digest: Digest) -> bool {
        self.offer(action, name).is_some_and(|offer| offer.tool_digest == digest)
    }
}

impl Tool {
    /// The input schema; of a prompt, what its list of arguments says.
    pub fn input_schema(&self) -> Option<serde_json::Value> {
        match self.action {
            Action::CallTool => self.record.definition.get("inputSchema").cloned(),
            Action::GetPrompt => deputize_call::prompt::arguments_schema(&self.record.definition).ok(),
            Action::ReadResource => None,
        }
    }
    /// The scope of its tokens.
    pub fn scope(&self) -> String {
        self.action.scope(&self.name)
    }
}
