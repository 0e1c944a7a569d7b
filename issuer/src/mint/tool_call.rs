//! The tool-call token: an `at+jwt` (RFC 9068), bound to its sender, its server, its tool and, at L3, its call.

use deputize_call::claims::{TYP, ToolCallClaims};

use super::Mint;
use crate::{
    decide::ToolCallTerms, desk::Desk, error::IssueError, node::SeenBy, record::OpenRecord, secret::Secret,
};

/// A minted tool-call token.
#[derive(Debug)]
pub struct ToolCallToken {
    /// The compact JWS.
    pub access_token: Secret<String>,
    /// What it says.
    pub claims: ToolCallClaims,
}

impl Mint for ToolCallTerms {
    type Credential = ToolCallToken;

    async fn mint(record: OpenRecord<Self>, desk: &Desk) -> Result<ToolCallToken, IssueError> {
        let index = record.index();
        let terms = record.into_terms();
        // Its node may have been banned, or evicted, while the record was written.
        terms.seen_by.as_ref().map_or(Ok(()), SeenBy::stands)?;
        let mut claims = terms.claims;
        claims.log.index = index;
        let signed = desk.keys.ring().current.sign(TYP, &claims);
        let access_token = Secret::new(signed.map_err(|_| IssueError::Internal("signing_failed"))?);
        Ok(ToolCallToken { access_token, claims })
    }
}
