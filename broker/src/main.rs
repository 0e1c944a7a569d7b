//! `deputize`: the identity and token-exchange broker for AI agents.

mod agent;
mod commands;
mod dev;
mod sign_in;

use clap::Parser as _;
// The broker is a crate of its own, so that both are compiled at once.
use deputize_broker::{assemble, backends, bundle_endpoint, config, federation, http, telemetry};
use deputize_call::moment;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    commands::Cli::parse().run().await.into()
}
