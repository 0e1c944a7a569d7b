//! Shapes of text that hide something or fetch something: blobs, links, pictures, markup, distance, length.

use super::{Findings, Rule, Severity};

/// Reports blobs, links, pictures, markup, and text that is far off the screen.
pub(super) fn check(text: &str, findings: &mut Findings) {
    blobs(text, findings);
    links(text, findings);
    let lower = text.to_ascii_lowercase();
    for tag in TAGS {
        if let Some(at) = lower.find(tag) {
            let reason = format!("has {tag:?}, which a viewer may obey");
            findings.add(&MARKUP, reason, at..at + tag.len());
        }
    }
    if let Some(at) =
        lower.find("data:").filter(|at| lower.get(*at..).is_some_and(|uri| uri.contains(";base64,")))
    {
        findings.add(&BLOB, "carries a document inside of a URI", at..at + 5);
    }
    distance(text, findings);
}

/// A title or description that nobody reads to its end.
pub(super) fn length(text: &str, pointer: &str, findings: &mut Findings) {
    let limit = if pointer.ends_with("/title") { LONG_TITLE } else { LONG_DESCRIPTION };
    let count = text.chars().count();
    if count > 4 * limit {
        findings.add(
            &VERY_LONG,
            format!("has {count} characters: nobody reads to its end, a model does"),
            0..0,
        );
    } else if count > limit {
        findings.add(&LONG, format!("has {count} characters"), 0..0);
    }
}

/// Long runs of base64 or hex.
fn blobs(text: &str, findings: &mut Findings) {
    let is_code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'_' | b'-' | b'=');
    let mut start = 0;
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        if is_code(byte) {
            continue;
        }
        let run = text.get(start..at).unwrap_or_default().as_bytes();
        let (upper, lower, digit) = (
            run.iter().filter(|byte| byte.is_ascii_uppercase()).count(),
            run.iter().filter(|byte| byte.is_ascii_lowercase()).count(),
            run.iter().filter(|byte| byte.is_ascii_digit()).count(),
        );
        let mixed = upper >= 8 && lower >= 8 && digit >= 2;
        let hexadecimal = digit >= 16 && run.iter().all(u8::is_ascii_hexdigit);
        if run.len() >= BLOB_BYTES && (mixed || hexadecimal) {
            findings.add(
                &BLOB,
                format!("carries {} characters of code that nobody can read", run.len()),
                start..at,
            );
        }
        start = at + 1;
    }
}

/// Markdown: a picture is fetched as soon as it is shown, and takes along what stands in its address.
fn links(text: &str, findings: &mut Findings) {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("](")).map(|at| from + at) {
        from = at + 2;
        let target = text.get(from..).unwrap_or_default();
        let target = target.split([')', ' ', '\n']).next().unwrap_or_default();
        if !target.contains("//") && !target.starts_with("data:") && !target.starts_with("javascript:") {
            continue;
        }
        let opening = text.get(..at).and_then(|before| before.rfind('['));
        let is_picture = opening.is_some_and(|at| text.get(..at).is_some_and(|before| before.ends_with('!')));
        if is_picture {
            findings.add(
                &PICTURE,
                "shows a picture: its address is fetched as soon as it is shown",
                at..from,
            );
        } else {
            findings.add(&LINK, "has a link", at..from);
        }
    }
}

/// Text behind many empty lines or blanks is off the screen of whoever looks.
fn distance(text: &str, findings: &mut Findings) {
    let (mut breaks, mut blanks) = (0, 0);
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() {
            if breaks >= FAR_LINES || blanks >= FAR_BLANKS {
                findings.add(
                    &FAR,
                    "goes on after a long empty stretch, where nobody looks",
                    at..at + c.len_utf8(),
                );
            }
            (breaks, blanks) = (0, 0);
        } else if c == '\n' {
            breaks += 1;
        } else {
            blanks += 1;
        }
    }
}

const BLOB_BYTES: usize = 100;
const LONG_DESCRIPTION: usize = 4000;
const LONG_TITLE: usize = 200;
const FAR_LINES: usize = 12;
const FAR_BLANKS: usize = 120;

const TAGS: &[&str] =
    &["<img", "<script", "<iframe", "<svg", "<object", "<embed", "<link", "<meta", "onerror=", "javascript:"];

const OPEN: &str = "open it with care, or have the publisher take it out";
const SHORTER: &str = "read all of it, or ask the publisher for a shorter one";
const BLOB: Rule = Rule { name: "blob", severity: Severity::Medium, advice: "decode it before you trust it" };
const LINK: Rule = Rule { name: "link", severity: Severity::Low, advice: OPEN };
const PICTURE: Rule = Rule { name: "picture", severity: Severity::High, advice: OPEN };
const MARKUP: Rule = Rule { name: "markup", severity: Severity::High, advice: OPEN };
const LONG: Rule = Rule { name: "long-text", severity: Severity::Low, advice: SHORTER };
const VERY_LONG: Rule = Rule { name: "very-long-text", severity: Severity::High, advice: SHORTER };
const FAR: Rule = Rule { name: "far-text", severity: Severity::High, advice: SHORTER };
