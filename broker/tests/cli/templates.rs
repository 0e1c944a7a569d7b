//! `deputize templates`: on the examples, and on what is wrong with them.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

use crate::program::{Ran, run};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn examples() -> String {
    deploy().join("example/templates").to_str().unwrap().to_owned()
}

/// A folder with one example in which something else stands.
fn changed(name: &str, from: &str, to: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(&examples()).join(name)).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(folder.path().join(name), text.replacen(from, to, 1)).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn the_examples_are_clean() {
    let ran = run(&["templates", "lint", &examples(), "--strict"]).expect(0);
    assert!(ran.stdout.contains("✔ nothing is wrong") && ran.stdout.contains("of 2048"), "{ran:?}");
    let json = run(&["templates", "lint", &examples(), "-o", "json"]).expect(0).json();
    assert_eq!(json["templates"].as_array().unwrap().len(), 5);
    run(&["templates", "lint", &examples(), "-o", "yaml"]).expect(0);
}

#[test]
fn the_committed_schema_of_templates_is_that_of_this_program() {
    let committed = std::fs::read_to_string(deploy().join("template.schema.json")).unwrap();
    let now = run(&["templates", "schema"]).expect(0).stdout;
    assert!(committed == now, "renew it: deputize templates schema > deploy/template.schema.json");
    let committed = std::fs::read_to_string(deploy().join("template-cases.schema.json")).unwrap();
    let now = run(&["templates", "schema", "--of", "cases"]).expect(0).stdout;
    let renew = "deputize templates schema --of cases > deploy/template-cases.schema.json";
    assert!(committed == now, "renew it: {renew}");
    for file in std::fs::read_dir(examples()).unwrap().map(|file| file.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_cases = file.to_str().unwrap().ends_with(".test.yaml");
        let schema = if is_cases { "template-cases" } else { "template" };
        let line = format!("# yaml-language-server: $schema=../../{schema}.schema.json\n");
        assert!(text.starts_with(&line), "{}", file.display());
    }
}

