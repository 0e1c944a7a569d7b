//! What is refused of calls, and what an accepted one gets.

use deputize_issuer::{
    person::{ClaimValue, Person},
    templates::{Refused, Verdict},
};
use serde_json::{Value, json};

use crate::{DECISION, EXAMPLES, NOW, alice, render, render_at, template, text};

/// An argument that each example takes.
pub fn good(name: &str) -> Value {
    match name {
        "restart-instance" => json!("i-0123456789abcdef0"),
        "read-reports" => json!("sales/2026/"),
        "query-orders" => json!("cus_17"),
        "read-log-group" => json!("arn:aws:logs:eu-central-1:111122223333:log-group:/ecs/web:*"),
        _ => json!("close-books"),
    }
}

#[test]
fn a_session_is_for_one_resource_and_five_minutes() {
    let session = render(&template(&text("restart-instance")), &alice(), good("restart-instance")).unwrap();
    assert_eq!(session.role_arn, "arn:aws:iam::111122223333:role/deputize/restart-instance");
    assert_eq!(session.duration_seconds, 900);
    assert_eq!(session.window_end_seconds, NOW + 300);
    assert_eq!(session.source_identity, "alice");
    assert_eq!(session.session_name, DECISION.hyphenated().to_string());
    assert_eq!(session.tags["tool"], "restart_instance");
    let instance = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0";
    let end = "2026-11-21T09:35:00Z";
    assert_eq!(
        serde_json::from_str::<Value>(&session.policy).unwrap(),
        json!({ "Version": "2012-10-17", "Statement": [
            { "Effect": "Allow", "Action": "ec2:RebootInstances", "Resource": instance,
              "Condition": { "DateLessThan": { "aws:CurrentTime": end } } },
            { "Effect": "Deny", "Action": "*", "Resource": "*",
              "Condition": { "DateGreaterThanEquals": { "aws:CurrentTime": end } } },
            { "Effect": "Deny", "NotAction": "ec2:RebootInstances", "Resource": "*" },
            { "Effect": "Deny", "Action": "ec2:RebootInstances", "NotResource": instance },
        ] })
    );
}

#[test]
fn what_no_arn_pins_to_the_account_a_condition_does() {
    let policy_of = |yaml: &str, name: &str| {
        let session = render(&template(yaml), &alice(), good(name)).unwrap();
        (serde_json::from_str::<Value>(&session.policy).unwrap(), session.probes())
    };
    let (policy, probes) = policy_of(&text("read-reports"), "read-reports");
    let account = json!({ "aws:ResourceAccount": "111122223333" });
    for allow in [0, 1] {
        let condition = &policy["Statement"][allow]["Condition"];
        assert_eq!(condition["StringEquals"]["aws:ResourceAccount"], "111122223333", "{policy:#}");
    }
    let deny = json!({ "Effect": "Deny", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*",
        "Condition": { "StringNotEquals": account } });
    assert!(policy["Statement"].as_array().unwrap().contains(&deny), "{policy:#}");
    assert_eq!(probes.iter().filter(|probe| probe.tried == "another account").count(), 2);
    // Another service whose ARN is said to have no account.
    let open = text("restart-instance")
        .replace("- service: ec2", "- service: ec2\n        account: \"\"")
        .replace("eu-central-1:111122223333:instance", "eu-central-1::instance");
    let (policy, _) = policy_of(&open, "restart-instance");
    assert_eq!(policy["Statement"][0]["Condition"]["StringEquals"], account, "{policy:#}");
}

#[test]
fn each_example_grants_its_resource_in_the_window_alone() {
    for name in EXAMPLES {
        let session = render(&template(&text(name)), &alice(), good(name)).unwrap();
        for probe in session.probes() {
            let expected = if probe.tried == "in the window" { Verdict::Allowed } else { Verdict::Denied };
            assert_eq!(probe.verdict, expected, "{name}: {probe:?}");
        }
        assert!(session.probes().iter().any(|probe| probe.tried == "another resource"));
    }
}

