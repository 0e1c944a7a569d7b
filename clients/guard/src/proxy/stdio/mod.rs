//! A server that is a program of the guard's own, spoken to over stdin and stdout.
//!
//! Versions of MCP with sessions keep state in the process, so each session has one to itself. Requests of the
//! stateless version carry everything with them: they share one process, under ids that the guard gives them.

mod child;
mod process;
mod routes;

use super::{
    failure::Failure,
    server::{Channel, Server},
    settings::StdioUpstream,
};
use async_trait::async_trait;
use child::Child;
use deputize_client::Clock;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Starts the program as often as it is needed.
pub(super) struct StdioServer {
    upstream: StdioUpstream,
    clock: Arc<dyn Clock>,
    /// Places for processes: one for each session, one for the guard's own eyes, one that is shared.
    places: Arc<Semaphore>,
    shared: tokio::sync::Mutex<Option<Arc<Child>>>,
    starts: Arc<Starts>,
}

/// How often the program died young, one time after another.
#[derive(Default)]
struct Starts(Mutex<Start>);

#[derive(Default)]
struct Start {
    died_young: u32,
    died_at: Option<Duration>,
}

impl StdioServer {
    pub(super) fn new(upstream: StdioUpstream, clock: Arc<dyn Clock>) -> Self {
        let places = Arc::new(Semaphore::new(upstream.max_processes.saturating_add(2)));
        Self { upstream, clock, places, shared: tokio::sync::Mutex::default(), starts: Arc::default() }
    }

    fn start(&self, is_shared: bool) -> Result<Arc<Child>, Failure> {
        if !self.starts.may_start(self.clock.uptime()) {
            return Err(Failure::Unreachable);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Failure::Full)?;
        let (starts, clock, started) =
            (Arc::clone(&self.starts), Arc::clone(&self.clock), self.clock.uptime());
        let at_end = move |died: bool| {
            drop(place);
            starts.ended(died, started, clock.uptime());
        };
        Child::start(&self.upstream, is_shared, at_end).inspect_err(|_| {
            self.starts.ended(true, self.clock.uptime(), self.clock.uptime());
        })
    }
}

#[async_trait]
impl Server for StdioServer {
    async fn open(&self) -> Result<Arc<dyn Channel>, Failure> {
        Ok(self.start(false)?)
    }

    async fn without_session(&self, legacy: bool) -> Result<Arc<dyn Channel>, Failure> {
        if legacy {
            return Err(Failure::NoSession);
        }
        let mut shared = self.shared.lock().await;
        if let Some(child) = shared.as_ref().filter(|child| child.is_alive()) {
            return Ok(Arc::clone(child) as _);
        }
        let child = self.start(true)?;
        *shared = Some(Arc::clone(&child));
        Ok(child)
    }
}

impl Starts {
    /// A program that dies as soon as it is started is not started again at once.
    fn may_start(&self, uptime: Duration) -> bool {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = FIRST_WAIT.saturating_mul(1 << start.died_young.min(9)).min(LONGEST_WAIT);
        start.died_young == 0 || start.died_at.is_none_or(|died| uptime.saturating_sub(died) >= wait)
    }

    fn ended(&self, died: bool, started: Duration, uptime: Duration) {
        let mut start = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let young = uptime.saturating_sub(started) < YOUNG;
        start.died_young = if died && young { start.died_young.saturating_add(1) } else { 0 };
        start.died_at = Some(uptime);
    }
}

const YOUNG: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_dies_young_is_started_again_ever_later() {
        let starts = Starts::default();
        let mut now = Duration::from_secs(100);
        assert!(starts.may_start(now));
        let mut waits = Vec::new();
        for _ in 0..12 {
            starts.ended(true, now, now);
            let died = now;
            while !starts.may_start(now) {
                now += Duration::from_millis(100);
            }
            waits.push(now - died);
        }
        assert!(
            waits.is_sorted() && waits[0] < Duration::from_secs(1) && waits[11] == LONGEST_WAIT,
            "{waits:?}"
        );
        starts.ended(true, now - YOUNG, now);
        assert!(starts.may_start(now), "one that ran for a while is started again at once");
    }
}
