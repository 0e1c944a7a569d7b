//! `deputize audit verify`: that the log is what was signed, record by record.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::log::{CheckpointVerifier, Finding, LogReader, Verified};
use serde::Serialize;
use std::path::{Path, PathBuf};

use super::{Record, prove::InclusionProof};
use crate::{
    commands::{
        data::{DataArgs, DataFolder},
        exit::{CommandError, CommandResult, Exit},
        output::{Facts, Output},
        progress,
    },
    config::read,
};

/// Verifies the whole log: checksums, order, the Merkle tree and its tiles, the signed checkpoint and the anchor.
/// Names every record at fault. With --proof, verifies one record without the log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize audit verify
  deputize audit verify --data /copy/of/data --key broker.example/log/1a2b3c4d+…
  deputize audit verify --proof proof.json --key verifier.key

Exit code 0: everything agrees. 1: something does not.")]
pub struct Args {
    #[command(flatten)]
    data: DataArgs,
    /// Verify this proof (of `audit prove`) instead
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Verifier key of the log, or a file with it [default: from the key in the data folder]
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
    /// The copy of the newest checkpoint outside the folder [default: `audit.anchor` of the configuration]
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Check no signatures: says nothing about who wrote the log
    #[arg(long, conflicts_with_all = ["key", "anchor", "proof"])]
    without_signatures: bool,
}

#[derive(Debug, Serialize)]
struct Verdict<'v> {
    verified: bool,
    records: Option<u64>,
    bytes: Option<u64>,
    root: Option<String>,
    origin: Option<&'v str>,
    signed_records: Option<u64>,
    anchored_records: Option<u64>,
    key: Option<String>,
    findings: Vec<Fault<'v>>,
}

#[derive(Debug, Serialize)]
struct Fault<'v> {
    record: Option<u64>,
    file: &'v Path,
    reason: &'v str,
}

pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    if let Some(file) = &args.proof {
        return verify_proof(args, file, output);
    }
    let folder = args.data.find()?;
    let reader = folder.log_as_it_is()?;
    let verifier = if args.without_signatures { None } else { Some(verifier(args, &folder)?) };
    let anchor = args.anchor.as_deref().or(folder.anchor.as_deref());
    // Of a running log the last group may be under way while it is read. Damage stays; that does not.
    let verified =
        verify(&reader, verifier.as_ref(), anchor).or_else(|_| verify(&reader, verifier.as_ref(), anchor));
    let key = verifier.as_ref().map(ToString::to_string);
    match &verified {
        Ok(verified) => {
            output.show(&sound(verified, key), || sound_text(verified, verifier.as_ref(), anchor))?;
            Ok(Exit::Ok)
        }
        Err(findings) => {
            output.show(&damaged(findings, key), || damaged_text(findings))?;
            Ok(Exit::Failure)
        }
    }
}

