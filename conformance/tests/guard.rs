//! `deputize guard` before servers that other people wrote, called by an agent with the Rust client.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_client::{Detail, ExchangeError, ExchangeRequest};
use deputize_conformance::{
    ill_server::IllServer,
    live_guard::{GuardRequest, LiveGuard, ask, call, free_port, messages},
    node::node,
    wire::{Endpoint, Request},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use url::Url;

#[tokio::test]
async fn what_would_steer_a_terminal_or_turn_text_round_is_put_in_plain_sight() {
    let server = IllServer::start().await;
    let guarded = LiveGuard::start(&IllServer::definitions(), &["--upstream", &server.url]).await;
    for (how, at) in [
        ("controls", "/result/content/0/text"),
        ("error-controls", "/error/message"),
        ("event-controls", "/result/content/0/text"),
    ] {
        let arguments = json!({ "how": how });
        let token = guarded.call("ill", &arguments).await;
        let answer = guarded.say(&token, &[], &call("ill", &arguments)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = String::from_utf8(answer.body.clone()).unwrap();
        let message = messages(&answer).pop().unwrap();
        let said = message.pointer(at).unwrap();
        assert_eq!(said, "paid \u{fffd}[2K to \u{fffd}ecila\u{fffd}\n", "{how}");
        assert!(!text.contains("\\u001b") && !text.contains('\u{202e}'), "{text}");
    }
}

#[tokio::test]
async fn server_everything_stands_unchanged_behind_a_guard() {
    let everything = Everything::start().await;
    let definitions = everything.tools().await;
    let approved: Vec<Value> = definitions.iter().filter(|tool| tool["name"] != "get-env").cloned().collect();
    assert!(approved.len() + 1 == definitions.len() && approved.len() > 5);
    let guarded = LiveGuard::start(&approved, &["--upstream", &everything.url]).await;
    let session = begin(&guarded).await;
    let here = [("mcp-session-id", session.as_str())];

    let listed = messages(&guarded.say(&guarded.look().await, &here, &ask("tools/list")).await);
    let names: Vec<&str> = listed[0]["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"echo") && !names.contains(&"get-env"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("sampling")), "{names:?}");

    let echo =
        guarded.say(&guarded.tool("echo").await, &here, &call("echo", &json!({ "message": "hello" }))).await;
    let said = messages(&echo).pop().unwrap();
    assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("hello"), "{said}");

    let arguments = json!({ "a": 2, "b": 40 });
    let token = guarded.call("get-sum", &arguments).await;
    let sum = messages(&guarded.say(&token, &here, &call("get-sum", &arguments)).await).pop().unwrap();
    assert!(sum["result"]["content"][0]["text"].as_str().unwrap().contains("42"), "{sum}");
    let again = guarded.say(&token, &here, &call("get-sum", &arguments)).await;
    assert_eq!((again.status, again.error_code().as_deref()), (401, Some("invalid_token")));

    let request = ExchangeRequest::new(&guarded.url, guarded.dev.text("/user_tokens/alice"))
        .detail(Detail::Tool { name: "get-env".to_owned() });
    let refused = guarded.client.exchange(&request).await;
    assert!(matches!(refused, Err(ExchangeError::InvalidAuthorizationDetails(_))), "{refused:?}");
    let smuggled = guarded.say(&guarded.tool("echo").await, &here, &call("get-env", &json!({}))).await;
    assert_eq!(smuggled.status, 403);
}

#[tokio::test]
async fn streams_and_questions_of_server_everything_go_through() {
    let everything = Everything::start().await;
    let guarded = LiveGuard::start(&everything.tools().await, &["--upstream", &everything.url]).await;
    let session = begin(&guarded).await;
    let here = [("mcp-session-id", session.as_str())];

    let mut long = call("trigger-long-running-operation", &json!({ "duration": 1, "steps": 2 }));
    long["params"]["_meta"] = json!({ "progressToken": "p" });
    let token = guarded.tool("trigger-long-running-operation").await;
    let said = messages(&guarded.say(&token, &here, &long).await);
    let progress = said.iter().filter(|message| message["method"] == "notifications/progress").count();
    assert_eq!((progress, said.last().unwrap()["id"].clone()), (2, json!(1)), "{said:?}");

    let token = guarded.tool("trigger-elicitation-request").await;
    let mut request = guarded.message(&token, &call("trigger-elicitation-request", &json!({}))).await;
    request.header("mcp-session-id", &session);
    let mut stream = open(&guarded, &request).await;
    let mut text = String::new();
    let question = until(&mut stream, &mut text, |message| message["method"] == "elicitation/create").await;
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "decline" } });
    let stranger = guarded.token("bob", &guarded.url, Detail::Listing).await;
    assert_eq!(guarded.say(&stranger, &here, &answer).await.status, 404, "another person's answer");
    let mut another = answer.clone();
    another["id"] = json!("never-asked");
    assert_eq!(guarded.say(&guarded.look().await, &here, &another).await.status, 400);
    assert_eq!(guarded.say(&guarded.look().await, &here, &answer).await.status, 202);
    let result = until(&mut stream, &mut text, |message| message["id"] == 1).await;
    assert!(result["result"]["content"].to_string().contains("decline"), "{result}");
    assert_eq!(guarded.say(&guarded.look().await, &here, &answer).await.status, 400, "answered already");

    let mut listen = guarded.request("GET", &guarded.look().await, b"").await;
    listen.header("mcp-session-id", &session).header("last-event-id", "made-up");
    assert_eq!(guarded.send(&listen).await.status, 404, "a cursor that never was");
    let mut end = guarded.request("DELETE", &guarded.look().await, b"").await;
    end.header("mcp-session-id", &session);
    assert_eq!(guarded.send(&end).await.status, 204);
    assert_eq!(guarded.say(&guarded.look().await, &here, &ask("tools/list")).await.status, 404);
}

