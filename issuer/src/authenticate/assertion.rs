//! `private_key_jwt`: an assertion under a key of the client's own (RFC 7523).

use deputize_call::jws::{self, EmbeddedKey, JwsError};
use std::sync::Arc;

use super::{MAX_ASSERTION_SECONDS, SpentId};
use crate::{client::Client, desk::Desk, error::IssueError};

/// RFC 7523 §3 with the narrowings of RFC 7523bis: `aud` is our issuer, as a single string; at most five minutes.
pub(super) fn verify_assertion(
    desk: &Desk,
    assertion: &str,
    client_id: Option<&str>,
    now: u64,
) -> Result<(Arc<Client>, SpentId), IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let jws =
        jws::parse(assertion, EmbeddedKey::Refused).map_err(|error| refuse(assertion_reason(&error)))?;
    if !matches!(jws.header.typ.as_deref(), None | Some("jwt" | "client-authentication+jwt")) {
        return Err(refuse("assertion_typ"));
    }
    let claim = |name| jws::string_claim(&jws.claims, name, 256).map_err(|_| refuse("assertion_claims"));
    let (issuer, subject, jti) = (claim("iss")?, claim("sub")?, claim("jti")?);
    if issuer != subject || client_id.is_some_and(|id| id != subject) {
        return Err(refuse("assertion_subject"));
    }
    // Unknown client, unknown key, wrong signature: one cost and one answer, so that nobody learns which clients exist.
    let client = desk.rules.load().clients.verify(subject, &jws).ok_or(refuse("assertion_signature"))?;
    if jws.claims.get("aud").and_then(serde_json::Value::as_str) != Some(desk.settings.issuer.as_str()) {
        return Err(refuse("assertion_audience"));
    }
    let leeway = desk.settings.leeway_seconds;
    let times = jws::check_times(&jws.claims, now, leeway).map_err(|_| refuse("assertion_times"))?;
    let issued = times.iat.ok_or(refuse("assertion_iat_missing"))?;
    if times.exp.saturating_sub(issued) > MAX_ASSERTION_SECONDS
        || issued + MAX_ASSERTION_SECONDS + leeway < now
    {
        return Err(refuse("assertion_too_long"));
    }
    let until = times.exp + leeway;
    Ok((client, SpentId { tag: assertion_tag(subject, jti), until }))
}

fn assertion_tag(client_id: &str, jti: &str) -> [u8; 16] {
    let digest = deputize_call::digest::sha256(format!("assertion\0{client_id}\0{jti}").as_bytes());
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = from;
    }
    tag
}

fn assertion_reason(error: &JwsError) -> &'static str {
    match error {
        JwsError::TooLong => "assertion_too_large",
        JwsError::Algorithm => "assertion_algorithm",
        JwsError::Header(_) => "assertion_header",
        JwsError::Signature | JwsError::UnknownKey => "assertion_signature",
        _ => "assertion_malformed",
    }
}
