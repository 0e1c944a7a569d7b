//! `spiffe_jwt`: a JWT-SVID as the client's assertion (draft-ietf-oauth-spiffe-client-auth §4.1).

use std::sync::Arc;

use super::MAX_ASSERTION_SECONDS;
use crate::{client::Client, desk::Desk, error::IssueError, svid::verify_jwt_svid};

/// Whose JWT-SVID this is. It is good until it expires, however often it comes: what is given for it is bound to a key
/// that is shown beside it.
pub(super) fn verify_svid_assertion(
    desk: &Desk,
    assertion: &str,
    client_id: Option<&str>,
    now_seconds: u64,
) -> Result<Arc<Client>, IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let door = desk.spiffe.as_ref().ok_or(refuse("svid_not_supported"))?;
    let issuer = &desk.settings.issuer;
    let svid = verify_jwt_svid(assertion, &door.bundles(), now_seconds, issuer)
        .map_err(|error| refuse(error.reason()))?;
    // One that others take as well, they could bring here in the client's name.
    let is_for_us_alone = match svid.claims.get("aud") {
        Some(serde_json::Value::Array(audiences)) => audiences.len() == 1,
        _ => true,
    };
    if !is_for_us_alone {
        return Err(refuse("svid_audience"));
    }
    if svid.times.exp > now_seconds + MAX_ASSERTION_SECONDS + desk.settings.leeway_seconds {
        return Err(refuse("svid_too_long"));
    }
    let client = desk.rules.load().clients.with_spiffe_id(&svid.spiffe_id);
    // Whoever has an SVID is no stranger, and may know whether there is a client of its ID.
    let client = client.ok_or(refuse("svid_of_no_client"))?;
    if client_id.is_some_and(|id| id != client.id) {
        return Err(refuse("svid_of_another_client"));
    }
    Ok(client)
}
