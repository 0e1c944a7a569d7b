//! `cargo bench -p deputize-conformance --bench guard_added`: what a guard adds to a call, in CPU time, against the two
//! verifications (2V: token and proof) that it cannot do without.
//!
//! A B A B: in each pair the floor; the server bare; the same calls through the guard with one token for the tool (L1),
//! and with a token for each call (L3), which the guard redeems at the broker. What is added is the guard's own CPU time
//! and what the server needs more than bare; what the broker needs for a redemption is shown beside it. Tokens, proofs
//! and requests are made beforehand. A pair is void if any answer is not a result, or if the client needed over 0.9 of a
//! core. Nothing here gates; the numbers are printed, drawn, and saved as JSON.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to people")]

use deputize_conformance::{
    measure::{Floor, build_the_program, median, profile, save},
    whole_call::{Called, Cost, WholeCall},
};
use serde_json::{Value, json};

/// One pair.
struct Pair {
    floor: Floor,
    bare: Cost,
    l1: Cost,
    l3: Cost,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    if std::env::var_os("DEPUTIZE_BENCH_SERVER").is_none() {
        build_the_program();
    }
    let whole = WholeCall::start().await;
    pair(&whole, CALLS / 4).await;
    println!(
        "{:>4} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7}",
        "pair", "2V us", "bare us", "L1 us", "L3 us", "redeem us", "client us", "L1 req/s", "L1/2V", "L3/2V"
    );
    let mut pairs = Vec::new();
    for number in 1..=PAIRS {
        let pair = pair(&whole, CALLS).await;
        println!(
            "{number:>4} {:>8.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.0} {:>7.2} {:>7.2}{}",
            pair.two_verifications(),
            pair.bare.server_us,
            pair.added(&pair.l1),
            pair.added(&pair.l3),
            pair.l3.broker_us,
            pair.l1.client_us,
            pair.l1.rate,
            pair.ratio(&pair.l1),
            pair.ratio(&pair.l3),
            if pair.is_void() { " void" } else { "" },
        );
        pairs.push(pair);
    }
    report(&pairs);
}

async fn pair(whole: &WholeCall, calls: usize) -> Pair {
    let floor = Floor::measure();
    let (tool, _) = whole.exchange(Called::Tool, 1).await;
    let (once, _) = whole.exchange(Called::Once, calls).await;
    let l3 = whole.call(Called::Once, &once).await;
    let bare = whole.bare(Called::Tool, calls).await;
    let same = tool.iter().cycle().take(calls).cloned().collect::<Vec<_>>();
    let l1 = whole.call(Called::Tool, &same).await;
    let void = l3.void || once.len() != calls;
    Pair { floor, bare, l1, l3: Cost { void, ..l3 } }
}

impl Pair {
    fn two_verifications(&self) -> f64 {
        2.0 * self.floor.verify_us
    }

    fn added(&self, cost: &Cost) -> f64 {
        cost.guard_us + cost.server_us - self.bare.server_us
    }

    fn ratio(&self, cost: &Cost) -> f64 {
        self.added(cost) / self.two_verifications()
    }

    fn is_void(&self) -> bool {
        self.bare.void || self.l1.void || self.l3.void
    }

    fn to_json(&self) -> Value {
        let cost = |cost: &Cost| {
            json!({
                "added_us": self.added(cost), "guard_us": cost.guard_us, "server_us": cost.server_us,
                "broker_us": cost.broker_us, "client_us": cost.client_us, "calls_per_second": cost.rate,
                "ratio": self.ratio(cost),
            })
        };
        json!({
            "floor_us": self.two_verifications(), "bare_server_us": self.bare.server_us,
            "bare_calls_per_second": self.bare.rate, "l1": cost(&self.l1), "l3": cost(&self.l3),
            "void": self.is_void(),
        })
    }
}

fn report(pairs: &[Pair]) {
    let good: Vec<&Pair> = pairs.iter().filter(|pair| !pair.is_void()).collect();
    let of = |ratio: fn(&Pair) -> f64| median(good.iter().map(|pair| ratio(pair)).collect());
    let ratios = [("L1", of(|pair| pair.ratio(&pair.l1))), ("L3", of(|pair| pair.ratio(&pair.l3)))];
    println!("\nguard_added  added CPU / 2V, medians of {} pairs  (goal at most {GOAL})", good.len());
    for (name, ratio) in ratios {
        let bar = "#".repeat((ratio.unwrap_or_default().min(4.0) * 12.0) as usize);
        println!("{name} {:>5.2} |{bar:<48}| 4.0", ratio.unwrap_or(f64::NAN));
    }
    let [(_, l1), (_, l3)] = ratios;
    let result = json!({
        "bench": "guard_added", "goal": GOAL, "ratio_l1": l1, "ratio_l3": l3, "profile": profile(),
        "pairs_void": pairs.len() - good.len(), "calls_per_round": CALLS,
        "pairs": pairs.iter().map(Pair::to_json).collect::<Vec<_>>(),
    });
    println!("saved as {}", save("guard_added", &result).display());
}

const GOAL: f64 = 1.5;
const PAIRS: usize = 5;
/// A debug build is slow, and what is signed beforehand is good for a short while only.
const CALLS: usize = if cfg!(debug_assertions) { 300 } else { 3000 };
