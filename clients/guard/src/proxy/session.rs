//! Sessions of MCP up to 2025-11-25: whose they are, what the server asked in them, which events it sent.
//!
//! The ids are the guard's own. To anyone but its owner a session does not exist.

use super::{failure::Failure, server::Channel};
use deputize_call::claims::{Actor, Confirmation, PresentedBy, ToolCallClaims};
use deputize_client::Clock;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Who a session belongs to: this person, through these actors, with this key. Where a person's own token was
/// presented, the key is the guard's: what is left is the person and the client that its issuer made it for, so that
/// whoever holds any such token of theirs goes on with the session, if he knows its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    person: String,
    client: String,
    actors: Vec<String>,
    bearer: Option<PresentedBy>,
    key: String,
}

/// An owner without the key, which a client can change at will: what is limited is limited for all keys together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    person: String,
    client: String,
    actors: Vec<String>,
    bearer: Option<PresentedBy>,
}

/// One session.
pub(super) struct Session {
    /// Its id, as the client knows it.
    pub(super) id: String,
    /// The conversation with the server.
    pub(super) channel: Arc<dyn Channel>,
    owner: Owner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Requests of the server that wait for the client's response, by id.
    asked: HashSet<String>,
    /// Requests of the client that wait for the server's response: id and method, the newest last.
    requested: VecDeque<(String, String)>,
    /// Calls, by id, whose token fixes what they do: under way, or left alone before they had their response.
    fixed: HashSet<String>,
    /// Cursors of the events that went to the client, the newest last.
    cursors: VecDeque<String>,
    used: Duration,
}

/// A call under way whose token fixes what it does; dropped when it is done.
pub(super) struct FixedCall {
    session: Arc<Session>,
    id: String,
    is_left: AtomicBool,
}

/// All sessions.
pub(super) struct Sessions {
    clock: Arc<dyn Clock>,
    idle: Duration,
    most: usize,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

impl Owner {
    /// The owner that these claims speak of.
    pub(super) fn of(claims: &ToolCallClaims) -> Self {
        let (Confirmation::Jkt(key) | Confirmation::X5tS256(key)) = &claims.cnf;
        Self {
            person: claims.sub.clone(),
            client: claims.client_id.clone(),
            actors: claims.act.iter().flat_map(Actor::chain).map(str::to_owned).collect(),
            bearer: claims.bearer.clone(),
            key: key.clone(),
        }
    }

    /// Who that is, whatever key he has.
    pub(super) fn caller(&self) -> Caller {
        let Self { person, client, actors, bearer, .. } = self.clone();
        Caller { person, client, actors, bearer }
    }

    #[cfg(test)]
    pub(super) fn named(person: &str) -> Self {
        let [client, key] = ["platform", "key"].map(str::to_owned);
        Self { person: person.to_owned(), client, actors: Vec::new(), bearer: None, key }
    }
}

impl Session {
    /// Notes that the server asks something. False if it asks too much, or what a call's token fixes could be
    /// steered by the answer.
    pub(super) fn note_asked(&self, id: &Value) -> bool {
        let mut state = self.state();
        if !state.fixed.is_empty() || state.asked.len() >= MAX_ASKED {
            return false;
        }
        state.asked.insert(id.to_string())
    }

    /// The client answers what the server asked. Once.
    pub(super) fn take_asked(&self, id: &Value) -> Result<(), Failure> {
        if self.state().asked.remove(&id.to_string()) { Ok(()) } else { Err(Failure::NotAsked) }
    }

