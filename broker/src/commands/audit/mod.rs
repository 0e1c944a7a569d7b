//! `deputize audit`: reads, proves and verifies the audit log in a data folder, offline and without changing it.

mod line;
mod prove;
mod query;
mod session;
mod tail;
mod verify;

pub use line::{Record, svid_name};

use super::{exit::CommandResult, output::Output};

/// Reads, proves and verifies the audit log in a data folder. Works beside a running broker and changes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Tail(tail::Args),
    Query(Box<query::Args>),
    Prove(prove::Args),
    Verify(verify::Args),
}

/// Runs it.
///
/// # Errors
/// As the subcommand.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Tail(args) => tail::run(args, output).await,
        Command::Query(args) => query::run(&args, output),
        Command::Prove(args) => prove::run(&args, output),
        Command::Verify(args) => verify::run(&args, output),
    }
}
