//! What a start takes back from the log: assertions that were used and may not be used again, which live token came
//! from which, revocations that a sudden end may have kept from their store, and what guards have reported already.

use std::collections::HashSet;

use deputize_issuer::{
    lineage::{self, Born, Lineage},
    log::{LogError, LogReader},
    record::{Entry, Kind},
    replay::EmbeddedReplay,
    revocation::Revoked,
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
    /// What guards reported in the last minutes: server and id.
    pub events: Vec<(String, Uuid)>,
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
    let mut restored = Restored::default();
    let mut live = Vec::new();
    let now = now_ms / 1000;
    // Revocations are sought in the last minutes before the end, however long ago that was.
    let mut newest_ms = None;
    // Read backwards, the first word on something is the last that was said.
    let mut settled = HashSet::new();
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
            restored.assertions += 1;
        }
        if let (Kind::Guard, Some(server), Some(seen), false) =
            (entry.kind, &entry.server, &entry.seen, lapsed)
        {
            restored.events.push((server.clone(), seen.id));
        }
        match (entry.kind, entry.jti, entry.exp) {
            (Kind::Lifted, _, _) => {
                restored.lifted.extend(entry.revoked.into_iter().filter(|what| settled.insert(what.clone())));
            }
            (Kind::Revocation, _, Some(until)) if until >= now => {
                let standing = entry.revoked.into_iter().filter(|what| settled.insert(what.clone()));
                restored.revocations.push((standing.collect(), until));
            }
            // If there are more than fit, the newest are held; older ones could only be refused as unknown.
            (Kind::Intent, Some(jti), Some(exp)) if exp >= now && live.len() < lineage::CAPACITY => {
                live.push((jti, entry.pjti, entry.client.unwrap_or_default(), exp));
            }
            _ => {}
        }
    }
    // Parents before their children, who are entered with them.
    for (jti, parent, client_id, expires_at) in live.into_iter().rev() {
        let born =
            Born { jti: &jti, parent: parent.as_deref(), person: None, client_id: &client_id, expires_at };
        if lineage.restore(born) {
            restored.tokens += 1;
        }
    }
    Ok(restored)
}

/// Assertions live five minutes, tokens two; with leeway, and a minute for clocks that were set back.
const LONGEST_LIFE_MS: u64 = 8 * 60 * 1000;
