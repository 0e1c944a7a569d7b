//! The guard's own tokens for what is presented: one for looking and one for each tool of the lowest level, as long as
//! they live; for every other call one of its own.

use crate::{
    message::{Call, Kind, Message},
    refusal::Reason,
    snapshot::Snapshot,
};
use deputize_call::{action::Action, digest::sha256, level::Level};
use deputize_client::{Detail, ExchangeError};
use serde_json::Value;
use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use zeroize::Zeroizing;

use super::{
    exchanger::{Exchanger, Minted, Says, reason_of},
    held::{Held, Moment, What},
    presented::Presented,
    throttle::Throttle,
};

/// Exchanges what is presented, and remembers what may be remembered of it.
pub(in crate::proxy) struct Ordinary {
    exchanger: Arc<dyn Exchanger>,
    throttle: Throttle,
    held: Mutex<Held>,
    /// Tools of the lowest level that are granted for single calls alone, since their policies look at arguments; and the
    /// version of the snapshot of which that was learned.
    exact: Mutex<(u64, HashSet<String>)>,
}

/// Where a request comes from, and when.
type Came = (IpAddr, Moment);

impl Ordinary {
    pub(in crate::proxy) fn new(exchanger: Arc<dyn Exchanger>) -> Self {
        Self { exchanger, throttle: Throttle::new(), held: Mutex::default(), exact: Mutex::default() }
    }

    /// A token for what this message asks; without one, for listening.
    pub(super) async fn token(
        &self,
        presented: &Presented<'_>,
        (message, snapshot): (Option<&Message>, &Snapshot),
        came: Came,
    ) -> Result<Zeroizing<String>, Reason> {
        match message.map(Message::kind) {
            None | Some(Kind::Listing | Kind::Response(_)) => {
                self.reusable(presented, What::Listing, came).await
            }
            Some(Kind::Call(call)) => self.call(presented, (call, snapshot), came).await,
        }
    }

    /// Whether a person, whose token was accepted, may send one more request. Each takes room among the proofs that are
    /// remembered of the guard's own key, which is there for all persons.
    pub(super) fn may_send(&self, presented: &Presented<'_>, now: Moment) -> Result<(), Reason> {
        self.throttle.request_of(presented.person, now)
    }

    /// A proof of the guard's key for one request.
    pub(super) fn prove(&self, method: &str, url: &str, token: &str, nonce: &str) -> Result<String, Reason> {
        self.exchanger.prove(method, url, token, nonce).map_err(reason_of)
    }

    /// Something of this caller's was refused at the guard: all of it is asked anew.
    pub(super) fn forget(&self, presented: &Presented<'_>) {
        lock(&self.held).forget(&presented.tag);
    }

    /// The least that the tool's level allows, and no less than its policies do.
    async fn call(
        &self,
        presented: &Presented<'_>,
        (call, snapshot): (&Call, &Snapshot),
        came: Came,
    ) -> Result<Zeroizing<String>, Reason> {
        let (name, version) = (&call.name, came.1.version);
        if !call.has_steering_types() {
            return Err(Reason::Message("inputResponses must be an object, requestState a string"));
        }
        if snapshot.pinned(call.action, name).is_none() {
            // Nothing of it goes to the broker; and whoever is nobody does not learn what there is.
            self.reusable(presented, What::Listing, came).await?;
            return Err(Reason::Tool("not approved"));
        }
        // A prompt or a resource has a token for each use.
        let tool = snapshot.tool(name).filter(|_| call.action == Action::CallTool);
        let lowest = tool.is_some_and(|tool| tool.least_level <= Level::L1);
        // Responses steer a call: only a token for exactly this call covers them.
        if !lowest || call.is_steered() || self.is_exact(name, version) {
            return self.single(presented, call, came).await;
        }
        match self.reusable(presented, What::Tool(name.clone()), came).await {
            Err(Reason::Denied { .. }) => {
                let token = self.single(presented, call, came).await?;
                self.learn_exact(name, version);
                Ok(token)
            }
            outcome => outcome,
        }
    }

