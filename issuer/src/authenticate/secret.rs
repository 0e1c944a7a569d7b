//! A bootstrap secret (RFC 6749 §2.3.1), where the configuration allows it.

use std::sync::Arc;
use subtle::ConstantTimeEq;

use crate::{client::Client, desk::Desk, error::IssueError};

/// Whose secret this is.
pub(super) fn verify_secret(desk: &Desk, client_id: &str, secret: &str) -> Result<Arc<Client>, IssueError> {
    let given = deputize_call::digest::sha256(secret.as_bytes());
    let client = desk.rules.load().clients.enabled(client_id);
    // Without a configured secret the comparison still runs, against something that no digest equals twice.
    let configured = client.as_ref().and_then(|client| client.secret_sha256).unwrap_or_default();
    let equal: bool = given.ct_eq(&configured).into();
    match client {
        Some(client) if equal && client.secret_sha256.is_some() => Ok(client),
        _ => Err(IssueError::ClientAuthentication("client_secret")),
    }
}
