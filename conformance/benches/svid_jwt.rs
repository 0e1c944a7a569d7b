//! `cargo bench -p deputize-conformance --bench svid_jwt`: a JWT-SVID over the socket, attested and recorded, in CPU time of the
//! broker, against one signature (S) and a bare gRPC round trip: a server that speaks HTTP/2 on a Unix socket, and answers
//! every call with the same message of that size.
//!
//! A B A B, on one connection, one call after the other as a library makes them, over as many identities as the rates of a
//! single one demand. A pair is void if any answer is not a JWT-SVID, or if the client needed over 0.9 of a core. Nothing
//! here gates; the numbers are printed, drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
#![expect(clippy::unwrap_used, reason = "a measuring program stops at the first surprise")]

use bytes::{BufMut as _, Bytes, BytesMut};
use deputize_conformance::{
    measure::{Floor, build_the_program, cpu_seconds_of_threads, median, profile, save},
    spiffe_lab::{SpiffeLab, TRUST_DOMAIN},
    workload_api::{Connection, JwtSvid, JwtSvidRequest, JwtSvidResponse},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Child, Command},
    time::Instant,
};
use tokio::net::UnixListener;

/// One pair, in microseconds of CPU time a call.
struct Pair {
    sign_us: f64,
    bare_us: f64,
    broker_us: f64,
    client_share: f64,
    per_second: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if let Some(socket) = std::env::var_os(BARE) {
        return serve_bare(Path::new(&socket)).await;
    }
    if std::env::var_os("DEPUTIZE_BENCH_SERVER").is_none() {
        build_the_program();
    }
    let lab = SpiffeLab::start_with(&json!({ "entries": "many" })).await;
    write_entries(&lab);
    lab.world.reload(&lab.started).await;
    let bare = Bare::start(lab.world.folder());
    let sides = [(lab.socket.clone(), lab.started.process.id()), (bare.socket.clone(), bare.child.id())];
    lab.started.process.wait_until(async || Connection::open(&bare.socket).await.is_ok()).await;
    println!(
        "{:>4} {:>8} {:>9} {:>10} {:>8} {:>9} {:>7}",
        "pair", "S us", "bare us", "broker us", "client", "calls/s", "ratio"
    );
    let mut pairs = Vec::new();
    for number in 0..=PAIRS {
        let calls = if number == 0 { CALLS / 4 } else { CALLS };
        let sign_us = Floor::measure().sign_us;
        let [broker, floor] = [run(&sides[0], calls).await, run(&sides[1], calls).await];
        let pair = Pair {
            sign_us,
            bare_us: floor.server_us,
            broker_us: broker.server_us,
            client_share: broker.client_share,
            per_second: broker.per_second,
        };
        // The first one only warms.
        if number > 0 {
            println!(
                "{number:>4} {:>8.1} {:>9.1} {:>10.1} {:>8.2} {:>9.0} {:>7.2}{}",
                pair.sign_us,
                pair.bare_us,
                pair.broker_us,
                pair.client_share,
                pair.per_second,
                pair.ratio(),
                if pair.is_void() { " void" } else { "" },
            );
            pairs.push(pair);
        }
    }
    report(&pairs);
}

impl Pair {
    fn ratio(&self) -> f64 {
        (self.sign_us + self.bare_us) / self.broker_us
    }

    fn is_void(&self) -> bool {
        self.client_share > 0.9
    }
}

/// Calls of one side.
struct Run {
    server_us: f64,
    client_share: f64,
    per_second: f64,
}

