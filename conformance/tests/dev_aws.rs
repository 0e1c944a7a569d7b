//! AWS as `deputize dev` has it, used by AWS's own programs: they get their credentials through the whole line, do what the
//! one call may do, and what they did leads back to it.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected should stop there")]

use deputize_conformance::{
    dev::Dev,
    process::binary,
    stand_in::{aws_cli, python},
    wire::{Endpoint, Request},
};
use serde_json::{Value, json};
use std::process::{Command, Output};
use url::Url;

/// The environment in which every SDK finds what the ready file says, and nothing else.
fn told(dev: &Dev, mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", dev.place("home"));
    for (name, pointer) in [
        ("AWS_ENDPOINT_URL", "/aws/endpoint_url"),
        ("AWS_REGION", "/aws/region"),
        ("AWS_DEFAULT_REGION", "/aws/region"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "/aws/container_credentials_full_uri"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "/aws/authorization_token"),
    ] {
        command.env(name, dev.text(pointer));
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_MAX_ATTEMPTS", "1");
    command
}

fn aws(dev: &Dev, arguments: &[&str]) -> Output {
    let mut command = told(dev, Command::new(aws_cli()));
    command.args(arguments).args(["--output", "json"]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn get(url: &str, authorization: &str) -> (u16, Value) {
    let url: Url = url.parse().unwrap();
    let mut request = Request::get(url.path());
    request.headers.push(("authorization".to_owned(), authorization.to_owned()));
    let response = Endpoint::new(&url, None).send(&request).await.unwrap();
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

#[tokio::test]
async fn the_aws_cli_restarts_the_instance_of_the_call_and_no_other() {
    let dev = Dev::start().await;
    let identity = aws(&dev, &["sts", "get-caller-identity"]);
    assert!(identity.status.success(), "{}", text(&identity.stderr));
    let identity: Value = serde_json::from_slice(&identity.stdout).unwrap();
    let arn = identity["Arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:sts::111122223333:assumed-role/restart-instance/"), "{arn}");

    let restart = |n: usize| {
        let id = dev.text(&format!("/aws/instances/{n}"));
        aws(&dev, &["ec2", "reboot-instances", "--instance-ids", id])
    };
    let (own, other) = (restart(0), restart(1));
    assert!(own.status.success(), "{}", text(&own.stderr));
    assert!(!other.status.success() && text(&other.stderr).contains("UnauthorizedOperation"), "{other:?}");
    let all = aws(&dev, &["ec2", "describe-instances"]);
    assert!(!all.status.success() && text(&all.stderr).contains("UnauthorizedOperation"), "{all:?}");

    let (_, trail) = get(dev.text("/aws/cloudtrail_url"), "").await;
    let file = dev.place("trail.json");
    std::fs::write(&file, trail.to_string()).unwrap();
    let data = dev.data();
    let query = Command::new(binary())
        .args(["audit", "query", "-o", "json", "--data", data.to_str().unwrap()])
        .args(["--cloudtrail", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(query.status.success(), "{}", text(&query.stderr));
    let story: Value = serde_json::from_slice(&query.stdout).unwrap();
    assert!(arn.ends_with(story["session"].as_str().unwrap()), "one session served all calls: {story}");
    assert_eq!((&story["call"]["tool"], &story["doubts"]), (&json!("restart_instance"), &json!([])));
    assert!(story["user"].as_str().unwrap().ends_with(":alice"), "{story}");
    let outcomes: Vec<_> = story["cloudtrail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["action"].as_str().unwrap(), event["error"].as_str().unwrap_or("allowed")))
        .collect();
    assert!(outcomes.contains(&("ec2:RebootInstances", "allowed")), "{outcomes:?}");
    assert!(outcomes.contains(&("ec2:RebootInstances", "Client.UnauthorizedOperation")), "{outcomes:?}");
}

#[tokio::test]
async fn boto3_takes_the_same_credentials_for_every_request_of_the_window() {
    let dev = Dev::start().await;
    let script = r#"
import boto3, sys
from botocore.exceptions import ClientError
own, other = sys.argv[1:]
ec2 = boto3.client("ec2")
for _ in range(3):
    ec2.reboot_instances(InstanceIds=[own])
print(boto3.client("sts").get_caller_identity()["Arn"])
for call in (lambda: ec2.reboot_instances(InstanceIds=[other]),
             lambda: ec2.reboot_instances(InstanceIds=[own, other]),
             lambda: boto3.client("dynamodb").get_item(TableName="deployments", Key={"service": {"S": "checkout"}})):
    try:
        call()
        sys.exit("allowed")
    except ClientError as error:
        print(error.response["Error"]["Code"])
"#;
    let mut program = told(&dev, Command::new(python()));
    program.args(["-c", script, dev.text("/aws/instances/0"), dev.text("/aws/instances/1")]);
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains(":assumed-role/restart-instance/"), "{said}");
    assert_eq!(lines[1..], ["UnauthorizedOperation", "UnauthorizedOperation", "AccessDeniedException"]);

    let url = dev.text("/aws/container_credentials_full_uri");
    let (status, first) = get(url, dev.text("/aws/authorization_token")).await;
    let (_, second) = get(url, dev.text("/aws/authorization_token")).await;
    assert_eq!((status, first["Token"].is_string()), (200, true));
    assert_eq!(first, second, "made anew only when the window is nearly over");
    for wrong in ["", "guessed", dev.text("/user_tokens/alice")] {
        assert_eq!(get(url, wrong).await, (401, Value::Null), "{wrong}");
    }
}
