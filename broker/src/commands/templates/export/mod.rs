//! `deputize templates export`: what the templates need in an account, for the tools that put it there.

mod cloudformation;
mod query;
mod terraform;

use deputize_issuer::templates::{Template, Templates, TrustedIssuer, role_policy, trust_policy};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

use super::load;
use crate::{
    commands::{
        exit::{CommandError, CommandResult, Exit},
        output::{Format, Output},
    },
    config::aws_issuer::{Taker, check_issuer},
};

/// Writes what the templates need at AWS: OIDC provider, roles, trust policies, rights; or a query of CloudTrail
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize templates export terraform --issuer https://broker.example.com/web-identity > deputize.tf.json
  deputize templates export cloudformation --issuer https://broker.example.com/web-identity > deputize.json
  deputize templates export query --table cloudtrail_logs --session 019aa5f2-7c40-7000-8000-000000000001

A role trusts this issuer for exactly its templates. Its rights are what any of their calls can need: a parameter becomes
the session tag that carries it, or `*` where no tag does; the session policy of each call takes all but one resource away.
The ceiling stands in it as Denies. Nothing here asks AWS.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Terraform, in its JSON syntax: a file `*.tf.json`
    Terraform(Exported),
    /// CloudFormation (needs CAPABILITY_NAMED_IAM)
    #[command(name = "cloudformation")]
    CloudFormation(Exported),
    Query(query::Args),
}

/// What is exported, and for whom.
#[derive(Debug, clap::Args)]
struct Exported {
    /// Folder of templates (`*.yaml`, `*.yml`, `*.json`)
    #[arg(value_name = "DIR", default_value = "templates")]
    folder: PathBuf,
    /// A template; several with --template again [default: all]
    #[arg(long = "template", value_name = "NAME")]
    templates: Vec<String>,
    /// The account, where templates are of several
    #[arg(long, value_name = "DIGITS")]
    account: Option<String>,
    /// Issuer of the web identities: `{base}/web-identity`, or where `deputize keys publish` puts its files
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Their audience
    #[arg(long, default_value = "sts.amazonaws.com")]
    audience: String,
    /// Leave the OIDC provider out: the account has it already
    #[arg(long)]
    without_provider: bool,
}

/// What an account needs.
struct Needed {
    /// Of the provider; `None` where the account has it.
    provider: Option<Provider>,
    roles: Vec<Role>,
}

struct Provider {
    url: String,
    audience: String,
}

struct Role {
    /// Of its first template.
    called: String,
    name: String,
    path: String,
    trust: Value,
    policy: Value,
}

/// Runs it.
///
/// # Errors
/// If the templates are wrong, or what they need cannot be said in that form.
pub fn run(args: &Args, output: Output) -> CommandResult {
    let document = match &args.command {
        Command::Terraform(exported) => terraform::document(&exported.needed()?),
        Command::CloudFormation(exported) => cloudformation::document(&exported.needed()?)?,
        Command::Query(args) => return query::run(args, output),
    };
    // For people too: it is a file for another program.
    let output = if output.is_for_people() { Output::new(Format::Json) } else { output };
    output.show(&document, String::new)?;
    Ok(Exit::Ok)
}

impl Exported {
    fn needed(&self) -> Result<Needed, CommandError> {
        check_issuer(&self.issuer, Taker::Aws).map_err(|problem| {
            CommandError::usage(
                format!("--issuer {:?} {problem}", self.issuer),
                "give the issuer that AWS knows: `https://broker.example.com/web-identity`",
            )
        })?;
        let templates = load(&self.folder)?;
        let issuer = TrustedIssuer { issuer: &self.issuer, audience: &self.audience };
        let mut by_role: BTreeMap<&str, Vec<&Template>> = BTreeMap::new();
        for template in self.chosen(&templates)? {
            by_role.entry(&template.file().aws.role_arn).or_default().push(template);
        }
        let provider = Provider { url: self.issuer.clone(), audience: self.audience.clone() };
        Ok(Needed {
            provider: (!self.without_provider).then_some(provider),
            roles: by_role
                .into_iter()
                .map(|(arn, of)| Role::of(arn, &of, issuer))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The templates that are meant, of one account.
    fn chosen<'t>(&self, templates: &'t Templates) -> Result<Vec<&'t Template>, CommandError> {
        if let Some(unknown) = self.templates.iter().find(|name| templates.get(name).is_none()) {
            let names: Vec<&str> = templates.iter().map(|template| template.file().name.as_str()).collect();
            return Err(CommandError::usage(
                format!("there is no template {unknown:?}"),
                format!("one of these: {}", names.join(", ")),
            ));
        }
        let is_meant = |template: &&Template| {
            let file = template.file();
            (self.templates.is_empty() || self.templates.contains(&file.name))
                && self.account.as_ref().is_none_or(|account| *account == file.aws.account)
        };
        let chosen: Vec<_> = templates.iter().filter(is_meant).collect();
        let Some(first) = chosen.first() else {
            return Err(CommandError::usage(
                "no template is meant",
                "give the folder and the account of some",
            ));
        };
        if chosen.iter().any(|template| template.file().aws.account != first.file().aws.account) {
            return Err(CommandError::usage(
                "the templates are of several accounts",
                "give --account, and export for each",
            ));
        }
        Ok(chosen)
    }
}

impl Role {
    fn of(arn: &str, templates: &[&Template], issuer: TrustedIssuer<'_>) -> Result<Self, CommandError> {
        // `check` has seen to it that there is `role/`.
        let path_and_name = arn.split_once(":role/").map_or(arn, |(_, rest)| rest);
        let (path, name) = path_and_name.rsplit_once('/').map_or(("", path_and_name), |split| split);
        let path = if path.is_empty() { "/".to_owned() } else { format!("/{path}/") };
        let called = templates.first().map(|template| template.file().name.clone()).unwrap_or_default();
        let (trust, policy) = (trust_policy(templates, issuer), role_policy(templates));
        for (what, document, most) in [("trust", &trust, MAX_TRUST), ("rights", &policy, MAX_INLINE_POLICY)] {
            let characters = document.to_string().chars().filter(|c| !c.is_whitespace()).count();
            if characters > most {
                return Err(CommandError::failure(
                    format!("{arn}: its {what} would have {characters} characters; IAM takes {most}"),
                    "give some of its templates a role of their own",
                ));
            }
        }
        Ok(Self { called, name: name.to_owned(), path, trust, policy })
    }
}

/// Characters of a trust policy, white space aside (IAM's default quota).
const MAX_TRUST: usize = 2048;
/// Characters of a role's inline policies together, white space aside.
const MAX_INLINE_POLICY: usize = 10_240;
/// What the inline policy is called.
const POLICY_NAME: &str = "deputize";
