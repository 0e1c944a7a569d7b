//! Revocations and kill switches, as the broker pushes them.

use crate::refusal::Reason;
use deputize_call::claims::{Actor, Confirmation, ToolCallClaims};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One thing that is no longer good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Revocation {
    /// A token and those made from it directly; the broker names further descendants one by one.
    Token {
        /// Its `jti`.
        jti: String,
    },
    /// Every token of a transaction.
    Transaction {
        /// Its `txn`.
        txn: String,
    },
    /// Every token of a person.
    Person {
        /// The `sub`.
        sub: String,
    },
    /// Every token of a client.
    Client {
        /// Its `client_id`.
        client_id: String,
    },
    /// Every token in whose chain of actors this one stands.
    Actor {
        /// The actor's `sub`.
        sub: String,
    },
    /// Every token bound to a key.
    Key {
        /// The thumbprint in `cnf`.
        thumbprint: String,
    },
    /// Calls of one tool.
    Tool {
        /// Its name.
        name: String,
    },
    /// Everything: the server's kill switch.
    Everything,
}

/// What is revoked now. Tokens and transactions are remembered for longer than any token lives; all else stands
/// until a newer snapshot no longer names it.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    standing: BTreeSet<Revocation>,
    passing: BTreeMap<Revocation, Duration>,
    /// When the broker was last heard about revocations.
    heard: Option<Duration>,
    /// There was no room for a revocation: nothing can be vouched for any more.
    overflowed: bool,
}

impl Revocations {
    /// The broker says that nothing else is new.
    pub(crate) fn hear(&mut self, uptime: Duration) {
        self.heard = Some(uptime);
    }

    pub(crate) fn add(&mut self, revocation: Revocation, uptime: Duration) {
        self.passing.retain(|_, since| uptime.saturating_sub(*since) < PASSING_LIFETIME);
        if self.standing.len() + self.passing.len() >= MAX_REVOCATIONS {
            self.overflowed = true;
        } else if matches!(revocation, Revocation::Token { .. } | Revocation::Transaction { .. }) {
            self.passing.insert(revocation, uptime);
        } else {
            self.standing.insert(revocation);
        }
    }

    /// A newer snapshot names everything that still stands.
    pub(crate) fn lift_standing(&mut self) {
        self.standing.clear();
        self.overflowed = false;
    }

    /// Whether the broker was heard lately enough.
    pub(crate) fn is_fresh(&self, uptime: Duration, max_age: Duration) -> bool {
        !self.overflowed && self.heard.is_some_and(|heard| uptime.saturating_sub(heard) <= max_age)
    }

    /// Whether a tool is switched off by itself.
    pub(crate) fn has_tool(&self, name: &str) -> bool {
        self.standing.contains(&Revocation::Tool { name: name.to_owned() })
    }

    /// Whether the whole server is switched off.
    pub(crate) fn has_everything(&self) -> bool {
        self.standing.contains(&Revocation::Everything)
    }

    /// Whether a token is still good.
    pub(crate) fn check(
        &self,
        claims: &ToolCallClaims,
        tool: Option<&str>,
        uptime: Duration,
        max_age: Duration,
    ) -> Result<(), Reason> {
        if self.overflowed {
            return Err(Reason::Unavailable("too many revocations"));
        }
        if self.heard.is_none_or(|heard| uptime.saturating_sub(heard) > max_age) {
            return Err(Reason::Unavailable("revocations are stale"));
        }
        if self.has_any_of(claims, tool) { Err(Reason::Revoked) } else { Ok(()) }
    }

    /// Whether a token is revoked as far as was heard, or may be, however long ago that was.
    pub(crate) fn has_any_of(&self, claims: &ToolCallClaims, tool: Option<&str>) -> bool {
        if self.standing.is_empty() && self.passing.is_empty() {
            return self.overflowed;
        }
        let holds = |revocation: Revocation| {
            self.standing.contains(&revocation) || self.passing.contains_key(&revocation)
        };
        let (Confirmation::Jkt(thumbprint) | Confirmation::X5tS256(thumbprint)) = &claims.cnf;
        self.overflowed
            || holds(Revocation::Everything)
            || [Some(&claims.jti), claims.pjti.as_ref()]
                .into_iter()
                .flatten()
                .any(|jti| holds(Revocation::Token { jti: jti.clone() }))
            || holds(Revocation::Transaction { txn: claims.txn.clone() })
            || holds(Revocation::Person { sub: claims.sub.clone() })
            || holds(Revocation::Client { client_id: claims.client_id.clone() })
            || holds(Revocation::Key { thumbprint: thumbprint.clone() })
            || tool.is_some_and(|name| holds(Revocation::Tool { name: name.to_owned() }))
            || claims
                .act
                .iter()
                .flat_map(Actor::chain)
                .any(|sub| holds(Revocation::Actor { sub: sub.to_owned() }))
    }
}

const MAX_REVOCATIONS: usize = 100_000;
/// Tokens live 120 s at most, and what their calls got of AWS 300 s more.
const PASSING_LIFETIME: Duration = Duration::from_secs(600);
