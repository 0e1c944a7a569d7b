//! Looks for instructions hidden in what a server says of its tools (S-27). A model reads names, descriptions and
//! schemas; people rarely do, and cannot see all of it. Pure: texts in, findings out. Nothing here decides.

mod characters;
mod names;
mod phrases;
mod shapes;
#[cfg(test)]
mod tests;

use deputize_call::{digest::sha256, json::Object};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;

use super::diff::escaped;

/// Something that a person should look at before the tool is approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short id, the same as long as the rule, the place and the whole text there are: what an approval accepts.
    pub id: String,
    /// How bad it is if it is meant as it looks.
    pub severity: Severity,
    /// The tool, `prompt NAME` or `resource URI`; empty for the server itself.
    pub tool: String,
    /// Where in the definition: a JSON Pointer.
    pub pointer: String,
    /// The text around it, with what cannot be seen written as `\u{…}`.
    pub excerpt: String,
    /// The rule that found it.
    pub rule: &'static str,
    /// Why this is a problem.
    pub reason: String,
    /// What to do.
    pub advice: &'static str,
}

/// How bad a finding is. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look.
    Low,
    /// Often innocent, sometimes not.
    Medium,
    /// Hardly ever innocent: an approval must accept it by its id.
    High,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'s> {
    /// The server's id in the registry.
    pub server: &'s str,
    /// What the server tells models about itself, if anything.
    pub instructions: Option<&'s str>,
    /// Its tools' definitions.
    pub tools: &'s [&'s Object],
    /// Its prompts' definitions.
    pub prompts: &'s [&'s Object],
    /// What is shown of its resources: `uri`, `name`, `title`, `description`.
    pub resources: &'s [&'s Object],
}

/// Another server, whose tools this one must not pass for nor speak about.
#[derive(Debug, Clone)]
pub struct Neighbour<'s> {
    /// Its id in the registry.
    pub server: &'s str,
    /// The names of its tools.
    pub tools: Vec<&'s str>,
}

/// Looks at a server's instructions and at every text of its tools, prompts and resources, names of members included.
pub fn scan(subject: &Subject<'_>, neighbours: &[Neighbour<'_>]) -> Vec<Finding> {
    let mut findings = Findings::default();
    let own: Vec<&str> = subject.tools.iter().map(|tool| name_of(tool)).collect();
    let foreign = names::Foreign::new(&own, neighbours);
    if let Some(instructions) = subject.instructions {
        findings.at("", "/instructions", instructions);
        read_text(instructions, &foreign, &mut findings);
    }
    for definition in subject.tools {
        let name = name_of(definition);
        findings.at(name, "/name", name);
        names::check(name, &own, &foreign, &mut findings);
        let mut places = Places { tool: name, foreign: &foreign, findings: &mut findings };
        for (member, value) in *definition {
            places.walk(&format!("/{}", escaped(member)), value, 0);
        }
    }
    let prompts = subject.prompts.iter().map(|prompt| (format!("prompt {}", name_of(prompt)), *prompt));
    let uri = |resource: &Object| resource.get("uri").and_then(Value::as_str).unwrap_or_default().to_owned();
    let resources = subject.resources.iter().map(|it| (format!("resource {}", uri(it)), *it));
    for (place, texts) in prompts.chain(resources) {
        let mut places = Places { tool: &place, foreign: &foreign, findings: &mut findings };
        for (member, value) in texts {
            places.walk(&format!("/{}", escaped(member)), value, 0);
        }
    }
    let mut found = findings.found;
    found.sort_by(|a, b| (b.severity, &a.tool, &a.pointer).cmp(&(a.severity, &b.tool, &b.pointer)));
    found
}

