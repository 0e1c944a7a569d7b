//! The stand-in for AWS: STS that verifies what STS verifies, and EC2, S3 and DynamoDB behind it (`conformance/aws`).

use crate::{
    live_guard::free_port,
    trust::Authority,
    wire::{Endpoint, Request, Response},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A running stand-in, with an account in it. It ends with this value.
pub struct StandIn {
    /// STS: `https://localhost:PORT`.
    pub sts: String,
    /// All services at one address, for AWS's own programs.
    pub endpoint: String,
    /// The emulator without what stands before it.
    pub emulator: String,
    /// The two instances of the account.
    pub instances: [String; 2],
    child: Child,
    door: Endpoint,
    steering: Endpoint,
    folder: TempDir,
}

/// What STS answered.
#[derive(Debug, PartialEq, Eq)]
pub struct StsAnswer {
    /// HTTP status.
    pub status: u16,
    /// The code of a refusal; empty where there is none.
    pub code: String,
    /// The body.
    pub body: String,
}

impl StandIn {
    /// Starts it with these roles; providers are registered later. Certificates come from this authority, which it
    /// trusts too.
    pub async fn start(authority: &Authority, roles: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("ca.pem"), authority.pem()).unwrap();
        authority.certify().write(folder.path(), "sts");
        let settings = json!({
            "account": ACCOUNT, "region": REGION, "folder": folder.path(), "emulator_port": free_port(),
            "ca_file": path("ca.pem"), "certificate": path("sts.pem"), "key": path("sts.key"),
            "skew_seconds": SKEW_SECONDS, "keys_cached_seconds": KEYS_CACHED_SECONDS, "packed_bytes": 4096,
            "providers": [], "roles": roles,
            "buckets": { BUCKET: { "acme/2026/june.txt": "june of acme", "globex/2026/june.txt": "june of globex" } },
            "tables": { "orders": "customer_id" },
        });
        std::fs::write(path("settings.json"), settings.to_string()).unwrap();
        let mut child = Command::new(python())
            .arg(programs().join("stand_in.py"))
            .arg(path("settings.json"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let stdout = child.stdout.take().unwrap();
        let ready = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            line
        });
        let ready: Value = serde_json::from_str(&ready.await.unwrap()).expect("the stand-in is ready");
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        let door = Endpoint::new(&text("sts").parse().unwrap(), Some(authority.client()));
        let steering = Endpoint::new(&text("endpoint").parse().unwrap(), None);
        let instance = |at: usize| ready["instances"][at].as_str().unwrap().to_owned();
        Self {
            sts: text("sts"),
            endpoint: text("endpoint"),
            emulator: text("emulator"),
            instances: [instance(0), instance(1)],
            child,
            door,
            steering,
            folder,
        }
    }

    /// Asks STS with this form.
    pub async fn ask(&self, form: &[(String, String)]) -> StsAnswer {
        self.say(&Request::form("/", form)).await
    }

    /// Says anything to STS.
    pub async fn say(&self, request: &Request) -> StsAnswer {
        let answer: Response = self.door.send(request).await.unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        StsAnswer { status: answer.status, code: element(&body, "Code"), body }
    }

    /// The next so many calls of STS go wrong in this way: `throttle`, `rubbish`, `hang`, `deny`, `region`, `claim`.
    pub async fn ill(&self, kind: &str, times: usize) {
        self.steer("POST", "ill", &json!({ "kind": kind, "times": times })).await;
    }

    /// Sets the time at which policies of sessions are judged to so many seconds from now.
    pub async fn set_clock(&self, offset_seconds: i64) {
        self.steer("POST", "clock", &json!({ "offset_seconds": offset_seconds })).await;
    }

    /// Registers an OIDC provider.
    pub async fn register(&self, issuer: &str, audiences: &[&str]) {
        self.steer("POST", "providers", &json!({ "url": issuer, "audiences": audiences })).await;
    }

    /// Makes a role known to STS, or known otherwise.
    pub async fn know(&self, role: &Value) {
        self.steer("POST", "roles", role).await;
    }

    /// Every call so far.
    pub async fn calls(&self) -> Vec<Value> {
        self.steer("GET", "calls", &Value::Null).await.as_array().unwrap().clone()
    }

    /// What became of every call of STS so far.
    pub async fn outcomes(&self) -> Vec<String> {
        let outcome = |call: &Value| call["outcome"].as_str().map(str::to_owned);
        self.calls().await.iter().filter_map(outcome).collect()
    }

    async fn steer(&self, method: &str, what: &str, told: &Value) -> Value {
        let mut request = Request::get(&format!("/_stand_in/{what}"));
        if method == "POST" {
            request.method = "POST".to_owned();
            request.body = told.to_string().into_bytes();
        }
        let answer = self.steering.send(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A command of AWS's own programs or of programs that use AWS's libraries, in an environment of its own that
    /// points to this account, without any credentials.
    pub fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("AWS_CONFIG_FILE", self.folder.path().join("config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", self.folder.path().join("credentials"))
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // The end of its stdin is the end of it, and of the emulator.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What a program prints as JSON; `null` where it prints nothing, and what it complains of where it fails.
pub async fn told(command: &mut Command) -> Value {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ran = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    if !ran.status.success() {
        return json!({ "failed": String::from_utf8_lossy(&ran.stderr) });
    }
    if ran.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&ran.stdout).unwrap() }
}

/// A role that trusts this provider for one subject, whose sessions carry tags and a source identity.
pub fn role(name: &str, issuer: &str, subject: &str) -> Value {
    let provider = issuer.trim_start_matches("https://");
    json!({
        "arn": role_arn(name),
        "trust": { "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": { "Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{provider}") },
            "Action": ["sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"],
            "Condition": { "StringEquals": {
                format!("{provider}:aud"): "sts.amazonaws.com", format!("{provider}:sub"): subject,
            } },
        }] },
        "policy": { "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": ["ec2:*", "s3:*", "dynamodb:*"], "Resource": "*",
        }] },
    })
}

/// The ARN of a role of the account.
pub fn role_arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/deputize/{name}")
}

/// The text of the first element of this name; empty where there is none.
pub fn element(xml: &str, name: &str) -> String {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
    found.map(|(text, _)| text.to_owned()).unwrap_or_default()
}

/// Python with what the stand-in needs.
pub fn python() -> PathBuf {
    installed("python")
}

/// AWS's command line.
pub fn aws_cli() -> PathBuf {
    installed("aws")
}

/// The stand-in, and programs that use AWS.
pub fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("aws")
}

fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/aws/bin").join(name);
    assert!(path.exists(), "the stand-in's packages are missing: run ./test, which installs them");
    path
}

/// The account.
pub const ACCOUNT: &str = "111122223333";
/// Its region.
pub const REGION: &str = "eu-central-1";
/// A bucket of it, with one report of acme's and one of globex's.
pub const BUCKET: &str = "conformance-reports";
/// How far clocks may be apart for this STS.
pub const SKEW_SECONDS: i64 = 60;
/// For how long this STS keeps a provider's keys.
pub const KEYS_CACHED_SECONDS: u64 = 3600;
