//! Characters that a person does not see and a model reads.

use super::{Findings, Rule, Severity};

/// Reports what is invisible, steers the direction of text, or steers a terminal.
pub(super) fn check(text: &str, findings: &mut Findings) {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let mut at = 0;
    while let Some(&(start, c)) = chars.get(at) {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).map(|&(_, c)| c);
        let after = chars.get(at + 1).map(|&(_, c)| c);
        let span = start..start + c.len_utf8();
        if is_tag(c) {
            let run: Vec<char> = chars.iter().skip(at).map(|&(_, c)| c).take_while(|c| is_tag(*c)).collect();
            if !is_flag(before, &run) {
                let reason = format!("tag characters that nobody sees spell {:?}", spelled(&run));
                findings.add(&TAGS, reason, span);
            }
            at += run.len();
            continue;
        }
        if is_bidi(c) {
            findings.add(&BIDI, format!("{} turns the direction of what follows", named(c)), span);
        } else if is_variation_selector(c) {
            if !selects(before, c) {
                findings.add(&SELECTORS, format!("{} selects no variant of anything", named(c)), span);
            }
        } else if is_invisible(c) {
            if !joins(before, c, after) {
                findings.add(&INVISIBLE, format!("{} is not shown", named(c)), span);
            }
        } else if c.is_control() && !matches!(c, '\n' | '\r' | '\t') {
            findings.add(&CONTROL, format!("{} steers a terminal", named(c)), span);
        }
        at += 1;
    }
}

/// Whether a character leaves no mark, or moves others.
pub(super) fn is_invisible(c: char) -> bool {
    is_tag(c)
        || is_bidi(c)
        || is_variation_selector(c)
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200d}' | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}')
}

/// UAX 9: embeddings, overrides, isolates and marks.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0000}'..='\u{e007f}')
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// The flags of England, Scotland and Wales are a black flag and a few tags (UTS 51 ED-14a).
fn is_flag(before: Option<char>, run: &[char]) -> bool {
    let region: String = spelled(run);
    before == Some('\u{1f3f4}')
        && run.last() == Some(&'\u{e007f}')
        && ["gbeng", "gbsct", "gbwls"].contains(&region.as_str())
}

/// What tag characters spell in ASCII.
fn spelled(run: &[char]) -> String {
    run.iter()
        .filter_map(|c| u8::try_from(u32::from(*c) - 0xe0000).ok())
        .map(char::from)
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(200)
        .collect()
}

/// One selector after a symbol, digit or ideograph is a matter of fonts; a row of them is a message.
fn selects(before: Option<char>, selector: char) -> bool {
    before.is_some_and(|base| {
        let ideograph =
            matches!(base, '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}');
        match selector {
            '\u{fe0e}' | '\u{fe0f}' => is_symbol(base) || base.is_ascii_digit() || matches!(base, '#' | '*'),
            '\u{fe00}'..='\u{fe0d}' => ideograph || is_symbol(base),
            _ => ideograph,
        }
    })
}

/// Joiners stand between emoji, and inside of words of scripts that need them (UAX 31 §2.3).
fn joins(before: Option<char>, c: char, after: Option<char>) -> bool {
    let needs_joiners = |c: char| matches!(c, '\u{600}'..='\u{6ff}' | '\u{700}'..='\u{8ff}' | '\u{900}'..='\u{dff}' | '\u{1780}'..='\u{17ff}');
    let part_of_emoji = |c: char| is_symbol(c) || c == '\u{fe0f}' || matches!(c, '\u{1f3fb}'..='\u{1f3ff}');
    match (before, c, after) {
        (Some(before), '\u{200d}', Some(after)) => {
            part_of_emoji(before) && is_symbol(after) || needs_joiners(before) && needs_joiners(after)
        }
        (Some(before), '\u{200c}', Some(after)) => needs_joiners(before) && needs_joiners(after),
        _ => false,
    }
}

/// Emoji and other pictures and signs.
fn is_symbol(c: char) -> bool {
    matches!(c, '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2100}'..='\u{2bff}' | '\u{3030}' | '\u{303d}'
        | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

fn named(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

const CUT: &str = "have the publisher take it out; nothing that people need is lost";
const TAGS: Rule = Rule { name: "tag-characters", severity: Severity::High, advice: CUT };
const BIDI: Rule = Rule { name: "bidi-control", severity: Severity::High, advice: CUT };
const SELECTORS: Rule = Rule { name: "variation-selector", severity: Severity::High, advice: CUT };
const INVISIBLE: Rule = Rule { name: "invisible-character", severity: Severity::High, advice: CUT };
const CONTROL: Rule = Rule { name: "control-character", severity: Severity::High, advice: CUT };
