//! `deputize can-i`: what would be decided, from the files alone. Nothing is issued and nothing recorded.

mod question;

use deputize_call::{json::Object, level::Level};
use deputize_issuer::risk::Risk;
use serde::Serialize;

use self::question::Question;
use super::{
    exit::{CommandResult, Exit},
    input::{self, ConfigArgs},
    output::{Facts, Output},
};

/// Says whether a call would be allowed: who, for whom, what. Nothing is issued and nothing recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize can-i --client support-bot --user alice --groups support \\
      --server https://crm.example.com/mcp --tool refund_payment --arguments '{\"payment_id\": \"pay_81\", \"amount_cents\": 4200}'
  deputize can-i --client support-bot --user bob --roles analyst --server crm          may bob's agent list its tools?
  deputize can-i --client crm-guard --bearer desk-app --user bob --server crm --tool lookup_customer
      and through an ordinary MCP client, with the login token that it got for desk-app?

Looks at clients, registry and policies of the configuration. What only a real request shows (its proof, the user's
token, revocations, rates) is taken to be good. A call that a person would
have to approve is a no as long as approvals are not configured. Exit code 0: yes, 3: no.")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Client that would ask
    #[arg(long, value_name = "ID")]
    client: String,
    /// Stable claim of the user [default: nobody, the client asks for itself]
    #[arg(long = "user", visible_alias = "user-sub", value_name = "SUB")]
    user: Option<String>,
    /// The user's groups at the identity provider
    #[arg(long, value_delimiter = ',', requires = "user")]
    groups: Vec<String>,
    /// The user's roles, beside those that the configuration makes of the groups
    #[arg(long, value_delimiter = ',', requires = "user")]
    roles: Vec<String>,
    /// `iss` of the user's identity provider [default: the only one of the client's tenant]
    #[arg(long, value_name = "URL", requires = "user")]
    issuer: Option<String>,
    /// Authentication context (`acr`) of the user
    #[arg(long, requires = "user")]
    acr: Option<String>,
    /// Client of the identity provider that would present the user's own token to the server, whose guard `--client`
    /// is: `binding` is then `bearer`
    #[arg(long, value_name = "CLIENT", requires = "user")]
    bearer: Option<String>,
    /// Resource URI or id of the MCP server
    #[arg(long, value_name = "URI|ID")]
    server: String,
    /// The tool [default: listing]
    #[arg(long)]
    tool: Option<String>,
    /// The exact arguments
    #[arg(long, value_name = "JSON|@FILE", requires = "tool")]
    arguments: Option<String>,
    /// Binding level [default: L3 with arguments, else L1; L0 without a tool]
    #[arg(long, value_parser = level)]
    level: Option<Level>,
    /// The model, as the client would claim it
    #[arg(long)]
    model: Option<String>,
}

/// What would be decided, and why.
#[derive(Debug, Serialize)]
struct Answer {
    answer: Word,
    /// Constant word of the refusal.
    reason: Option<&'static str>,
    /// What exactly.
    detail: Option<String>,
    /// Policies that decided.
    policies: Vec<String>,
    /// Why policies could not be evaluated.
    errors: Vec<String>,
    /// What a person would have to do.
    requires: Option<&'static str>,
    level: Level,
    least_level: Option<Level>,
    risk: Option<Risk>,
    /// The user's roles.
    roles: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Yes,
    No,
}

/// Runs it.
///
/// # Errors
/// If the configuration or the question makes no sense.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let resolved = args.config.load()?;
    let arguments: Option<Object> =
        args.arguments.as_deref().map(|text| input::object(text, "--arguments")).transpose()?;
    let question = Question::of(&args, &resolved, arguments)?;
    let answer = question.answer();
    output.show(&answer, || answer.to_text())?;
    Ok(match answer.answer {
        Word::Yes => Exit::Ok,
        Word::No => Exit::Denied,
    })
}

impl Answer {
    fn to_text(&self) -> String {
        let mut text = match self.answer {
            Word::Yes => "✔ yes\n".to_owned(),
            Word::No => "✖ no\n".to_owned(),
        };
        let mut facts = Facts::default();
        facts.add_some("reason", self.reason).add_some("detail", self.detail.as_deref());
        let deciding = match (self.policies.is_empty(), self.answer, self.reason) {
            (false, ..) => Some(self.policies.join(", ")),
            (true, Word::No, Some("policy")) => Some("none permits it".to_owned()),
            (true, ..) => None,
        };
        facts.add_some("policies", deciding);
        for error in &self.errors {
            facts.add("error", error);
        }
        facts.add_some(
            "needs",
            self.requires.map(|requires| match requires {
                "confirm" => "the user's own confirmation",
                _ => "the approval of others",
            }),
        );
        let least =
            self.least_level.map(|least| format!(" (the tool needs {least} at least)")).unwrap_or_default();
        facts.add("level", format!("{}{least}", self.level));
        facts.add_some("risk", self.risk.as_ref().map(risk_words));
        if !self.roles.is_empty() {
            facts.add("roles", self.roles.join(", "));
        }
        text.push_str(&facts.to_string());
        if let Some(reason) = self.reason.filter(|_| self.answer == Word::No) {
            text.push_str(&format!("  next: {}\n", super::explain::what_to_do(reason)));
        }
        text
    }
}

fn level(text: &str) -> Result<Level, String> {
    [Level::L0, Level::L1, Level::L2, Level::L3]
        .into_iter()
        .find(|level| level.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| "one of L0, L1, L2, L3".to_owned())
}

fn risk_words(risk: &Risk) -> String {
    let reasons = if risk.reasons.is_empty() {
        "nothing counts against it".to_owned()
    } else {
        risk.reasons.join(", ")
    };
    format!("{} of 100: {reasons}", risk.score)
}
