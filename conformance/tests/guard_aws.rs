//! AWS credentials of calls through `deputize guard --aws-credentials`, and `deputize aws creds`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use deputize_conformance::{
    aws_lab::{go_program, python_program},
    forge::Key,
    guarded_aws::GuardedAws,
    handing_over::{Handed, HandingOver},
    node::{node, npm},
    own_clients::node_folder,
    process::binary,
    stand_in::{BUCKET, aws_cli, python, told},
    trust::write_private,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::Ordering,
};
use url::form_urlencoded;

/// What was asked of the broker, form by form.
fn asked(all: &HandingOver) -> Vec<BTreeMap<String, String>> {
    let forms = all.impostor.aws.forms.lock().unwrap();
    forms.iter().map(|form| form_urlencoded::parse(form.as_bytes()).into_owned().collect()).collect()
}

#[tokio::test]
async fn a_call_finds_its_credentials_and_nobody_elses_while_it_runs() {
    let all = HandingOver::start().await;
    let (one, two) = (all.call().await, all.call().await);
    assert!(one.handed.uri.starts_with("http://127.0.0.1:") && !one.handed.head.contains("forged"));
    assert!(asked(&all).is_empty(), "nothing is asked before it is wanted");
    let [first, again] = [one.handed.ask().await, one.handed.ask().await];
    assert_eq!((first.status, first.json()), (200, again.json()), "{first:?}");
    let expected = json!({ "AccessKeyId": "ASIA1", "SecretAccessKey": "canary-secret",
        "Token": "canary-token".repeat(80), "Expiration": "2099-01-01T00:00:00Z", "AccountId": "111122223333" });
    assert_eq!(first.json(), expected);
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let form = asked(&all).pop().unwrap();
    assert_eq!(
        (form["subject_token"].as_str(), form["arguments"].as_str()),
        (one.token.as_str(), r#"{"text":"hello"}"#)
    );
    assert_eq!(form["client_id"], "crm");

    assert_eq!(one.handed.ask_with(&two.handed.authorization).await.status, 404, "another call's secret");
    assert_eq!(two.handed.ask().await.json()["AccessKeyId"], "ASIA2", "its own");
    assert_eq!(asked(&all).len(), 2);

    let (answer, past) = one.end().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(past.ask().await.status, 404, "the call is over");
    assert_eq!(two.handed.ask().await.status, 200, "the other is not");
    // Its caller goes away.
    two.client.abort();
    let mut status = 200;
    for _ in 0..2000 {
        status = two.handed.ask().await.status;
        if status == 404 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(status, 404);
    let said = all.process.said();
    for secret in ["canary", &past.authorization, &past.uri] {
        assert!(!said.contains(secret), "{secret} in the log: {said}");
    }
}

/// One of AWS's own programs, or one that uses AWS's library: knowing nothing of Deputize.
struct Ordinary<'a> {
    program: PathBuf,
    arguments: Vec<&'a str>,
    /// The call that it runs in.
    call: (&'a str, Value),
    /// What it prints.
    prints: Value,
}

impl Ordinary<'_> {
    fn command(&self, all: &GuardedAws, handed: &Handed) -> Command {
        let mut command = all.program(&self.program, handed);
        command.current_dir(npm()).args(&self.arguments);
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn awss_own_clients_take_them_at_the_address_of_their_call_while_it_runs() {
    let all = GuardedAws::start().await;
    let [mine, other] = &all.aws.stand_in.instances;
    let (script, restart) = (python_program("restart.py"), ("restart_instance", instance(mine)));
    let answers = json!({ "restarts": (["ok", DENIED].repeat(3)) });
    let programs = [
        Ordinary {
            program: python(),
            arguments: vec![script.to_str().unwrap(), "3", mine, other],
            call: restart.clone(),
            prints: answers.clone(),
        },
        Ordinary {
            program: go_program(),
            arguments: vec!["3", mine, other],
            call: restart.clone(),
            prints: answers,
        },
        Ordinary {
            program: node(),
            arguments: vec!["aws.mjs", "3", BUCKET, "acme/2026/june.txt", "globex/2026/june.txt"],
            call: ("read_report", json!({ "prefix": "acme/2026/" })),
            prints: json!({ "read": (["june of acme", "AccessDenied"].repeat(3)) }),
        },
        Ordinary {
            program: aws_cli(),
            arguments: vec!["ec2", "reboot-instances", "--instance-ids", mine],
            call: restart,
            prints: Value::Null,
        },
    ];
    for (made, program) in programs.iter().enumerate() {
        let (tool, arguments) = &program.call;
        let what = program.program.display();
        let call = all.call(tool, arguments).await;
        let mut ran = told(&mut program.command(&all, &call.handed)).await;
        if let Some(arn) = ran.as_object_mut().and_then(|ran| ran.remove("arn")) {
            assert!(arn.as_str().unwrap().contains(":assumed-role/"), "{what}: {arn}");
        }
        assert_eq!(ran, program.prints, "{what}");
        if program.prints.is_null() {
            let mut elsewhere = all.program(&program.program, &call.handed);
            let denied = told(elsewhere.args(["ec2", "reboot-instances", "--instance-ids", other])).await;
            assert!(denied["failed"].as_str().unwrap().contains(DENIED), "{denied}");
        }

        let (answer, past) = call.end().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(past.ask().await.status, 404, "{what}: the call is over");
        // However often it asked the guard meanwhile: with five minutes left AWS's libraries look for newer ones.
        assert_eq!(all.aws.sessions().await.len(), made + 1, "{what}: STS is asked once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_on_after_its_call_is_given_nothing_more() {
    let all = GuardedAws::start().await;
    let [mine, _] = &all.aws.stand_in.instances;
    let call = all.call("restart_instance", &instance(mine)).await;
    let mut boto3 = all.program(&python(), &call.handed);
    boto3.arg(python_program("restart_again.py")).arg(mine);
    let mut boto3 = Asked::start(&mut boto3);
    assert_eq!([boto3.again(), boto3.again()], ["ok", "ok"], "it looks for newer credentials each time");
    let (_, past) = call.end().await;
    assert_eq!(past.ask().await.status, 404);
    assert_eq!(boto3.again(), "CredentialRetrievalError");
    assert_eq!(all.aws.sessions().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_shows_to_servers_runs_as_it_stands() {
    let all = GuardedAws::start().await;
    let [mine, _] = &all.aws.stand_in.instances;
    let (node_folder, scripts) = (node_folder(), tempfile::tempdir().unwrap());
    let script = |name: &str, text: String| {
        let file = if name.ends_with("mjs") { node_folder.path() } else { scripts.path() }.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let of_python = script("shown.py", shown("python") + PYTHON);
    let of_javascript = script("shown.mjs", shown("js") + JAVASCRIPT);
    let go = include_str!("../go/handed.go");
    let shown_in_go = shown("go");
    let (function, _) = shown_in_go.split_once("// in a handler").unwrap();
    assert!(go.contains(function.trim()), "conformance/go/handed.go is what the page shows");
    for (made, name) in ["boto3", "JavaScript", "Go", "the AWS CLI"].into_iter().enumerate() {
        let call = all.call("restart_instance", &instance(mine)).await;
        let (uri, secret) = (&call.handed.uri, &call.handed.authorization);
        let program = |program: PathBuf| all.aws.stand_in.program(&program);
        let answer = match name {
            "boto3" => told(program(python()).arg(&of_python).args([uri, secret, mine])).await,
            "JavaScript" => told(program(node()).arg(&of_javascript).args([uri, secret, mine])).await,
            "Go" => {
                let mut go = program(go_program());
                go.env("HANDED_URI", uri).env("HANDED_AUTHORIZATION", secret);
                told(go.args(["1", mine])).await["restarts"].clone()
            }
            _ => {
                let path =
                    format!("{}:{}", aws_cli().parent().unwrap().display(), std::env::var("PATH").unwrap());
                let mut shell = program("sh".into());
                shell.env("PATH", path).env("uri", uri).env("secret", secret).env("id", mine);
                told(shell.arg("-c").arg(shown("sh"))).await
            }
        };
        let expected = match name {
            "the AWS CLI" => Value::Null,
            _ => json!(["ok"]),
        };
        assert_eq!(answer, expected, "{name}");
        assert_eq!(all.aws.sessions().await.len(), made + 1, "{name}");
        call.end().await;
    }
}

/// What docs/aws.md shows in this language to servers behind a guard.
fn shown(language: &str) -> String {
    let page = include_str!("../../docs/aws.md");
    let (_, section) = page.split_once("## Getting them into your server").unwrap();
    let (_, section) = section.split_once("Give them to the one SDK client of this call").unwrap();
    let (_, code) = section.split_once(&format!("```{language}\n")).unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

/// A program that does one thing for each line that it is given.
struct Asked(Child, BufReader<std::process::ChildStdout>);

impl Asked {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    fn again(&mut self) -> String {
        let mut answer = String::new();
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        tokio::task::block_in_place(|| self.1.read_line(&mut answer)).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The end of its stdin is the end of it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn instance(id: &str) -> Value {
    json!({ "instance_id": id })
}

fn creds(handed: &Handed, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["aws", "creds"]).args(arguments).env_clear();
    if arguments.is_empty() {
        command.env("DEPUTIZE_AWS_CREDENTIALS_URI", &handed.uri);
        command.env("DEPUTIZE_AWS_AUTHORIZATION", &handed.authorization);
    }
    tokio::task::block_in_place(|| command.output().unwrap())
}

/// Exit code, and what stands on stdout and on stderr.
fn ended(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_prints_what_a_credential_process_has_to_and_nothing_else() {
    let all = HandingOver::start().await;
    let under_way = all.call().await;
    let (code, printed, complaint) = ended(&creds(&under_way.handed, &[]));
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let expected = json!({ "Version": 1, "AccessKeyId": "ASIA1", "SecretAccessKey": "canary-secret",
        "SessionToken": "canary-token".repeat(80), "Expiration": "2099-01-01T00:00:00Z",
        "AccountId": "111122223333" });
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), expected);
    let place = |name: &str| all.folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(place("secret"), &under_way.handed.authorization).unwrap();
    let flags = ["--uri", &under_way.handed.uri, "--authorization-file", &place("secret")];
    assert_eq!(ended(&creds(&under_way.handed, &flags)), (Some(0), printed, String::new()));

    // As the server itself.
    write_private(&all.folder.path().join("crm.jwk"), &Key::es256().private_jwk().to_string());
    std::fs::write(place("token"), &under_way.token).unwrap();
    std::fs::write(place("arguments"), r#"{"text": "hello"}"#).unwrap();
    let direct = [
        "--issuer",
        &all.impostor.issuer,
        "--client-id",
        "crm",
        "--key-file",
        &place("crm.jwk"),
        "--token-file",
        &place("token"),
        "--arguments-file",
        &place("arguments"),
        "--template",
        "restart",
    ];
    let (code, printed, complaint) = ended(&creds(&under_way.handed, &direct));
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(printed.contains(r#""AccessKeyId":"ASIA2""#), "{printed}");
    let form = asked(&all).pop().unwrap();
    assert_eq!((&form["subject_token"], form["template"].as_str()), (&under_way.token, "restart"));

    all.impostor.aws.refuses.store(true, Ordering::SeqCst);
    let (code, printed, complaint) = ended(&creds(&under_way.handed, &direct));
    assert_eq!((code, printed.as_str()), (Some(3), ""));
    assert!(
        complaint.contains("no role template") && complaint.contains("deputize explain dec-1"),
        "{complaint}"
    );
    let other = all.call().await;
    let (code, printed, complaint) = ended(&creds(&other.handed, &[]));
    assert!(code == Some(3) && printed.is_empty() && complaint.contains("no role template"), "{complaint}");

    let (_, past) = under_way.end().await;
    let (code, printed, complaint) = ended(&creds(&past, &[]));
    assert!(code == Some(3) && printed.is_empty() && complaint.contains("the call is over"), "{complaint}");
    assert_eq!(ended(&creds(&past, &["--show"])).0, Some(2), "nothing says where they are");
    assert_eq!(ended(&creds(&past, &["--uri", &past.uri])).0, Some(2));
    all.process.kill();
    assert_eq!(ended(&creds(&past, &[])).0, Some(6));
}

/// A handler around what is shown. Arguments: address, secret, an instance.
const PYTHON: &str = r#"
import json, sys
headers = {"deputize-aws-credentials-uri": sys.argv[1], "deputize-aws-authorization": sys.argv[2]}
session(headers, "eu-central-1").client("ec2").reboot_instances(InstanceIds=[sys.argv[3]])
print(json.dumps(["ok"]))
"#;
/// The same.
const JAVASCRIPT: &str = r#"
import { RebootInstancesCommand } from "@aws-sdk/client-ec2";
const [uri, secret, instance] = process.argv.slice(2);
const headers = { "deputize-aws-credentials-uri": uri, "deputize-aws-authorization": secret };
const request = { get: (name) => headers[name] };
await ec2(request).send(new RebootInstancesCommand({ InstanceIds: [instance] }));
console.log(JSON.stringify(["ok"]));
"#;
const DENIED: &str = "UnauthorizedOperation";
