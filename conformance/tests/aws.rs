//! AWS sessions for the one resource in a call, from outside: a broker under `serve`, a strict stand-in for AWS, and
//! AWS's own clients, unmodified.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    aws_lab::{AwsLab, OPS, go_program, python_program, restart_instance},
    forge::{Key, claims, now, unique},
    node::{node, npm},
    process,
    stand_in::{ACCOUNT, BUCKET, REGION, aws_cli, python, role_arn, told},
    wire::Response,
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_restarts_the_instance_in_the_call_no_other_and_not_after_the_window() {
    let lab = AwsLab::start().await;
    let [first, second] = lab.stand_in.instances.clone();
    let token = lab.restart_token("alice", &first).await;
    let before = now();
    let given = granted(&lab.session(&token, &instance(&first)).await);
    let mut members: Vec<_> = given.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let whole = [
        "AccessKeyId",
        "AccountId",
        "Expiration",
        "SecretAccessKey",
        "SessionToken",
        "Version",
        "decision_id",
    ];
    assert_eq!(
        (members.as_slice(), &given["Version"]),
        (&whole[..], &json!(1)),
        "what credential_process demands"
    );
    assert_eq!(given["AccountId"], ACCOUNT);

    assert_eq!(restart(&lab, &given, &[&first, &second]), json!(["ok", DENIED]));
    // How long all that takes on a loaded machine is nobody's concern: five minutes from the session on.
    lab.stand_in.set_clock(before + 240 - now()).await;
    assert_eq!(restart(&lab, &given, &[&first]), json!(["ok"]), "the window is five minutes");
    lab.stand_in.set_clock(301).await;
    assert_eq!(restart(&lab, &given, &[&first, &second]), json!([DENIED, DENIED]), "and after it nothing");
    lab.stand_in.set_clock(0).await;

    let sessions = lab.sessions().await;
    let [session] = sessions.as_slice() else { panic!("{sessions:?}") };
    let (decision, token) = (given["decision_id"].as_str().unwrap(), claims(&token));
    assert_eq!(session["role"], role_arn("restart-instance"));
    assert_eq!(session["session"], decision, "the name in AWS's log is what `explain` takes");
    assert_eq!(
        (&session["sub"], &session["source_identity"]),
        (&json!("template:acme:restart-instance"), &json!("alice"))
    );
    assert_eq!(session["tags"], json!({ "tool": "restart_instance", "transaction": token["txn"] }));
    let policy = session["policy"].as_str().unwrap();
    assert!(policy.contains(&first) && !policy.contains(&second), "{policy}");

    let entries = lab.on_record(decision).await;
    let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "outcome"], "{entries:?}");
    let aws = &entries[0]["aws"];
    assert_eq!((&aws["template"], &aws["account"]), (&json!("restart-instance"), &json!(ACCOUNT)), "{aws}");
    assert_eq!((&aws["region"], &aws["role"]), (&json!(REGION), &json!(role_arn("restart-instance"))));
    assert_eq!((&aws["session_name"], &aws["source_identity"]), (&json!(decision), &json!("alice")));
    let end = aws["window_end"].as_i64().unwrap();
    assert!((before + 290..=now() + 300).contains(&end), "five minutes: {end}");
    assert_eq!((&entries[0]["pjti"], &entries[0]["txn"]), (&token["jti"], &token["txn"]));
    assert_eq!((&entries[0]["client"], &entries[0]["tool"]), (&json!("ops"), &json!("restart_instance")));

    let everything = format!("{entries:?}{}", lab.lab.started.process.said());
    for secret in ["SecretAccessKey", "SessionToken"] {
        assert!(!everything.contains(given[secret].as_str().unwrap()), "{secret} is in no record and no log");
    }
    let data = lab.lab.world.folder().join("data");
    let (ok, story, complaint) = process::run(&["explain", decision, "--data", data.to_str().unwrap()]);
    assert!(ok && story.contains("restart-instance"), "{story}{complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_callers_at_once_in_one_server_each_get_their_own_and_many_questions_are_one() {
    let lab = Arc::new(AwsLab::start().await);
    let [first, second] = lab.stand_in.instances.clone();
    let (alice, bob) = (lab.restart_token("alice", &first).await, lab.restart_token("bob", &second).await);
    let mut asking = Vec::new();
    for at in 0..60 {
        let (lab, one) = (
            Arc::clone(&lab),
            if at % 2 == 0 { (alice.clone(), first.clone()) } else { (bob.clone(), second.clone()) },
        );
        asking.push(tokio::spawn(async move { lab.session(&one.0, &instance(&one.1)).await }));
    }
    let mut given = Vec::new();
    for one in asking {
        given.push(granted(&one.await.unwrap()));
    }
    let (of_alice, of_bob) = (&given[0], &given[1]);
    for (at, one) in given.iter().enumerate() {
        assert_eq!(one, &given[at % 2], "who asks again gets what it got");
    }
    assert_ne!(of_alice["AccessKeyId"], of_bob["AccessKeyId"]);
    let sessions = lab.sessions().await;
    assert_eq!(sessions.len(), 2, "sixty questions are two of STS");
    let whose: Vec<_> =
        sessions.iter().map(|session| (&session["source_identity"], &session["access_key"])).collect();
    for (who, keys) in [("alice", of_alice), ("bob", of_bob)] {
        assert!(whose.contains(&(&json!(who), &keys["AccessKeyId"])), "{whose:?}");
    }
    assert_eq!(restart(&lab, of_alice, &[&first, &second]), json!(["ok", DENIED]));
    assert_eq!(restart(&lab, of_bob, &[&first, &second]), json!([DENIED, "ok"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_audience_gets_them_for_its_call_while_the_token_stands() {
    let lab = AwsLab::start().await;
    let [first, second] = lab.stand_in.instances.clone();
    let token = lab.restart_token("alice", &first).await;
    let ask = |client: &str, token: &str, arguments: &Value| lab.ask(client, token, arguments);
    let named = |template: &str| {
        let mut asked = ask("ops", &token, &instance(&first));
        asked.set("template", template);
        asked
    };
    let mut other_type = ask("ops", &token, &instance(&first));
    other_type.set("subject_token_type", "urn:ietf:params:oauth:token-type:jwt");
    let mut unauthenticated = ask("ops", &token, &instance(&first));
    unauthenticated.remove("client_assertion");
    let mut steered = ask("ops", &token, &instance(&first));
    steered.set("request_state", "\"state\"");
    let mut twice = ask("ops", &token, &instance(&first));
    twice.set("arguments", &format!("{{\"instance_id\":\"{second}\",\"instance_id\":\"{first}\"}}"));
    let mut silent = ask("ops", &token, &instance(&first));
    silent.remove("arguments");
    let mut for_any = lab.lab.for_client("desk", &Key::es256()).await;
    for_any.set("subject_token", &lab.lab.world.user_token("alice")).tool(OPS, "restart_instance");
    let for_any = deputize_conformance::world::token_of(&lab.lab.send(&for_any).await);
    let counting = lab.token("alice", "count_instances", &instance(&first)).await;
    let forged = Key::es256().token("at+jwt", &claims(&token));
    let user = lab.lab.world.user_token("alice");
    for (what, asked, status, code) in [
        ("another server", ask("crm", &token, &instance(&first)), 400, "invalid_request"),
        (
            "the agent platform that got the token",
            ask("desk", &token, &instance(&first)),
            400,
            "invalid_request",
        ),
        ("another tenant", ask("globex-desk", &token, &instance(&first)), 400, "invalid_request"),
        ("a disabled client", ask("retired", &token, &instance(&first)), 401, "invalid_client"),
        ("nobody", unauthenticated, 401, "invalid_client"),
        ("another instance", ask("ops", &token, &instance(&second)), 400, "invalid_authorization_details"),
        (
            "an argument more",
            ask("ops", &token, &json!({ "instance_id": first, "force": true })),
            400,
            "invalid_authorization_details",
        ),
        ("an argument twice", twice, 400, "invalid_request"),
        ("no arguments", silent, 400, "invalid_request"),
        ("state that was not there", steered, 400, "invalid_authorization_details"),
        ("another type of token", other_type, 400, "invalid_request"),
        ("a forged token", ask("ops", &forged, &instance(&first)), 400, "invalid_request"),
        ("the user's own token", ask("ops", &user, &instance(&first)), 400, "invalid_request"),
        (
            "a token for any call of the tool",
            ask("ops", &for_any, &instance(&first)),
            400,
            "invalid_authorization_details",
        ),
        ("a tool that has no template", ask("ops", &counting, &instance(&first)), 400, "access_denied"),
        ("another template", named("read-report"), 400, "access_denied"),
        ("a template that is none", named("nothing"), 400, "access_denied"),
    ] {
        let answer = lab.send(&asked).await;
        refused(&answer, status, code, what);
    }
    assert_eq!(lab.stand_in.outcomes().await, Vec::<String>::new(), "AWS never heard of it");

    let first_given = granted(&lab.session(&token, &instance(&first)).await);
    let revoked =
        lab.lab.world.order("POST", "/admin/revocations", &json!({ "token": claims(&token)["jti"] })).await;
    assert_eq!(revoked.status, 200, "{revoked:?}");
    refused(&lab.credentials(&token, &instance(&first)).await, 400, "invalid_request", "after revocation");
    assert_eq!(lab.sessions().await.len(), 1);
    assert!(first_given["AccessKeyId"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_wider_than_its_kind_is_refused_and_never_repaired() {
    let lab = AwsLab::start().await;
    let long = format!("{}/", "p".repeat(40));
    for (tool, argument, value) in [
        ("restart_instance", "instance_id", "*"),
        ("restart_instance", "instance_id", "i-0123456789abcdef?"),
        ("restart_instance", "instance_id", "i-0123456789abcdef0*"),
        ("restart_instance", "instance_id", "i-0123456789abcdef0\n"),
        ("restart_instance", "instance_id", "i-0123456789abcdef0\""),
        ("restart_instance", "instance_id", "${aws:userid}"),
        ("restart_instance", "instance_id", "i-0123456789аbcdef0"),
        (
            "restart_instance",
            "instance_id",
            "arn:aws:ec2:eu-central-1:444455556666:instance/i-0123456789abcdef0",
        ),
        ("read_report", "prefix", "acme/../globex/"),
        ("read_report", "prefix", "acme"),
        ("read_report", "prefix", "*/"),
        ("read_report", "prefix", "acme/${*}/"),
        ("read_report", "prefix", ""),
        ("read_report", "prefix", &long),
    ] {
        let arguments = json!({ argument: value });
        let token = lab.token("alice", tool, &arguments).await;
        let answer = lab.credentials(&token, &arguments).await;
        refused(&answer, 400, "access_denied", &format!("{argument} = {value:?}"));
    }
    let [first, _] = lab.stand_in.instances.clone();
    for user in ["alice smith", "älice", "a"] {
        let token = lab.restart_token(user, &first).await;
        let answer = lab.credentials(&token, &instance(&first)).await;
        refused(&answer, 400, "access_denied", user);
    }
    assert_eq!(lab.stand_in.outcomes().await, Vec::<String>::new(), "AWS never heard of it");
    let arguments = json!({ "prefix": "acme/2026/" });
    let token = lab.token("alice", "read_report", &arguments).await;
    granted(&lab.session(&token, &arguments).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sts_takes_no_other_token_of_ours_and_the_web_identity_goes_nowhere_else() {
    let lab = AwsLab::start().await;
    let [first, _] = lab.stand_in.instances.clone();
    let token = lab.restart_token("alice", &first).await;
    let base = lab.lab.world.base.clone();
    let web_identity = format!("{base}/web-identity");
    let form = |token: &str| {
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &role_arn("restart-instance")),
            ("RoleSessionName", "thief"),
            ("WebIdentityToken", token),
        ];
        form.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    // A role as careless as can be: it trusts whatever these issuers sign, whoever it is about.
    for issuer in [base.clone(), format!("{base}/spiffe"), web_identity.clone()] {
        lab.stand_in.register(&issuer, &["sts.amazonaws.com", OPS, "https://other.test"]).await;
    }
    // The Workload API mints none for an audience of a cloud; whatever else it mints is of another issuer.
    let refused = lab.jwt_svid("sts.amazonaws.com").unwrap_err();
    assert!(refused.contains("audience_of_a_cloud"), "{refused}");
    let real_svid = lab.jwt_svid("https://other.test").unwrap();
    let jwt_svid = |issuer: &str, key: &Key| {
        key.token(
            "JWT",
            &json!({ "iss": issuer, "sub": "template:acme:restart-instance", "aud": "sts.amazonaws.com",
            "iat": now(), "exp": now() + 60, "jti": unique() }),
        )
    };
    let stranger = Key::es256();
    for (what, token) in [
        ("a tool-call token", token.clone()),
        ("a JWT-SVID of ours", real_svid),
        ("a stranger's JWT-SVID of another issuer of ours", jwt_svid(&format!("{base}/spiffe"), &stranger)),
        ("a stranger's JWT-SVID in the name of the web identity", jwt_svid(&web_identity, &stranger)),
        ("a web identity of the client's key", jwt_svid(&web_identity, &lab.lab.world.client_keys["ops"])),
        ("the user's token", lab.lab.world.user_token("alice")),
    ] {
        let answer = lab.stand_in.ask(&form(&token)).await;
        assert!(
            ["InvalidIdentityToken", "IDPCommunicationError", "AccessDenied"].contains(&answer.code.as_str()),
            "{what}: {}",
            answer.body
        );
    }
    assert!(lab.sessions().await.is_empty());

    let given = granted(&lab.session(&token, &instance(&first)).await);
    let seen = format!(
        "{given}{}{:?}",
        lab.lab.started.process.said(),
        lab.on_record(given["decision_id"].as_str().unwrap()).await
    );
    assert!(!seen.contains("eyJ"), "no token stands in an answer, a record or a log");
    // And the keys of the one are not among the keys of the other.
    let keys = async |path: &str| {
        let answer = lab.lab.world.door.send(&deputize_conformance::wire::Request::get(path)).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        let keys = answer.json()["keys"].as_array().unwrap().clone();
        keys.iter().map(|key| key["x"].to_string() + &key["kid"].to_string()).collect::<Vec<_>>()
    };
    let (calls, identities) = (keys("/jwks").await, keys("/web-identity/jwks").await);
    assert!(
        !identities.is_empty() && identities.iter().all(|key| !calls.contains(key)),
        "{calls:?} {identities:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sts_that_is_ill_is_a_typed_refusal_without_credentials() {
    let lab = AwsLab::start().await;
    let [first, _] = lab.stand_in.instances.clone();
    for (kind, status, code, reason) in [
        ("throttle", 503, "temporarily_unavailable", "sts_throttled"),
        ("rubbish", 502, "server_error", "sts_unintelligible"),
        ("deny", 502, "server_error", "sts_access_denied"),
        ("region", 502, "server_error", "sts_region_disabled"),
        ("claim", 502, "server_error", "sts_idp_rejected_claim"),
        ("hang", 503, "temporarily_unavailable", "sts_timeout"),
    ] {
        lab.stand_in.ill(kind, 100).await;
        let token = lab.restart_token("alice", &first).await;
        let answer = lab.credentials(&token, &instance(&first)).await;
        refused(&answer, status, code, kind);
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{kind}: {answer:?}");
        let decision = answer.json()["decision_id"].as_str().unwrap().to_owned();
        let entries = lab.on_record(&decision).await;
        let outcome =
            entries.iter().find(|entry| entry["kind"] == "outcome").unwrap_or_else(|| panic!("{entries:?}"));
        assert!(outcome.to_string().contains(reason), "{kind}: {outcome}");
        assert!(outcome.to_string().contains("failed"), "{kind}: {outcome}");

        lab.stand_in.ill(kind, 0).await;
        let mut answer = lab.credentials(&token, &instance(&first)).await;
        for _ in 0..100 {
            if answer.status == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = lab.credentials(&token, &instance(&first)).await;
        }
        granted(&answer);
    }
    assert_eq!(lab.sessions().await.len(), 6, "once it is well each call gets its session, and one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_while_sts_is_ill_is_none_at_sts() {
    let lab = Arc::new(AwsLab::start().await);
    let [first, _] = lab.stand_in.instances.clone();
    let token = lab.restart_token("alice", &first).await;
    lab.stand_in.ill("throttle", 1000).await;
    let before = now();
    let mut asking = Vec::new();
    for _ in 0..40 {
        let (lab, token, first) = (Arc::clone(&lab), token.clone(), first.clone());
        asking.push(tokio::spawn(async move { lab.credentials(&token, &instance(&first)).await }));
    }
    for one in asking {
        refused(&one.await.unwrap(), 503, "temporarily_unavailable", "throttled");
    }
    let asked = lab.stand_in.outcomes().await.len();
    let seconds = usize::try_from(now() - before).unwrap() + 1;
    assert!(asked <= TRIES * seconds, "{asked} questions in {seconds} seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_has_one_window() {
    let lab = AwsLab::start().await;
    let [first, _] = lab.stand_in.instances.clone();
    let token = lab.token("alice", "restart_soon", &instance(&first)).await;
    let given = granted(&lab.session(&token, &instance(&first)).await);
    let mut answer = lab.credentials(&token, &instance(&first)).await;
    for _ in 0..100 {
        if answer.status != 200 {
            break;
        }
        assert_eq!(answer.json(), given, "until the window ends it is the same");
        tokio::time::sleep(Duration::from_millis(500)).await;
        answer = lab.credentials(&token, &instance(&first)).await;
    }
    let code = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(["access_denied", "invalid_request"].contains(&code.as_str()), "{answer:?}");
    assert_eq!(lab.sessions().await.len(), 1, "no second session for one call");
    assert_eq!(
        restart(&lab, &given, &[&first]),
        json!([DENIED]),
        "neither gate nor emulator was told another time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_that_would_reach_further_are_not_loaded() {
    let lab = AwsLab::start().await;
    let folder = lab.lab.world.folder().to_owned();
    let config = lab.lab.world.config();
    let lint = |what: &str, template: &Value, says: &str| {
        let file = folder.join("templates/more.json");
        std::fs::write(&file, template.to_string()).unwrap();
        let (ok, out, err) = process::run(&["lint", "--config", config.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        assert!(!ok && format!("{out}{err}").contains(says), "{what}: {out}{err}");
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut template = restart_instance(300);
        template["name"] = json!("more");
        template["match"]["tool"] = json!("count_instances");
        change(&mut template);
        template
    };
    lint(
        "two for one call",
        &changed(&|it| it["match"]["tool"] = json!("restart_instance")),
        "one call could match",
    );
    lint(
        "an account that is not listed",
        &changed(&|it| {
            it["aws"]["account"] = json!("444455556666");
            it["aws"]["role_arn"] = json!("arn:aws:iam::444455556666:role/deputize/more");
            it["ceiling"]["resources"] = json!([format!("arn:aws:ec2:{REGION}:444455556666:instance/i-*")]);
        }),
        "aws.accounts",
    );
    lint(
        "beyond its ceiling",
        &changed(&|it| {
            it["ceiling"]["resources"] = json!([format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0*")]);
        }),
        "ceiling",
    );
    let tags = |keys: &[String]| {
        changed(&|it| {
            it["tags"] = keys.iter().map(|key| (key.clone(), json!([{ "fact": "tool" }]))).collect();
        })
    };
    lint("too many tags", &tags(&(0..51).map(|n| format!("tag{n}")).collect::<Vec<_>>()), "50");
    lint("tag keys equal but for case", &tags(&["tool".to_owned(), "Tool".to_owned()]), "case");
    lint(
        "a policy that could be too long",
        &changed(&|it| {
            it["params"]["more"] =
                json!({ "from": { "argument": "/instance_id" }, "type": "s3_key", "max_length": 900 });
            it["statements"].as_array_mut().unwrap().push(json!({ "actions": ["s3:GetObject"],
            "resources": [{ "service": "s3", "parts": [{ "literal": "b/" }, { "param": "more" }] }] }));
            it["ceiling"]["actions"].as_array_mut().unwrap().push(json!("s3:GetObject"));
            it["ceiling"]["resources"].as_array_mut().unwrap().push(json!("arn:aws:s3:::b/*"));
        }),
        "2048",
    );
    lint("a session name of its own", &changed(&|it| it["session_name"] = json!("everybody")), "everybody");
    lint("a wildcard action", &changed(&|it| it["statements"][0]["actions"] = json!(["ec2:*"])), "ec2:*");
    let (ok, out, err) = process::run(&["lint", "--config", config.to_str().unwrap()]);
    assert!(ok, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn awss_own_clients_take_them_from_a_process() {
    let lab = Arc::new(AwsLab::start().await);
    let [first, second] = lab.stand_in.instances.clone();
    let folder = lab.lab.world.folder().to_owned();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    deputize_conformance::trust::write_private(
        Path::new(&path("ops.jwk")),
        &lab.lab.world.client_keys["ops"].private_jwk().to_string(),
    );
    let process = |token: &str, arguments: &Value| {
        deputize_conformance::trust::write_private(Path::new(&path("call.jwt")), token);
        std::fs::write(path("arguments.json"), arguments.to_string()).unwrap();
        let line = format!(
            "{} aws creds --issuer {} --client-id ops --key-file {} --token-file {} --arguments-file {} --ca-file {}",
            process::binary().display(),
            lab.lab.world.base,
            path("ops.jwk"),
            path("call.jwt"),
            path("arguments.json"),
            path("ca.pem"),
        );
        let config = format!("[default]\nregion = {REGION}\ncredential_process = {line}\n");
        std::fs::write(path("aws-config"), config).unwrap();
    };
    let configured = |program: &Path| {
        let mut command = lab.stand_in.program(program);
        command.env("AWS_CONFIG_FILE", path("aws-config"));
        command
    };
    let script = python_program("restart.py");
    let (mine, other) = (first.as_str(), second.as_str());
    for (made, (what, program, arguments)) in [
        ("boto3", python(), vec![script.to_str().unwrap(), "3", mine, other]),
        ("Go", go_program(), vec!["3", mine, other]),
        ("the AWS CLI", aws_cli(), vec!["ec2", "reboot-instances", "--instance-ids", mine]),
    ]
    .into_iter()
    .enumerate()
    {
        process(&lab.restart_token("alice", &first).await, &instance(&first));
        let ran = told(configured(&program).args(&arguments)).await;
        if what == "the AWS CLI" {
            assert_eq!(ran, json!(null), "{ran}");
        } else {
            assert_eq!(ran["restarts"], json!(["ok", DENIED].repeat(3)), "{what}: {ran}");
        }
        assert_eq!(lab.sessions().await.len(), made + 1, "{what}: STS is asked once");
    }
    let arguments = json!({ "prefix": "acme/2026/" });
    process(&lab.token("alice", "read_report", &arguments).await, &arguments);
    let ran =
        told(configured(&node()).current_dir(npm()).args(["aws.mjs", "3", BUCKET, "acme/2026/june.txt"]))
            .await;
    assert_eq!(ran["read"], json!(["june of acme"].repeat(3)), "JavaScript: {ran}");
    assert_eq!(lab.sessions().await.len(), 4);
}

/// boto3 with these credentials tries to restart these instances.
fn restart(lab: &AwsLab, given: &Value, instances: &[&str]) -> Value {
    let member = |name: &str| given[name].as_str().unwrap();
    let ran = lab
        .stand_in
        .program(&python())
        .env("AWS_ACCESS_KEY_ID", member("AccessKeyId"))
        .env("AWS_SECRET_ACCESS_KEY", member("SecretAccessKey"))
        .env("AWS_SESSION_TOKEN", member("SessionToken"))
        .arg(python_program("restart.py"))
        .arg("1")
        .args(instances)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    said["restarts"].clone()
}

fn granted(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

fn refused(answer: &Response, status: u16, code: &str, what: &str) {
    let said = String::from_utf8_lossy(&answer.body);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(code)), "{what}: {said}");
    for member in ["AccessKeyId", "SecretAccessKey", "SessionToken"] {
        assert!(!said.contains(member), "{what}");
    }
}

fn instance(id: &str) -> Value {
    json!({ "instance_id": id })
}

const DENIED: &str = "UnauthorizedOperation";
/// How often STS is asked for one question at most, which is in two attempts, and again for the next a second later.
const TRIES: usize = 2;
