//! `deputize`: the identity and token-exchange broker for AI agents.

mod assemble;
mod backends;
mod commands;
mod config;
mod dev;
mod guards;
mod http;
mod registration;
mod restore;
mod sign_in;
mod telemetry;

use clap::Parser as _;
use deputize_call::moment;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    commands::Cli::parse().run().await.into()
}
