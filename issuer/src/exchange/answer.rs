//! The members of a token's answer (RFC 6749 §5.1, RFC 8693 §2.2.1, RFC 9396 §7).

use deputize_call::claims::{Confirmation, GrantedDetail};
use serde::Serialize;
use uuid::Uuid;

use super::parameters::TYPE_ACCESS_TOKEN;
use crate::mint::ToolCallToken;

/// The answer, as every door gives it.
#[derive(Clone, Copy, Serialize)]
pub struct TokenAnswer<'t> {
    /// The compact JWS.
    pub access_token: &'t str,
    /// What the client got (RFC 8693 §3).
    pub issued_token_type: &'static str,
    /// How it is presented (RFC 9449 §5; RFC 8705 §3).
    pub token_type: &'static str,
    /// How long it is good for, in seconds.
    pub expires_in: u64,
    /// Its scope: always.
    pub scope: &'t str,
    /// As granted.
    pub authorization_details: &'t [GrantedDetail],
    /// The transaction that it belongs to.
    pub transaction_id: &'t str,
    /// What `explain` tells about.
    pub decision_id: Uuid,
}

impl<'t> TokenAnswer<'t> {
    /// That of this token.
    pub fn of(token: &'t ToolCallToken, decision_id: Uuid) -> Self {
        let claims = &token.claims;
        Self {
            access_token: token.access_token.expose(),
            issued_token_type: TYPE_ACCESS_TOKEN,
            token_type: token_type(&claims.cnf),
            expires_in: claims.exp.saturating_sub(claims.iat),
            scope: &claims.scope,
            authorization_details: &claims.authorization_details,
            transaction_id: &claims.txn,
            decision_id,
        }
    }
}

/// How a token that is bound so is presented: with a proof of the key (RFC 9449 §7.1), or over a connection that shows
/// the certificate (RFC 8705 §3).
pub fn token_type(bound: &Confirmation) -> &'static str {
    match bound {
        Confirmation::Jkt(_) => "DPoP",
        Confirmation::X5tS256(_) => "Bearer",
    }
}

impl std::fmt::Debug for TokenAnswer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenAnswer").field("decision_id", &self.decision_id).finish_non_exhaustive()
    }
}
