//! `deputize keys`: which keys a data folder holds. Shows public halves only.

use deputize_call::{keys::KeySet, sign::SigningKey};
use serde::Serialize;

use super::{
    data::{DataArgs, DataFolder},
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
    /// Print the public keys of a purpose as a JWKS: what a guard takes as its snapshot keys
    Jwks {
        /// What the keys sign
        #[arg(long, value_enum, default_value_t)]
        purpose: Purpose,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// What a key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// What guards are told of the registry
    #[default]
    Snapshot,
    /// Tool-call tokens
    Tokens,
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
    match args.command {
        Command::Ls(data) => list(&data, output),
        Command::Jwks { purpose, data } => print_jwks(purpose, &data, output),
    }
}

fn list(data: &DataArgs, output: Output) -> CommandResult {
    let folder = data.find()?;
    let mut keys = Vec::new();
    for (purpose, name, state) in [
        (Purpose::Tokens, "tool-call tokens", "signing, published"),
        (Purpose::Snapshot, "guards' snapshots", "signing, configured at guards"),
    ] {
        if let Some(key) = purpose.key(&folder)? {
            let (alg, kid) = (key.algorithm().as_str(), key.kid().to_owned());
            keys.push(Key { purpose: name, state, alg, kid });
        }
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
        return Err(none(&folder));
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

fn print_jwks(purpose: Purpose, data: &DataArgs, output: Output) -> CommandResult {
    let folder = data.find()?;
    let key = purpose.key(&folder)?.ok_or_else(|| none(&folder))?;
    let jwks = KeySet::new(vec![key.public().clone()]).to_jwks();
    output.show(&jwks, || format!("{jwks:#}"))?;
    Ok(Exit::Ok)
}

impl Purpose {
    fn key(self, folder: &DataFolder) -> Result<Option<SigningKey>, CommandError> {
        let files = KeyFiles::existing(&folder.folder);
        match self {
            Self::Snapshot => files.existing_snapshot_key(),
            Self::Tokens => files.existing_token_key(),
        }
        .map_err(unusable)
    }
}

fn none(folder: &DataFolder) -> CommandError {
    CommandError::failure(
        format!("{}: there are no keys", folder.folder.display()),
        "give the folder that `data_dir` of the configuration names; `deputize serve` makes them",
    )
}

fn unusable(error: KeyFileError) -> CommandError {
    CommandError::failure(error, "correct the file's mode or restore it from a copy")
}
