//! `deputize templates`: what AWS sessions calls can get, checked and tried out before AWS sees anything.

mod caller;
mod cases;
mod export;
mod lint;
mod plan;
mod simulate;

use deputize_issuer::templates::{TemplateFile, Templates};
use schemars::schema_for;
use std::path::Path;

use super::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};
use crate::config::templates::load_templates;

/// Checks AWS role templates, shows what they grant, and writes what they need at AWS.
#[derive(Debug, clap::Args)]
#[command(after_help = "A template's way into use:
  deputize templates lint templates                 every problem, with what to do; a counterexample where one exists
  deputize templates simulate templates --template restart-instance --user alice \\
      --arguments '{\"instance_id\": \"i-0123456789abcdef0\"}'
  deputize templates test templates                 the cases in *.test.yaml beside them
  deputize templates plan before templates          what a change grants and takes
  deputize templates export terraform templates --issuer https://broker.example.com/web-identity > deputize.tf.json
  deputize doctor --role ARN --trust-policy FILE    whether a role there lets them in, and nobody else
  deputize templates schema > template.schema.json  for editors: # yaml-language-server: $schema=template.schema.json

Nothing here asks AWS. Exit codes: 0 ok, 1 failure, 2 usage, 3 refused, 5 bad templates.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Lint(lint::Args),
    Simulate(Box<simulate::Args>),
    Test(cases::Args),
    Plan(plan::Args),
    Export(Box<export::Args>),
    /// Print the JSON Schema of a template or of its cases, for editors
    Schema {
        /// Of which file
        #[arg(long, value_enum, default_value_t)]
        of: Described,
    },
}

/// Files that have a schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Described {
    /// A template
    #[default]
    Template,
    /// Its cases
    Cases,
}

/// Runs it.
///
/// # Errors
/// If a file cannot be read, or the answer not written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Lint(args) => lint::run(&args, output),
        Command::Simulate(args) => simulate::run(&args, output),
        Command::Test(args) => cases::run(&args, output),
        Command::Plan(args) => plan::run(&args, output),
        Command::Export(args) => export::run(&args, output),
        Command::Schema { of } => {
            let schema = match of {
                Described::Template => schema_for!(TemplateFile),
                Described::Cases => schema_for!(cases::CasesFile),
            };
            let text = serde_json::to_string_pretty(&schema);
            output.raw(&(text.map_err(|error| CommandError::failure(error, "report this"))? + "\n"))?;
            Ok(Exit::Ok)
        }
    }
}

/// The checked templates of a folder.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(folder: &Path) -> Result<Templates, CommandError> {
    load_templates(folder).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CommandError::configuration(all.join("\n"), "correct it; `deputize templates lint` checks everything")
    })
}
