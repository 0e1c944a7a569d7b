//! `deputize completions`: for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{
    Cli,
    exit::{CommandResult, Exit},
    output::Output,
};

/// Prints completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize completions bash > /etc/bash_completion.d/deputize
  deputize completions zsh > \"${fpath[1]}/_deputize\"
  deputize completions fish > ~/.config/fish/completions/deputize.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs it.
///
/// # Errors
/// If it cannot be written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "deputize", &mut script);
    output.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
