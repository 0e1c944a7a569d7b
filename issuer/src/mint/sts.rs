//! The question that the mint asks AWS: a session of a role (AWS STS, `AssumeRoleWithWebIdentity`, `AssumeRole`).

use async_trait::async_trait;

use crate::{secret::Secret, templates::RenderedSession};

/// Gives sessions of roles. Answers within a bounded time.
#[async_trait]
pub trait SecurityTokenService: Send + Sync {
    /// Asks for the session that was ordered.
    ///
    /// # Errors
    /// [`StsRefusal`]: there is no session, as far as is known.
    async fn assume_role(&self, order: RoleOrder<'_>) -> Result<RoleCredentials, StsRefusal>;
}

/// One session, decided and recorded.
///
/// INVARIANT: the mint alone makes it, out of an open record. What takes the session apart behind
/// [`SecurityTokenService`] is tested by itself.
#[derive(Debug, Clone, Copy)]
pub struct RoleOrder<'a> {
    session: &'a RenderedSession,
    web_identity: &'a Secret<String>,
}

/// A session's credentials.
#[derive(Debug)]
pub struct RoleCredentials {
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// `SecretAccessKey`.
    pub secret_access_key: Secret<String>,
    /// `SessionToken`.
    pub session_token: Secret<String>,
    /// When STS lets them end, in Unix seconds. What they can do ends earlier, with the window.
    pub expires_at_seconds: u64,
    /// ARN of the assumed role, as AWS's own log has it.
    pub assumed_role_arn: String,
    /// `PackedPolicySize`: how much of what STS takes as policy and tags they fill.
    pub packed_policy_percent: Option<u8>,
    /// How often STS was asked until it answered. What it answered too late may have been a session too, which nobody
    /// holds.
    pub attempts: u32,
}

/// Why STS gives no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StsRefusal {
    /// `PackedPolicyTooLarge`: policy and tags together are too large, once STS has packed them.
    #[error("policy and tags are too large together")]
    PackedPolicyTooLarge,
    /// `MalformedPolicyDocument`.
    #[error("STS does not understand the session policy")]
    MalformedPolicy,
    /// `AccessDenied`: the role's trust policy does not let it, or the role does not exist.
    #[error("the role's trust policy does not allow it")]
    AccessDenied,
    /// `InvalidIdentityToken`: signature, issuer or audience are not those of the account's identity provider.
    #[error("STS does not accept the web identity")]
    InvalidIdentityToken,
    /// `ExpiredTokenException`: the web identity or the caller's own session is over; often a clock that is wrong.
    #[error("STS says that what was presented has expired")]
    ExpiredToken,
    /// `IDPCommunicationError`: STS could not fetch the issuer's keys.
    #[error("STS cannot reach the web identity's issuer")]
    IdpCommunication,
    /// `IDPRejectedClaim`.
    #[error("the web identity's issuer is said to reject it")]
    IdpRejectedClaim,
    /// `RegionDisabledException`: STS is not switched on in this region for the account.
    #[error("STS is switched off in this region")]
    RegionDisabled,
    /// STS, or our own bound on calls of it, says that there are too many.
    #[error("too many calls of STS")]
    Throttled,
    /// No answer in time.
    #[error("STS did not answer in time")]
    Timeout,
    /// No connection, or none that can be trusted.
    #[error("STS cannot be reached")]
    Unreachable,
    /// An answer that says nothing, or something else than what was asked.
    #[error("STS answers what cannot be understood")]
    Unintelligible,
    /// Another of AWS's error codes, for the record.
    #[error("STS refuses with {0}")]
    Other(String),
}

impl<'a> RoleOrder<'a> {
    pub(super) fn new(session: &'a RenderedSession, web_identity: &'a Secret<String>) -> Self {
        Self { session, web_identity }
    }

    /// What to ask for.
    pub fn session(&self) -> &'a RenderedSession {
        self.session
    }

    /// The web identity (`WebIdentityToken`): signed tags, source identity and role included. `AssumeRole` leaves it
    /// out and sends those itself. It goes to STS and nowhere else.
    pub fn web_identity(&self) -> &'a Secret<String> {
        self.web_identity
    }
}

impl StsRefusal {
    /// The constant word under which it is counted and recorded.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PackedPolicyTooLarge => "sts_packed_policy_too_large",
            Self::MalformedPolicy => "sts_malformed_policy",
            Self::AccessDenied => "sts_access_denied",
            Self::InvalidIdentityToken => "sts_invalid_identity_token",
            Self::ExpiredToken => "sts_expired_token",
            Self::IdpCommunication => "sts_idp_communication",
            Self::IdpRejectedClaim => "sts_idp_rejected_claim",
            Self::RegionDisabled => "sts_region_disabled",
            Self::Throttled => "sts_throttled",
            Self::Timeout => "sts_timeout",
            Self::Unreachable => "sts_unreachable",
            Self::Unintelligible => "sts_unintelligible",
            Self::Other(_) => "sts_other",
        }
    }

    /// Whether the same order may succeed later though nobody changes anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Throttled | Self::Timeout | Self::Unreachable | Self::IdpCommunication => true,
            Self::PackedPolicyTooLarge
            | Self::MalformedPolicy
            | Self::AccessDenied
            | Self::InvalidIdentityToken
            | Self::ExpiredToken
            | Self::IdpRejectedClaim
            | Self::RegionDisabled
            | Self::Unintelligible
            | Self::Other(_) => false,
        }
    }
}
