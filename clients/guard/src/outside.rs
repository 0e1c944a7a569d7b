//! What a guard asks of the outside, and nothing more.

use async_trait::async_trait;
use deputize_call::claims::ToolCallClaims;

/// Asks the maker of an L3 token whether this is its first use (`POST /redeem`).
#[async_trait]
pub trait Redeemer: Send + Sync {
    /// Redeems `token`. Asked after every other check; the call runs only on [`Redeemed::Yes`].
    async fn redeem(&self, token: &str) -> Redeemed;
}

/// The answer about a redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// First use, and now it is used.
    Yes,
    /// Used before.
    AlreadyUsed,
    /// Revoked meanwhile.
    Revoked,
    /// The maker cannot be reached or does not know: refused (fail closed).
    Unavailable,
}

/// The server behind the guard, and the limits in front of it.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Whether the server would take this call now. Asked before a token is redeemed, so that a call which cannot
    /// run does not spend it.
    async fn admit(&self, claims: &ToolCallClaims) -> Admission;
}

/// The answer of [`Upstream::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The call may go on.
    Ready,
    /// Over a rate.
    Limited {
        /// Seconds after which to come back.
        retry_after_seconds: u64,
    },
    /// The server is down.
    Unavailable,
}
