//! A server on loopback that answers as it is told.

use super::NOW;
use aws_sdk_sts::primitives::{DateTime, DateTimeFormat};
use deputize_issuer::templates::RenderedSession;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// Status line, headers, body.
    Text(String),
    /// Nothing, ever.
    Hang,
    /// The end.
    HangUp,
}

pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// What was asked; the head in lower case.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: String,
}

impl Server {
    /// Each request gets the next of these answers; the last one again and again.
    pub(super) async fn answering(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (Arc::clone(&requests), Arc::new(answers));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&seen), Arc::clone(&answers)));
            }
        });
        Self { address, requests }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Request>>>, answers: Arc<Vec<Answer>>) {
    while let Some(request) = receive(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len()
        };
        match answers.get(number - 1).or(answers.last()).unwrap() {
            Answer::Text(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Answer::Hang => std::future::pending().await,
            Answer::HangUp => return,
        }
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1)?.split('\r').next()?.parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Some(Request { head, body: String::from_utf8(body).unwrap() })
}

impl Answer {
    /// What STS answers to the web identity's session.
    pub(super) fn granted(session: &RenderedSession) -> Self {
        Self::of("AssumeRoleWithWebIdentity", session)
    }

    /// What STS answers to one who holds keys.
    pub(super) fn assumed(session: &RenderedSession) -> Self {
        Self::of("AssumeRole", session)
    }

    fn of(action: &str, session: &RenderedSession) -> Self {
        let account = session.role_arn.split(':').nth(4).unwrap();
        let name = &session.session_name;
        let expiration = moment(NOW + 900);
        let body = format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
             <Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>\
             <SecretAccessKey>canary-secret/+=</SecretAccessKey>\
             <SessionToken>canary-session/+=</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials>\
             <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:{name}</AssumedRoleId>\
             <Arn>arn:aws:sts::{account}:assumed-role/restart-instance/{name}</Arn></AssumedRoleUser>\
             <PackedPolicySize>42</PackedPolicySize><SourceIdentity>alice</SourceIdentity>\
             </{action}Result><ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></{action}Response>"
        );
        Self::Text(sized(&format!("HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\n\r\n{body}")))
    }

    pub(super) fn refused(status: u16, code: &str) -> Self {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>no</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        );
        Self::Text(sized(&format!("HTTP/1.1 {status} No\r\ncontent-type: text/xml\r\n\r\n{body}")))
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Hang | Self::HangUp => String::new(),
        }
    }
}

/// The same answer with the length that its body has.
pub(super) fn sized(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let others = head.split("\r\n").filter(|line| !line.starts_with("content-length"));
    let head: Vec<_> = others.map(str::to_owned).collect();
    format!("{}\r\ncontent-length: {}\r\n\r\n{body}", head.join("\r\n"), body.len())
}

/// As STS writes it.
pub(super) fn moment(seconds: u64) -> String {
    DateTime::from_secs(seconds.try_into().unwrap()).fmt(DateTimeFormat::DateTime).unwrap()
}
