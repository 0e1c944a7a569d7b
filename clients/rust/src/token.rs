//! A tool-call token as a client holds it.

use serde_json::Value;
use zeroize::Zeroizing;

/// A token and what was granted with it.
#[derive(Clone)]
pub struct ToolToken {
    pub(crate) access_token: Zeroizing<String>,
    pub(crate) expires_in_seconds: u64,
    pub(crate) scope: String,
    pub(crate) authorization_details: Value,
    pub(crate) transaction_id: String,
    pub(crate) decision_id: String,
}

impl ToolToken {
    /// The token itself. It is bound to the client's key: each use needs a proof
    /// ([`Client::proof_for`](crate::Client::proof_for)).
    pub fn access_token(&self) -> &str {
        &self.access_token
    }
    /// The value of `Authorization` (RFC 9449 §7.1).
    pub fn authorization(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("DPoP {}", *self.access_token))
    }
    /// How long it lived when it was issued, in seconds.
    pub fn expires_in_seconds(&self) -> u64 {
        self.expires_in_seconds
    }
    /// The scope as granted.
    pub fn scope(&self) -> &str {
        &self.scope
    }
    /// `authorization_details` as granted.
    pub fn authorization_details(&self) -> &Value {
        &self.authorization_details
    }
    /// The transaction that it belongs to.
    pub fn transaction_id(&self) -> &str {
        &self.transaction_id
    }
    /// The decision that made it: what an operator asks `explain` about.
    pub fn decision_id(&self) -> &str {
        &self.decision_id
    }

    /// How many calls it is good for; `None` where nothing limits it.
    pub(crate) fn max_uses(&self) -> Option<u64> {
        self.authorization_details.get(0)?.get("max_uses")?.as_u64()
    }

    /// Whether it is bound to one call, whatever was asked.
    pub(crate) fn binds_one_call(&self) -> bool {
        self.authorization_details.get(0).is_some_and(|detail| detail.get("call_digest").is_some())
    }
}

impl std::fmt::Debug for ToolToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolToken")
            .field("scope", &self.scope)
            .field("transaction_id", &self.transaction_id)
            .field("decision_id", &self.decision_id)
            .finish_non_exhaustive()
    }
}
