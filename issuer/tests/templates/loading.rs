//! What is refused when templates are loaded.

use deputize_issuer::templates::{MAX_POLICY_CHARACTERS, Template, Templates};
use serde_json::json;

use crate::{EXAMPLES, alice, parse, render, template, text};

#[test]
fn the_examples_are_clean_and_do_not_overlap() {
    let files: Vec<_> = EXAMPLES.iter().map(|name| parse(&text(name))).collect();
    let templates = Templates::build(files).unwrap();
    assert_eq!(templates.iter().map(|template| template.file().name.as_str()).collect::<Vec<_>>(), EXAMPLES);
    for template in templates.iter() {
        assert_eq!(template.warnings(), [], "{}", template.file().name);
        assert!(template.worst_case_characters() <= MAX_POLICY_CHARACTERS);
    }
}

/// The example with something else in it is refused with these words.
#[track_caller]
fn refused(name: &str, from: &str, to: &str, words: &str) {
    let before = text(name);
    assert!(before.contains(from), "{name} has no {from}");
    let errors = match Template::check(parse(&before.replacen(from, to, 1))) {
        Err(errors) => errors,
        Ok(_) => panic!("{from} → {to} was accepted"),
    };
    assert!(errors.iter().any(|error| error.to_string().contains(words)), "{to}: {errors:?}");
}

#[test]
fn actions_that_are_wild_forbidden_or_none() {
    for (action, words) in [
        ("ec2:*", "no wildcards"),
        ("'*'", "no wildcards"),
        ("ec2:Reboot?nstances", "no wildcards"),
        ("sts:AssumeRole", "forbidden"),
        ("STS:assumerolewithwebidentity", "is no action"),
        ("sts:GetFederationToken", "forbidden"),
        ("iam:PassRole", "forbidden"),
        ("ecr:GetAuthorizationToken", "forbidden"),
        ("ecr:getauthorizationtoken", "forbidden"),
        ("redshift:GetClusterCredentialsWithIAM", "forbidden"),
        ("cognito-identity:GetId", "forbidden"),
        ("lakeformation:GetTemporaryGlueTableCredentials", "forbidden"),
        ("ec2-instance-connect:SendSSHPublicKey", "forbidden"),
        ("ec2", "is no action"),
        ("ec2:DescribeInstances", "knows no resources"),
        ("ec2:StartInstances", "beyond ceiling.actions"),
        ("ec2:RebootInstances, EC2:rebootinstances", "is no action"),
        ("ec2:RebootInstances, ec2:rebootinstances", "stands twice"),
    ] {
        refused("restart-instance", "[ec2:RebootInstances]\n    res", &format!("[{action}]\n    res"), words);
    }
}

#[test]
fn actions_that_hand_out_or_hand_on_rights_are_forbidden_even_if_they_are_stated() {
    for action in [
        "airflow:CreateCliToken",
        "datazone:GetEnvironmentCredentials",
        "deadline:AssumeQueueRoleForWorker",
        "dsql:DbConnect",
        "dsql:DbConnectAdmin",
        "ecs:ExecuteCommand",
        "elasticmapreduce:GetClusterSessionCredentials",
        "kms:CreateGrant",
        "kms:creategrant",
        "lambda:AddPermission",
        "lambda:UpdateFunctionCode",
        "s3:PutBucketPolicy",
        "s3:PutObjectAcl",
        "s3express:CreateSession",
        "ssm:SendCommand",
        // Of services that nobody has thought of.
        "new:AssumeSomething",
        "new:FetchCredentialsOfThis",
        "new:PutThingPolicy",
        "new:AddThingPermission",
        "new:MakeGrant",
        "new:MakeLoginToken",
    ] {
        let to = format!("unknown_actions: [{action}]\nstatements:\n  - actions: [{action}]\n    res");
        refused(
            "restart-instance",
            "statements:\n  - actions: [ec2:RebootInstances]\n    res",
            &to,
            "forbidden",
        );
    }
}

