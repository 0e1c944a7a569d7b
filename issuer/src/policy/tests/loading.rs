//! What is refused when policies are loaded, and how it is said.

use super::world::server;
use crate::{
    policy::{PolicyEngine, PolicyError, PolicyFile, schema_text},
    registry::Registry,
};

fn file(name: &str, text: &str) -> PolicyFile {
    PolicyFile { name: name.into(), text: text.into() }
}

fn errors(text: &str) -> Vec<PolicyError> {
    PolicyEngine::load(&[file("test.cedar", text)]).err().unwrap_or_default()
}

/// Each text is refused with one problem, at this line and column, with these words.
#[test]
fn problems_are_shown_where_they_stand() {
    for (text, line, column, words) in [
        ("permit (principal, action, resource)", 1, 37, "unexpected end of input"),
        (
            "\n\npermit (principal, action == Action::\"tools/call\", resource)\nwhen { resource.teir == \"low\" };",
            4,
            8,
            "did you mean `tier`",
        ),
        ("permit (principal in Rol::\"x\", action, resource);", 1, 22, "Rol"),
        ("permit (principal, action == Action::\"tools/cal\", resource);", 1, 30, "tools/cal"),
        ("permit (principal == ?principal, action, resource);", 1, 1, "template"),
        ("permit (principal, action, resource) when { context.level == \"3\" };", 1, 45, "type"),
        ("permit (principal, action, resource) when { context.host == \"x\" };", 1, 45, "host"),
        ("permit (principal, action, resource) when { context.number.getTag(\"n\") > 1 };", 1, 45, "tag"),
        ("permit (principal is Client, action == Action::\"tools/call\", resource);", 1, 1, "impossible"),
        (
            "@requires_approval(\"confirm\")\npermit (principal, action, resource);",
            1,
            1,
            "@requires_approval",
        ),
        ("@require_approval(\"twice\")\npermit (principal, action, resource);", 1, 1, "twice"),
        ("@require_approval(\"confirm\")\nforbid (principal, action, resource);", 1, 1, "no approval lifts"),
        ("@id(\"\") permit (principal, action, resource);", 1, 1, "@id"),
        (
            "// é\npermit (principal, action == Action::\"tools/call\", resource) when { \"é\" == resource.nmae };",
            2,
            76,
            "nmae",
        ),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        let error = &found[0];
        assert!(error.to_string().to_lowercase().contains(&words.to_lowercase()), "{text}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
        assert_eq!(error.file, "test.cedar");
        assert!(error.snippet.contains('^'), "{error}");
    }
}

#[test]
fn every_problem_of_every_file_is_reported() {
    let found = PolicyEngine::load(&[
        file("a.cedar", "permit (principal, action, resource) when { resource.teir == \"low\" };"),
        file("b.cedar", "permit (principal, action, resource) when { context.levl == 1 };\npermit (principal in X::\"y\", action, resource);"),
        file("c.cedar", "permit principal;"),
    ])
    .unwrap_err();
    let files: Vec<_> = found.iter().map(|error| error.file.as_str()).collect();
    for name in ["a.cedar", "b.cedar", "c.cedar"] {
        assert!(files.contains(&name), "{found:#?}");
    }
    assert!(found.len() >= 4, "{found:#?}");
}

#[test]
fn ids_are_unique_across_files() {
    let policy = "@id(\"same\") permit (principal, action, resource);";
    let found =
        PolicyEngine::load(&[file("a.cedar", policy), file("b.cedar", &format!("\n{policy}"))]).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].file.as_str(), found[0].line), ("b.cedar", 2));
    assert!(found[0].problem.contains("a.cedar:1"), "{}", found[0]);
}

#[test]
fn policies_without_an_id_are_numbered_in_their_file() {
    let text = "permit (principal, action, resource);\n@id(\"x\") permit (principal, action, resource);\n\
        forbid (principal, action, resource);";
    let engine = PolicyEngine::load(&[file("a.cedar", text)]).unwrap();
    assert_eq!(engine.len(), 3);
    assert!(engine.policy_text("a.cedar#1").unwrap().starts_with("permit"));
    assert!(engine.policy_text("a.cedar#3").unwrap().starts_with("forbid"));
    assert!(engine.policy_text("a.cedar#2").is_none() && engine.policy_text("x").is_some());
    // A name made up for one policy may not be taken by another.
    let taken =
        "permit (principal, action, resource); @id(\"a.cedar#1\") permit (principal, action, resource);";
    assert!(PolicyEngine::load(&[file("a.cedar", taken)]).is_err());
}

#[test]
fn characters_that_deceive_the_reader_are_refused() {
    for text in [
        "permit (principal, action, resource) when { context.agent == \"a\u{202e}b\" };",
        "permit (principal, action, resource) when { context.agent == \"p\u{0430}yroll\" };",
    ] {
        assert!(!errors(text).is_empty(), "{text}");
    }
    assert!(errors("permit (principal, action, resource) when { context.agent == \"payroll\" };").is_empty());
}

