//! `deputize registry`: how an MCP server gets into the registry, how a change of it is seen, and who approves it.

mod approve;
mod compare;
mod draft;
mod import;
mod key;
mod list;
mod live;
mod offer;
mod place;
mod record_text;
mod report;
mod server_json;
mod sign;

pub use import::look;
pub use report::{Paint, accepted, unaccepted, words};

use super::{exit::CommandResult, output::Output};

/// Imports, compares and approves MCP servers.
#[derive(Debug, clap::Args)]
#[command(after_help = "A server's way into the registry:
  deputize registry import --url https://crm.example.com/mcp --id crm    writes a record that is not approved
  (edit the record: owner, purpose, tiers)
  deputize registry approve crm --key alice.private.jwk.json --by alice --reason 'reviewed'
  deputize registry diff crm --url https://crm.example.com/mcp           what changed since

Exit codes: 0 ok, 1 there is a difference or a failure, 2 usage, 3 refused because of findings, 5 bad files, 6 unreachable.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Import(Box<import::Args>),
    Diff(compare::Args),
    Approve(approve::Args),
    Ls(list::Ls),
    Show(list::Show),
    Key(key::Args),
    Sign(sign::Args),
    /// Print the JSON Schema of a record, for editors
    Schema,
}

/// Runs it.
///
/// # Errors
/// If the source cannot be asked, or a file cannot be read or written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Import(args) => import::run(*args, output).await,
        Command::Diff(args) => compare::run(args, output).await,
        Command::Approve(args) => approve::run(args, output),
        Command::Ls(args) => list::ls(&args, output),
        Command::Show(args) => list::show(&args, output),
        Command::Key(args) => key::run(args, output),
        Command::Sign(args) => sign::run(args, output).await,
        Command::Schema => {
            output.raw(&record_text::schema()?)?;
            Ok(super::exit::Exit::Ok)
        }
    }
}
