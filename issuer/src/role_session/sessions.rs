//! Sessions that were given out: each call gets one, however often and by how many it is asked for at once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deputize_call::{claims::ToolCallClaims, level::Level};

use super::RoleSession;
use crate::{desk::Desk, error::IssueError, templates::MAX_WINDOW_SECONDS};

/// Sessions that were given out, while their windows last, and those that are being asked for. By token: what one got,
/// no other sees.
#[derive(Debug)]
pub struct RoleSessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    capacity: usize,
    flights: HashMap<String, (Arc<str>, Arc<Flight>)>,
    by_end: BTreeSet<(u64, String)>,
    /// How many each client holds.
    held: HashMap<Arc<str>, usize>,
}

/// The session of one token. Whoever holds the lock asks for it; all others wait for what comes of that.
pub(super) type Flight = tokio::sync::Mutex<Held>;

/// What came of it so far.
#[derive(Debug, Default)]
pub(super) struct Held {
    session: Option<Arc<RoleSession>>,
    /// How often it was handed out since.
    again: u64,
    /// What STS refused last, and when (uptime).
    failed: Option<(Duration, IssueError)>,
}

impl Default for RoleSessions {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl RoleSessions {
    fn with_capacity(capacity: usize) -> Self {
        Self { state: Mutex::new(State { capacity, ..State::default() }) }
    }

    /// The place of a token's session.
    ///
    /// # Errors
    /// [`IssueError::Uncertain`] when [`CAPACITY`] are held, or this client's share of them: as many as there is room
    /// left. Nothing is forgotten early, or a call could get two sessions.
    pub(super) fn flight(
        &self,
        client_id: &str,
        claims: &ToolCallClaims,
        now_seconds: u64,
    ) -> Result<Arc<Flight>, IssueError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, flight)) = state.flights.get(&claims.jti) {
            return Ok(Arc::clone(flight));
        }
        state.forget_before(now_seconds);
        let held = state.held.get(client_id).copied().unwrap_or_default();
        if held >= state.capacity.saturating_sub(state.flights.len()) {
            return Err(IssueError::Uncertain("role_sessions_full"));
        }
        // No window that begins while the token lives ends later.
        let end = claims.exp.saturating_add(u64::from(MAX_WINDOW_SECONDS));
        Ok(state.insert(client_id, &claims.jti, end))
    }

    /// Forgets sessions whose windows are over, with their secrets. Called once a second.
    pub fn forget_before(&self, now_seconds: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).forget_before(now_seconds);
    }
}

impl State {
    fn insert(&mut self, client_id: &str, jti: &str, end: u64) -> Arc<Flight> {
        let client_id = match self.held.get_key_value(client_id) {
            Some((client_id, _)) => Arc::clone(client_id),
            None => Arc::from(client_id),
        };
        *self.held.entry(Arc::clone(&client_id)).or_default() += 1;
        self.by_end.insert((end, jti.to_owned()));
        let flight = Arc::new(Flight::default());
        self.flights.insert(jti.to_owned(), (client_id, Arc::clone(&flight)));
        flight
    }

    /// In bounded steps: no request pays for all that a quiet hour has left behind.
    fn forget_before(&mut self, now_seconds: u64) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.by_end.first().is_none_or(|(end, _)| *end >= now_seconds) {
                return;
            }
            let forgotten = self.by_end.pop_first().and_then(|(_, jti)| self.flights.remove(&jti));
            let Some((client_id, _)) = forgotten else { continue };
            if let Some(held) = self.held.get_mut(&client_id) {
                *held = held.saturating_sub(1);
                if *held == 0 {
                    self.held.remove(&client_id);
                }
            }
        }
    }
}

impl Held {
    /// What can be answered without asking anybody: the session that the token got, a refusal that is fresh. `None`:
    /// it has none yet, or may have a new one.
    pub(super) fn answer(
        &self,
        desk: &Desk,
        claims: &ToolCallClaims,
        named: Option<&str>,
    ) -> Option<Result<Arc<RoleSession>, IssueError>> {
        if let Some((at, error)) = &self.failed
            && desk.clock.uptime().saturating_sub(*at) < FAILURE_REMEMBERED
        {
            return Some(Err(error.clone()));
        }
        let session = self.session.as_ref()?;
        let refuse = |reason| IssueError::NoSession { reason, detail: String::new() };
        if session.window_end_seconds <= desk.clock.now_seconds() {
            let [detail] = &claims.authorization_details;
            // One call has one window; a token for several calls may have another.
            return (detail.level() == Level::L3).then_some(Err(refuse("window_over")));
        }
        if named.is_some_and(|named| named != session.template) {
            return Some(Err(refuse("another_template")));
        }
        // A template that was changed or taken away since, or an account, gives out nothing any more.
        let rules = desk.rules.load();
        let template = rules.templates.get(&session.template);
        let stands = template.is_some_and(|template| template.hash() == session.template_hash)
            && rules.aws_accounts.allow(&session.account);
        stands.then(|| Ok(Arc::clone(session)))
    }

    /// Counts that it is handed out once more: how often that makes.
    pub(super) fn count_again(&mut self) -> u64 {
        self.again = self.again.saturating_add(1);
        self.again
    }

    /// Keeps what came of asking.
    pub(super) fn keep(&mut self, issued: Result<RoleSession, IssueError>, uptime: Duration) -> Kept {
        match issued {
            Ok(session) => {
                let session = Arc::new(session);
                *self = Self { session: Some(Arc::clone(&session)), ..Self::default() };
                Ok(session)
            }
            Err(error) => {
                if matches!(error, IssueError::Sts(_)) {
                    self.failed = Some((uptime, error.clone()));
                }
                Err(error)
            }
        }
    }
}

type Kept = Result<Arc<RoleSession>, IssueError>;

/// The most sessions held: about 4 KB each.
pub const CAPACITY: usize = 50_000;
/// A storm of requests for what STS refuses is none for STS.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(1);
const FORGOTTEN_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sessions: &RoleSessions, client_id: &str, count: usize) -> usize {
        let mut state = sessions.state.lock().unwrap();
        let room = |state: &State| state.capacity - state.flights.len();
        let held = |state: &State| state.held.get(client_id).copied().unwrap_or_default();
        (0..count)
            .take_while(|n| {
                let fits = held(&state) < room(&state);
                if fits {
                    state.insert(client_id, &format!("{client_id}{n}"), 100);
                }
                fits
            })
            .count()
    }

    #[test]
    fn one_client_leaves_room_for_others_and_what_is_over_is_forgotten() {
        let sessions = RoleSessions::with_capacity(100);
        assert_eq!(taken(&sessions, "greedy", 100), 50);
        assert_eq!(taken(&sessions, "other", 10), 10);
        sessions.forget_before(100);
        assert_eq!(sessions.state.lock().unwrap().flights.len(), 60, "the last second of a window counts");
        sessions.forget_before(101);
        let state = sessions.state.lock().unwrap();
        assert!(state.flights.is_empty() && state.held.is_empty() && state.by_end.is_empty());
    }
}