fn verify(
    reader: &LogReader,
    verifier: Option<&CheckpointVerifier>,
    anchor: Option<&Path>,
) -> Result<Verified, Vec<Finding>> {
    let bar = progress::bytes("verifying");
    let verified = reader.verify(verifier, anchor, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    verified
}

fn verify_proof(args: &Args, file: &Path, output: Output) -> CommandResult {
    let no_proof = |problem: String| {
        CommandError::failure(
            format!("{}: {problem}", file.display()),
            "make another one with `deputize audit prove`",
        )
    };
    let text = read::read_text(file).map_err(|error| no_proof(error.message))?;
    let proof: InclusionProof = serde_json::from_str(&text).map_err(|error| no_proof(error.to_string()))?;
    let verifier = match (&args.key, args.data.find().and_then(|folder| folder.verifier())) {
        (Some(key), _) => parse_key(key)?,
        (None, Ok(Some(verifier))) => verifier,
        (None, _) => {
            // The key inside the proof is its own witness: it must be known from elsewhere.
            let own = proof.key.as_deref().unwrap_or("no key");
            let next = format!("if you know it to be the log's, give --key '{own}'");
            return Err(CommandError::usage(format!("whose signature? the proof names {own}"), next));
        }
    };
    let (entry, checkpoint) = proof.check(&verifier).map_err(no_proof)?;
    let record = Record::read(proof.index, &entry);
    let shown = serde_json::json!({
        "verified": true,
        "origin": checkpoint.checkpoint().origin,
        "size": checkpoint.size(),
        "record": record,
    });
    output.show(&shown, || {
        let origin = &checkpoint.checkpoint().origin;
        format!(
            "✔ record {} is in the log {origin} of {} records\n{}",
            proof.index,
            checkpoint.size(),
            record.line()
        )
    })?;
    Ok(Exit::Ok)
}

fn verifier(args: &Args, folder: &DataFolder) -> Result<CheckpointVerifier, CommandError> {
    if let Some(key) = &args.key {
        return parse_key(key);
    }
    folder.verifier()?.ok_or_else(|| {
        CommandError::failure(
            "the log's checkpoint, or the key that verifies it, is missing",
            "give --key (`deputize keys ls` prints it on the broker), or --without-signatures",
        )
    })
}

fn parse_key(text: &str) -> Result<CheckpointVerifier, CommandError> {
    let from_file = if text.contains('+') { None } else { read::read_text(Path::new(text)).ok() };
    CheckpointVerifier::parse(from_file.as_deref().unwrap_or(text).trim()).map_err(|error| {
        CommandError::usage(
            format!("--key: {error}"),
            "give name+hash+key, as `deputize keys ls` prints it, or a file with it",
        )
    })
}

fn sound(verified: &Verified, key: Option<String>) -> Verdict<'_> {
    Verdict {
        verified: true,
        records: Some(verified.size),
        bytes: Some(verified.bytes),
        root: Some(STANDARD.encode(verified.root)),
        origin: verified.origin.as_deref(),
        signed_records: verified.signed,
        anchored_records: verified.anchored,
        key,
        findings: Vec::new(),
    }
}

fn damaged(findings: &[Finding], key: Option<String>) -> Verdict<'_> {
    let faults = findings.iter().map(|finding| Fault {
        record: finding.index,
        file: &finding.file,
        reason: &finding.reason,
    });
    Verdict {
        verified: false,
        records: None,
        bytes: None,
        root: None,
        origin: None,
        signed_records: None,
        anchored_records: None,
        key,
        findings: faults.collect(),
    }
}

fn sound_text(verified: &Verified, verifier: Option<&CheckpointVerifier>, anchor: Option<&Path>) -> String {
    let mut facts = Facts::default();
    facts.add_some("log", verified.origin.as_deref());
    facts.add("root", STANDARD.encode(verified.root));
    match (verifier, verified.signed) {
        (Some(verifier), Some(signed)) => {
            let later = verified.size.saturating_sub(signed);
            let later =
                if later == 0 { String::new() } else { format!(", {later} newer ones are not signed yet") };
            facts.add("signed", format!("{signed} records{later}")).add("by key", verifier.to_string())
        }
        _ => facts.add("signed", "not checked: who wrote this log is not known"),
    };
    match (anchor, verified.anchored) {
        (Some(anchor), Some(anchored)) => {
            facts.add("anchor", format!("{anchored} records, {}", anchor.display()))
        }
        _ => facts
            .add("anchor", "none: a rollback of the whole folder would not be seen (configure audit.anchor)"),
    };
    format!(
        "✔ {} records ({} bytes): every checksum, hash and tile agrees\n{facts}",
        verified.size, verified.bytes
    )
}

fn damaged_text(findings: &[Finding]) -> String {
    let mut text = format!(
        "✖ the log does not hold: {} found\n",
        match findings.len() {
            1 => "one fault".to_owned(),
            count => format!("{count} faults"),
        }
    );
    for finding in findings {
        text.push_str(&format!("  {}\n", crate::commands::output::clean(&finding.to_string())));
    }
    text.push_str(
        "  next: keep this folder as evidence; restore the named files from a copy and verify again\n",
    );
    text
}
