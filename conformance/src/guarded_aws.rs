//! AWS credentials through all that they pass: STS's stand-in, a broker under `serve`, `deputize guard
//! --aws-credentials`, and the server behind it that hands them to AWS's own programs.

use crate::{
    aws_lab::{AwsLab, OPS},
    forge::{Key, encode, now, unique},
    handing_over::{Handed, SlowServer, UnderWay},
    live_guard::call,
    process::Process,
    wire::{Endpoint, Request},
};
use deputize_call::digest::sha256;
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};
use tempfile::TempDir;

/// All of it, running. It ends with this value.
pub struct GuardedAws {
    /// AWS, and the broker.
    pub aws: AwsLab,
    /// The guard.
    pub guard: Process,
    door: Endpoint,
    server: SlowServer,
    holder: Key,
    _folder: TempDir,
}

impl GuardedAws {
    /// Starts all of it.
    pub async fn start() -> Self {
        let (aws, folder) = (AwsLab::start().await, tempfile::tempdir().unwrap());
        let world = &aws.lab.world;
        let server = SlowServer::start(world.definitions("ops")).await;
        let limits = json!({ "answer_seconds": LONGEST_CALL.as_secs() });
        let settings = json!({ "upstream": server.url, "aws_credentials": true, "limits": limits });
        let (guard, door) = world.start_guard(("ops", OPS), &settings, folder.path()).await;
        Self { aws, guard, door, server, holder: Key::es256(), _folder: folder }
    }

    /// Calls this tool in alice's name, and waits until the server has the call.
    pub async fn call(&self, tool: &str, arguments: &Value) -> UnderWay {
        let token = self.aws.token_of(&self.holder, "alice", (tool, arguments)).await;
        let challenge = self.door.send(&request(tool, arguments, None)).await.unwrap();
        let nonce = challenge.header("dpop-nonce").expect("a nonce");
        let proof = self.holder.proof(&json!({
            "htm": "POST", "htu": OPS, "iat": now(), "jti": unique(), "nonce": nonce,
            "ath": encode(sha256(token.as_bytes())),
        }));
        let request = request(tool, arguments, Some((&token, &proof)));
        let mut connection = self.door.connect().await.unwrap();
        let client = tokio::spawn(async move {
            connection.write(&request).await?;
            connection.answer_within(LONGEST_CALL).await
        });
        UnderWay { token, client, handed: self.server.called().await }
    }

    /// A program that finds what this call was handed in its environment.
    pub fn program(&self, program: &Path, handed: &Handed) -> Command {
        let mut command = self.aws.stand_in.program(program);
        command
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &handed.uri)
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", &handed.authorization);
        command
    }
}

fn request(tool: &str, arguments: &Value, proven: Option<(&str, &str)>) -> Request {
    let mut request = Request::get("/mcp");
    request.method = "POST".to_owned();
    request.body = call(tool, arguments).to_string().into_bytes();
    let mut header = |name: &str, value: &str| request.headers.push((name.to_owned(), value.to_owned()));
    header("content-type", "application/json");
    header("accept", "application/json, text/event-stream");
    if let Some((token, proof)) = proven {
        header("authorization", &format!("DPoP {token}"));
        header("dpop", proof);
    }
    request
}

/// A call runs while AWS's own programs do, on a machine that may be loaded.
const LONGEST_CALL: Duration = Duration::from_secs(240);
