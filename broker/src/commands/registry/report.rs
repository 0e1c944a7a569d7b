//! Findings and differences, for people.

use deputize_issuer::registry::{
    diff::{ChangeKind, ManifestDiff, Piece},
    scan::{Finding, Severity},
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use crate::commands::output::clean;

/// Whether colours are wanted: on a terminal, unless `NO_COLOR` says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// As stdout and the environment have it.
    pub fn detect() -> Self {
        let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !declined)
    }

    /// No colours.
    pub fn none() -> Self {
        Self(false)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Each finding on three lines.
pub fn findings(found: &[Finding], accepted: &BTreeSet<String>, paint: Paint) -> String {
    let mut text = String::new();
    for finding in found {
        let (mark, colour) = match finding.severity {
            Severity::High => ('✖', "31"),
            Severity::Medium => ('!', "33"),
            Severity::Low => ('·', "2"),
        };
        let known = if accepted.contains(&finding.id) { " (accepted)" } else { "" };
        let place = if finding.tool.is_empty() { "server" } else { finding.tool.as_str() };
        let head = format!(
            "{mark} {} {} {} {}: {}{known}",
            finding.severity.as_str(),
            finding.id,
            clean(place),
            clean(&finding.pointer),
            clean(&finding.reason),
        );
        let _ = writeln!(text, "{}", paint.wrap(colour, &head));
        let _ = writeln!(text, "    {}", clean(&finding.excerpt));
        let _ = writeln!(text, "    next: {}", finding.advice);
    }
    text
}

/// Each change with its words: removed ones in `[-…-]`, added ones in `{+…+}`, and in colour where there is any.
pub fn changes(diff: &ManifestDiff, paint: Paint) -> String {
    let mut text = String::new();
    for change in &diff.changes {
        // No name of a tool has a blank: `prompt NAME`, `resource URI`.
        let is_tool = !change.tool.contains(' ');
        let what = match change.kind {
            ChangeKind::ToolAdded if is_tool => "tool added",
            ChangeKind::ToolRemoved if is_tool => "tool removed",
            ChangeKind::ToolRenamed if is_tool => "tool renamed",
            ChangeKind::ToolRenamed => "renamed",
            ChangeKind::ToolAdded => "added",
            ChangeKind::ToolRemoved => "removed",
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        let head = format!("{} {}", clean(&change.tool), clean(&change.pointer));
        let _ = writeln!(text, "{}: {what}", paint.wrap("1", head.trim()));
        let _ = writeln!(text, "    {}", words(&change.words, paint));
    }
    if diff.omitted > 0 {
        let _ = writeln!(text, "… and {} changes more", diff.omitted);
    }
    text
}

/// How one text became another.
pub fn words(pieces: &[Piece], paint: Paint) -> String {
    pieces.iter().fold(String::new(), |line, piece| {
        line + &match piece {
            Piece::Same(same) => clean(same).into_owned(),
            Piece::Removed(gone) => paint.wrap("31", &format!("[-{}-]", clean(gone))),
            Piece::Added(new) => paint.wrap("32", &format!("{{+{}+}}", clean(new))),
            Piece::Skipped(count) => paint.wrap("2", &format!(" … {count} characters … ")),
        }
    })
}

/// High findings that nobody has accepted.
pub fn unaccepted<'f>(found: &'f [Finding], accepted: &BTreeSet<String>) -> Vec<&'f Finding> {
    found
        .iter()
        .filter(|finding| finding.severity == Severity::High && !accepted.contains(&finding.id))
        .collect()
}

/// The ids that an approval accepted.
pub fn accepted(ids: &[String]) -> BTreeSet<String> {
    ids.iter().cloned().collect()
}
