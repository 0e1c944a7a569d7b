//! From files to the registry: every rule is checked, every broken one reported.

use super::{
    Downstream, Package, Registry, RegistryError, Server, ServerRecord, Tier, Tool, ToolRecord, Verifier,
    resource::{check_resource, comparison_key},
};
use deputize_call::{
    digest::{Digest, manifest_digest, sha256, tool_digest},
    json::canonicalize,
    level::Level,
    schema::PinnedSchema,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

pub(super) fn build(records: Vec<ServerRecord>) -> Result<Registry, Vec<RegistryError>> {
    let mut problems = Problems::default();
    if records.len() > MAX_SERVERS {
        problems.server("", format!("the registry has more than {MAX_SERVERS} servers"));
        return Err(problems.0);
    }
    let digest = registry_digest(&records);
    let (records, proposed): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.approved);
    let mut servers = BTreeMap::new();
    let (mut ids, mut resources) = (BTreeSet::new(), BTreeSet::new());
    for record in records {
        if !ids.insert(record.id.clone()) {
            problems.server(&record.id, "this id is taken: each server needs its own");
        }
        if !resources.insert(comparison_key(&record.resource).to_owned()) {
            problems.server(&record.id, format!("resource {:?} is taken by another server", record.resource));
        }
        check_server(&record, &mut problems);
        let tools = pin_tools(&record, &mut problems);
        if let Some(manifest_digest) = pin_manifest(&record, &tools, &mut problems) {
            servers.insert(record.resource.clone(), Arc::new(Server { record, manifest_digest, tools }));
        }
    }
    for server in servers.values() {
        check_downstream(server, &servers, &proposed, &mut problems);
    }
    match digest {
        Some(digest) if problems.0.is_empty() => {
            Ok(Registry { servers, proposed, seals: Vec::new(), digest })
        }
        Some(_) => Err(problems.0),
        None => {
            problems.server("", "the registry cannot be digested: a number in it is out of range");
            Err(problems.0)
        }
    }
}

fn check_server(record: &ServerRecord, problems: &mut Problems) {
    let mut problem = |text: String| problems.server(&record.id, text);
    if !matches(&record.id, 1..=64, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        problem("id must be 1–64 lower-case letters, digits and `-`".into());
    }
    if !matches(&record.tenant, 1..=64, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        problem("tenant must be 1–64 letters, digits, `-`, `_` and `.`".into());
    }
    if let Err(reason) = check_resource(&record.resource) {
        problem(format!("resource {:?} {reason}", record.resource));
    }
    for (name, text) in [
        ("version", &record.version),
        ("owner", &record.owner),
        ("purpose", &record.purpose),
        ("environment", &record.environment),
    ] {
        if !matches(text, 1..=1024, |c| !c.is_control()) {
            problem(format!("{name} must be 1–1024 characters, none of them a control character"));
        }
    }
    if let Some(client_id) = &record.client_id
        && (client_id.starts_with("user:") || !matches(client_id, 1..=256, |c| c.is_ascii_graphic()))
    {
        problem("client_id must be 1–256 printable ASCII characters and not begin with `user:`".into());
    }
    for package in &record.packages {
        check_package(package, &mut problem);
    }
    if record.last_review.as_deref().is_some_and(|day| !is_day(day)) {
        problem("last_review must be a day, YYYY-MM-DD".into());
    }
    if record.tools.len() > MAX_TOOLS {
        problem(format!("has more than {MAX_TOOLS} tools"));
    }
}

/// A package is pinned to one version, and where its digest is known to one file (S-58).
fn check_package(package: &Package, problem: &mut impl FnMut(String)) {
    let name = &package.identifier;
    let plain = |text: &String| matches(text, 1..=512, |c| c.is_ascii_graphic());
    if !plain(&package.registry) || !plain(name) || !package.version.iter().all(plain) {
        problem(format!("package {name:?}: registry, identifier and version are 1–512 printable characters"));
    }
    let is_range = |version: &String| version == "latest" || version.contains(['^', '~', '*', '<', '>', '|']);
    if package.version.as_ref().is_some_and(is_range) {
        problem(format!("package {name:?}: version must be one version, no range and not `latest`"));
    }
    let is_digest = |text: &String| matches(text, 64..=64, |c| matches!(c, '0'..='9' | 'a'..='f'));
    if !package.sha256.iter().all(is_digest) {
        problem(format!("package {name:?}: sha256 must be 64 hexadecimal digits in lower case"));
    }
}

