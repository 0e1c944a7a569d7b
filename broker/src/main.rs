//! `deputize`: the identity and token-exchange broker for AI agents.

mod assemble;
mod backends;
mod commands;
mod config;
mod dev;
mod http;
mod restore;
mod telemetry;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

use crate::telemetry::LogFormat;

/// Identity and token-exchange broker for AI agents.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    /// How log lines on stderr look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Serve {
        /// Configuration file
        #[arg(long, env = "DEPUTIZE_CONFIG", default_value = "deputize.yaml")]
        config: PathBuf,
        /// Write the address here once requests are taken
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Run a broker, an identity provider and two MCP servers for development, on loopback
    Dev(commands::dev::Dev),
    /// See the whole story of one call, every refusal included, in a second
    Demo(commands::demo::Demo),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.log_format, if matches!(cli.command, Command::Demo(_)) { "error" } else { "info" });
    let ended = match cli.command {
        Command::Serve { config, ready_file } => {
            commands::serve::serve(&config, ready_file).await.map(|()| true)
        }
        Command::Dev(dev) => commands::dev::dev(dev).await.map(|()| true),
        Command::Demo(demo) => commands::demo::demo(&demo).await,
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::from(5)
        }
    }
}
