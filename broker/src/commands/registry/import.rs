//! `deputize registry import`: writes a record of a server, not approved.

use deputize_call::{action::Action, json::Object, keys::KeySet};
use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    registry::{
        Publisher, Registry, ResourceRecord, ServerRecord,
        diff::{ManifestDiff, diff, diff_of},
        publisher,
        scan::{Finding, Subject, scan},
    },
};
use serde::Serialize;
use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use super::{
    draft::{self, CHANGE_ME, Draft, LeftOut, ToolNote, Wishes},
    offer::{Offer, SourceArgs},
    place::{self, PlaceArgs},
    record_text::{Notes, SCHEMA_FILE, record_text, schema},
    report::{self, Paint},
};
use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    input,
    output::{Output, clean},
};

/// Writes a record of a server as it is now, for you to complete and approve.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize registry import --url https://crm.example.com/mcp --id crm --tenant acme
  deputize registry import --id files --resource https://files.example.com/mcp -- npx -y @example/files-server
  deputize registry import --server-json server.json --publisher-keys publisher.jwks.json
  deputize registry import --tools tools-list.json --id crm --resource https://crm.example.com/mcp

The record says approved: false, and the broker issues nothing for it until `deputize registry approve`. Tiers are
proposals: nothing that the server says of itself makes one lower. An existing record is replaced only with --force;
its tiers, limits, owner and next hops stay as they are.")]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    wishes: Wishes,
    /// Where the record goes; by default ID.yaml in the registry's folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the record that is there
    #[arg(long)]
    force: bool,
    /// Public keys (JWKS) of the server's publisher, who must have signed exactly these tools
    #[arg(long, value_name = "FILE")]
    publisher_keys: Option<PathBuf>,
    /// The publisher's signature, where neither the server nor its server.json carries it
    #[arg(long, value_name = "FILE", requires = "publisher_keys")]
    publisher_signature: Option<PathBuf>,
}

#[derive(Serialize)]
struct Imported {
    file: PathBuf,
    id: String,
    source: String,
    protocol: String,
    publisher: Option<Publisher>,
    tools: Vec<ToolNote>,
    /// How many prompts, and how many entries of resources, it has.
    prompts: usize,
    resources: usize,
    left_out: Vec<LeftOut>,
    /// Against the record that was there.
    changes: Option<ManifestDiff>,
    findings: Vec<Finding>,
    /// What stands in the way of an approval.
    to_do: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// If the source gives no tools, the publisher's signature does not hold, or the file may not be written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let registry = args.place.find()?;
    let offer = args.source.gather().await?;
    let id = draft::id(&args.wishes, &offer)?;
    let mut others: Vec<ServerRecord> = Vec::new();
    let mut before = None;
    for (file, record) in place::records(&registry)? {
        if record.id == id { before = Some((file, record)) } else { others.push(record) }
    }
    let file = args.out.clone().or_else(|| before.as_ref().map(|(file, _)| file.clone()));
    let file = file.unwrap_or_else(|| registry.folder.join(format!("{id}.yaml")));
    if file.exists() && !args.force {
        return Err(CommandError::failure(
            format!("{} is there already", file.display()),
            format!(
                "look at `deputize registry diff {id}`; --force replaces it and keeps your tiers, limits and owner"
            ),
        ));
    }
    let before = before.map(|(_, record)| record);
    let publisher = signed_by(&args, &offer, before.as_ref())?;
    let draft = draft::draft(&args.wishes, &offer, before.as_ref(), publisher)?;
    let findings = look(&draft.record, offer.listing.instructions.as_deref(), &others);
    let notes = notes(&draft, &offer);
    place::write_file(&file, &record_text(&draft.record, &notes)?)?;
    if let Some(folder) = file.parent() {
        place::write_file(&folder.join(SCHEMA_FILE), &schema()?)?;
    }
    let imported = Imported {
        to_do: to_do(&draft.record, &others),
        changes: before.as_ref().map(|before| changes(before, &draft.record)),
        id: draft.record.id.clone(),
        file,
        source: offer.source,
        protocol: offer.listing.protocol,
        publisher: draft.record.publisher,
        tools: draft.tools,
        prompts: draft.record.prompts.len(),
        resources: draft.record.resources.len(),
        left_out: draft.left_out,
        findings,
    };
    output.show_painted(&imported, || imported.to_text(Paint::detect()))?;
    Ok(Exit::Ok)
}

/// Scans a record against the other servers.
pub fn look(record: &ServerRecord, instructions: Option<&str>, others: &[ServerRecord]) -> Vec<Finding> {
    let tools = definitions(record);
    let prompts: Vec<&Object> = record.prompts.iter().map(|prompt| &prompt.definition).collect();
    let shown: Vec<Object> = record.resources.iter().map(ResourceRecord::shown).collect();
    let resources: Vec<&Object> = shown.iter().collect();
    let subject =
        Subject { server: &record.id, instructions, tools: &tools, prompts: &prompts, resources: &resources };
    scan(&subject, &place::neighbours(others, &record.id))
}

/// The definitions of a record's tools.
pub fn definitions(record: &ServerRecord) -> Vec<&Object> {
    record.tools.iter().map(|tool| &tool.definition).collect()
}

/// What changed between two records: in tools, then in prompts, then in resources.
pub fn changes(before: &ServerRecord, after: &ServerRecord) -> ManifestDiff {
    let prompts = |record: &ServerRecord| -> Vec<Object> {
        record.prompts.iter().map(|prompt| prompt.definition.clone()).collect()
    };
    let resources = |record: &ServerRecord| -> Vec<Object> {
        record.resources.iter().map(ResourceRecord::shown).collect()
    };
    let mut all = diff(&definitions(before), &definitions(after));
    all.extend(between(Action::GetPrompt, &prompts(before), &prompts(after)));
    all.extend(between(Action::ReadResource, &resources(before), &resources(after)));
    all
}