#[test]
fn a_parameter_outside_its_type_is_refused() {
    for (name, values) in [
        (
            "restart-instance",
            &[
                "",
                "*",
                "i-*",
                "i-0123456789abcdef?",
                "i-${aws:x}",
                "i-0123456789abcdef0\"",
                "i-0123456789abcdef0\n",
                " i-0123456789abcdef0",
                "i-0123456789ABCDEF0",
                "i-0123456789abcde",
                "i-0123456789abcdef00",
                "\u{456}-0123456789abcdef0",
                "i-\u{ff10}123456789abcdef0",
                "i-0123456789abcdef\u{200b}",
                "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0",
            ][..],
        ),
        (
            "read-reports",
            &[
                "*",
                "a",
                "/",
                "//",
                "a//",
                "/a/",
                "../",
                "a/../",
                "./",
                "a*/",
                "a?/",
                "a$/",
                "a{/",
                "a}/",
                "a:/",
                "a\\/",
                "a\"/",
                "a\u{0}/",
                "a\u{7f}/",
                "a\u{430}/",
                "${aws:username}/",
            ],
        ),
        ("query-orders", &["*", "a:b", "${aws:userid}", "a\u{2028}", "a\"", "\u{3b1}"]),
        (
            "read-log-group",
            &[
                "/ecs/web",
                "arn:aws:logs:eu-central-1:999988887777:log-group:/ecs/web",
                "arn:aws-cn:logs:eu-central-1:111122223333:log-group:/ecs/web",
                "arn:aws:logs:us-east-1:111122223333:log-group:/ecs/web",
                "arn:aws:logs:*:111122223333:log-group:/ecs/web",
                "arn:aws:ec2:eu-central-1:111122223333:log-group:/ecs/web",
                "arn:aws:logs:eu-central-1:111122223333:log-group:*",
                "arn:aws:logs:eu-central-1:111122223333:log-group:/ecs/web:log-stream:x",
                "arn:aws:logs:eu-central-1:111122223333:destination:/ecs/web",
                "arn:aws:logs:eu-central-1:111122223333",
            ],
        ),
        ("start-execution", &["*", "Close", "1a", "a b", "a\n", "a$", "close-books:1"]),
    ] {
        let template = template(&text(name));
        let long = "a".repeat(2000);
        for value in values.iter().copied().chain([long.as_str()]) {
            let answer = render(&template, &alice(), json!(value));
            assert!(matches!(answer, Err(Refused::Parameter { .. })), "{name} {value:?}: {answer:?}");
        }
        for value in
            [json!(null), json!(1), json!(true), json!([]), json!(["i-0123456789abcdef0"]), json!({})]
        {
            assert!(matches!(render(&template, &alice(), value), Err(Refused::Parameter { .. })), "{name}");
        }
        assert!(render(&template, &alice(), good(name)).is_ok(), "{name}");
    }
}

#[test]
fn characters_that_a_parameter_admits_are_escaped() {
    let wide = text("start-execution")
        .replace("max_length: 60", "max_length: 20\n    allow: '*?${}:'")
        .replace("^[a-z][a-z0-9-]*$", "^.*$");
    let session = render(&template(&wide), &alice(), json!("${a:b}*?")).unwrap();
    let arn = "arn:aws:states:eu-central-1:111122223333:stateMachine:agent-${$}{a:b}${*}${?}";
    assert!(session.policy.contains(arn), "{}", session.policy);
    for probe in session.probes() {
        assert_eq!(probe.verdict == Verdict::Allowed, probe.tried == "in the window", "{probe:?}");
    }
}

#[test]
fn a_whole_number_is_one_within_its_bounds() {
    let numbered = text("start-execution")
        .replace("type: pattern", "type: integer\n    minimum: 1\n    maximum: 12")
        .replace("    pattern: \"^[a-z][a-z0-9-]*$\"\n    max_length: 60\n", "");
    let template = template(&numbered);
    assert!(render(&template, &alice(), json!(12)).unwrap().policy.contains("stateMachine:agent-12\""));
    for value in [json!(0), json!(13), json!(-1), json!(1.5), json!(1e3), json!("5"), json!(null)] {
        assert!(matches!(render(&template, &alice(), value), Err(Refused::Parameter { .. })));
    }
}