    /// Notes a request of the client, so that its response is known on whatever stream it comes.
    ///
    /// # Errors
    /// [`Failure::IdInUse`]: a server that looks for streams by id would send one response in place of another, and
    /// what is filtered for one method is not for another (MCP 2025-11-25, requests: an id is used once in a session).
    /// [`Failure::Limited`]: too many calls wait whose token fixes what they do.
    pub(super) fn note_requested(&self, id: &Value, method: &str) -> Result<(), Failure> {
        let mut state = self.state();
        let text = id.to_string();
        if state.requested.iter().any(|(requested, _)| *requested == text) {
            return Err(Failure::IdInUse);
        }
        if state.requested.len() >= MAX_REQUESTED {
            // INVARIANT: a fixed call's id is known until its response comes. Were it forgotten, another request could have
            // the same one, and that one's response would end what holds while the call runs.
            let State { requested, fixed, .. } = &mut *state;
            let oldest = requested.iter().position(|(id, _)| !fixed.contains(id)).ok_or(BUSY)?;
            requested.remove(oldest);
        }
        state.requested.push_back((text, method.to_owned()));
        Ok(())
    }

    /// No response to this request comes any more.
    pub(super) fn forget_requested(&self, id: &Value) {
        let id = id.to_string();
        self.state().requested.retain(|(requested, _)| *requested != id);
    }

    /// The method of a request that has no response yet; from now on it has.
    pub(super) fn take_requested(&self, id: &Value) -> Option<String> {
        let (mut state, id) = (self.state(), id.to_string());
        state.fixed.remove(&id);
        let at = state.requested.iter().position(|(requested, _)| *requested == id)?;
        state.requested.remove(at).map(|(_, method)| method)
    }

    /// Notes that an event goes to the client.
    pub(super) fn note_cursor(&self, cursor: &str) {
        let mut state = self.state();
        if state.cursors.len() >= MAX_CURSORS {
            state.cursors.pop_front();
        }
        state.cursors.push_back(cursor.to_owned());
    }

    /// Whether an event with this cursor went to the client in this session: only such a stream is resumed.
    pub(super) fn knows_cursor(&self, cursor: &str) -> bool {
        self.state().cursors.iter().any(|known| known == cursor)
    }

