//! `act`, `may_act` and `cnf` of a user's token: honoured, or the token is refused; never passed over.

use super::{UserTokenError, describe::text};
use deputize_call::{
    claims::{Actor, Confirmation},
    json::Object,
};
use serde_json::Value;

/// Who may act for the subject (RFC 8693 §4.4). Every part that is there must match the actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MayAct {
    /// The actor.
    pub sub: String,
    /// The issuer in whose name space `sub` stands.
    pub iss: Option<String>,
    /// The client that may act.
    pub client_id: Option<String>,
}

/// Reads `may_act`. A member that nobody here could compare refuses the token.
pub(super) fn may_act(claims: &Object) -> Result<Option<MayAct>, UserTokenError> {
    let refuse = |why| UserTokenError::Delegation("may_act", why);
    let Some(value) = claims.get("may_act") else { return Ok(None) };
    let members = value.as_object().ok_or(refuse("not an object"))?;
    if members.keys().any(|name| !["sub", "iss", "client_id"].contains(&name.as_str())) {
        return Err(refuse("unknown member"));
    }
    let member = |name| {
        let value: Option<&Value> = members.get(name);
        value.map(|value| text(value, MAX_ACTOR_BYTES).map(str::to_owned)).transpose().map_err(refuse)
    };
    Ok(Some(MayAct {
        sub: member("sub")?.ok_or(refuse("sub is missing"))?,
        iss: member("iss")?,
        client_id: member("client_id")?,
    }))
}

/// Reads `act` (RFC 8693 §4.1): at most five actors, none twice.
pub(super) fn act(claims: &Object) -> Result<Option<Actor>, UserTokenError> {
    let refuse = |why| UserTokenError::Delegation("act", why);
    let Some(value) = claims.get("act") else { return Ok(None) };
    let actor: Actor = serde::Deserialize::deserialize(value).map_err(|_| refuse("not a chain of actors"))?;
    let chain: Vec<&str> = actor.chain().take(MAX_ACTORS + 1).collect();
    if chain.len() > MAX_ACTORS {
        return Err(refuse("chain too long"));
    }
    for (place, sub) in chain.iter().enumerate() {
        if sub.is_empty() || sub.len() > MAX_ACTOR_BYTES || sub.chars().any(char::is_control) {
            return Err(refuse("not an identifier"));
        }
        if chain.iter().skip(place + 1).any(|earlier| earlier == sub) {
            return Err(refuse("loop"));
        }
    }
    Ok(Some(actor))
}

/// Reads `cnf` (RFC 7800): the key that the user's token is bound to.
pub(super) fn bound_to(claims: &Object) -> Result<Option<Confirmation>, UserTokenError> {
    let Some(value) = claims.get("cnf") else { return Ok(None) };
    let refuse = UserTokenError::Delegation("cnf", "confirmation method not supported");
    let confirmation: Confirmation = serde::Deserialize::deserialize(value).map_err(|_| refuse.clone())?;
    let (Confirmation::Jkt(thumbprint) | Confirmation::X5tS256(thumbprint)) = &confirmation;
    // Base64url of 32 bytes.
    if thumbprint.len() == THUMBPRINT_CHARACTERS { Ok(Some(confirmation)) } else { Err(refuse) }
}

const MAX_ACTORS: usize = 5;
const MAX_ACTOR_BYTES: usize = 2048;
const THUMBPRINT_CHARACTERS: usize = 43;
