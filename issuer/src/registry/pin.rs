//! What a record lists, pinned: tools, prompts and resources whose definition, digest and controls hold.

use super::{
    ServerRecord, Tier, Tool, ToolRecord, Verifier,
    build::{MAX_PROMPTS, MAX_RESOURCES, MAX_TOOLS, Problems, ToolProblems, matches},
};
use deputize_call::{
    action::Action,
    digest::{Digest, prompt_digest, tool_digest},
    json::{JsonError, Object},
    level::Level,
    prompt::arguments_schema,
    resource::{around, check_entry},
    schema::PinnedSchema,
};
use serde_json::Value;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

/// The tools whose definition, digest and schema hold, by name.
pub(super) fn pin_tools(server: &ServerRecord, problems: &mut Problems) -> BTreeMap<String, Arc<Tool>> {
    let mut tools = BTreeMap::new();
    for record in server.tools.iter().take(MAX_TOOLS) {
        let name = record.name();
        let mut of_tool = ToolProblems { server: &server.id, tool: name, problems };
        check_name(name, &mut of_tool);
        let least_level = check_controls(server, record, &mut of_tool);
        let stated = ("tool_digest", record.tool_digest);
        let tool_digest = pin_definition(tool_digest(&record.definition), stated, &mut of_tool);
        let schema = pin_schema(record, &mut of_tool);
        if tools.contains_key(name) {
            of_tool.add("this name is taken: each tool of a server needs its own");
        }
        if let (Some(tool_digest), Some(schema)) = (tool_digest, schema) {
            let tool = Tool {
                action: Action::CallTool,
                name: name.to_owned(),
                entry: name.to_owned(),
                within: Vec::new(),
                record: record.clone(),
                tool_digest,
                least_level,
                schema: Arc::new(schema),
            };
            tools.insert(name.to_owned(), Arc::new(tool));
        }
    }
    tools
}

/// The prompts whose definition and digest hold, by name.
pub(super) fn pin_prompts(server: &ServerRecord, problems: &mut Problems) -> BTreeMap<String, Arc<Tool>> {
    let mut prompts = BTreeMap::new();
    for record in server.prompts.iter().take(MAX_PROMPTS) {
        let name = record.name();
        let shown = format!("prompt {name}");
        let mut of_prompt = ToolProblems { server: &server.id, tool: &shown, problems };
        check_name(name, &mut of_prompt);
        let stated = ("prompt_digest", record.prompt_digest);
        let digest = pin_definition(prompt_digest(&record.definition), stated, &mut of_prompt);
        let schema = match arguments_schema(&record.definition) {
            Ok(schema) => compile(&schema, "arguments", &mut of_prompt),
            Err(problem) => {
                of_prompt.add(format!("the definition {problem}"));
                None
            }
        };
        let as_tool = record.as_tool();
        let takes_nothing =
            record.definition.get("arguments").is_none_or(|all| *all == Value::Array(Vec::new()));
        let least_level = tightened(check_controls(server, &as_tool, &mut of_prompt), takes_nothing);
        if prompts.contains_key(name) {
            of_prompt.add("this name is taken: each prompt of a server needs its own");
        }
        if let (Some(tool_digest), Some(schema)) = (digest, schema) {
            let prompt = Tool {
                action: Action::GetPrompt,
                name: name.to_owned(),
                entry: name.to_owned(),
                within: Vec::new(),
                record: as_tool,
                tool_digest,
                least_level,
                schema: Arc::new(schema),
            };
            prompts.insert(name.to_owned(), Arc::new(prompt));
        }
    }
    prompts
}

/// The entries of resources that hold, by their text.
pub(super) fn pin_resources(server: &ServerRecord, problems: &mut Problems) -> BTreeMap<String, Arc<Tool>> {
    let mut resources = BTreeMap::new();
    // They take no arguments, all of them.
    let Ok(schema) = arguments_schema(&Object::new()) else { return BTreeMap::new() };
    let Ok(schema) = PinnedSchema::compile(&schema).map(Arc::new) else { return BTreeMap::new() };
    for record in server.resources.iter().take(MAX_RESOURCES) {
        let shown = format!("resource {}", record.uri);
        let mut of_resource = ToolProblems { server: &server.id, tool: &shown, problems };
        if let Err(problem) = check_entry(&record.uri) {
            of_resource.add(format!("uri {problem}"));
        }
        for (member, text) in
            [("name", &record.name), ("title", &record.title), ("description", &record.description)]
        {
            if !text.iter().all(|text| matches(text, 1..=MAX_SHOWN_BYTES, |c| c == '\n' || !c.is_control())) {
                of_resource.add(format!("{member} must be 1–4096 bytes without control characters"));
            }
        }
        let Ok(tool_digest) = record.digest() else {
            of_resource.add("the entry cannot be digested");
            continue;
        };
        let as_tool = record.as_tool(tool_digest);
        let least_level = tightened(check_controls(server, &as_tool, &mut of_resource), true);
        let resource = Tool {
            action: Action::ReadResource,
            name: record.uri.clone(),
            entry: record.uri.clone(),
            within: Vec::new(),
            record: as_tool,
            tool_digest,
            least_level,
            schema: Arc::clone(&schema),
        };
        if resources.insert(record.uri.clone(), resource).is_some() {
            of_resource.add("this URI is taken: each entry names something else");
        }
    }
    placed(resources)
}

