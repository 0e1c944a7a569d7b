//! A record as a file for people: YAML with comments, in a fixed order. Nothing that a server chose is written raw:
//! what cannot be seen stands as an escape.

use deputize_issuer::registry::{ServerRecord, ToolRecord};
use schemars::schema_for;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write as _};

use crate::commands::{exit::CommandError, output::clean};

/// Comments for a record.
#[derive(Debug, Default)]
pub struct Notes {
    /// Lines at the head of the file.
    pub head: Vec<String>,
    /// Lines above each tool, by its name.
    pub tools: BTreeMap<String, Vec<String>>,
}

/// The text of a record's file.
///
/// # Errors
/// If the record does not serialize.
pub fn record_text(record: &ServerRecord, notes: &Notes) -> Result<String, CommandError> {
    let value = serde_json::to_value(record)
        .map_err(|error| CommandError::failure(error, "report this: a record serializes"))?;
    let mut text = format!("# yaml-language-server: $schema={SCHEMA_FILE}\n#\n");
    for line in &notes.head {
        comment(line, 0, &mut text);
    }
    for (name, hint) in FIELDS {
        let member = value.get(name).filter(|member| is_worth_a_line(member));
        let (Some(member), false) =
            (member, name == "enabled" && value.get(name) == Some(&Value::Bool(true)))
        else {
            continue;
        };
        field(name, member, hint, &mut text);
    }
    if record.tools.is_empty() {
        text.push_str("tools: []\n");
    } else {
        text.push_str("tools:\n");
    }
    for tool in &record.tools {
        text.push('\n');
        for line in notes.tools.get(tool.name()).into_iter().flatten() {
            comment(line, 2, &mut text);
        }
        write_item(&as_json(tool)?, &TOOL_FIELDS, &mut text);
    }
    for (list, count) in [("prompts", record.prompts.len()), ("resources", record.resources.len())] {
        if count > 0 {
            let _ = write!(text, "\n{list}:");
            text.push('\n');
        }
        let items = value.get(list).and_then(Value::as_array);
        for item in items.into_iter().flatten() {
            text.push('\n');
            write_item(item, &MATERIAL_FIELDS, &mut text);
        }
    }
    Ok(text)
}

fn as_json(tool: &ToolRecord) -> Result<Value, CommandError> {
    serde_json::to_value(tool)
        .map_err(|error| CommandError::failure(error, "report this: a record serializes"))
}

/// The JSON Schema of a record, as it is committed.
///
/// # Errors
/// If it does not serialize.
pub fn schema() -> Result<String, CommandError> {
    let text = serde_json::to_string_pretty(&schema_for!(ServerRecord));
    Ok(text.map_err(|error| CommandError::failure(error, "report this"))? + "\n")
}

/// Says in the text of a record's file that it is approved; nothing else of it is touched. `None` if it does not say
/// either in a way that can be changed.
pub fn with_approval(text: &str) -> Option<String> {
    let mut found = 0;
    let lines: Vec<&str> = text
        .lines()
        .map(|line| {
            if line.split('#').next().unwrap_or_default().trim_end() == "approved: false" {
                found += 1;
                "approved: true"
            } else {
                line
            }
        })
        .collect();
    (found == 1).then(|| lines.join("\n") + "\n")
}

fn field(name: &str, member: &Value, hint: &str, text: &mut String) {
    text.push_str(name);
    text.push(':');
    write_value(member, 2, text);
    if !hint.is_empty() && text.ends_with('\n') {
        text.pop();
        let _ = writeln!(text, " # {hint}");
    }
}

fn write_item(item: &Value, fields: &[&str], text: &mut String) {
    let mut first = true;
    for name in fields {
        let Some(member) = item.get(*name).filter(|member| is_worth_a_line(member)) else { continue };
        if *name == "enabled" && *member == Value::Bool(true) {
            continue;
        }
        text.push_str(if first { "  - " } else { "    " });
        first = false;
        text.push_str(name);
        text.push(':');
        write_value(member, 6, text);
    }
}

fn is_worth_a_line(member: &Value) -> bool {
    !member.is_null() && !member.as_array().is_some_and(Vec::is_empty)
}

/// A value after a colon or a dash: on the same line where it is short, else below, indented by `indent`.
fn write_value(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            write_members(members, indent, text);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            text.push('\n');
            for item in items {
                let _ = write!(text, "{:indent$}-", "");
                write_value(item, indent + 2, text);
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            let _ = writeln!(text, " [{}]", items.join(", "));
        }
        other => {
            let _ = writeln!(text, " {}", scalar(other));
        }
    }
}

fn write_members(members: &Map<String, Value>, indent: usize, text: &mut String) {
    let known = |name: &&&str| members.contains_key(**name);
    let others = members.keys().map(String::as_str).filter(|name| !DEFINITION_FIELDS.contains(name));
    for name in DEFINITION_FIELDS.iter().filter(known).copied().chain(others) {
        if let Some(member) = members.get(name) {
            let _ = write!(text, "{:indent$}{}:", "", quoted(name));
            write_value(member, indent + 2, text);
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Object(_) => "{}".to_owned(),
        other => other.to_string(),
    }
}

/// Plain where no reader of YAML could take it for anything but this text; else in double quotes (YAML 1.2 §7.3.1).
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= 200
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '@'))
        && !text.ends_with(' ')
        && !WORDS_WITH_A_MEANING.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if !is_harmless(c) => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn is_harmless(c: char) -> bool {
    let mut buffer = [0; 4];
    let shown: &str = c.encode_utf8(&mut buffer);
    // U+FE00–U+FE0F change what stands before them, and the last two of each plane are no characters.
    clean(shown) == shown && !matches!(c, '\u{fe00}'..='\u{fe0f}') && u32::from(c) & 0xfffe != 0xfffe
}

