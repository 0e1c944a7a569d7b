//! `deputize client`: makes the credentials of an OAuth client of the broker.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    digest::sha256,
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::clock;
use serde::Serialize;
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

use super::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};
use crate::backends::key_files::write_new;

/// Makes credentials of clients: agent platforms, agents, guards of MCP servers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
}

/// Makes a client's key pair and prints what to put into the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize client add support-bot --folder clients
      writes clients/support-bot.private.jwk.json (give it to the client, to nobody else)
      and    clients/support-bot.jwks.json (public; the configuration names it)
  deputize client add quick-try --secret
      prints a bootstrap secret once; allow_client_secrets: true would have to permit it

Nothing is ever overwritten.")]
struct Add {
    /// Its `client_id`
    id: String,
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Tenant of the client
    #[arg(long, default_value = "default")]
    tenant: String,
    /// A bootstrap secret instead of a key: weaker, for first steps
    #[arg(long)]
    secret: bool,
}

#[derive(Serialize)]
struct Added {
    client_id: String,
    private_key_file: Option<PathBuf>,
    jwks_file: Option<PathBuf>,
    kid: Option<String>,
    /// No `Debug` on this type: it is shown once, on purpose, and nowhere else.
    secret: Option<String>,
    secret_sha256: Option<String>,
    /// For the configuration.
    configuration: String,
}

/// Runs it.
///
/// # Errors
/// If the id cannot be one, a file is there already, or it cannot be written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let Command::Add(args) = args.command;
    check_id(&args.id)?;
    let added = if args.secret { with_secret(&args)? } else { with_key(&args)? };
    output.show(&added, || added.to_text())?;
    Ok(Exit::Ok)
}

fn check_id(id: &str) -> Result<(), CommandError> {
    if id.is_empty() || id.len() > 256 || id.starts_with("user:") || id.chars().any(char::is_control) {
        return Err(CommandError::usage(
            format!("{id:?} cannot be a client id"),
            "give 1 to 256 characters that do not begin with user:",
        ));
    }
    Ok(())
}

fn with_key(args: &Add) -> Result<Added, CommandError> {
    let name = file_name(&args.id);
    let private_file = args.folder.join(format!("{name}.private.jwk.json"));
    let public_file = args.folder.join(format!("{name}.jwks.json"));
    // Looked at before anything is made: no private key without its public half. The writing itself is exclusive.
    if let Some(taken) =
        [&private_file, &public_file].into_iter().find(|file| file.symlink_metadata().is_ok())
    {
        return Err(CommandError::failure(
            format!("{} is there already", taken.display()),
            "nothing is overwritten: choose another --folder, or move it away if the client has a new key anyway",
        ));
    }
    let cannot = |error: &dyn std::fmt::Display| {
        CommandError::failure(error, "make the folder writable, or give another --folder")
    };
    std::fs::create_dir_all(&args.folder).map_err(|error| cannot(&error))?;
    let key = SigningKey::generate(SigningAlgorithm::ES256).map_err(|error| cannot(&error))?;
    let private = key.to_private_jwk().map_err(|error| cannot(&error))?;
    let public = KeySet::new(vec![key.public().clone()]).to_jwks();
    write_new(&private_file, private.as_bytes()).map_err(|error| cannot(&error))?;
    write_public(&public_file, &format!("{public:#}\n")).map_err(|error| cannot(&error))?;
    // The configuration may stand in another folder than this command.
    let jwks_file = public_file.canonicalize().map_err(|error| cannot(&error))?.display().to_string();
    Ok(Added {
        client_id: args.id.clone(),
        private_key_file: Some(private_file),
        kid: Some(key.kid().to_owned()),
        secret: None,
        secret_sha256: None,
        configuration: configuration(args, "jwks_file", &jwks_file),
        jwks_file: Some(public_file),
    })
}

fn with_secret(args: &Add) -> Result<Added, CommandError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    clock::fill_random(&mut *bytes).map_err(|error| CommandError::failure(error, "try again"))?;
    let secret = format!("dps_{}", URL_SAFE_NO_PAD.encode(*bytes));
    let digest = URL_SAFE_NO_PAD.encode(sha256(secret.as_bytes()));
    Ok(Added {
        client_id: args.id.clone(),
        private_key_file: None,
        jwks_file: None,
        kid: None,
        configuration: configuration(args, "secret_sha256", &digest),
        secret: Some(secret),
        secret_sha256: Some(digest),
    })
}

/// A JSON string is a YAML string too.
fn configuration(args: &Add, credential: &str, value: &str) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "clients:\n  - id: {}\n    tenant: {}\n    {credential}: {}\n    subject_audiences: []  # aud of the user tokens that it may bring\n    may_call: []           # - resource: https://server.example/mcp\n",
        quote(&args.id),
        quote(&args.tenant),
        quote(value),
    )
}

impl Added {
    fn to_text(&self) -> String {
        let mut text = String::new();
        if let (Some(private), Some(public)) = (&self.private_key_file, &self.jwks_file) {
            let _ = writeln!(text, "private key  {} (for the client alone)", private.display());
            let _ = writeln!(text, "public key   {}", public.display());
        }
        if let Some(secret) = &self.secret {
            let _ = writeln!(text, "secret       {secret} (shown this once)");
        }
        let _ = write!(text, "\nadd to the configuration:\n\n{}", self.configuration);
        if self.secret.is_some() {
            text.push_str("allow_client_secrets: true\n");
        }
        text.push_str("\nthen `deputize lint`, and send the broker SIGHUP\n");
        text
    }
}

/// Ids may be SPIFFE IDs; file names may not.
fn file_name(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = id.chars().map(plain).take(100).collect();
    // A leading dot would hide the file; and of two ids that look alike here, the second finds its file taken.
    name.trim_start_matches('.').to_owned()
}

fn write_public(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