async fn run((socket, process): &(std::path::PathBuf, u32), calls: usize) -> Run {
    let connection = Connection::open(socket).await.unwrap();
    let (server, client, start) =
        (cpu_seconds_of_threads(*process), cpu_seconds_of_threads(std::process::id()), Instant::now());
    for number in 0..calls {
        let spiffe_id = format!("spiffe://{TRUST_DOMAIN}/many/{}", number % IDENTITIES);
        let asked = JwtSvidRequest { audience: vec!["https://crm.example.com".to_owned()], spiffe_id };
        let answer: JwtSvidResponse =
            connection.ask_once("FetchJWTSVID", Some("true"), &asked).await.unwrap();
        assert_eq!(answer.svids.len(), 1, "an answer that is no JWT-SVID voids the run");
    }
    let wall = start.elapsed().as_secs_f64();
    Run {
        server_us: (cpu_seconds_of_threads(*process) - server) * 1e6 / calls as f64,
        client_share: (cpu_seconds_of_threads(std::process::id()) - client) / wall,
        per_second: calls as f64 / wall,
    }
}

/// As many as the calls of all runs need: 200 at once of each.
fn write_entries(lab: &SpiffeLab) {
    let folder = lab.world.folder().join("many");
    let uid = std::fs::metadata(&folder).unwrap().uid();
    for number in 0..IDENTITIES {
        let entry = json!({
            "id": format!("many-{number}"), "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/many/{number}"),
            "selectors": [format!("unix:uid:{uid}")],
        });
        std::fs::write(folder.join(format!("{number}.yaml")), entry.to_string()).unwrap();
    }
}

/// This program again, as the bare server. It ends with this value.
struct Bare {
    child: Child,
    socket: std::path::PathBuf,
}

impl Bare {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("bare.sock");
        let child = Command::new(std::env::current_exe().unwrap()).env(BARE, &socket).spawn().unwrap();
        Self { child, socket }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve_bare(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let svid = JwtSvidResponse {
        svids: vec![JwtSvid {
            spiffe_id: format!("spiffe://{TRUST_DOMAIN}/many/1"),
            svid: "x".repeat(SVID_BYTES),
            hint: String::new(),
        }],
    };
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(svid.encoded_len()).unwrap());
    svid.encode(&mut message).unwrap();
    let message = message.freeze();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let message = message.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let message = message.clone();
            async move {
                // A unary call is read to its end.
                drop(request.into_body().collect().await);
                Ok::<_, Infallible>(answer(message))
            }
        });
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn answer(message: Bytes) -> http::Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let trailers = std::future::ready(Some(Ok::<_, Infallible>(trailers)));
    let body = Full::new(message).with_trailers(trailers);
    let mut response = http::Response::new(body);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

fn report(pairs: &[Pair]) {
    let good: Vec<&Pair> = pairs.iter().filter(|pair| !pair.is_void()).collect();
    let ratio = median(good.iter().map(|pair| pair.ratio()).collect());
    println!(
        "\nsvid_jwt  (S + bare round trip) / CPU of the broker, median of {} pairs  (goal at least {GOAL})",
        good.len()
    );
    let bar = "#".repeat((ratio.unwrap_or_default().min(1.0) * 48.0) as usize);
    println!("{:>5.2} |{bar:<48}| 1.0", ratio.unwrap_or(f64::NAN));
    let lines = pairs.iter().map(|pair| {
        json!({
            "sign_us": pair.sign_us, "bare_us": pair.bare_us, "broker_us": pair.broker_us,
            "client_share": pair.client_share, "calls_per_second": pair.per_second, "ratio": pair.ratio(),
            "void": pair.is_void(),
        })
    });
    let result = json!({
        "bench": "svid_jwt", "goal": GOAL, "ratio": ratio, "profile": profile(), "calls_per_round": CALLS,
        "identities": IDENTITIES, "pairs": lines.collect::<Vec<Value>>(),
    });
    println!("saved as {}", save("svid_jwt", &result).display());
}

const GOAL: f64 = 0.80;
const PAIRS: usize = 5;
const CALLS: usize = if cfg!(debug_assertions) { 300 } else { 1200 };
/// All runs together make less than 200 of each.
const IDENTITIES: usize = 40;
/// As long as one of ours.
const SVID_BYTES: usize = 520;
const BARE: &str = "DEPUTIZE_BENCH_BARE_SERVER";
