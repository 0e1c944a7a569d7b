//! What a start takes back from the log: assertions that were used and may not be used again, which live token came
//! from which, revocations and drifts that a sudden end may have kept from their store, and what guards have reported.

use std::collections::HashSet;

use deputize_call::action::Action;
use deputize_issuer::{
    drift::Drifted,
    lineage::{self, Born, Lineage},
    log::{LogError, LogReader},
    record::{Entry, Kind},
    replay::EmbeddedReplay,
    revocation::{Place, Revoked},
};
use uuid::Uuid;

/// How much was restored.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Used assertions.
    pub assertions: u64,
    /// Live tokens.
    pub tokens: u64,
    /// Revocations of the log's last minutes, and until when each holds (Unix seconds).
    pub revocations: Vec<(Vec<Revoked>, u64)>,
    /// What was revoked before, and by the log's last word is so no longer.
    pub lifted: Vec<Revoked>,
    /// Where revoked tokens that are live are used.
    pub places: Vec<(String, Place)>,
    /// The log's last word on each tool that drifted.
    pub drifts: Vec<(Drifted, Drift)>,
    /// What guards reported in the last minutes: server and id.
    pub events: Vec<(String, Uuid)>,
}

/// What the log says of a tool that drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// Nothing is issued for it.
    Stopped,
    /// Somebody looked: it is issued for again.
    Lifted,
}

/// How far back revocations are sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The store of revocations is there: it lacks what a sudden end kept from it, at most.
    LastMinutes,
    /// There is no such store, or no longer: the log has them all.
    WholeLog,
}

/// Reads the log backwards until everything in it has lapsed.
///
/// # Errors
/// If an entry cannot be read: then nobody knows what was used, and the broker must not start.
pub fn from_log(
    reader: &LogReader,
    now_ms: u64,
    (assertions, lineage): (&EmbeddedReplay, &Lineage),
    reach: Reach,
) -> Result<Restored, LogError> {
    let mut backwards = Backwards::default();
    let now = now_ms / 1000;
    // Revocations are sought in the last minutes before the end, however long ago that was.
    let mut newest_ms = None;
    for entry in reader.tail(u64::MAX) {
        let (_, bytes) = entry?;
        // Entries of other kinds or versions carry nothing to restore.
        let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else { continue };
        let lapsed =
            entry.at.saturating_add(LONGEST_LIFE_MS) < now_ms.min(*newest_ms.get_or_insert(entry.at));
        if lapsed && reach == Reach::LastMinutes {
            break;
        }
        if let Some(tag) =
            entry.spent.as_ref().filter(|spent| spent.until >= now).and_then(|spent| spent.to_tag())
        {
            assertions.restore(tag);
            backwards.restored.assertions += 1;
        }
        backwards.take(entry, now, lapsed);
    }
    let Backwards { mut restored, live, .. } = backwards;
    let revoked: HashSet<&Revoked> = restored.revocations.iter().flat_map(|(what, _)| what).collect();
    let is_revoked = |token: &&Token| revoked.contains(&Revoked::Token(token.jti.clone()));
    let place = |token: &Token| (token.jti.clone(), token.place());
    restored.places = live.iter().filter(is_revoked).map(place).collect();
    // Parents before their children, who are entered with them.
    for token in live.iter().rev() {
        if lineage.restore(token.born()) {
            restored.tokens += 1;
        }
    }
    Ok(restored)
}

/// What was read so far. Read backwards, the first word on something is the last that was said.
#[derive(Default)]
struct Backwards {
    restored: Restored,
    live: Vec<Token>,
    settled: HashSet<Revoked>,
    settled_drifts: HashSet<Drifted>,
}

/// A live token, from its intent.
struct Token {
    jti: String,
    parent: Option<String>,
    client_id: String,
    audience: String,
    txn: String,
    expires_at: u64,
}

impl Backwards {
    fn take(&mut self, entry: Entry, now: u64, lapsed: bool) {
        match (entry.kind, entry.exp) {
            (Kind::Guard, _) if !lapsed => {
                self.restored.events.extend(entry.server.zip(entry.seen.map(|seen| seen.id)));
            }
            (Kind::Lifted, _) => {
                let last_words = entry.revoked.into_iter().filter(|what| self.settled.insert(what.clone()));
                self.restored.lifted.extend(last_words);
            }
            (Kind::Revocation, Some(until)) if until >= now => {
                let standing = entry.revoked.into_iter().filter(|what| self.settled.insert(what.clone()));
                self.restored.revocations.push((standing.collect(), until));
            }
            // If there are more than fit, the newest are held; older ones could only be refused as unknown.
            // A session of a role is no token: nothing is made from it, and AWS ends it by itself.
            // An SVID is none of the tokens that are revoked one by one either.
            (Kind::Intent, _) if entry.aws.is_some() || entry.is_of_an_svid() => {}
            (Kind::Intent, Some(expires_at)) if expires_at >= now && self.live.len() < lineage::CAPACITY => {
                self.live.extend(token(entry, expires_at));
            }
            (Kind::Drift, _) => self.drift(entry),
            _ => {}
        }
    }

    fn drift(&mut self, entry: Entry) {
        let what = match entry.result.as_deref() {
            Some("stopped") => Drift::Stopped,
            Some("lifted") => Drift::Lifted,
            Some(_) | None => return,
        };
        if let (Some(server), Some(tool), Some(approved)) = (entry.server, entry.tool, entry.definition) {
            let action = entry.action.unwrap_or(Action::CallTool);
            let drifted = Drifted { server, action, tool, approved };
            if self.settled_drifts.insert(drifted.clone()) {
                self.restored.drifts.push((drifted, what));
            }
        }
    }
}

fn token(entry: Entry, expires_at: u64) -> Option<Token> {
    Some(Token {
        jti: entry.jti?,
        parent: entry.pjti,
        client_id: entry.client.unwrap_or_default(),
        audience: entry.server.unwrap_or_default(),
        txn: entry.txn.unwrap_or_default(),
        expires_at,
    })
}

impl Token {
    fn born(&self) -> Born<'_> {
        Born {
            jti: &self.jti,
            parent: self.parent.as_deref(),
            person: None,
            client_id: &self.client_id,
            audience: &self.audience,
            txn: &self.txn,
            expires_at: self.expires_at,
        }
    }

    fn place(&self) -> Place {
        Place { audience: self.audience.as_str().into(), client_id: self.client_id.as_str().into() }
    }
}

/// Assertions live five minutes, tokens two; with leeway, and a minute for clocks that were set back.
const LONGEST_LIFE_MS: u64 = 8 * 60 * 1000;
