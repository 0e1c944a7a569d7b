//! `deputize registry approve`: shows what is approved, asks, and signs it.

use deputize_call::{digest::Digest, level::Level, sign::SigningKey};
use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    registry::{
        ServerRecord, Tier,
        approval::{Approval, SignedApproval},
        diff::ManifestDiff,
        scan::Finding,
    },
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use super::{
    import::{changes, look, to_do},
    place::{self, PlaceArgs},
    record_text::with_approval,
    report::{self, Paint},
};
use crate::{
    commands::{
        exit::{CommandError, CommandResult, Exit},
        input,
        output::{Output, clean},
    },
    config::registry::RegistryFolder,
};

/// Approves a record as it stands: shows it, asks, and signs it with your approval key.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize registry approve crm --key alice.private.jwk.json --by alice --reason 'reviewed, ticket 4711'
  deputize registry approve crm --key … --by alice --reason … --accept F-0123456789 --yes

Findings of severity high must be accepted one by one with --accept; an id holds for the text that it was given for.
The broker refuses a record that differs from what was signed, and an approval older than one that was in force.
Exit code 3: there are findings that nobody accepted.")]
pub struct Args {
    /// Id of the server, or the file of its record
    server: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Your approval key (private JWK); `deputize registry key new` makes one
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who approves
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// Accept a finding of severity high
    #[arg(long = "accept", value_name = "FINDING")]
    accept: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Approved {
    id: String,
    version: String,
    manifest_digest: Digest,
    serial: u64,
    approved_by: String,
    reason: String,
    signed: bool,
    approval_file: Option<PathBuf>,
    accepted_findings: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// If the record is not complete, has findings that nobody accepted, or cannot be signed.
pub fn run(args: Args, output: Output) -> CommandResult {
    let registry = args.place.find()?;
    let (file, record, others) = place::record(&registry, &args.server)?;
    let key = approval_key(&args, &registry)?;
    let record = ServerRecord { approved: true, ..record };
    let to_do = to_do(&record, &others);
    if !to_do.is_empty() {
        return Err(CommandError::configuration(
            format!("{}: it cannot be approved as it is:\n  {}", file.display(), to_do.join("\n  ")),
            "complete the record, then approve it",
        ));
    }
    // What cannot be read any more is no reason to refuse a new approval; its serial is older than now.
    let previous = place::approval(&registry, &record.id).ok().flatten();
    let findings = look(&record, None, &others);
    let accepted = check_findings(&args, &findings)?;
    let shown = overview(&record, previous.as_ref(), &findings, &accepted);
    confirm(&args, &record, &shown)?;

    let text = approved_text(&file)?;
    let manifest_digest = record
        .digest_of_manifest()
        .map_err(|error| CommandError::failure(error, "correct the record's version"))?;
    let now_ms = SystemClock::start().now_ms();
    let approval = Approval {
        serial: previous.map_or(now_ms, |previous| now_ms.max(previous.serial + 1)),
        approved_by: args.by,
        reason: args.reason,
        accepted_findings: accepted.into_iter().collect(),
        manifest_digest,
        record,
    };
    let mut approval_file = None;
    if let Some(key) = &key {
        let signed = SignedApproval::sign(&approval, key)
            .map_err(|error| CommandError::failure(error, "correct the record"))?;
        let signed = serde_json::to_string_pretty(&signed)
            .map_err(|error| CommandError::failure(error, "report this"))?;
        let place = registry.approval_file(&approval.record.id);
        place::write_file(&place, &(signed + "\n"))?;
        approval_file = Some(place);
    }
    // Last: until the record says so too, nothing is issued for it.
    place::write_file(&file, &text)?;
    let approved = Approved {
        id: approval.record.id,
        version: approval.record.version,
        manifest_digest,
        serial: approval.serial,
        approved_by: approval.approved_by,
        reason: approval.reason,
        signed: key.is_some(),
        approval_file,
        accepted_findings: approval.accepted_findings,
    };
    output.show(&approved, || approved.to_text())?;
    Ok(Exit::Ok)
}

/// The key must be one of those that the broker goes by.
fn approval_key(args: &Args, registry: &RegistryFolder) -> Result<Option<SigningKey>, CommandError> {
    let key = args.key.as_deref().map(input::private_key).transpose()?;
    match (&key, &registry.approval_keys) {
        (None, Some(_)) => Err(CommandError::usage(
            "approvals are signed here",
            "give --key with your approval key; `deputize registry key new` makes one",
        )),
        (Some(key), Some(known))
            if known.iter().all(|known| known.thumbprint() != key.public().thumbprint()) =>
        {
            Err(CommandError::failure(
                "this key is not among registry.approval_keys: the broker would refuse its approval",
                "add its public half to the configuration, or use another key",
            ))
        }
        _ => Ok(key),
    }
}

/// Every finding of severity high is accepted by its id, and no id is accepted that is not there.
fn check_findings(args: &Args, findings: &[Finding]) -> Result<BTreeSet<String>, CommandError> {
    let accepted = report::accepted(&args.accept);
    let is_there = |id: &&String| findings.iter().any(|finding| finding.id == **id);
    if let Some(unknown) = accepted.iter().find(|id| !is_there(id)) {
        return Err(CommandError::usage(
            format!("there is no finding {unknown}"),
            "an id holds for one text: look at `deputize registry show` again",
        ));
    }
    let open = report::unaccepted(findings, &accepted);
    if open.is_empty() {
        return Ok(accepted);
    }
    let list: Vec<Finding> = open.into_iter().cloned().collect();
    let ids: Vec<String> = list.iter().map(|finding| format!("--accept {}", finding.id)).collect();
    Err(CommandError::new(
        Exit::Denied,
        format!(
            "findings of severity high that nobody accepted:\n{}",
            report::findings(&list, &accepted, Paint::none())
        ),
        format!("have them corrected; or, if you know why they are there: {}", ids.join(" ")),
    ))
}

/// What is approved, for whoever approves.
fn overview(
    record: &ServerRecord,
    previous: Option<&Approval>,
    findings: &[Finding],
    accepted: &BTreeSet<String>,
) -> String {
    let paint = Paint::detect();
    let mut text = format!(
        "{} {} at {} (tenant {}, owner {})\n",
        clean(&record.id),
        clean(&record.version),
        clean(&record.resource),
        clean(&record.tenant),
        clean(&record.owner)
    );
    for tool in &record.tools {
        let name = tool.definition.get("name").and_then(Value::as_str).unwrap_or_default();
        let level = tool.level.unwrap_or(tool.tier.least_level()).max(tool.tier.least_level());
        let _ =
            writeln!(text, "  {:8} {level}  {:5}  {}", tool.tier.as_str(), tool.effect.as_str(), clean(name));
    }
    for (noun, tier, level, name) in prompts_and_resources(record) {
        let _ = writeln!(text, "  {:8} {level}  {noun:8}  {}", tier.as_str(), clean(&name));
    }
    let changed: Option<ManifestDiff> = previous.map(|previous| changes(&previous.record, record));
    match &changed {
        None => text.push_str("it was never approved before\n"),
        Some(changes) if changes.is_empty() => {
            text.push_str("its tools, prompts and resources are those that were approved before\n")
        }
        Some(changes) => {
            text.push_str("changed since it was approved:\n");
            text.push_str(&report::changes(changes, paint));
        }
    }
    text.push_str(&report::findings(findings, accepted, paint));
    text
}

/// What is approved beside tools: what it is, tier, level, and name or URI.
pub fn prompts_and_resources(record: &ServerRecord) -> Vec<(&'static str, Tier, Level, String)> {
    let level =
        |tier: Tier, level: Option<Level>| level.unwrap_or(tier.least_level()).max(tier.least_level());
    let prompts = record
        .prompts
        .iter()
        .map(|prompt| ("prompt", prompt.tier, level(prompt.tier, prompt.level), prompt.name().to_owned()));
    let resources = record
        .resources
        .iter()
        .map(|entry| ("resource", entry.tier, level(entry.tier, entry.level), entry.uri.clone()));
    prompts.chain(resources).collect()
}

fn confirm(args: &Args, record: &ServerRecord, shown: &str) -> Result<(), CommandError> {
    // On stderr: stdout is for the result.
    let _ = io::stderr().write_all(shown.as_bytes());
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage(
            "nobody is there to be asked",
            "give --yes once you have looked at it",
        ));
    }
    let _ = write!(io::stderr(), "approve it? type its id: ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == record.id {
        return Ok(());
    }
    Err(CommandError::new(Exit::Denied, "not approved", "type the id of the server to approve it"))
}

/// The record's file with `approved: true` in it.
fn approved_text(file: &Path) -> Result<String, CommandError> {
    let text = input::file_text(file)?;
    if file.extension().is_some_and(|ending| ending == "json") {
        let mut document: Value =
            serde_json::from_str(&text).map_err(|error| CommandError::failure(error, "correct the file"))?;
        if let Value::Object(members) = &mut document {
            members.insert("approved".to_owned(), Value::Bool(true));
        }
        return Ok(format!("{document:#}\n"));
    }
    let says_otherwise =
        text.lines().any(|line| line.starts_with("approved:") && !line.starts_with("approved: true"));
    match with_approval(&text) {
        Some(changed) => Ok(changed),
        None if !says_otherwise => Ok(text.to_string()),
        None => Err(CommandError::failure(
            format!("{}: cannot be changed: it says approved in an unusual way", file.display()),
            "write approved: true into it yourself, then approve it",
        )),
    }
}

impl Approved {
    fn to_text(&self) -> String {
        let how = if self.signed { "approved and signed" } else { "approved, without a signature" };
        format!(
            "✔ {} {} {how} by {}\n  manifest {}\n  next: send the broker SIGHUP\n",
            self.id, self.version, self.approved_by, self.manifest_digest
        )
    }
}
