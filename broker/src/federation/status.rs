//! How a foreign trust domain stands, for operators.

use serde::{Deserialize, Serialize};

/// A foreign trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub trust_domain: String,
    /// Where it is asked for its bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How that is authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The bundle that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Held>,
    /// When its endpoint was last asked with success, since this broker started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<String>,
    /// Why the last time was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The bundle that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number; 0 where it has none.
    pub sequence: u64,
    /// `file` or `endpoint`.
    pub from: String,
    /// Since when it is here.
    pub since: String,
    /// How many X.509 authorities it has.
    pub x509_authorities: usize,
    /// How many JWT authorities it has.
    pub jwt_authorities: usize,
    /// How often it wants to be looked at, in seconds.
    pub refresh_seconds: u64,
}

/// Why an endpoint's bundle was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: String,
    /// A constant word.
    pub reason: String,
    /// What happened.
    pub detail: String,
}
