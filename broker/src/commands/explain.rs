//! `deputize explain`: the whole story of a decision, from the log.

mod advice;
mod story;
mod svid;

pub use advice::what_to_do;
pub(super) use svid::exchange_in_words;

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

/// Tells the whole story of a decision: who, for whom, what, why, and what became of it. Of an SVID and of a change of a
/// registration entry likewise.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize explain 0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55
  deputize explain 0193a5f2-7c1e-7cc0-9f2b-3f7f3a9d1c55 -o json

The id stands in every error body, in the response header, in the token's answer and, as request_id, in the log span.
That of an SVID stands in its record alone: `deputize audit query --spiffe-id ID` finds it.")]
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
    let mut story = Story::begin(index, entry, &folder);
    follow(&reader, &mut story)?;
    output.show(&story, || story.to_text())?;
    Ok(Exit::Ok)
}

/// The record that a decision began with. Ids carry their time (RFC 9562 §5.7), so only what is newer is searched.
/// Where there is none, what was counted about then may be it.
fn find(reader: &LogReader, decision_id: Uuid) -> Result<(u64, Entry), CommandError> {
    let made_ms = decision_id.get_timestamp().map_or(0, |time| {
        let (seconds, nanoseconds) = time.to_unix();
        seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds / 1_000_000))
    });
    let mut counted = Vec::new();
    let bar = progress::records("searching", reader.size());
    for record in reader.tail(u64::MAX) {
        let (index, bytes) = record.map_err(unreadable)?;
        bar.inc(1);
        let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else { continue };
        if entry.decision == Some(decision_id) && begins_a_story(entry.kind) {
            bar.finish_and_clear();
            return Ok((index, entry));
        }
        if entry.at.saturating_add(CLOCK_STEPS_MS) < made_ms {
            break;
        }
        if (made_ms..made_ms.saturating_add(COUNTED_WITHIN_MS)).contains(&entry.at) {
            counted.extend(in_words(&entry));
        }
    }
    bar.finish_and_clear();
    Err(no_record(decision_id, &counted))
}

fn begins_a_story(kind: Kind) -> bool {
    matches!(kind, Kind::Intent | Kind::Denial | Kind::Registration | Kind::Node)
}

/// A count of refusals: `3 × proof_malformed`.
fn in_words(entry: &Entry) -> Option<String> {
    let (reason, count) = (entry.reason.as_ref()?, entry.count?);
    Some(match (entry.kind, &entry.client) {
        (Kind::Refusals, _) => format!("{count} × {reason}"),
        (Kind::Denials, Some(client)) => format!("{count} × {reason} of {client}"),
        _ => return None,
    })
}

fn no_record(decision_id: Uuid, counted: &[String]) -> CommandError {
    let next = match counted {
        [] => "nothing was counted in that moment either: ask the log of the replica that answered (`log.origin` in its \
               tokens)"
            .to_owned(),
        counted => format!(
            "refusals before the client is authenticated, and those beyond a client's quota, are only counted by \
             reason; counted in that moment: {}",
            counted.join(", ")
        ),
    };
    CommandError::failure(format!("no record of decision {decision_id} in this log"), next)
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

/// What was refused in a second is written when it ends; a busy machine is given one more.
const COUNTED_WITHIN_MS: u64 = 2500;
/// How far clocks may have been set back between an id and its record.
const CLOCK_STEPS_MS: u64 = 60 * 60 * 1000;
