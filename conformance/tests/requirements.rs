//! The catalogue of requirements: each names its standard, section and tests, and every test named exists.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use serde::Deserialize;
use std::{collections::BTreeSet, path::Path};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    standard: String,
    section: String,
    claim: String,
    tests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    requirement: Vec<Requirement>,
}

#[test]
fn every_requirement_has_tests_that_exist() {
    let catalogue: Catalogue = toml::from_str(include_str!("../requirements.toml")).unwrap();
    let problems: Vec<_> = catalogue.requirement.iter().flat_map(problems).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    let ids: BTreeSet<_> = catalogue.requirement.iter().map(|requirement| &requirement.id).collect();
    assert_eq!(ids.len(), catalogue.requirement.len(), "an id stands twice");
    for standard in CLAIMED {
        let has_any =
            catalogue.requirement.iter().any(|requirement| requirement.standard.starts_with(standard));
        assert!(has_any, "nothing is required by {standard}");
    }
}

#[test]
fn a_requirement_without_a_test_is_found() {
    let requirement = |tests: &[&str]| Requirement {
        id: "X-1".into(),
        standard: "RFC 1".into(),
        section: "1".into(),
        claim: "it is so".into(),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
    };
    let this = "conformance/tests/requirements.rs";
    assert_eq!(problems(&requirement(&[])).len(), 1);
    assert_eq!(problems(&requirement(&["conformance/tests/nothing.rs::at_all"])).len(), 1);
    assert_eq!(problems(&requirement(&[&format!("{this}::not_there")])).len(), 1);
    assert_eq!(problems(&requirement(&[&format!("{this}::problems")])).len(), 1, "a function, but no test");
    assert!(problems(&requirement(&[&format!("{this}::a_requirement_without_a_test_is_found")])).is_empty());
}

fn problems(requirement: &Requirement) -> Vec<String> {
    let texts = [&requirement.id, &requirement.standard, &requirement.section, &requirement.claim];
    let mut problems = Vec::new();
    if requirement.tests.is_empty() || texts.iter().any(|text| text.is_empty()) {
        problems.push(format!("{}: something is missing", requirement.id));
    }
    let missing = requirement.tests.iter().filter(|test| !is_test(test));
    problems.extend(missing.map(|test| format!("{}: there is no test {test}", requirement.id)));
    problems
}

/// Whether `file::function` is a test. The cases of `hostile` have a harness of their own, which checks that each
/// function in its table is listed and run.
fn is_test(test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(file);
    let Ok(text) = std::fs::read_to_string(path) else { return false };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let declares = |line: &&str| {
        let name = line.trim_start_matches("async ").strip_prefix("fn ");
        name.is_some_and(|name| name.strip_prefix(function).is_some_and(|rest| rest.starts_with('(')))
    };
    let Some(at) = lines.iter().position(declares) else { return false };
    let attributes = lines.iter().take(at).rev().take_while(|line| line.starts_with("#["));
    file.starts_with("conformance/tests/hostile/") || attributes.into_iter().any(|line| line.contains("test"))
}

/// The standards of which we claim something.
const CLAIMED: [&str; 23] = [
    "RFC 8693",
    "RFC 9449",
    "RFC 8707",
    "RFC 9396",
    "RFC 9068",
    "RFC 7523",
    "RFC 8705",
    "draft-ietf-oauth-spiffe-client-auth",
    "RFC 7662",
    "RFC 7009",
    "RFC 8414",
    "RFC 8785",
    "RFC 8725",
    "C2SP tlog",
    "AWS STS",
    "AWS SDKs",
    "OpenID Connect Discovery",
    "SPIFFE Workload Endpoint",
    "SPIFFE Workload API",
    "X509-SVID",
    "JWT-SVID",
    "SPIFFE-ID",
    "SPIFFE Trust Domain and Bundle",
];
