//! What a start takes back from the log: assertions that were used and may not be used again, which live token came
//! from which, and revocations that a sudden end may have kept from their store.

use deputize_issuer::{
    lineage::{self, Born, Lineage},
    log::{LogError, LogReader},
    record::{Entry, Kind},
    replay::EmbeddedReplay,
    revocation::Revoked,
};

/// How much was restored.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Used assertions.
    pub assertions: u64,
    /// Live tokens.
    pub tokens: u64,
    /// Revocations of the log's last minutes, and until when each holds (Unix seconds).
    pub revocations: Vec<(Vec<Revoked>, u64)>,
}

/// Reads the log backwards until everything in it has lapsed.
///
/// # Errors
/// If an entry cannot be read: then nobody knows what was used, and the broker must not start.
pub fn from_log(
    reader: &LogReader,
    now_ms: u64,
    assertions: &EmbeddedReplay,
    lineage: &Lineage,
) -> Result<Restored, LogError> {
    let mut restored = Restored::default();
    let mut live = Vec::new();
    let now = now_ms / 1000;
    // Revocations are sought in the last minutes before the end, however long ago that was.
    let mut newest_ms = None;
    for entry in reader.tail(u64::MAX) {
        let (_, bytes) = entry?;
        // Entries of other kinds or versions carry nothing to restore.
        let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else { continue };
        if entry.at.saturating_add(LONGEST_LIFE_MS) < now_ms.min(*newest_ms.get_or_insert(entry.at)) {
            break;
        }
        if let Some(tag) =
            entry.spent.as_ref().filter(|spent| spent.until >= now).and_then(|spent| spent.to_tag())
        {
            assertions.restore(tag);
            restored.assertions += 1;
        }
        if let (Kind::Revocation, Some(until)) = (entry.kind, entry.exp)
            && until >= now
        {
            restored.revocations.push((entry.revoked, until));
            continue;
        }
        if let (Kind::Intent, Some(jti), Some(exp)) = (entry.kind, entry.jti, entry.exp)
            && exp >= now
            // If there are more than fit, the newest are held; older ones could only be refused as unknown.
            && live.len() < lineage::CAPACITY
        {
            live.push((jti, entry.pjti, entry.client.unwrap_or_default(), exp));
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
