//! Authorization codes: given out once, taken back once, within a minute.

use super::users::User;
use crate::random::{NoRandomness, fill_random};
use deputize_client::Clock;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The codes that wait for their token request.
#[derive(Debug, Default)]
pub(crate) struct Codes(Mutex<HashMap<String, (Duration, PendingCode)>>);

/// What a code stands for.
#[derive(Debug)]
pub(crate) struct PendingCode {
    pub(crate) user: &'static User,
    pub(crate) client_id: String,
    pub(crate) redirect_uri: String,
    pub(crate) code_challenge: String,
    pub(crate) nonce: Option<String>,
    pub(crate) scope: String,
    /// Seconds since the epoch.
    pub(crate) auth_time: u64,
}

/// Why there is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCode {
    #[error("too many codes wait for their token request")]
    Full,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Codes {
    /// A new code.
    pub(crate) fn give(&self, pending: PendingCode, clock: &dyn Clock) -> Result<String, NoCode> {
        let now = clock.uptime();
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, (expires, _)| *expires > now);
        if codes.len() >= MAX_PENDING {
            return Err(NoCode::Full);
        }
        let code = random_text()?;
        codes.insert(code.clone(), (now + CODE_LIFETIME, pending));
        Ok(code)
    }

    /// What this code stands for, once: a code that was shown is spent, whatever comes of it (RFC 6749 §4.1.2).
    pub(crate) fn take(&self, code: &str, clock: &dyn Clock) -> Option<PendingCode> {
        let (expires, pending) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(code)?;
        (expires > clock.uptime()).then_some(pending)
    }
}

/// 256 random bits as base64url.
pub(crate) fn random_text() -> Result<String, NoRandomness> {
    let mut random = [0_u8; 32];
    fill_random(&mut random)?;
    Ok(base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random))
}

/// RFC 6749 §4.1.2 allows ten minutes at most; a client needs seconds.
pub(crate) const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// Sign-ins that may be under way at once.
pub(crate) const MAX_PENDING: usize = 1000;
