//! An HTTPS server on loopback for tests: it answers whatever it is told to, and keeps what it was asked.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A certification authority, in a file.
pub(super) struct Authority {
    file: tempfile::NamedTempFile,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// What it answers from now on.
#[derive(Clone)]
pub(super) enum Answer {
    /// These bytes, and then it closes.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing: the connection stays.
    Stuck(Vec<u8>),
    /// These bytes, and then one byte after the other, without an end.
    Endless(Vec<u8>),
}

/// The server.
pub(super) struct FakeHttps {
    pub(super) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), parameters.self_signed(&key).unwrap().pem()).unwrap();
        Self { file, issuer: rcgen::Issuer::new(parameters, key) }
    }

    /// PEM.
    pub(super) fn file(&self) -> &Path {
        self.file.path()
    }

    /// A server whose certificate is for this name, with the certificate (PEM).
    pub(super) async fn server(&self, name: &str) -> (FakeHttps, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (FakeHttps::start(&certificate, &key).await, certificate.pem())
    }
}

impl FakeHttps {
    /// One that signed its certificate itself, with the certificate (PEM).
    pub(super) async fn self_signed(name: &str) -> (Self, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (Self::start(&certificate, &key).await, certificate.pem())
    }

    async fn start(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(json(200, "{}"))), Arc::default());
        let server = Self { address, answer: Arc::clone(&answer), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, asked) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&asked));
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Some(request) = receive(&mut stream).await else { return };
                    asked.lock().unwrap().push(request);
                    let answer = answer.lock().unwrap().clone();
                    let _ = give(&mut stream, answer).await;
                });
            }
        });
        server
    }

    /// What it answers from now on.
    pub(super) fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// What it was asked: headers and bodies.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An answer of JSON.
pub(super) fn json(status: u16, body: &str) -> Answer {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Answer::Bytes([head.as_bytes(), body.as_bytes()].concat())
}

async fn receive(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

async fn give(stream: &mut TlsStream<TcpStream>, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Answer::Stuck(bytes) => {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            // Until the client has gone.
            stream.read_u8().await.map(drop)
        }
        Answer::Endless(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
    }
}