/// Each with the wider entries that it lies below.
fn placed(resources: BTreeMap<String, Tool>) -> BTreeMap<String, Arc<Tool>> {
    let within = |entry: &String| around(&resources, entry).map(str::to_owned).collect();
    let all_within: Vec<Vec<String>> = resources.keys().map(within).collect();
    let each = resources.into_iter().zip(all_within);
    each.map(|((entry, tool), within)| (entry, Arc::new(Tool { within, ..tool }))).collect()
}

/// Where there are no arguments, there is nothing that L2 could constrain.
fn tightened(least: Level, takes_nothing: bool) -> Level {
    if takes_nothing && least == Level::L2 { Level::L3 } else { least }
}

/// Checks what the tier demands (S-15), and returns the least level.
fn check_controls(server: &ServerRecord, record: &ToolRecord, problems: &mut ToolProblems<'_>) -> Level {
    let least = record.tier.least_level();
    let level = record.level.unwrap_or(least);
    let tier = record.tier.as_str();
    if level < least {
        problems.add(format!("level {level} is below {least}, the least that tier {tier} demands"));
    }
    if record.tier >= Tier::High && server.verifier == Verifier::Rfc9068 {
        problems.add(format!(
            "tier {tier} needs `verifier: guard`: a plain RFC 9068 verifier cannot see the call"
        ));
    } else if level == Level::L3 && server.verifier == Verifier::Rfc9068 {
        problems
            .add("level L3 needs `verifier: guard`: only a guard compares the call and redeems its token");
    }
    if record.lifetime_seconds.is_some_and(|seconds| !LIFETIME_SECONDS.contains(&seconds)) {
        problems.add("lifetime_seconds must be 30–120");
    }
    if record.max_uses.is_some_and(|uses| !MAX_USES.contains(&uses)) {
        problems.add("max_uses must be 1–1000");
    }
    if level == Level::L3 && record.max_uses.is_some_and(|uses| uses != 1) {
        problems.add("max_uses is 1 at level L3: a token for one call is good for one call");
    }
    let acr_is_sound = |acr: &String| matches(acr, 1..=256, |c| c.is_ascii_graphic());
    if record.acr_values.len() > MAX_ACR_VALUES || !record.acr_values.iter().all(acr_is_sound) {
        problems.add("acr_values must be at most 20 values of printable ASCII without spaces");
    }
    level.max(least)
}

fn check_name(name: &str, problems: &mut ToolProblems<'_>) {
    if !matches(name, 1..=128, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')) {
        problems.add("definition.name must be 1–128 letters, digits, `_`, `.`, `/` and `-`");
    }
}

fn pin_definition(
    digest: Result<Digest, JsonError>,
    (member, stated): (&str, Digest),
    problems: &mut ToolProblems<'_>,
) -> Option<Digest> {
    let Ok(digest) = digest else {
        problems
            .add("the definition cannot be digested: it is nested too deeply or a number is out of range");
        return None;
    };
    if digest != stated {
        problems.add(format!(
            "{member} is {stated}, but the definition's digest is {digest}: a changed definition needs a new approval",
        ));
    }
    Some(digest)
}

fn pin_schema(record: &ToolRecord, problems: &mut ToolProblems<'_>) -> Option<PinnedSchema> {
    let Some(schema) = record.definition.get("inputSchema") else {
        problems.add("the definition has no inputSchema");
        return None;
    };
    let schema = compile(schema, "inputSchema", problems)?;
    if let Some(example) = &record.example_arguments
        && let Err(error) = schema.validate(example)
    {
        problems.add(format!("example_arguments{error}"));
    }
    Some(schema)
}

fn compile(schema: &Value, member: &str, problems: &mut ToolProblems<'_>) -> Option<PinnedSchema> {
    PinnedSchema::compile(schema).map_err(|error| problems.add(format!("{member}{error}"))).ok()
}

const MAX_ACR_VALUES: usize = 20;
const LIFETIME_SECONDS: RangeInclusive<u64> = 30..=120;
const MAX_USES: RangeInclusive<u32> = 1..=1000;
const MAX_SHOWN_BYTES: usize = 4096;
