//! An AWS STS under the test's control: it hears what it is asked, and answers as it is told. What it is asked it does
//! not judge; tests do.

use crate::trust::Authority;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// The server.
pub struct SecurityTokens {
    /// `https://localhost:PORT`.
    pub base: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub enum Answer {
    /// The session that was asked for.
    #[default]
    Grant,
    /// This status and AWS error code.
    Refuse(u16, &'static str),
    /// Nothing.
    Hang,
    /// A page.
    Rubbish,
}

#[derive(Default)]
struct State {
    answer: Answer,
    asked: Vec<BTreeMap<String, String>>,
}

impl SecurityTokens {
    /// Listens on a free port of loopback.
    pub async fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State::default()));
        let acceptor = TlsAcceptor::from(authority.certify().server());
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&state)));
        Self { base, state, task }
    }

    /// What it answers from now on.
    pub fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().answer = answer;
    }

    /// The forms of all requests so far.
    pub fn asked(&self) -> Vec<BTreeMap<String, String>> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Drop for SecurityTokens {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move { serve(stream, acceptor, state).await });
    }
}

/// The requests of one connection; a client that goes away is none of our business.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(!head.contains("\r\nauthorization:"), "nothing is signed: {head}");
        let length: usize = head.split("content-length: ").nth(1)?.split('\r').next()?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let form: BTreeMap<_, _> = url::form_urlencoded::parse(&body).into_owned().collect();
        let answer = {
            let mut state = state.lock().unwrap();
            state.asked.push(form.clone());
            let number = state.asked.len();
            match &state.answer {
                Answer::Grant => Some(response(200, &granted(&form, number))),
                Answer::Refuse(status, code) => Some(response(*status, &refused(code))),
                Answer::Hang => None,
                Answer::Rubbish => Some(response(200, "<html>Sign in to the network</html>")),
            }
        };
        let Some(answer) = answer else { return std::future::pending().await };
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

fn response(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Said\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// No two sessions have the same credentials.
fn granted(form: &BTreeMap<String, String>, number: usize) -> String {
    let (role, session) = (&form["RoleArn"], &form["RoleSessionName"]);
    let (account, name) = (role.split(':').nth(4).unwrap(), role.rsplit('/').next().unwrap());
    let expiration = moment(crate::forge::now() + 900);
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA{number:016}</AccessKeyId>\
         <SecretAccessKey>canary-secret-{number}</SecretAccessKey><SessionToken>canary-token-{number}</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:{session}</AssumedRoleId>\
         <Arn>arn:aws:sts::{account}:assumed-role/{name}/{session}</Arn></AssumedRoleUser>\
         <PackedPolicySize>30</PackedPolicySize></AssumeRoleWithWebIdentityResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
    )
}

fn refused(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>canary-words-of-aws</Message></Error><RequestId>r</RequestId></ErrorResponse>"
    )
}

/// `2026-11-22T01:02:03Z`, counted day by day.
pub fn moment(seconds: i64) -> String {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, days + 1)
}
