//! Servers that other people's frameworks make, behind the guard: FastMCP over both transports, and rmcp behind the
//! proxy and behind the guard's tower layer in its own process. Called by clients that other people wrote.

use crate::third_party::{call, definitions, python, repository, run};
use deputize_conformance::{
    dev::Dev,
    live_connect::LiveConnect,
    live_guard::{LiveGuard, free_port},
    node::Script,
    process::binary,
};
use rmcp::{
    handler::server::wrapper::Parameters,
    schemars, tool, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::{Child, Command};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fastmcp_server_runs_behind_a_guard_over_stdio() {
    let script = repository().join("conformance/python/notes.py");
    let python = python();
    let (python, script) = (python.to_str().unwrap(), script.to_str().unwrap());
    let listed = on_a_thread(|| definitions(&json!({ "command": python, "args": [script] })));
    assert_eq!(listed.len(), 2);
    let guarded = LiveGuard::start(&approved(listed), &["--", python, script]).await;
    notes_are_taken(&guarded.dev, &guarded.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fastmcp_server_runs_behind_a_guard_over_http() {
    let port = free_port();
    let mut command = Command::new(python());
    command.arg(repository().join("conformance/python/notes.py")).arg(port.to_string());
    let mut server = start(command);
    let url = format!("http://127.0.0.1:{port}/mcp");
    listening(&mut server, port).await;
    let listed = on_a_thread(|| definitions(&json!({ "url": url })));
    let guarded = LiveGuard::start(&approved(listed), &["--upstream", &url]).await;
    notes_are_taken(&guarded.dev, &guarded.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rmcp_server_runs_behind_a_guard() {
    let service = StreamableHttpService::new(
        || Ok(Notes),
        LocalSessionManager::default().into(),
        StreamableHttpServerConfig::default(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().route_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listed = on_a_thread(|| definitions(&json!({ "url": url })));
    let guarded = LiveGuard::start(&approved(listed), &["--upstream", &url]).await;
    notes_are_taken(&guarded.dev, &guarded.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rmcp_server_guards_itself_with_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record.json");
    let port = free_port();
    let example = |argument: &Path| {
        let mut command = Command::new(binary().with_file_name("examples").join("rmcp_server"));
        command.arg(argument).env("PORT", port.to_string());
        command
    };
    let (code, printed, complaint) = run(example(Path::new("record"))).await;
    assert_eq!(code, Some(0), "{complaint}");
    std::fs::write(&record, printed).unwrap();
    let dev = Dev::start_with(&["--register", record.to_str().unwrap()]).await;
    let mut server = start(example(&dev.ready_file()));
    listening(&mut server, port).await;
    let url = format!("http://127.0.0.1:{port}/mcp");
    notes_are_taken(&dev, &url).await;
}

/// The official clients list, and call what was approved: in Python at the guard, in TypeScript through `connect`.
async fn notes_are_taken(dev: &Dev, url: &str) {
    let note = json!({ "customer_id": "cus_17", "text": "called" });
    let mut agent = Command::new(python());
    agent.current_dir(repository().join("clients/python/examples")).kill_on_drop(true);
    agent.arg("agent.py").arg(dev.ready_file()).args(["add_note", &note.to_string(), url]);
    let (code, said, complaint) = run(agent).await;
    assert!(
        code == Some(0) && said.contains("tools: add_note\n") && said.contains("called"),
        "{said}{complaint}"
    );

    let connect = LiveConnect::start(dev, "notes", &[url]).await;
    let given = json!({ "step": "connect", "url": connect.url,
        "headers": { "authorization": connect.authorization() } });
    on_a_thread(|| {
        let mut client = Script::start("connect.mjs", &[], None);
        let connected = client.ask(&given);
        assert!(connected["server"].is_object(), "{connected}");
        assert_eq!(client.ask(&json!({ "step": "list" }))["tools"], json!(["add_note"]));
        let taken = client.ask(&call("add_note", &note));
        assert_eq!(taken["result"]["structuredContent"]["text"], "called", "{taken}");
        let smuggled = client.ask(&call("forget_everything", &json!({})));
        assert!(smuggled["error"].is_object() || smuggled["result"]["isError"] == true, "{smuggled}");
        let more = client.ask(&call("add_note", &json!({ "customer_id": "cus_17" })));
        assert_eq!(more["result"]["isError"], true, "a field is missing: {more}");
        client.ask(&json!({ "step": "close" }));
    });
}

/// The definitions that are approved: the other tool of each of these servers is not.
fn approved(definitions: Vec<Value>) -> Vec<Value> {
    definitions.into_iter().filter(|definition| definition["name"] == "add_note").collect()
}

fn start(mut command: Command) -> Child {
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn().expect("it starts: run ./test, which builds and installs it")
}

/// Waits until a server takes connections.
async fn listening(server: &mut Child, port: u16) {
    for _ in 0..6000 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        assert!(server.try_wait().unwrap().is_none(), "it ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not listen");
}

fn on_a_thread<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// A server on rmcp that knows nothing of Deputize.
#[derive(Debug, Clone)]
struct Notes;

#[derive(Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct Note {
    customer_id: String,
    text: String,
}

#[tool_router(server_handler)]
impl Notes {
    /// Writes a note about a customer.
    #[tool]
    fn add_note(&self, Parameters(note): Parameters<Note>) -> rmcp::Json<Note> {
        rmcp::Json(note)
    }

    /// Throws all notes away.
    #[tool]
    fn forget_everything(&self) -> String {
        "gone".to_owned()
    }
}
