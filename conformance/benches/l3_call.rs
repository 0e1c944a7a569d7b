//! `cargo bench -p deputize-conformance --bench l3_call`: a whole call with a token of its own, in CPU time of broker and
//! guard: the exchange, the guard's checks, the redemption; against five verifications and a signature (5V+S: user's
//! token, assertion and proof at the broker, token and proof at the guard; the token's signature).
//!
//! A B A B: in each pair the floor, then so many exchanges, then as many calls. Between the two the proofs for the guard
//! are made, each of which names its token; they and all else are made beforehand. What the server needs is left out. A
//! pair is void if any answer is not the expected one, or if the client needed over 0.9 of a core. Nothing here gates;
//! the numbers are printed, drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]

use deputize_conformance::{
    measure::{Floor, build_the_program, median, profile, save},
    whole_call::{Called, Cost, WholeCall},
};
use serde_json::{Value, json};

/// One pair.
struct Pair {
    floor: Floor,
    exchange: Cost,
    call: Cost,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os("DEPUTIZE_BENCH_SERVER").is_none() {
        build_the_program();
    }
    let whole = WholeCall::start().await;
    pair(&whole, CALLS / 4).await;
    println!(
        "{:>4} {:>9} {:>12} {:>9} {:>10} {:>9} {:>10} {:>9} {:>6}",
        "pair",
        "5V+S us",
        "exchange us",
        "guard us",
        "redeem us",
        "whole us",
        "client us",
        "calls/s",
        "ratio"
    );
    let mut pairs = Vec::new();
    for number in 1..=PAIRS {
        let pair = pair(&whole, CALLS).await;
        println!(
            "{number:>4} {:>9.1} {:>12.1} {:>9.1} {:>10.1} {:>9.1} {:>10.1} {:>9.0} {:>6.2}{}",
            pair.floor_us(),
            pair.exchange.broker_us,
            pair.call.guard_us,
            pair.call.broker_us,
            pair.whole_us(),
            pair.exchange.client_us + pair.call.client_us,
            pair.rate(),
            pair.ratio(),
            if pair.is_void() { " void" } else { "" },
        );
        pairs.push(pair);
    }
    report(&pairs);
}

async fn pair(whole: &WholeCall, calls: usize) -> Pair {
    let floor = Floor::measure();
    let (tokens, exchange) = whole.exchange(Called::Once, calls).await;
    let call = whole.call(Called::Once, &tokens).await;
    Pair { floor, exchange, call }
}

impl Pair {
    fn floor_us(&self) -> f64 {
        5.0 * self.floor.verify_us + self.floor.sign_us
    }

    fn whole_us(&self) -> f64 {
        self.exchange.broker_us + self.call.guard_us + self.call.broker_us
    }

    fn ratio(&self) -> f64 {
        self.whole_us() / self.floor_us()
    }

    /// Exchange and call one after the other.
    fn rate(&self) -> f64 {
        1.0 / (1.0 / self.exchange.rate + 1.0 / self.call.rate)
    }

    fn is_void(&self) -> bool {
        self.exchange.void || self.call.void
    }

    fn to_json(&self) -> Value {
        json!({
            "floor_us": self.floor_us(), "exchange_us": self.exchange.broker_us, "guard_us": self.call.guard_us,
            "redemption_us": self.call.broker_us, "server_us": self.call.server_us,
            "client_us": self.exchange.client_us + self.call.client_us, "calls_per_second": self.rate(),
            "ratio": self.ratio(), "void": self.is_void(),
        })
    }
}

fn report(pairs: &[Pair]) {
    let good: Vec<&Pair> = pairs.iter().filter(|pair| !pair.is_void()).collect();
    let ratio = median(good.iter().map(|pair| pair.ratio()).collect());
    let bar = "#".repeat((ratio.unwrap_or_default().min(3.0) * 16.0) as usize);
    println!(
        "\nl3_call  CPU of the whole call / 5V+S, median of {} pairs: {ratio:?}  (goal at most {GOAL})\n|{bar:<48}| 3.0",
        good.len()
    );
    let result = json!({
        "bench": "l3_call", "goal": GOAL, "ratio": ratio, "profile": profile(), "calls_per_round": CALLS,
        "pairs_void": pairs.len() - good.len(), "pairs": pairs.iter().map(Pair::to_json).collect::<Vec<_>>(),
    });
    println!("saved as {}", save("l3_call", &result).display());
}

const GOAL: f64 = 1.3;
const PAIRS: usize = 5;
/// A debug build is slow, and what is signed beforehand is good for a short while only.
const CALLS: usize = if cfg!(debug_assertions) { 300 } else { 3000 };
