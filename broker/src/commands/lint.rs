//! `deputize lint`: checks the whole configuration, and says all that is wrong with it.

mod cross;
mod entries;

use deputize_issuer::{
    client::{Addressees, Clients},
    entry::Entries,
    provider::{KeyGeneration, KeysUnavailable, ProviderKeys, Providers},
};
use schemars::schema_for;
use serde::Serialize;
use std::sync::Arc;

use super::{
    exit::{CommandError, CommandResult, Exit},
    findings::Findings,
    input::ConfigArgs,
    output::{Facts, Output},
};
use crate::config::{
    raw::Config,
    resolved::{self, LoadedRules, Resolved},
};

/// Checks the whole configuration: the file, key sets, registry, policies, role templates and registration
/// entries, and what should agree among them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize lint --config deputize.yaml
  deputize lint --schema > deputize.schema.json      for editors: # yaml-language-server: $schema=deputize.schema.json

Exit code 5: something is wrong. Warnings alone exit with 0, unless --strict is given.")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the JSON Schema of the configuration instead
    #[arg(long)]
    schema: bool,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
    summary: Option<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    issuer: String,
    identity_providers: Vec<String>,
    clients: usize,
    servers: usize,
    tools: usize,
    policies: usize,
    registry_digest: String,
    policy_digest: String,
    /// AWS role templates.
    templates: usize,
    /// Registration entries of files.
    entries: usize,
}

/// Runs it.
///
/// # Errors
/// If the answer cannot be written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    if args.schema {
        output.raw(&schema()?)?;
        return Ok(Exit::Ok);
    }
    let report = check(&args.config);
    output.show(&report, || report.to_text(args.strict))?;
    Ok(report.findings(args.strict).exit())
}

/// The JSON Schema of the configuration, as it is committed.
fn schema() -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(&schema_for!(Config));
    Ok(text.map_err(|error| CommandError::failure(error, "report this"))? + "\n")
}

fn check(config: &ConfigArgs) -> Report {
    let mut report = Report::default();
    let resolved = match resolved::load(&config.config, config.mode()) {
        Ok(resolved) => resolved,
        Err(errors) => {
            report.problems.extend(errors.iter().map(ToString::to_string));
            return report;
        }
    };
    if let Err(problem) = check_providers(&resolved) {
        report.problems.push(format!("{}: {problem}", config.config.display()));
    }
    let clients = Clients::new(resolved.clients.clone());
    let mut entries = None;
    match resolved.spiffe.as_ref().map(|spiffe| entries::check(spiffe, &clients)) {
        None => {}
        Some(Ok((read, warnings))) => {
            entries = Some(read);
            report.warnings = warnings;
        }
        Some(Err(problems)) => report.problems.extend(problems),
    }
    match resolved.load_rules() {
        Err(errors) => report.problems.extend(errors.iter().map(ToString::to_string)),
        Ok(LoadedRules { registry, policies, templates }) => {
            report.warnings.extend(cross::warnings(&resolved, &registry, &templates));
            let addressees = Addressees::new(&registry, &resolved.issuer);
            if let Some(Err(bad)) = entries.as_ref().map(|entries| entries.bring_nothing_of(&addressees)) {
                report.problems.extend(bad.iter().map(ToString::to_string));
            }
            report
                .warnings
                .extend(entries.iter().flat_map(|entries| cross::of_entries(entries, &resolved, &registry)));
            let servers = registry.servers();
            report.summary = Some(Summary {
                issuer: resolved.issuer.clone(),
                identity_providers: resolved.providers.iter().map(|up| up.provider.issuer.clone()).collect(),
                clients: resolved.clients.len(),
                servers: registry.servers().count(),
                tools: servers.map(|server| server.tools().count()).sum(),
                policies: policies.len(),
                registry_digest: registry.digest().to_string(),
                policy_digest: policies.digest().to_owned(),
                templates: templates.iter().count(),
                entries: entries.as_ref().map_or(0, Entries::len),
            });
        }
    }
    report
}

fn check_providers(resolved: &Resolved) -> Result<(), String> {
    let providers = resolved.providers.iter().map(|upstream| upstream.provider.clone()).collect();
    Providers::new(providers, Arc::new(NoKeys), None).map(drop).map_err(|error| error.to_string())
}

impl Report {
    fn findings(&self, strict: bool) -> Findings<'_> {
        Findings { problems: &self.problems, warnings: &self.warnings, strict }
    }

    fn to_text(&self, strict: bool) -> String {
        let findings = self.findings(strict);
        let mut text = findings.listed();
        if let Some(summary) = &self.summary {
            let mut facts = Facts::default();
            facts.add("issuer", &summary.issuer);
            for provider in &summary.identity_providers {
                facts.add("identity provider", provider);
            }
            facts.add("clients", summary.clients.to_string());
            facts.add(
                "registry",
                format!(
                    "servers {}, tools {}, digest {}",
                    summary.servers, summary.tools, summary.registry_digest
                ),
            );
            facts.add("policies", format!("{}, digest {}", summary.policies, summary.policy_digest));
            if summary.templates > 0 {
                facts.add("role templates", summary.templates.to_string());
            }
            if summary.entries > 0 {
                facts.add("registration entries", summary.entries.to_string());
            }
            text.push_str(&facts.to_string());
        }
        text.push_str(&findings.verdict("it can be served", "`serve` would refuse to start"));
        text
    }
}

/// Providers are checked without asking them.
struct NoKeys;

#[async_trait::async_trait]
impl ProviderKeys for NoKeys {
    async fn keys(&self, _: &str) -> Result<KeyGeneration, KeysUnavailable> {
        Err(KeysUnavailable)
    }
    async fn keys_for_unknown_kid(&self, _: &str, _: u64) -> Result<KeyGeneration, KeysUnavailable> {
        Err(KeysUnavailable)
    }
}
