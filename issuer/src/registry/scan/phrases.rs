//! Sentences addressed to the model rather than to whoever reads the documentation. Words are compared by their
//! skeletons (UTS 39 §4), so that `іgnоre` in another alphabet is `ignore` too.

use super::{Findings, Rule, Severity};
use std::{collections::BTreeMap, ops::Range, sync::LazyLock};
use unicode_security::confusable_detection::skeleton;

/// Reports every pattern of [`PATTERNS`] that a text fits, and marks that models take for the ends of messages.
pub(super) fn check(text: &str, findings: &mut Findings) {
    let words = words(text);
    for (pattern, steps) in COMPILED.iter() {
        if let Some(span) = find(steps, &words) {
            let rule = Rule { name: pattern.rule, severity: pattern.severity, advice: ASK };
            findings.add(&rule, pattern.reason, span);
        }
    }
    let lower = text.to_lowercase();
    // Folding may change lengths: then the span is only where about it is.
    for mark in MARKS {
        if let Some(at) = lower.find(mark) {
            let reason =
                "looks like the frame of a message to the model: what follows may be taken for orders";
            findings.add(&FRAME, reason, at..at + mark.len());
        }
    }
    for place in SECRET_PLACES {
        if let Some(at) = lower.find(place) {
            let reason = format!("names {place:?}, where secrets are kept");
            findings.add(&SECRET_PLACE, reason, at..at + place.len());
        }
    }
}

/// One pattern: its steps in this order, each within `GAP` words of the one before.
struct Pattern {
    rule: &'static str,
    severity: Severity,
    /// Alternatives are separated by `|`, a final `*` admits endings, and `~` before a step demands it at once.
    steps: &'static [&'static str],
    reason: &'static str,
}

/// A word's skeleton and where it stands.
struct Word {
    skeleton: String,
    span: Range<usize>,
    /// Whether a sentence ends between the word before and this one.
    begins: bool,
}

struct Step {
    alternatives: Vec<(String, bool)>,
    at_once: bool,
}

fn find(steps: &[Step], words: &[Word]) -> Option<Range<usize>> {
    (0..words.len()).find_map(|first| {
        let mut at = first;
        for (number, step) in steps.iter().enumerate() {
            let reach = if number == 0 || step.at_once { 1 } else { GAP };
            // A pattern does not go on in the next sentence.
            let near = words.iter().enumerate().skip(at).take(reach);
            let mut near = near.take_while(|(n, word)| number == 0 || *n == first || !word.begins);
            at = near.find(|(_, word)| step.admits(&word.skeleton))?.0 + 1;
        }
        let (first, last) = (words.get(first)?, words.get(at - 1)?);
        Some(first.span.start..last.span.end)
    })
}

impl Step {
    fn admits(&self, word: &str) -> bool {
        self.alternatives
            .iter()
            .any(|(stem, open)| if *open { word.starts_with(stem.as_str()) } else { word == stem })
    }
}

/// Words by their skeletons; apostrophes are left out, so that `don't` and `dont` are one.
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let (mut current, mut start, mut begins) = (String::new(), 0, true);
    for (at, c) in text.char_indices().chain([(text.len(), '\n')]) {
        if c.is_alphanumeric() {
            if current.is_empty() {
                start = at;
            }
            current.push(c);
        } else if matches!(c, '\'' | '’' | '*' | '`') || super::characters::is_invisible(c) {
            // Emphasis and what is not seen do not end a word.
        } else {
            if !current.is_empty() {
                words.push(Word { skeleton: folded(&current), span: start..at, begins });
                current.clear();
                begins = false;
            }
            begins |= matches!(c, '.' | '!' | '?');
        }
    }
    words
}

/// Case is folded before and after: a capital look-alike may have a small letter for its skeleton.
fn folded(word: &str) -> String {
    skeleton(&word.to_lowercase()).flat_map(char::to_lowercase).collect()
}

static COMPILED: LazyLock<Vec<(&Pattern, Vec<Step>)>> = LazyLock::new(|| {
    let mut skeletons = BTreeMap::new();
    let mut step = |text: &'static str| {
        let (at_once, text) = text.strip_prefix('~').map_or((false, text), |text| (true, text));
        let alternatives = text.split('|').map(|word| {
            let (stem, open) = word.strip_suffix('*').map_or((word, false), |stem| (stem, true));
            (skeletons.entry(stem).or_insert_with(|| folded(stem)).clone(), open)
        });
        Step { alternatives: alternatives.collect(), at_once }
    };
    PATTERNS.iter().map(|pattern| (pattern, pattern.steps.iter().map(|text| step(text)).collect())).collect()
});

const UNTOLD: &str = "~tell*|inform*|mention*|notify*|reveal*|alert*|disclos*|let";
/// How many words may stand between two steps.
const GAP: usize = 7;
const ASK: &str =
    "ask the publisher what it is for; a description says what a tool does, not what a model must do";
const FRAME: Rule = Rule { name: "message-frame", severity: Severity::High, advice: ASK };
const SECRET_PLACE: Rule = Rule { name: "secret-place", severity: Severity::High, advice: ASK };

