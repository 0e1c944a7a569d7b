//! `deputize templates simulate`: the session that a call would get, and what it could do. AWS is not asked.

use deputize_call::json::Object;
use deputize_issuer::{
    clock::{SystemClock, new_id},
    person::ClaimValue,
    templates::{Approval, Call, Probe, RenderedSession, Verdict},
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

use super::caller::Caller;
use crate::commands::{
    exit::{CommandError, CommandResult, Exit},
    input, moment,
    output::{Columns, Facts, Output, clean},
};

/// Shows the session that a call would get: role, session policy, tags, and what each statement grants.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize templates simulate --template restart-instance --user alice --roles operator \\
      --arguments '{\"instance_id\": \"i-0123456789abcdef0\"}'
  deputize templates simulate deploy/example/templates --template read-reports --server-region eu-central-1 \\
      --claim data_region=eu --arguments '{\"prefix\": \"sales/2026/\"}' -o json

Whatever the template matches on and is not given is taken to match: groups, roles, claims with one value. Each statement
is tried on its own resource, on another, on one of that name in another account where a name can be anybody's, and
after the window. Exit code 0: a session, 3: refused.")]
pub struct Args {
    /// Folder of templates (`*.yaml`, `*.yml`, `*.json`)
    #[arg(value_name = "DIR", default_value = "templates")]
    folder: PathBuf,
    /// Name of the template
    #[arg(long, value_name = "NAME")]
    template: String,
    /// The call's arguments: a file with one JSON object, or the object itself
    #[arg(long, value_name = "FILE|JSON", default_value = "{}")]
    arguments: String,
    /// Stable claim of the user
    #[arg(long, value_name = "SUB", default_value = "alice")]
    user: String,
    /// The user's groups, `{issuer}|{group}` [default: the template's]
    #[arg(long, value_delimiter = ',')]
    groups: Option<Vec<String>>,
    /// The user's roles [default: the template's]
    #[arg(long, value_delimiter = ',')]
    roles: Option<Vec<String>>,
    /// A claim of the user; several with --claim again
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// Region of the server, as its registry record has it
    #[arg(long, value_name = "REGION")]
    server_region: Option<String>,
    /// How many agents stand in the chain
    #[arg(long, value_name = "N", default_value_t = 1)]
    chain_depth: usize,
}

/// The session, and what it could do.
#[derive(Debug, Serialize)]
struct Answer {
    template: String,
    template_hash: String,
    role_arn: String,
    region: String,
    session_name: String,
    source_identity: String,
    tags: BTreeMap<String, String>,
    window_ends: String,
    duration_seconds: u32,
    approval: Approval,
    policy: Value,
    policy_characters: usize,
    verdicts: Vec<Probe>,
}

/// Runs it.
///
/// # Errors
/// If the templates are wrong, or the arguments cannot be read.
pub fn run(args: &Args, output: Output) -> CommandResult {
    let templates = super::load(&args.folder)?;
    let template = templates.get(&args.template).ok_or_else(|| {
        let names: Vec<&str> = templates.iter().map(|template| template.file().name.as_str()).collect();
        CommandError::usage(
            format!("there is no template {:?}", args.template),
            format!("one of these: {}", names.join(", ")),
        )
    })?;
    let arguments = arguments(&args.arguments)?;
    let claim = |(name, value): &(String, String)| (name.clone(), ClaimValue::Text(value.clone()));
    let caller = Caller {
        user: args.user.clone(),
        groups: args.groups.clone(),
        roles: args.roles.clone(),
        claims: args.claims.iter().map(claim).collect(),
    };
    let person = caller.person(&template.file().matching);
    let clock = SystemClock::start();
    let matching = &template.file().matching;
    let decision =
        new_id(&clock).map_err(|error| CommandError::failure(error, "the system gives no randomness"))?;
    let call = Call {
        server: &matching.server,
        server_region: args.server_region.as_deref(),
        tool: &matching.tool,
        person: &person,
        client: "simulated-client",
        chain_depth: args.chain_depth,
        arguments: &arguments,
        transaction: "simulated-transaction",
        decision,
    };
    let session = template.render(&call, &clock).map_err(|refused| {
        CommandError::new(
            Exit::Denied,
            refused,
            "give a call that the template is for, or change the template",
        )
    })?;
    let answer = Answer::of(&session)?;
    output.show(&answer, || answer.to_text())?;
    Ok(Exit::Ok)
}

fn arguments(given: &str) -> Result<Object, CommandError> {
    if given.trim_start().starts_with('{') || given.starts_with('@') {
        return input::object(given, "--arguments");
    }
    input::object(&format!("@{given}"), "--arguments")
}

impl Answer {
    fn of(session: &RenderedSession) -> Result<Self, CommandError> {
        let policy = serde_json::from_str(&session.policy);
        Ok(Self {
            template: session.template.clone(),
            template_hash: session.template_hash.to_string(),
            role_arn: session.role_arn.clone(),
            region: session.region.clone(),
            session_name: session.session_name.clone(),
            source_identity: session.source_identity.clone(),
            tags: session.tags.clone(),
            window_ends: moment::format_seconds(session.window_end_seconds),
            duration_seconds: session.duration_seconds,
            approval: session.approval,
            policy: policy.map_err(|error| CommandError::failure(error, "report this"))?,
            policy_characters: session.policy.chars().count(),
            verdicts: session.probes(),
        })
    }

    fn to_text(&self) -> String {
        let mut facts = Facts::default();
        facts
            .add("template", format!("{}, hash {}", self.template, self.template_hash))
            .add("role", &self.role_arn)
            .add("session name", &self.session_name)
            .add("source identity", &self.source_identity)
            .add("window ends", &self.window_ends)
            .add(
                "credentials",
                format!("live {} s, and can do nothing after the window", self.duration_seconds),
            );
        for (key, value) in &self.tags {
            facts.add("tag", format!("{key} = {value}"));
        }
        let mut verdicts = Columns::new(&["STATEMENT", "TRIED", "ACTION", "RESOURCE", "VERDICT"]);
        for probe in &self.verdicts {
            let verdict = match probe.verdict {
                Verdict::Allowed => "allowed",
                Verdict::NotAllowed => "not allowed",
                Verdict::Denied => "denied",
            };
            verdicts.row(&[
                &probe.statement.to_string(),
                probe.tried,
                &probe.action,
                &probe.resource,
                verdict,
            ]);
        }
        let policy = serde_json::to_string_pretty(&self.policy).unwrap_or_default();
        let policy: Vec<_> = policy.lines().map(clean).collect();
        format!(
            "{facts}\n{verdicts}\nsession policy, {} characters:\n{}\n",
            self.policy_characters,
            policy.join("\n")
        )
    }
}

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
