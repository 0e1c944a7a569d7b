//! `deputize token`: looks into a token.

mod look;

use deputize_call::{
    claims::{TYP, ToolCallClaims},
    jws::{self, EmbeddedKey, JwsError},
    keys::KeySet,
};
use deputize_issuer::clock::{Clock as _, SystemClock};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use self::look::Look;
use super::{
    exit::{CommandError, CommandResult, Exit},
    input, keysource,
    output::Output,
};

/// Looks into tokens.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Inspect(Inspect),
}

/// Shows what a token says: a tool-call token, an identity provider's, or any JWT. It says that a token is valid only
/// where keys are given to verify it with.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize token inspect < token.txt
  deputize token inspect @token.txt --issuer https://deputize.example.com
  deputize token inspect - --jwks keys.json -o json

A token on the command line can be seen by other users of the machine: prefer stdin.")]
struct Inspect {
    /// The token, @FILE, or - for stdin
    #[arg(default_value = "-", hide_default_value = true)]
    token: String,
    /// Verify with these keys (JWKS)
    #[arg(long, value_name = "URL|FILE")]
    jwks: Option<String>,
    /// Verify that this issuer made it; its keys are found by its metadata unless --jwks is given
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

/// Whether a token holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verified", content = "why")]
enum Verified {
    /// Nobody asked.
    NotChecked,
    /// It does.
    Valid,
    /// It does not.
    Invalid(String),
}

#[derive(Debug, Serialize)]
struct Shown<'l> {
    #[serde(flatten)]
    verified: &'l Verified,
    #[serde(flatten)]
    look: &'l Look,
}

/// Runs it.
///
/// # Errors
/// If there is no token, or keys cannot be had.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let Command::Inspect(args) = args.command;
    let token = input::token(&args.token)?;
    let now = SystemClock::start().now_seconds();
    let look = Look::at(&token, now)?;
    let keys = find_keys(&args).await?;
    let verified = match keys {
        None => Verified::NotChecked,
        Some(keys) => match verify(&token, &keys, args.issuer.as_deref(), now) {
            Ok(()) => Verified::Valid,
            Err(error) => Verified::Invalid(error.to_string()),
        },
    };
    output.show(&Shown { verified: &verified, look: &look }, || {
        let first = match &verified {
            Verified::NotChecked => {
                "not verified: give --issuer or --jwks to know whether any of this is true".to_owned()
            }
            Verified::Valid if args.issuer.is_some() => {
                "✔ valid: signature, times and issuer hold".to_owned()
            }
            Verified::Valid => {
                "✔ signature and times hold; whose keys these are is for you to know".to_owned()
            }
            Verified::Invalid(why) => format!("✖ not valid: {why}\n  next: believe nothing below"),
        };
        format!("{first}\n{}", look.to_text())
    })?;
    Ok(if matches!(verified, Verified::Invalid(_)) { Exit::Failure } else { Exit::Ok })
}

async fn find_keys(args: &Inspect) -> Result<Option<KeySet>, CommandError> {
    match (&args.jwks, &args.issuer) {
        (None, None) => Ok(None),
        (Some(place), _) => keysource::from_place(place).await.map(Some),
        (None, Some(issuer)) => {
            let url = Url::parse(issuer).map_err(|error| {
                CommandError::usage(format!("--issuer: {error}"), "give the `iss` of the token")
            })?;
            keysource::of_issuer(&url, issuer).await.map(Some)
        }
    }
}

fn verify(token: &str, keys: &KeySet, issuer: Option<&str>, now: u64) -> Result<(), JwsError> {
    let jws = jws::parse(token, EmbeddedKey::Refused)?;
    if let Some(issuer) = issuer
        && jws.claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(JwsError::Claim("iss", "another issuer"));
    }
    keys.verify(&jws)?;
    jws::check_times(&jws.claims, now, 0)?;
    if jws.header.typ.as_deref() == Some(TYP) && jws.claims.contains_key("authorization_details") {
        let claims: ToolCallClaims = serde_json::from_value(Value::Object(jws.claims))
            .map_err(|_| JwsError::Malformed("not of the shape of a tool-call token"))?;
        claims.check()?;
    }
    Ok(())
}
