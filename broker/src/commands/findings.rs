//! What a lint found, as people read it and as its exit code says it.

use super::{exit::Exit, output::clean};

/// Problems, which are refused, and warnings, which are not.
pub struct Findings<'a> {
    pub problems: &'a [String],
    pub warnings: &'a [String],
    /// Whether warnings count as problems.
    pub strict: bool,
}

impl Findings<'_> {
    /// All of them, one beneath the other.
    pub fn listed(&self) -> String {
        let mut text = String::new();
        for (mark, findings) in [('✖', self.problems), ('!', self.warnings)] {
            for finding in findings {
                // Snippets of the source have several lines.
                let lines: Vec<_> = finding.lines().map(clean).collect();
                text.push_str(&format!("{mark} {}\n", lines.join("\n  ")));
            }
        }
        text
    }

    /// The last line: what comes of it. `usable` says what warnings leave possible, `refused` what problems do not.
    pub fn verdict(&self, usable: &str, refused: &str) -> String {
        match (self.problems.len(), self.warnings.len()) {
            (0, 0) => "✔ nothing is wrong\n".to_owned(),
            (0, warnings) if self.strict => {
                format!("  next: correct the {warnings} warnings above, or lint without --strict\n")
            }
            (0, warnings) => format!("✔ {usable}, with {warnings} warnings\n"),
            (problems, _) => format!("  next: correct what is above ({problems}); {refused}\n"),
        }
    }

    pub fn exit(&self) -> Exit {
        let is_clean = self.problems.is_empty() && (self.warnings.is_empty() || !self.strict);
        if is_clean { Exit::Ok } else { Exit::Configuration }
    }
}
