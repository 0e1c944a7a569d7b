//! `cargo bench -p deputize-conformance --bench aws_hit`: AWS credentials of a call that the guard has already, asked for at
//! the call's address as SDKs ask, against a server that says the same bytes and does nothing else.
//!
//! Each turn asks both, one after the other, each on a connection of its own, as the guard wants it, so that whatever else
//! the machine does falls on both alike. The guard is a process of its own, and so is the server that does nothing. A round is void if any answer is
//! not the credentials. Nothing here gates; the numbers are printed, drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that meets something unexpected should stop there"
)]

use deputize_conformance::{
    handing_over::HandingOver,
    measure::{build_the_program, median, profile, save},
    wire::{Endpoint, Request},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use url::Url;

/// Times of one round, in microseconds.
struct Round {
    bare: [f64; 2],
    guard: [f64; 2],
    void: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Some(body) = std::env::var_os(AS_SERVER) {
        return serve(body.to_str().expect("text")).await;
    }
    build_the_program();
    let all = HandingOver::start().await;
    let under_way = all.call().await;
    let answer = under_way.handed.ask().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = String::from_utf8(answer.body).expect("text");
    let (mut server, url) = start_server(&body);
    let guard = Asking::at(&under_way.handed.uri, &under_way.handed.authorization);
    let bare = Asking::at(&url, "nobody looks");
    round(&guard, &bare, &body, TURNS / 4).await;
    println!(
        "{:>5} {:>12} {:>12} {:>12} {:>12} {:>7}",
        "round", "bare p50 us", "bare p99", "guard p50", "guard p99", "p99"
    );
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let round = round(&guard, &bare, &body, TURNS).await;
        println!(
            "{number:>5} {:>12.1} {:>12.1} {:>12.1} {:>12.1} {:>7.2}{}",
            round.bare[0],
            round.bare[1],
            round.guard[0],
            round.guard[1],
            round.ratio(),
            if round.void { " void" } else { "" },
        );
        rounds.push(round);
    }
    // Ended by hand: it is gone, or it was not there.
    let _ = server.kill();
    let _ = server.wait();
    report(&rounds);
}

/// Where it is asked, and what.
struct Asking(Endpoint, Request);

impl Asking {
    fn at(uri: &str, authorization: &str) -> Self {
        let url = Url::parse(uri).expect("a URL");
        let mut request = Request::get(url.path());
        for (name, value) in
            [("authorization", authorization), ("accept", "application/json"), ("user-agent", "bench")]
        {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        Self(Endpoint::new(&url, None), request)
    }
}

async fn round(guard: &Asking, bare: &Asking, body: &str, turns: usize) -> Round {
    let (mut of_guard, mut of_bare, mut void) = (Vec::with_capacity(turns), Vec::with_capacity(turns), false);
    for _ in 0..turns {
        for (asking, times) in [(bare, &mut of_bare), (guard, &mut of_guard)] {
            #[expect(clippy::disallowed_methods, reason = "a benchmark measures in real time")]
            let start = Instant::now();
            let answer = asking.0.send(&asking.1).await.expect("an answer");
            times.push(start.elapsed().as_secs_f64() * 1e6);
            void |= answer.status != 200 || answer.body != body.as_bytes();
        }
    }
    Round { bare: quantiles(of_bare), guard: quantiles(of_guard), void }
}

/// Half of them take no longer than the first, 99 in 100 no longer than the second.
fn quantiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    [50, 99].map(|percent| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN))
}

impl Round {
    fn ratio(&self) -> f64 {
        self.guard[1] / self.bare[1]
    }

    fn to_json(&self) -> Value {
        json!({
            "bare_p50_us": self.bare[0], "bare_p99_us": self.bare[1], "guard_p50_us": self.guard[0],
            "guard_p99_us": self.guard[1], "ratio": self.ratio(), "void": self.void,
        })
    }
}

fn report(rounds: &[Round]) {
    let good: Vec<&Round> = rounds.iter().filter(|round| !round.void).collect();
    let ratio = median(good.iter().map(|round| round.ratio()).collect());
    println!(
        "\naws_hit  p99 of the guard / p99 of nothing, median of {} rounds  (goal at most {GOAL})",
        good.len()
    );
    let bar = "#".repeat((ratio.unwrap_or_default().min(4.0) * 12.0) as usize);
    println!("{:>8.2} |{bar:<48}| 4.0", ratio.unwrap_or(f64::NAN));
    let result = json!({
        "bench": "aws_hit", "goal": GOAL, "ratio_p99": ratio, "profile": profile(),
        "rounds_void": rounds.len() - good.len(), "turns_per_round": TURNS,
        "rounds": rounds.iter().map(Round::to_json).collect::<Vec<_>>(),
    });
    println!("saved as {}", save("aws_hit", &result).display());
}

/// This program again, as the server that does nothing.
fn start_server(body: &str) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let mut child =
        command.env(AS_SERVER, body).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut url = String::new();
    let said = child.stdout.take().expect("its stdout");
    BufReader::new(said).read_line(&mut url).expect("it says where it is");
    (child, url.trim().to_owned())
}

/// Says the same to whatever comes, once for each connection.
async fn serve(body: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("http://{}/aws/nothing", listener.local_addr().expect("an address"));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let (mut asked, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            asked.extend_from_slice(&chunk[..read]);
            if asked.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).await.expect("a reader");
    }
}

/// Set to what it says, it makes this program the server.
const AS_SERVER: &str = "DEPUTIZE_BENCH_AWS_HIT";
const GOAL: f64 = 2.0;
const ROUNDS: usize = 5;
const TURNS: usize = 3_000;
