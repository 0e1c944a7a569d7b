//! What `deputize templates export` writes, as other people's linters read it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::process::binary;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

#[test]
fn cfn_lint_finds_nothing_in_the_cloudformation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deputize.json");
    std::fs::write(&file, export("cloudformation", &examples()).to_string()).unwrap();
    let ran = Command::new(installed("cfn-lint")).arg(&file).output().unwrap();
    assert!(ran.status.success(), "{}", said(&ran));

    // It does look: a role without a trust policy is none.
    let mut broken = export("cloudformation", &examples());
    let role = &mut broken["Resources"]["RoleRestartInstance"]["Properties"];
    role.as_object_mut().unwrap().remove("AssumeRolePolicyDocument").unwrap();
    std::fs::write(&file, broken.to_string()).unwrap();
    let ran = Command::new(installed("cfn-lint")).arg(&file).output().unwrap();
    assert!(!ran.status.success() && said(&ran).contains("AssumeRolePolicyDocument"), "{}", said(&ran));
}

#[test]
fn parliament_finds_nothing_in_any_policy() {
    let mut policies = policies_of(&examples());
    assert_eq!(policies.len(), 10, "rights and trust of five roles");
    let tagged = tagged();
    policies.extend(policies_of(tagged.path()));
    assert_eq!(parliament(&policies), Vec::<String>::new());

    // It does look: an action that is none, and a resource of another kind.
    let mut broken = policies_of(&examples());
    broken[0]["policy"]["Statement"][0]["Action"] = json!("dynamodb:GetItems");
    let found = parliament(&broken[..1]);
    assert!(found.iter().any(|finding| finding.contains("UNKNOWN_ACTION")), "{found:?}");
    let mut broken = policies_of(&examples());
    broken[0]["policy"]["Statement"][0]["Resource"] = json!("arn:aws:s3:::orders");
    let found = parliament(&broken[..1]);
    assert!(found.iter().any(|finding| finding.contains("RESOURCE_MISMATCH")), "{found:?}");
}

/// Terraform comes from none of the package registries that the tests use, so its JSON is read as its documentation
/// says: every text is a template, in which `$${` and `%%{` are the characters themselves.
#[test]
fn terraform_says_what_cloudformation_says() {
    let tagged = tagged();
    for folder in [examples(), tagged.path().to_owned()] {
        let (terraform, cloudformation) = (export("terraform", &folder), export("cloudformation", &folder));
        let text = |value: &Value| literal(value.as_str().unwrap());
        let provider = &terraform["resource"]["aws_iam_openid_connect_provider"]["deputize"];
        let same = &cloudformation["Resources"]["Provider"]["Properties"];
        assert_eq!((&provider["url"], &provider["client_id_list"]), (&same["Url"], &same["ClientIdList"]));
        let roles = terraform["resource"]["aws_iam_role"].as_object().unwrap();
        assert_eq!(roles.len() + 1, cloudformation["Resources"].as_object().unwrap().len());
        for (label, role) in roles {
            let found = cloudformation["Resources"].as_object().unwrap().values();
            let mut found =
                found.filter(|resource| resource["Properties"]["RoleName"] == text(&role["name"]));
            let same = &found.next().unwrap()["Properties"];
            assert_eq!(text(&role["path"]), same["Path"]);
            let trust: Value = serde_json::from_str(&text(&role["assume_role_policy"])).unwrap();
            assert_eq!(trust, same["AssumeRolePolicyDocument"]);
            let inline = &terraform["resource"]["aws_iam_role_policy"][label];
            assert_eq!(inline["role"], format!("${{aws_iam_role.{label}.name}}"));
            let rights: Value = serde_json::from_str(&text(&inline["policy"])).unwrap();
            assert_eq!(rights, same["Policies"][0]["PolicyDocument"]);
        }
    }
}

/// Terraform itself: its own reading of every example, of templates with tags, and of a hostile name.
#[test]
#[ignore = "needs terraform, and TERRAFORM_PLUGINS: the folder with its provider for AWS (terraform providers mirror)"]
fn terraform_validates_what_is_exported() {
    let plugins = std::env::var("TERRAFORM_PLUGINS").unwrap();
    let hostile = tempfile::tempdir().unwrap();
    change(
        "restart-instance",
        hostile.path(),
        "tenant: acme",
        r#"tenant: "a${file(\"/etc/passwd\")}%{ if true }""#,
    );
    let tagged = tagged();
    for folder in [examples(), tagged.path().to_owned(), hostile.path().to_owned()] {
        let here = tempfile::tempdir().unwrap();
        let terraform = |arguments: &[&str]| {
            let ran = Command::new("terraform").args(arguments).current_dir(here.path()).output().unwrap();
            assert!(ran.status.success(), "{}", said(&ran));
        };
        std::fs::write(here.path().join("main.tf.json"), export("terraform", &folder).to_string()).unwrap();
        terraform(&["init", "-input=false", "-backend=false", &format!("-plugin-dir={plugins}")]);
        terraform(&["validate"]);
    }
}

