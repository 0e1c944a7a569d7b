//! What was seen, requirement by requirement, and the report that comes of it.

use super::catalogue::{Level, REQUIREMENTS, Requirement};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write};

/// What was seen so far.
#[derive(Default)]
pub(super) struct Findings {
    seen: BTreeMap<&'static str, Seen>,
}

#[derive(Default)]
struct Seen {
    looked: bool,
    faults: Vec<String>,
    why_not: Option<&'static str>,
}

/// What a server fulfils.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The endpoint.
    pub endpoint: String,
    /// How many requirements hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
    /// How many could not be looked at.
    pub not_applicable: usize,
    /// Each of them, in the order of the catalogue.
    pub requirements: Vec<Finding>,
}

/// One requirement, and what is with it.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Its name.
    pub id: &'static str,
    /// Where it stands.
    pub specification: &'static str,
    /// Where in there.
    pub section: &'static str,
    /// `MUST` or `SHOULD`.
    pub level: &'static str,
    /// What is required.
    pub requirement: &'static str,
    /// Whether it holds.
    pub outcome: Outcome,
    /// Why it does not, or why it was not looked at; empty where it holds.
    pub reason: String,
}

/// Whether a requirement holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It does, wherever it was looked at.
    Pass,
    /// It does not, in one place at least.
    Fail,
    /// There was nothing to look at.
    NotApplicable,
}

impl Findings {
    /// Notes whether a requirement holds in one place.
    pub(super) fn check(&mut self, id: &'static str, outcome: Result<(), String>) {
        let seen = self.seen.entry(id).or_default();
        seen.looked = true;
        if let Err(fault) = outcome
            && seen.faults.len() < MAX_FAULTS
        {
            seen.faults.push(fault);
        }
    }

    /// As [`Findings::check`], for what is a yes or a no.
    pub(super) fn holds(&mut self, id: &'static str, holds: bool, otherwise: impl Into<String>) {
        self.check(id, if holds { Ok(()) } else { Err(otherwise.into()) });
    }

    /// Notes why nothing could be looked at.
    pub(super) fn passed_over(&mut self, id: &'static str, why: &'static str) {
        self.seen.entry(id).or_default().why_not = Some(why);
    }

    /// The report.
    pub(super) fn report(mut self, endpoint: String) -> Report {
        let requirements: Vec<_> = REQUIREMENTS
            .iter()
            .map(|requirement| finding(requirement, self.seen.remove(requirement.id).unwrap_or_default()))
            .collect();
        // INVARIANT: what is looked at stands in the catalogue.
        debug_assert!(self.seen.is_empty(), "not in the catalogue: {:?}", self.seen.keys());
        let count = |outcome| requirements.iter().filter(|finding| finding.outcome == outcome).count();
        Report {
            endpoint,
            passed: count(Outcome::Pass),
            failed: count(Outcome::Fail),
            not_applicable: count(Outcome::NotApplicable),
            requirements,
        }
    }
}

fn finding(requirement: &Requirement, seen: Seen) -> Finding {
    let (outcome, reason) = match seen {
        Seen { looked: false, why_not, .. } => {
            (Outcome::NotApplicable, why_not.unwrap_or("nothing was given that it is about").to_owned())
        }
        Seen { faults, .. } if faults.is_empty() => (Outcome::Pass, String::new()),
        Seen { faults, .. } => (Outcome::Fail, faults.join("; ")),
    };
    Finding {
        id: requirement.id,
        specification: requirement.specification(),
        section: requirement.section(),
        level: requirement.level.word(),
        requirement: requirement.text,
        outcome,
        reason,
    }
}

impl Report {
    /// The ids of what does not hold, of this level.
    pub fn failures(&self, level: Level) -> Vec<&'static str> {
        let failed = self.requirements.iter().filter(|finding| finding.outcome == Outcome::Fail);
        failed.filter(|finding| finding.level == level.word()).map(|finding| finding.id).collect()
    }

    /// A table to read.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for finding in &self.requirements {
            let word = match finding.outcome {
                Outcome::Pass => "pass",
                Outcome::Fail => "FAIL",
                Outcome::NotApplicable => "n/a",
            };
            let Finding { id, level, requirement, reason, .. } = finding;
            // Writing to a String does not fail.
            let _ = writeln!(table, "{word:4}  {id:14}  {level:6}  {requirement}");
            if !reason.is_empty() {
                let _ = writeln!(table, "{:30}{reason}", "");
            }
        }
        let Self { passed, failed, not_applicable, .. } = self;
        let _ = writeln!(table, "\n{passed} pass, {failed} fail, {not_applicable} not applicable");
        table
    }
}

/// Enough to see what is wrong; a server with a thousand faults is not quoted a thousand times.
const MAX_FAULTS: usize = 5;
