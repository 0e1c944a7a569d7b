//! The story that `deputize demo` tells: from a sign-in to the audit log, with everything tried that must not work.
//!
//! Every line is a check of a real answer: what the steps ask, they ask over HTTP and through processes, as anybody
//! else would have to. The first step that does not go as it should ends the story.

mod attested;
mod audit;
mod aws;
mod guarded;
mod second_opinion;
mod steps;
mod svid;
mod wire;

use super::environment::Environment;
use deputize_issuer::{clock::Clock, registry::diff::Piece};
use std::{error::Error, fmt::Display, future::Future, sync::Arc, time::Duration};

/// One step, told.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its name, which does not change.
    pub(crate) step: &'static str,
    /// Whether it went as it should.
    pub(crate) ok: bool,
    /// Whether what should happen was a refusal.
    pub(crate) refusal: bool,
    /// How long it took.
    pub(crate) took: Duration,
    /// What happened, in a line.
    pub(crate) detail: String,
    /// What there is to see: names and values.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// A text that changed, word by word: its name, and what became of it.
    pub(crate) change: Option<(String, Vec<Piece>)>,
}

/// Why a step did not go as it should.
#[derive(Debug)]
pub(crate) struct Trouble(String);

/// What a step has to tell, and what it hands on.
struct Told<T> {
    value: T,
    detail: String,
    facts: Vec<(&'static str, String)>,
    change: Option<(String, Vec<Piece>)>,
}

/// Tells each step to `listener` as soon as it is done.
struct Teller<'t> {
    clock: Arc<dyn Clock>,
    listener: &'t mut (dyn FnMut(&Outcome) + Send),
}

/// Tells the whole story. True if every step went as it should.
pub(crate) async fn tell(
    environment: Environment,
    clock: Arc<dyn Clock>,
    listener: &mut (dyn FnMut(&Outcome) + Send),
) -> bool {
    let mut teller = Teller { clock: Arc::clone(&clock), listener };
    match steps::all(environment, clock, &mut teller).await {
        Ok(()) => true,
        Err(Stopped) => false,
    }
}

/// A step did not go as it should; it has been told.
struct Stopped;

impl Teller<'_> {
    async fn step<T>(
        &mut self,
        step: &'static str,
        refusal: bool,
        act: impl Future<Output = Result<Told<T>, Trouble>>,
    ) -> Result<T, Stopped> {
        let before = self.clock.uptime();
        let acted = act.await;
        let took = self.clock.uptime().saturating_sub(before);
        match acted {
            Ok(Told { value, detail, facts, change }) => {
                (self.listener)(&Outcome { step, ok: true, refusal, took, detail, facts, change });
                Ok(value)
            }
            Err(Trouble(detail)) => {
                let facts = Vec::new();
                (self.listener)(&Outcome { step, ok: false, refusal, took, detail, facts, change: None });
                Err(Stopped)
            }
        }
    }
}

impl<T> Told<T> {
    fn new(value: T, detail: impl Into<String>) -> Self {
        Self { value, detail: detail.into(), facts: Vec::new(), change: None }
    }
    fn fact(mut self, name: &'static str, value: impl Display) -> Self {
        self.facts.push((name, value.to_string()));
        self
    }
    fn change(mut self, name: &str, words: Vec<Piece>) -> Self {
        self.change = Some((name.to_owned(), words));
        self
    }
}

impl Trouble {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl<E: Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}
