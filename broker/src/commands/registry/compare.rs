//! `deputize registry diff`: what changed between a record and what is there now, or what was approved.

use deputize_issuer::registry::{
    ServerRecord,
    diff::{ManifestDiff, diff, diff_documents},
    scan::Finding,
};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

use super::{
    import::{definitions, look},
    offer::SourceArgs,
    place::{self, PlaceArgs},
    report::{self, Paint},
};
use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};

/// Shows word by word what changed in a server's tools: against the live server, a file, or what was approved.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize registry diff crm --url https://crm.example.com/mcp     the record and the live server
  deputize registry diff crm --tools tools-list.json               the record and a saved answer, or another record
  deputize registry diff crm                                       what was approved and the record
  deputize registry diff crm --url … -o json || mail …             for machines

[-…-] is gone, {+…+} is new. Exit code 1: there is a difference.")]
pub struct Args {
    /// Id of the server, or the file of its record
    server: String,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Serialize)]
struct Compared {
    before: String,
    after: String,
    different: bool,
    /// In definitions of tools.
    tools: ManifestDiff,
    /// In the rest of the record.
    record: ManifestDiff,
    /// Of what is new.
    findings: Vec<Finding>,
}

/// Runs it.
///
/// # Errors
/// If there is no such record, or nothing to compare it with.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let registry = args.place.find()?;
    let (file, record, others) = place::record(&registry, &args.server)?;
    let approval = place::approval(&registry, &record.id)?;
    let compared = if args.source.is_given() {
        let offer = args.source.gather().await?;
        let now: Vec<_> = offer.listing.tools.iter().collect();
        let mut offered = record.clone();
        offered.tools.clear();
        let findings = {
            let subject = deputize_issuer::registry::scan::Subject {
                server: &record.id,
                instructions: offer.listing.instructions.as_deref(),
                tools: &now,
            };
            deputize_issuer::registry::scan::scan(&subject, &place::neighbours(&others, &record.id))
        };
        let tools = diff(&definitions(&record), &now);
        let record = ManifestDiff::default();
        Compared {
            before: file.display().to_string(),
            after: offer.source,
            different: !tools.is_empty(),
            tools,
            record,
            findings,
        }
    } else {
        let Some(approval) = approval.as_ref() else {
            return Err(CommandError::usage(
                format!("{:?} was never approved", record.id),
                "compare it with the live server (--url, or -- COMMAND) or with a file (--tools)",
            ));
        };
        let tools = diff(&definitions(&approval.record), &definitions(&record));
        let rest =
            diff_documents("record", &without_definitions(&approval.record), &without_definitions(&record));
        Compared {
            before: format!("approved by {}", approval.approved_by),
            after: file.display().to_string(),
            different: !tools.is_empty() || !rest.is_empty(),
            tools,
            record: rest,
            findings: look(&record, None, &others),
        }
    };
    let accepted = report::accepted(&approval.map(|approval| approval.accepted_findings).unwrap_or_default());
    output.show_painted(&compared, || {
        let paint = Paint::detect();
        let mut text = report::changes(&compared.tools, paint) + &report::changes(&compared.record, paint);
        text.push_str(&report::findings(&compared.findings, &accepted, paint));
        if compared.different {
            let _ = writeln!(
                text,
                "✖ they differ\n  next: if it is meant, `deputize registry import --force` and `approve`; until then \
                 changed tools are not called"
            );
        } else {
            text.push_str("✔ no difference\n");
        }
        text
    })?;
    Ok(if compared.different { Exit::Failure } else { Exit::Ok })
}

/// A record, its tools by name, without what the diff of definitions shows already.
fn without_definitions(record: &ServerRecord) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    let mut by_name = serde_json::Map::new();
    for tool in &record.tools {
        let mut choices = serde_json::to_value(tool).unwrap_or_default();
        if let Value::Object(choices) = &mut choices {
            choices.remove("definition");
            choices.remove("tool_digest");
        }
        let name = tool.definition.get("name").and_then(Value::as_str).unwrap_or_default();
        by_name.insert(name.to_owned(), choices);
    }
    if let Value::Object(members) = &mut value {
        members.insert("tools".to_owned(), Value::Object(by_name));
        // That it is waiting for an approval is no change of what it says.
        members.remove("approved");
        members.retain(|_, member| !member.is_null());
    }
    value
}
