//! `deputize doctor`: why an identity provider's token is refused, check by check, and what to change.

mod checks;

use deputize_issuer::clock::{Clock as _, SystemClock};
use serde::Serialize;

use self::checks::Patient;
use super::{
    exit::{CommandError, CommandResult, Exit},
    input::{self, ConfigArgs},
    output::{Output, clean},
};
use crate::assemble;

/// Says whether this configuration accepts a user's token, check by check, and what to change if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize doctor --token - < user.jwt
  deputize doctor --token @user.jwt --client support-bot

Asks the identity provider for its keys, as the broker would; the token itself goes nowhere.
Exit code 0: accepted, 1: refused, 6: the identity provider cannot be reached.")]
pub struct Args {
    /// The token, @FILE, or - for stdin
    #[arg(long)]
    token: String,
    /// Client that would bring it [default: each one of the tenant]
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    outcome: Outcome,
    found: String,
    next: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Good,
    Bad,
    /// The identity provider could not be asked.
    Unknown,
}

/// Runs it.
///
/// # Errors
/// If there is no token, or the configuration is wrong.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let resolved = args.config.load()?;
    let token = input::token(&args.token)?;
    let keys = assemble::provider_keys(&resolved, args.config.mode(), None)?;
    keys.asked_once().await;
    let providers = assemble::providers(&resolved, &keys)?;
    if let Some(id) =
        args.client.as_ref().filter(|id| resolved.clients.iter().all(|client| client.id != **id))
    {
        return Err(CommandError::usage(
            format!("--client: {id:?} is not configured"),
            "give the id of a client of the configuration",
        ));
    }
    let patient = Patient {
        token: &token,
        resolved: &resolved,
        providers: &providers,
        keys: keys.as_ref(),
        client: args.client.as_deref(),
        now: SystemClock::start().now_seconds(),
    };
    let checks = patient.examine().await;
    output.show(&checks, || to_text(&checks))?;
    let has = |outcome| checks.iter().any(|check| check.outcome == outcome);
    Ok(match (has(Outcome::Bad), has(Outcome::Unknown)) {
        (true, _) => Exit::Failure,
        (false, true) => Exit::Unreachable,
        (false, false) => Exit::Ok,
    })
}

fn to_text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.outcome {
            Outcome::Good => '✔',
            Outcome::Bad => '✖',
            Outcome::Unknown => '?',
        };
        text.push_str(&format!("{mark} {}: {}\n", clean(&check.what), clean(&check.found)));
        if let Some(next) = &check.next {
            text.push_str(&format!("    next: {}\n", clean(next)));
        }
    }
    text
}

impl Check {
    fn good(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), outcome: Outcome::Good, found: found.into(), next: None }
    }
    fn bad(what: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.to_owned(), outcome: Outcome::Bad, found: found.into(), next: Some(next.into()) }
    }
    fn unknown(what: &str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            outcome: Outcome::Unknown,
            found: found.into(),
            next: Some(next.into()),
        }
    }
}
