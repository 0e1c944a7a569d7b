//! `deputize templates lint`: everything that is wrong with the templates of a folder.

use deputize_issuer::templates::MAX_POLICY_CHARACTERS;
use serde::Serialize;
use std::path::PathBuf;

use crate::{
    commands::{
        exit::CommandResult,
        findings::Findings,
        output::{Columns, Output},
    },
    config::templates::load_templates,
};

/// Checks all templates of a folder: form, overlap, actions, sizes, and that none can grant beyond its ceiling.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize templates lint
  deputize templates lint deploy/example/templates --strict
  deputize templates lint -o json

Exit code 5: something is wrong. Warnings alone exit with 0, unless --strict is given.")]
pub struct Args {
    /// Folder of templates (`*.yaml`, `*.yml`, `*.json`)
    #[arg(value_name = "DIR", default_value = "templates")]
    folder: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
    templates: Vec<Row>,
}

/// A template that may be used.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    server: String,
    tool: String,
    role_arn: String,
    /// Length of the longest session policy that it can render.
    worst_case_characters: usize,
    hash: String,
}

/// Runs it.
///
/// # Errors
/// If the answer cannot be written.
pub fn run(args: &Args, output: Output) -> CommandResult {
    let report = check(args);
    output.show(&report, || report.to_text(args.strict))?;
    Ok(report.findings(args.strict).exit())
}

fn check(args: &Args) -> Report {
    let mut report = Report::default();
    match load_templates(&args.folder) {
        Err(errors) => report.problems = errors.iter().map(ToString::to_string).collect(),
        Ok(templates) => {
            for template in templates.iter() {
                report.warnings.extend(template.warnings().iter().map(ToString::to_string));
                let file = template.file();
                report.templates.push(Row {
                    name: file.name.clone(),
                    server: file.matching.server.clone(),
                    tool: file.matching.tool.clone(),
                    role_arn: file.aws.role_arn.clone(),
                    worst_case_characters: template.worst_case_characters(),
                    hash: template.hash().to_string(),
                });
            }
            if report.templates.is_empty() {
                report.warnings.push(format!("{}: there is no template in it", args.folder.display()));
            }
        }
    }
    report
}

impl Report {
    fn findings(&self, strict: bool) -> Findings<'_> {
        Findings { problems: &self.problems, warnings: &self.warnings, strict }
    }

    fn to_text(&self, strict: bool) -> String {
        let findings = self.findings(strict);
        let mut text = findings.listed();
        if !self.templates.is_empty() {
            let mut columns = Columns::new(&["TEMPLATE", "TOOL", "ROLE", "LARGEST POLICY"]);
            for row in &self.templates {
                let size = format!("{} of {MAX_POLICY_CHARACTERS}", row.worst_case_characters);
                columns.row(&[&row.name, &row.tool, &row.role_arn, &size]);
            }
            text.push_str(&columns.to_string());
        }
        text.push_str(&findings.verdict("they can be used", "none of them is used until then"));
        text
    }
}
