//! `deputize guard` before servers that other people wrote, called by an agent with the Rust client.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_call::{
    action::Action::{CallTool, GetPrompt, ReadResource},
    digest::{prompt_digest, tool_digest},
};
use deputize_client::{Detail, ExchangeError, ExchangeRequest};
use deputize_conformance::{
    ill_server::IllServer,
    live_guard::{GuardRequest, LiveGuard, ask, call, free_port, messages, prompt, read},
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
async fn prompts_and_resources_of_server_everything_are_had_as_they_were_approved() {
    let everything = Everything::start().await;
    let prompts = everything.prompts().await;
    let approved = |name: &str, tier: &str| {
        let definition = prompts.iter().find(|prompt| prompt["name"] == name).unwrap();
        let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
        json!({ "tier": tier, "prompt_digest": digest, "definition": definition })
    };
    let more = json!({
        "prompts": [approved("simple-prompt", "low"), approved("args-prompt", "medium")],
        "resources": [
            { "uri": TEXTS, "name": "Texts", "tier": "low" },
            { "uri": "demo://resource/static/document/*", "tier": "medium" },
        ],
    });
    let guarded = LiveGuard::start_with(&[], &more, &["--upstream", &everything.url]).await;
    let session = begin_offering(&guarded, &["prompts", "resources", "tools"]).await;
    let here = [("mcp-session-id", session.as_str())];
    let look = async |who: &str, method: &str, member: &str, name: &str| -> Vec<String> {
        // Each has a session of his own; lists need none.
        let session: &[(&str, &str)] = if who == "alice" { &here } else { &[] };
        let token = guarded.token(who, &guarded.url, Detail::Listing).await;
        let answer = guarded.say(&token, session, &ask(method)).await;
        let listed = messages(&answer).pop().unwrap();
        let listed = listed["result"][member].as_array().unwrap_or_else(|| panic!("{listed}")).clone();
        listed.iter().map(|each| each[name].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(look("alice", "tools/list", "tools", "name").await, Vec::<String>::new());
    assert_eq!(look("alice", "prompts/list", "prompts", "name").await, ["simple-prompt", "args-prompt"]);
    let templates = look("alice", "resources/templates/list", "resourceTemplates", "uriTemplate").await;
    assert_eq!(templates, ["demo://resource/dynamic/text/{resourceId}"], "and no blobs");
    let resources = look("alice", "resources/list", "resources", "uri").await;
    assert!(!resources.is_empty());
    assert!(resources.iter().all(|uri| uri.starts_with("demo://resource/static/document/")), "{resources:?}");

    // Prompts: L1, L3, and the neighbours that are refused.
    let simple = guarded.material("alice", (GetPrompt, "simple-prompt"), None).await.unwrap();
    let said = guarded.say(&simple, &here, &prompt("simple-prompt", &json!({}))).await;
    assert!(
        messages(&said).pop().unwrap()["result"]["messages"][0]["content"]["text"].is_string(),
        "{said:?}"
    );
    let bonn = json!({ "city": "Bonn" });
    let once = guarded.material("alice", (GetPrompt, "args-prompt"), Some(&bonn)).await.unwrap();
    let kiel = guarded.say(&once, &here, &prompt("args-prompt", &json!({ "city": "Kiel" }))).await;
    assert_eq!((kiel.status, kiel.error_code().as_deref()), (403, Some("insufficient_scope")));
    let said = guarded.say(&once, &here, &prompt("args-prompt", &bonn)).await;
    assert!(messages(&said).pop().unwrap().to_string().contains("Bonn"), "{said:?}");
    assert_eq!(guarded.say(&once, &here, &prompt("args-prompt", &bonn)).await.status, 401, "once");
    assert_eq!(
        guarded.say(&simple, &here, &prompt("args-prompt", &bonn)).await.status,
        403,
        "another prompt"
    );
    assert_eq!(
        guarded.say(&simple, &here, &call("simple-prompt", &json!({}))).await.status,
        403,
        "as a tool"
    );
    for refused in [
        guarded.material("alice", (GetPrompt, "completable-prompt"), Some(&json!({}))).await,
        guarded.material("alice", (GetPrompt, "args-prompt"), Some(&json!({ "city": 1 }))).await,
        guarded.material("alice", (CallTool, "simple-prompt"), None).await,
    ] {
        assert!(matches!(refused, Err(ExchangeError::InvalidAuthorizationDetails(_))), "{refused:?}");
    }

    // Resources: what the prefix names, and nothing that leads out of it.
    let one = "demo://resource/dynamic/text/1";
    let token = guarded.material("alice", (ReadResource, one), None).await.unwrap();
    for _ in 0..2 {
        let said = guarded.say(&token, &here, &read(one)).await;
        assert_eq!(messages(&said).pop().unwrap()["result"]["contents"][0]["uri"], one, "{said:?}");
    }
    let document = resources[0].as_str();
    let once = guarded.material("alice", (ReadResource, document), Some(&json!({}))).await.unwrap();
    let said = guarded.say(&once, &here, &read(document)).await;
    assert!(messages(&said).pop().unwrap()["result"]["contents"][0]["text"].is_string(), "{said:?}");
    assert_eq!(guarded.say(&once, &here, &read(document)).await.status, 401, "once");
    for other in [
        "demo://resource/dynamic/text/2",
        "demo://resource/dynamic/text/./1",
        "demo://resource/dynamic/text/%31",
        "demo://resource/dynamic/blob/1",
        "DEMO://resource/dynamic/text/1",
        "file:///etc/passwd",
    ] {
        let refused = guarded.say(&token, &here, &read(other)).await;
        assert_eq!(
            (refused.status, refused.error_code().as_deref()),
            (403, Some("insufficient_scope")),
            "{other}"
        );
    }
    for outside in [
        "file:///etc/passwd",
        "demo://resource/dynamic/text/../blob/1",
        "demo://resource/dynamic/text/%2e%2e/blob/1",
        "demo://resource/dynamic/text/",
        "demo://resource/dynamic/blob/1",
        "demo://user@resource/dynamic/text/1",
    ] {
        let refused = guarded.material("alice", (ReadResource, outside), Some(&json!({}))).await;
        assert!(
            matches!(refused, Err(ExchangeError::InvalidAuthorizationDetails(_))),
            "{outside}: {refused:?}"
        );
    }
    for method in ["resources/subscribe", "completion/complete"] {
        let mut message = ask(method);
        message["params"] = json!({ "uri": one });
        assert_eq!(guarded.say(&guarded.look().await, &here, &message).await.status, 403, "{method}");
    }
}

#[tokio::test]
async fn each_caller_sees_what_he_may_use_and_nothing_else() {
    let everything = Everything::start().await;
    let tools: Vec<Value> = everything
        .tools()
        .await
        .into_iter()
        .map(|definition| {
            let (tier, effect, data_class) = match definition["name"].as_str().unwrap() {
                "echo" => ("low", "read", "internal"),
                "get-sum" => ("low", "write", "internal"),
                _ => ("low", "read", "restricted"),
            };
            let tool_digest = tool_digest(definition.as_object().unwrap()).unwrap();
            json!({ "tier": tier, "effect": effect, "data_class": data_class, "tool_digest": tool_digest,
                "definition": definition })
        })
        .collect();
    let all = tools.len();
    let guarded =
        LiveGuard::start_with(&[], &json!({ "tools": tools }), &["--upstream", &everything.url]).await;
    let mut seen = Vec::new();
    for who in ["alice", "bob", "carol"] {
        let token = guarded.token(who, &guarded.url, Detail::Listing).await;
        let mut begin = ask("initialize");
        begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "agent", "version": "1" } });
        let begun = guarded.say(&token, &[], &begin).await;
        let here = [("mcp-session-id", begun.header("mcp-session-id").unwrap())];
        // The server offers some of its tools only once a session is begun whole.
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(guarded.say(&token, &here, &ready).await.status, 202);
        let listed = messages(&guarded.say(&token, &here, &ask("tools/list")).await).pop().unwrap();
        let names = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}")).clone();
        seen.push(names.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    }
    assert_eq!(seen[0], ["echo", "get-sum"], "support reads up to confidential, and writes what is small");
    assert_eq!(seen[1], ["echo"], "an analyst writes nothing");
    assert_eq!(seen[2].len(), all, "an administrator may all");
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
    begin_offering(guarded, &["tools"]).await
}

