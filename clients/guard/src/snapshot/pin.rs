//! Each tool, prompt and resource of a snapshot, checked and compiled.

use super::{Pinned, PromptDocument, ResourceDocument, SnapshotError, ToolDocument};
use deputize_call::{
    digest::{Digest, prompt_digest, resource_digest, tool_digest},
    json::{JsonError, Object},
    level::Level,
    prompt::arguments_schema,
    resource::check_entry,
    schema::PinnedSchema,
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn tools(documents: Vec<ToolDocument>) -> Result<BTreeMap<String, Pinned>, SnapshotError> {
    let mut tools = BTreeMap::new();
    for tool in documents {
        let broken = Broken::of(&tool.definition, "name");
        let digest = broken.digest(tool_digest(&tool.definition), tool.tool_digest)?;
        let schema =
            tool.definition.get("inputSchema").ok_or_else(|| broken.says("it has no inputSchema"))?;
        let schema = broken.compile(schema)?;
        let pinned = Pinned {
            digest,
            schema,
            least_level: tool.least_level,
            definition: tool.definition,
            enabled: true,
        };
        broken.add(&mut tools, pinned)?;
    }
    Ok(tools)
}

pub(super) fn prompts(documents: Vec<PromptDocument>) -> Result<BTreeMap<String, Pinned>, SnapshotError> {
    let mut prompts = BTreeMap::new();
    for prompt in documents {
        let broken = Broken::of(&prompt.definition, "name");
        let digest = broken.digest(prompt_digest(&prompt.definition), prompt.prompt_digest)?;
        let schema = arguments_schema(&prompt.definition).map_err(|problem| broken.says(problem))?;
        let (schema, least_level) = (broken.compile(&schema)?, prompt.least_level);
        let pinned = Pinned { digest, schema, least_level, definition: prompt.definition, enabled: true };
        broken.add(&mut prompts, pinned)?;
    }
    Ok(prompts)
}

pub(super) fn resources(documents: Vec<ResourceDocument>) -> Result<BTreeMap<String, Pinned>, SnapshotError> {
    let mut resources = BTreeMap::new();
    for resource in documents {
        let broken = Broken::of(&resource.shown, "uri");
        check_entry(&broken.name).map_err(|problem| broken.says(problem))?;
        let digest = resource_digest(&resource.shown).map_err(|error| broken.says(error))?;
        // It takes no arguments.
        let schema = arguments_schema(&Object::new()).map_err(|problem| broken.says(problem))?;
        let pinned = Pinned {
            digest,
            schema: broken.compile(&schema)?,
            least_level: resource.least_level,
            enabled: resource.enabled,
            definition: resource.shown,
        };
        broken.add(&mut resources, pinned)?;
    }
    Ok(resources)
}

/// What is looked at, to be named where it does not hold.
struct Broken {
    name: String,
}

impl Broken {
    fn of(definition: &Object, named_by: &str) -> Self {
        Self { name: definition.get(named_by).and_then(Value::as_str).unwrap_or_default().to_owned() }
    }

    fn says(&self, problem: impl ToString) -> SnapshotError {
        SnapshotError::Tool { name: self.name.clone(), problem: problem.to_string() }
    }

    fn digest(&self, digest: Result<Digest, JsonError>, stated: Digest) -> Result<Digest, SnapshotError> {
        match digest {
            Ok(digest) if digest == stated => Ok(digest),
            Ok(_) => Err(self.says("its definition is not the one of its digest")),
            Err(error) => Err(self.says(error)),
        }
    }

    fn compile(&self, schema: &Value) -> Result<PinnedSchema, SnapshotError> {
        PinnedSchema::compile(schema).map_err(|error| self.says(error))
    }

    fn add(self, to: &mut BTreeMap<String, Pinned>, pinned: Pinned) -> Result<(), SnapshotError> {
        if self.name.is_empty() || pinned.least_level == Level::L0 {
            return Err(self.says("a tool needs a name and a level above L0"));
        }
        if to.contains_key(&self.name) {
            return Err(self.says("stands twice"));
        }
        to.insert(self.name, pinned);
        Ok(())
    }
}
