//! A server on the official SDK with everything that the conformance suite asks for, a guard before it, and an
//! agent's side before that.

use crate::third_party::{definitions, prompts};
use deputize_call::digest::prompt_digest;
use deputize_conformance::{live_connect::LiveConnect, live_guard::LiveGuard, node::Script};
use serde_json::{Value, json};

/// All of it. It ends with this value.
pub struct Stage {
    /// URL of the server itself.
    pub server: String,
    /// The guard before it.
    pub guarded: LiveGuard,
    /// The agent's side, as HTTP.
    pub connect: LiveConnect,
    _script: Script,
}

impl Stage {
    /// Sets it; the agent's side gets these arguments.
    pub async fn set(arguments: &[&str]) -> Self {
        let (script, server, definitions, prompts) = tokio::task::block_in_place(|| {
            let mut script = Script::start("scenarios/server.mjs", &[], None);
            let server = script.hear()["url"].as_str().unwrap().to_owned();
            let given = json!({ "url": server });
            (script, server, definitions(&given), prompts(&given))
        });
        // The suite begins more sessions in a minute than people do.
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("guard.yaml");
        std::fs::write(&config, "limits: { calls_per_minute: 6000, burst: 600 }").unwrap();
        let arguments_of_guard = ["--upstream", &server, "--config", config.to_str().unwrap()];
        let guarded = LiveGuard::start_with(&definitions, &approved(&prompts), &arguments_of_guard).await;
        let all: Vec<&str> = [guarded.url.as_str()].iter().chain(arguments).copied().collect();
        let connect = LiveConnect::start(&guarded.dev, "stage", &all).await;
        Self { server, guarded, connect, _script: script }
    }
}

/// A record's prompts and resources. The last resource is approved and not there: that is the server's to say.
fn approved(prompts: &[Value]) -> Value {
    let prompt = |definition: &Value| {
        let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
        json!({ "tier": "low", "prompt_digest": digest, "definition": definition })
    };
    let resources = ["static-text", "static-binary", "watched-resource", "template/*", ABSENT];
    let resource = |uri| json!({ "uri": format!("test://{uri}"), "tier": "low" });
    json!({
        "prompts": prompts.iter().map(prompt).collect::<Vec<_>>(),
        "resources": resources.map(resource),
    })
}

const ABSENT: &str = "nonexistent-resource-for-conformance-testing";
