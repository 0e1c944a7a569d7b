//! `deputize keys`: which keys a data folder holds, and what becomes of them. Shows public halves only.

mod publish;
mod rotate;
mod spiffe;
mod web_identity;

use deputize_call::{
    keys::{KeySet, PublicKey},
    sign::SigningKey,
};
use deputize_issuer::clock::{Clock as _, SystemClock};
use serde::Serialize;

use super::{
    data::{DataArgs, DataFolder},
    exit::{CommandError, CommandResult, Exit},
    output::{Columns, Output},
};
use crate::backends::key_files::{KeyFileError, KeyFiles};
use web_identity::WebIdentitySet;

/// Shows the keys of a data folder, their public halves only; replaces those that AWS knows and those that sign SVIDs.
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
    Rotate(rotate::Args),
    Prepare(spiffe::PrepareArgs),
    Activate(spiffe::ActivateArgs),
    Taint(spiffe::TaintArgs),
    Revoke(spiffe::RevokeArgs),
    Publish(publish::Args),
}

/// What a key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Purpose {
    /// What guards are told of the registry
    #[default]
    Snapshot,
    /// Tool-call tokens
    Tokens,
    /// The identity that AWS knows us by
    WebIdentity,
}

#[derive(Debug, Serialize)]
struct Key {
    purpose: &'static str,
    state: String,
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
        Command::Rotate(args) => rotate::run(&args, output),
        Command::Prepare(args) => spiffe::prepare(&args, output),
        Command::Activate(args) => spiffe::activate(&args, output),
        Command::Taint(args) => spiffe::taint(&args, output),
        Command::Revoke(args) => spiffe::revoke(&args, output),
        Command::Publish(args) => publish::run(&args, output),
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
            keys.push(Key { purpose: name, state: state.to_owned(), alg, kid });
        }
    }
    keys.extend(WebIdentitySet::read(&folder.folder, now_seconds())?.keys.into_iter().map(|key| Key {
        purpose: "web identity",
        state: key.says(),
        alg: key.alg,
        kid: key.kid,
    }));
    keys.extend(spiffe::read(&folder.folder)?.into_iter().map(|key| Key {
        purpose: key.purpose,
        state: key.says(),
        alg: "ES256",
        kid: key.id,
    }));
    if let Some(verifier) = folder.verifier()? {
        keys.push(Key {
            purpose: "log checkpoints",
            state: "signing".to_owned(),
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
            columns.row(&[key.purpose, &key.state, key.alg, &key.kid]);
        }
        columns.to_string()
    })?;
    Ok(Exit::Ok)
}

fn print_jwks(purpose: Purpose, data: &DataArgs, output: Output) -> CommandResult {
    let folder = data.find()?;
    let published: Vec<PublicKey> = match purpose.key(&folder)? {
        Some(key) => vec![key.public().clone()],
        None => Vec::new(),
    };
    let published = match purpose {
        Purpose::WebIdentity => WebIdentitySet::read(&folder.folder, now_seconds())?.published,
        Purpose::Snapshot | Purpose::Tokens => KeySet::new(published),
    };
    if published.iter().next().is_none() {
        return Err(none(&folder));
    }
    let jwks = published.to_jwks();
    output.show(&jwks, || format!("{jwks:#}"))?;
    Ok(Exit::Ok)
}

impl Purpose {
    fn key(self, folder: &DataFolder) -> Result<Option<SigningKey>, CommandError> {
        let files = KeyFiles::existing(&folder.folder);
        match self {
            Self::Snapshot => files.existing_snapshot_key(),
            Self::Tokens => files.existing_token_key(),
            // It has several, which come and go.
            Self::WebIdentity => Ok(None),
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

fn now_seconds() -> u64 {
    SystemClock::start().now_seconds()
}

fn unusable(error: KeyFileError) -> CommandError {
    CommandError::failure(error, "correct the file's mode or restore it from a copy")
}