impl Severity {
    /// `"low"`, `"medium"`, `"high"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

fn name_of(definition: &Object) -> &str {
    definition.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Every text of one definition.
struct Places<'p, 'f> {
    tool: &'p str,
    foreign: &'p names::Foreign<'f>,
    findings: &'p mut Findings,
}

impl Places<'_, '_> {
    fn walk(&mut self, pointer: &str, value: &Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::String(text) => {
                self.findings.at(self.tool, pointer, text);
                read_text(text, self.foreign, self.findings);
                if pointer.ends_with("/description") || pointer.ends_with("/title") {
                    shapes::length(text, pointer, self.findings);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.walk(&format!("{pointer}/{at}"), item, depth + 1);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let place = format!("{pointer}/{}", escaped(name));
                    // A member's name is read by a model too.
                    self.findings.at(self.tool, &place, name);
                    characters::check(name, self.findings);
                    phrases::check(name, self.findings);
                    self.walk(&place, member, depth + 1);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn read_text(text: &str, foreign: &names::Foreign<'_>, findings: &mut Findings) {
    let text = first_chars(text, MAX_TEXT_BYTES);
    characters::check(text, findings);
    phrases::check(text, findings);
    shapes::check(text, findings);
    names::mentions(text, foreign, findings);
}

/// The findings so far, and the place that is looked at.
#[derive(Default)]
struct Findings {
    found: Vec<Finding>,
    tool: String,
    pointer: String,
    text: String,
}

/// What a rule says about what it found.
struct Rule {
    name: &'static str,
    severity: Severity,
    advice: &'static str,
}

impl Findings {
    fn at(&mut self, tool: &str, pointer: &str, text: &str) {
        self.tool = first_chars(tool, MAX_PLACE_BYTES).to_owned();
        self.pointer = first_chars(pointer, MAX_PLACE_BYTES).to_owned();
        self.text = text.to_owned();
    }

    /// One finding of a rule at a place is enough: who looks there sees the others.
    fn add(&mut self, rule: &Rule, reason: impl Into<String>, span: std::ops::Range<usize>) {
        let here = |found: &Finding| {
            found.rule == rule.name && found.pointer == self.pointer && found.tool == self.tool
        };
        if self.found.len() >= MAX_FINDINGS || self.found.iter().rev().any(here) {
            return;
        }
        self.found.push(Finding {
            id: finding_id(rule.name, &self.tool, &self.pointer, &self.text),
            severity: rule.severity,
            tool: self.tool.clone(),
            pointer: self.pointer.clone(),
            excerpt: excerpt(&self.text, span),
            rule: rule.name,
            reason: reason.into(),
            advice: rule.advice,
        });
    }
}

/// Of the whole text, so that what was accepted is not accepted again once any of it changes.
fn finding_id(rule: &str, tool: &str, pointer: &str, text: &str) -> String {
    let digest = sha256(format!("{rule}\0{tool}\0{pointer}\0{text}").as_bytes());
    digest.iter().take(5).fold(String::from("F-"), |mut id, byte| {
        // Writing to a string does not fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// What stands around a span, on one line, all that cannot be seen escaped.
fn excerpt(text: &str, span: std::ops::Range<usize>) -> String {
    let before: Vec<char> =
        text.get(..span.start).unwrap_or_default().chars().rev().take(EXCERPT_CHARS).collect();
    let from = text.get(span.start..).unwrap_or_default();
    let length = text.get(span).map_or(1, |inside| inside.chars().count().min(2 * EXCERPT_CHARS));
    let mut shown = String::new();
    for c in before.iter().rev().copied().chain(from.chars().take(length + EXCERPT_CHARS)) {
        if c == '\n' || c == '\t' {
            shown.push(' ');
        } else if c.is_control() || characters::is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn first_chars(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

const MAX_DEPTH: usize = 64;
const MAX_FINDINGS: usize = 500;
/// What is longer is a finding by its length alone.
const MAX_TEXT_BYTES: usize = 64 * 1024;
const MAX_PLACE_BYTES: usize = 512;
const EXCERPT_CHARS: usize = 32;