#[test]
fn the_digest_covers_all_and_not_the_order() {
    let (a, b) = (file("a.cedar", "permit (principal, action, resource);"), file("b.cedar", ""));
    let digest = |files: &[PolicyFile]| PolicyEngine::load(files).unwrap().digest().to_owned();
    let both = digest(&[a.clone(), b.clone()]);
    assert_eq!(both.len(), 43);
    assert_eq!(both, digest(&[b.clone(), a.clone()]));
    for other in [
        vec![a.clone()],
        vec![a.clone(), file("c.cedar", "")],
        vec![a.clone(), file("b.cedar", "// one\n")],
        vec![file("a.cedar", "forbid (principal, action, resource);"), b],
        vec![],
    ] {
        assert_ne!(both, digest(&other), "{other:?}");
    }
}

/// Cedar's parser recurses without a bound of its own; a file that is only deep must not end the process.
#[test]
fn bounds() {
    let when = |condition: &str| format!("permit (principal, action, resource) when {{ {condition} }};");
    let deep = |open: &str, close: &str, depth: usize| {
        when(&format!("{}true{}", open.repeat(depth), close.repeat(depth)))
    };
    assert!(errors(&" ".repeat((8 << 20) + 1))[0].problem.contains("larger"));
    assert!(errors(&deep("(", ")", 20)).is_empty());
    for text in [
        deep("(", ")", 10_000),
        deep("[", "]", 10_000),
        deep("!", "", 10_000),
        deep("{a:", "}", 10_000),
        deep("if true then ", " else true", 3_000),
        deep("true && ", "", 10_000),
        deep("context.time.", "", 3_000),
    ] {
        assert!(!errors(&text).is_empty(), "{}…", &text[..80]);
    }
    // As deep as may be: whatever the answer, it is one.
    for text in [
        deep("(", ")", 29),
        deep("if true then ", " else true", 320),
        deep("true && ", "", 640),
        deep("1 + ", " == 1", 950),
        deep("context.time.", "", 450),
    ] {
        let _ = errors(&text);
    }
}

#[test]
fn the_schema_is_at_hand() {
    assert!(schema_text().contains("entity User in [Group, Role, Tenant]"));
}

/// What matches nothing says nothing: a `forbid` on it would pass for one that holds.
#[test]
fn a_policy_names_what_the_registry_has() {
    let registry = Registry::build(vec![serde_json::from_value(server("crm")).unwrap()]).unwrap();
    let unknown = |scope: &str| {
        let files = [file("test.cedar", &format!("// é\nforbid (principal, action, {scope};"))];
        PolicyEngine::load(&files).unwrap().unknown_names(&files, &registry)
    };
    for known in [
        r#"resource)"#,
        r#"resource == Tool::"crm#read_contact")"#,
        r#"resource == Prompt::"crm#greet")"#,
        r#"resource in Resource::"crm#demo://docs/*")"#,
        r#"resource in Resource::"crm#demo://docs/old/*")"#,
        r#"resource == Resource::"crm#demo://b")"#,
        r#"resource == Resource::"crm#demo://docs/one")"#,
        r#"resource in Server::"crm")"#,
        r#"resource in Server::"later")"#,
        r#"resource in Resource::"later#demo://docs/board/*")"#,
        r#"resource == Tool::"later#pay")"#,
        r#"resource is Tool) when { resource.name == "crm#pay" }"#,
    ] {
        assert_eq!(unknown(known), [], "{known}");
    }
    for (scope, column, name, help) in [
        (
            r#"resource in Resource::"crm#demo://docs/board/*")"#,
            50,
            "demo://docs/board/*",
            "give it an entry",
        ),
        (
            r#"resource in Resource::"crm#demo://docs/olds/*")"#,
            50,
            "demo://docs/olds/*",
            "`demo://docs/old/*`",
        ),
        (r#"resource == Resource::"crm#demo://docs/o*")"#, 50, "demo://docs/o*", "`demo://docs/*`"),
        (r#"resource == Resource::"crm#demo://c")"#, 50, "demo://c", "`demo://b`"),
        (r#"resource in Resource::"crm#demo://docs/a/")"#, 50, "demo://docs/a/", "`demo://docs/*`"),
        (r#"resource == Tool::"crm#read_contacts")"#, 46, "read_contacts", "did you mean `read_contact`?"),
        (r#"resource == Tool::"crm#greet")"#, 46, "greet", "deputize registry show crm"),
        (r#"resource == Prompt::"crm#read_contact")"#, 48, "read_contact", "deputize registry show crm"),
        (r#"resource == Tool::"read_contact")"#, 46, "read_contact", "the server's id"),
        (r#"resource) unless { resource in [Tool::"crm#pay"] }"#, 66, "pay", "deputize registry show crm"),
    ] {
        let found = unknown(scope);
        assert_eq!(found.len(), 1, "{scope}: {found:?}");
        let error = &found[0];
        assert_eq!((error.file.as_str(), error.line, error.column), ("test.cedar", 2, column), "{error}");
        assert!(error.problem.contains(name) && error.help.contains(help), "{error}");
    }
}
