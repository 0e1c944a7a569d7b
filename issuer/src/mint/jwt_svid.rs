//! A JWT-SVID (SPIFFE JWT-SVID): a JWS whose header has `alg`, `kid` and `typ`, and nothing else (§2).

use super::Mint;
use crate::{
    decide::JwtSvidTerms, desk::Desk, error::IssueError, node::SeenBy, record::OpenRecord, secret::Secret,
    svid::JwtSvid,
};

impl Mint for JwtSvidTerms {
    type Credential = JwtSvid;

    async fn mint(record: OpenRecord<Self>, desk: &Desk) -> Result<JwtSvid, IssueError> {
        let terms = record.into_terms();
        // Its node may have been banned while its record was written.
        terms.seen_by.as_ref().map_or(Ok(()), SeenBy::stands)?;
        let door = desk.spiffe.as_ref().ok_or(IssueError::Internal("no_door_to_spiffe"))?;
        // Revoked or tainted while its record was written: nobody would take what it signs, or not for long.
        if !door.authorities.ring().trusts_key(terms.key.kid()) {
            return Err(IssueError::UpstreamUnavailable("authority_withdrawn"));
        }
        let signed = terms.key.sign(TYP, &terms.claims);
        let token = signed.map(Secret::new).map_err(|_| IssueError::Internal("signing_failed"))?;
        Ok(JwtSvid {
            spiffe_id: terms.entry.spiffe_id.clone(),
            token,
            expires_at_seconds: terms.claims.exp,
            hint: terms.entry.hint.clone(),
        })
    }
}

/// JWT-SVID §2.3.
const TYP: &str = "JWT";
