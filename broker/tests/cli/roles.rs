//! What roles at AWS have to be: `deputize templates export`, and `deputize doctor --role` of what is there.

use serde_json::{Value, json};
use std::path::Path;

use crate::program::{Ran, run};

const ISSUER: &str = "https://broker.example.com/web-identity";
const ROLE: &str = "arn:aws:iam::111122223333:role/deputize/restart-instance";
const HOST: &str = "broker.example.com/web-identity";

fn examples() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/templates");
    folder.to_str().unwrap().to_owned()
}

fn export(form: &str, more: &[&str]) -> Ran {
    let folder = examples();
    run(&[&["templates", "export", form, &folder, "--issuer", ISSUER][..], more].concat())
}

/// The trust policy that is exported for the role.
fn trust() -> Value {
    let document = export("cloudformation", &["--template", "restart-instance"]).expect(0).json();
    document["Resources"]["RoleRestartInstance"]["Properties"]["AssumeRolePolicyDocument"].clone()
}

fn doctor(trust: &Value, more: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trust.json");
    std::fs::write(&file, trust.to_string()).unwrap();
    let (file, templates) = (file.to_str().unwrap(), examples());
    let role = ["doctor", "--role", ROLE, "--trust-policy", file, "--templates", &templates];
    run(&[&role[..], &["--issuer", ISSUER], more].concat())
}

#[test]
fn exports_have_a_role_for_each_template() {
    let document = export("cloudformation", &[]).expect(0).json();
    assert_eq!(document["Resources"].as_object().unwrap().len(), 6, "five roles, one provider");
    assert_eq!(document["Resources"]["Provider"]["Properties"]["Url"], ISSUER);
    let role = &document["Resources"]["RoleReadReports"]["Properties"];
    assert_eq!((&role["RoleName"], &role["Path"]), (&json!("read-reports"), &json!("/deputize/")));
    let document =
        export("terraform", &["--template", "read-reports", "--without-provider"]).expect(0).json();
    assert_eq!(document["resource"]["aws_iam_role"].as_object().unwrap().len(), 1);
    assert!(document["resource"].get("aws_iam_openid_connect_provider").is_none(), "{document}");
    export("cloudformation", &["-o", "yaml"]).expect(0);
}

#[test]
fn what_cannot_be_exported_is_refused() {
    export("terraform", &["--template", "reboot"]).expect(2);
    export("terraform", &["--account", "999988887777"]).expect(2);
    let folder = examples();
    for (issuer, problem) in [
        ("http://a.example", "https://"),
        ("https://a.example/", "trailing slash"),
        ("https://a.example:8443", "port"),
        ("https://a.example/${b}", "plain"),
    ] {
        let ran = run(&["templates", "export", "terraform", &folder, "--issuer", issuer]).expect(2);
        assert!(ran.stderr.contains(problem), "{ran:?}");
    }
}

#[test]
fn a_query_names_the_session_or_the_person_and_nothing_else() {
    let query = |more: &[&str]| run(&[&["templates", "export", "query"][..], more].concat());
    let session = "019aa5f2-7c40-7000-8000-000000000001";
    let text = query(&["--table", "logs.cloudtrail", "--session", session]).expect(0).stdout;
    assert!(text.contains(&format!("'$.roleSessionName') = '{session}'")), "{text}");
    assert!(text.contains("FROM \"logs\".\"cloudtrail\"") && text.contains("BETWEEN '20"), "{text}");
    let text = query(&["--table", "logs", "--user", "alice@example.com"]).expect(0).stdout;
    assert!(text.contains("'$.sourceIdentity') = 'alice@example.com'"), "{text}");
    let store = "1b2c3d4e-0000-4000-8000-123456789abc";
    let text = query(&["--lake", "--table", store, "--user", "alice"]).expect(0).stdout;
    assert!(text.contains(&format!("FROM {store}")) && text.contains("sourceIdentity = 'alice'"), "{text}");
    for hostile in [
        ["--table", "logs; DROP TABLE logs", "--user", "alice"],
        ["--table", "a.b.c", "--user", "alice"],
        ["--table", "logs", "--user", "a' OR '1'='1"],
        ["--table", "logs", "--session", "'; --"],
        ["--table", "logs", "--session", "00000000-0000-4000-8000-000000000000"],
    ] {
        query(&hostile).expect(2);
    }
    query(&["--table", "logs"]).expect(2);
}

