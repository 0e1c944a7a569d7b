//! `deputize doctor`: why an identity provider's token is refused, what a role at AWS lacks, or whom the Workload API
//! entitles: check by check, and what to change.

mod checks;
mod federation;
mod role;
mod workload;

use deputize_issuer::{
    clock::{Clock as _, SystemClock},
    templates::TrustedIssuer,
};
use serde::Serialize;
use std::path::PathBuf;

use self::checks::Patient;
use super::{
    exit::{CommandError, CommandResult, Exit},
    input::{self, ConfigArgs},
    output::{Output, clean},
};
use crate::{assemble, config::raw::WEB_IDENTITY_AUDIENCE};

/// Says whether this configuration accepts a user's token, whether a role's trust policy lets its templates in and nobody
/// else, or whether the Workload API answers and whom it entitles: check by check, and what to change if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize doctor --token - < user.jwt
  deputize doctor --token @user.jwt --client support-bot
  aws iam get-role --role-name restart-instance > role.json
  deputize doctor --role arn:aws:iam::111122223333:role/deputize/restart-instance --trust-policy role.json \\
      --templates templates --issuer https://broker.example.com/web-identity
  deputize doctor --workload-api --pid 4711

Of a token: asks the identity provider for its keys, as the broker would; the token itself goes nowhere. Of a role: asks
nobody; the file is a trust policy, or what get-role prints. Of the Workload API: asks the running broker.
Exit code 0: accepted, 1: refused or lacking, 6: the identity provider or the broker cannot be reached.")]
pub struct Args {
    /// The token, @FILE, or - for stdin
    #[arg(long, required_unless_present_any = ["role", "workload_api"], conflicts_with_all = ["role", "workload_api"])]
    token: Option<String>,
    /// Client that would bring it [default: each one of the tenant]
    #[arg(long, value_name = "ID", conflicts_with_all = ["role", "workload_api"])]
    client: Option<String>,
    /// ARN of a role instead of a token
    #[arg(long, value_name = "ARN", requires = "trust_policy", conflicts_with = "workload_api")]
    role: Option<String>,
    /// Its trust policy, or what `aws iam get-role` prints
    #[arg(long, value_name = "FILE", requires = "role")]
    trust_policy: Option<PathBuf>,
    /// Folder of the templates, of which some are for the role
    #[arg(long, value_name = "DIR", default_value = "templates")]
    templates: PathBuf,
    /// Issuer of web identities [default: that of the configuration]
    #[arg(long, value_name = "URL", requires = "role")]
    issuer: Option<String>,
    /// Their audience [default: that of the configuration; without one, sts.amazonaws.com]
    #[arg(long, requires = "role")]
    audience: Option<String>,
    /// The Workload API instead: whether its socket answers, to what a process is entitled, and whether the bundles of
    /// foreign trust domains are fresh
    #[arg(long)]
    workload_api: bool,
    /// The process [default: this command]
    #[arg(long, value_name = "N", requires = "workload_api")]
    pid: Option<u32>,
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
    /// The identity provider, or the broker, could not be asked.
    Unknown,
}

/// Runs it.
///
/// # Errors
/// If there is no token, or the configuration is wrong.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let checks = match (&args.role, &args.trust_policy, &args.token) {
        _ if args.workload_api => {
            let pid = args.pid.unwrap_or_else(std::process::id);
            workload::Examined { config: &args.config.config, pid }.examine().await?
        }
        (Some(role), Some(file), _) => of_role(&args, role, file)?,
        (_, _, Some(token)) => of_token(&args, token).await?,
        // Of these one is required.
        _ => {
            return Err(CommandError::usage(
                "nothing to look at",
                "give --token, --role with --trust-policy, or --workload-api",
            ));
        }
    };
    output.show(&checks, || to_text(&checks))?;
    let has = |outcome| checks.iter().any(|check| check.outcome == outcome);
    Ok(match (has(Outcome::Bad), has(Outcome::Unknown)) {
        (true, _) => Exit::Failure,
        (false, true) => Exit::Unreachable,
        (false, false) => Exit::Ok,
    })
}

fn of_role(args: &Args, role_arn: &str, file: &std::path::Path) -> Result<Vec<Check>, CommandError> {
    let issuer = match &args.issuer {
        Some(issuer) => issuer.clone(),
        None => args.config.web_identity_issuer()?,
    };
    let audience = match (&args.audience, &args.issuer) {
        (Some(audience), _) => audience.clone(),
        // Elsewhere than at the broker, where only its issuer is known.
        (None, Some(_)) if !args.config.config.exists() => WEB_IDENTITY_AUDIENCE.to_owned(),
        (None, _) => args.config.web_identity_audience()?,
    };
    let templates = super::templates::load(&args.templates)?;
    let examined = role::Examined {
        role_arn,
        templates: templates.iter().filter(|template| template.file().aws.role_arn == role_arn).collect(),
        issuer: TrustedIssuer { issuer: &issuer, audience: &audience },
    };
    Ok(examined.examine(&role::read(file)?))
}

async fn of_token(args: &Args, token: &str) -> Result<Vec<Check>, CommandError> {
    let resolved = args.config.load()?;
    let token = input::token(token)?;
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
    Ok(patient.examine().await)
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
