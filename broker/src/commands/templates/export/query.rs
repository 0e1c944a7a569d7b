//! A query that finds in CloudTrail what a session did, or all sessions of a person.
//!
//! What comes from outside is of a closed alphabet, without quotes: nothing in it can end a text or a name.

use serde::Serialize;
use uuid::Uuid;

use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    moment,
    output::Output,
};

/// Print a CloudTrail query: what one session did, or what everybody did in a person's name
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize templates export query --table cloudtrail_logs --session 019aa5f2-7c40-7000-8000-000000000001
  deputize templates export query --table logs.cloudtrail --user alice@example.com
  deputize templates export query --lake --table 1b2c3d4e-0000-4000-8000-123456789abc --user alice

--session is RoleSessionName: the id of the decision, which `deputize explain` takes too. --user is SourceIdentity.
The table for Athena is the one of the CloudTrail documentation; with --lake it is the id of the event data store.")]
pub struct Args {
    /// Athena's table, `name` or `database.name`; with --lake the id of the event data store
    #[arg(long, value_name = "NAME|ID")]
    table: String,
    /// For CloudTrail Lake instead of Athena
    #[arg(long)]
    lake: bool,
    /// Id of the decision
    #[arg(long, value_name = "DECISION", required_unless_present = "user", conflicts_with = "user")]
    session: Option<Uuid>,
    /// The person's stable claim, or what `source_identity` of the template names
    #[arg(long, value_name = "IDENTITY")]
    user: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    query: String,
}

/// Runs it.
///
/// # Errors
/// If a name has a character that no such name has.
pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    let table = table(args)?;
    let sought = sought(args)?;
    let query = if args.lake { lake(&table, &sought) } else { athena(&table, &sought) };
    let answer = Answer { query };
    output.show(&answer, || answer.query.clone())?;
    Ok(Exit::Ok)
}

enum Sought {
    /// What it did lies within two hours of its decision.
    Session {
        name: Uuid,
        from: String,
        to: String,
    },
    User(String),
}

fn sought(args: &Args) -> Result<Sought, CommandError> {
    if let Some(name) = args.session {
        let (seconds, _) = name.get_timestamp().map(|time| time.to_unix()).ok_or_else(|| {
            CommandError::usage(
                format!("--session {name}: no decision has such an id"),
                "give the id of a decision, as `deputize explain` takes it",
            )
        })?;
        let from = moment::format_seconds(seconds.saturating_sub(600));
        return Ok(Sought::Session { name, from, to: moment::format_seconds(seconds.saturating_add(7200)) });
    }
    let user = args.user.clone().unwrap_or_default();
    let is_identity = (2..=64).contains(&user.len())
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte));
    if is_identity {
        return Ok(Sought::User(user));
    }
    Err(CommandError::usage(
        format!("--user {user:?} is no source identity"),
        "STS takes 2 to 64 letters, digits and _+=,.@-",
    ))
}

/// The table in quotes, each part of its name.
fn table(args: &Args) -> Result<String, CommandError> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let given = &args.table;
    if args.lake {
        let id = Uuid::parse_str(given).map(|id| id.hyphenated().to_string());
        return id.map_err(|_| {
            CommandError::usage("--table: no id of an event data store", "give its id, a UUID")
        });
    }
    let parts: Vec<&str> = given.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
        return Err(CommandError::usage(
            format!("--table {given:?} is no table"),
            "give `name` or `database.name`, of letters, digits and `_`",
        ));
    }
    Ok(parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join("."))
}

/// The documented table of Athena does not have the source identity of each event. The event that began the session has
/// it, in its answer.
fn athena(table: &str, sought: &Sought) -> String {
    let (began, within) = match sought {
        Sought::Session { name, from, to } => (
            format!("json_extract_scalar(requestparameters, '$.roleSessionName') = '{name}'"),
            format!("WHERE e.eventtime BETWEEN '{from}' AND '{to}'\n"),
        ),
        Sought::User(user) => {
            (format!("json_extract_scalar(responseelements, '$.sourceIdentity') = '{user}'"), String::new())
        }
    };
    format!(
        "WITH sessions AS (
  SELECT json_extract_scalar(responseelements, '$.assumedRoleUser.arn') AS session_arn,
         json_extract_scalar(responseelements, '$.sourceIdentity') AS source_identity
  FROM {table}
  WHERE eventsource = 'sts.amazonaws.com'
    AND eventname IN ('AssumeRoleWithWebIdentity', 'AssumeRole')
    AND {began}
)
SELECT e.eventtime, e.eventsource, e.eventname, e.awsregion, e.errorcode, e.requestparameters,
       s.session_arn, s.source_identity
FROM {table} e JOIN sessions s ON e.useridentity.arn = s.session_arn
{within}ORDER BY e.eventtime
"
    )
}

fn lake(store: &str, sought: &Sought) -> String {
    let found = match sought {
        Sought::Session { name, from, to } => format!(
            "(userIdentity.arn LIKE '%/{name}' OR element_at(requestParameters, 'roleSessionName') = '{name}')
  AND eventTime BETWEEN '{}' AND '{}'",
            lake_time(from),
            lake_time(to)
        ),
        Sought::User(user) => format!("userIdentity.sessionContext.sourceIdentity = '{user}'"),
    };
    format!(
        "SELECT eventTime, eventSource, eventName, awsRegion, errorCode, requestParameters,
       userIdentity.arn AS session_arn, userIdentity.sessionContext.sourceIdentity AS source_identity
FROM {store}
WHERE {found}
ORDER BY eventTime
"
    )
}

/// `2026-11-21 09:30:00` of `2026-11-21T09:30:00Z`.
fn lake_time(time: &str) -> String {
    time.replace('T', " ").replace('Z', "")
}
