//! The ready file: where a development environment is and how to use it, for scripts and tests.
//!
//! It holds credentials (user tokens, the client's private key), so it is its owner's alone. It appears complete or
//! not at all, and only once everything answers.

use deputize_call::{jws::JwsError, sign::SigningKey};
use deputize_client::{BuildError, Client};
use deputize_issuer::clock::{NoRandomness, fill_random};
use deputize_issuer::registry::ServerRecord;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// What the file says.
#[derive(Serialize)]
pub(crate) struct ReadyFile {
    /// The broker: `iss` of its tokens.
    pub(crate) issuer: String,
    /// Where tokens are exchanged.
    pub(crate) token_endpoint: String,
    /// Where its public keys are.
    pub(crate) jwks_uri: String,
    /// Its administration.
    pub(crate) admin_url: String,
    /// The identity provider.
    pub(crate) idp: String,
    /// A token for each user, good for an hour.
    pub(crate) user_tokens: BTreeMap<String, String>,
    /// The keys that sign guards' snapshots (JWKS): what a guard is configured with.
    pub(crate) snapshot_jwks: Value,
    /// The agent platform, as a client of the broker.
    pub(crate) client: ReadyClient,
    /// The MCP servers.
    pub(crate) servers: Vec<ReadyServer>,
    /// The stand-in for AWS, and credentials for SDKs of one's own.
    pub(crate) aws: ReadyAws,
    /// `SPIFFE_ENDPOINT_SOCKET`: where every process of this user gets SVIDs.
    pub(crate) workload_api_socket: String,
    /// The trust domain of their SPIFFE IDs.
    pub(crate) trust_domain: &'static str,
}

/// AWS, as SDKs and the AWS CLI are told of it.
#[derive(Serialize)]
pub(crate) struct ReadyAws {
    /// `AWS_ENDPOINT_URL`.
    pub(crate) endpoint_url: String,
    /// `AWS_REGION`.
    pub(crate) region: &'static str,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`: keys of a role session for one call in alice's name, always valid.
    pub(crate) container_credentials_full_uri: String,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub(crate) authorization_token: String,
    /// The instances; the session is for the first.
    pub(crate) instances: [&'static str; 2],
    /// What CloudTrail would have written so far.
    pub(crate) cloudtrail_url: String,
}

/// A client of the broker.
#[derive(Serialize)]
pub(crate) struct ReadyClient {
    /// Its id.
    pub(crate) client_id: String,
    /// The key with which it authenticates (`private_key_jwt`), as a JWK.
    pub(crate) private_jwk: Value,
}

/// An MCP server.
#[derive(Serialize)]
pub(crate) struct ReadyServer {
    /// Its URI in the registry: `aud` of its tokens.
    resource: String,
    /// Where MCP requests go. The guard stands where the resource URI says, so that a client that begins here finds
    /// this resource and no other (RFC 9728 §3.3).
    guard_url: String,
    /// The server itself, as a client of the broker: for its guard.
    client: ReadyClient,
    tools: Vec<ReadyTool>,
}

#[derive(Serialize)]
struct ReadyTool {
    name: Value,
    input_schema: Value,
    tier: &'static str,
    level: &'static str,
    example_arguments: Value,
}

impl ReadyClient {
    /// The client of this id with this key.
    pub(crate) fn of(client_id: &str, key: &SigningKey) -> Result<Self, JwsError> {
        let private_jwk =
            serde_json::from_str(&key.to_private_jwk()?).map_err(|_| JwsError::Key("cannot be exported"))?;
        Ok(Self { client_id: client_id.to_owned(), private_jwk })
    }