    /// A call begins whose token fixes its arguments: while it runs, the server may ask the client nothing that would
    /// steer it past what was decided.
    pub(super) fn begin_fixed_call(self: &Arc<Self>, id: &Value) -> FixedCall {
        let id = id.to_string();
        self.state().fixed.insert(id.clone());
        FixedCall { session: Arc::clone(self), id, is_left: AtomicBool::new(false) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FixedCall {
    /// Nobody waits for it any more, and it may still run: it is done when its response comes, on another stream.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::SeqCst);
    }
}

impl Drop for FixedCall {
    fn drop(&mut self) {
        if !self.is_left.load(Ordering::SeqCst) {
            self.session.state().fixed.remove(&self.id);
        }
    }
}

impl Sessions {
    pub(super) fn new(clock: Arc<dyn Clock>, most: usize, idle: Duration) -> Self {
        Self { clock, idle, most, sessions: Mutex::default() }
    }

    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.all().len() < self.most
    }

    /// Begins a session.
    pub(super) fn begin(&self, owner: Owner, channel: Arc<dyn Channel>) -> Result<Arc<Session>, Failure> {
        let id = self.clock.unique_id();
        let state = Mutex::new(State { used: self.clock.uptime(), ..State::default() });
        let session = Session { id: id.clone(), channel, owner, state };
        let session = Arc::new(session);
        let mut sessions = self.all();
        let of = |is_theirs: fn(&Owner, &Owner) -> bool| {
            sessions.values().filter(|other| is_theirs(&other.owner, &session.owner)).count()
        };
        let of_owner = of(|other, owner| other == owner);
        // A client has as many keys as it likes.
        let of_person = of(|other, owner| other.person == owner.person);
        if sessions.len() >= self.most || of_owner >= MAX_OF_ONE_OWNER || of_person >= MAX_OF_ONE_PERSON {
            return Err(Failure::Full);
        }
        sessions.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// The session with this id, if it is this owner's. Another's answers as one that never was.
    pub(super) fn find(&self, id: &str, owner: &Owner) -> Result<Arc<Session>, Failure> {
        let session = self.all().get(id).cloned().filter(|session| session.owner == *owner);
        let session = session.ok_or(Failure::UnknownSession)?;
        session.state().used = self.clock.uptime();
        Ok(session)
    }

    /// Forgets a session.
    pub(super) fn forget(&self, id: &str) {
        self.all().remove(id);
    }

    /// Takes out the sessions that were idle for too long.
    pub(super) fn take_idle(&self) -> Vec<Arc<Session>> {
        let now = self.clock.uptime();
        // A session that is in use elsewhere (a stream, a call) is not idle.
        let is_idle = |session: &Arc<Session>| {
            Arc::strong_count(session) == 1 && now.saturating_sub(session.state().used) > self.idle
        };
        let mut sessions = self.all();
        let idle: Vec<String> =
            sessions.iter().filter(|(_, session)| is_idle(session)).map(|(id, _)| id.clone()).collect();
        idle.iter().filter_map(|id| sessions.remove(id)).collect()
    }

    /// Takes out all of them.
    pub(super) fn take_all(&self) -> Vec<Arc<Session>> {
        self.all().drain().map(|(_, session)| session).collect()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_OF_ONE_OWNER: usize = 64;
const MAX_OF_ONE_PERSON: usize = 256;
const MAX_ASKED: usize = 64;
const MAX_REQUESTED: usize = 256;
const BUSY: Failure = Failure::Limited { retry_after_seconds: 1 };
const MAX_CURSORS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::{Deaf, HandClock};
    use serde_json::json;

    fn sessions(most: usize) -> (Arc<HandClock>, Sessions) {
        let clock = Arc::new(HandClock::default());
        (clock.clone(), Sessions::new(clock, most, Duration::from_secs(60)))
    }

    #[test]
    fn a_session_is_its_owners_alone() {
        let (_, sessions) = sessions(10);
        let alice = Owner::named("alice");
        let session = sessions.begin(alice.clone(), Arc::new(Deaf)).unwrap();
        assert!(sessions.find(&session.id, &alice).is_ok());
        let strangers = [
            Owner::named("bob"),
            Owner { key: "another".into(), ..alice.clone() },
            Owner { actors: vec!["agent".into()], ..alice.clone() },
            Owner { client: "another".into(), ..alice.clone() },
            Owner {
                bearer: Some(PresentedBy { iss: "https://id.example".into(), client: "app".into() }),
                ..alice.clone()
            },
        ];
        for stranger in strangers {
            assert_eq!(sessions.find(&session.id, &stranger).err(), Some(Failure::UnknownSession));
        }
        assert_eq!(sessions.find("made-up", &alice).err(), Some(Failure::UnknownSession));
        sessions.forget(&session.id);
        assert_eq!(sessions.find(&session.id, &alice).err(), Some(Failure::UnknownSession));
    }

    #[test]
    fn sessions_are_bounded_and_end_when_idle() {
        let (clock, sessions) = sessions(2);
        let alice = Owner::named("alice");
        let first = sessions.begin(alice.clone(), Arc::new(Deaf)).unwrap().id.clone();
        let in_use = sessions.begin(alice.clone(), Arc::new(Deaf)).unwrap();
        assert_eq!(sessions.begin(alice.clone(), Arc::new(Deaf)).err(), Some(Failure::Full));
        clock.pass(Duration::from_secs(61));
        assert_eq!(sessions.take_idle().iter().map(|idle| idle.id.clone()).collect::<Vec<_>>(), [first]);
        assert!(sessions.find(&in_use.id, &alice).is_ok(), "one that is in use stays");
    }

    #[test]
    fn only_what_the_server_asked_is_answered_and_once() {
        let (_, sessions) = sessions(1);
        let session = sessions.begin(Owner::named("alice"), Arc::new(Deaf)).unwrap();
        assert!(session.note_asked(&json!(1)));
        assert_eq!(session.take_asked(&json!("1")), Err(Failure::NotAsked), "a text is no number");
        assert_eq!(session.take_asked(&json!(1)), Ok(()));
        assert_eq!(session.take_asked(&json!(1)), Err(Failure::NotAsked));
        let fixed = session.begin_fixed_call(&json!("call"));
        assert!(!session.note_asked(&json!(2)), "nothing steers a call that was decided as it stands");
        drop(fixed);
        assert!(session.note_asked(&json!(2)));
        assert!(!session.note_asked(&json!(2)), "an id that waits already");
    }

    #[test]
    fn a_fixed_call_that_nobody_waits_for_is_under_way_until_its_response() {
        let (_, sessions) = sessions(1);
        let session = sessions.begin(Owner::named("alice"), Arc::new(Deaf)).unwrap();
        session.note_requested(&json!(1), "tools/call").unwrap();
        let call = session.begin_fixed_call(&json!(1));
        call.leave();
        drop(call);
        assert!(!session.note_asked(&json!(5)), "it may still run");
        assert_eq!(session.take_requested(&json!(2)), None);
        assert!(!session.note_asked(&json!(5)));
        assert_eq!(session.take_requested(&json!(1)).as_deref(), Some("tools/call"));
        assert!(session.note_asked(&json!(5)));
    }

    #[test]
    fn a_fixed_calls_id_is_not_forgotten_however_many_requests_follow() {
        let (_, sessions) = sessions(1);
        let session = sessions.begin(Owner::named("alice"), Arc::new(Deaf)).unwrap();
        let begin = |id: usize| {
            session.note_requested(&json!(id), "tools/call").map(|()| session.begin_fixed_call(&json!(id)))
        };
        let first = begin(0).unwrap();
        for id in 1..=2 * MAX_REQUESTED {
            session.note_requested(&json!(id), "ping").unwrap();
        }
        assert_eq!(session.note_requested(&json!(0), "ping"), Err(Failure::IdInUse));
        assert!(!session.note_asked(&json!("s")), "the call still runs");
        let most = MAX_REQUESTED - 1;
        let others: Vec<FixedCall> = (1000..1000 + most).map(|id| begin(id).unwrap()).collect();
        assert_eq!(session.note_requested(&json!(9999), "ping"), Err(BUSY));
        assert_eq!(session.take_requested(&json!(1000)).as_deref(), Some("tools/call"));
        assert_eq!(session.note_requested(&json!(9999), "ping"), Ok(()));
        drop((first, others));
        assert!(session.note_asked(&json!("s")));
    }

    #[test]
    fn new_keys_give_a_person_no_more_sessions() {
        let (_, sessions) = sessions(1000);
        let begin = |person: &str, key: usize| {
            let owner = Owner { key: key.to_string(), ..Owner::named(person) };
            sessions.begin(owner, Arc::new(Deaf)).is_ok()
        };
        let begun = (0..500).take_while(|key| begin("mallory", *key)).count();
        assert_eq!(begun, MAX_OF_ONE_PERSON);
        assert!(begin("alice", 0));
    }

    #[test]
    fn cursors_and_requests_are_known_in_their_session_only() {
        let (_, sessions) = sessions(2);
        let one = sessions.begin(Owner::named("alice"), Arc::new(Deaf)).unwrap();
        let other = sessions.begin(Owner::named("alice"), Arc::new(Deaf)).unwrap();
        one.note_cursor("e1");
        assert!(one.knows_cursor("e1") && !other.knows_cursor("e1") && !one.knows_cursor("e2"));
        one.note_requested(&json!(7), "tools/list").unwrap();
        assert_eq!(one.note_requested(&json!(7), "ping"), Err(Failure::IdInUse));
        other.note_requested(&json!(7), "ping").unwrap();
        other.forget_requested(&json!(7));
        assert_eq!(other.take_requested(&json!(7)), None);
        assert_eq!(one.take_requested(&json!(7)).as_deref(), Some("tools/list"));
        assert_eq!(one.take_requested(&json!(7)), None);
    }
}