#[test]
fn a_role_as_it_is_exported_is_good() {
    let ran = doctor(&trust(), &[]).expect(0);
    assert!(ran.stdout.contains("✔ subject: template:acme:restart-instance"), "{ran:?}");
    // As get-role prints it, and as the API gives it.
    let role =
        json!({"Role": {"Arn": ROLE, "MaxSessionDuration": 3600, "AssumeRolePolicyDocument": trust()}});
    doctor(&role, &[]).expect(0);
    let encoded: String =
        trust().to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    doctor(&json!({"Role": {"Arn": ROLE, "AssumeRolePolicyDocument": encoded}}), &[]).expect(0);
}

/// One operator more at a time: each alone is a finding.
#[test]
fn an_operator_that_is_not_known_is_a_finding_on_any_key() {
    let (audience, subject) = (format!("{HOST}:aud"), format!("{HOST}:sub"));
    for (operator, key, value) in [
        ("Null", "aws:TagKeys", "true"),
        ("Null", "aws:TagKeys", "false"),
        ("Null", audience.as_str(), "true"),
        ("StringNotEquals", subject.as_str(), "template:acme:restart-instance"),
        ("StringEqualsIfExists", "sts:RoleSessionName", "x"),
        ("ForAnyValue:StringEquals", "aws:TagKeys", "tool"),
        ("StringNotLike", "sts:SourceIdentity", "a*"),
        ("StringEqualsIgnoreCase", "aws:RequestTag/tool", "restart_instance"),
    ] {
        let mut policy = trust();
        policy["Statement"][0]["Condition"][operator] = json!({ key: value });
        let ran = doctor(&policy, &[]).expect(1);
        assert!(ran.stdout.contains(&format!("✖ conditions: {key} ({operator})")), "{ran:?}");
    }
    let mut policy = trust();
    policy["Statement"][0]["Condition"]["StringLike"]["sts:RoleSessionName"] = json!("*");
    doctor(&policy, &[]).expect(0);
}

#[test]
fn each_template_of_a_role_needs_all_actions() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(&examples()).join("restart-instance.yaml")).unwrap();
    std::fs::write(folder.path().join("restart-instance.yaml"), &text).unwrap();
    let other = text
        .replace("name: restart-instance", "name: other")
        .replace("tool: restart_instance", "tool: other");
    std::fs::write(folder.path().join("other.yaml"), other).unwrap();
    let templates = folder.path().to_str().unwrap().to_owned();
    let document =
        run(&["templates", "export", "cloudformation", &templates, "--issuer", ISSUER]).expect(0).json();
    let is_role = |resource: &&Value| resource["Properties"]["RoleName"] == "restart-instance";
    let role = document["Resources"].as_object().unwrap().values().find(is_role).unwrap();
    let mut trust = role["Properties"]["AssumeRolePolicyDocument"].clone();
    let more = ["--templates", &templates];
    let file = folder.path().join("trust.policy");
    let doctor = |trust: &Value| {
        std::fs::write(&file, trust.to_string()).unwrap();
        let role = ["doctor", "--role", ROLE, "--trust-policy", file.to_str().unwrap(), "--issuer", ISSUER];
        run(&[&role[..], &more].concat())
    };
    doctor(&trust).expect(0);
    // The one may begin sessions, the other tag them: pooled it would look whole.
    let statements = trust["Statement"].as_array_mut().unwrap();
    let subject = format!("{HOST}:sub");
    let begins_other = statements.iter().position(|statement| {
        statement["Condition"]["StringEquals"][&subject] == "template:acme:other"
            && statement["Action"] == "sts:TagSession"
    });
    statements.remove(begins_other.unwrap());
    let ran = doctor(&trust).expect(1);
    assert!(ran.stdout.contains("✖ actions: missing: sts:TagSession for template:acme:other"), "{ran:?}");
}

