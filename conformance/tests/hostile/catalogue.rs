//! The catalogue of hostile inputs, and what is known not to hold yet.

use serde::Deserialize;
use std::collections::BTreeSet;

/// `hostile.toml` with `expected_failures.toml`.
pub(crate) struct Catalogue {
    pub(crate) cases: Vec<Listed>,
    /// Cases that need more than a request to this broker: other suites try them.
    elsewhere: Vec<Listed>,
    expected_failures: Vec<ExpectedFailure>,
}

/// One line of `hostile.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// `H-01.a`: number of the class, letter of the case.
    pub(crate) id: String,
    /// The input, in words.
    pub(crate) input: String,
    /// Status and code that each of the case's answers must have.
    pub(crate) answer: String,
    /// The function that makes the input.
    pub(crate) test: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFailure {
    id: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostileFile {
    case: Vec<Listed>,
    #[serde(default)]
    elsewhere: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFailuresFile {
    #[serde(default)]
    failure: Vec<ExpectedFailure>,
}

impl Catalogue {
    pub(crate) fn read() -> Self {
        let hostile: HostileFile = toml::from_str(include_str!("../../hostile.toml")).unwrap();
        let expected: ExpectedFailuresFile =
            toml::from_str(include_str!("../../expected_failures.toml")).unwrap();
        let expected_failures =
            expected.failure.into_iter().filter(|failure| failure.id.starts_with("H-")).collect();
        Self { cases: hostile.case, elsewhere: hostile.elsewhere, expected_failures }
    }

    /// What is wrong with the catalogue itself: a case without a test, a test without a case, a class without a case.
    pub(crate) fn problems(&self, tests: &BTreeSet<&'static str>) -> Vec<String> {
        let listed: BTreeSet<_> = self.cases.iter().map(|case| case.test.as_str()).collect();
        let all = || self.cases.iter().chain(&self.elsewhere);
        let ids: BTreeSet<_> = all().map(|case| case.id.as_str()).collect();
        let mut problems = Vec::new();
        problems.extend(
            listed.difference(tests).map(|name| format!("{name} is listed, but there is no such test")),
        );
        problems.extend(tests.difference(&listed).map(|name| format!("{name} is not listed")));
        let missing = self.elsewhere.iter().filter(|case| !stands_elsewhere(&case.test));
        problems.extend(missing.map(|case| format!("{} is listed, but no suite has such a test", case.test)));
        if ids.len() != all().count() {
            problems.push("an id stands twice".to_owned());
        }
        for class in CLASSES {
            if !ids.iter().any(|id| id.strip_prefix(class).is_some_and(|rest| rest.starts_with('.'))) {
                problems.push(format!("{class} has no case"));
            }
        }
        for failure in &self.expected_failures {
            if !ids.contains(failure.id.as_str()) || failure.reason.is_empty() {
                problems.push(format!("expected failure {}: no such case, or no reason", failure.id));
            }
        }
        problems
    }

    /// Turns an outcome round where a failure is expected. An expected failure that passes is a failure.
    pub(crate) fn with_expectation(
        &self,
        case: &Listed,
        outcome: Result<(), String>,
    ) -> Result<String, String> {
        match (self.expected_failures.iter().find(|failure| failure.id == case.id), outcome) {
            (None, outcome) => outcome.map(|()| String::new()),
            (Some(expected), Err(_)) => Ok(format!(" (fails as expected: {})", expected.reason)),
            (Some(_), Ok(())) => Err("passes now: take it out of expected_failures.toml".to_owned()),
        }
    }
}

/// Whether `suite::module::name` (or `suite::name`) is a test of that file of `tests`, or `path/to/file.rs::name` one of
/// another crate, which looks at what cannot be done from outside.
fn stands_elsewhere(test: &str) -> bool {
    let Some((file, name)) = test.rsplit_once("::") else { return false };
    let file = if file.ends_with(".rs") {
        format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"))
    } else {
        format!("{}/tests/{}.rs", env!("CARGO_MANIFEST_DIR"), file.replace("::", "/"))
    };
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {name}(")))
}

/// The classes of hostile input that have cases.
const CLASSES: [&str; 29] = [
    "H-01", "H-02", "H-03", "H-04", "H-05", "H-06", "H-07", "H-08", "H-09", "H-10", "H-11", "H-12", "H-13",
    "H-14", "H-15", "H-16", "H-20", "H-21", "H-22", "H-30", "H-31", "H-32", "H-33", "H-34", "H-40", "H-41",
    "H-42", "H-60", "H-61",
];
