//! `deputize registry key new`: the key with which somebody approves.

use serde::Serialize;
use std::path::PathBuf;

use crate::commands::{
    exit::{CommandResult, Exit},
    key_pair::KeyPair,
    output::Output,
};

/// Makes keys of those who approve servers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(New),
}

/// Makes a key pair and prints what to put into the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  deputize registry key new alice --folder approvers
      writes approvers/alice.private.jwk.json (hers alone; better not on the broker's machine)
      and    approvers/alice.jwks.json (public; registry.approval_keys names it)

Publishers sign their manifests with such a key too. Nothing is ever overwritten.")]
struct New {
    /// Whose key it is
    name: String,
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

#[derive(Serialize)]
struct Made {
    private_key_file: PathBuf,
    jwks_file: PathBuf,
    kid: String,
}

/// Runs it.
///
/// # Errors
/// If a file is there already, or cannot be written.
pub fn run(args: Args, output: Output) -> CommandResult {
    let Command::New(args) = args.command;
    let pair = KeyPair::write(&args.folder, &args.name)?;
    let made = Made { private_key_file: pair.private_file, jwks_file: pair.public_file, kid: pair.kid };
    output.show(&made, || {
        format!(
            "private key  {} (for {} alone)\npublic key   {}\n\nadd to the configuration:\n\nregistry:\n  approval_keys:\n    - {}\n",
            made.private_key_file.display(),
            args.name,
            made.jwks_file.display(),
            serde_json::Value::from(made.jwks_file.display().to_string()),
        )
    })?;
    Ok(Exit::Ok)
}