#[test]
fn the_audience_is_that_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/deputize.yaml");
    let text = std::fs::read_to_string(example).unwrap();
    let config = folder.path().join("deputize.yaml");
    let aws = "aws:\n  templates: templates\n  accounts: [\"111122223333\"]\n  web_identity: { audience: own-audience }\n";
    std::fs::write(&config, format!("{text}\n{aws}")).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let mut policy = trust();
    let ran = doctor(&policy, &more).expect(1);
    assert!(ran.stdout.contains("is not held to \"own-audience\""), "{ran:?}");
    doctor(&policy, &[&more[..], &["--audience", "sts.amazonaws.com"]].concat()).expect(0);
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Condition"]["StringEquals"][format!("{HOST}:aud")] = json!("own-audience");
    }
    doctor(&policy, &more).expect(0);
    doctor(&policy, &[]).expect(1);
    std::fs::write(&config, "issuer: [").unwrap();
    doctor(&policy, &more).expect(5);
}

#[test]
fn what_a_role_lacks_or_has_too_much_of_is_named() {
    let subject = format!("{HOST}:sub");
    let change = |change: &dyn Fn(&mut Value)| {
        let mut policy = trust();
        change(&mut policy);
        policy
    };
    let each = |policy: &mut Value, change: &dyn Fn(&mut Value)| {
        policy["Statement"].as_array_mut().unwrap().iter_mut().for_each(change);
    };
    let other = json!({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"});
    let cases: Vec<(&str, Value)> = vec![
        (
            "✖ actions: missing: sts:TagSession",
            change(&|policy| {
                policy["Statement"].as_array_mut().unwrap().pop();
            }),
        ),
        (
            "✖ actions: also sts:AssumeRole",
            change(&|policy| {
                policy["Statement"][1]["Action"] = json!(["sts:TagSession", "sts:AssumeRole"]);
            }),
        ),
        (
            "✖ provider",
            change(&|policy| {
                each(policy, &|statement| {
                    statement["Principal"]["Federated"] =
                        json!("arn:aws:iam::111122223333:oidc-provider/other.example");
                })
            }),
        ),
        (
            "✖ audience",
            change(&|policy| {
                policy["Statement"][0]["Condition"]["StringEquals"][format!("{HOST}:aud")] = json!("other");
            }),
        ),
        (
            "may be anything",
            change(&|policy| {
                policy["Statement"][0]["Condition"]["StringEquals"].as_object_mut().unwrap().remove(&subject);
            }),
        ),
        (
            "✖ subject: let in, but no template of this role: template:acme:all",
            change(&|policy| {
                each(policy, &|statement| {
                    statement["Condition"]["StringEquals"][&subject] =
                        json!(["template:acme:restart-instance", "template:acme:all"]);
                });
            }),
        ),
        (
            "not held to whole texts",
            change(&|policy| {
                each(policy, &|statement| {
                    let condition = statement["Condition"].as_object_mut().unwrap();
                    condition["StringEquals"].as_object_mut().unwrap().remove(&subject);
                    condition.insert("StringLike".to_owned(), json!({ &subject: "template:acme:*" }));
                })
            }),
        ),
        (
            "✖ others: also lets in",
            change(&|policy| {
                policy["Statement"].as_array_mut().unwrap().push(other.clone());
            }),
        ),
        (
            "✖ conditions: aws:SourceIp",
            change(&|policy| {
                policy["Statement"][0]["Condition"]["IpAddress"] = json!({"aws:SourceIp": "10.0.0.0/8"});
            }),
        ),
        (
            "✖ role",
            json!({"Role": {"Arn": "arn:aws:iam::111122223333:role/other", "AssumeRolePolicyDocument": trust()}}),
        ),
    ];
    for (words, policy) in cases {
        let ran = doctor(&policy, &[]).expect(1);
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    doctor(&trust(), &["--audience", "other"]).expect(1);
    doctor(&json!([]), &[]).expect(2);
    run(&["doctor", "--role", ROLE]).expect(2);
    run(&["doctor"]).expect(2);
}
