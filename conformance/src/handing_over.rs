//! `deputize guard --aws-credentials` from outside, before a server that runs a call for as long as it is wanted to. On the
//! other side of it is a stand-in for the broker ([`HandingOver`]), or a broker ([`crate::guarded_aws`]).

use crate::{
    forge::{Key, encode, now, unique},
    ill_server::{IllServer, read, write},
    impostor::{Impostor, low},
    live_guard::{call, free_port},
    process::Process,
    trust::write_private,
    wire::{Endpoint, Request, Response},
};
use deputize_call::digest::sha256;
use serde_json::{Value, json};
use std::{io, path::Path};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc, oneshot},
    task::JoinHandle,
};
use url::Url;

/// A guard with what is before and behind it. It ends with this value.
pub struct HandingOver {
    /// The stand-in for the broker.
    pub impostor: Impostor,
    /// The guard.
    pub process: Process,
    /// Its state, and files of tests.
    pub folder: TempDir,
    url: Url,
    holder: Key,
    server: SlowServer,
}

/// An MCP server on loopback. A call of it runs until what it was handed is dropped.
pub struct SlowServer {
    /// URL of its MCP endpoint.
    pub url: String,
    handed: Mutex<mpsc::UnboundedReceiver<Handed>>,
}

/// A call under way.
pub struct UnderWay {
    /// Its token.
    pub token: String,
    /// Who called.
    pub client: JoinHandle<io::Result<Response>>,
    /// What its server was handed.
    pub handed: Handed,
}

/// What the server was handed with a call. Dropped, the call is answered.
pub struct Handed {
    /// `Deputize-Aws-Credentials-Uri`.
    pub uri: String,
    /// `Deputize-Aws-Authorization`.
    pub authorization: String,
    /// All of the request's head.
    pub head: String,
    _end: oneshot::Sender<()>,
}

impl HandingOver {
    /// Starts all of it.
    pub async fn start() -> Self {
        let (folder, impostor) = (tempfile::tempdir().unwrap(), Impostor::start().await);
        let server = SlowServer::start(IllServer::definitions().to_vec()).await;
        let url = Url::parse(&format!("http://127.0.0.1:{}/mcp", free_port())).unwrap();
        let mut document = impostor.document(url.as_str(), 1);
        document.tools = IllServer::definitions().iter().map(low).collect();
        impostor.say(&[impostor.signed(&document), ("alive", json!({}))]);
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        write_private(Path::new(&place("key.jwk")), &Key::es256().private_jwk().to_string());
        std::fs::write(place("snapshot.jwks"), impostor.snapshot_keys().to_jwks().to_string()).unwrap();
        let settings = json!({
            "upstream": server.url, "public_url": url, "issuer": impostor.issuer, "client_id": "crm",
            "key_file": place("key.jwk"), "snapshot_keys": place("snapshot.jwks"), "state_dir": place("state"),
            "listen": format!("127.0.0.1:{}", url.port().unwrap()), "aws_credentials": true,
        });
        std::fs::write(place("guard.yaml"), settings.to_string()).unwrap();
        let arguments = ["guard", "--config", &place("guard.yaml"), "--insecure-loopback"];
        let process = Process::start(&arguments, &folder.path().join("guard.log"));
        let this = Self { impostor, process, folder, url, holder: Key::es256(), server };
        let ready = || async {
            this.endpoint().send(&Request::get("/readyz")).await.is_ok_and(|said| said.status == 200)
        };
        this.process.wait_until(ready).await;
        this
    }

    /// Calls `echo`, and waits until the server has it.
    pub async fn call(&self) -> UnderWay {
        let cnf = json!({ "jkt": self.holder.thumbprint() });
        let token = self.impostor.token_for(self.url.as_str(), &IllServer::definitions()[0], &cnf);
        let challenge = self.endpoint().send(&self.request(&token, None)).await.unwrap();
        let request = self.request(&token, challenge.header("dpop-nonce"));
        let endpoint = self.endpoint();
        let client = tokio::spawn(async move { endpoint.send(&request).await });
        UnderWay { token, client, handed: self.server.called().await }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.url, None)
    }

    fn request(&self, token: &str, nonce: Option<&str>) -> Request {
        let proof = self.holder.proof(&json!({
            "htm": "POST", "htu": self.url, "iat": now(), "jti": unique(), "nonce": nonce,
            "ath": encode(sha256(token.as_bytes())),
        }));
        let mut request = Request::get("/mcp");
        request.method = "POST".to_owned();
        request.body = call("echo", &json!({ "text": "hello" })).to_string().into_bytes();
        for (name, value) in [
            ("content-type", "application/json"),
            ("authorization", &format!("DPoP {token}")),
            ("dpop", &proof),
            ("deputize-aws-credentials-uri", "http://127.0.0.1:1/forged"),
            ("deputize-aws-authorization", "forged"),
        ] {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        request
    }
}

impl SlowServer {
    /// Starts one with these tools. It ends with the runtime.
    pub async fn start(definitions: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (sender, handed) = mpsc::unbounded_channel();
        let tools = Value::from(definitions);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tools.clone(), sender.clone()));
            }
        });
        Self { url, handed: Mutex::new(handed) }
    }

    /// Waits for the next call, and what is handed over with it.
    pub async fn called(&self) -> Handed {
        self.handed.lock().await.recv().await.expect("the server has a call")
    }
}

impl Handed {
    /// Asks for the credentials as an SDK does.
    pub async fn ask(&self) -> Response {
        self.ask_with(&self.authorization).await
    }

    /// With another secret.
    pub async fn ask_with(&self, authorization: &str) -> Response {
        let url = Url::parse(&self.uri).unwrap();
        let mut request = Request::get(url.path());
        request.headers.push(("authorization".to_owned(), authorization.to_owned()));
        Endpoint::new(&url, None).send(&request).await.unwrap()
    }
}

impl UnderWay {
    /// The server answers; what the client got, and where the credentials were.
    pub async fn end(self) -> (Response, Handed) {
        let Handed { uri, authorization, head, _end } = self.handed;
        drop(_end);
        let answer = self.client.await.unwrap().unwrap();
        (answer, Handed { uri, authorization, head, _end: oneshot::channel().0 })
    }
}

async fn serve(mut stream: TcpStream, tools: Value, handed: mpsc::UnboundedSender<Handed>) {
    let mut buffered = Vec::new();
    while let Some((head, message)) = read(&mut stream, &mut buffered).await {
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "slow", "version": "1" } }),
            "tools/list" => json!({ "tools": tools }),
            "tools/call" => {
                let (end, ended) = oneshot::channel();
                let one = |name: &str| {
                    let lines = head.lines().filter_map(|line| line.split_once(": "));
                    let values: Vec<&str> = lines
                        .filter(|(each, _)| each.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value)
                        .collect();
                    let [value] = values.as_slice() else { panic!("{name} does not stand once: {head}") };
                    (*value).to_owned()
                };
                let (uri, authorization) =
                    (one("deputize-aws-credentials-uri"), one("deputize-aws-authorization"));
                // Nobody waits for it where the test is over.
                let _ = handed.send(Handed { uri, authorization, head, _end: end });
                let _ = ended.await;
                json!({ "content": [] })
            }
            _ => {
                write(&mut stream, "202 Accepted", "text/plain", b"").await;
                continue;
            }
        };
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        write(&mut stream, "200 OK", "application/json", answer.to_string().as_bytes()).await;
    }
}
