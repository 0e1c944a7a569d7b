//! `deputize templates test`: cases that lie beside a template, as `*.test.yaml`.

use deputize_call::json::Object;
use deputize_issuer::{
    clock::{Clock, TestClock},
    person::ClaimValue,
    templates::{Call, RenderedSession, Template, Templates, Verdict},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};
use uuid::Uuid;

use super::{caller::Caller, load};
use crate::{
    commands::{
        exit::{CommandError, CommandResult, Exit},
        output::{Columns, Output},
    },
    config::{
        read::{self, ConfigError},
        templates::case_files,
    },
};

/// Runs the cases beside the templates of a folder: which calls are refused, and what sessions may do
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize templates test
  deputize templates test deploy/example/templates --strict

A file `*.test.yaml` holds cases of one template; `deputize templates schema --of cases` is its JSON Schema. What a case
says nothing of is as the template wants it. Verdicts are those of the session policy: what the role may is not known here.
Exit code 0: all hold, 1: one does not, 5: templates or cases are wrong.")]
pub struct Args {
    /// Folder of templates, with their cases
    #[arg(value_name = "DIR", default_value = "templates")]
    folder: PathBuf,
    /// Fail where a template has no case
    #[arg(long)]
    strict: bool,
}

/// Cases of one template.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CasesFile {
    /// Name of the template.
    template: String,
    /// What is tried.
    cases: Vec<Case>,
}

/// One call, and what is to come of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows.
    name: String,
    /// The call.
    #[serde(default)]
    call: CaseCall,
    /// What is to come of it.
    expect: Expected,
}

/// A call of the template's tool. What is not said is as the template wants it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CaseCall {
    /// The arguments.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    arguments: Object,
    /// Stable claim of the user: `alice` unless it is said.
    user: Option<String>,
    /// The user's groups, `{issuer}|{group}`.
    groups: Option<Vec<String>>,
    /// The user's roles.
    roles: Option<Vec<String>>,
    /// Claims of the user: texts.
    claims: BTreeMap<String, String>,
    /// Tenant of the user.
    tenant: Option<String>,
    /// Region of the server, as its registry record has it.
    server_region: Option<String>,
    /// How many agents stand in the chain: one unless it is said.
    chain_depth: Option<usize>,
}

/// What is to come of a call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Expected {
    /// No session; a part of the reason.
    Refused(String),
    /// A session, and what comes of requests with it.
    Session(ExpectedSession),
}

/// A session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectedSession {
    /// Its tags, where they are said: these and no others.
    #[serde(default)]
    tags: Option<BTreeMap<String, String>>,
    /// Its source identity, where it is said.
    #[serde(default)]
    source_identity: Option<String>,
    /// Requests with it.
    #[serde(default)]
    requests: Vec<CaseRequest>,
}

/// A request to AWS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CaseRequest {
    /// `service:Name`.
    action: String,
    /// The ARN; `*` for actions that know no resources.
    resource: String,
    /// When it is made.
    #[serde(default)]
    at: At,
    /// Values of condition keys. `aws:ResourceAccount` is the template's account unless it is said; other keys are missing.
    #[serde(default)]
    context: BTreeMap<String, Vec<String>>,
    /// What comes of it.
    verdict: Verdict,
}

/// A moment of a session.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum At {
    /// In the last second of the window.
    #[default]
    InWindow,
    /// In the second with which the window ends.
    WindowEnd,
    /// When the credentials still live, a second after that.
    AfterWindow,
}

#[derive(Debug, Serialize)]
struct Answer {
    cases: Vec<Row>,
    passed: usize,
    failed: usize,
    /// Templates without a case.
    untested: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    template: String,
    case: String,
    passed: bool,
    /// What came instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// If templates or cases cannot be read or are wrong.
pub fn run(args: &Args, output: Output) -> CommandResult {
    let templates = load(&args.folder)?;
    let mut rows = Vec::new();
    for file in case_files(&args.folder).map_err(wrong)? {
        let cases: CasesFile = read::read_yaml(&file).map_err(wrong)?;
        for case in &cases.cases {
            case.says_something().map_err(|problem| {
                wrong(ConfigError::new(&file, format!("case {:?}: {problem}", case.name)))
            })?;
        }
        let template = templates.get(&cases.template).ok_or_else(|| {
            wrong(ConfigError::new(&file, format!("there is no template {:?} beside it", cases.template)))
        })?;
        rows.extend(cases.cases.iter().map(|case| case.run(template)));
    }
    let answer = Answer::of(rows, &templates);
    output.show(&answer, || answer.to_text(args.strict))?;
    let fails = answer.failed > 0 || args.strict && !answer.untested.is_empty();
    Ok(if fails { Exit::Failure } else { Exit::Ok })
}

fn wrong(error: ConfigError) -> CommandError {
    CommandError::configuration(error, "correct it; `deputize templates schema --of cases` is its form")
}

impl Case {
    /// A case that holds whatever the template says would look like a test of it.
    fn says_something(&self) -> Result<(), &'static str> {
        match &self.expect {
            // Every reason has the empty text in it.
            Expected::Refused(reason) if reason.trim().is_empty() => {
                Err("`refused` is empty: give a part of the reason")
            }
            Expected::Session(ExpectedSession { tags: None, source_identity: None, requests })
                if requests.is_empty() =>
            {
                Err("`session` says nothing of it: give `requests`, `tags` or `source_identity`")
            }
            Expected::Refused(_) | Expected::Session(_) => Ok(()),
        }
    }

