//! `deputize explain`: the whole story of a decision, from the log.

mod advice;
mod story;

pub use advice::what_to_do;

use deputize_issuer::{
    log::LogReader,
    record::{Entry, Kind},
};
use uuid::Uuid;

use self::story::Story;
use super::{
    data::{DataArgs, unreadable},
    exit::{CommandError, CommandResult, Exit},
    output::Output,
    progress,
};

/// Tells the whole story of a decision: who, for whom, what, why, and what became of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize explain 0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55
  deputize explain 0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55 -o json

The id stands in every error body, in the response header, in the token's answer and in the log span.")]
pub struct Args {
    /// Id of the decision
    decision_id: Uuid,
    #[command(flatten)]
    data: DataArgs,
}

/// Runs it.
///
/// # Errors
/// If there is no such decision, or the log cannot be read.
pub async fn run(args: Args, output: Output) -> CommandResult {
    let folder = args.data.find()?;
    let reader = folder.log()?;
    let (index, entry) = find(&reader, args.decision_id)?;
    let policies = folder.policies();
    let mut story = Story::begin(index, entry, policies.as_ref());
    follow(&reader, &mut story)?;
    output.show(&story, || story.to_text())?;
    Ok(Exit::Ok)
}

/// The record that a decision began with. Ids carry their time (RFC 9562 §5.7), so only what is newer is searched.
fn find(reader: &LogReader, decision_id: Uuid) -> Result<(u64, Entry), CommandError> {
    let made_ms = decision_id.get_timestamp().map_or(0, |time| {
        let (seconds, nanoseconds) = time.to_unix();
        seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds / 1_000_000))
    });
    let bar = progress::records("searching", reader.size());
    for record in reader.tail(u64::MAX) {
        let (index, bytes) = record.map_err(unreadable)?;
        bar.inc(1);
        let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else { continue };
        if entry.decision == Some(decision_id) && matches!(entry.kind, Kind::Intent | Kind::Denial) {
            bar.finish_and_clear();
            return Ok((index, entry));
        }
        if entry.at.saturating_add(CLOCK_STEPS_MS) < made_ms {
            break;
        }
    }
    bar.finish_and_clear();
    Err(CommandError::failure(
        format!("no record of decision {decision_id} in this log"),
        "ask the log of the replica that decided (`log.origin` in the token); refusals beyond a client's quota, and \
         those before a client is authenticated, are only counted: `deputize audit query --kind denials`",
    ))
}

/// What happened after it.
fn follow(reader: &LogReader, story: &mut Story) -> Result<(), CommandError> {
    let bar = progress::records("reading on", reader.size().saturating_sub(story.index()));
    for record in reader.entries(story.index().saturating_add(1), reader.size()) {
        let (index, bytes) = record.map_err(unreadable)?;
        bar.inc(1);
        if let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) {
            story.go_on(index, &entry);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// How far clocks may have been set back between an id and its record.
const CLOCK_STEPS_MS: u64 = 60 * 60 * 1000;
