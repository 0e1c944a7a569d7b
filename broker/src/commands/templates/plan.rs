//! `deputize templates plan`: what a change of templates grants and takes.

use deputize_issuer::templates::{Change, Direction, plan};
use serde::Serialize;
use std::path::{Path, PathBuf};

use super::load;
use crate::{
    commands::{
        exit::{CommandError, CommandResult, Exit},
        output::{Columns, Output},
    },
    config::templates::{Unread, read_templates},
};

/// Shows what a change of templates grants (+), takes (-) or changes (~), right by right
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  git worktree add ../before main && deputize templates plan ../before/templates templates
  deputize templates plan before after -o json
  deputize templates plan before after --forbid-grants

Signs are those of rights, not of text: a condition that goes is granted (+), one that comes is taken (-), as is a shorter
window. ~ is a change that a person has to look at: another role, another parameter.
Exit code 0: shown, whatever it is. 3: something is granted or changed, with --forbid-grants. 5: the templates in NEW are
wrong, or those in OLD cannot be read.")]
pub struct Args {
    /// Folder of templates as they were; an empty one for none
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// Folder of templates as they are to be
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Exit with 3 unless rights are only taken: for changes that need no second pair of eyes
    #[arg(long)]
    forbid_grants: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    granted: usize,
    taken: usize,
    changed: usize,
    changes: Vec<Change>,
}

/// Runs it.
///
/// # Errors
/// If the templates cannot be read, or the new ones are wrong.
pub fn run(args: &Args, output: Output) -> CommandResult {
    let new: Vec<_> = load(&args.new)?.iter().map(|template| template.file().clone()).collect();
    let changes = plan(&old(&args.old)?, &new);
    let count = |direction| changes.iter().filter(|change| change.direction == direction).count();
    let answer = Answer {
        granted: count(Direction::Granted),
        taken: count(Direction::Taken),
        changed: count(Direction::Changed),
        changes,
    };
    output.show(&answer, || answer.to_text(args.forbid_grants))?;
    let is_forbidden = args.forbid_grants && answer.granted + answer.changed > 0;
    Ok(if is_forbidden { Exit::Denied } else { Exit::Ok })
}

/// The old ones may break rules that are newer than they.
fn old(folder: &Path) -> Result<Vec<deputize_issuer::templates::TemplateFile>, CommandError> {
    read_templates(folder).map_err(|Unread { errors, .. }| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CommandError::configuration(all.join("\n"), "give the folder as it was when it could be read")
    })
}

impl Answer {
    fn to_text(&self, forbid_grants: bool) -> String {
        if self.changes.is_empty() {
            return "✔ nothing changes\n".to_owned();
        }
        let mut columns = Columns::new(&["", "TEMPLATE", "WHAT", "DETAIL"]);
        for change in &self.changes {
            let sign = match change.direction {
                Direction::Granted => "+",
                Direction::Taken => "-",
                Direction::Changed => "~",
            };
            columns.row(&[sign, &change.template, change.what, &change.detail]);
        }
        let Self { granted, taken, changed, .. } = self;
        let mut text = format!("{columns}\n{granted} granted, {taken} taken, {changed} changed\n");
        if forbid_grants && granted + changed > 0 {
            text.push_str("  next: have somebody agree to what is granted or changed\n");
        }
        text
    }
}
