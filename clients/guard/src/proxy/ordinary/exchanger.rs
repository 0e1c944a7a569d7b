//! Who makes the exchange, and what its noes mean for whoever presented the token.

use crate::refusal::Reason;
use async_trait::async_trait;
use deputize_call::action::Action;
use deputize_client::{Detail, ExchangeError};
use std::time::Duration;
use zeroize::Zeroizing;

/// Exchanges persons' own tokens at the broker, in the name of the guard's server.
#[async_trait]
pub trait Exchanger: Send + Sync {
    /// A token of the guard's own, bound to its key, for what is asked of its server in the name of the person whose
    /// access token this is.
    async fn exchange(&self, token: &str, asked: (Action, Detail)) -> Result<Minted, ExchangeError>;

    /// A proof of that key for one request with one such token (RFC 9449 §4.2).
    ///
    /// # Errors
    /// The key cannot sign.
    fn prove(&self, method: &str, url: &str, token: &str, nonce: &str) -> Result<String, ExchangeError>;
}

impl std::fmt::Debug for dyn Exchanger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchanger")
    }
}

/// What came of an exchange.
#[derive(Clone)]
pub struct Minted {
    /// The token.
    pub token: Zeroizing<String>,
    /// How long it lives.
    pub lives: Duration,
    /// How often it may be used; `None` where nothing limits it.
    pub max_uses: Option<u64>,
}

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minted").field("lives", &self.lives).finish_non_exhaustive()
    }
}

/// What a no is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The person's token itself.
    Token,
    /// What was asked with it: the token was accepted.
    Asked,
    /// Neither: nothing is known of either.
    Nothing,
}

impl About {
    /// RFC 8693 §2.2.2: whatever is wrong with the subject token is `invalid_request`. The broker looks at it before it
    /// decides, so that every decision says that it was good.
    pub(super) fn of(error: &ExchangeError) -> Self {
        match error {
            ExchangeError::InvalidRequest(_) => Self::Token,
            ExchangeError::InvalidTarget(_)
            | ExchangeError::InvalidScope(_)
            | ExchangeError::InvalidAuthorizationDetails(_)
            | ExchangeError::AccessDenied { .. }
            | ExchangeError::Waiting { .. }
            | ExchangeError::SlowDown(_)
            | ExchangeError::Expired(_)
            | ExchangeError::InsufficientUserAuthentication { .. } => Self::Asked,
            _ => Self::Nothing,
        }
    }
}

/// What whoever presented the token is told.
pub(super) fn reason_of(error: ExchangeError) -> Reason {
    match error {
        ExchangeError::InvalidRequest(_) => Reason::UserToken("refused by the broker"),
        ExchangeError::InvalidTarget(details)
        | ExchangeError::InvalidScope(details)
        | ExchangeError::InvalidAuthorizationDetails(details)
        | ExchangeError::SlowDown(details)
        | ExchangeError::Expired(details)
        | ExchangeError::AccessDenied { details, .. } => {
            Reason::Denied { description: details.description, decision_id: details.decision_id }
        }
        ExchangeError::Waiting { approval_uri, decision_id, .. } => {
            Reason::Waiting { approval_uri, decision_id }
        }
        ExchangeError::InsufficientUserAuthentication { acr_values, max_age_seconds, details } => {
            Reason::UserAuthentication { acr_values, max_age_seconds, decision_id: details.decision_id }
        }
        ExchangeError::RateLimited { retry_after_seconds, .. } => {
            Reason::Limited { retry_after_seconds: retry_after_seconds.unwrap_or(1) }
        }
        ExchangeError::Unavailable { .. } => Reason::Unavailable("the broker cannot decide now"),
        ExchangeError::Unreachable(_) => Reason::Unavailable("the broker cannot be reached"),
        // The guard's own client, key or broker is not what it should be: its operator's affair.
        error => {
            tracing::error!(%error, "the broker takes no exchanges from this guard");
            Reason::Unavailable("the broker takes no exchanges from this guard")
        }
    }
}
