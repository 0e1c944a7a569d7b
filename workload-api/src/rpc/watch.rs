//! Streams of full states (SPIFFE Workload API §4.3): the first at once, another whenever something changed.

use async_trait::async_trait;
use deputize_issuer::{entry::Entry, workload::Workload};
use prost::Message;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::sync::watch as channel;

use super::{Api, Caller};
use crate::{
    error::{Answered, Refused},
    peer::NotAttested,
};

/// What a stream tells.
#[async_trait]
pub(crate) trait Question: Send + Sync + 'static {
    type Message: Message + Clone + PartialEq + Send + 'static;

    /// The state as it is known without making anything; `None` where something must be made.
    fn peek(api: &Api, workload: &Workload, entries: &[Arc<Entry>]) -> Option<Answer<Self::Message>>;

    /// The state, with what must be made for it.
    async fn answer(
        api: &Api,
        workload: &Workload,
        entries: &[Arc<Entry>],
    ) -> Result<Answer<Self::Message>, Refused>;
}

/// A state.
pub(crate) struct Answer<M> {
    pub(crate) message: M,
    /// When part of it is to be renewed, in Unix seconds.
    pub(crate) renew_at_seconds: Option<u64>,
    /// When part of it ends, in Unix seconds.
    pub(crate) good_until_seconds: Option<u64>,
}

/// A stream of states.
pub(crate) struct Watch<Q: Question> {
    turn: Turn<Q>,
}

enum Turn<Q: Question> {
    /// The first state, not yet told.
    First(Box<Watcher<Q>>),
    /// Waiting for the next.
    Waiting(Pin<Box<dyn Future<Output = Next<Q>> + Send>>),
    Ended,
}

/// The watcher, with the next state or with the reason why there is none.
type Next<Q> = (Box<Watcher<Q>>, Result<(), Refused>);

/// What ended a sleep.
#[derive(PartialEq, Eq)]
enum Woken {
    ByAChange,
    ByTheClock,
}

/// Waits for the next state of one stream.
struct Watcher<Q: Question> {
    api: Arc<Api>,
    caller: Caller,
    changes: channel::Receiver<u64>,
    workload: Arc<Workload>,
    entries: Vec<Arc<Entry>>,
    /// The state that was told last.
    told: Answer<Q::Message>,
    /// Which stream this is, of all that there were.
    number: u64,
}

impl<M> Answer<M> {
    /// A state that ends only when something changes.
    pub(crate) fn lasting(message: M) -> Self {
        Self { message, renew_at_seconds: None, good_until_seconds: None }
    }
}

impl<Q: Question> Watch<Q> {
    /// # Errors
    /// [`Refused`] if there is no first state.
    pub(crate) async fn begin(api: &Arc<Api>, caller: Caller) -> Result<Self, Refused> {
        // Before anything is looked at: what changes meanwhile is looked at again.
        let mut changes = api.source.changes();
        changes.mark_unchanged();
        let (workload, entries) = api.entitled(&caller).await?;
        let told = Q::answer(api, &workload, &entries).await?;
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let api = Arc::clone(api);
        let watcher = Watcher { api, caller, changes, workload, entries, told, number };
        Ok(Self { turn: Turn::First(Box::new(watcher)) })
    }
}

impl<Q: Question> tokio_stream::Stream for Watch<Q> {
    type Item = Result<Q::Message, Answered>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match &mut this.turn {
                Turn::Ended => return Poll::Ready(None),
                Turn::First(_) => {}
                Turn::Waiting(next) => {
                    let (watcher, found) = ready!(next.as_mut().poll(context));
                    this.turn = match found {
                        Ok(()) => Turn::First(watcher),
                        Err(refused) => {
                            this.turn = Turn::Ended;
                            return Poll::Ready(Some(Err(refused.into())));
                        }
                    };
                }
            }
            if let Turn::First(watcher) = std::mem::replace(&mut this.turn, Turn::Ended) {
                let message = watcher.told.message.clone();
                this.turn = Turn::Waiting(Box::pin(watcher.next()));
                return Poll::Ready(Some(Ok(message)));
            }
        }
    }
}

impl<Q: Question> Watcher<Q> {
    async fn next(mut self: Box<Self>) -> Next<Q> {
        let found = self.wait().await;
        (self, found)
    }

