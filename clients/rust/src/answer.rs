//! What the broker answers, read strictly enough to be relied on.

use crate::{
    error::{DenialReason, ErrorDetails, ExchangeError},
    token::ToolToken,
    transport::Received,
};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: u64,
    scope: String,
    authorization_details: Value,
    transaction_id: String,
    decision_id: String,
}

#[derive(Default, Deserialize)]
struct Refused {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
    decision_id: Option<String>,
    reason: Option<String>,
    approval_id: Option<String>,
    approval_uri: Option<String>,
    interval: Option<u64>,
    expires_in: Option<u64>,
    acr_values: Option<String>,
    max_age: Option<u64>,
}

/// Reads the answer to an exchange.
pub(crate) fn token(received: &Received) -> Result<ToolToken, ExchangeError> {
    if received.status != 200 {
        return Err(refusal(received));
    }
    let granted: Granted = serde_json::from_slice(&received.body)
        .map_err(|_| ExchangeError::Protocol("the token response is malformed"))?;
    let access_token = Zeroizing::new(granted.access_token);
    // We sent a proof: a token that is not bound to it is not what was asked for (RFC 9449 §5).
    if !granted.token_type.eq_ignore_ascii_case("dpop") {
        return Err(ExchangeError::Protocol("the token is not bound to our key"));
    }
    Ok(ToolToken {
        access_token,
        expires_in_seconds: granted.expires_in,
        scope: granted.scope,
        authorization_details: granted.authorization_details,
        transaction_id: granted.transaction_id,
        decision_id: granted.decision_id,
    })
}

/// Whether the broker asks for a proof with its nonce (RFC 9449 §8).
pub(crate) fn needs_nonce(received: &Received) -> bool {
    received.status != 200 && received.dpop_nonce.is_some() && read(received).error == "use_dpop_nonce"
}

/// The error that an answer stands for.
pub(crate) fn refusal(received: &Received) -> ExchangeError {
    let refused = read(received);
    let retry_after_seconds = received.retry_after_seconds;
    let details = ErrorDetails {
        code: plain(&refused.error),
        description: plain(&refused.error_description),
        decision_id: refused.decision_id.as_deref().map(plain),
    };
    match (received.status, refused.error.as_str()) {
        (429, _) => ExchangeError::RateLimited { retry_after_seconds, details },
        (500..=599, _) => ExchangeError::Unavailable { retry_after_seconds, details },
        (_, "invalid_request") if received.status == 400 => ExchangeError::InvalidRequest(details),
        (_, "invalid_target") => ExchangeError::InvalidTarget(details),
        (_, "invalid_scope") => ExchangeError::InvalidScope(details),
        (_, "invalid_authorization_details") => ExchangeError::InvalidAuthorizationDetails(details),
        (_, "invalid_client") => ExchangeError::InvalidClient(details),
        (_, "invalid_dpop_proof" | "use_dpop_nonce") => ExchangeError::InvalidProof(details),
        (_, "slow_down") => ExchangeError::SlowDown(details),
        (_, "expired_token") => ExchangeError::Expired(details),
        (_, "access_denied") => {
            let reason = match refused.reason.as_deref() {
                Some("policy") => DenialReason::Policy,
                Some("approval_required") => DenialReason::ApprovalRequired,
                Some("human") => DenialReason::Human,
                _ => DenialReason::Other,
            };
            ExchangeError::AccessDenied { reason, details }
        }
        (_, "authorization_pending") => match refused.approval_id {
            Some(approval_id) => ExchangeError::Waiting {
                approval_id: plain(&approval_id),
                approval_uri: refused.approval_uri.as_deref().map(plain),
                interval_seconds: refused.interval.unwrap_or(DEFAULT_INTERVAL_SECONDS),
                expires_in_seconds: refused.expires_in.unwrap_or_default(),
                decision_id: details.decision_id,
            },
            None => ExchangeError::Protocol("a wait without approval_id"),
        },
        (_, "insufficient_user_authentication") => ExchangeError::InsufficientUserAuthentication {
            acr_values: refused.acr_values.unwrap_or_default().split_whitespace().map(plain).collect(),
            max_age_seconds: refused.max_age,
            details,
        },
        (status, _) => ExchangeError::Refused { status, details },
    }
}

fn read(received: &Received) -> Refused {
    serde_json::from_slice(&received.body).unwrap_or_default()
}

/// What a server says ends in logs and on terminals.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

/// RFC 8628 §3.5.
const DEFAULT_INTERVAL_SECONDS: u64 = 5;
const MAX_TEXT_CHARS: usize = 512;
