//! `deputize aws`: AWS credentials for the call that a server runs.

mod creds;
#[cfg(test)]
mod tests;

use super::{exit::CommandResult, output::Output};

/// AWS credentials for the one call that a server runs
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: AwsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AwsCommand {
    Creds(Box<creds::Args>),
}

/// Runs it.
///
/// # Errors
/// If there are no credentials.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        AwsCommand::Creds(args) => creds::run(*args, output).await,
    }
}
