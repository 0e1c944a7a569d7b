//! The shape of the project: which way dependencies point, what must not stand where, how long things may be.
//! The rules are in `layout/rules.rs`; change one there, with a reason, or not at all.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

#[path = "layout/rules.rs"]
mod rules;
#[path = "layout/source.rs"]
mod source;

use rules::{
    ABSENCES, Absence, BETTER_LONG, DIRECTIONS, FORBIDDEN_CRATES, FORBIDDEN_NAMES, MAX_FILE_LINES,
    MAX_FUNCTION_LINES, Seek,
};
use source::{Source, line_of, word_positions};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

#[test]
fn nothing_stands_where_it_must_not() {
    let sources = repository();
    let findings: Vec<String> = ABSENCES.iter().flat_map(|rule| absence_findings(rule, &sources)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn every_absence_can_fail_and_every_exception_is_needed() {
    let sources = repository();
    for rule in ABSENCES {
        let (path, text) = rule.broken_by;
        let broken = [Source::new(path, text)];
        assert_eq!(absence_findings(rule, &broken).len(), 1, "{}: its example does not break it", rule.name);
        let elsewhere = [Source::new("docs/page.rs", "//! Nothing here.")];
        assert!(absence_findings(rule, &elsewhere).is_empty(), "{}: breaks on nothing", rule.name);
        for (place, reason) in rule.except {
            assert!(!reason.is_empty(), "{}: {place} is excepted without a reason", rule.name);
            let here =
                sources.iter().any(|source| source.path.starts_with(place) && !hits(rule, source).is_empty());
            let exists = sources.iter().any(|source| source.path.starts_with(place));
            assert!(here || !exists, "{}: the exception {place} is not needed", rule.name);
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    for (folder, _) in DIRECTIONS {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert_eq!(direction_findings(folder, &manifest), Vec::<String>::new());
    }
    let members: BTreeSet<_> = workspace_members().into_iter().collect();
    let known: BTreeSet<_> = DIRECTIONS.iter().map(|(folder, _)| (*folder).to_owned()).collect();
    assert_eq!(members, known, "each member of the workspace needs its line in DIRECTIONS");
}

#[test]
fn directions_can_fail() {
    let upwards = "[dependencies]\ndeputize-issuer.workspace = true\n[dev-dependencies]\ndeputize-client.workspace = true\n";
    assert_eq!(direction_findings("issuer/call", upwards).len(), 1, "development dependencies are free");
    let network = "[dependencies]\naxum = { version = \"1\" }\n";
    assert_eq!(direction_findings("issuer", network).len(), 1);
    assert_eq!(direction_findings("broker", network).len(), 0);
}

#[test]
fn names_say_what_is_inside() {
    let sources = repository();
    let findings: Vec<_> = sources.iter().filter_map(name_finding).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn names_can_fail() {
    for (path, text) in
        [("issuer/src/util.rs", ""), ("broker/src/common/keys.rs", ""), ("a/b.rs", "mod helpers {}")]
    {
        assert!(name_finding(&Source::new(path, text)).is_some(), "{path}");
    }
    assert!(name_finding(&Source::new("issuer/src/commonwealth.rs", "mod communal {}")).is_none());
}

#[test]
fn files_and_functions_are_short() {
    let sources = repository();
    let findings: Vec<_> = sources.iter().flat_map(size_findings).collect();
    let (excused, open): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| BETTER_LONG.iter().any(|(place, _)| *place == finding.place));
    let open: Vec<_> = open.iter().map(|finding| format!("{}: {}", finding.place, finding.what)).collect();
    assert!(open.is_empty(), "\n{}\n", open.join("\n"));
    for (place, reason) in BETTER_LONG {
        assert!(!reason.is_empty(), "{place}: why?");
        assert!(
            excused.iter().any(|finding| finding.place == *place),
            "{place} is short now: remove its line"
        );
    }
}

#[test]
fn sizes_can_fail() {
    let long_file = "\n// nothing\n".repeat(201);
    assert_eq!(size_findings(&Source::new("issuer/src/a.rs", &long_file)).len(), 1);
    let long_function = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69));
    assert_eq!(size_findings(&Source::new("issuer/src/a.rs", &long_function)).len(), 1);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    // test\n".repeat(500));
    assert_eq!(size_findings(&Source::new("issuer/src/a.rs", &tested)).len(), 0);
}

fn absence_findings(rule: &Absence, sources: &[Source]) -> Vec<String> {
    let concerned = |source: &&Source| {
        rule.within.iter().any(|place| source.path.starts_with(place))
            && !rule.except.iter().any(|(place, _)| source.path.starts_with(place))
            && (rule.tests_too || !source.is_test_only())
    };
    let describe = |source: &Source, line: usize, what: &str| {
        format!("{}:{line}: {what} ({}: {})", source.path, rule.name, rule.reason)
    };
    let files = sources.iter().filter(concerned);
    files
        .flat_map(|source| hits(rule, source).into_iter().map(|(line, what)| describe(source, line, &what)))
        .collect()
}

fn hits(rule: &Absence, source: &Source) -> Vec<(usize, String)> {
    match rule.seek {
        Seek::Code(words) => words
            .iter()
            .flat_map(|word| {
                word_positions(&source.code, word).map(|at| (line_of(&source.code, at), (*word).to_owned()))
            })
            .collect(),
        Seek::Literal(values) => source
            .literals
            .iter()
            .filter(|(_, literal)| values.contains(&literal.as_str()))
            .cloned()
            .collect(),
        Seek::Text(patterns) => patterns
            .iter()
            .map(|(head, tail)| format!("{head}{tail}"))
            .filter_map(|pattern| source.text.find(&pattern).map(|at| (line_of(&source.text, at), pattern)))
            .collect(),
    }
}

fn direction_findings(folder: &str, manifest: &str) -> Vec<String> {
    let allowed = DIRECTIONS.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, allowed)| allowed);
    let forbidden = FORBIDDEN_CRATES.iter().filter(|(name, ..)| *name == folder);
    let forbidden: Vec<_> =
        forbidden.flat_map(|(_, crates, reason)| crates.iter().map(move |name| (name, reason))).collect();
    let mut findings = Vec::new();
    for dependency in dependencies(manifest) {
        if dependency.starts_with("deputize") && !allowed.contains(&dependency.as_str()) {
            findings.push(format!("{folder} depends on {dependency}"));
        }
        for (name, reason) in &forbidden {
            if dependency.starts_with(**name) {
                findings.push(format!("{folder} depends on {dependency}: {reason}"));
            }
        }
    }
    findings
}

