//! AWS credentials of calls: handed over at an address of loopback that dies with the call.

use super::bench::{Bench, Reply, until};
use crate::{CredentialSource, Revocation, tests::fixture::*};
use async_trait::async_trait;
use bytes::Bytes;
use deputize_client::{AwsAsk, AwsCredentials, DenialReason, ErrorDetails, ExchangeError};
use http::HeaderMap;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

/// The broker's part: answers what it is told to, else with credentials, and counts how often it was asked.
#[derive(Default)]
pub(super) struct Source {
    asked: AtomicU64,
    refuses: Mutex<Option<ExchangeError>>,
    /// Held for as long as an answer is to take.
    busy: tokio::sync::Mutex<()>,
}

#[async_trait]
impl CredentialSource for Source {
    async fn ask(&self, _: &AwsAsk<'_>) -> Result<AwsCredentials, ExchangeError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        drop(self.busy.lock().await);
        match self.refuses.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(credentials(number)),
        }
    }
}

impl Source {
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Good until ten minutes after the bench begins.
fn credentials(number: u64) -> AwsCredentials {
    let text = json!({ "Version": 1, "AccessKeyId": format!("ASIA{number}"), "SecretAccessKey": "canary-secret",
        "SessionToken": "canary-token", "Expiration": END, "AccountId": "111122223333", "decision_id": "dec-1" });
    AwsCredentials::from_json(text.to_string().as_bytes()).unwrap()
}

/// `NOW` is 1,800,000,000, and the bench begins 1,000 seconds later.
const END: &str = "2027-01-15T08:26:40Z";

async fn handing_over() -> (Arc<Bench>, Arc<Source>) {
    let source = Arc::<Source>::default();
    let bench = Bench::with(false, |settings| {
        settings.hands_over_aws = true;
        settings.credential_source = Some(source.clone());
        settings.limits.concurrent = 100;
    });
    (Arc::new(bench.await), source)
}

/// A call under way, as its server sees it.
struct UnderWay {
    address: String,
    path: String,
    authorization: String,
    stream: Option<tokio::sync::mpsc::Sender<Bytes>>,
    client: JoinHandle<()>,
}

impl UnderWay {
    /// A call of `lookup` that is answered by a stream, which stays open.
    async fn begin(bench: &Arc<Bench>) -> Self {
        bench.server.reply("lookup", Reply::Live);
        let (client, headers) = Self::called(bench).await;
        let stream = Some(bench.server.live_stream().await);
        Self::of(&headers, stream, client)
    }

    async fn called(bench: &Arc<Bench>) -> (JoinHandle<()>, HeaderMap) {
        let before = bench.server.asked_of("tools/call").len();
        let calling = Arc::clone(bench);
        let client = tokio::spawn(async move {
            let forged = [
                ("deputize-aws-credentials-uri", "http://127.0.0.1:1/"),
                ("deputize-aws-authorization", "forged"),
            ];
            let got = calling.granted(l1("lookup"), &forged, &call("lookup", json!({}))).await;
            assert!(
                !format!("{got:?}").contains("canary") && !format!("{got:?}").contains("/aws/"),
                "{got:?}"
            );
        });
        until(|| bench.server.asked_of("tools/call").len() > before).await;
        (client, bench.server.asked_of("tools/call").pop().unwrap().0)
    }

    fn of(
        headers: &HeaderMap,
        stream: Option<tokio::sync::mpsc::Sender<Bytes>>,
        client: JoinHandle<()>,
    ) -> Self {
        let one = |name: &str| {
            let [value] = headers.get_all(name).iter().collect::<Vec<_>>().try_into().unwrap();
            value.to_str().unwrap().to_owned()
        };
        let uri = one("deputize-aws-credentials-uri");
        let (address, path) = uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let (address, path) = (address.to_owned(), format!("/{path}"));
        Self { address, path, authorization: one("deputize-aws-authorization"), stream, client }
    }

    /// As an SDK asks.
    async fn ask(&self) -> (u16, String, String) {
        self.ask_with(&self.path, &self.host(), &[("authorization", &self.authorization)]).await
    }

    fn host(&self) -> String {
        format!("host: {}\r\n", self.address)
    }

    async fn ask_with(&self, path: &str, host: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(&format!("GET {path} HTTP/1.1\r\n{host}{lines}connection: close\r\n\r\n")).await
    }

    async fn raw(&self, request: &str) -> (u16, String, String) {
        raw(&self.address, request).await
    }

    /// The server answers: the call is done.
    async fn end(mut self) -> Self {
        let result = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } });
        let event = format!("data: {result}\n\n");
        self.stream.take().unwrap().send(event.into()).await.unwrap();
        (&mut self.client).await.unwrap();
        self
    }
}

