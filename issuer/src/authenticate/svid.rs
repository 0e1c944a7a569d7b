//! `spiffe_jwt`: a JWT-SVID as the client's assertion (draft-ietf-oauth-spiffe-client-auth §4.1).

use std::sync::Arc;

use super::{MAX_ASSERTION_SECONDS, SpentId};
use crate::{client::Client, desk::Desk, error::IssueError, svid::SVID_LEEWAY_SECONDS};

/// Whose JWT-SVID this is, and what to use up of it where it is good once.
pub(super) fn verify_svid_assertion(
    desk: &Desk,
    assertion: &str,
    client_id: Option<&str>,
    now_seconds: u64,
) -> Result<(Arc<Client>, SpentId), IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let door = desk.spiffe.as_ref().ok_or(refuse("svid_not_supported"))?;
    let issuer = &desk.settings.issuer;
    let svid = door.jwt_caller(assertion, (now_seconds, issuer)).map_err(|error| refuse(error.reason()))?;
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
    // Forgotten after the last second in which it verifies.
    let until = svid.times.exp + desk.settings.leeway_seconds.max(SVID_LEEWAY_SECONDS);
    Ok((client, SpentId { tag: tag(assertion), until }))
}

/// Stands for a JWT-SVID. Of what was signed alone: whoever has one signature can make others of it (ECDSA).
fn tag(assertion: &str) -> [u8; 16] {
    let signed = assertion.rsplit_once('.').map_or(assertion, |(signed, _)| signed);
    let digest = deputize_call::digest::sha256(format!("svid\0{signed}").as_bytes());
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = from;
    }
    tag
}