/// What changed between two lists of prompts or resources.
pub fn between(action: Action, before: &[Object], after: &[Object]) -> ManifestDiff {
    diff_of(action, &before.iter().collect::<Vec<_>>(), &after.iter().collect::<Vec<_>>())
}

/// What stands in the way of an approval: what the registry would refuse, and what only an operator can say.
pub fn to_do(record: &ServerRecord, others: &[ServerRecord]) -> Vec<String> {
    let mut to_do = Vec::new();
    for (name, text) in [("owner", &record.owner), ("purpose", &record.purpose), ("tenant", &record.tenant)] {
        if text == CHANGE_ME {
            to_do.push(format!("say {name}"));
        }
    }
    let mut all: Vec<ServerRecord> =
        others.iter().filter(|other| other.approved && other.id != record.id).cloned().collect();
    all.push(ServerRecord { approved: true, ..record.clone() });
    if let Err(problems) = Registry::build(all) {
        let own = problems.into_iter().filter(|problem| problem.server == record.id);
        to_do.extend(own.map(|problem| match problem.tool {
            Some(tool) => format!("tool {tool:?}: {}", problem.problem),
            None => problem.problem,
        }));
    }
    to_do
}

/// The publisher's signature, verified where there are keys for it. Who has signed once signs always.
fn signed_by(
    args: &Args,
    offer: &Offer,
    before: Option<&ServerRecord>,
) -> Result<Option<Publisher>, CommandError> {
    let Some(file) = &args.publisher_keys else {
        let signed_before = before.and_then(|record| record.publisher.as_ref());
        if let Some(publisher) = signed_before {
            return Err(CommandError::failure(
                format!("the record was imported with the signature of {}", publisher.name),
                "give --publisher-keys again, or take `publisher` out of the record if it is no longer to be demanded",
            ));
        }
        return Ok(None);
    };
    let keys = input::file_text(file)?;
    let keys = KeySet::from_jwks(keys.as_bytes()).map_err(|error| {
        CommandError::failure(
            format!("{}: {error}", file.display()),
            "give a JWKS with the publisher's public keys",
        )
    })?;
    let from_file = args.publisher_signature.as_deref().map(input::file_text).transpose()?;
    let signature = from_file
        .as_ref()
        .map(|text| text.as_str())
        .or(offer.listing.signature.as_deref())
        .or(offer.described.signature.as_deref());
    let refused = |error: &dyn std::fmt::Display| {
        CommandError::new(
            Exit::Denied,
            error,
            "do not import it; ask the publisher for a signature over exactly these tools",
        )
    };
    let Some(signature) = signature else {
        return Err(refused(
            &"nobody has signed this manifest: neither the server nor a server.json carries a signature",
        ));
    };
    let tools: Vec<&Object> = offer.listing.tools.iter().collect();
    let now = SystemClock::start().now_seconds();
    publisher::verify(signature, &tools, &keys, now).map(Some).map_err(|error| refused(&error))
}

fn notes(draft: &Draft, offer: &Offer) -> Notes {
    let id = &draft.record.id;
    let mut head = vec![
        format!("Imported from {}.", offer.source),
        format!(
            "Not approved: complete it, then `deputize registry approve {id}`. Tiers and effects are proposals."
        ),
    ];
    for left in &draft.left_out {
        head.push(format!("Left out: {:?}: {}", left.name, left.problem));
    }
    let tools = draft.tools.iter().map(|tool| {
        let reasons = tool.reasons.iter().map(|reason| format!("{}: {reason}", tool.tier));
        let remarks = tool
            .remarks
            .iter()
            .map(|remark| format!("inputSchema{}: {}: {}", remark.pointer, remark.problem, remark.advice));
        (tool.name.clone(), reasons.chain(remarks).collect())
    });
    Notes { tools: tools.collect(), head }
}

impl Imported {
    fn to_text(&self, paint: Paint) -> String {
        let mut text = String::new();
        for tool in &self.tools {
            let kept = if tool.kept { " (kept)" } else { "" };
            let reasons = tool.reasons.join("; ");
            let _ = writeln!(text, "  {:8} {}{kept}  {}", tool.tier, clean(&tool.name), clean(&reasons));
            for remark in &tool.remarks {
                let _ = writeln!(
                    text,
                    "           ! inputSchema{}: {}",
                    clean(&remark.pointer),
                    clean(&remark.problem)
                );
            }
        }
        for left in &self.left_out {
            let _ = writeln!(text, "✖ left out {}: {}", clean(&left.name), clean(&left.problem));
        }
        if let Some(publisher) = &self.publisher {
            let _ = writeln!(
                text,
                "✔ signed by its publisher as {} {}",
                clean(&publisher.name),
                clean(&publisher.version)
            );
        }
        if let Some(changes) = self.changes.as_ref().filter(|changes| !changes.is_empty()) {
            let _ = writeln!(text, "\nchanged since the record that was there:");
            text.push_str(&report::changes(changes, paint));
        }
        text.push_str(&report::findings(&self.findings, &BTreeSet::new(), paint));
        let _ = writeln!(
            text,
            "✔ {} written, not approved: tools {}, prompts {}, resources {}",
            self.file.display(),
            self.tools.len(),
            self.prompts,
            self.resources
        );
        for to_do in &self.to_do {
            let _ = writeln!(text, "  to do: {}", clean(to_do));
        }
        let _ = writeln!(text, "  next: complete it, then `deputize registry approve {}`", clean(&self.id));
        text
    }
}