    /// A token for this one call.
    async fn single(
        &self,
        presented: &Presented<'_>,
        call: &Call,
        came: Came,
    ) -> Result<Zeroizing<String>, Reason> {
        let detail = Detail::Call {
            name: call.name.clone(),
            arguments: Value::Object(call.arguments.clone()),
            input_responses: call.input_responses.clone(),
            request_state: call.request_state.clone(),
        };
        let digest = call.digest()?;
        let key = key(&presented.tag, digest.as_bytes());
        let asked = (call.action, detail);
        self.exchange(presented, (asked, key), came).await.map(|minted| minted.token)
    }

    /// A token that may serve again.
    async fn reusable(
        &self,
        presented: &Presented<'_>,
        what: What,
        came: Came,
    ) -> Result<Zeroizing<String>, Reason> {
        if let Some(token) = lock(&self.held).take(&presented.tag, &what, came.1) {
            return Ok(token);
        }
        let (detail, name) = match &what {
            What::Listing => (Detail::Listing, ""),
            What::Tool(name) => (Detail::Tool { name: name.clone() }, name.as_str()),
        };
        let key = key(&presented.tag, name.as_bytes());
        let minted = self.exchange(presented, ((Action::CallTool, detail), key), came).await?;
        lock(&self.held).keep(&presented.tag, what, &minted, came.1);
        Ok(minted.token)
    }

    /// Asks the broker, unless it said no to the same a moment ago.
    async fn exchange(
        &self,
        presented: &Presented<'_>,
        (asked, key): ((Action, Detail), [u8; 32]),
        (source, now): Came,
    ) -> Result<Minted, Reason> {
        self.throttle.refused(&presented.tag, now)?;
        self.throttle.refused(&key, now)?;
        let is_known = lock(&self.held).knows(&presented.tag, now);
        let turn = self.throttle.turn(presented.tag, (source, is_known), now).await?;
        let answer = self.exchanger.exchange(presented.token, asked).await;
        let says = Says::of(&answer);
        // INVARIANT: what is not proved to be good counts against its source, and makes nobody known.
        match says {
            Says::Accepted => {
                self.throttle.was_no_garbage(turn.on_trust);
                lock(&self.held).know((presented.tag, presented.person), presented.remaining, now);
            }
            Says::Away => self.throttle.was_no_garbage(turn.on_trust),
            Says::Refused | Says::Unread | Says::Closed => {}
        }
        if let Err(ExchangeError::Unreachable(cause)) = &answer {
            tracing::warn!(cause, "broker not reached for an exchange");
            self.throttle.is_away(now.uptime);
        }
        answer.map_err(|error| {
            let reason = reason_of(error);
            match says {
                Says::Refused => self.throttle.remember(presented.tag, &reason, (BAD_TOKEN_FOR, now)),
                Says::Accepted | Says::Unread => self.throttle.remember(key, &reason, (DENIED_FOR, now)),
                Says::Away | Says::Closed => {}
            }
            reason
        })
    }

    fn is_exact(&self, tool: &str, version: u64) -> bool {
        let exact = lock(&self.exact);
        exact.0 == version && exact.1.contains(tool)
    }

    /// Only of a tool that is registered, so that there are no more of them than tools.
    fn learn_exact(&self, tool: &str, version: u64) {
        let mut exact = lock(&self.exact);
        if exact.0 != version {
            *exact = (version, HashSet::new());
        }
        exact.1.insert(tool.to_owned());
    }
}

/// Stands for what one caller asked.
fn key(tag: &[u8; 32], asked: &[u8]) -> [u8; 32] {
    sha256(&[tag.as_slice(), asked].concat())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token that is not good now is seldom good a moment later, and then by a change of which a new snapshot tells.
const BAD_TOKEN_FOR: Duration = Duration::from_secs(30);
/// A no of policy or of a person.
const DENIED_FOR: Duration = Duration::from_secs(3);
