//! `deputize audit prove`: that a record is in the log, for somebody who does not have the log.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::log::{CheckpointVerifier, Hash, SignedCheckpoint, leaf_hash, verify_inclusion};
use serde::{Deserialize, Serialize};

use crate::commands::{
    data::{DataArgs, unreadable},
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};

/// Prints a proof, as JSON, that a record is in the log as it was signed. `audit verify --proof` checks it offline.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize audit prove 1234 > proof.json
  deputize audit verify --proof proof.json --key broker.example/log/1a2b3c4d+…

The index stands in every tool-call token (`log.index`) and in `deputize explain`.
The proof holds the record itself: who has it can read it.")]
pub struct Args {
    /// Index of the record
    index: u64,
    #[command(flatten)]
    data: DataArgs,
}

/// A record with everything that proves it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InclusionProof {
    /// Version and purpose of this format.
    pub(super) r#type: String,
    /// Index of the record.
    pub(super) index: u64,
    /// The record's bytes, base64.
    pub(super) entry: String,
    /// Hashes from the record to the root (RFC 9162 §2.1.3), base64.
    pub(super) hashes: Vec<String>,
    /// The signed checkpoint (C2SP tlog-checkpoint).
    pub(super) checkpoint: String,
    /// Who says to have signed it (C2SP signed-note verifier key): to be compared with what is known of the log.
    pub(super) key: Option<String>,
}

pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    let folder = args.data.find()?;
    let reader = folder.log()?;
    let verifier = folder.verifier()?;
    let note = folder.checkpoint_note().ok_or_else(|| {
        CommandError::failure(
            "the log has no checkpoint",
            "`deputize audit verify` says what is wrong with the log",
        )
    })?;
    let size = signed_size(&note, verifier.as_ref())?;
    if args.index >= reader.size() {
        return Err(CommandError::usage(
            format!("there is no record {}: the log has {}", args.index, reader.size()),
            "the newest ones are shown by `deputize audit tail`",
        ));
    }
    if args.index >= size {
        return Err(CommandError::failure(
            format!("record {} is not yet covered by a signed checkpoint", args.index),
            "try again in a second: the running broker signs then",
        ));
    }
    let hashes = reader.inclusion_proof(args.index, size).map_err(unreadable)?;
    let proof = InclusionProof {
        r#type: PROOF_TYPE.to_owned(),
        index: args.index,
        entry: STANDARD.encode(reader.entry(args.index).map_err(unreadable)?),
        hashes: hashes.iter().map(|hash| STANDARD.encode(hash)).collect(),
        checkpoint: note,
        key: verifier.as_ref().map(ToString::to_string),
    };
    if let Some(verifier) = &verifier {
        // A proof that does not hold must not leave the house.
        proof.check(verifier).map_err(|problem| {
            CommandError::failure(problem, "`deputize audit verify` says what is wrong with the log")
        })?;
    }
    let json = serde_json::to_string_pretty(&proof).unwrap_or_default();
    output.show(&proof, || json)?;
    Ok(Exit::Ok)
}

impl InclusionProof {
    /// Checks everything; gives the record's bytes and the checkpoint.
    pub(super) fn check(&self, verifier: &CheckpointVerifier) -> Result<(Vec<u8>, SignedCheckpoint), String> {
        if self.r#type != PROOF_TYPE {
            return Err(format!("not a proof of this kind: its type is not {PROOF_TYPE}"));
        }
        let checkpoint = verifier.verify(self.checkpoint.as_bytes()).map_err(|error| error.to_string())?;
        let entry = STANDARD.decode(&self.entry).map_err(|_| "the record is not base64".to_owned())?;
        let hashes: Option<Vec<Hash>> =
            self.hashes.iter().map(|text| STANDARD.decode(text).ok()?.try_into().ok()).collect();
        let hashes = hashes.ok_or("the hashes are not base64 of 32 bytes each")?;
        verify_inclusion(self.index, checkpoint.size(), &leaf_hash(&entry), &hashes, &checkpoint.root())
            .map_err(|error| format!("record {} is not proven: {error}", self.index))?;
        Ok((entry, checkpoint))
    }
}

fn signed_size(note: &str, verifier: Option<&CheckpointVerifier>) -> Result<u64, CommandError> {
    let malformed = |problem: &str| {
        CommandError::failure(
            format!("the checkpoint is not believed: {problem}"),
            "run `deputize audit verify`",
        )
    };
    match verifier {
        Some(verifier) => verifier
            .verify(note.as_bytes())
            .map(|record| record.size())
            .map_err(|error| malformed(&error.to_string())),
        // Without the key who reads the proof has to check the signature; they have to anyway.
        None => {
            note.lines().nth(1).and_then(|line| line.parse().ok()).ok_or_else(|| malformed("it has no size"))
        }
    }
}

const PROOF_TYPE: &str = "deputize-inclusion-proof/1";
