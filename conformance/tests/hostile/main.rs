//! Every case of `hostile.toml` against one live broker, or one live guard. A case of the broker is good when the answer is the one in the
//! catalogue, nothing was minted for it, its refusal was recorded or counted, and the next honest request works.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets something unexpected should stop there, and its results are for people"
)]

mod catalogue;
mod certificates;
mod clients;
mod encrypted;
mod exchange;
mod guard;
mod key_sets;
mod proofs;
mod snapshots;
mod tokens;
mod verdict;

use catalogue::Catalogue;
use deputize_conformance::{certified::Certified, exchange::Lab, forge::Key, wire::Response};
use guard::GuardLab;
use std::{collections::BTreeSet, pin::Pin, process::ExitCode, sync::Arc};
use verdict::Account;

/// A case: its name, and what it does. It returns the answers that must be refusals.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<Lab>) -> Answers,
}

/// The answers of a case, when they are there.
type Answers = Pin<Box<dyn Future<Output = Vec<Response>> + Send>>;

/// A table of the cases of one module.
macro_rules! cases {
    ($module:ident: $($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[crate::Case] = &[$(crate::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |lab| Box::pin(async move { $name(&lab).await }),
        }),+];
    };
}
pub(crate) use cases;

const MODULES: [&[Case]; 8] = [
    certificates::CASES,
    tokens::CASES,
    encrypted::CASES,
    key_sets::CASES,
    exchange::CASES,
    clients::CASES,
    proofs::CASES,
    snapshots::CASES,
];

#[tokio::main]
async fn main() -> ExitCode {
    // What `cargo test -- FILTER` passes on; flags of the usual harness mean nothing here.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let catalogue = Catalogue::read();
    let mut problems = catalogue.problems(&tests());
    let wanted: Vec<_> = catalogue
        .cases
        .iter()
        .filter(|case| case.test.contains(&filter) || case.id.starts_with(&filter))
        .collect();
    println!("\nrunning {} tests", wanted.len());
    let mut passed = 0;
    if !wanted.is_empty() && problems.is_empty() {
        let mut labs = Labs::default();
        for listed in wanted {
            let judged = labs.judge(listed).await;
            match catalogue.with_expectation(listed, judged) {
                Ok(note) => {
                    passed += 1;
                    println!("test {} {} ... ok{note}", listed.id, listed.test);
                }
                Err(problem) => {
                    println!("test {} {} ... FAILED", listed.id, listed.test);
                    problems.push(format!("{} ({}): {problem}", listed.id, listed.input));
                }
            }
        }
        if !problems.is_empty() {
            labs.tell();
        }
    }
    let verdict = if problems.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\n{}\n\ntest result: {verdict}. {passed} passed; {} failed",
        problems.join("\n"),
        problems.len()
    );
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The names of all tests.
fn tests() -> BTreeSet<&'static str> {
    let of_the_broker = MODULES.iter().flat_map(|module| module.iter().map(|case| case.name));
    of_the_broker.chain(guard::CASES.iter().map(|case| case.name)).collect()
}

/// What cases run against, started when it is first needed.
#[derive(Default)]
struct Labs {
    broker: Option<Arc<Lab>>,
    guard: Option<Arc<GuardLab>>,
}

impl Labs {
    async fn judge(&mut self, listed: &catalogue::Listed) -> Result<(), String> {
        if let Some(case) = guard::CASES.iter().find(|case| case.name == listed.test) {
            if self.guard.is_none() {
                self.guard = Some(Arc::new(GuardLab::start().await));
            }
            return self.guard.as_ref().unwrap().judge(case, &listed.answer).await;
        }
        if self.broker.is_none() {
            let mut world = key_sets::world().await;
            world.certified = Some(Certified::new());
            self.broker = Some(Arc::new(Lab::start(world).await));
        }
        let mut cases = MODULES.iter().flat_map(|module| module.iter());
        let case = cases.find(|case| case.name == listed.test).unwrap();
        judge(self.broker.as_ref().unwrap(), case, listed).await
    }

    /// What the processes said.
    fn tell(&self) {
        if let Some(lab) = &self.broker {
            println!("\nthe broker said:\n{}", tail(&lab.started.process.said()));
        }
        if let Some(lab) = &self.guard {
            println!("\nthe guard said:\n{}", tail(&lab.said()));
        }
    }
}

/// Runs one case of the broker and looks at everything that must hold afterwards.
async fn judge(lab: &Arc<Lab>, case: &Case, listed: &catalogue::Listed) -> Result<(), String> {
    let before = Account::take(lab).await;
    let run = tokio::spawn((case.run)(Arc::clone(lab))).await;
    let answers = run.map_err(|panic| panic_message(panic.into_panic()))?;
    verdict::check_answers(&answers, &listed.answer)?;
    let honest = lab.send(&lab.honest(&Key::es256()).await).await;
    if honest.status != 200 {
        return Err(format!("the next honest request got {}: {}", honest.status, honest.json()));
    }
    verdict::check_account(lab, &before).await
}

fn panic_message(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
