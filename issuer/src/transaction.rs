//! Transaction ids: constant from the user's first exchange through every hop. An id carries a seal over who
//! began it, so that going on with it needs no store.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::{self, Clock},
    error::IssueError,
};

/// Makes and recognizes transaction ids.
pub struct TransactionIds {
    key: hmac::Key,
}

/// Who began a transaction: it goes on only for the same.
#[derive(Debug, Clone, Copy)]
pub struct Beginner<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Client.
    pub client_id: &'a str,
    /// The person's `sub`.
    pub sub: &'a str,
    /// Who acts.
    pub actor: &'a str,
}

impl TransactionIds {
    /// Ids sealed under this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A new transaction: base64url(UUIDv7 ‖ seal), 43 characters.
    pub fn begin(&self, clock: &dyn Clock, beginner: Beginner<'_>) -> Result<String, IssueError> {
        let id = clock::new_id(clock)?;
        let mut bytes = id.as_bytes().to_vec();
        bytes.extend(self.seal(id.as_bytes(), beginner));
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Goes on with a transaction that the same party began within the hour.
    pub fn go_on(&self, clock: &dyn Clock, beginner: Beginner<'_>, id: &str) -> Result<String, IssueError> {
        let refuse = IssueError::Request("transaction_unknown");
        let bytes = URL_SAFE_NO_PAD.decode(id).map_err(|_| refuse.clone())?;
        let (uuid, seal) = bytes.split_at_checked(16).ok_or(refuse.clone())?;
        let expected = self.seal(uuid, beginner);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(seal, expected.as_slice())) {
            return Err(refuse);
        }
        let begun_ms = uuid.iter().take(6).fold(0_u64, |ms, byte| (ms << 8) | u64::from(*byte));
        if clock.now_ms().saturating_sub(begun_ms) > MAX_TRANSACTION_MS {
            return Err(IssueError::Request("transaction_too_old"));
        }
        Ok(id.to_owned())
    }

    /// Whether a text is of the form of a transaction id.
    pub fn is_id(text: &str) -> bool {
        URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
    }

    fn seal(&self, uuid: &[u8], beginner: Beginner<'_>) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [
            uuid,
            beginner.tenant.as_bytes(),
            beginner.client_id.as_bytes(),
            beginner.sub.as_bytes(),
            beginner.actor.as_bytes(),
        ] {
            // Lengths keep the parts apart whatever they contain.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().iter().take(16).copied().collect()
    }
}

impl std::fmt::Debug for TransactionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionIds").finish_non_exhaustive()
    }
}

/// How long a transaction may be gone on with: one hour.
pub const MAX_TRANSACTION_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;
    use std::time::Duration;

    const ALICE: Beginner<'static> = Beginner { tenant: "t", client_id: "c", sub: "alice", actor: "bot" };

    #[test]
    fn goes_on_for_the_same_party_within_the_hour_alone() {
        let clock = TestClock::at_seconds(1_800_000_000);
        let ids = TransactionIds::new(&[7; 32]);
        let id = ids.begin(&clock, ALICE).unwrap();
        assert_eq!(ids.go_on(&clock, ALICE, &id).unwrap(), id);
        assert!(TransactionIds::is_id(&id) && !TransactionIds::is_id("") && !TransactionIds::is_id(&id[1..]));
        for other in [
            Beginner { tenant: "u", ..ALICE },
            Beginner { client_id: "d", ..ALICE },
            Beginner { sub: "bob", ..ALICE },
            Beginner { actor: "other", ..ALICE },
            Beginner { tenant: "tc", client_id: "", ..ALICE },
        ] {
            assert!(ids.go_on(&clock, other, &id).is_err(), "{other:?}");
        }
        assert!(TransactionIds::new(&[8; 32]).go_on(&clock, ALICE, &id).is_err(), "another key");
        assert!(ids.go_on(&clock, ALICE, "").is_err());
        assert!(ids.go_on(&clock, ALICE, "AAAA").is_err());
        clock.advance(Duration::from_millis(MAX_TRANSACTION_MS + 1));
        assert!(ids.go_on(&clock, ALICE, &id).is_err(), "after the hour");
    }
}