/// Status, head and body of the answer.
async fn raw(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_call_finds_its_credentials_while_it_runs_and_not_after() {
    let (bench, source) = handing_over().await;
    let under_way = UnderWay::begin(&bench).await;
    assert!(under_way.address.starts_with("127.0.0.1:"));
    assert_eq!(source.asked(), 0, "nothing is asked before it is wanted");
    let (status, head, body) = under_way.ask().await;
    assert_eq!(status, 200, "{body}");
    let expected = json!({ "AccessKeyId": "ASIA0", "SecretAccessKey": "canary-secret", "Token": "canary-token",
        "Expiration": END, "AccountId": "111122223333" });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert!(head.contains("cache-control: no-store") && !head.contains("access-control"), "{head}");
    assert_eq!(under_way.ask().await.2, body);
    assert_eq!(source.asked(), 1, "kept");

    let done = under_way.end().await;
    until(|| bench.outside.of_kind(crate::EventKind::Executed).len() == 1).await;
    let (status, _, past) = done.ask().await;
    assert_eq!(status, 404);
    let never = done.ask_with("/aws/AAAAAAAAAAAAAAAAAAAAAA", &done.host(), &[("authorization", "x")]).await;
    assert_eq!((never.0, never.2), (404, past), "what is past is as what never was");
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn who_asks_at_once_is_served_by_one_question() {
    let (bench, source) = handing_over().await;
    let under_way = UnderWay::begin(&bench).await;
    let busy = source.busy.lock().await;
    // One loses patience. What he asked for is under way all the same.
    let impatient = tokio::time::timeout(Duration::from_millis(100), under_way.ask()).await;
    assert!(impatient.is_err());
    let many = async { tokio::join!(under_way.ask(), under_way.ask(), under_way.ask(), under_way.ask()) };
    let release = async {
        until(|| source.asked() == 1).await;
        drop(busy);
    };
    let ((one, two, three, four), ()) = tokio::join!(many, release);
    assert!([one, two, three, four].iter().all(|(status, _, body)| *status == 200 && body.contains("ASIA0")));
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn what_is_not_the_calls_own_question_is_refused() {
    let (bench, source) = handing_over().await;
    let (one, two) = (UnderWay::begin(&bench).await, UnderWay::begin(&bench).await);
    assert_ne!((&one.path, &one.authorization), (&two.path, &two.authorization));
    let (host, told) = (one.host(), ("authorization", one.authorization.as_str()));
    let shorter = &one.authorization[1..];
    let nothing = one.ask_with("/aws/unknown", &host, &[told]).await.2;
    for (path, headers) in [
        (one.path.as_str(), &[][..]),
        (&one.path, &[("authorization", "")]),
        (&one.path, &[("authorization", shorter)]),
        (&one.path, &[("authorization", &format!("Bearer {}", one.authorization))]),
        (&one.path, &[told, told]),
        (&one.path, &[("authorization", &two.authorization)]),
        (&two.path, &[told]),
        (&format!("{}?x=1", one.path), &[told]),
        (&format!("{}/", one.path), &[told]),
        (&format!("/{}", one.path), &[told]),
        ("/aws/", &[told]),
        ("/", &[told]),
    ] {
        let (status, _, body) = one.ask_with(path, &host, headers).await;
        assert_eq!((status, &body), (404, &nothing), "{path} {headers:?}");
    }
    let port = one.address.rsplit_once(':').unwrap().1;
    for (status, host, more) in [
        (403, host.clone(), Some(("origin", "http://127.0.0.1"))),
        (403, host.clone(), Some(("sec-fetch-site", "same-origin"))),
        (421, format!("host: localhost:{port}\r\n"), None),
        (421, "host: 127.0.0.1\r\n".to_owned(), None),
        (421, format!("host: evil.example:{port}\r\n"), None),
        (421, host.repeat(2), None),
    ] {
        let headers: Vec<(&str, &str)> = [told].into_iter().chain(more).collect();
        let got = one.ask_with(&one.path, &host, &headers).await;
        assert_eq!(got.0, status, "{host} {more:?}");
        assert!(!got.2.contains("canary"));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "get"] {
        let request = format!(
            "{method} {} HTTP/1.1\r\n{host}authorization: {}\r\nconnection: close\r\n\r\n",
            one.path, one.authorization
        );
        assert_eq!(one.raw(&request).await.0, 405, "{method}");
    }
    assert_eq!(source.asked(), 0, "nobody was asked for any of that");
    assert_eq!((one.ask().await.0, two.ask().await.0, source.asked()), (200, 200, 2), "each has its own");
}

#[tokio::test]
async fn who_asks_on_and_never_reads_takes_no_place_from_others() {
    let (bench, _) = handing_over().await;
    let under_way = UnderWay::begin(&bench).await;
    let questions = format!("GET / HTTP/1.1\r\n{}\r\n", under_way.host()).repeat(100);
    // As many as there are places.
    let mut greedy = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(&under_way.address).await.unwrap();
        // It may be closed already.
        let _ = stream.write_all(questions.as_bytes()).await;
        greedy.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), under_way.ask()).await;
    assert_eq!(answer.expect("a place is free").0, 200);
    drop(greedy);
}

#[tokio::test]
async fn who_connects_again_and_again_and_says_nothing_keeps_nobody_out() {
    let (bench, _) = handing_over().await;
    let under_way = UnderWay::begin(&bench).await;
    let address = under_way.address.clone();
    let flooding = tokio::spawn(async move {
        let mut silent = std::collections::VecDeque::new();
        loop {
            // Twice as many as there are places, and each that is closed is another.
            silent.extend(TcpStream::connect(&address).await);
            if silent.len() > 512 {
                silent.pop_front();
            }
        }
    });
    for _ in 0..5 {
        let answer = tokio::time::timeout(Duration::from_secs(20), under_way.ask()).await;
        assert_eq!(answer.expect("he is heard").0, 200);
    }
    flooding.abort();
}

#[tokio::test]
async fn one_call_takes_no_more_than_its_share() {
    let (bench, source) = handing_over().await;
    let (greedy, other) = (UnderWay::begin(&bench).await, UnderWay::begin(&bench).await);
    let busy = source.busy.lock().await;
    let request = format!(
        "GET {} HTTP/1.1\r\n{}authorization: {}\r\n\r\n",
        greedy.path,
        greedy.host(),
        greedy.authorization
    );
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..17 {
        let (address, request) = (greedy.address.clone(), request.clone());
        asking.spawn(async move { raw(&address, &request).await });
    }
    let (status, head, _) = asking.join_next().await.unwrap().unwrap();
    assert!(status == 503 && head.contains("retry-after: 1"), "the others wait for the broker: {head}");
    drop(busy);
    assert!(asking.join_all().await.iter().all(|(status, ..)| *status == 200));
    assert_eq!((other.ask().await.0, greedy.ask().await.0), (200, 200));
}

#[tokio::test]
async fn what_is_revoked_gets_nothing_more() {
    let (bench, source) = handing_over().await;
    let under_way = UnderWay::begin(&bench).await;
    assert_eq!(under_way.ask().await.0, 200);
    // While the broker is asked for another call, its tool is switched off.
    let other = UnderWay::begin(&bench).await;
    let busy = source.busy.lock().await;
    let revoke = async {
        until(|| source.asked() == 2).await;
        let uptime = deputize_client::Clock::uptime(&*bench.clock);
        bench.proxy.guard().revoke(Revocation::Tool { name: "lookup".into() }, uptime);
        drop(busy);
    };
    let (got, ()) = tokio::join!(other.ask(), revoke);
    assert_eq!((got.0, under_way.ask().await.0), (404, 404));
}

#[tokio::test]
async fn an_address_ends_with_a_call_that_times_out_and_with_a_client_that_goes_away() {
    let (bench, _) = handing_over().await;
    bench.server.reply("lookup", Reply::Never);
    for goes_away in [false, true] {
        let (client, headers) = UnderWay::called(&bench).await;
        let under_way = UnderWay::of(&headers, None, tokio::spawn(async {}));
        assert_eq!(under_way.ask().await.0, 200);
        if goes_away {
            client.abort();
            assert!(client.await.unwrap_err().is_cancelled());
            assert_eq!(under_way.ask().await.0, 404, "at once");
        } else {
            client.await.unwrap();
            assert_eq!(under_way.ask().await.0, 404);
        }
    }
}

#[tokio::test]
async fn a_no_stays_one_and_what_may_pass_is_asked_again() {
    let (bench, source) = handing_over().await;
    let details = ErrorDetails {
        code: "access_denied".into(),
        description: "no template matches".into(),
        decision_id: None,
    };
    let denied = ExchangeError::AccessDenied { reason: DenialReason::Policy, details: details.clone() };
    *source.refuses.lock().unwrap() = Some(denied);
    let under_way = UnderWay::begin(&bench).await;
    for _ in 0..3 {
        let (status, _, body) = under_way.ask().await;
        assert!(status == 403 && body.contains("no template matches"), "{status} {body}");
    }
    assert_eq!(source.asked(), 1);

    let busy = ExchangeError::Unavailable { retry_after_seconds: Some(2), details };
    *source.refuses.lock().unwrap() = Some(busy);
    let under_way = UnderWay::begin(&bench).await;
    for _ in 0..3 {
        let (status, head, _) = under_way.ask().await;
        assert!(status == 503 && head.contains("retry-after: 2"), "{status} {head}");
    }
    assert_eq!(source.asked(), 2);
    *source.refuses.lock().unwrap() = None;
    bench.clock.pass(Duration::from_secs(2));
    assert_eq!((under_way.ask().await.0, source.asked()), (200, 3));
    // The window ends; the guard still hears of revocations.
    bench.clock.pass(Duration::from_secs(598));
    bench.proxy.guard().hear_revocations(deputize_client::Clock::uptime(&*bench.clock));
    assert_eq!((under_way.ask().await.0, source.asked()), (200, 4), "what is past its window is not kept");
}

#[tokio::test]
async fn nothing_is_handed_over_unless_it_is_said() {
    let bench = Bench::new().await;
    let forged =
        [("deputize-aws-credentials-uri", "http://127.0.0.1:1/"), ("deputize-aws-authorization", "forged")];
    assert_eq!(bench.granted(l1("lookup"), &forged, &call("lookup", json!({}))).await.status, 200);
    let (headers, _) = bench.server.asked_of("tools/call").pop().unwrap();
    assert!(!headers.keys().any(|name| name.as_str().starts_with("deputize-aws")), "{headers:?}");
}