    fn run(&self, template: &Template) -> Row {
        let found = self.differences(template);
        let passed = found.is_empty();
        Row { template: template.file().name.clone(), case: self.name.clone(), passed, found }
    }

    /// What is not as it is to be.
    fn differences(&self, template: &Template) -> Vec<String> {
        let matching = &template.file().matching;
        let claims = self.call.claims.iter();
        let caller = Caller {
            user: self.call.user.clone().unwrap_or_else(|| "alice".to_owned()),
            groups: self.call.groups.clone(),
            roles: self.call.roles.clone(),
            claims: claims.map(|(name, value)| (name.clone(), ClaimValue::Text(value.clone()))).collect(),
        };
        let mut person = caller.person(matching);
        if let Some(tenant) = &self.call.tenant {
            person.tenant.clone_from(tenant);
        }
        let call = Call {
            server: &matching.server,
            server_region: self.call.server_region.as_deref(),
            tool: &matching.tool,
            person: &person,
            client: "simulated-client",
            chain_depth: self.call.chain_depth.unwrap_or(1),
            arguments: &self.call.arguments,
            transaction: "simulated-transaction",
            decision: Uuid::nil(),
        };
        // One moment for all, so that what is found is the same every time.
        let clock: &dyn Clock = &TestClock::at_seconds(STARTED_SECONDS);
        match (template.render(&call, clock), &self.expect) {
            (Err(refused), Expected::Refused(reason)) if refused.to_string().contains(reason) => Vec::new(),
            (Err(refused), _) => vec![format!("refused: {refused}")],
            (Ok(_), Expected::Refused(_)) => vec!["a session".to_owned()],
            (Ok(session), Expected::Session(expected)) => expected.differences(&session, template),
        }
    }
}

impl ExpectedSession {
    fn differences(&self, session: &RenderedSession, template: &Template) -> Vec<String> {
        let mut found = Vec::new();
        if self.tags.as_ref().is_some_and(|tags| *tags != session.tags) {
            found.push(format!("tags {:?}", session.tags));
        }
        if self.source_identity.as_ref().is_some_and(|identity| *identity != session.source_identity) {
            found.push(format!("source identity {:?}", session.source_identity));
        }
        for request in &self.requests {
            let verdict = request.verdict_of(session, template);
            if verdict != request.verdict {
                let CaseRequest { action, resource, at, .. } = request;
                found.push(format!("{action} on {resource}, {}: {}", at.says(), says(verdict)));
            }
        }
        found
    }
}

impl CaseRequest {
    fn verdict_of(&self, session: &RenderedSession, template: &Template) -> Verdict {
        let mut context = self.context.clone();
        let account = || vec![template.file().aws.account.clone()];
        context.entry("aws:ResourceAccount".to_owned()).or_insert_with(account);
        let end = session.window_end_seconds;
        let at_seconds = match self.at {
            At::InWindow => end.saturating_sub(1),
            At::WindowEnd => end,
            At::AfterWindow => end.saturating_add(1),
        };
        session.verdict(&self.action, &self.resource, context, at_seconds)
    }
}

impl At {
    fn says(self) -> &'static str {
        match self {
            Self::InWindow => "in the window",
            Self::WindowEnd => "at the window's end",
            Self::AfterWindow => "after the window",
        }
    }
}

fn says(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::NotAllowed => "not_allowed",
        Verdict::Denied => "denied",
    }
}

impl Answer {
    fn of(cases: Vec<Row>, templates: &Templates) -> Self {
        let tested: BTreeSet<&String> = cases.iter().map(|row| &row.template).collect();
        let names = templates.iter().map(|template| &template.file().name);
        let untested = names.filter(|name| !tested.contains(name)).cloned().collect();
        let passed = cases.iter().filter(|row| row.passed).count();
        Self { failed: cases.len() - passed, passed, untested, cases }
    }

    fn to_text(&self, strict: bool) -> String {
        let mut columns = Columns::new(&["", "TEMPLATE", "CASE", "FOUND"]);
        for row in &self.cases {
            let mark = if row.passed { "✔" } else { "✖" };
            columns.row(&[mark, &row.template, &row.case, &row.found.join("; ")]);
        }
        let mut text = columns.to_string();
        for name in &self.untested {
            text.push_str(&format!("! {name} has no case\n"));
        }
        text.push_str(&format!("{} passed, {} failed\n", self.passed, self.failed));
        if self.failed > 0 {
            text.push_str("  next: correct the template, or the case\n");
        } else if strict && !self.untested.is_empty() {
            text.push_str("  next: write cases, in *.test.yaml beside the template\n");
        }
        text
    }
}

/// 2026-11-21T09:30:00Z.
const STARTED_SECONDS: u64 = 1_795_253_400;
