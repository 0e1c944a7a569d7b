//! A server that is a program of the guard's own, spoken to over stdin and stdout.
//!
//! Versions of MCP with sessions keep state in the process, so each session has one to itself. Requests of the
//! stateless version carry everything with them: they share one process, under ids that the guard gives them.

mod child;
mod routes;

use super::{
    failure::Failure,
    process::Starts,
    server::{Channel, Server},
    settings::StdioUpstream,
};
use async_trait::async_trait;
use child::Child;
use deputize_client::Clock;
use std::sync::Arc;
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

impl StdioServer {
    pub(super) fn new(upstream: StdioUpstream, clock: Arc<dyn Clock>) -> Self {
        let places = Arc::new(Semaphore::new(upstream.max_processes.saturating_add(2)));
        Self { upstream, clock, places, shared: tokio::sync::Mutex::default(), starts: Arc::default() }
    }

    fn start(&self, is_shared: bool) -> Result<Arc<Child>, Failure> {
        if !self.starts.wait(self.clock.uptime()).is_zero() {
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
