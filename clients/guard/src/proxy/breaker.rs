//! Stops calls to a server that fails, before a token is spent on it.
//!
//! Whether the server is ill for everyone the guard finds out by looking itself: what one caller meets, he may have
//! caused, by a call that takes for ever or that the server refuses him. It stops his own calls at most, and makes the
//! guard look at once.

use super::{
    failure::{Failure, Symptom},
    session::{Caller, Owner},
    watch::Watch,
};
use crate::{Admission, Upstream};
use async_trait::async_trait;
use deputize_call::claims::ToolCallClaims;
use deputize_client::Clock;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Open for everyone after the guard's own looks failed, until one succeeds. Open for one caller after his own calls
/// failed one after another; then it lets one of his through now and then, and closes when that succeeds.
pub(super) struct Breaker {
    clock: Arc<dyn Clock>,
    watch: Arc<Watch>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Looks of the guard that failed, one after another.
    looks: u32,
    /// When the guard was last made to look.
    hurried: Option<Duration>,
    /// Callers whose last call failed. At most [`MAX_CALLERS`]: beyond, one more is not stopped.
    callers: HashMap<Caller, Failures>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// When the last one was, or the last call was let through although there were too many.
    last: Duration,
}

impl Breaker {
    pub(super) fn new(clock: Arc<dyn Clock>, watch: Arc<Watch>) -> Self {
        Self { clock, watch, state: Mutex::default() }
    }

    /// The guard looked at the server, and the server is well.
    pub(super) fn looks_well(&self) {
        if std::mem::take(&mut self.state().looks) >= LOOKS_TO_OPEN {
            tracing::info!("server answers again");
        }
    }

    /// The guard looked at the server, and it is not there, or refuses the guard.
    pub(super) fn looks_ill(&self) {
        let mut state = self.state();
        state.looks = state.looks.saturating_add(1);
        if state.looks == LOOKS_TO_OPEN {
            tracing::warn!("server fails: calls stop until it answers again");
        }
    }

    /// The server answered this caller.
    pub(super) fn answered(&self, claims: &ToolCallClaims) {
        let mut state = self.state();
        if !state.callers.is_empty() {
            state.callers.remove(&Owner::of(claims).caller());
        }
    }

    /// What came of this caller's request is no answer.
    pub(super) fn failed(&self, claims: &ToolCallClaims, failure: Failure) {
        let symptom = failure.symptom();
        match symptom {
            Symptom::None => self.answered(claims),
            Symptom::Refusal => self.hurry(&mut self.state()),
            Symptom::Silence => {
                let mut state = self.state();
                self.hurry(&mut state);
                self.count(&mut state, Owner::of(claims).caller());
            }
        }
    }

    /// Whether a request of this caller may go through now.
    pub(super) fn admits(&self, claims: &ToolCallClaims) -> bool {
        let mut state = self.state();
        if state.looks >= LOOKS_TO_OPEN {
            // Somebody waits for it: if it is back, the next one is served.
            self.hurry(&mut state);
            return false;
        }
        if state.callers.is_empty() {
            return true;
        }
        let now = self.clock.uptime();
        match state.callers.get_mut(&Owner::of(claims).caller()) {
            Some(failures) if failures.count >= FAILURES_TO_OPEN && failures.is_recent(now) => {
                let is_due = now.saturating_sub(failures.last) >= PROBE_EVERY;
                if is_due {
                    failures.last = now;
                }
                is_due
            }
            Some(_) | None => true,
        }
    }

    fn count(&self, state: &mut State, caller: Caller) {
        let now = self.clock.uptime();
        if state.callers.len() >= MAX_CALLERS {
            state.callers.retain(|_, failures| failures.is_recent(now));
        }
        if state.callers.len() >= MAX_CALLERS && !state.callers.contains_key(&caller) {
            return;
        }
        let failures = state.callers.entry(caller).or_insert(Failures { count: 0, last: now });
        if !failures.is_recent(now) {
            failures.count = 0;
        }
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
    }

