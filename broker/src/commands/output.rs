//! What commands print: for people, as JSON or as YAML. Nothing that somebody else chose reaches the terminal raw.

use serde::Serialize;
use serde_json::Value;
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

use super::exit::CommandError;

/// The form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON; where there are many records, one a line.
    Json,
    /// YAML; where there are many records, one document each.
    Yaml,
}

/// Prints in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
}

impl Output {
    /// In this form.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether people read it.
    pub fn is_for_people(self) -> bool {
        self.format == Format::Table
    }

    /// Prints one result: `value`, or what `text` says of it to people.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn show<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), CommandError> {
        match self.format {
            Format::Table => self.text(&text()),
            Format::Json => {
                let json = serde_json::to_string_pretty(value).map_err(unserializable)?;
                write_out(&format!("{}\n", escape_json(&json)))
            }
            Format::Yaml => write_out(&to_yaml(value)?),
        }
    }

    /// As [`Self::show`], for text that has colours: whatever in it is not ours must be [`clean`] already.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn show_painted<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        match self.format {
            Format::Table => write_out(&text()),
            Format::Json | Format::Yaml => self.show(value, String::new),
        }
    }

    /// Prints one of many records; ends the process, well, where nobody reads any more.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record<T: Serialize>(self, value: &T, line: impl FnOnce() -> String) -> Result<(), CommandError> {
        write_record(&match self.format {
            Format::Table => format!("{}\n", clean_lines(&line())),
            Format::Json => {
                let json = serde_json::to_string(value).map_err(unserializable)?;
                format!("{}\n", escape_json(&json))
            }
            Format::Yaml => format!("---\n{}", to_yaml(value)?),
        })
    }

    /// Prints text of our own as it is: scripts and schemas.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn raw(self, text: &str) -> Result<(), CommandError> {
        write_out(text)
    }

    /// Prints text for people, whatever the form.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn text(self, text: &str) -> Result<(), CommandError> {
        let mut text = clean_lines(text).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        write_out(&text)
    }
}

/// Says why a command failed, on stderr.
pub fn complain(error: &CommandError) {
    let mut text = format!("error: {}\n", clean_lines(&error.message));
    if !error.next.is_empty() {
        let _ = writeln!(text, " next: {}", clean_lines(&error.next));
    }
    // Where stderr is closed there is nobody to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A note on stderr, for people at a terminal alone.
pub fn note(text: &str) {
    if io::stderr().is_terminal() {
        let _ = io::stderr().write_all(format!("{}\n", clean_lines(text)).as_bytes());
    }
}

/// Says something on stderr that whoever started this needs, a person or a program.
pub fn announce(text: &str) {
    // Who closed stderr does not want to hear it.
    let _ = io::stderr().write_all(format!("{}\n", clean_lines(text)).as_bytes());
}

/// One value on one line: what a terminal would obey, or an eye would be misled by, is written as `\u{…}`.
pub fn clean(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe)
}

/// Labelled facts, one a line, values aligned.
#[derive(Debug, Default)]
pub struct Facts {
    lines: Vec<(String, String)>,
}

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, label: &str, value: impl AsRef<str>) -> &mut Self {
        self.lines.push((clean(label).into_owned(), clean(value.as_ref()).into_owned()));
        self
    }

    /// Adds a fact if there is one.
    pub fn add_some(&mut self, label: &str, value: Option<impl AsRef<str>>) -> &mut Self {
        if let Some(value) = value {
            self.add(label, value);
        }
        self
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        self.lines.iter().try_for_each(|(label, value)| writeln!(f, "  {label:width$}  {value}"))
    }
}

/// Columns under a heading.
#[derive(Debug)]
pub struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// With this heading.
    pub fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|&name| name.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| clean(cell).into_owned()).collect());
    }
}

impl std::fmt::Display for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn write_out(text: &str) -> Result<(), CommandError> {
    match print(text) {
        // Who reads has seen enough. What the command found out still is its exit code.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(unwritable),
    }
}

/// As [`write_out`], for one of many records: nobody needs the others where nobody reads (`| head`).
fn write_record(text: &str) -> Result<(), CommandError> {
    match print(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        printed => printed.map_err(unwritable),
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn unwritable(error: io::Error) -> CommandError {
    CommandError::failure(format!("cannot write: {error}"), "free some space, or write elsewhere")
}

/// As [`clean`], but keeps line breaks.
fn clean_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_unsafe(c))
}

fn escape(text: &str, refuse: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&refuse) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if refuse(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// In JSON, what serde leaves raw stands inside strings only, so `\uXXXX` keeps the value.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn to_yaml<T: Serialize>(value: &T) -> Result<String, CommandError> {
    let mut tree = serde_json::to_value(value).map_err(unserializable)?;
    clean_tree(&mut tree);
    let mut yaml = serde_saphyr::to_string(&tree).map_err(unserializable)?;
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    Ok(yaml)
}

fn clean_tree(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean_lines(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(clean_tree),
        Value::Object(members) => {
            *members = std::mem::take(members)
                .into_iter()
                .map(|(name, mut value)| {
                    clean_tree(&mut value);
                    (clean(&name).into_owned(), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn unserializable(error: impl std::fmt::Display) -> CommandError {
    CommandError::failure(format!("the result cannot be written in this form: {error}"), "try -o table")
}

/// Control characters steer terminals; the others are invisible or turn the direction of text, and so make one
/// thing look like another (Unicode TR 36 §2, UAX 9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str =
        "ok\u{1b}[2J\u{1b}]0;title\u{7}\r\n\u{9b}31m\u{202e}evil\u{2066}\u{200b}\u{feff}\u{e0041}\u{7f}";

    #[test]
    fn a_value_stays_on_its_line_and_steers_no_terminal() {
        let cleaned = clean(HOSTILE);
        assert!(!cleaned.contains(is_unsafe), "{cleaned:?}");
        assert!(cleaned.contains("\\u{1b}[2J") && cleaned.contains("\\u{202e}evil"), "{cleaned}");
        assert_eq!(clean("Grüße, 世界 👋"), "Grüße, 世界 👋");
    }

    #[test]
    fn json_keeps_the_value_and_shows_none_of_it_raw() {
        let json = escape_json(&serde_json::to_string(&serde_json::json!({ HOSTILE: HOSTILE })).unwrap());
        assert!(!json.contains(is_unsafe), "{json:?}");
        let back: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back[HOSTILE], HOSTILE);
    }

    #[test]
    fn yaml_shows_nothing_raw() {
        let yaml = to_yaml(&serde_json::json!({ HOSTILE: [HOSTILE, { "a": HOSTILE }] })).unwrap();
        assert!(!yaml.contains(|c| c != '\n' && is_unsafe(c)), "{yaml:?}");
    }

    #[test]
    fn a_cell_cannot_make_a_row() {
        let mut columns = Columns::new(&["A", "B"]);
        columns.row(&["x\ny", "z"]);
        assert_eq!(columns.to_string(), "A        B\nx\\u{a}y  z\n");
        let mut facts = Facts::default();
        facts.add("a", "1\n2").add("long", "3");
        assert_eq!(facts.to_string(), "  a     1\\u{a}2\n  long  3\n");
    }
}
