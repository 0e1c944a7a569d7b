//! The tool-call token: an `at+jwt` (RFC 9068), bound to its sender, its server, its tool and, at L3, its call.

use deputize_call::claims::{TYP, ToolCallClaims};

use crate::{
    keys::KeySource,
    record::{OpenRecord, Outcome},
    secret::Secret,
};

/// A minted tool-call token.
#[derive(Debug)]
pub struct ToolCallToken {
    /// The compact JWS.
    pub access_token: Secret<String>,
    /// What it says.
    pub claims: ToolCallClaims,
}

/// Signs. The open record is used up whether this succeeds or not; the outcome says which.
pub fn mint(keys: &KeySource, record: OpenRecord) -> (Option<ToolCallToken>, Outcome) {
    let (terms, index) = record.into_parts();
    let mut claims = terms.claims;
    claims.log.index = index;
    let signed = keys.ring().current.sign(TYP, &claims);
    let outcome = Outcome {
        decision_id: terms.decision_id,
        index,
        result: signed.as_ref().map(|_| ()).map_err(|_| "signing_failed"),
    };
    let token =
        signed.ok().map(|access_token| ToolCallToken { access_token: Secret::new(access_token), claims });
    (token, outcome)
}