#[test]
fn an_action_that_is_not_known_is_stated() {
    let unknown = |stated: &str| {
        text("restart-instance")
            .replace("ec2:RebootInstances", "ec2:RebootInstance")
            .replace("statements:\n", &format!("unknown_actions: [{stated}]\nstatements:\n"))
    };
    assert_eq!(template(&unknown("ec2:RebootInstance")).warnings(), []);
    template(&unknown("EC2:rebootinstance"));
    let words = |yaml: &str| match Template::check(parse(yaml)) {
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        Ok(_) => panic!("accepted: {yaml}"),
    };
    assert!(words(&unknown("")).contains("state it under `unknown_actions`"));
    let more = words(&unknown("ec2:RebootInstance, ec2:RebootInstances, ec2:Reboot"));
    assert!(more.contains("ec2:RebootInstances is known: leave it out"), "{more}");
    assert!(more.contains("ec2:Reboot stands in no statement"), "{more}");
    // Without resources nothing would bound it.
    let everywhere = "statements:\n  - actions: [ec2:NewAction]\n";
    let stated = format!("unknown_actions: [ec2:NewAction]\n{everywhere}");
    refused("restart-instance", "statements:\n", &stated, "needs `resources`");
}

#[test]
fn places_that_are_not_pinned() {
    for (from, to, words) in [
        ("iam::111122223333:role", "iam::999988887777:role", "pinned to"),
        ("role_arn: arn:aws:iam", "role_arn: arn:aws-cn:iam", "must begin with arn:aws:iam::"),
        (":role/deputize", ":user/deputize", "must end with role/"),
        ("account: \"111122223333\"", "account: \"1111\"", "12 digits"),
        ("region: eu-central-1", "region: europe", "no region"),
        ("region: eu-central-1", "region: cn-north-1", "no region of the partition aws"),
        ("region: eu-central-1", "region: us-gov-west-1", "no region of the partition aws"),
        ("- service: ec2", "- service: ec2\n        account: \"999988887777\"", "is not aws.account"),
        ("- service: ec2", "- service: ec2\n        region: us-east-1", "is not aws.region"),
        ("- service: ec2", "- service: ec2\n        partition: aws-cn", "another partition"),
        ("- service: ec2", "- service: 'e*'", "is no service"),
        ("- service: ec2", "- service: s3\n        region: eu-central-1", "ARNs of s3 have no region"),
        ("window_seconds: 300", "window_seconds: 301", "30 to 300"),
        ("window_seconds: 300", "window_seconds: 300\n  duration_seconds: 600", "900"),
    ] {
        refused("restart-instance", from, to, words);
    }
    let elsewhere = "residency: { regions: [us-east-1] }\nceiling:";
    refused("restart-instance", "ceiling:", elsewhere, "residency.regions");
}

#[test]
fn parts_and_parameters() {
    for (from, to, words) in [
        ("{ literal: instance/ }", "{ literal: 'instance/*' }", "literal"),
        ("{ literal: instance/ }", "{ literal: 'instance/${aws:x}' }", "literal"),
        ("{ literal: instance/ }", "{ literal: 'instance/\"' }", "literal"),
        ("{ param: instance }", "{ param: instanse }", "did you mean `instance`?"),
        ("{ param: instance }", "{ param: instance }, { param: instance }", "nothing between"),
        ("{ param: instance }", "{ param: instance }, wildcard", "a wildcard stands at the end"),
        ("{ literal: instance/ }", "wildcard, { literal: instance/ }", "a wildcard stands at the end"),
        ("type: ec2_instance_id", "type: ec2_instance_id\n    allow: '*'", "alphabet of this type is fixed"),
        ("type: ec2_instance_id", "type: s3_key", "max_length"),
        ("type: ec2_instance_id", "type: s3_key\n    max_length: 2000", "max_length"),
        (
            "type: ec2_instance_id",
            "type: s3_key\n    max_length: 9\n    allow: '\"'",
            "can never be admitted",
        ),
        ("type: ec2_instance_id", "type: enum", "1 to 64"),
        ("type: ec2_instance_id", "type: enum\n    values: ['a*']", "`allow` does not name"),
        ("type: ec2_instance_id", "type: enum\n    values: ['\u{430}']", "`allow` does not name"),
        ("type: ec2_instance_id", "type: integer", "minimum and maximum"),
        ("type: ec2_instance_id", "type: pattern\n    max_length: 9", "a pattern needs"),
        ("type: ec2_instance_id", "type: pattern\n    max_length: 9\n    pattern: 'i-.*'", "begin with ^"),
        ("type: ec2_instance_id", "type: pattern\n    max_length: 9\n    pattern: '^a)|(?:b$'", "pattern"),
        (
            "type: ec2_instance_id",
            "type: pattern\n    max_length: 9\n    pattern: '^(a{999}){999}$'",
            "pattern",
        ),
        ("type: ec2_instance_id", "type: uuid\n    from_arn: true", "from_arn"),
        ("argument: /instance_id", "argument: instance_id", "JSON Pointer"),
        (
            "  instance:\n",
            "  unused: { from: { argument: /x }, type: uuid }\n  instance:\n",
            "nothing uses it",
        ),
    ] {
        refused("restart-instance", from, to, words);
    }
}

