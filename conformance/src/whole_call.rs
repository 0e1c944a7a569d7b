//! Everything that a guarded call passes, each in a process of its own: the broker, the guard, the server. For
//! benchmarks: requests are made beforehand, sent in a closed loop over connections that are kept, and the CPU time of
//! each process is taken.

use crate::{
    exchange::Lab,
    forge::{Key, encode, now, unique},
    measure::cpu_seconds,
    process::Process,
    wire::{Endpoint, Request, Response},
    world::{CRM, World},
};
use deputize_call::digest::sha256;
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Instant,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Broker, guard and server, and an agent with alice's tokens.
pub struct WholeCall {
    /// The broker.
    pub lab: Arc<Lab>,
    holder: Key,
    guard: Process,
    guard_door: Endpoint,
    server: Child,
    server_door: Endpoint,
    _folder: TempDir,
}

/// What a round took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// CPU time of the broker for one request, in microseconds.
    pub broker_us: f64,
    /// The same of the guard.
    pub guard_us: f64,
    /// The same of the server.
    pub server_us: f64,
    /// The same of the client, with the harness.
    pub client_us: f64,
    /// Requests a second.
    pub rate: f64,
    /// Whether it counts for nothing: an answer was not the expected one, or the client needed over 0.9 of a core.
    pub void: bool,
}

/// One of the calls that are made.
#[derive(Debug, Clone, Copy)]
pub enum Called {
    /// Looking a customer up, with a token for the tool.
    Tool,
    /// A refund, with a token for this one call.
    Once,
}

impl WholeCall {
    /// Starts all of it, with about a hundred policies in force. Where this process was started as the server, it is
    /// that and never returns.
    pub async fn start() -> Self {
        if let Ok(definitions) = std::env::var(AS_SERVER) {
            serve(&definitions).await;
        }
        let mut world = World::new().await;
        world.add_policies(97);
        let lab = Lab::start(world).await;
        let folder = tempfile::tempdir().unwrap();
        let (server, server_url) = start_server(&lab, folder.path());
        let limits = json!({ "calls_per_minute": 100_000_000, "burst": 1_000_000, "concurrent": 1000 });
        let settings = json!({ "upstream": server_url, "limits": limits });
        let (guard, guard_door) = lab.world.start_guard(("crm", CRM), &settings, folder.path()).await;
        let server_door = Endpoint::new(&server_url.parse().unwrap(), None);
        let (lab, holder) = (Arc::new(lab), Key::es256());
        Self { lab, holder, guard, guard_door, server, server_door, _folder: folder }
    }

    /// Exchanges for so many tokens; the tokens and what it took. User tokens, assertions and proofs are each their own.
    pub async fn exchange(&self, called: Called, number: usize) -> (Vec<String>, Cost) {
        let nonce = self.lab.nonce().await;
        let template = self.lab.template("desk", &self.lab.world.user_token("alice"));
        let requests = (0..number).map(|_| {
            let mut exchange = template.clone();
            exchange.set("subject_token", &self.lab.world.user_token("alice"));
            exchange.set("client_assertion", &self.lab.assertion("desk"));
            exchange.prove(vec![self.holder.proof(&self.lab.proof_claims(&nonce))]);
            match called {
                Called::Tool => exchange.tool(CRM, called.name()),
                Called::Once => exchange.call(CRM, called.name(), &called.arguments()),
            };
            exchange.request()
        });
        let requests = requests.collect();
        let (answers, cost) = self.round(&self.lab.world.door, requests).await;
        let token = |answer: &Response| answer.json()["access_token"].as_str().map(str::to_owned);
        let tokens: Vec<String> = answers.iter().filter_map(token).collect();
        let void = cost.void || tokens.len() != number;
        (tokens, Cost { void, ..cost })
    }

    /// Calls through the guard, once with each of these tokens.
    pub async fn call(&self, called: Called, tokens: &[String]) -> Cost {
        let challenge = self.guard_door.send(&call(called, 0, None)).await.unwrap();
        let nonce = challenge.header("dpop-nonce").expect("a nonce").to_owned();
        let proof = |token: &str| {
            self.holder.proof(&json!({
                "htm": "POST", "htu": CRM, "iat": now(), "jti": unique(), "nonce": nonce,
                "ath": encode(sha256(token.as_bytes())),
            }))
        };
        let request = |(n, token): (usize, &String)| call(called, n, Some((token, &proof(token))));
        let requests = tokens.iter().enumerate().map(request).collect();
        self.judged(self.round(&self.guard_door, requests).await)
    }

    /// The same calls without a guard.
    pub async fn bare(&self, called: Called, number: usize) -> Cost {
        let requests = (0..number).map(|n| call(called, n, None)).collect();
        self.judged(self.round(&self.server_door, requests).await)
    }

    fn judged(&self, (answers, cost): (Vec<Response>, Cost)) -> Cost {
        let is_result = |answer: &Response| answer.status == 200 && answer.json()["result"].is_object();
        let wrong = answers.iter().find(|answer| !is_result(answer));
        if let Some(wrong) = wrong {
            #[expect(clippy::print_stderr, reason = "whoever runs a benchmark is told why it is void")]
            {
                eprintln!("not the answer that was expected: {wrong:?}\n{}", self.guard.said());
            }
        }
        Cost { void: cost.void || wrong.is_some(), ..cost }
    }

