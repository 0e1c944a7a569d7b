//! The web identity: the token by which STS knows that a session of a role was decided here, for whom, and as what
//! (OpenID Connect Core §2; AWS STS, `AssumeRoleWithWebIdentity`, session tags and source identity).

use std::sync::Arc;

use crate::keys::KeySource;

/// What signs web identities, and for whom. Keys of their own: no tool-call token is ever taken for one, or the other
/// way round.
#[derive(Debug)]
pub struct WebIdentity {
    /// Its keys, which turn with time. The one that signs is of the algorithm that is configured.
    pub keys: Arc<KeySource>,
    /// `iss`: where AWS finds discovery and keys.
    pub issuer: String,
    /// `aud`: as the account's identity provider has it.
    pub audience: String,
}