    /// Makes the guard look, but not without pause, whoever asks for it.
    fn hurry(&self, state: &mut State) {
        let now = self.clock.uptime();
        if state.hurried.is_none_or(|hurried| now.saturating_sub(hurried) >= LOOK_EVERY) {
            state.hurried = Some(now);
            self.watch.look_again();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn is_recent(&self, now: Duration) -> bool {
        now.saturating_sub(self.last) < FORGOTTEN_AFTER
    }
}

#[async_trait]
impl Upstream for Breaker {
    async fn admit(&self, claims: &ToolCallClaims) -> Admission {
        if self.admits(claims) { Admission::Ready } else { Admission::Unavailable }
    }
}

/// One look that fails may be bad luck.
const LOOKS_TO_OPEN: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FAILURES_TO_OPEN: u32 = 5;
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Longer than a call may take to fail.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
const MAX_CALLERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proxy::tests::HandClock,
        tests::fixture::{Fixture, l1},
    };

    struct Scene {
        clock: Arc<HandClock>,
        breaker: Breaker,
        alice: ToolCallClaims,
        bob: ToolCallClaims,
    }

    fn scene() -> Scene {
        let clock = Arc::new(HandClock::default());
        let alice = Fixture::new().claims(l1("lookup"));
        let bob = ToolCallClaims { sub: "user:acme:x:bob".to_owned(), ..alice.clone() };
        Scene { breaker: Breaker::new(clock.clone(), Arc::default()), clock, alice, bob }
    }

    #[test]
    fn one_caller_stops_nobody_but_himself() {
        let Scene { clock, breaker, alice, bob } = scene();
        for _ in 0..FAILURES_TO_OPEN {
            assert!(breaker.admits(&alice));
            breaker.failed(&alice, Failure::TimedOut);
        }
        assert!(!breaker.admits(&alice));
        assert!(breaker.admits(&bob), "another person");
        let through_another = ToolCallClaims { client_id: "another".to_owned(), ..alice.clone() };
        assert!(breaker.admits(&through_another), "the same person's other agent");
        clock.pass(PROBE_EVERY);
        assert!(breaker.admits(&alice), "half open: one probe");
        assert!(!breaker.admits(&alice), "and no second one");
        breaker.failed(&alice, Failure::Unreachable);
        assert!(!breaker.admits(&alice));
        clock.pass(PROBE_EVERY);
        assert!(breaker.admits(&alice));
        breaker.answered(&alice);
        assert!(breaker.admits(&alice) && breaker.admits(&alice));
    }

    #[test]
    fn what_the_guard_sees_itself_counts_for_everyone() {
        let Scene { clock, breaker, alice, bob } = scene();
        breaker.looks_ill();
        assert!(breaker.admits(&alice), "one look is no proof");
        breaker.looks_ill();
        clock.pass(PROBE_EVERY);
        assert!(!breaker.admits(&alice) && !breaker.admits(&bob), "no caller's token is spent on a probe");
        breaker.answered(&alice);
        assert!(!breaker.admits(&bob), "what was under way says nothing of what comes");
        breaker.looks_well();
        assert!(breaker.admits(&alice) && breaker.admits(&bob));
    }

    #[test]
    fn an_answer_is_no_failure_whatever_it_says() {
        let Scene { breaker, alice, .. } = scene();
        for _ in 0..3 {
            for _ in 1..FAILURES_TO_OPEN {
                breaker.failed(&alice, Failure::TimedOut);
            }
            breaker.failed(&alice, Failure::Broken("another media type"));
        }
        for _ in 0..100 {
            breaker.failed(&alice, Failure::GuardRefused);
        }
        assert!(breaker.admits(&alice));
    }

    #[test]
    fn callers_are_counted_up_to_a_bound_and_forgotten() {
        let Scene { clock, breaker, alice, .. } = scene();
        let nth = |n: usize| ToolCallClaims { sub: format!("user:acme:x:{n}"), ..alice.clone() };
        for n in 0..MAX_CALLERS {
            breaker.failed(&nth(n), Failure::TimedOut);
        }
        for _ in 0..FAILURES_TO_OPEN {
            breaker.failed(&alice, Failure::TimedOut);
        }
        assert_eq!(breaker.state().callers.len(), MAX_CALLERS);
        assert!(breaker.admits(&alice), "where there is no room, nobody is stopped");
        clock.pass(FORGOTTEN_AFTER);
        breaker.failed(&alice, Failure::TimedOut);
        assert_eq!(breaker.state().callers.len(), 1);
    }
}
