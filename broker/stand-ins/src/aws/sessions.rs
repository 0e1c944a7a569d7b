//! Role sessions: which keys there are, and what they are good for.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use deputize_call::secret::Secret;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{policy::Policy, role::Role};
use crate::random::{NoRandomness, fill_random};

/// A role in somebody's hands.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret<String>,
    pub(super) session_token: Secret<String>,
    pub(super) role: Arc<Role>,
    pub(super) name: String,
    pub(super) source_identity: Option<String>,
    /// What it may do at most, beside what the role may.
    pub(super) policy: Option<Policy>,
    /// The provider that vouched: its URL without the scheme.
    pub(super) provider: String,
    pub(super) created_seconds: u64,
    pub(super) expires_seconds: u64,
}

impl Session {
    /// `arn:aws:sts::…:assumed-role/ROLE/SESSION`.
    pub(super) fn arn(&self) -> String {
        self.role.assumed_arn(&self.name)
    }

    /// `AROA…:SESSION`.
    pub(super) fn assumed_role_id(&self) -> String {
        format!("{}:{}", self.role.id, self.name)
    }
}

/// All sessions that have not expired, by access key.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<BTreeMap<String, Arc<Session>>>);

impl Sessions {
    pub(super) fn get(&self, access_key_id: &str) -> Option<Arc<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(access_key_id).map(Arc::clone)
    }

    /// Holds one more; false if there are too many.
    pub(super) fn hold(&self, session: &Arc<Session>, now_seconds: u64) -> bool {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| now_seconds < session.expires_seconds);
        }
        let has_room = sessions.len() < MAX_SESSIONS;
        if has_room {
            sessions.insert(session.access_key_id.clone(), Arc::clone(session));
        }
        has_room
    }
}

/// New keys: access key id, secret access key, session token.
pub(super) fn new_keys() -> Result<(String, Secret<String>, Secret<String>), NoRandomness> {
    let mut id = [0_u8; 16];
    fill_random(&mut id)?;
    let letters = id.map(|byte| char::from(BASE32.get(usize::from(byte % 32)).copied().unwrap_or(b'A')));
    Ok((
        format!("ASIA{}", letters.iter().collect::<String>()),
        random_text::<30>()?.into(),
        random_text::<96>()?.into(),
    ))
}

fn random_text<const BYTES: usize>() -> Result<String, NoRandomness> {
    let mut random = zeroize::Zeroizing::new([0_u8; BYTES]);
    fill_random(random.as_mut())?;
    Ok(BASE64_STANDARD.encode(random.as_ref()))
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const MAX_SESSIONS: usize = 1000;
