//! What a registry file says of a server's resources and prompts: what is read rather than called.

use deputize_call::{
    digest::{Digest, resource_digest},
    json::{JsonError, Object},
    level::Level,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DataClass, Effect, Tier, ToolRecord,
    record::{LevelName, yes},
};

/// One approved resource, or all that lie below a prefix. Reading changes nothing, so there is no effect to state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceRecord {
    /// Its URI, compared as it stands; with `/*` at its end, everything below.
    pub uri: String,
    /// The name under which it is listed; by default its URI. What the server says instead is not shown.
    #[serde(default)]
    pub name: Option<String>,
    /// The title with which it is listed.
    #[serde(default)]
    pub title: Option<String>,
    /// The description with which it is listed.
    #[serde(default)]
    pub description: Option<String>,
    /// Risk tier.
    pub tier: Tier,
    /// The least binding level; by default what the tier demands. There are no arguments to constrain, so L2 is L3.
    #[serde(default)]
    #[schemars(with = "Option<LevelName>")]
    pub level: Option<Level>,
    /// Its sensitivity, where it differs from the server's.
    #[serde(default)]
    pub data_class: Option<DataClass>,
    /// How long its tokens live, 30–120 s.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// How many times an L1 token is good for.
    #[serde(default)]
    pub max_uses: Option<u32>,
    /// `acr` values that satisfy it; empty means any.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// How old the user's authentication may be, in seconds.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// A disabled resource gets no tokens, and neither does what it names below a prefix of another entry.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// One approved prompt. To get it changes nothing, so there is no effect to state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptRecord {
    /// Risk tier.
    pub tier: Tier,
    /// The least binding level; by default what the tier demands.
    #[serde(default)]
    #[schemars(with = "Option<LevelName>")]
    pub level: Option<Level>,
    /// Sensitivity of what it gives, where it differs from the server's.
    #[serde(default)]
    pub data_class: Option<DataClass>,
    /// How long its tokens live, 30–120 s.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// How many times an L1 or L2 token is good for; L2 without it gets the default of 10.
    #[serde(default)]
    pub max_uses: Option<u32>,
    /// `acr` values that satisfy it; empty means any.
    #[serde(default)]
    pub acr_values: Vec<String>,
    /// How old the user's authentication may be, in seconds.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// A disabled prompt gets no tokens.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Digest of `definition` as approved: a changed definition without a changed digest is refused at load.
    #[schemars(with = "String")]
    pub prompt_digest: Digest,
    /// The definition as the server's `prompts/list` gives it: `name`, `title`, `description`, `arguments`.
    pub definition: Object,
}

impl ResourceRecord {
    /// What of it is pinned and shown: URI, name, title, description, as far as they are there.
    pub fn shown(&self) -> Object {
        let texts = [
            ("uri", Some(&self.uri)),
            ("name", self.name.as_ref()),
            ("title", self.title.as_ref()),
            ("description", self.description.as_ref()),
        ];
        let present = texts.into_iter().filter_map(|(name, text)| Some((name, text?)));
        present.map(|(name, text)| (name.to_owned(), text.as_str().into())).collect()
    }

    /// Digest of that.
    ///
    /// # Errors
    /// [`JsonError`] if it has none.
    pub fn digest(&self) -> Result<Digest, JsonError> {
        resource_digest(&self.shown())
    }

    /// Its controls, as a tool has them.
    pub(super) fn as_tool(&self, tool_digest: Digest) -> ToolRecord {
        ToolRecord {
            tier: self.tier,
            level: self.level,
            effect: Effect::Read,
            data_class: self.data_class,
            lifetime_seconds: self.lifetime_seconds,
            max_uses: self.max_uses,
            acr_values: self.acr_values.clone(),
            max_age_seconds: self.max_age_seconds,
            downstream: Vec::new(),
            enabled: self.enabled,
            tool_digest,
            definition: self.shown(),
            example_arguments: None,
        }
    }
}

impl PromptRecord {
    /// Its name, as its definition has it.
    pub fn name(&self) -> &str {
        self.definition.get("name").and_then(|name| name.as_str()).unwrap_or_default()
    }

    /// Its controls, as a tool has them.
    pub(super) fn as_tool(&self) -> ToolRecord {
        ToolRecord {
            tier: self.tier,
            level: self.level,
            effect: Effect::Read,
            data_class: self.data_class,
            lifetime_seconds: self.lifetime_seconds,
            max_uses: self.max_uses,
            acr_values: self.acr_values.clone(),
            max_age_seconds: self.max_age_seconds,
            downstream: Vec::new(),
            enabled: self.enabled,
            tool_digest: self.prompt_digest,
            definition: self.definition.clone(),
            example_arguments: None,
        }
    }
}