/// As [`begin`], where these capabilities are offered.
async fn begin_offering(guarded: &LiveGuard, expected: &[&str]) -> String {
    let mut begin = ask("initialize");
    begin["params"] = json!({ "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {}, "sampling": {} },
        "clientInfo": { "name": "agent", "version": "1" } });
    let answer = guarded.say(&guarded.look().await, &[], &begin).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    let result = messages(&answer).pop().unwrap();
    let mut offered: Vec<&String> = result["result"]["capabilities"].as_object().unwrap().keys().collect();
    offered.sort_unstable();
    // The log of a session goes through wherever a server has one.
    offered.retain(|name| *name != "logging");
    assert_eq!(offered, expected, "only what goes through is offered");
    assert!(result["result"]["capabilities"]["resources"].get("subscribe").is_none());
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

    /// The tools that it lists to a client that can answer questions, as an operator would look at it.
    async fn tools(&self) -> Vec<Value> {
        self.list("tools").await
    }

    /// Likewise its prompts.
    async fn prompts(&self) -> Vec<Value> {
        self.list("prompts").await
    }

    async fn list(&self, what: &str) -> Vec<Value> {
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
        let listed = say(ask(&format!("{what}/list"))).await;
        listed["result"][what].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
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

const TEXTS: &str = "demo://resource/dynamic/text/*";
