//! An MCP server on rmcp that runs a tool only for the call that a token was made for: the guard is a layer of its own
//! router.
//!
//! ```sh
//! alias server='cargo run -p deputize-guard --features link,tower --example rmcp_server --'
//! server record > record.json
//! deputize dev --register record.json --ready-file dev.json
//! server dev.json
//! deputize connect http://127.0.0.1:8030/mcp --ready-file dev.json
//! ```

use axum::Router;
use deputize_call::{digest::tool_digest, json::Object, keys::KeySet, sign::SigningKey};
use deputize_guard::{
    Admission, Guard, GuardConfig, Upstream, VerifiedCall,
    link::{Link, LinkSettings, SystemClock},
    proxy::layer::GuardLayer,
};
use rmcp::{
    ErrorData, Json,
    handler::server::{tool::Extension, wrapper::Parameters},
    schemars, tool, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use serde_json::{Value, json};
use std::{env, error::Error, fs, sync::Arc};
use tower::Layer as _;

/// The server, as one would write it without Deputize but for whom a note is by.
#[derive(Debug, Clone)]
struct Notes;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Note {
    customer_id: String,
    text: String,
}

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
struct Written {
    customer_id: String,
    text: String,
    by: String,
}

#[tool_router(server_handler)]
impl Notes {
    /// Writes a note about a customer.
    #[tool]
    fn add_note(
        &self,
        Parameters(Note { customer_id, text }): Parameters<Note>,
        Extension(request): Extension<http::request::Parts>,
    ) -> Result<Json<Written>, ErrorData> {
        // Whose call this is: verified before the tool runs.
        let call = request.extensions.get::<Arc<VerifiedCall>>();
        let call = call.ok_or_else(|| ErrorData::internal_error("not behind its guard", None))?;
        Ok(Json(Written { customer_id, text, by: call.claims().sub.clone() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = env::var("PORT").map_or(Ok(8030), |port| port.parse())?;
    let url = format!("http://127.0.0.1:{port}/mcp");
    match env::args().nth(1).as_deref() {
        Some("record") => print(&record(&url)?),
        Some(ready_file) => serve(&url, port, ready_file).await,
        None => Err("give `record`, or the ready file of `deputize dev`".into()),
    }
}

async fn serve(url: &str, port: u16, ready_file: &str) -> Result<(), Box<dyn Error>> {
    let service = StreamableHttpService::new(
        || Ok(Notes),
        // Each request stands alone: the layer lets no session id through.
        Arc::new(NeverSessionManager::default()),
        StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true),
    );

    // The guard, in three lines: what the broker says, what is called here, and the layer.
    let settings = settings(url, &serde_json::from_str(&fs::read_to_string(ready_file)?)?)?;
    let guarded = guard(url, settings).await?.layer(service);
    let router = Router::new().route_service("/mcp", guarded);

    axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, router).await?;
    Ok(())
}

async fn guard(url: &str, settings: LinkSettings) -> Result<GuardLayer, Box<dyn Error>> {
    let metadata = url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
    let config = GuardConfig::new(&settings.issuer, &settings.resource, url, &metadata);
    let link = Link::start(settings)?;
    let clock = link.clock();
    let guard = Arc::new(Guard::new(config, link.redeemer(), Arc::new(InThisProcess), clock.now_seconds())?);
    link.follow(Arc::clone(&guard));
    guard.observe_tools(&definitions()?);
    link.ready().await;
    // It goes on as long as the process does.
    std::mem::forget(link);
    Ok(GuardLayer::new(guard, clock))
}

/// The server is there whenever its guard is.
struct InThisProcess;

#[async_trait::async_trait]
impl Upstream for InThisProcess {
    async fn admit(&self, _: &deputize_call::claims::ToolCallClaims) -> Admission {
        Admission::Ready
    }
}

/// What the guard is told once; here from the ready file of `deputize dev`, elsewhere from where secrets are kept.
fn settings(url: &str, ready: &Value) -> Result<LinkSettings, Box<dyn Error>> {
    let member = |of: &Value, name: &str| of.get(name).cloned().ok_or(format!("no {name} in the ready file"));
    let servers = member(ready, "servers")?;
    let here = |server: &&Value| server.get("resource").is_some_and(|resource| resource == url);
    let server = servers.as_array().and_then(|servers| servers.iter().find(here));
    let client =
        member(server.ok_or("this server is not registered: give its record to `deputize dev`")?, "client")?;
    let jwk: Object = serde_json::from_value(member(&client, "private_jwk")?)?;
    Ok(LinkSettings {
        issuer: serde_json::from_value(member(ready, "issuer")?)?,
        resource: url.to_owned(),
        client_id: serde_json::from_value(member(&client, "client_id")?)?,
        private_key: SigningKey::from_private_jwk(&jwk)?,
        decryption_keys: Vec::new(),
        snapshot_keys: KeySet::from_jwks(member(ready, "snapshot_jwks")?.to_string().as_bytes())?,
        state_folder: env::temp_dir().join(format!("rmcp-server-{}", std::process::id())),
        ca_pem: None,
        clock: Arc::new(SystemClock::new()),
    })
}

/// What a reviewer reads and a registry holds.
fn record(url: &str) -> Result<Value, Box<dyn Error>> {
    let mut tools = Vec::new();
    for definition in definitions()? {
        let digest = tool_digest(&definition)?;
        let example = json!({ "customer_id": "cus_17", "text": "called" });
        tools.push(json!({ "tier": "low", "effect": "write", "example_arguments": example,
            "definition": definition, "tool_digest": digest }));
    }
    Ok(json!({
        "id": "notes", "resource": url, "tenant": "dev", "version": "1.0.0", "owner": "notes@corp.example",
        "purpose": "Notes about customers", "environment": "development", "data_class": "internal",
        "verifier": "guard", "tools": tools,
    }))
}

/// The tools as this server lists them.
fn definitions() -> Result<Vec<Object>, Box<dyn Error>> {
    let tools = Notes::tool_router().list_all();
    Ok(serde_json::from_value(serde_json::to_value(tools)?)?)
}

fn print(value: &Value) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{value:#}")?;
    Ok(())
}
