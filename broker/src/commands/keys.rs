//! `deputize keys`: which keys a data folder holds. Shows public halves only.

use serde::Serialize;

use super::{
    data::DataArgs,
    exit::{CommandError, CommandResult, Exit},
    output::{Columns, Output},
};
use crate::backends::key_files::{KeyFileError, KeyFiles};

/// Shows the keys of a data folder: their public halves only.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them: purpose, state, algorithm and key id
    #[command(
        after_help = "The verifier key of the log is what `deputize audit verify --key` takes: keep it where the log is not."
    )]
    Ls(DataArgs),
}

#[derive(Debug, Serialize)]
struct Key {
    purpose: &'static str,
    state: &'static str,
    alg: &'static str,
    /// Key id; of the log's key the whole verifier key (C2SP signed-note).
    kid: String,
}

/// Runs it.
///
/// # Errors
/// If there are none, or they cannot be read.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let Command::Ls(data) = args.command;
    let folder = data.find()?;
    let mut keys = Vec::new();
    if let Some(key) = KeyFiles::existing(&folder.folder).existing_token_key().map_err(unusable)? {
        keys.push(Key {
            purpose: "tool-call tokens",
            state: "signing, published",
            alg: key.algorithm().as_str(),
            kid: key.kid().to_owned(),
        });
    }
    if let Some(verifier) = folder.verifier()? {
        keys.push(Key {
            purpose: "log checkpoints",
            state: "signing",
            alg: "Ed25519",
            kid: verifier.to_string(),
        });
    }
    if keys.is_empty() {
        return Err(CommandError::failure(
            format!("{}: there are no keys", folder.folder.display()),
            "give the folder that `data_dir` of the configuration names; `deputize serve` makes them",
        ));
    }
    output.show(&keys, || {
        let mut columns = Columns::new(&["PURPOSE", "STATE", "ALG", "KID"]);
        for key in &keys {
            columns.row(&[key.purpose, key.state, key.alg, &key.kid]);
        }
        columns.to_string()
    })?;
    Ok(Exit::Ok)
}

fn unusable(error: KeyFileError) -> CommandError {
    CommandError::failure(error, "correct the file's mode or restore it from a copy")
}
