//! A broker under `serve` whose calls get AWS sessions of the stand-in: one server with two tools, a template for each.

use crate::{
    exchange::{Exchange, Lab},
    forge::Key,
    process::binary,
    stand_in::{ACCOUNT, BUCKET, REGION, StandIn, role, role_arn},
    wire::Response,
    world::{World, token_of},
};
use deputize_call::digest::tool_digest;
use serde_json::{Value, json};
use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// The broker and the stand-in, running.
pub struct AwsLab {
    /// The broker, and exchanges with it.
    pub lab: Lab,
    /// AWS.
    pub stand_in: StandIn,
}

impl AwsLab {
    /// Starts both. The stand-in knows the broker's web identity as an OIDC provider, and roles that trust it for one
    /// template each.
    pub async fn start() -> Self {
        let mut world = World::new().await;
        world.client_keys.insert("ops", Key::es256());
        let issuer = format!("{}/web-identity", world.base);
        let of = |name: &str| role(name, &issuer, &format!("template:acme:{name}"));
        let stand_in = StandIn::start(&world.authority, &TEMPLATES.map(of)).await;
        let config = world.write_files();
        let folder = world.folder().to_owned();
        std::fs::write(folder.join("registry/ops.json"), record().to_string()).unwrap();
        std::fs::create_dir_all(folder.join("templates")).unwrap();
        for template in [restart_instance(300), read_report(), brief()] {
            let name = template["name"].as_str().unwrap();
            std::fs::write(folder.join(format!("templates/{name}.json")), template.to_string()).unwrap();
        }
        let mut settings: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        let clients = settings["clients"].as_array_mut().unwrap();
        clients
            .push(json!({ "id": "ops", "tenant": "acme", "jwks_file": "clients/ops.json", "server": OPS }));
        settings["aws"] = json!({
            "templates": "templates", "accounts": [ACCOUNT],
            "sts": { "endpoint": stand_in.sts, "ca_file": "ca.pem", "allow_private_addresses": true, "calls_per_second": 1000 },
        });
        settings["spiffe"] =
            json!({ "trust_domain": "acme.test", "socket": "workload-api.sock", "entries": "entries" });
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        let entry = json!({ "id": "ops", "spiffe_id": OPS_ID, "selectors": [format!("unix:uid:{uid}")] });
        std::fs::create_dir_all(folder.join("entries")).unwrap();
        std::fs::write(folder.join("entries/ops.yaml"), entry.to_string()).unwrap();
        std::fs::write(&config, settings.to_string()).unwrap();
        stand_in.register(&issuer, &["sts.amazonaws.com"]).await;
        let started = world.start_again(&config).await;
        Self { lab: Lab::of(world, started), stand_in }
    }

    /// The token of one call of this user's, bound to this key.
    pub async fn token_of(&self, holder: &Key, user: &str, (tool, arguments): (&str, &Value)) -> String {
        let mut exchange = self.lab.for_client("desk", holder).await;
        exchange.set("subject_token", &self.lab.world.user_token(user)).call(OPS, tool, arguments);
        token_of(&self.lab.send(&exchange).await)
    }

    /// The token of one call, bound to a key that is used no more.
    pub async fn token(&self, user: &str, tool: &str, arguments: &Value) -> String {
        self.token_of(&Key::es256(), user, (tool, arguments)).await
    }

    /// The token of a call that restarts this instance.
    pub async fn restart_token(&self, user: &str, instance: &str) -> String {
        self.token(user, "restart_instance", &json!({ "instance_id": instance })).await
    }

    /// What a client asks for the call of this token.
    pub fn ask(&self, client: &str, token: &str, arguments: &Value) -> Exchange {
        let mut exchange = self.lab.template(client, token);
        exchange.form.retain(|(name, _)| name.starts_with("client_") || name == "subject_token");
        exchange
            .at("POST", "/aws/credentials")
            .set("subject_token_type", "urn:ietf:params:oauth:token-type:access_token")
            .set("arguments", &arguments.to_string());
        exchange
    }

    /// What the server of the call gets for it.
    pub async fn credentials(&self, token: &str, arguments: &Value) -> Response {
        self.send(&self.ask("ops", token, arguments)).await
    }

    /// The same while STS is well: where a loaded machine makes it answer too late, it is asked again as the refusal
    /// says.
    pub async fn session(&self, token: &str, arguments: &Value) -> Response {
        let mut answer = self.credentials(token, arguments).await;
        for _ in 0..20 {
            let Some(seconds) = answer.header("retry-after") else { break };
            let seconds = seconds.parse().unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            answer = self.credentials(token, arguments).await;
        }
        answer
    }

    /// Sends it.
    pub async fn send(&self, asked: &Exchange) -> Response {
        self.lab.world.door.send(&asked.request()).await.unwrap()
    }

