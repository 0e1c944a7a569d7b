//! What a registry file says of a server and its tools. One file a server, YAML or JSON.

use deputize_call::{
    digest::{Digest, Manifest, manifest_digest},
    json::{JsonError, Object},
    level::Level,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PromptRecord, ResourceRecord};

/// One MCP server (S-13, S-14).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerRecord {
    /// Short canonical id, unique in the registry: lower-case letters, digits, `-`.
    pub id: String,
    /// The server's resource URI (RFC 8707): what tokens for it have as `aud`.
    pub resource: String,
    /// Tenant whose clients may ask for it.
    pub tenant: String,
    /// Version of the server that was reviewed.
    pub version: String,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub purpose: String,
    /// Where its source is.
    #[serde(default)]
    pub source_repository: Option<String>,
    /// The packages in which it is distributed, each pinned (S-58).
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Whose signature over the manifest was verified when it was imported (S-17).
    #[serde(default)]
    pub publisher: Option<Publisher>,
    /// `production`, `staging`, `development`, …
    pub environment: String,
    /// Sensitivity of what it handles: `public`, `internal`, `confidential`, `restricted`.
    pub data_class: DataClass,
    /// Region where it runs and stores.
    #[serde(default)]
    pub region: Option<String>,
    /// What stands in front of it and verifies.
    pub verifier: Verifier,
    /// The OAuth client as which the server (its guard) authenticates to the broker.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Names of credentials that the server holds or is given.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// `false` for a server that is only proposed: until somebody has approved it, it gets no tokens (S-16).
    #[serde(default = "yes")]
    pub approved: bool,
    /// A disabled server gets no tokens.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Day of the last review, `YYYY-MM-DD`.
    #[serde(default)]
    pub last_review: Option<String>,
    /// Digest of the whole manifest as approved; checked against the tools below.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub manifest_digest: Option<Digest>,
    /// Its approved tools.
    pub tools: Vec<ToolRecord>,
    /// Its approved resources.
    // Left out where there are none, as in what was signed before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceRecord>,
    /// Its approved prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptRecord>,
}

/// One approved tool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolRecord {
    /// Risk tier.
    pub tier: Tier,
    /// The least binding level; by default what the tier demands. Never below it.
    #[serde(default)]
    #[schemars(with = "Option<LevelName>")]
    pub level: Option<Level>,
    /// What it does to the world.
    pub effect: Effect,
    /// Sensitivity of this tool's results, where it differs from the server's.
    #[serde(default)]
    pub data_class: Option<DataClass>,
    /// How long its tokens live, 30–120 s.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// How many calls an L1 or L2 token is good for; L2 without it gets the default of 10.
    #[serde(default)]
    pub max_uses: Option<u32>,
    /// `acr` values that satisfy this tool; empty means any.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// How old the user's authentication may be, in seconds.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// What this tool may call in turn.
    #[serde(default)]
    pub downstream: Vec<Downstream>,
    /// A disabled tool gets no tokens.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Digest of `definition` as approved: a changed definition without a changed digest is refused at load.
    #[schemars(with = "String")]
    pub tool_digest: Digest,
    /// The definition as the server's `tools/list` gives it: `name`, `description`, `inputSchema`, …
    pub definition: Object,
    /// Arguments that satisfy the schema, for documentation, `dev` and dry runs.
    #[serde(default)]
    pub example_arguments: Option<Object>,
}

/// A next hop that a tool may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Downstream {
    /// Resource URI of the next server.
    pub server: String,
    /// Tool there.
    pub tool: String,
    /// The highest (tightest) level that may be asked for there; the tool's own least level still holds.
    #[schemars(with = "LevelName")]
    pub level: Level,
}

/// A package of the server in some package registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Kind of the package registry: `npm`, `pypi`, `oci`, `nuget`, `mcpb`.
    pub registry: String,
    /// Its name there, or where it is downloaded.
    pub identifier: String,
    /// Exactly this version; no range, not `latest`.
    #[serde(default)]
    pub version: Option<String>,
    /// SHA-256 of the package file, hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// Who signed a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// The server's name as its publisher signed it.
    pub name: String,
    /// Its version as the publisher signed it.
    pub version: String,
    /// Thumbprint (RFC 7638) of the publisher's key.
    pub key: String,
}

/// The names of the binding levels, for the schema of records.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "stands for `Level`, whose crate knows nothing of schemas of records")]
pub(super) enum LevelName {
    L0,
    L1,
    L2,
    L3,
}

/// Risk tier (S-15). Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the tiers are documented where their controls are: Tier::least_level")]
pub enum Tier {
    Low,
    Medium,
    High,
    Critical,
}

/// Sensitivity. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual four classes")]
pub enum DataClass {
    Public,
    Internal,
    Confidential,
    Restricted,
}

/// Read, draft and execute are separate (S-41).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Prepares a change that somebody else executes.
    Draft,
    /// Changes something.
    Write,
}

/// What verifies tokens in front of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verifier {
    /// A guard of ours: sees the call, redeems L3.
    Guard,
    /// A plain RFC 9068 verifier, which cannot see the call: never for high and critical tools.
    Rfc9068,
}

impl ServerRecord {
    /// Digest of its manifest, by the digests that it states.
    ///
    /// # Errors
    /// [`JsonError`] if it has none.
    pub fn digest_of_manifest(&self) -> Result<Digest, JsonError> {
        let resources: Result<Vec<Digest>, _> = self.resources.iter().map(ResourceRecord::digest).collect();
        manifest_digest(&Manifest {
            id: &self.id,
            version: &self.version,
            tools: &self.tools.iter().map(|tool| tool.tool_digest).collect::<Vec<_>>(),
            prompts: &self.prompts.iter().map(|prompt| prompt.prompt_digest).collect::<Vec<_>>(),
            resources: &resources?,
        })
    }
}

impl ToolRecord {
    /// Its name, as its definition has it.
    pub fn name(&self) -> &str {
        self.definition.get("name").and_then(|name| name.as_str()).unwrap_or_default()
    }
}

impl Tier {
    /// The least binding level that a tier demands : low L1, medium L2, high and critical L3.
    pub fn least_level(self) -> Level {
        match self {
            Self::Low => Level::L1,
            Self::Medium => Level::L2,
            Self::High | Self::Critical => Level::L3,
        }
    }
    /// `"low"` … `"critical"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl DataClass {
    /// `"public"` … `"restricted"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }
}

impl Effect {
    /// `"read"`, `"draft"`, `"write"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Draft => "draft",
            Self::Write => "write",
        }
    }
}

pub(super) fn yes() -> bool {
    true
}
