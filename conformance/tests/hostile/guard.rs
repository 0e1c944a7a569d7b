//! What a guard refuses (H-30, H-31, H-33), and what becomes of a server that misbehaves behind it (H-34).

use crate::Answers;
use deputize_call::{action::Action, digest::prompt_digest};
use deputize_client::Detail;
use deputize_conformance::{
    ill_server::IllServer,
    live_guard::{GuardRequest, LiveGuard, ask, call, prompt as get, read},
    wire::Response,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A guard before a server that does as it is told.
pub(crate) struct GuardLab {
    guarded: LiveGuard,
    server: IllServer,
    accepted: AtomicUsize,
    _settings: tempfile::TempDir,
}

/// A case of a guard.
pub(crate) struct GuardCase {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<GuardLab>) -> Answers,
}

macro_rules! guard_cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[GuardCase] = &[$(GuardCase {
            name: concat!("guard::", stringify!($name)),
            run: |lab| Box::pin(async move { $name(&lab).await }),
        }),+];
    };
}

guard_cases![
    other_tool,
    changed_argument,
    added_argument,
    removed_argument,
    reordered_is_equal,
    number_written_otherwise,
    second_use,
    at_another_server,
    after_revocation,
    name_unlike_body,
    batch,
    id_as_object,
    two_methods,
    notification_with_a_call,
    trailing_bytes,
    compressed,
    chunk_extension,
    listing_with_a_calls_token,
    list_without_rights,
    resource_outside,
    prompt,
    sampling_in_a_result,
    hundred_megabytes,
    endless,
    hangs,
    dies,
    another_id,
    no_json,
    html,
];

impl GuardLab {
    pub(crate) async fn start() -> Self {
        let server = IllServer::start().await;
        let settings = tempfile::tempdir().unwrap();
        let file = settings.path().join("guard.yaml");
        std::fs::write(&file, "limits: { answer_seconds: 5, calls_per_minute: 6000, burst: 1000 }\n")
            .unwrap();
        let arguments = ["--upstream", &server.url, "--config", file.to_str().unwrap()];
        let guarded = LiveGuard::start_with(&IllServer::definitions(), &material(), &arguments).await;
        Self { guarded, server, accepted: AtomicUsize::new(0), _settings: settings }
    }

    /// Runs a case and looks at what must hold afterwards: the answers are those of the catalogue, nothing ran but
    /// what was granted, and the next honest call does.
    pub(crate) async fn judge(self: &Arc<Self>, case: &GuardCase, expected: &str) -> Result<(), String> {
        let before = (self.server.runs(), self.accepted.load(Ordering::SeqCst));
        let run = tokio::spawn((case.run)(Arc::clone(self))).await;
        let answers = run.map_err(|panic| crate::panic_message(panic.into_panic()))?;
        crate::verdict::check_guard_answers(&answers, expected)?;
        let honest = self.honest(&refund()).await;
        if honest.status != 200 {
            return Err(format!("the next honest call got {}: {}", honest.status, honest.json()));
        }
        let ran = (self.server.runs() - before.0, self.accepted.load(Ordering::SeqCst) - before.1);
        if ran.0 == ran.1 { Ok(()) } else { Err(format!("{} calls ran, {} were accepted", ran.0, ran.1)) }
    }

    pub(crate) fn said(&self) -> String {
        self.guarded.process.said()
    }

    async fn honest(&self, arguments: &Value) -> Response {
        let token = self.guarded.call("echo", arguments).await;
        self.count(self.guarded.say(&token, &[], &call("echo", arguments)).await)
    }

    /// A call of `echo` with a token for [`refund`], its body as given.
    async fn instead(&self, body: &[u8]) -> Response {
        self.count(self.guarded.send(&self.spoiled(body).await).await)
    }

    async fn spoiled(&self, body: &[u8]) -> GuardRequest {
        let token = self.guarded.call("echo", &refund()).await;
        self.guarded.request("POST", &token, body).await
    }