    /// The client that whoever reads the file can be, of this broker.
    pub(crate) fn connect(&self, issuer: &str) -> Result<Client, NoClient> {
        let key = SigningKey::from_private_jwk(self.private_jwk.as_object().ok_or(NoClient::NoKey)?)?;
        Ok(Client::builder(issuer, &self.client_id).private_key_jwt(key).build()?)
    }
}

/// Why somebody cannot be a client with what the file says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoClient {
    #[error("the client's key is no JWK")]
    NoKey,
    #[error(transparent)]
    Key(#[from] JwsError),
    #[error(transparent)]
    Client(#[from] BuildError),
}

impl ReadyServer {
    /// What the file says of a server.
    pub(crate) fn of(record: &ServerRecord, client: ReadyClient) -> Self {
        let tools = record.tools.iter().map(|tool| {
            let member = |name| tool.definition.get(name).cloned().unwrap_or_default();
            let least = tool.tier.least_level();
            ReadyTool {
                name: member("name"),
                input_schema: member("inputSchema"),
                tier: tool.tier.as_str(),
                level: tool.level.map_or(least, |level| level.max(least)).as_str(),
                example_arguments: tool.example_arguments.clone().unwrap_or_default().into(),
            }
        });
        let resource = record.resource.clone();
        Self { guard_url: resource.clone(), resource, client, tools: tools.collect() }
    }
}

/// Writes the file: first beside its place under a random name, exclusively and for its owner alone, then renamed.
pub(crate) fn write(path: &Path, ready: &ReadyFile) -> io::Result<()> {
    let text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(ready)?);
    let mut random = [0_u8; 8];
    fill_random(&mut random).map_err(|NoRandomness| io::Error::other(NoRandomness))?;
    let temporary = path.with_extension(format!("{:016x}.tmp", u64::from_be_bytes(random)));
    let written = write_new(&temporary, &text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing half-written is left behind; that it may not be there to remove changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::example::Example;
    use deputize_call::sign::SigningAlgorithm;
    use deputize_stand_ins::example_server::ExampleServer;
    use std::os::unix::fs::PermissionsExt as _;

    fn client(id: &str) -> ReadyClient {
        ReadyClient::of(id, &SigningKey::generate(SigningAlgorithm::ES256).unwrap()).unwrap()
    }

    fn ready() -> ReadyFile {
        let crm = Example::of(ExampleServer::crm("http://127.0.0.1:7001/mcp", "crm").unwrap()).unwrap();
        ReadyFile {
            issuer: "http://127.0.0.1:7000".to_owned(),
            token_endpoint: "http://127.0.0.1:7000/token".to_owned(),
            jwks_uri: "http://127.0.0.1:7000/jwks".to_owned(),
            admin_url: "http://127.0.0.1:7003".to_owned(),
            idp: "http://127.0.0.1:7004".to_owned(),
            user_tokens: [("alice".to_owned(), "a.b.c".to_owned())].into(),
            snapshot_jwks: Value::Null,
            client: client("platform"),
            servers: vec![ReadyServer::of(&crm.record, client("crm"))],
            aws: ReadyAws {
                endpoint_url: "http://127.0.0.1:7005".to_owned(),
                region: "eu-central-1",
                container_credentials_full_uri: "http://127.0.0.1:7006/credentials".to_owned(),
                authorization_token: "secret".to_owned(),
                instances: ["i-1", "i-2"],
                cloudtrail_url: "http://127.0.0.1:7005/cloudtrail.json".to_owned(),
            },
            workload_api_socket: "unix:///tmp/deputize-dev/workload-api.sock".to_owned(),
            trust_domain: "corp.example",
        }
    }

    #[test]
    fn it_is_whole_private_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        fs::write(&path, "of an earlier run").unwrap();
        write(&path, &ready()).unwrap();

        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let tool = &read["servers"][0]["tools"][0];
        assert_eq!(
            (&tool["name"], &tool["tier"], &tool["level"]),
            (&"lookup_customer".into(), &"low".into(), &"L1".into())
        );
        assert_eq!(tool["example_arguments"]["customer_id"], "cus_17");
        assert_eq!(tool["input_schema"]["type"], "object");
        assert_eq!(read["servers"][0]["client"]["client_id"], "crm");
        assert_eq!(read["servers"][0]["guard_url"], "http://127.0.0.1:7001/mcp");
        let key = read["servers"][0]["client"]["private_jwk"].as_object().unwrap();
        assert!(SigningKey::from_private_jwk(key).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("ready.json");
        fs::create_dir(&occupied).unwrap();
        write(&occupied, &ready()).unwrap_err();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        write(&folder.path().join("missing/ready.json"), &ready()).unwrap_err();
    }
}