    /// Waits until there is a state unlike the last.
    async fn wait(&mut self) -> Result<(), Refused> {
        loop {
            if self.sleep().await? == Woken::ByAChange && !self.concerns_this_stream().await? {
                continue;
            }
            match self.look().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Nothing can be made, or nobody can say now who the caller is: it is not given anything new.
                Err(
                    refused @ (Refused::Unavailable(_) | Refused::NotAttested(NotAttested::Unavailable(_))),
                ) => {
                    self.go_on_with_what_was_told(refused).await?;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Looks what the state is now; whether it is unlike the last.
    async fn look(&mut self) -> Result<bool, Refused> {
        // INVARIANT: the process is looked at anew before anything is given to it.
        let (workload, entries) = self.api.entitled(&self.caller).await?;
        let answer = Q::answer(&self.api, &workload, &entries).await?;
        let is_new = answer.message != self.told.message;
        (self.workload, self.entries, self.told) = (workload, entries, answer);
        Ok(is_new)
    }

    /// Sleeps until something may have changed.
    async fn sleep(&mut self) -> Result<Woken, Refused> {
        let now = self.api.clock.now_seconds();
        let ends = self.entries.iter().filter_map(|entry| entry.expires_at_seconds);
        let due = self.told.renew_at_seconds.into_iter().chain(ends).min();
        let look_again = LOOK_AGAIN + self.splay(LOOK_AGAIN / 4);
        let until_due = due.map(|at| match at.checked_sub(now) {
            // Overdue: it could not be had when it was due.
            None | Some(0) => RETRY + self.splay(RETRY),
            Some(seconds) => Duration::from_secs(seconds) + self.crowd_splay(),
        });
        let rest = until_due.map_or(look_again, |until| until.min(look_again));
        tokio::select! {
            changed = self.changes.changed() => match changed {
                Ok(()) => Ok(Woken::ByAChange),
                // The source has gone: so has whoever could renew anything.
                Err(_) => Err(Refused::Stopping),
            },
            refused = stopped(&mut self.caller.stop) => Err(refused),
            () = tokio::time::sleep(rest) => Ok(Woken::ByTheClock),
        }
    }

    /// Whether, as far as is known without a look at the process, a change changes what it is told.
    async fn concerns_this_stream(&mut self) -> Result<bool, Refused> {
        let entries = self.api.source.entitled(&self.workload);
        let known = if entries.is_empty() { None } else { Q::peek(&self.api, &self.workload, &entries) };
        if known.is_some_and(|answer| answer.message == self.told.message) {
            return Ok(false);
        }
        if entries == self.entries {
            // Something that concerns many at once, like a new authority. What concerns few, like a new entry, is told
            // at once (SPIFFE Workload API §4.3).
            self.pause(self.crowd_splay()).await?;
        }
        Ok(true)
    }

    /// While nothing can be told, what was told goes on to hold; but not longer than it is good, or, where it has no end,
    /// than nothing in it changes.
    async fn go_on_with_what_was_told(&mut self, refused: Refused) -> Result<(), Refused> {
        let now = self.api.clock.now_seconds();
        if self.told.good_until_seconds.is_some_and(|end| end <= now) {
            return Err(refused);
        }
        // What is taken away is taken from whoever cannot be looked at, too.
        let entries = self.api.source.entitled(&self.workload);
        let stands = |one: &Arc<Entry>| {
            entries.iter().any(|entry| (&entry.id, &entry.spiffe_id) == (&one.id, &one.spiffe_id))
        };
        if entries.is_empty() {
            return Err(Refused::NotEntitled);
        }
        if !self.entries.iter().all(stands) {
            return Err(refused);
        }
        // What has no end of its own would be trusted for as long as this lasts, with a key that was withdrawn: the end of
        // its stream tells that it is not what it was. An SVID ends by itself, and its stream with it.
        if self.told.good_until_seconds.is_none() {
            let known = Q::peek(&self.api, &self.workload, &entries);
            if known.is_some_and(|answer| answer.message != self.told.message) {
                return Err(refused);
            }
        }
        self.pause(RETRY + self.splay(RETRY)).await?;
        self.changes.mark_changed();
        Ok(())
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), Refused> {
        if pause.is_zero() {
            return Ok(());
        }
        tokio::select! {
            refused = stopped(&mut self.caller.stop) => Err(refused),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// The more streams there are, the further apart they wake.
    fn crowd_splay(&self) -> Duration {
        let streams = u64::try_from(self.api.room.calls()).unwrap_or(u64::MAX);
        if streams < CROWD {
            return Duration::ZERO;
        }
        self.splay(Duration::from_millis(streams).min(MAX_SPLAY))
    }

    /// A part of `most`, another for each stream and spread evenly (multiples of the golden ratio).
    fn splay(&self, most: Duration) -> Duration {
        let part = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Duration::from_millis(u64::try_from(most.as_millis()).unwrap_or(u64::MAX).saturating_mul(part) >> 32)
    }
}

/// Waits until the server stops, or whoever would stop it is gone.
async fn stopped(stop: &mut channel::Receiver<bool>) -> Refused {
    let _ = stop.wait_for(|stop| *stop).await;
    Refused::Stopping
}

static STREAMS: AtomicU64 = AtomicU64::new(0);
/// How often a process is looked at anew although nothing is known to have changed: it may have.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(5);
/// So many streams wake at once without harm.
const CROWD: u64 = 64;
const MAX_SPLAY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