#[test]
fn problems_are_named_with_what_to_do() {
    for (name, from, to, words) in [
        ("restart-instance.yaml", "statements:", "statement:", "did you mean `statements`?"),
        (
            "restart-instance.yaml",
            "type: ec2_instance_id",
            "type: ec2_instance",
            "did you mean `ec2_instance_id`?",
        ),
        ("restart-instance.yaml", "ec2:RebootInstances]\n    res", "ec2:*]\n    res", "no wildcards"),
        ("restart-instance.yaml", "instance/i-*", "instance/i-0*", "for example with arn:aws:ec2"),
        ("read-reports.yaml", "max_length: 80", "max_length: 500", "STS takes 2048"),
    ] {
        let (_folder, path) = changed(name, from, to);
        let ran = run(&["templates", "lint", &path]).expect(5);
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    // One that cannot be read hides nothing that is wrong with another.
    let (folder, path) = changed("restart-instance.yaml", "ec2:RebootInstances]\n    res", "ec2:*]\n    res");
    std::fs::write(folder.path().join("other.yaml"), "statement: []\n").unwrap();
    let ran = run(&["templates", "lint", &path]).expect(5);
    assert!(ran.stdout.contains("other.yaml") && ran.stdout.contains("no wildcards"), "{ran:?}");
    let (_folder, path) = changed("restart-instance.yaml", "  window_seconds: 300\n", "");
    let ran = run(&["templates", "lint", &path]).expect(0);
    assert!(ran.stdout.contains("with 1 warnings"), "{ran:?}");
    run(&["templates", "lint", &path, "--strict"]).expect(5);
    run(&["templates", "lint", "/nowhere"]).expect(5);
}

fn simulate(template: &str, more: &[&str]) -> crate::program::Ran {
    let folder = examples();
    run(&[&["templates", "simulate", &folder, "--template", template][..], more].concat())
}

#[test]
fn a_simulation_shows_the_session_and_what_it_could_do() {
    let arguments = r#"{"instance_id": "i-0123456789abcdef0"}"#;
    let call = ["--user", "alice", "--arguments", arguments];
    let json = simulate("restart-instance", &[&call[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!(json["source_identity"], "alice");
    assert_eq!(json["policy"]["Statement"][0]["Action"], "ec2:RebootInstances");
    let verdicts: Vec<_> =
        json["verdicts"].as_array().unwrap().iter().map(|probe| &probe["verdict"]).collect();
    assert_eq!(verdicts, ["allowed", "denied", "denied"]);
    let table = simulate("restart-instance", &call).expect(0).stdout;
    assert!(table.contains("after the window") && table.contains("\"NotResource\""), "{table}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("call.json");
    std::fs::write(&file, r#"{"prefix": "sales/2026/"}"#).unwrap();
    let file = ["--arguments", file.to_str().unwrap(), "--server-region", "eu-central-1"];
    simulate("read-reports", &[&file[..], &["--claim", "data_region=eu"]].concat()).expect(0);
    simulate("read-reports", &[&file[..], &["--claim", "data_region=us"]].concat()).expect(3);
}

#[test]
fn a_call_that_does_not_fit_is_refused() {
    let ran = simulate("restart-instance", &["--arguments", r#"{"instance_id": "i-*"}"#]).expect(3);
    assert!(ran.stderr.contains("parameter \"instance\""), "{ran:?}");
    let arguments = r#"{"instance_id": "i-0123456789abcdef0"}"#;
    simulate("restart-instance", &["--arguments", arguments, "--roles", "support"]).expect(3);
    simulate("restart-instance", &["--arguments", arguments, "--user", "al ice"]).expect(3);
    simulate("restart-instance", &["--arguments", "{"]).expect(2);
    let ran = simulate("reboot", &[]).expect(2);
    assert!(ran.stderr.contains("restart-instance"), "{ran:?}");
}

#[test]
fn the_cases_of_the_examples_hold() {
    let ran = run(&["templates", "test", &examples(), "--strict"]).expect(0);
    assert!(ran.stdout.contains(" 0 failed"), "{ran:?}");
    let json = run(&["templates", "test", &examples(), "-o", "json"]).expect(0).json();
    assert!(json["passed"].as_u64().unwrap() >= 15 && json["untested"] == serde_json::json!([]), "{json}");
}

#[test]
fn a_case_that_does_not_hold_fails_and_says_what_came() {
    for (from, to, words) in [
        ("verdict: allowed", "verdict: denied", ": allowed"),
        ("source_identity: alice", "source_identity: bob", "source identity \"alice\""),
        ("tool: restart_instance,", "tool: reboot,", "tags"),
        ("none of its roles", "another tool", "refused: the template is not for this call"),
        ("roles: [support]", "roles: [operator]", "a session"),
    ] {
        let (folder, path) = changed("restart-instance.test.yaml", from, to);
        std::fs::copy(
            Path::new(&examples()).join("restart-instance.yaml"),
            folder.path().join("restart-instance.yaml"),
        )
        .unwrap();
        let ran = run(&["templates", "test", &path]).expect(1);
        assert!(ran.stdout.contains(words) && ran.stdout.contains("1 failed"), "{words}: {ran:?}");
    }
    let (_folder, path) = changed("restart-instance.yaml", "", "");
    let ran = run(&["templates", "test", &path]).expect(0);
    assert!(ran.stdout.contains("restart-instance has no case"), "{ran:?}");
    run(&["templates", "test", &path, "--strict"]).expect(1);
    let (_folder, path) = changed("restart-instance.test.yaml", "", "");
    let ran = run(&["templates", "test", &path]).expect(5);
    assert!(ran.stderr.contains("there is no template"), "{ran:?}");
    let (_folder, path) = changed("restart-instance.test.yaml", "verdict: allowed", "verdict: allow");
    run(&["templates", "test", &path]).expect(5);
}

#[test]
fn a_case_that_would_hold_of_anything_is_refused() {
    let refused = "cases:\n  - name: any\n    call: { arguments: { instance_id: \"i-*\" } }\n    expect: { refused: REASON }\n";
    let session = "cases:\n  - name: any\n    call: { arguments: { instance_id: i-0123456789abcdef0 } }\n    expect: { session: SESSION }\n";
    for (cases, code, words) in [
        (refused.replace("REASON", "\"\""), 5, "case \"any\": `refused` is empty"),
        (refused.replace("REASON", "\" \""), 5, "case \"any\": `refused` is empty"),
        (refused.replace("REASON", "parameter"), 0, ""),
        (session.replace("SESSION", "{}"), 5, "case \"any\": `session` says nothing"),
        (session.replace("SESSION", "{ requests: [] }"), 5, "case \"any\": `session` says nothing"),
        (session.replace("SESSION", "{ source_identity: alice }"), 0, ""),
        (session.replace("SESSION", "{ tags: {} }"), 1, ""),
    ] {
        let (folder, path) = changed("restart-instance.yaml", "", "");
        let text = format!("template: restart-instance\n{cases}");
        std::fs::write(folder.path().join("restart-instance.test.yaml"), text).unwrap();
        let ran = run(&["templates", "test", &path, "--strict"]).expect(code);
        assert!(ran.stderr.contains(words), "{words}: {ran:?}");
    }
}

#[test]
fn a_plan_says_what_is_granted_and_what_is_taken() {
    let plan = |from: &str, to: &str, more: &[&str]| {
        let (_before, old) = changed("query-orders.yaml", "", "");
        let (_after, new) = changed("query-orders.yaml", from, to);
        run(&[&["templates", "plan", &old, &new][..], more].concat())
    };
    let table = |ran: &Ran, line: &[&str]| {
        ran.stdout.lines().any(|found| line.iter().all(|word| found.contains(word)))
    };
    let ran = plan("", "", &[]).expect(0);
    assert!(ran.stdout.contains("nothing changes"), "{ran:?}");
    let ran = plan("window_seconds: 120", "window_seconds: 60", &["--forbid-grants"]).expect(0);
    assert!(table(&ran, &["-", "query-orders", "window", "60 s, was 120 s"]), "{ran:?}");
    let ran = plan("roles: [support]", "roles: [support, intern]", &[]).expect(0);
    assert!(table(&ran, &["+", "match roles", "intern"]), "{ran:?}");
    plan("roles: [support]", "roles: [support, intern]", &["--forbid-grants"]).expect(3);
    plan("role/deputize/query-orders", "role/deputize/all", &["--forbid-grants"]).expect(3);
    let json =
        plan("[dynamodb:GetItem, dynamodb:Query]\n    res", "[dynamodb:Query]\n    res", &["-o", "json"]);
    let json = json.expect(0).json();
    assert_eq!((&json["granted"], &json["taken"], &json["changed"]), (&0.into(), &1.into(), &0.into()));
    assert_eq!(json["changes"][0]["direction"], "taken");
    // A template that is wrong is no plan.
    plan("dynamodb:Query]\n    res", "dynamodb:*]\n    res", &[]).expect(5);
}