    /// What a process of this user gets when it asks the broker's Workload API for a JWT-SVID: the token, or the refusal.
    pub fn jwt_svid(&self, audience: &str) -> Result<String, String> {
        let socket = self.lab.world.folder().join("workload-api.sock");
        let fetched = Command::new(binary())
            .args(["svid", "fetch", "-o", "json", "--audience", audience, "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        if !fetched.status.success() {
            return Err(String::from_utf8_lossy(&fetched.stderr).into_owned());
        }
        let svids: Value = serde_json::from_slice(&fetched.stdout).unwrap();
        assert_eq!(svids[0]["spiffe_id"], OPS_ID);
        Ok(svids[0]["token"].as_str().unwrap().to_owned())
    }

    /// The sessions that STS has made so far.
    pub async fn sessions(&self) -> Vec<Value> {
        let calls = self.stand_in.calls().await;
        calls.into_iter().filter(|call| call["outcome"] == "made").collect()
    }

    /// What the broker has on record about a decision.
    pub async fn on_record(&self, decision: &str) -> Vec<Value> {
        self.lab.world.recorded().await;
        let (entries, _) = self.lab.world.log(0).await;
        entries.into_iter().filter(|entry| entry["decision"] == decision).collect()
    }
}

/// A program of `conformance/aws/programs`.
pub fn python_program(name: &str) -> PathBuf {
    crate::stand_in::programs().join("programs").join(name)
}

/// The program in Go, as `./test` built it.
pub fn go_program() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/aws/bin/aws-go");
    assert!(path.exists(), "the Go program is missing: run ./test, which builds it");
    path
}

fn record() -> Value {
    let tool = |name: &str, argument: &str| {
        let definition = json!({
            "name": name, "description": format!("Does {name}."),
            "inputSchema": { "type": "object", "properties": { argument: { "type": "string" } },
                "required": [argument], "additionalProperties": false },
        });
        let digest = tool_digest(definition.as_object().unwrap()).unwrap();
        json!({ "tier": "low", "effect": "write", "tool_digest": digest, "definition": definition })
    };
    json!({
        "id": "ops", "resource": OPS, "tenant": "acme", "version": "1.0.0", "owner": "conformance",
        "purpose": "to run in AWS", "environment": "development", "data_class": "internal", "verifier": "guard",
        "client_id": "ops",
        "tools": [tool("restart_instance", "instance_id"), tool("read_report", "prefix"), tool("restart_soon", "instance_id"),
            tool("count_instances", "instance_id")],
    })
}

/// The template that restarts the instance in the call.
pub fn restart_instance(window_seconds: u32) -> Value {
    template(
        "restart-instance",
        "restart_instance",
        window_seconds,
        &json!({
            "params": { "instance": { "from": { "argument": "/instance_id" }, "type": "ec2_instance_id" } },
            "statements": [{ "actions": ["ec2:RebootInstances"],
                "resources": [{ "service": "ec2", "parts": [{ "literal": "instance/" }, { "param": "instance" }] }] }],
            "ceiling": { "actions": ["ec2:RebootInstances"],
                "resources": [format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-*")] },
        }),
    )
}

/// The same, with the shortest window that there is.
fn brief() -> Value {
    let mut template = restart_instance(30);
    template["name"] = json!("restart-soon");
    template["match"]["tool"] = json!("restart_soon");
    template["aws"]["role_arn"] = json!(role_arn("restart-soon"));
    template
}

fn read_report() -> Value {
    template(
        "read-report",
        "read_report",
        300,
        &json!({
            "params": { "prefix": { "from": { "argument": "/prefix" }, "type": "s3_prefix", "max_length": 40 } },
            "statements": [{ "actions": ["s3:GetObject"],
                "resources": [{ "service": "s3",
                    "parts": [{ "literal": format!("{BUCKET}/") }, { "param": "prefix" }, "wildcard"] }] }],
            "ceiling": { "actions": ["s3:GetObject"], "resources": [format!("arn:aws:s3:::{BUCKET}/*")] },
        }),
    )
}

fn template(name: &str, tool: &str, window_seconds: u32, more: &Value) -> Value {
    let mut template = json!({
        "name": name, "description": "What the call names, and nothing else",
        "match": { "server": OPS, "tool": tool, "tenant": "acme" },
        "aws": { "partition": "aws", "account": ACCOUNT, "region": REGION, "role_arn": role_arn(name),
            "window_seconds": window_seconds },
        "tags": { "tool": [{ "fact": "tool" }], "transaction": [{ "fact": "transaction" }] },
    });
    for (member, value) in more.as_object().unwrap() {
        template[member] = value.clone();
    }
    template
}

/// The server whose calls run in AWS.
pub const OPS: &str = "https://ops.acme.test/mcp";
/// The SPIFFE ID of every process of this user.
pub const OPS_ID: &str = "spiffe://acme.test/ops";
/// Its templates; each has the role of its name.
pub const TEMPLATES: [&str; 3] = ["restart-instance", "read-report", "restart-soon"];
