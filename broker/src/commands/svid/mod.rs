//! `deputize svid`: what a process gets at the Workload API, asked as any process asks.

mod endpoint;
mod explain;
mod files;
mod received;

pub(super) use endpoint::{Channel, address, unreachable, with_header};
pub use endpoint::{Endpoint, EndpointArgs};
pub use explain::Explained;

use serde::Serialize;
use std::path::PathBuf;

use self::{files::Written, received::Received};
use super::{
    admin_socket::AdminSocket,
    exit::{CommandError, CommandResult, Exit},
    output::{Facts, Output},
};

/// Fetches SVIDs at the Workload API, as any process of this machine can; says why there are none.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch once
    #[command(after_help = "Examples:
  deputize svid fetch                                    which identities has this process?
  deputize svid fetch --write /run/my-agent              svid.pem, key.pem (0600) and bundle.pem
  deputize svid fetch --audience https://crm.example.com/mcp
  deputize svid fetch --explain                          why none, or not the one that I want?
  deputize svid fetch --explain --pid 4711               and that process?

The identity is that of this very command: it has the user of the shell, but another path than your program.
Exit code 0: there is one, 3: no entry is for this process, 6: the socket does not answer.")]
    Fetch(Fetch),
    /// Fetch, and again whenever something changes, until interrupted
    #[command(after_help = "Examples:
  deputize svid watch
  deputize svid watch --write /run/my-agent              keeps the files fresh for a program that only reads files

Each file is replaced as a whole. Exit code 3: the process is entitled to nothing any longer.")]
    Watch(Watch),
}

#[derive(Debug, clap::Args)]
struct Fetch {
    /// A JWT-SVID for this audience instead; may be given again
    #[arg(long = "audience", value_name = "TEXT", conflicts_with_all = ["write", "explain"])]
    audiences: Vec<String>,
    /// Of several identities, this one
    #[arg(long, value_name = "ID", conflicts_with = "explain")]
    spiffe_id: Option<String>,
    /// Write svid.pem, key.pem and bundle.pem there
    #[arg(long, value_name = "DIR", conflicts_with = "explain")]
    write: Option<PathBuf>,
    /// Ask the broker's administration why, entry by entry
    #[arg(long)]
    explain: bool,
    /// Of this process [default: this command]
    #[arg(long, value_name = "N", requires = "explain")]
    pid: Option<u32>,
    /// Admin socket of the broker [default: that of the configuration]
    #[arg(long, value_name = "PATH", requires = "explain")]
    admin_socket: Option<PathBuf>,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

#[derive(Debug, clap::Args)]
struct Watch {
    /// Of several identities, this one
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// Write svid.pem, key.pem and bundle.pem there, anew each time
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// A JWT-SVID, as it is shown: the token is what was asked for.
#[derive(Serialize)]
struct JwtSvid {
    spiffe_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    token: String,
}

/// Runs it.
///
/// # Errors
/// If the endpoint cannot be reached or gives nothing, or files cannot be written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Fetch(args) if args.explain => explain(&args, output).await,
        Command::Fetch(args) if !args.audiences.is_empty() => fetch_jwt(&args, output).await,
        Command::Fetch(args) => fetch_x509(&args, output).await,
        Command::Watch(args) => watch(&args, output).await,
    }
}

async fn explain(args: &Fetch, output: Output) -> CommandResult {
    let broker = AdminSocket::find(args.admin_socket.as_deref(), &args.endpoint.config)?;
    let explained = Explained::ask(&broker, args.pid.unwrap_or_else(std::process::id)).await?;
    output.show(&explained, || explained.to_text())?;
    Ok(if explained.is_entitled() { Exit::Ok } else { Exit::Denied })
}

async fn fetch_jwt(args: &Fetch, output: Output) -> CommandResult {
    let mut endpoint = Endpoint::connect(&args.endpoint.find()?).await?;
    let svids = endpoint.jwt_svids(args.audiences.clone(), args.spiffe_id.as_deref()).await?;
    let shown: Vec<JwtSvid> = svids
        .into_iter()
        .map(|svid| JwtSvid { spiffe_id: svid.spiffe_id, hint: svid.hint, token: svid.svid })
        .collect();
    output.show(&shown, || {
        let mut text = String::new();
        for svid in &shown {
            let mut facts = Facts::default();
            facts.add("SPIFFE ID", &svid.spiffe_id);
            facts.add_some("hint", Some(&svid.hint).filter(|hint| !hint.is_empty()));
            facts.add("token", &svid.token);
            text.push_str(&facts.to_string());
        }
        text
    })?;
    Ok(Exit::Ok)
}

async fn fetch_x509(args: &Fetch, output: Output) -> CommandResult {
    let mut endpoint = Endpoint::connect(&args.endpoint.find()?).await?;
    let message = endpoint.first_svids().await?;
    let received = Received::read(message)?;
    let written = match &args.write {
        Some(folder) => Some(Written::write(folder, received.chosen(args.spiffe_id.as_deref())?)?),
        None => {
            if args.spiffe_id.is_some() {
                received.chosen(args.spiffe_id.as_deref())?;
            }
            None
        }
    };
    let shown = received.shown(args.spiffe_id.as_deref(), written);
    output.show(&shown, || shown.to_text())?;
    Ok(Exit::Ok)
}

async fn watch(args: &Watch, output: Output) -> CommandResult {
    let mut endpoint = Endpoint::connect(&args.endpoint.find()?).await?;
    let mut stream = endpoint.x509_svids().await?;
    let mut interrupted = super::serve::StopSignal::listen()
        .map_err(|error| CommandError::failure(error, "signals cannot be heard here"))?;
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = interrupted.wait() => return Ok(Exit::Ok),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(nothing_came()),
            Err(status) => return Err(endpoint.refused(&status)),
        };
        let received = Received::read(message)?;
        let chosen = match &args.write {
            Some(folder) => Some(Written::write(folder, received.chosen(args.spiffe_id.as_deref())?)?),
            None => None,
        };
        let shown = received.shown(args.spiffe_id.as_deref(), chosen);
        output.record(&shown, || shown.to_text().trim_end().to_owned())?;
    }
}

fn nothing_came() -> CommandError {
    CommandError::unreachable("the Workload API ended the stream", "it may be restarting: try again")
}