    fn count(&self, answer: Response) -> Response {
        if answer.status == 200 {
            self.accepted.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }

    async fn looking(&self, message: &Value) -> Response {
        self.guarded.say(&self.guarded.look().await, &[], message).await
    }

    async fn ill(&self, how: &str) -> Vec<Response> {
        let arguments = json!({ "how": how });
        let token = self.guarded.call("ill", &arguments).await;
        vec![self.guarded.say(&token, &[], &call("ill", &arguments)).await]
    }
}

/// Prompts and resources of the server: what alice may have, and what nobody of her role may.
fn material() -> Value {
    let [greet, vault] = IllServer::prompts().map(|definition| {
        let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
        json!({ "tier": "low", "prompt_digest": digest, "definition": definition })
    });
    let mut secret = vault;
    secret["data_class"] = json!("restricted");
    json!({
        "prompts": [greet, secret],
        "resources": [
            { "uri": "demo://docs/*", "tier": "low" },
            { "uri": "demo://vault/*", "tier": "low", "data_class": "restricted" },
        ],
    })
}

fn refund() -> Value {
    json!({ "text": "pay_81", "number": 4200 })
}

fn good() -> String {
    call("echo", &refund()).to_string()
}

async fn other_tool(lab: &GuardLab) -> Vec<Response> {
    vec![lab.instead(call("ill", &json!({})).to_string().as_bytes()).await]
}

async fn with_arguments(lab: &GuardLab, all: &[Value]) -> Vec<Response> {
    let mut answers = Vec::new();
    for arguments in all {
        answers.push(lab.instead(call("echo", arguments).to_string().as_bytes()).await);
    }
    answers
}

async fn changed_argument(lab: &GuardLab) -> Vec<Response> {
    with_arguments(
        lab,
        &[json!({ "text": "pay_82", "number": 4200 }), json!({ "text": "pay_81", "number": 4201 })],
    )
    .await
}

async fn added_argument(lab: &GuardLab) -> Vec<Response> {
    let added = json!({ "text": "pay_81", "number": 4200, "also": "" });
    with_arguments(lab, &[added, json!({ "text": "pay_81", "number": 4200, "unknown": 1 })]).await
}

async fn removed_argument(lab: &GuardLab) -> Vec<Response> {
    with_arguments(lab, &[json!({ "text": "pay_81" }), json!({})]).await
}

/// Members in another order are the same call: it runs, and then it has run.
async fn reordered_is_equal(lab: &GuardLab) -> Vec<Response> {
    let token = lab.guarded.call("echo", &refund()).await;
    let body = r#"{"params":{"arguments":{"number":4200,"text":"pay_81"},"name":"echo"},"method":"tools/call","id":1,"jsonrpc":"2.0"}"#;
    let send = async || lab.guarded.send(&lab.guarded.request("POST", &token, body.as_bytes()).await).await;
    let first = lab.count(send().await);
    assert_eq!(first.status, 200, "{first:?}");
    vec![send().await]
}

/// JCS decides what is the same number.
async fn number_written_otherwise(lab: &GuardLab) -> Vec<Response> {
    for same in ["4200.0", "4.2e3", "42000e-1"] {
        let answer = lab.instead(good().replace("4200", same).as_bytes()).await;
        assert_eq!(answer.status, 200, "{same}: {answer:?}");
    }
    let mut answers = Vec::new();
    for other in ["4200.5", "-4200", "42e3"] {
        answers.push(lab.instead(good().replace("4200", other).as_bytes()).await);
    }
    answers
}

async fn second_use(lab: &GuardLab) -> Vec<Response> {
    let token = lab.guarded.call("echo", &refund()).await;
    let message = call("echo", &refund());
    let first = lab.count(lab.guarded.say(&token, &[], &message).await);
    assert_eq!(first.status, 200, "{first:?}");
    vec![lab.guarded.say(&token, &[], &message).await]
}

async fn at_another_server(lab: &GuardLab) -> Vec<Response> {
    let (crm, tool) =
        (lab.guarded.dev.text("/servers/0/resource"), lab.guarded.dev.text("/servers/0/tools/0/name"));
    let token = lab.guarded.token("alice", crm, Detail::Tool { name: tool.to_owned() }).await;
    vec![lab.guarded.say(&token, &[], &call("echo", &refund())).await]
}

async fn after_revocation(lab: &GuardLab) -> Vec<Response> {
    let token = lab.guarded.tool("echo").await;
    let message = call("echo", &refund());
    let good = lab.count(lab.guarded.say(&token, &[], &message).await);
    assert_eq!(good.status, 200, "{good:?}");
    lab.guarded.client.revoke(token.access_token()).await.unwrap();
    // It reaches the guard within moments.
    for _ in 0..500 {
        let answer = lab.count(lab.guarded.say(&token, &[], &message).await);
        if answer.status != 200 {
            return vec![answer];
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Vec::new()
}

async fn name_unlike_body(lab: &GuardLab) -> Vec<Response> {
    let mut answers = Vec::new();
    for (header, value) in [("mcp-name", "ill"), ("mcp-method", "tools/list"), ("mcp-param-text", "pay_81")] {
        let mut request = lab.spoiled(good().as_bytes()).await;
        request.header(header, value);
        answers.push(lab.count(lab.guarded.send(&request).await));
    }
    answers
}

async fn batch(lab: &GuardLab) -> Vec<Response> {
    vec![
        lab.instead(format!("[{},{}]", good(), good()).as_bytes()).await,
        lab.instead(format!("[{}]", good()).as_bytes()).await,
    ]
}

async fn id_as_object(lab: &GuardLab) -> Vec<Response> {
    let mut answers = Vec::new();
    for id in [json!({}), json!([1]), json!(null), json!(1.5)] {
        let mut message = call("echo", &refund());
        message["id"] = id;
        answers.push(lab.instead(message.to_string().as_bytes()).await);
    }
    answers
}

async fn two_methods(lab: &GuardLab) -> Vec<Response> {
    let twice = good().replacen("\"method\"", "\"method\":\"ping\",\"method\"", 1);
    vec![lab.instead(twice.as_bytes()).await]
}

async fn notification_with_a_call(lab: &GuardLab) -> Vec<Response> {
    let mut message = call("echo", &refund());
    message.as_object_mut().unwrap().remove("id");
    vec![lab.instead(message.to_string().as_bytes()).await]
}

async fn trailing_bytes(lab: &GuardLab) -> Vec<Response> {
    vec![
        lab.instead(format!("{} x", good()).as_bytes()).await,
        lab.instead(format!("{}{}", good(), good()).as_bytes()).await,
        lab.instead(format!("{}\0", good()).as_bytes()).await,
    ]
}

async fn compressed(lab: &GuardLab) -> Vec<Response> {
    let mut answers = Vec::new();
    for encoding in ["gzip", "br", "identity, gzip"] {
        let mut request = lab.spoiled(good().as_bytes()).await;
        request.header("content-encoding", encoding);
        answers.push(lab.count(lab.guarded.send(&request).await));
    }
    answers
}

async fn chunk_extension(lab: &GuardLab) -> Vec<Response> {
    let good = good();
    let body = format!("{:x};{}\r\n{good}\r\n0\r\n\r\n", good.len(), "x".repeat(1 << 20));
    let mut request = lab.spoiled(body.as_bytes()).await;
    request.header("transfer-encoding", "chunked");
    vec![lab.count(lab.guarded.try_send(&request).await.unwrap())]
}

async fn listing_with_a_calls_token(lab: &GuardLab) -> Vec<Response> {
    let token = lab.guarded.tool("echo").await;
    let mut answers = Vec::new();
    for method in ["tools/list", "initialize", "server/discover"] {
        answers.push(lab.guarded.say(&token, &[], &ask(method)).await);
    }
    answers
}

/// A list shows nothing that its caller has no right to, and a token that looks does not have it either.
async fn list_without_rights(lab: &GuardLab) -> Vec<Response> {
    for (method, member, expected) in [
        ("prompts/list", "prompts", json!(["greet"])),
        ("resources/list", "resources", json!(["demo://docs/a"])),
        ("tools/list", "tools", json!(["echo", "ill"])),
    ] {
        let answer = lab.looking(&ask(method)).await;
        let listed = answer.json()["result"][member].clone();
        let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|each| &each["name"]).collect();
        assert_eq!(json!(names), expected, "{method}: {listed}");
        assert!(!answer.json().to_string().contains("vault"));
    }
    vec![lab.looking(&get("vault", &json!({}))).await, lab.looking(&read("demo://vault/a")).await]
}

async fn resource_outside(lab: &GuardLab) -> Vec<Response> {
    let mut answers = Vec::new();
    let token = lab.guarded.material("alice", (Action::ReadResource, "demo://docs/a"), None).await.unwrap();
    for uri in [
        "file:///etc/passwd",
        "file:///srv/../etc/passwd",
        "http://169.254.169.254/",
        "demo://docs/../etc/passwd",
        "demo://docs/%2e%2e/etc/passwd",
        "demo://docs/..;/etc/passwd",
        "demo://docs\\..\\etc",
        "demo://user@docs/a",
        "demo://docs/./a",
        "DEMO://docs/a",
        "demo://docs/b",
        "demo://docs/a/",
        "demo://docs//a",
        "demo://docs",
        "demo://vault",
        "echo",
    ] {
        let message = read(uri);
        answers.push(lab.looking(&message).await);
        answers.push(lab.guarded.say(&lab.guarded.tool("echo").await, &[], &message).await);
        answers.push(lab.guarded.say(&token, &[], &message).await);
    }
    answers
}

async fn prompt(lab: &GuardLab) -> Vec<Response> {
    let mut answers = Vec::new();
    for method in [
        "prompts/get",
        "completion/complete",
        "resources/subscribe",
        "sampling/createMessage",
        "tasks/result",
    ] {
        let mut message = ask(method);
        message["params"] = json!({ "name": "greet" });
        answers.push(lab.looking(&message).await);
    }
    let guarded = &lab.guarded;
    let greet = guarded.material("alice", (Action::GetPrompt, "greet"), None).await.unwrap();
    for message in [get("echo", &json!({})), call("greet", &json!({})), read("demo://docs/a")] {
        answers.push(guarded.say(&greet, &[], &message).await);
    }
    answers.push(guarded.say(&guarded.tool("echo").await, &[], &get("greet", &json!({}))).await);
    answers
}

async fn sampling_in_a_result(lab: &GuardLab) -> Vec<Response> {
    lab.ill("sampling").await
}

async fn hundred_megabytes(lab: &GuardLab) -> Vec<Response> {
    lab.ill("hundred-megabytes").await
}

async fn endless(lab: &GuardLab) -> Vec<Response> {
    lab.ill("endless").await
}

async fn hangs(lab: &GuardLab) -> Vec<Response> {
    lab.ill("hang").await
}

async fn dies(lab: &GuardLab) -> Vec<Response> {
    lab.ill("die").await
}

async fn another_id(lab: &GuardLab) -> Vec<Response> {
    lab.ill("another-id").await
}

async fn no_json(lab: &GuardLab) -> Vec<Response> {
    lab.ill("no-json").await
}

async fn html(lab: &GuardLab) -> Vec<Response> {
    lab.ill("html").await
}
