//! HTTP/1.1 by hand, so that a request can be as wrong as it has to be.

use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use url::Url;

/// Where to connect, and how.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port` as it stands in `Host`.
    pub authority: String,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Tcp(String),
    Tls(String, ServerName<'static>, Arc<ClientConfig>),
    Unix(PathBuf),
}

/// One request, nothing in it checked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Request target as sent.
    pub target: String,
    /// Header fields in order; `Host` and `Content-Length` are added unless they are here.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// A connection that is kept.
pub struct Connection {
    stream: Box<dyn Stream>,
    authority: String,
    buffered: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Endpoint {
    /// The endpoint of `url`; `https` needs the configuration that trusts it.
    pub fn new(url: &Url, tls: Option<Arc<ClientConfig>>) -> Self {
        let host = url.host_str().expect("a host").to_owned();
        let authority = format!("{host}:{}", url.port_or_known_default().expect("a port"));
        let way = match url.scheme() {
            "https" => {
                let name = ServerName::try_from(host).expect("a name");
                Way::Tls(authority.clone(), name, tls.expect("a TLS configuration"))
            }
            _ => Way::Tcp(authority.clone()),
        };
        Self { authority, way }
    }

    /// The endpoint at a Unix socket.
    pub fn unix(path: &Path) -> Self {
        Self { authority: "localhost".into(), way: Way::Unix(path.to_owned()) }
    }

    /// Connects, retrying nothing.
    pub async fn connect(&self) -> io::Result<Connection> {
        let tcp = async |address: &str| {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            io::Result::Ok(tcp)
        };
        let stream: Box<dyn Stream> = match &self.way {
            Way::Tcp(address) => Box::new(tcp(address).await?),
            Way::Tls(address, name, config) => {
                Box::new(TlsConnector::from(config.clone()).connect(name.clone(), tcp(address).await?).await?)
            }
            Way::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(Connection { stream, authority: self.authority.clone(), buffered: Vec::new() })
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: &Request) -> io::Result<Response> {
        self.connect().await?.send(request).await
    }
}

impl Request {
    /// A request without body.
    pub fn get(target: &str) -> Self {
        Self { method: "GET".into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A form.
    pub fn form(target: &str, form: &[(String, String)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let media_type = ("content-type".into(), "application/x-www-form-urlencoded".into());
        Self {
            method: "POST".into(),
            target: target.into(),
            headers: vec![media_type],
            body: body.into_bytes(),
        }
    }

    fn bytes(&self, authority: &str) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !has("host") {
            head += &format!("host: {authority}\r\n");
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

impl Response {
    /// The first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `error` of the body.
    pub fn error_code(&self) -> Option<String> {
        self.json()["error"].as_str().map(str::to_owned)
    }
}

impl Connection {
    /// One request and its answer, in at most thirty seconds.
    pub async fn send(&mut self, request: &Request) -> io::Result<Response> {
        // A server may refuse by its answer alone, before it has read everything.
        let written = self.write(request).await;
        let answer = self.answer().await;
        answer.or_else(|error| written.and(Err(error)))
    }

    /// Writes a request whole.
    pub async fn write(&mut self, request: &Request) -> io::Result<()> {
        self.write_bytes(&request.bytes(&self.authority)).await
    }

    /// Writes these bytes, whatever they are.
    pub async fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(ANSWER_WITHIN, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await?
    }

    /// The next answer, in at most thirty seconds.
    pub async fn answer(&mut self) -> io::Result<Response> {
        self.answer_within(ANSWER_WITHIN).await
    }

    /// The next answer, to what takes its time.
    pub async fn answer_within(&mut self, patience: Duration) -> io::Result<Response> {
        tokio::time::timeout(patience, self.read()).await?
    }

    /// The next answer, while one byte after another is sent; a connection that is closed is left.
    pub async fn answer_while_dripping(&mut self, drip: &[u8], every: Duration) -> io::Result<Response> {
        for byte in drip {
            if let Ok(answer) = tokio::time::timeout(every, self.read()).await {
                return answer;
            }
            // Where this fails, reading says how the connection ended.
            let _ = self.stream.write_all(&[*byte]).await;
        }
        self.answer().await
    }

    /// One request whose answer has no end: its head alone. [`Connection::chunk`] reads on.
    pub async fn open(&mut self, request: &Request) -> io::Result<Response> {
        let bytes = request.bytes(&self.authority);
        tokio::time::timeout(ANSWER_WITHIN, async {
            self.stream.write_all(&bytes).await?;
            self.head().await
        })
        .await?
    }

    /// The next chunk of an answer; empty at its end.
    pub async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.buffered.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            self.fill().await?;
        };
        let line = self.take(end + 2).await?;
        let length =
            usize::from_str_radix(&String::from_utf8_lossy(&line[..end]), 16).map_err(io::Error::other)?;
        let mut chunk = self.take(length + 2).await?;
        chunk.truncate(length);
        Ok(chunk)
    }

    async fn read(&mut self) -> io::Result<Response> {
        let mut response = self.head().await?;
        response.body = if response.header("transfer-encoding") == Some("chunked") {
            self.chunks().await?
        } else {
            let length =
                response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            self.take(length).await?
        };
        Ok(response)
    }

    async fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(at) = self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.fill().await?;
        };
        let head = String::from_utf8_lossy(&self.buffered[..end]).into_owned();
        self.buffered.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head}")))?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Response { status, headers, body: Vec::new() })
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffered.len() < length {
            self.fill().await?;
        }
        Ok(self.buffered.drain(..length).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffered.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

/// How long an answer may take on a loaded machine before a test gives up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