/// The tools whose definition, digest and schema hold, by name.
fn pin_tools(server: &ServerRecord, problems: &mut Problems) -> BTreeMap<String, Arc<Tool>> {
    let mut tools = BTreeMap::new();
    for record in server.tools.iter().take(MAX_TOOLS) {
        let name = record.definition.get("name").and_then(|name| name.as_str()).unwrap_or_default();
        let mut of_tool = ToolProblems { server: &server.id, tool: name, problems };
        if !matches(name, 1..=128, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')) {
            of_tool.add("definition.name must be 1–128 letters, digits, `_`, `.`, `/` and `-`");
        }
        let least_level = check_controls(server, record, &mut of_tool);
        let tool_digest = pin_definition(record, &mut of_tool);
        let schema = pin_schema(record, &mut of_tool);
        if tools.contains_key(name) {
            of_tool.add("this name is taken: each tool of a server needs its own");
        }
        if let (Some(tool_digest), Some(schema)) = (tool_digest, schema) {
            let record = record.clone();
            let tool = Tool { name: name.to_owned(), record, tool_digest, least_level, schema };
            tools.insert(name.to_owned(), Arc::new(tool));
        }
    }
    tools
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

fn pin_definition(record: &ToolRecord, problems: &mut ToolProblems<'_>) -> Option<Digest> {
    let Ok(digest) = tool_digest(&record.definition) else {
        problems
            .add("the definition cannot be digested: it is nested too deeply or a number is out of range");
        return None;
    };
    if digest != record.tool_digest {
        problems.add(format!(
            "tool_digest is {}, but the definition's digest is {digest}: a changed definition needs a new approval",
            record.tool_digest
        ));
    }
    Some(digest)
}

fn pin_schema(record: &ToolRecord, problems: &mut ToolProblems<'_>) -> Option<PinnedSchema> {
    let Some(schema) = record.definition.get("inputSchema") else {
        problems.add("the definition has no inputSchema");
        return None;
    };
    let schema =
        PinnedSchema::compile(schema).map_err(|error| problems.add(format!("inputSchema{error}"))).ok()?;
    if let Some(example) = &record.example_arguments
        && let Err(error) = schema.validate(example)
    {
        problems.add(format!("example_arguments{error}"));
    }
    Some(schema)
}

fn pin_manifest(
    record: &ServerRecord,
    tools: &BTreeMap<String, Arc<Tool>>,
    problems: &mut Problems,
) -> Option<Digest> {
    let digests: Vec<Digest> = tools.values().map(|tool| tool.tool_digest).collect();
    let Ok(digest) = manifest_digest(&record.id, &record.version, &digests) else {
        problems.server(&record.id, "the manifest cannot be digested");
        return None;
    };
    if let Some(approved) = record.manifest_digest
        && approved != digest
        // A tool that could not be pinned is reported by itself; the manifest differs only because of it.
        && tools.len() == record.tools.len()
    {
        problems.server(
            &record.id,
            format!("manifest_digest is {approved}, but the manifest's digest is {digest}: a changed manifest needs a new approval"),
        );
    }
    Some(digest)
}

/// A next hop leads to a registered tool of the same tenant, at a level at which that tool can be called.
fn check_downstream(
    server: &Server,
    servers: &BTreeMap<String, Arc<Server>>,
    proposed: &[ServerRecord],
    problems: &mut Problems,
) {
    for tool in server.tools.values() {
        let mut of_tool = ToolProblems { server: &server.record.id, tool: &tool.name, problems };
        if tool.record.downstream.len() > MAX_DOWNSTREAM {
            of_tool.add("has more than 100 downstream entries");
        }
        let mut seen = BTreeSet::new();
        for Downstream { server: to, tool: name, level } in tool.record.downstream.iter().take(MAX_DOWNSTREAM)
        {
            if !seen.insert((to, name)) {
                of_tool.add(format!("downstream {to:?}, tool {name:?} is listed twice"));
            }
            let Some(target) = servers.get(to) else {
                if proposed.iter().any(|record| record.resource == *to) {
                    // Until it is approved again it gets no tokens, by this way either.
                    continue;
                }
                of_tool.add(format!("downstream {to:?} is not a registered server"));
                continue;
            };
            if target.record.tenant != server.record.tenant {
                of_tool.add(format!("downstream {to:?} belongs to another tenant"));
                continue;
            }
            match target.tools.get(name) {
                None => of_tool.add(format!("downstream {to:?} has no approved tool {name:?}")),
                Some(next) if *level < next.least_level => of_tool.add(format!(
                    "downstream {to:?}, tool {name:?}: level {level} is below {}, the least of that tool",
                    next.least_level
                )),
                Some(_) => {}
            }
        }
    }
}

/// Digest over all records in the order of their ids, so that the order of files does not count.
fn registry_digest(records: &[ServerRecord]) -> Option<Digest> {
    let mut sorted: Vec<&ServerRecord> = records.iter().collect();
    sorted.sort_by(|one, other| (&one.id, &one.resource).cmp(&(&other.id, &other.resource)));
    let mut text = b"registry/1\0".to_vec();
    text.extend(canonicalize(&serde_json::to_value(sorted).ok()?).ok()?);
    Some(Digest::from_bytes(sha256(&text)))
}

fn matches(text: &str, length: RangeInclusive<usize>, admits: impl Fn(char) -> bool) -> bool {
    length.contains(&text.len()) && text.chars().all(admits)
}

fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |part: &str, length: usize| {
        (part.len() == length && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    match parts.as_slice() {
        [year, month, day] => {
            number(year, 4).is_some()
                && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
                && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
        }
        _ => false,
    }
}

#[derive(Default)]
struct Problems(Vec<RegistryError>);

impl Problems {
    fn server(&mut self, server: &str, problem: impl Into<String>) {
        self.0.push(RegistryError { server: server.to_owned(), tool: None, problem: problem.into() });
    }
}

struct ToolProblems<'p> {
    server: &'p str,
    tool: &'p str,
    problems: &'p mut Problems,
}

impl ToolProblems<'_> {
    fn add(&mut self, problem: impl Into<String>) {
        let (server, tool) = (self.server.to_owned(), Some(self.tool.to_owned()));
        self.problems.0.push(RegistryError { server, tool, problem: problem.into() });
    }
}

const MAX_SERVERS: usize = 10_000;
const MAX_TOOLS: usize = 500;
const MAX_DOWNSTREAM: usize = 100;
const MAX_ACR_VALUES: usize = 20;
const LIFETIME_SECONDS: RangeInclusive<u64> = 30..=120;
const MAX_USES: RangeInclusive<u32> = 1..=1000;