fn comment(line: &str, indent: usize, text: &mut String) {
    let _ = writeln!(text, "{:indent$}# {}", "", clean(line));
}

/// Where the schema of records is, from a record's folder.
pub const SCHEMA_FILE: &str = "schema/record.schema.json";

const FIELDS: [(&str, &str); 19] = [
    ("id", ""),
    ("approved", "until it is approved, the broker issues nothing for it"),
    ("enabled", ""),
    ("resource", "`aud` of its tokens (RFC 8707)"),
    ("tenant", ""),
    ("version", ""),
    ("owner", "who answers for it"),
    ("purpose", ""),
    ("source_repository", ""),
    ("packages", ""),
    ("publisher", ""),
    ("environment", "production, staging, development"),
    ("data_class", "public, internal, confidential, restricted"),
    ("region", ""),
    ("verifier", "guard, or rfc9068 for a server without one: low and medium tools at most"),
    ("client_id", "the client as which its guard authenticates"),
    ("credentials", ""),
    ("last_review", ""),
    ("manifest_digest", ""),
];
const TOOL_FIELDS: [&str; 13] = [
    "tier",
    "level",
    "effect",
    "data_class",
    "lifetime_seconds",
    "max_uses",
    "acr_values",
    "max_age_seconds",
    "downstream",
    "enabled",
    "tool_digest",
    "definition",
    "example_arguments",
];
/// Of prompts and resources.
const MATERIAL_FIELDS: [&str; 14] = [
    "uri",
    "name",
    "title",
    "description",
    "tier",
    "level",
    "data_class",
    "lifetime_seconds",
    "max_uses",
    "acr_values",
    "max_age_seconds",
    "enabled",
    "prompt_digest",
    "definition",
];
/// First those that people look for.
const DEFINITION_FIELDS: [&str; 7] =
    ["name", "title", "description", "arguments", "inputSchema", "outputSchema", "annotations"];
const WORDS_WITH_A_MEANING: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;
    use serde_json::json;

    fn record(description: &str) -> ServerRecord {
        let definition = json!({ "name": "t", "description": description, "inputSchema": { "type": "object",
            "properties": { "on": { "type": "number", "maximum": 1.5e3, "enum": [1, -2, 0.5] }, "a: b": { "default": {} },
                "\u{202e}x": { "items": [[], ["yes"], { "k": null }] } } } });
        let digest = deputize_call::digest::tool_digest(definition.as_object().unwrap()).unwrap();
        serde_json::from_value(json!({ "id": "crm", "approved": false, "resource": "https://crm.example/mcp",
            "tenant": "acme", "version": "1.0", "owner": "yes", "purpose": "a # b: c", "environment": "production",
            "data_class": "internal", "verifier": "guard", "tools": [{ "tier": "high", "effect": "write",
                "tool_digest": digest, "definition": definition, "downstream": [
                    { "server": "https://b.example/", "tool": "x", "level": "L3" }] }],
            "prompts": [{ "tier": "low", "prompt_digest": digest, "enabled": false, "definition": {
                "name": "p", "description": description, "arguments": [{ "name": "a", "required": true }] } }],
            "resources": [{ "uri": "demo://docs/*", "name": description, "tier": "medium" },
                { "uri": "demo://a", "tier": "low", "level": "L3" }] }))
        .unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("crm.yaml");
        for description in [
            "",
            "plain",
            "- dash",
            "multi\nline\n\n  text\t\r",
            "\"quoted\" \\ 'single' # no: comment",
            "bidi \u{202e} zero\u{200b} tags \u{e0041} bom \u{feff} nel \u{85} ls \u{2028} emoji 👩‍👩‍👧 ❤️ nul \u{0} esc \u{1b} \u{ffff} \u{1ffff}",
            "null",
            "12",
            "~",
            "&a *b !c %d @e `f",
        ] {
            let record = record(description);
            let mut notes = Notes { head: vec!["one\ntwo: \u{1b}[2J".to_owned()], ..Notes::default() };
            notes.tools.insert("t".to_owned(), vec!["why".to_owned()]);
            let text = record_text(&record, &notes).unwrap();
            std::fs::write(&file, &text).unwrap();
            let read: ServerRecord = read::read_yaml(&file).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(
                serde_json::to_value(&read).unwrap(),
                serde_json::to_value(&record).unwrap(),
                "{text}"
            );
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{200b}', '\u{e0041}']), "{text}");
            assert!(
                text.starts_with("# yaml-language-server: $schema=") && text.contains("  # why\n  - tier:")
            );
        }
    }

    #[test]
    fn approval_changes_one_line() {
        let text = record_text(&record("d"), &Notes::default()).unwrap();
        let approved = with_approval(&text).unwrap();
        let changed: Vec<_> =
            text.lines().zip(approved.lines()).filter(|(one, other)| one != other).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].1, "approved: true");
        assert_eq!(with_approval(&approved), None);
        assert_eq!(
            with_approval("id: crm\n  approved: false\n"),
            None,
            "of a tool's text, not of the record"
        );
    }
}
