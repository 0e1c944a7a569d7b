//! `deputize client`: makes the credentials of an OAuth client of the broker.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;
use deputize_issuer::{clock, entry::parse_spiffe_id};
use serde::Serialize;
use serde_json::{Value, json};
use std::{fmt::Write as _, path::PathBuf};
use zeroize::Zeroizing;

use super::{
    exit::{CommandError, CommandResult, Exit},
    key_pair::KeyPair,
    output::Output,
};

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
  deputize client add ops-guard --folder clients --sealed
      as well clients/ops-guard.sealing.private.jwk.json: AWS credentials are then answered encrypted to that key, so that
      nobody who ends TLS on the way reads them
  deputize client add support-agent --spiffe-id spiffe://example.org/agent/support
      makes nothing: its process gets SVIDs at the Workload API
  deputize client add billing --authority clients-ca.pem --dns billing.example.org
      makes nothing: its TLS certificate is of that authority, in that name
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
    /// A second key, to which answers with AWS credentials are sealed (docs/aws.md)
    #[arg(long, conflicts_with = "secret")]
    sealed: bool,
    /// No key: it authenticates by SVIDs of this SPIFFE ID (docs/clients.md)
    #[arg(long, value_name = "ID", conflicts_with_all = ["secret", "sealed"])]
    spiffe_id: Option<String>,
    /// No key: it authenticates by this TLS certificate of its own
    #[arg(long, value_name = "PEM", conflicts_with_all = ["secret", "sealed", "spiffe_id"])]
    certificate: Option<PathBuf>,
    /// No key: it authenticates by a TLS certificate of this authority
    #[arg(long, value_name = "PEM", requires = "dns", conflicts_with_all = ["secret", "sealed", "spiffe_id", "certificate"])]
    authority: Option<PathBuf>,
    /// The DNS name that such a certificate has
    #[arg(long, value_name = "NAME", requires = "authority")]
    dns: Option<String>,
}

#[derive(Serialize)]
struct Added {
    client_id: String,
    private_key_file: Option<PathBuf>,
    sealing_key_file: Option<PathBuf>,
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
    let added = match without_key(&args)? {
        Some(proof) => Added::shown(&args, &proof),
        None if args.secret => with_secret(&args)?,
        None => with_key(&args)?,
    };
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
    let write = if args.sealed { KeyPair::write_with_sealing } else { KeyPair::write };
    let pair = write(&args.folder, &args.id)?;
    // The configuration may stand in another folder than this command.
    let jwks_file = pair.public_file.canonicalize().unwrap_or_else(|_| pair.public_file.clone());
    Ok(Added {
        client_id: args.id.clone(),
        kid: Some(pair.kid),
        secret: None,
        secret_sha256: None,
        configuration: configuration(args, "jwks_file", &jwks_file.display().to_string().into()),
        private_key_file: Some(pair.private_file),
        sealing_key_file: pair.sealing_file,
        jwks_file: Some(pair.public_file),
    })
}

/// What the configuration says of a client for which nothing is made here.
fn without_key(args: &Add) -> Result<Option<(&'static str, Value)>, CommandError> {
    let readable = |file: &PathBuf| {
        let found = file.canonicalize().map_err(|error| {
            CommandError::failure(
                format!("{}: {error}", file.display()),
                "give a PEM file that is there: the configuration names it",
            )
        });
        found.map(|file| file.display().to_string())
    };
    if let Some(id) = &args.spiffe_id {
        parse_spiffe_id(id).map_err(|problem| {
            CommandError::usage(format!("{id}: {problem}"), "give spiffe://example.org/agent")
        })?;
        return Ok(Some(("spiffe_id", id.as_str().into())));
    }
    if let Some(file) = &args.certificate {
        return Ok(Some(("certificate_file", readable(file)?.into())));
    }
    let Some((authority, dns)) = args.authority.as_ref().zip(args.dns.as_ref()) else { return Ok(None) };
    Ok(Some(("tls_client_auth", json!({ "authority_file": readable(authority)?, "dns": dns }))))
}

fn with_secret(args: &Add) -> Result<Added, CommandError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    clock::fill_random(&mut *bytes).map_err(|error| CommandError::failure(error, "try again"))?;
    let secret = format!("dps_{}", URL_SAFE_NO_PAD.encode(*bytes));
    let digest = URL_SAFE_NO_PAD.encode(sha256(secret.as_bytes()));
    Ok(Added {
        client_id: args.id.clone(),
        private_key_file: None,
        sealing_key_file: None,
        jwks_file: None,
        kid: None,
        configuration: configuration(args, "secret_sha256", &digest.as_str().into()),
        secret: Some(secret),
        secret_sha256: Some(digest),
    })
}

/// JSON is YAML too.
fn configuration(args: &Add, credential: &str, value: &Value) -> String {
    let quote = |text: &str| Value::from(text).to_string();
    format!(
        "clients:\n  - id: {}\n    tenant: {}\n    {credential}: {}\n    subject_audiences: []  # aud of the user tokens that it may bring\n    may_call: []           # - resource: https://server.example/mcp\n",
        quote(&args.id),
        quote(&args.tenant),
        value,
    )
}

impl Added {
    /// One that shows what it has elsewhere.
    fn shown(args: &Add, (credential, value): &(&'static str, Value)) -> Self {
        Self {
            client_id: args.id.clone(),
            private_key_file: None,
            sealing_key_file: None,
            jwks_file: None,
            kid: None,
            secret: None,
            secret_sha256: None,
            configuration: configuration(args, credential, value),
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let (Some(private), Some(public)) = (&self.private_key_file, &self.jwks_file) {
            let _ = writeln!(text, "private key  {} (for the client alone)", private.display());
            let _ = writeln!(text, "public key   {}", public.display());
        }
        if let Some(sealing) = &self.sealing_key_file {
            let _ = writeln!(text, "sealing key  {} (for the client alone)", sealing.display());
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
