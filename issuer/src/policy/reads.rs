//! What of the context a policy may read, found in its text.

use super::context::Attribute;
use std::collections::HashSet;

/// The attributes that a set of policies may read: a superset, found in their text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads(u32);

impl Reads {
    /// Everything.
    pub(super) const ALL: Self = Self(u32::MAX);
    /// Beside the attributes: whether a policy has the operator `has`.
    const ASKS_WHAT_IS_THERE: u32 = 1 << 31;

    /// What a policy of this text may read. An attribute can be named as an identifier or as a string literal; an
    /// escape could hide a name, and `context` as a whole reaches all of them.
    pub(super) fn of_policy(text: &str) -> Self {
        let text = without_annotations(text);
        let whole = text.split("context").skip(1).any(|after| {
            let after = after.trim_start();
            !(after.starts_with(['.', '[']) || after.starts_with("has "))
        });
        if whole || text.contains('\\') {
            return Self::ALL;
        }
        // Cedar's identifiers are ASCII; a string literal that names an attribute is among the words too.
        let words: HashSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let asks_what_is_there = if words.contains("has") { Self::ASKS_WHAT_IS_THERE } else { 0 };
        Attribute::ALL
            .into_iter()
            .filter(|attribute| words.contains(attribute.name()))
            .fold(Self(asks_what_is_there), |reads, attribute| Self(reads.0 | attribute.bit()))
    }

    /// Whether a policy that reads this, asked without what only a call shows, either answers as it would answer for
    /// every call or fails. It is not so where absence is an answer: of attributes that may be absent, and where the
    /// policy asks what is there.
    pub(super) fn are_answered_or_fail(self) -> bool {
        let of_a_call =
            |attribute: &Attribute| !attribute.is_known_before_a_call() && self.contain(*attribute);
        let asks = self.0 & Self::ASKS_WHAT_IS_THERE != 0;
        !Attribute::ALL.iter().filter(|attribute| of_a_call(attribute)).any(|it| asks || it.may_be_absent())
    }

    /// What either may read.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn contain(self, attribute: Attribute) -> bool {
        self.0 & attribute.bit() != 0
    }
}

/// A policy's text from its effect on: its annotations are words for people, and read nothing. What does not look like
/// annotations is left as it is.
fn without_annotations(text: &str) -> &str {
    let mut rest = text.trim_start();
    while let Some(annotation) = rest.strip_prefix('@') {
        let name_ends = annotation.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let after_name = name_ends.and_then(|at| annotation.get(at..)).unwrap_or_default().trim_start();
        let value = after_name.strip_prefix('(').map(|value| value.trim_start());
        rest = match value.map(|value| value.strip_prefix('"').and_then(after_string)) {
            None => after_name,
            Some(Some(after)) => match after.trim_start().strip_prefix(')') {
                Some(after) => after.trim_start(),
                None => return text,
            },
            Some(None) => return text,
        };
    }
    rest
}

/// What follows a string literal whose opening quote is gone.
fn after_string(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !is_escaped => return text.get(at + 1..),
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_asks_what_answers_or_fails() {
        for (condition, is_asked) in [
            ("principal in Role::\"a\"", true),
            ("context.level >= 2", true),
            ("context.number.hasTag(\"n\") && context.number.getTag(\"n\") < 3", true),
            ("context.time.hour_utc > 8", true),
            ("principal has acr && principal.acr == \"x\"", true),
            ("context has approval", false),
            ("context has host && context.host == \"x\"", false),
            ("context has level && context.level > 0", false),
            ("context[\"\\u{68}ost\"] == \"x\"", false),
        ] {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            assert_eq!(Reads::of_policy(&text).are_answered_or_fail(), is_asked, "{condition}");
        }
    }

    #[test]
    fn annotations_read_nothing() {
        let condition = r#"permit (principal, action, resource) when { context.level > 1 };"#;
        for annotations in [
            "",
            r#"@id("host") "#,
            "@id(\"a\")\n@description(\"who has host: \\\"context has host\\\" ) permit\")\n",
            "@flag\n@id ( \"x\" )\n",
        ] {
            let reads = Reads::of_policy(&format!("{annotations}{condition}"));
            assert_eq!(reads, Reads::of_policy(condition), "{annotations}");
            assert!(reads.are_answered_or_fail(), "{annotations}");
        }
        // What cannot be read as annotations is read as part of the policy.
        let broken = Reads::of_policy(&format!("@id(\"host {condition}"));
        assert!(broken.contain(Attribute::Host));
    }

    #[test]
    fn reads_are_a_superset() {
        for (text, attribute, reads) in [
            ("permit(principal, action, resource) when { context.level == 3 };", Attribute::Level, true),
            ("permit(principal, action, resource) when { context.level == 3 };", Attribute::Text, false),
            ("… when { context.texts.hasTag(\"x\") };", Attribute::Text, false),
            ("… when { context[\"host\"] == \"x\" };", Attribute::Host, true),
            ("… when { context has host };", Attribute::Host, true),
            ("… when { context[\"\\u{68}ost\"] == \"x\" };", Attribute::Host, true),
            ("… when { (if true then context else context).host == \"x\" };", Attribute::Host, true),
            ("… when { {\"a\": context}.a == {\"a\": context}.a };", Attribute::Host, true),
        ] {
            assert_eq!(Reads::of_policy(text).contain(attribute), reads, "{text}");
        }
    }
}
