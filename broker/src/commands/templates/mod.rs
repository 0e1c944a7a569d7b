//! `deputize templates`: what AWS sessions calls can get, checked and tried out before AWS sees anything.

mod lint;
mod simulate;

use deputize_issuer::templates::TemplateFile;
use schemars::schema_for;

use super::{
    exit::{CommandError, CommandResult, Exit},
    output::Output,
};

/// Checks AWS role templates, and shows what they grant.
#[derive(Debug, clap::Args)]
#[command(after_help = "A template's way into use:
  deputize templates lint templates                 every problem, with what to do; a counterexample where one exists
  deputize templates simulate templates --template restart-instance --user alice \\
      --arguments '{\"instance_id\": \"i-0123456789abcdef0\"}'
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
    /// Print the JSON Schema of a template, for editors
    Schema,
}

/// Runs it.
///
/// # Errors
/// If a file cannot be read, or the answer not written.
pub async fn run(args: Args, output: Output) -> CommandResult {
    match args.command {
        Command::Lint(args) => lint::run(&args, output),
        Command::Simulate(args) => simulate::run(&args, output),
        Command::Schema => {
            let text = serde_json::to_string_pretty(&schema_for!(TemplateFile));
            output.raw(&(text.map_err(|error| CommandError::failure(error, "report this"))? + "\n"))?;
            Ok(Exit::Ok)
        }
    }
}