/// The names under `[dependencies]` and `[build-dependencies]`, of any target.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut section = String::new();
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if section.ends_with("dependencies") && !section.contains("dev-dependencies") {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                names.push(name.trim_matches('"').to_owned());
            }
        }
    }
    names
}

fn workspace_members() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("members")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn name_finding(source: &Source) -> Option<String> {
    let part = |part: &str| part.split('.').next().unwrap_or_default().to_lowercase();
    if let Some(bad) = source.path.split('/').map(part).find(|part| FORBIDDEN_NAMES.contains(&part.as_str()))
    {
        return Some(format!("{}: `{bad}` says nothing of its purpose", source.path));
    }
    let module = FORBIDDEN_NAMES
        .iter()
        .find(|name| word_positions(&source.code, &format!("mod {name}")).next().is_some());
    module.map(|name| format!("{}: `mod {name}` says nothing of its purpose", source.path))
}

struct SizeFinding {
    place: String,
    what: String,
}

fn size_findings(source: &Source) -> Vec<SizeFinding> {
    let mut findings = Vec::new();
    if !source.is_rust() || source.is_test_only() && !source.path.starts_with("conformance/src/") {
        return findings;
    }
    let lines = source.lines_without_tests;
    if lines > MAX_FILE_LINES {
        findings
            .push(SizeFinding { place: source.path.clone(), what: format!("{lines} lines without tests") });
    }
    for function in source.functions().iter().filter(|function| function.code_lines > MAX_FUNCTION_LINES) {
        findings.push(SizeFinding {
            place: format!("{}::{}", source.path, function.name),
            what: format!("{} lines of code at line {}", function.code_lines, function.line),
        });
    }
    findings
}

/// Every text file of the repository, what builds leave behind aside.
fn repository() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().unwrap();
            if LEFT_BEHIND.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                sources.push(Source::new(&relative, &text));
            }
        }
    }
    assert!(sources.len() > 20, "the repository is larger than this: is {} it?", root().display());
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What version control, builds and tools leave behind.
const LEFT_BEHIND: &[&str] = &[".git", "target", "node_modules", ".venv", "__pycache__"];