const PATTERNS: &[Pattern] = &[
    Pattern {
        rule: "override",
        severity: Severity::High,
        steps: &[
            "ignore|disregard|forget|override|bypass",
            "previous|prior|above|earlier|preceding|system|other|all|any|your",
            "instruction*|prompt*|rule*|guideline*|guardrail*|polic*|safeguard*|restriction*",
        ],
        reason: "tells the model to set its instructions aside",
    },
    Pattern {
        rule: "secrecy",
        severity: Severity::High,
        steps: &["do|must|should|shall", "~not", UNTOLD, "user*|human|person|operator|anyone|anybody|them"],
        reason: "tells the model to keep something from the user",
    },
    Pattern {
        rule: "secrecy",
        severity: Severity::High,
        steps: &["dont|never|without", UNTOLD, "user*|human|person|operator|anyone|anybody|them"],
        reason: "tells the model to keep something from the user",
    },
    Pattern {
        rule: "secrecy",
        severity: Severity::High,
        steps: &[
            "secretly|silently|covertly|quietly|surreptitiously",
            "send|post|forward|copy|read|include|add|append|upload|collect|bcc",
        ],
        reason: "tells the model to do something unseen",
    },
    Pattern {
        rule: "secrecy",
        severity: Severity::High,
        steps: &[
            "keep|hide|conceal",
            "this|it|these|that",
            "secret|hidden|from|private",
            "user*|human|anyone|anybody",
        ],
        reason: "tells the model to keep something from the user",
    },
    Pattern {
        rule: "exfiltration",
        severity: Severity::High,
        steps: &[
            "send|post|forward|upload|transmit|exfiltrate|append|include|pass|put|copy|attach|encode|leak|bcc|provide|fill|insert|paste",
            "conversation*|chat|history|system|credential*|password*|secret*|cookie*|ssh|environment",
            "~prompt*|history|message*|variables|log|transcript|key|keys|context|content*|file*|to|in|into|as",
        ],
        reason: "tells the model to hand over what it knows",
    },
    Pattern {
        rule: "exfiltration",
        severity: Severity::High,
        steps: &[
            "include|pass|put|provide|add|insert|paste",
            "contents|content",
            "~of|from",
            "file*|conversation*|chat|prompt",
            "in|into|as|to",
            "parameter*|argument*|field|sidenote|header*",
        ],
        reason: "smuggles what the model knows out through an argument",
    },
    Pattern {
        rule: "precondition",
        severity: Severity::High,
        steps: &[
            "before|prior|when|whenever|after|while|first",
            "using|calling|invoking|running|use|call|invoke|executing",
            "tool*|function*",
            "read|cat|open|load|fetch|access|collect|send|forward|append|include|pass",
        ],
        reason: "makes the model do something else along with a call",
    },
    Pattern {
        rule: "role",
        severity: Severity::High,
        steps: &["you", "~are|re", "~now|no|henceforth", "~a|an|the|longer|in"],
        reason: "gives the model another role",
    },
    Pattern {
        rule: "role",
        severity: Severity::High,
        steps: &[
            "your|new|updated|real",
            "~new|instructions|true|actual|system",
            "~instructions|are|task|goal|purpose|prompt",
        ],
        reason: "gives the model other instructions",
    },
    Pattern {
        rule: "model-order",
        severity: Severity::Medium,
        steps: &[
            "assistant*|llm|llms|ai|chatbot|claude|gpt|gemini|copilot",
            "~must|should|shall|always|never|has|needs",
        ],
        reason: "speaks to the model, not about the tool",
    },
    Pattern {
        rule: "unasked",
        severity: Severity::Medium,
        steps: &[
            "without|skip|never|dont",
            "~ask*|confirm*|request*|wait*|prompt*",
            "user*|permission|consent|confirmation|approval|them",
        ],
        reason: "talks the model out of asking",
    },
    Pattern {
        rule: "instead",
        severity: Severity::Medium,
        steps: &[
            "always|must|only|rather|instead",
            "use|call|prefer|invoke",
            "this",
            "~tool|function",
            "instead|rather|before|not|over|for",
        ],
        reason: "talks the model out of other tools",
    },
];

/// Templates of chat models, and tags of the kind that poisoned tools were found with.
const MARKS: &[&str] = &[
    "<important>",
    "</important>",
    "<system>",
    "</system>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<instructions>",
    "<secret>",
    "<hidden>",
    "### system",
    "### instruction",
    "\nsystem:",
    "\nassistant:",
    "\nhuman:",
    "<!--",
];

const SECRET_PLACES: &[&str] = &[
    "~/.ssh",
    ".ssh/",
    "id_rsa",
    "id_ed25519",
    ".aws/credentials",
    "/etc/passwd",
    "/etc/shadow",
    ".netrc",
    ".kube/config",
    ".git-credentials",
    ".npmrc",
    ".pgpass",
    "/proc/self/environ",
    ".cursor/mcp.json",
    "claude_desktop_config",
    ".gnupg",
];
