//! Tools that pass for others, and descriptions that meddle with another server's tools.

use super::{Findings, Neighbour, Rule, Severity};
use std::collections::BTreeSet;
use unicode_security::confusable_detection::skeleton;

/// The tools of other servers.
pub(super) struct Foreign<'f> {
    /// Name, skeleton and server.
    tools: Vec<(&'f str, String, &'f str)>,
    own: BTreeSet<String>,
}

impl<'f> Foreign<'f> {
    pub(super) fn new(own: &[&str], neighbours: &'f [Neighbour<'f>]) -> Self {
        let tools = neighbours
            .iter()
            .flat_map(|neighbour| neighbour.tools.iter().map(|&name| (name, folded(name), neighbour.server)));
        Self {
            tools: tools.take(MAX_FOREIGN).collect(),
            own: own.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

/// Whether a tool's name is another's, or looks like it.
pub(super) fn check(name: &str, own: &[&str], foreign: &Foreign<'_>, findings: &mut Findings) {
    let span = 0..name.len();
    if !name.is_ascii() {
        findings.add(&FOREIGN_LETTERS, "has letters beyond ASCII, which look like others", span.clone());
    }
    let looks = folded(name);
    if let Some(twin) = own.iter().find(|other| **other != name && folded(other) == looks) {
        findings.add(&LOOKS_LIKE, format!("looks like the tool {twin:?} of the same server"), span.clone());
    }
    for (other, skeleton, server) in &foreign.tools {
        if *other == name {
            findings.add(
                &SAME_NAME,
                format!("has the name of a tool of the server {server:?}"),
                span.clone(),
            );
        } else if *skeleton == looks {
            let reason = format!("looks like the tool {other:?} of the server {server:?}");
            findings.add(&LOOKS_LIKE, reason, span.clone());
        } else if name.len() >= NEAR_LENGTH && is_near(name, other) {
            let reason = format!("differs by one character from the tool {other:?} of the server {server:?}");
            findings.add(&NEAR, reason, span.clone());
        }
    }
}

/// Whether a text speaks of another server's tool by its name. Names that are plain words are not looked for.
pub(super) fn mentions(text: &str, foreign: &Foreign<'_>, findings: &mut Findings) {
    if foreign.tools.is_empty() {
        return;
    }
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let words: BTreeSet<&str> =
        text.split(|c: char| !is_part(c)).filter(|word| is_distinctive(word)).collect();
    for (name, _, server) in foreign.tools.iter().filter(|(name, ..)| words.contains(name)) {
        if foreign.own.contains(*name) {
            continue;
        }
        let at = text.find(name).unwrap_or_default();
        let reason = format!("speaks about the tool {name:?} of the server {server:?}");
        findings.add(&SPEAKS_OF, reason, at..at + name.len());
    }
}

/// Made of several words: nobody writes it by chance.
fn is_distinctive(name: &str) -> bool {
    let joined = name.trim_matches(['_', '-']).contains(['_', '-']);
    let humped = name.chars().zip(name.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    name.len() >= 6 && (joined || humped)
}

/// One character more, less, other, or two swapped; an ending `s` is a plural.
fn is_near(one: &str, other: &str) -> bool {
    let plural = |a: &str, b: &str| a.strip_suffix('s') == Some(b);
    one.len().abs_diff(other.len()) <= 1
        && !plural(one, other)
        && !plural(other, one)
        && strsim::damerau_levenshtein(one, other) == 1
}

fn folded(name: &str) -> String {
    skeleton(&name.to_lowercase()).flat_map(char::to_lowercase).collect()
}

const MAX_FOREIGN: usize = 20_000;
const NEAR_LENGTH: usize = 6;
const RENAME: &str = "ask the publisher for another name, or make sure that it is the server that you mean";
const LOOKS_LIKE: Rule = Rule { name: "look-alike", severity: Severity::High, advice: RENAME };
const FOREIGN_LETTERS: Rule = Rule { name: "foreign-letters", severity: Severity::High, advice: RENAME };
const NEAR: Rule = Rule { name: "near-name", severity: Severity::Medium, advice: RENAME };
const SAME_NAME: Rule = Rule { name: "same-name", severity: Severity::Medium, advice: RENAME };
const SPEAKS_OF: Rule = Rule {
    name: "speaks-of-another",
    severity: Severity::High,
    advice: "a server has no business with another's tools: ask the publisher what it is for",
};
