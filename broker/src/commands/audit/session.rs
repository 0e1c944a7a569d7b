//! From a session of an AWS role, or from CloudTrail's record of it, back to the call that it was made for.

mod named;
mod story;

use deputize_issuer::log::LogReader;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use uuid::Uuid;

use self::{named::Named, story::Story};
use super::Record;
use crate::commands::{
    data::unreadable,
    exit::{CommandError, CommandResult, Exit},
    input,
    output::{Output, note},
    progress,
};

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked<'a> {
    /// An assumed role's ARN, or the session's name.
    Session(&'a str),
    /// A file of CloudTrail: one event, or many.
    Trail(&'a Path),
}

/// Tells the story of each session, in the order of their decisions.
///
/// # Errors
/// If one is missing in the log, or is told otherwise by AWS than here; what is known is told all the same.
pub(super) fn run(asked: Asked<'_>, reader: &LogReader, output: Output) -> CommandResult {
    let wanted = match asked {
        Asked::Session(name) => BTreeMap::from([named::session(name)?]),
        Asked::Trail(file) => from_trail(file)?,
    };
    let mut stories = role_sessions(reader, &wanted)?;
    follow(reader, &mut stories)?;
    let (mut missing, mut doubtful) = (Vec::new(), false);
    for (id, named) in &wanted {
        let Some(mut story) = stories.remove(id) else {
            missing.push(*id);
            continue;
        };
        story.compare(named);
        doubtful |= story.is_doubtful();
        output.record(&story, || story.to_text())?;
    }
    match missing.as_slice() {
        [] if doubtful => Err(CommandError::failure(
            "what AWS says and what the log says do not fit: see the doubts above",
            "find out who else can take the role, or write the trail; `deputize explain ID` tells the log's side",
        )),
        [] => Ok(Exit::Ok),
        [id, more @ ..] => Err(unknown(*id, more.len())),
    }
}

fn from_trail(file: &Path) -> Result<BTreeMap<Uuid, Named>, CommandError> {
    let text = input::file_text(file)?;
    let read = named::events(&text).map_err(|problem| {
        CommandError::usage(
            format!("{}: {problem}", file.display()),
            "give one event of CloudTrail as JSON, or a file of events as CloudTrail writes it, unpacked",
        )
    })?;
    if read.sessions.is_empty() {
        return Err(CommandError::failure(
            format!("{}: none of {} events is of a session that Deputize made", file.display(), read.others),
            "sessions of Deputize have the id of a decision as their name",
        ));
    }
    if read.others > 0 {
        note(&format!("{} events are of other sessions, or of none", read.others));
    }
    Ok(read.sessions)
}

/// The intents of these sessions, and what became of them.
fn role_sessions(
    reader: &LogReader,
    wanted: &BTreeMap<Uuid, Named>,
) -> Result<BTreeMap<Uuid, Story>, CommandError> {
    let mut stories: BTreeMap<Uuid, Story> = BTreeMap::new();
    each(reader, "searching", |record| {
        let Some(entry) = &record.known else { return };
        let Some(id) = entry.decision.filter(|id| wanted.contains_key(id)) else { return };
        match stories.get_mut(&id) {
            Some(story) => story.go_on(&record),
            None => drop(Story::begin(&record).map(|story| stories.insert(id, story))),
        }
    })?;
    Ok(stories)
}

/// The calls that they were made for, and what became of those.
fn follow(reader: &LogReader, stories: &mut BTreeMap<Uuid, Story>) -> Result<(), CommandError> {
    let tokens: BTreeSet<String> =
        stories.values().filter_map(|story| story.token().map(str::to_owned)).collect();
    each(reader, "reading on", |record| {
        let jti = record.known.as_ref().and_then(|entry| entry.jti.as_ref());
        let Some(jti) = jti.filter(|jti| tokens.contains(*jti)).cloned() else { return };
        for story in stories.values_mut().filter(|story| story.token() == Some(jti.as_str())) {
            story.of_the_call(&record);
        }
    })
}

fn each(reader: &LogReader, what: &'static str, mut look: impl FnMut(Record)) -> Result<(), CommandError> {
    let bar = progress::records(what, reader.size());
    for entry in reader.entries(0, reader.size()) {
        let (index, bytes) = entry.map_err(unreadable)?;
        bar.inc(1);
        look(Record::read(index, &bytes));
    }
    bar.finish_and_clear();
    Ok(())
}

fn unknown(id: Uuid, more: usize) -> CommandError {
    let others = if more > 0 { format!(", nor {more} others") } else { String::new() };
    CommandError::failure(
        format!("no role session {id} in this log{others}"),
        "ask the log of each replica; a session of this name that none of them has was not made by this broker",
    )
}
