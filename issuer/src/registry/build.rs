//! From files to the registry: every rule is checked, every broken one reported.

use super::{
    Downstream, Package, Registry, RegistryError, Server, ServerRecord, Tool,
    pin::{pin_prompts, pin_resources, pin_tools},
    resource::{audience_key, check_resource, comparison_key},
};
use deputize_call::{
    digest::{Digest, Manifest, manifest_digest, sha256},
    json::canonicalize,
    offers::Offers,
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
        let prompts = pin_prompts(&record, &mut problems);
        let resources = pin_resources(&record, &mut problems);
        let offered = || [&tools, &prompts, &resources].into_iter().flat_map(BTreeMap::values);
        let enabled = offered().filter(|tool| tool.record.enabled);
        let offers = Offers::new(enabled.map(|tool| (tool.action, tool.name.as_str())));
        let manifest_digest = pin_manifest(&record, [&tools, &prompts, &resources], &mut problems);
        if let (Some(manifest_digest), Ok(offers)) = (manifest_digest, offers) {
            let server = Server { manifest_digest, tools, prompts, resources, offers, record };
            servers.insert(server.record.resource.clone(), Arc::new(server));
        }
    }
    for server in servers.values() {
        check_downstream(server, &servers, &proposed, &mut problems);
    }
    match digest {
        Some(digest) if problems.0.is_empty() => {
            let addressed = servers.keys().map(|resource| audience_key(resource)).collect();
            Ok(Registry { servers, addressed, proposed, seals: Vec::new(), digest })
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
    for (count, most, what) in [
        (record.tools.len(), MAX_TOOLS, "tools"),
        (record.prompts.len(), MAX_PROMPTS, "prompts"),
        (record.resources.len(), MAX_RESOURCES, "resources"),
    ] {
        if count > most {
            problem(format!("has more than {most} {what}"));
        }
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

fn pin_manifest(
    record: &ServerRecord,
    [tools, prompts, resources]: [&BTreeMap<String, Arc<Tool>>; 3],
    problems: &mut Problems,
) -> Option<Digest> {
    let digests = |pinned: &BTreeMap<String, Arc<Tool>>| -> Vec<Digest> {
        pinned.values().map(|tool| tool.tool_digest).collect()
    };
    let manifest = Manifest {
        id: &record.id,
        version: &record.version,
        tools: &digests(tools),
        prompts: &digests(prompts),
        resources: &digests(resources),
    };
    let Ok(digest) = manifest_digest(&manifest) else {
        problems.server(&record.id, "the manifest cannot be digested");
        return None;
    };
    // What could not be pinned is reported by itself; the manifest differs only because of it.
    let all_are_pinned = tools.len() == record.tools.len()
        && prompts.len() == record.prompts.len()
        && resources.len() == record.resources.len();
    if let Some(approved) = record.manifest_digest.filter(|approved| *approved != digest && all_are_pinned) {
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

pub(super) fn matches(text: &str, length: RangeInclusive<usize>, admits: impl Fn(char) -> bool) -> bool {
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
pub(super) struct Problems(Vec<RegistryError>);

impl Problems {
    fn server(&mut self, server: &str, problem: impl Into<String>) {
        self.0.push(RegistryError { server: server.to_owned(), tool: None, problem: problem.into() });
    }
}

/// What is wrong with one tool, prompt or resource.
pub(super) struct ToolProblems<'p> {
    pub(super) server: &'p str,
    pub(super) tool: &'p str,
    pub(super) problems: &'p mut Problems,
}

impl ToolProblems<'_> {
    pub(super) fn add(&mut self, problem: impl Into<String>) {
        let (server, tool) = (self.server.to_owned(), Some(self.tool.to_owned()));
        self.problems.0.push(RegistryError { server, tool, problem: problem.into() });
    }
}

const MAX_SERVERS: usize = 10_000;
pub(super) const MAX_TOOLS: usize = 500;
pub(super) const MAX_PROMPTS: usize = 200;
pub(super) const MAX_RESOURCES: usize = 500;
const MAX_DOWNSTREAM: usize = 100;