    async fn round(&self, door: &Endpoint, requests: VecDeque<Request>) -> (Vec<Response>, Cost) {
        let number = requests.len();
        let queue = Arc::new(Mutex::new(requests));
        let processes =
            [self.lab.started.process.id(), self.guard.id(), self.server.id(), std::process::id()];
        #[expect(clippy::disallowed_methods, reason = "a benchmark measures in real time")]
        let start = Instant::now();
        let before = processes.map(cpu_seconds);
        let mut callers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (door, queue) = (door.clone(), Arc::clone(&queue));
            callers.spawn(async move {
                let (mut connection, mut answers) = (door.connect().await.unwrap(), Vec::new());
                while let Some(request) = { queue.lock().unwrap().pop_front() } {
                    answers.push(connection.send(&request).await.unwrap());
                }
                answers
            });
        }
        let answers: Vec<Response> = callers.join_all().await.into_iter().flatten().collect();
        let wall = start.elapsed().as_secs_f64();
        let after = processes.map(cpu_seconds);
        let each = |n: usize| (after[n] - before[n]) * 1e6 / number as f64;
        let refused = answers.iter().filter(|answer| answer.status != 200).count();
        let cost = Cost {
            broker_us: each(0),
            guard_us: each(1),
            server_us: each(2),
            client_us: each(3),
            rate: number as f64 / wall,
            void: refused > 0 || (after[3] - before[3]) / wall > 0.9,
        };
        (answers, cost)
    }
}

impl Drop for WholeCall {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Called {
    fn name(self) -> &'static str {
        match self {
            Self::Tool => "find_customer",
            Self::Once => "refund_payment",
        }
    }

    fn arguments(self) -> Value {
        match self {
            Self::Tool => json!({ "name": "Grace" }),
            Self::Once => json!({ "payment_id": "pay_81", "amount_cents": 4200 }),
        }
    }
}

fn call(called: Called, id: usize, credentials: Option<(&str, &str)>) -> Request {
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": called.name(), "arguments": called.arguments() } });
    let mut request = Request::get("/mcp");
    request.method = "POST".to_owned();
    request.body = message.to_string().into_bytes();
    let mut header = |name: &str, value: String| request.headers.push((name.to_owned(), value));
    header("content-type", "application/json".to_owned());
    header("accept", "application/json, text/event-stream".to_owned());
    if let Some((token, proof)) = credentials {
        header("authorization", format!("DPoP {token}"));
        header("dpop", proof.to_owned());
    }
    request
}

/// This program again, as the server.
fn start_server(lab: &Lab, folder: &Path) -> (Child, String) {
    let file = folder.join("definitions.json");
    std::fs::write(&file, Value::from(lab.world.definitions("crm")).to_string()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(AS_SERVER, &file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (child, url.trim().to_owned())
}

/// An MCP server that does next to nothing, so that what is before it counts.
async fn serve(definitions: &str) -> ! {
    let definitions: Value = serde_json::from_slice(&std::fs::read(definitions).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    #[expect(clippy::print_stdout, reason = "whoever started it reads where it is")]
    {
        println!("http://{}/mcp", listener.local_addr().unwrap());
    }
    let definitions = Arc::new(definitions);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(answer(stream, Arc::clone(&definitions)));
    }
}

async fn answer(mut stream: TcpStream, definitions: Arc<Value>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut buffered, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        while let Some((body, rest)) = first_request(&buffered) {
            let message: Value = serde_json::from_slice(&buffered[body.clone()]).unwrap_or_default();
            buffered.drain(..rest);
            let text = match message["method"].as_str() {
                Some("tools/call") => {
                    result(&message, &json!({ "content": [{ "type": "text", "text": "done" }] }))
                }
                Some("tools/list") => result(&message, &json!({ "tools": *definitions })),
                Some("initialize") => result(
                    &message,
                    &json!({ "protocolVersion": "2025-11-25",
                    "capabilities": { "tools": {} }, "serverInfo": { "name": "bench", "version": "1" } }),
                ),
                Some("server/discover") => json!({ "jsonrpc": "2.0", "id": message["id"],
                    "error": { "code": -32601, "message": "method not found" } })
                .to_string(),
                _ => String::new(),
            };
            let status = if text.is_empty() { "202 Accepted" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            stream.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await.ok()?;
        }
        match stream.read(&mut chunk).await.ok()? {
            0 => return None,
            read => buffered.extend_from_slice(&chunk[..read]),
        }
    }
}

fn result(message: &Value, result: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string()
}

/// Where the body of the first request lies, and where the next request begins, once it is there.
fn first_request(buffered: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    let end = buffered.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffered[..end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    (buffered.len() >= end + length).then_some((end..end + length, end + length))
}

/// Set to the file of its definitions, it makes this program the server.
const AS_SERVER: &str = "DEPUTIZE_BENCH_SERVER";
const CONNECTIONS: usize = 32;
