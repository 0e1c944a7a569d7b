//! `deputize demo`: starts a development environment, tells the story of one call in it, and checks every word.

use crate::{
    assemble::CannotStart,
    commands::serve::StopSignal,
    dev::{
        environment::{self, Choices},
        story::{self, Outcome},
    },
};
use clap::Args;
use deputize_issuer::clock::{Clock, SystemClock};
use serde_json::json;
use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What may be said to `deputize demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// One JSON object a line for each step: `step`, `ok`, `ms`, `detail`.
    #[arg(long)]
    json: bool,
}

/// Tells the story. True if every step went as it should.
///
/// # Errors
/// [`CannotStart`].
pub(crate) async fn demo(arguments: &Demo) -> Result<bool, CannotStart> {
    let mut stop = StopSignal::listen().map_err(|error| CannotStart(error.to_string()))?;
    tokio::select! {
        told = tell(arguments.json) => told,
        // The environment goes with its story, files included.
        () = stop.wait() => Ok(false),
    }
}

async fn tell(json: bool) -> Result<bool, CannotStart> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let environment = environment::start(&Choices { listen, folder: None, register: Vec::new() }).await?;
    let style = Style::of_stdout();
    // Whoever no longer reads misses the story; its checks go on.
    if !json {
        let _ = print(&style.opening(&environment.ready.issuer, clock.uptime()));
    }
    let mut steps = 0;
    let well = story::tell(environment, Arc::clone(&clock), &mut |outcome| {
        steps += 1;
        let _ = print(&if json { json_line(outcome) } else { style.lines(outcome) });
    })
    .await;
    if !json {
        let _ = print(&style.closing(steps, well, clock.uptime()));
    }
    Ok(well)
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

fn json_line(outcome: &Outcome) -> String {
    json!({ "step": outcome.step, "ok": outcome.ok, "ms": milliseconds(outcome.took), "detail": outcome.detail })
        .to_string()
}

/// To a tenth.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// How the story looks on a terminal, or in a file.
struct Style {
    colour: bool,
}

impl Style {
    /// Colour for people only, and only for those who did not decline (<https://no-color.org>).
    fn of_stdout() -> Self {
        let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: io::stdout().is_terminal() && !declined }
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
        let mut text = format!("{mark} {step:<19}{took}  {}", outcome.detail);
        for (name, value) in &outcome.facts {
            let name = self.paint(DIM, &format!("{name:>32}"));
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