#[test]
fn a_hostile_name_is_only_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let tenant = r#"a${file(\"/etc/passwd\")}%{ if true }\" }\n"#;
    change("restart-instance", folder.path(), "tenant: acme", &format!("tenant: \"{tenant}\""));
    let tenant = "a${file(\"/etc/passwd\")}%{ if true }\" }\n".replace('$', "${$}");
    let subject = format!("template:{tenant}:restart-instance");
    let key = "broker.example.com/web-identity:sub";

    let terraform = export("terraform", folder.path());
    let written =
        terraform["resource"]["aws_iam_role"]["deputize-restart-instance"]["assume_role_policy"].clone();
    let trust: Value = serde_json::from_str(&literal(written.as_str().unwrap())).unwrap();
    assert_eq!(trust["Statement"][0]["Condition"]["StringEquals"][key], subject);
    let cloudformation = export("cloudformation", folder.path());
    let role = &cloudformation["Resources"]["RoleRestartInstance"]["Properties"];
    let trust = &role["AssumeRolePolicyDocument"];
    assert_eq!(trust["Statement"][0]["Condition"]["StringEquals"][key], subject);

    // What CloudFormation reads in any text cannot be escaped there: it is refused.
    change("restart-instance", folder.path(), "tenant: acme", "tenant: \"{{resolve:ssm:/prod/key}}\"");
    let refused = exporting("cloudformation", folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("resolve"), "{}", said(&refused));
}

/// The text that Terraform takes this for; an expression is an error of ours.
fn literal(template: &str) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some(c) = rest.chars().next() {
        assert!(!rest.starts_with("${") && !rest.starts_with("%{"), "an expression: {rest}");
        let length = if rest.starts_with("$${") || rest.starts_with("%%{") {
            text.push_str(&rest[1..3]);
            3
        } else {
            text.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    text
}

/// Rights and trust of every role, one after the other.
fn policies_of(folder: &Path) -> Vec<Value> {
    let document = export("cloudformation", folder);
    let resources = document["Resources"].as_object().unwrap();
    let roles = resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::IAM::Role");
    roles
        .flat_map(|(name, role)| {
            let role = &role["Properties"];
            let (rights, trust) = (&role["Policies"][0]["PolicyDocument"], &role["AssumeRolePolicyDocument"]);
            [
                json!({"name": name, "kind": "rights", "policy": rights}),
                json!({"name": name, "kind": "trust", "policy": trust}),
            ]
        })
        .collect()
}

fn parliament(policies: &[Value]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("exports/policies.py");
    let mut python = Command::new(installed("python"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = policies.iter().map(|policy| format!("{policy}\n")).collect();
    python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let ran = python.wait_with_output().unwrap();
    assert!(ran.status.success(), "{}", said(&ran));
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Templates whose parameters are tags too.
fn tagged() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, param) in [("restart-instance", "instance"), ("query-orders", "partition")] {
        change(name, folder.path(), "tags:\n", &format!("tags:\n  {param}: [{{ param: {param} }}]\n"));
    }
    folder
}

/// An example in which something else stands.
fn change(name: &str, folder: &Path, from: &str, to: &str) {
    let file = format!("{name}.yaml");
    let text = std::fs::read_to_string(examples().join(&file)).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(folder.join(file), text.replacen(from, to, 1)).unwrap();
}

fn export(form: &str, folder: &Path) -> Value {
    let ran = exporting(form, folder).output().unwrap();
    assert!(ran.status.success(), "{}", said(&ran));
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn exporting(form: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["templates", "export", form]).arg(folder);
    command.args(["--issuer", "https://broker.example.com/web-identity"]);
    command
}

fn said(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/templates")
}

/// What `./test` installed of Python.
fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/exports/bin").join(name);
    assert!(path.exists(), "linters are missing: run ./test, which installs them");
    path
}
