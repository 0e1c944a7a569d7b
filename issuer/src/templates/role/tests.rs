use super::*;
use crate::templates::Template;

const ISSUER: TrustedIssuer<'_> =
    TrustedIssuer { issuer: "https://broker.example/web-identity", audience: "sts.amazonaws.com" };

fn example(name: &str, from: &str, to: &str) -> Template {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/example/templates");
    let text = std::fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap();
    assert!(text.contains(from), "{from}");
    Template::check(serde_saphyr::from_str(&text.replacen(from, to, 1)).unwrap()).unwrap()
}

#[test]
fn a_role_trusts_this_issuer_for_exactly_this_template() {
    let template = example("restart-instance", "", "");
    let policy = trust_policy(&[&template], ISSUER);
    assert_eq!(
        policy,
        json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {
                        "Federated": "arn:aws:iam::111122223333:oidc-provider/broker.example/web-identity"
                    },
                    "Action": ["sts:AssumeRoleWithWebIdentity", "sts:SetSourceIdentity"],
                    "Condition": {
                        "StringEquals": {
                            "broker.example/web-identity:aud": "sts.amazonaws.com",
                            "broker.example/web-identity:sub": "template:acme:restart-instance"
                        },
                        "StringLike": {"sts:SourceIdentity": "?*"}
                    }
                },
                {
                    "Effect": "Allow",
                    "Principal": {
                        "Federated": "arn:aws:iam::111122223333:oidc-provider/broker.example/web-identity"
                    },
                    "Action": "sts:TagSession",
                    "Condition": {
                        "StringEquals": {
                            "broker.example/web-identity:aud": "sts.amazonaws.com",
                            "broker.example/web-identity:sub": "template:acme:restart-instance",
                            "aws:RequestTag/tool": "restart_instance"
                        },
                        "ForAllValues:StringEquals": {"aws:TagKeys": ["tool", "transaction"]}
                    }
                }
            ]
        })
    );
}

#[test]
fn without_tags_none_may_be_set() {
    let template = example(
        "restart-instance",
        "tags:\n  tool: [{ fact: tool }]\n  transaction: [{ fact: transaction }]\n",
        "",
    );
    let condition = trust_policy(&[&template], ISSUER)["Statement"][1]["Condition"].clone();
    assert_eq!(condition["Null"], json!({"aws:TagKeys": "true"}));
    assert_eq!(condition.get("ForAllValues:StringEquals"), None);
}

#[test]
fn a_tag_that_carries_a_parameter_stands_in_the_roles_resource() {
    let plain = example("restart-instance", "", "");
    let resource = |policy: &Value| policy["Statement"][0]["Resource"][0].as_str().unwrap().to_owned();
    let arn = "arn:aws:ec2:eu-central-1:111122223333:instance/";
    assert_eq!(resource(&role_policy(&[&plain])), format!("{arn}*"));

    let tagged = example("restart-instance", "tags:\n", "tags:\n  instance: [{ param: instance }]\n");
    assert_eq!(resource(&role_policy(&[&tagged])), format!("{arn}${{aws:PrincipalTag/instance}}"));
    // A tag that holds more than the parameter says nothing of it alone.
    let mixed = example(
        "restart-instance",
        "tags:\n",
        "tags:\n  instance: [{ literal: \"id \" }, { param: instance }]\n",
    );
    assert_eq!(resource(&role_policy(&[&mixed])), format!("{arn}*"));
}

#[test]
fn a_role_has_no_right_beyond_the_ceiling() {
    let template = example("restart-instance", "", "");
    let statements = role_policy(&[&template])["Statement"].clone();
    assert_eq!(
        statements[1],
        json!({"Effect": "Deny", "NotAction": ["ec2:RebootInstances"], "Resource": "*"})
    );
    assert_eq!(
        statements[2],
        json!({
            "Effect": "Deny",
            "Action": ["ec2:RebootInstances"],
            "NotResource": ["arn:aws:ec2:eu-central-1:111122223333:instance/i-*"]
        })
    );
    assert_eq!(statements.as_array().unwrap().len(), 3);
}

#[test]
fn conditions_are_as_wide_as_the_calls_need_and_no_wider() {
    let orders = role_policy(&[&example("query-orders", "", "")])["Statement"][0].clone();
    assert_eq!(orders["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"], "*");
    assert_eq!(orders["Condition"]["Null"]["dynamodb:LeadingKeys"], "false");
    let tagged = example("query-orders", "tags:\n", "tags:\n  partition: [{ param: partition }]\n");
    let orders = role_policy(&[&tagged])["Statement"][0].clone();
    assert_eq!(
        orders["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"],
        "${aws:PrincipalTag/partition}"
    );
    let reports = role_policy(&[&example("read-reports", "", "")])["Statement"].clone();
    assert_eq!(reports[0]["Resource"], json!(["arn:aws:s3:::acme-reports/published/*"]));
    for statement in [&reports[0], &reports[1]] {
        assert_eq!(statement["Condition"]["StringEquals"]["aws:ResourceAccount"], "111122223333");
    }
    assert_eq!(reports[1]["Condition"]["StringLike"]["s3:prefix"], "published/*");
}

#[test]
fn two_templates_of_one_role_share_its_policies() {
    let one = example("restart-instance", "", "");
    let two = example("start-execution", "role/deputize/start-execution", "role/deputize/restart-instance");
    let trust = trust_policy(&[&one, &two], ISSUER);
    let subjects: Vec<_> = trust["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .map(|statement| &statement["Condition"]["StringEquals"]["broker.example/web-identity:sub"])
        .collect();
    let (one_subject, two_subject) = ("template:acme:restart-instance", "template:acme:start-execution");
    assert_eq!(subjects, [one_subject, one_subject, two_subject, two_subject]);
    let policy = role_policy(&[&one, &two]);
    let denied = policy["Statement"].as_array().unwrap().last().unwrap();
    assert_eq!(denied["Action"], json!(["ec2:RebootInstances", "states:StartExecution"]));
    assert_eq!(denied["NotResource"].as_array().unwrap().len(), 2);
}

#[test]
fn a_name_that_iam_would_read_as_more_is_only_a_name() {
    let template = example("restart-instance", "tenant: acme", "tenant: \"${aws:userid}\"");
    let equals = trust_policy(&[&template], ISSUER)["Statement"][0]["Condition"]["StringEquals"].clone();
    assert_eq!(equals["broker.example/web-identity:sub"], "template:${$}{aws:userid}:restart-instance");
}