#[test]
fn calls_that_a_template_is_not_for() {
    let template_with = |to: &str| template(&text("restart-instance").replace("roles: [operator]", to));
    let with = |change: fn(&mut Person)| {
        let mut person = alice();
        change(&mut person);
        person
    };
    let is_for =
        |to: &str, person: &Person| match render(&template_with(to), person, good("restart-instance")) {
            Ok(_) => true,
            Err(Refused::NotForThisCall(_)) => false,
            Err(other) => panic!("{other}"),
        };
    assert!(!is_for("roles: [admin]", &alice()));
    assert!(!is_for("groups: [operator]", &alice()));
    assert!(is_for("groups: ['x|ops']", &with(|person| person.groups = vec!["x|ops".into()])));
    assert!(!is_for("roles: [operator]", &with(|person| person.tenant = "beta".into())));
    assert!(is_for("claims: { data_region: [eu] }", &alice()));
    assert!(!is_for("claims: { data_region: [us] }", &alice()));
    assert!(!is_for("claims: { other: [eu] }", &alice()));
    let several = with(|person| {
        person.claims.insert("data_region".into(), ClaimValue::Texts(vec!["eu".into()]));
    });
    assert!(!is_for("claims: { data_region: [eu] }", &several));
    assert!(!is_for("chain_depth: { minimum: 2 }", &alice()));
    assert!(!is_for("chain_depth: { maximum: 0 }", &alice()));
}

#[test]
fn regions_of_person_server_and_role_must_agree() {
    let template = template(&text("read-reports"));
    let answer = |region: Option<&str>, claim: Option<ClaimValue>| {
        let mut person = alice();
        person.claims = claim.map(|claim| ("data_region".to_owned(), claim)).into_iter().collect();
        render_at(&template, &person, good("read-reports"), region)
    };
    let text_of = |value: &str| Some(ClaimValue::Text(value.into()));
    for (region, claim) in [
        (Some("eu-central-1"), text_of("eu")),
        (Some("eu"), text_of("eu-west-1")),
        (Some("eu-west-1"), Some(ClaimValue::Texts(vec!["eu".into(), "eu-central-1".into()]))),
    ] {
        assert!(answer(region, claim).is_ok());
    }
    for (region, claim) in [
        (None, text_of("eu")),
        (Some("us-east-1"), text_of("eu")),
        (Some("eu"), None),
        (Some("eu"), text_of("us")),
        (Some("eu"), Some(ClaimValue::Texts(vec![]))),
        (Some("eu"), Some(ClaimValue::Texts(vec!["eu".into(), "us".into()]))),
        (Some("eu"), Some(ClaimValue::Flag(true))),
    ] {
        assert!(matches!(answer(region, claim), Err(Refused::Residency(_))));
    }
    let plain = crate::template(&text("restart-instance"));
    let at = |region| render_at(&plain, &alice(), good("restart-instance"), region);
    assert!(at(None).is_ok() && at(Some("eu-central-1")).is_ok());
    assert!(matches!(at(Some("us-east-1")), Err(Refused::Residency(_))));
}

#[test]
fn names_and_tags_that_sts_refuses_are_refused_and_not_stripped() {
    let template = template(&text("restart-instance"));
    for user in ["a", "al ice", "auth0|alice", "al\u{430}ce", "alice\n", "a:b", "al*ce", &"a".repeat(65)] {
        let mut person = alice();
        person.sub = Person::encode_sub("acme", &person.issuer, user);
        let answer = render(&template, &person, good("restart-instance"));
        assert!(matches!(answer, Err(Refused::SourceIdentity(_))), "{user:?}");
    }
    let mut person = alice();
    person.sub = Person::encode_sub("acme", &person.issuer, "alice+o'neil@acme.example");
    assert!(render(&template, &person, good("restart-instance")).is_err());
    person.sub = Person::encode_sub("acme", &person.issuer, "alice+oneil@acme.example");
    let session = render(&template, &person, good("restart-instance")).unwrap();
    assert_eq!(session.source_identity, "alice+oneil@acme.example");

    let tagged =
        crate::template(&text("restart-instance").replace("tags:\n", "tags:\n  team: [{ claim: team }]\n"));
    for team in ["a*", "\u{430}", "a\"", "a\n", &"a".repeat(257)] {
        person.claims.insert("team".into(), ClaimValue::Text(team.into()));
        let answer = render(&tagged, &person, good("restart-instance"));
        assert!(matches!(answer, Err(Refused::Tag { .. })), "{team:?}");
    }
    person.claims.insert("team".into(), ClaimValue::Texts(vec!["a".into()]));
    assert!(matches!(render(&tagged, &person, good("restart-instance")), Err(Refused::Tag { .. })));
    person.claims.insert("team".into(), ClaimValue::Text("blue team".into()));
    assert_eq!(render(&tagged, &person, good("restart-instance")).unwrap().tags["team"], "blue team");
}
