//! `deputize registry ls` and `show`.

use deputize_issuer::registry::{ServerRecord, Tier, scan::Finding};
use serde::Serialize;
use serde_json::Value;

use super::{
    approve::prompts_and_resources,
    import::{look, to_do},
    place::{self, PlaceArgs},
    report::{self, Paint},
};
use crate::{
    commands::{
        exit::{CommandResult, Exit},
        output::{Columns, Facts, Output, clean},
    },
    config::registry::RegistryFolder,
};

/// Lists the servers of the registry, and whether they are approved.
#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    place: PlaceArgs,
}

/// Shows one server: its tools, its approval, what the scan finds.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Id of the server, or the file of its record
    server: String,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Serialize)]
struct Line {
    id: String,
    version: String,
    approval: String,
    enabled: bool,
    tools: usize,
    prompts: usize,
    resources: usize,
    highest_tier: Option<&'static str>,
    resource: String,
}

#[derive(Serialize)]
struct Shown {
    approval: String,
    to_do: Vec<String>,
    findings: Vec<Finding>,
    accepted_findings: Vec<String>,
    record: ServerRecord,
}

/// Runs `ls`.
///
/// # Errors
/// If the registry cannot be read.
pub fn ls(args: &Ls, output: Output) -> CommandResult {
    let registry = args.place.find()?;
    let records = place::records(&registry)?;
    let lines: Vec<Line> = records.iter().map(|(_, record)| line(&registry, record)).collect();
    output.show(&lines, || {
        let mut columns = Columns::new(&["ID", "VERSION", "APPROVED", "TOOLS", "HIGHEST", "RESOURCE"]);
        for line in &lines {
            let approval =
                if line.enabled { line.approval.clone() } else { format!("{}, disabled", line.approval) };
            let highest = line.highest_tier.unwrap_or("-");
            columns.row(&[
                &line.id,
                &line.version,
                &approval,
                &line.tools.to_string(),
                highest,
                &line.resource,
            ]);
        }
        columns.to_string()
    })?;
    Ok(Exit::Ok)
}

/// Runs `show`.
///
/// # Errors
/// If there is no such server.
pub fn show(args: &Show, output: Output) -> CommandResult {
    let registry = args.place.find()?;
    let (_, record, others) = place::record(&registry, &args.server)?;
    let accepted = place::approval(&registry, &record.id).ok().flatten();
    let shown = Shown {
        approval: approval_state(&registry, &record),
        to_do: to_do(&record, &others),
        findings: look(&record, None, &others),
        accepted_findings: accepted.map(|approval| approval.accepted_findings).unwrap_or_default(),
        record,
    };
    output.show_painted(&shown, || shown.to_text())?;
    Ok(Exit::Ok)
}

fn line(registry: &RegistryFolder, record: &ServerRecord) -> Line {
    Line {
        id: record.id.clone(),
        version: record.version.clone(),
        approval: approval_state(registry, record),
        enabled: record.enabled,
        tools: record.tools.len(),
        prompts: record.prompts.len(),
        resources: record.resources.len(),
        highest_tier: {
            let others = prompts_and_resources(record).into_iter().map(|(_, tier, ..)| tier);
            record.tools.iter().map(|tool| tool.tier).chain(others).max().map(Tier::as_str)
        },
        resource: record.resource.clone(),
    }
}

/// In a word or two: what the broker would say of its approval.
fn approval_state(registry: &RegistryFolder, record: &ServerRecord) -> String {
    if !record.approved {
        return "no".to_owned();
    }
    match (place::approval(registry, &record.id), &registry.approval_keys) {
        (Err(_), _) => "signature does not hold".to_owned(),
        (Ok(None), None) => "unsigned".to_owned(),
        (Ok(None), Some(_)) => "signature missing".to_owned(),
        (Ok(Some(approval)), keys) => match approval.covers(record) {
            Err(_) => "differs from what was signed".to_owned(),
            Ok(()) if keys.is_none() => format!("by {}, signature not verified", approval.approved_by),
            Ok(()) => format!("by {}", approval.approved_by),
        },
    }
}

impl Shown {
    fn to_text(&self) -> String {
        let record = &self.record;
        let mut facts = Facts::default();
        facts.add("id", &record.id).add("version", &record.version).add("approved", &self.approval);
        facts.add("resource", &record.resource).add("tenant", &record.tenant).add("owner", &record.owner);
        facts.add("purpose", &record.purpose).add("environment", &record.environment);
        facts.add("data class", record.data_class.as_str());
        facts
            .add_some("client", record.client_id.as_ref())
            .add_some("source", record.source_repository.as_ref());
        facts.add_some(
            "publisher",
            record.publisher.as_ref().map(|publisher| format!("{} {}", publisher.name, publisher.version)),
        );
        for package in &record.packages {
            let version = package.version.as_deref().unwrap_or("no version");
            let digest = package.sha256.as_deref().unwrap_or("no digest: pin it");
            facts.add("package", format!("{} {} {version}, {digest}", package.registry, package.identifier));
        }
        let mut columns = Columns::new(&["TOOL", "TIER", "LEVEL", "EFFECT", "DIGEST"]);
        for tool in &record.tools {
            let name = tool.definition.get("name").and_then(Value::as_str).unwrap_or_default();
            let least = tool.tier.least_level();
            let level = tool.level.unwrap_or(least).max(least);
            let digest = tool.tool_digest.to_string();
            columns.row(&[name, tool.tier.as_str(), level.as_str(), tool.effect.as_str(), &digest]);
        }
        for (noun, tier, level, name) in prompts_and_resources(record) {
            columns.row(&[&format!("{noun} {name}"), tier.as_str(), level.as_str(), "read", ""]);
        }
        let accepted = report::accepted(&self.accepted_findings);
        let to_do: String = self.to_do.iter().map(|to_do| format!("  to do: {}\n", clean(to_do))).collect();
        format!("{facts}\n{columns}{}{to_do}", report::findings(&self.findings, &accepted, Paint::detect()))
    }
}
