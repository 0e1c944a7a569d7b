//! A proxy before a scripted server: what goes through, what does not, in both directions.

mod aws;
mod bench;
mod calls;
#[cfg(feature = "tower")]
mod layers;
mod ordinary;
mod programs;
mod sessions;
mod subscriptions;

pub(super) use bench::until;

use super::{
    failure::Failure,
    server::{Answer, Channel, Messages, Outgoing, Trace},
};
use async_trait::async_trait;
use deputize_client::Clock;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A clock that is moved by hand, and ids that are counted.
#[derive(Default)]
pub(crate) struct HandClock {
    uptime: Mutex<Duration>,
    ids: AtomicU64,
}

impl HandClock {
    pub(crate) fn pass(&self, time: Duration) {
        *self.uptime.lock().unwrap() += time;
    }
}

impl Clock for HandClock {
    fn now_seconds(&self) -> u64 {
        crate::tests::fixture::NOW + self.uptime().as_secs()
    }
    fn uptime(&self) -> Duration {
        *self.uptime.lock().unwrap()
    }
    fn unique_id(&self) -> String {
        format!("id-{}", self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

/// A conversation in which nothing is said.
pub(super) struct Deaf;

#[async_trait]
impl Channel for Deaf {
    async fn send(&self, _: Outgoing) -> Result<Answer, Failure> {
        Ok(Answer::Accepted)
    }
    async fn listen(&self, _: Option<&str>, _: &Trace) -> Result<Box<dyn Messages>, Failure> {
        Err(Failure::NoStream)
    }
    fn settle_version(&self, _: &str) {}
    async fn end(&self) {}
}