#[test]
fn an_operator_is_of_the_kind_of_its_key() {
    for key in ["dynamodb:LeadingKeys", "DynamoDB:leadingkeys", "dynamodb:Attributes", "aws:TagKeys"] {
        for operator in ["StringEquals", "StringLike", "NumericLessThanEquals"] {
            let from = "operator: ForAllValues:StringEquals\n        key: dynamodb:LeadingKeys";
            let to = format!("operator: {operator}\n        key: {key}");
            refused("query-orders", from, &to, "can have several values");
        }
    }
    for key in ["s3:prefix", "aws:ResourceTag/team", "S3:MAX-KEYS"] {
        let from = "operator: StringEquals\n        key: s3:prefix";
        let several = format!("operator: ForAllValues:StringEquals\n        key: {key}");
        refused("read-reports", from, &several, "has one value");
    }
    for key in ["s3:prefixes", "aws:ResourceTag/", "x:y", "dynamodb:LeadingKey"] {
        refused("read-reports", "key: s3:prefix", &format!("key: {key}"), "is not known here");
    }
    template(&text("read-reports").replace("key: s3:prefix", "key: aws:ResourceTag/team"));
}

#[test]
fn conditions_that_are_always_added() {
    for key in ["aws:CurrentTime", "AWS:currenttime", "aws:ResourceAccount", "aws:resourceaccount"] {
        refused("read-reports", "key: s3:prefix", &format!("key: {key}"), "always");
    }
}

#[test]
fn sizes_and_tags() {
    refused("read-reports", "max_length: 80", "max_length: 400", "STS takes 2048");
    refused("read-reports", "max_length: 80", "max_length: 80\n    allow: '*'", "STS takes 2048");
    refused("restart-instance", "tags:\n", "tags:\n  Tool: [{ literal: x }]\n", "by case alone");
    refused("restart-instance", "tags:\n", "tags:\n  aws:x: [{ literal: x }]\n", "AWS's own");
    refused("restart-instance", "tags:\n", "tags:\n  'a*': [{ literal: x }]\n", "a key has");
    refused(
        "restart-instance",
        "tags:\n",
        "tags:\n  ab: [{ literal: \"\u{430}\" }]\n",
        "does not take in a tag",
    );
    for (parts, words) in [
        ("{ param: instance }, { param: instance }", "nothing between"),
        ("{ fact: user }, { param: instance }", "nothing between"),
        ("{ literal: x }, { claim: team }, { fact: tool }", "nothing between"),
        ("{ param: instance }, { literal: '' }, { param: instance }", "an empty literal"),
    ] {
        refused("restart-instance", "tags:\n", &format!("tags:\n  ab: [{parts}]\n"), words);
    }
    let apart = "tags:\n  ab: [{ fact: user }, { literal: / }, { param: instance }]\n";
    template(&text("restart-instance").replace("tags:\n", apart));
    let many: String = (0..51).map(|n| format!("  t{n}: [{{ literal: x }}]\n")).collect();
    refused("restart-instance", "tags:\n", &format!("tags:\n{many}"), "at most 50");
}

