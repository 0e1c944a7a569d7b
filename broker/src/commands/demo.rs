//! `deputize demo`: starts a development environment, tells the story of one call in it, and checks every word.

use super::{
    output::{Format, Output},
    registry::{Paint, words},
    serve::StopSignal,
};
use crate::{
    assemble::CannotStart,
    dev::{
        environment::{self, Choices},
        story::{self, Outcome},
    },
};
use clap::Args;
use deputize_issuer::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What may be said to `deputize demo`.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Examples:
  deputize demo
  deputize demo -o json | jq -r 'select(.ok | not)'     nothing, where every step went as it should

For machines each step is a record of its own: step, ok, ms, detail, facts, and of a text that changed its words.
Exit codes: 0 every step went as it should, 1 one did not.")]
pub(crate) struct Demo {
    /// As --output json
    #[arg(long)]
    json: bool,
}

/// Tells the story. True if every step went as it should.
///
/// # Errors
/// [`CannotStart`].
pub(crate) async fn demo(arguments: Demo, output: Output) -> Result<bool, CannotStart> {
    let output = if arguments.json { Output::new(Format::Json) } else { output };
    let mut stop = StopSignal::listen().map_err(|error| CannotStart(error.to_string()))?;
    tokio::select! {
        told = tell(output) => told,
        // The environment goes with its story, files included.
        () = stop.wait() => Ok(false),
    }
}

async fn tell(output: Output) -> Result<bool, CannotStart> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let choices = Choices { listen, folder: None, register: Vec::new(), upstreams: Vec::new() };
    let environment = environment::start(&choices).await?;
    let style = Style::of_stdout();
    let is_for_people = output.is_for_people();
    // Whoever no longer reads misses the story; its checks go on.
    if is_for_people {
        let _ = print(&style.opening(&environment.ready.issuer, clock.uptime()));
    }
    let mut steps = 0;
    let well = story::tell(environment, Arc::clone(&clock), &mut |outcome| {
        steps += 1;
        if is_for_people {
            let _ = print(&style.lines(outcome));
        } else {
            let _ = output.record(&record(outcome), String::new);
        }
    })
    .await;
    if is_for_people {
        let _ = print(&style.closing(steps, well, clock.uptime()));
    }
    Ok(well)
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn record(outcome: &Outcome) -> Value {
    let facts: serde_json::Map<String, Value> =
        outcome.facts.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    let mut record = json!({
        "step": outcome.step,
        "ok": outcome.ok,
        "ms": milliseconds(outcome.took),
        "detail": outcome.detail,
        "facts": facts,
    });
    if let (Some((name, words)), Some(members)) = (&outcome.change, record.as_object_mut()) {
        members.insert("change".to_owned(), json!({ "of": name, "words": words }));
    }
    record
}

/// To a tenth.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// How the story looks on a terminal, or in a file.
struct Style {
    colour: bool,
    paint: Paint,
}

impl Style {
    /// Colour for people only, and only for those who did not decline (<https://no-color.org>).
    fn of_stdout() -> Self {
        let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: io::stdout().is_terminal() && !declined, paint: Paint::detect() }
    }

    fn opening(&self, issuer: &str, took: Duration) -> String {
        let started = self.paint(
            DIM,
            &format!("{issuer} ready after {:.0} ms; not for production", took.as_secs_f64() * 1e3),
        );
        let title = self.paint(BOLD, "Deputize: one refund, in alice's name, and nothing else");
        format!("\n{title}\n{started}\n")
    }

    fn lines(&self, outcome: &Outcome) -> String {
        let mark = match (outcome.ok, outcome.refusal) {
            (true, false) => self.paint(GREEN, "✔"),
            (true, true) => self.paint(YELLOW, "✖"),
            (false, _) => self.paint(RED, "‼"),
        };
        let step = outcome.step.replace('_', " ");
        let took = self.paint(DIM, &format!("{:>8.1} ms", milliseconds(outcome.took)));
        let mut text = format!("{mark} {step:<26}{took}  {}", outcome.detail);
        let changed =
            outcome.change.as_ref().map(|(name, pieces)| (name.as_str(), words(pieces, self.paint)));
        let facts = outcome.facts.iter().map(|(name, value)| (*name, value.clone()));
        for (name, value) in facts.chain(changed) {
            let name = self.paint(DIM, &format!("{name:>39}"));
            text.push_str(&format!("\n{name}  {value}"));
        }
        text
    }

    fn closing(&self, steps: u32, well: bool, took: Duration) -> String {
        let took = took.as_secs_f64();
        if well {
            let text = format!("All {steps} steps went as they should, in {took:.1} s.");
            format!(
                "\n{}\nNext: `deputize dev` keeps such an environment running for you.\n",
                self.paint(BOLD, &text)
            )
        } else {
            format!("\n{}\n", self.paint(RED, &format!("Step {steps} did not go as it should.")))
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
