//! Why something is not issued. No protocol's codes here: each door has one file that translates.

use deputize_call::level::Level;

use crate::mint::StsRefusal;

/// Why an exchange ends without a credential. `&'static str` reasons are constant words for metrics and the
/// record; `String` details are for `explain` alone and never reach the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A parameter is missing, empty, repeated, or does not go with the others.
    #[error("{0}")]
    Request(&'static str),
    /// A grant type that the door does not know (RFC 6749 §5.2).
    #[error("grant_type_unsupported")]
    GrantType,
    /// The subject or actor token is unacceptable.
    #[error("{reason}")]
    SubjectToken {
        /// Constant word.
        reason: &'static str,
        /// For `explain`.
        detail: String,
    },
    /// The client did not prove who it is.
    #[error("{0}")]
    ClientAuthentication(&'static str),
    /// The proof of possession is unacceptable.
    #[error("{0}")]
    Proof(&'static str),
    /// The proof has no good nonce: try again with this one. Consumes nothing.
    #[error("a fresh nonce is needed")]
    NonceNeeded {
        /// The nonce to use.
        nonce: String,
    },
    /// The target is unknown, disabled, foreign or not reachable from this hop.
    #[error("{0}")]
    Target(&'static str),
    /// The scope is wider than allowed, or nothing is left of it.
    #[error("{0}")]
    Scope(&'static str),
    /// `authorization_details` cannot be granted as they stand.
    #[error("{reason}")]
    AuthorizationDetails {
        /// Constant word.
        reason: &'static str,
        /// What the caller may know: it sent it.
        detail: String,
    },
    /// Policy or a person says no.
    #[error("{0}")]
    Denied(DenialReason),
    /// The user's authentication is too weak or too old for this tool (RFC 9470).
    #[error("the user has to authenticate again")]
    UserAuthentication {
        /// Acceptable `acr` values.
        acr_values: Vec<String>,
        /// Greatest age in seconds.
        max_age_seconds: Option<u64>,
    },
    /// The tool's tier demands a tighter binding.
    #[error("this tool needs a token of level {least}")]
    LevelTooLow {
        /// The least level.
        least: Level,
    },
    /// Over a rate.
    #[error("too many requests")]
    RateLimited {
        /// When to come back.
        retry_after_seconds: u64,
    },
    /// The intent could not be made durable: no record, no credential.
    #[error("the record is not durable")]
    RecordUnavailable(&'static str),
    /// A question that must be answered yes or no was answered "uncertain".
    #[error("{0}")]
    Uncertain(&'static str),
    /// An upstream that the decision needs cannot be reached.
    #[error("{0}")]
    UpstreamUnavailable(&'static str),
    /// No role template gives this call an AWS session: none is for it, several are, or one refuses it.
    #[error("{reason}")]
    NoSession {
        /// Constant word.
        reason: &'static str,
        /// For `explain`. No value of the call is in it.
        detail: String,
    },
    /// No entry entitles a process to an SVID.
    #[error("{0}")]
    NotEntitled(&'static str),
    /// AWS gives no session.
    #[error("{0}")]
    Sts(StsRefusal),
    /// A fault of ours.
    #[error("{0}")]
    Internal(&'static str),
}

/// Who or what said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialReason {
    /// No policy allows it, one forbids it, or one could not be evaluated.
    Policy {
        /// The policies that forbid.
        ids: Vec<String>,
        /// What could not be evaluated.
        errors: Vec<String>,
    },
    /// A person would have to approve, and approvals are not configured.
    ApprovalRequired,
}

impl std::fmt::Display for DenialReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Policy { .. } => "policy does not allow it",
            Self::ApprovalRequired => "a person would have to approve it",
        })
    }
}

impl IssueError {
    /// The constant word under which a refusal is counted and recorded.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(reason)
            | Self::ClientAuthentication(reason)
            | Self::Proof(reason)
            | Self::Target(reason)
            | Self::Scope(reason)
            | Self::RecordUnavailable(reason)
            | Self::Uncertain(reason)
            | Self::UpstreamUnavailable(reason)
            | Self::Internal(reason)
            | Self::NotEntitled(reason)
            | Self::SubjectToken { reason, .. }
            | Self::AuthorizationDetails { reason, .. }
            | Self::NoSession { reason, .. } => reason,
            Self::Sts(refusal) => refusal.reason(),
            Self::GrantType => "grant_type_unsupported",
            Self::NonceNeeded { .. } => "nonce_needed",
            Self::Denied(DenialReason::Policy { .. }) => "policy",
            Self::Denied(DenialReason::ApprovalRequired) => "approval_required",
            Self::UserAuthentication { .. } => "user_authentication",
            Self::LevelTooLow { .. } => "level_too_low",
            Self::RateLimited { .. } => "rate_limited",
        }
    }

    /// What only the record and `explain` may say.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::SubjectToken { detail, .. }
            | Self::AuthorizationDetails { detail, .. }
            | Self::NoSession { detail, .. } => Some(detail),
            Self::Sts(StsRefusal::Other(code)) => Some(code),
            Self::Request(_)
            | Self::GrantType
            | Self::ClientAuthentication(_)
            | Self::Proof(_)
            | Self::NonceNeeded { .. }
            | Self::Target(_)
            | Self::Scope(_)
            | Self::Denied(_)
            | Self::UserAuthentication { .. }
            | Self::LevelTooLow { .. }
            | Self::RateLimited { .. }
            | Self::RecordUnavailable(_)
            | Self::Uncertain(_)
            | Self::UpstreamUnavailable(_)
            | Self::NotEntitled(_)
            | Self::Sts(_)
            | Self::Internal(_) => None,
        }
    }
}

impl From<crate::clock::NoRandomness> for IssueError {
    fn from(_: crate::clock::NoRandomness) -> Self {
        Self::Internal("no_randomness")
    }
}
