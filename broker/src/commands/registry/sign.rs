//! `deputize registry sign`: for publishers, who sign the manifest of their server.

use deputize_call::json::Object;
use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    registry::publisher,
};
use serde::Serialize;
use std::path::PathBuf;

use super::offer::SourceArgs;
use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    input,
    output::Output,
};

/// Signs the tools of a server as their publisher, for those who import it with --publisher-keys.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  deputize registry sign --key publisher.private.jwk.json --name com.example/crm --server-version 1.2.0 --url https://crm.example.com/mcp

Put what it prints under _meta, member \"deputize/manifest-signature\", of your server.json or of the answer to
tools/list, or hand it out as a file.")]
pub struct Args {
    /// The publisher's private key (JWK)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the server
    #[arg(long)]
    name: String,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    server_version: String,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Serialize)]
struct Signed {
    signature: String,
}

/// Runs it.
///
/// # Errors
/// If the source gives no tools, or the key cannot sign.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let key = input::private_key(&args.key)?;
    let offer = args.source.gather().await?;
    let tools: Vec<&Object> = offer.listing.tools.iter().collect();
    let now = SystemClock::start().now_seconds();
    let signature = publisher::sign((&args.name, &args.server_version), &tools, &key, now)
        .map_err(|error| CommandError::failure(error, "correct the definitions of the tools"))?;
    let signed = Signed { signature };
    output.show(&signed, || signed.signature.clone())?;
    Ok(Exit::Ok)
}