#[test]
fn what_is_beyond_the_ceiling_has_a_counterexample() {
    for (name, from, to, words) in [
        (
            "restart-instance",
            "instance/i-*\"",
            "instance/i-0*\"",
            "for example with arn:aws:ec2:eu-central-1:111122223333:instance/i-",
        ),
        (
            "read-reports",
            "acme-reports/published/*\"",
            "acme-reports/published/a*\"",
            "for example with arn:aws:s3:::acme-reports/published/",
        ),
        ("read-reports", "[s3:Get*, ", "[s3:Put*, ", "s3:GetObject is beyond"),
        ("start-execution", "stateMachine:agent-*", "stateMachine:agent-?", "for example with"),
        ("restart-instance", "111122223333:instance/i-*\"", "999988887777:instance/i-*\"", "as in aws"),
        ("restart-instance", "ec2:eu-central-1", "ec2:*", "as in aws"),
        (
            "restart-instance",
            "actions: [ec2:RebootInstances]\n  res",
            "actions: ['*:RebootInstances']\n  res",
            "name the service",
        ),
    ] {
        refused(name, from, to, words);
    }
}

#[test]
fn two_templates_for_one_call_are_an_error() {
    let one = text("restart-instance");
    let other = |from: &str, to: &str| one.replace("name: restart", "name: other").replacen(from, to, 1);
    let build = |other: String| Templates::build(vec![parse(&one), parse(&other)]);
    for (from, to) in [
        ("roles: [operator]", "roles: [operator]"),
        // A person can have both roles, and both groups.
        ("roles: [operator]", "roles: [somebody]"),
        ("roles: [operator]", "groups: [g]\n  claims: { site: [a] }"),
        ("roles: [operator]", "chain_depth: { minimum: 2 }"),
    ] {
        let errors = build(other(from, to)).unwrap_err();
        assert!(errors[0].to_string().contains("one call could match"), "{errors:?}");
    }
    for (from, to) in [
        ("ops.example.com", "ops2.example.com"),
        ("tool: restart_instance", "tool: reboot"),
        ("tenant: acme", "tenant: beta"),
    ] {
        assert!(build(other(from, to)).is_ok(), "{to}");
    }
    let claim = |value: &str| one.replace("roles: [operator]", &format!("claims: {{ site: [{value}] }}"));
    let pair = |a: &str, b: &str| {
        Templates::build(vec![parse(&claim(a)), parse(&claim(b).replace("name: restart", "name: other"))])
    };
    assert!(pair("a", "b").is_ok());
    assert!(pair("a", "'b', 'a'").is_err());
    let errors = Templates::build(vec![parse(&one), parse(&one)]).unwrap_err();
    assert!(errors.iter().any(|error| error.place == "name"), "{errors:?}");
}

#[test]
fn lint_names_what_looks_like_a_mistake() {
    for (name, from, to, words) in [
        ("restart-instance", "  window_seconds: 300\n", "", "it is not said"),
        (
            "restart-instance",
            "statements:\n",
            "statements:\n  - actions: [ec2:DescribeInstances]\n",
            "no resource-level permissions",
        ),
        (
            "query-orders",
            "values: [[{ param: partition }]]",
            "values: [[{ literal: x }]]",
            "no parameter limits it",
        ),
        ("query-orders", "literal: table/orders", "literal: tabel/orders", "it would grant nothing"),
    ] {
        let mut changed = text(name).replace(from, to);
        if words.starts_with("no resource") {
            changed = changed.replace("  actions: [ec2:Re", "  actions: [ec2:Describe*, ec2:Re");
            changed = changed.replace("  resources: [\"arn", "  resources: [\"*\", \"arn");
        }
        // What is no longer used may still be a tag.
        changed = changed.replace("tabel/orders\"", "x").replace("table/orders\"]", "*\"]");
        if words.starts_with("no parameter") {
            changed = changed.replace("tags:\n", "tags:\n  partition: [{ param: partition }]\n");
        }
        let warnings = template(&changed).warnings();
        assert!(warnings.iter().any(|warning| warning.to_string().contains(words)), "{words}: {warnings:?}");
    }
}

#[test]
fn a_template_is_known_by_its_hash() {
    let one = template(&text("restart-instance"));
    let commented = template(&format!("# a comment\n{}", text("restart-instance")));
    assert_eq!(one.hash(), commented.hash());
    let other = template(&text("restart-instance").replace("window_seconds: 300", "window_seconds: 299"));
    assert_ne!(one.hash(), other.hash());
    let session = render(&one, &alice(), json!("i-0123456789abcdef0")).unwrap();
    assert_eq!(session.template_hash, one.hash());
}
