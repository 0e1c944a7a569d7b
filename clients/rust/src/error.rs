//! What can go wrong with an exchange: one variant for each thing that a caller can do about it.

use deputize_call::jws::JwsError;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The subject or actor token is not acceptable, or a parameter is wrong.
    #[error("invalid request: {0}")]
    InvalidRequest(ErrorDetails),
    /// The server is unknown, disabled or out of reach.
    #[error("invalid target: {0}")]
    InvalidTarget(ErrorDetails),
    /// Wider than allowed, or nothing is left.
    #[error("invalid scope: {0}")]
    InvalidScope(ErrorDetails),
    /// The call cannot be granted as it stands.
    #[error("invalid authorization details: {0}")]
    InvalidAuthorizationDetails(ErrorDetails),
    /// The broker does not accept this client's credential.
    #[error("client authentication failed: {0}")]
    InvalidClient(ErrorDetails),
    /// The broker does not accept the proof, even with its nonce.
    #[error("proof refused: {0}")]
    InvalidProof(ErrorDetails),
    /// Policy or a human said no.
    #[error("access denied: {details}")]
    AccessDenied {
        /// Who said no.
        reason: DenialReason,
        /// What the broker says.
        details: ErrorDetails,
    },
    /// A person has to decide first: come back with [`ExchangeRequest::approval`](crate::ExchangeRequest::approval).
    #[error("waiting for a person (approval {approval_id})")]
    Waiting {
        /// Id of the approval.
        approval_id: String,
        /// Where the person decides.
        approval_uri: Option<String>,
        /// Least pause between two tries, in seconds.
        interval_seconds: u64,
        /// How long the approval waits, in seconds.
        expires_in_seconds: u64,
        /// What an operator asks `explain` about.
        decision_id: Option<String>,
    },
    /// Polling too fast.
    #[error("polling too fast: {0}")]
    SlowDown(ErrorDetails),
    /// Nobody answered in time.
    #[error("nobody decided in time: {0}")]
    Expired(ErrorDetails),
    /// The user has to sign in again, more strongly or more recently (RFC 9470).
    #[error("the user has to sign in again: {details}")]
    InsufficientUserAuthentication {
        /// Any of these satisfies; empty if only the age counts.
        acr_values: Vec<String>,
        /// How old the sign-in may be, in seconds.
        max_age_seconds: Option<u64>,
        /// What the broker says.
        details: ErrorDetails,
    },
    /// Over a rate or budget.
    #[error("rate limited: {details}")]
    RateLimited {
        /// Seconds after which to come back.
        retry_after_seconds: Option<u64>,
        /// What the broker says.
        details: ErrorDetails,
    },
    /// The broker cannot decide now.
    #[error("the broker is not available: {details}")]
    Unavailable {
        /// Seconds after which to come back.
        retry_after_seconds: Option<u64>,
        /// What the broker says.
        details: ErrorDetails,
    },
    /// The request is too large or of the wrong media type.
    #[error("request refused with status {status}: {details}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the broker says.
        details: ErrorDetails,
    },
    /// The broker cannot be reached.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// The broker's answer is not one.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// A key could not sign.
    #[error("signing failed: {0}")]
    Key(JwsError),
}

/// Who said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// Policy.
    Policy,
    /// A person would have to approve, and approvals are not configured.
    ApprovalRequired,
    /// A person.
    Human,
    /// Not said.
    Other,
}

/// What the broker says of an error. Control characters are taken out, lengths are bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetails {
    /// `error`.
    pub code: String,
    /// `error_description`.
    pub description: String,
    /// `decision_id`: what an operator asks `explain` about.
    pub decision_id: Option<String>,
}

impl std::fmt::Display for ErrorDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.description.is_empty() { &self.code } else { &self.description })?;
        match &self.decision_id {
            Some(id) => write!(f, " (decision {id})"),
            None => Ok(()),
        }
    }
}