#[tokio::test]
async fn server_filesystem_runs_behind_a_guard_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("note.txt"), "a note").unwrap();
    let program = package("server-filesystem/dist/index.js");
    let (node, root) = (node(), folder.path().canonicalize().unwrap());
    let command = [node.to_str().unwrap(), program.to_str().unwrap(), root.to_str().unwrap()];
    let definitions = stdio_tools(&command).await;
    let guarded = LiveGuard::start(&definitions, &[&["--"][..], &command].concat()).await;
    let session = begin(&guarded).await;
    let here = [("mcp-session-id", session.as_str())];
    let read = |path: PathBuf| json!({ "path": path });
    let arguments = read(root.join("note.txt"));
    let token = guarded.call("read_text_file", &arguments).await;
    let said =
        messages(&guarded.say(&token, &here, &call("read_text_file", &arguments)).await).pop().unwrap();
    assert!(said["result"]["content"][0]["text"] == "a note", "{said}");
    let token = guarded.call("read_text_file", &arguments).await;
    let other = guarded.say(&token, &here, &call("read_text_file", &read("/etc/passwd".into()))).await;
    assert_eq!((other.status, other.error_code().as_deref()), (403, Some("insufficient_scope")));

    let children = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(root.to_str().unwrap())
            })
            .count()
    };
    // The guard itself names the folder too.
    assert!(children() >= 3, "the guard, its own process and the session's");
    guarded.process.terminate();
    for _ in 0..1000 {
        if children() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("processes outlive their guard:\n{}", guarded.process.said());
}

/// Begins a session; its id.
async fn begin(guarded: &LiveGuard) -> String {
    let mut begin = ask("initialize");
    begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {}, "sampling": {} },
        "clientInfo": { "name": "agent", "version": "1" } });
    let answer = guarded.say(&guarded.look().await, &[], &begin).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    let result = messages(&answer).pop().unwrap();
    let offered: Vec<&String> = result["result"]["capabilities"].as_object().unwrap().keys().collect();
    assert_eq!(offered, ["tools"], "only what goes through is offered");
    let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let answer = guarded.say(&guarded.look().await, &[("mcp-session-id", &session)], &ready).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    session
}

/// Sends a request whose answer is read while it comes.
async fn open(guarded: &LiveGuard, request: &GuardRequest) -> reqwest::Response {
    let mut builder = reqwest::Client::new().post(&guarded.url).body(request.request.body.clone());
    for (name, value) in &request.request.headers {
        builder = builder.header(name, value);
    }
    builder.send().await.unwrap()
}

/// Reads a stream until a message of it is the one that is waited for.
async fn until(stream: &mut reqwest::Response, text: &mut String, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
        if let Some(found) =
            data.map(|data| serde_json::from_str(data).unwrap()).find(|message| wanted(message))
        {
            return found;
        }
        let piece = tokio::time::timeout(Duration::from_secs(30), stream.chunk()).await.unwrap().unwrap();
        *text += std::str::from_utf8(&piece.unwrap_or_else(|| panic!("it ended: {text}"))).unwrap();
    }
}

/// `@modelcontextprotocol/server-everything` over Streamable HTTP. It ends with this value.
struct Everything {
    child: Child,
    url: String,
}

impl Everything {
    async fn start() -> Self {
        let port = free_port();
        let child = Command::new(node())
            .arg(package("server-everything/dist/index.js"))
            .arg("streamableHttp")
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let everything = Self { child, url: format!("http://127.0.0.1:{port}/mcp") };
        for _ in 0..3000 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return everything;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("server-everything does not listen");
    }

    /// What it lists to a client that can answer questions and sample, as an operator would look at it.
    async fn tools(&self) -> Vec<Value> {
        let endpoint = Endpoint::new(&Url::parse(&self.url).unwrap(), None);
        let mut session = None;
        let mut say = async |message: Value| {
            let accept = ("accept".to_owned(), "application/json, text/event-stream".to_owned());
            let mut headers = vec![("content-type".to_owned(), "application/json".to_owned()), accept];
            headers.extend(session.clone().map(|session| ("mcp-session-id".to_owned(), session)));
            let body = message.to_string().into_bytes();
            let request = Request { method: "POST".into(), target: "/mcp".into(), headers, body };
            let answer = endpoint.send(&request).await.unwrap();
            session = session.take().or_else(|| answer.header("mcp-session-id").map(str::to_owned));
            messages(&answer).pop().unwrap_or_default()
        };
        let mut begin = ask("initialize");
        begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "operator", "version": "1" } });
        say(begin).await;
        say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        let listed = say(ask("tools/list")).await;
        listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program lists over stdin and stdout.
async fn stdio_tools(command: &[&str]) -> Vec<Value> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
    let talk = move || {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut begin = ask("initialize");
        begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "operator", "version": "1" } });
        let mut list = ask("tools/list");
        list["id"] = json!(2);
        for message in [begin, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), list] {
            writeln!(stdin, "{message}").unwrap();
        }
        let lines = stdout.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let listed = lines.into_iter().find(|message| message["id"] == 2).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        listed["result"]["tools"].as_array().unwrap().clone()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

fn package(file: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("npm/node_modules/@modelcontextprotocol").join(file);
    assert!(path.exists(), "npm packages are missing: run ./test, which installs them");
    path
}
