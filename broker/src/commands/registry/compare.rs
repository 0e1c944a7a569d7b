//! `deputize registry diff`: what changed between a record and what is there now, or what was approved.

use deputize_call::{action::Action, json::Object, resource};
use deputize_issuer::registry::{
    ServerRecord,
    diff::{ManifestDiff, diff, diff_documents},
    scan::{Finding, Subject, scan},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    import::{between, changes, definitions, look},
    offer::{Offer, SourceArgs},
    place::{self, PlaceArgs},
    report::{self, Paint},
};
use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};

/// Shows word by word what changed in a server's tools, prompts and resources: against the live server, a file, or what was approved.
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
    /// In definitions of tools and prompts, and in what is shown of resources.
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
        let findings = scan_offer(&record, &offer, &others);
        let tools = against_offer(&record, &offer);
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
        let tools = changes(&approval.record, &record);
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

/// What is different in what a server offers now. Of a server that lists no prompts or resources at all, nothing is
/// said of them: a saved answer to `tools/list` is only about tools. What a record names by a prefix is not new.
fn against_offer(record: &ServerRecord, offer: &Offer) -> ManifestDiff {
    let listing = &offer.listing;
    // A file may be a saved answer to `prompts/list` alone; a live server says all of it.
    let is_live = !listing.protocol.is_empty();
    let is_of_others_alone =
        listing.tools.is_empty() && !(listing.prompts.is_empty() && listing.resources.is_empty());
    let mut tools = ManifestDiff::default();
    if is_live || !is_of_others_alone {
        tools = diff(&definitions(record), &listing.tools.iter().collect::<Vec<_>>());
    }
    if listing.offers.prompts || !listing.prompts.is_empty() {
        let before: Vec<Object> = record.prompts.iter().map(|prompt| prompt.definition.clone()).collect();
        tools.extend(between(Action::GetPrompt, &before, &listing.prompts));
    }
    if listing.offers.resources || !listing.resources.is_empty() {
        let uri =
            |resource: &Object| resource.get("uri").and_then(Value::as_str).unwrap_or_default().to_owned();
        let exact = record.resources.iter().filter(|entry| resource::prefix_of(&entry.uri).is_none());
        let entries: BTreeMap<String, ()> =
            record.resources.iter().map(|entry| (entry.uri.clone(), ())).collect();
        let is_new_or_exact = |listed: &&Object| {
            // What no entry could name is for nobody to read, and needs no word; another record may have prefixes.
            let could_be_named = resource::check_entry(&uri(listed)).is_ok();
            could_be_named
                && resource::prefix_of(&uri(listed)).is_none()
                && resource::find(&entries, &uri(listed))
                    .is_none_or(|(entry, ())| resource::prefix_of(entry).is_none())
        };
        // What the server says of a resource beside its URI is not shown to anybody, and counts for nothing.
        let alone = |uri: String| Object::from_iter([("uri".to_owned(), Value::String(uri))]);
        let before: Vec<Object> = exact.map(|entry| alone(entry.uri.clone())).collect();
        let after: Vec<Object> =
            listing.resources.iter().filter(is_new_or_exact).map(|it| alone(uri(it))).collect();
        tools.extend(between(Action::ReadResource, &before, &after));
    }
    tools
}

fn scan_offer(record: &ServerRecord, offer: &Offer, others: &[ServerRecord]) -> Vec<Finding> {
    let listing = &offer.listing;
    let subject = Subject {
        server: &record.id,
        instructions: listing.instructions.as_deref(),
        tools: &listing.tools.iter().collect::<Vec<_>>(),
        prompts: &listing.prompts.iter().collect::<Vec<_>>(),
        resources: &listing.resources.iter().collect::<Vec<_>>(),
    };
    scan(&subject, &place::neighbours(others, &record.id))
}

/// A record, its tools by name, without what the diff of definitions shows already.
fn without_definitions(record: &ServerRecord) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    let choices = |record: Value| {
        let mut choices = record;
        if let Value::Object(choices) = &mut choices {
            for shown_already in
                ["definition", "tool_digest", "prompt_digest", "name", "title", "description"]
            {
                choices.remove(shown_already);
            }
        }
        choices
    };
    let json = |record: Result<Value, serde_json::Error>| choices(record.unwrap_or_default());
    let tools = record.tools.iter().map(|tool| (tool.name().to_owned(), json(serde_json::to_value(tool))));
    let prompts = record.prompts.iter().map(|it| (it.name().to_owned(), json(serde_json::to_value(it))));
    let resources = record.resources.iter().map(|it| (it.uri.clone(), json(serde_json::to_value(it))));
    let by_name = [
        ("tools", tools.collect::<serde_json::Map<_, _>>()),
        ("prompts", prompts.collect()),
        ("resources", resources.collect()),
    ];
    if let Value::Object(members) = &mut value {
        for (kind, records) in by_name {
            members.insert(kind.to_owned(), Value::Object(records));
        }
        // That it is waiting for an approval is no change of what it says.
        members.remove("approved");
        members.retain(|_, member| !member.is_null());
    }
    value
}
