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

/// What an answer of the broker's says of the token that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// It was accepted: only then is anything decided.
    Accepted,
    /// It was refused.
    Refused,
    /// Nothing: what was asked could not be read, or is not to be had from anyone. The broker says so before it looks
    /// at the token, so that anyone gets this answer.
    Unread,
    /// Nothing, and whoever brought it cannot help it: the broker has no time, or cannot be reached.
    Away,
    /// Nothing: the guard itself is not accepted.
    Closed,
}

impl Says {
    pub(super) fn of(answer: &Result<Minted, ExchangeError>) -> Self {
        let Err(error) = answer else { return Self::Accepted };
        match error {
            ExchangeError::AccessDenied { .. }
            | ExchangeError::Waiting { .. }
            | ExchangeError::InsufficientUserAuthentication { .. } => Self::Accepted,
            // RFC 8693 §2.2.2: whatever is wrong with the subject token is `invalid_request`.
            ExchangeError::InvalidRequest(_) => Self::Refused,
            // RFC 9396 §5, RFC 8693 §2.2.2, RFC 6749 §5.2.
            ExchangeError::InvalidTarget(_)
            | ExchangeError::InvalidScope(_)
            | ExchangeError::InvalidAuthorizationDetails(_)
            | ExchangeError::SlowDown(_)
            | ExchangeError::Expired(_)
            | ExchangeError::Refused { status: TOO_LARGE, .. } => Self::Unread,
            ExchangeError::RateLimited { .. }
            | ExchangeError::Unavailable { .. }
            | ExchangeError::Unreachable(_) => Self::Away,
            _ => Self::Closed,
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
        // What a caller sent makes a form that is longer than the broker reads: his affair.
        ExchangeError::Refused { status: TOO_LARGE, .. } => Reason::TooLarge,
        // The guard's own client, key or broker is not what it should be: its operator's affair.
        error => {
            tracing::error!(%error, "the broker takes no exchanges from this guard");
            Reason::Unavailable("the broker takes no exchanges from this guard")
        }
    }
}

/// Content Too Large (RFC 9110 §15.5.14).
const TOO_LARGE: u16 = 413;
