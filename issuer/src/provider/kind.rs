//! Which kind of token is it? Only RFC 9068 says so in `typ`; most providers leave it to the claims.

use super::{Provider, UserTokenError};
use deputize_call::{json::Object, jws::Header};
use serde_json::Value;

/// What the caller says that it brings (RFC 8693 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectTokenType {
    /// `urn:ietf:params:oauth:token-type:jwt`: an access token or an ID token.
    Jwt,
    /// `urn:ietf:params:oauth:token-type:access_token`.
    AccessToken,
    /// `urn:ietf:params:oauth:token-type:id_token`.
    IdToken,
}

/// What a token turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Access,
    Id,
    /// Nothing that only one of the two has: as bare as OpenID Connect Core §2 allows an ID token to be.
    Unmarked,
}

impl TokenKind {
    /// Decides from header and claims, and refuses what is neither.
    pub(super) fn read(
        provider: &Provider,
        header: &Header,
        claims: &Object,
    ) -> Result<Self, UserTokenError> {
        // Logout tokens and security events (RFC 8417 §2.2) may come with `typ: JWT`; `events` is what they all have.
        if claims.contains_key("events") {
            return Err(UserTokenError::Kind("security event or logout token"));
        }
        let kind = match header.typ.as_deref() {
            Some("at+jwt") => Self::Access,
            _ => Self::from_claims(provider, claims)?,
        };
        let types = &provider.accepted_types;
        let accepted = if kind == Self::Access { &types.access_token } else { &types.id_token };
        let fits = match &header.typ {
            Some(typ) => accepted.iter().any(|accepted| accepted == typ),
            None => types.absent && !accepted.is_empty(),
        };
        if fits { Ok(kind) } else { Err(UserTokenError::HeaderType) }
    }

    fn from_claims(provider: &Provider, claims: &Object) -> Result<Self, UserTokenError> {
        if let Some(claim) = provider.claims.kind_claim.as_ref().and_then(|path| path.find(claims)) {
            return match claim.as_str() {
                Some("Bearer" | "DPoP") => Ok(Self::Access),
                Some("ID") => Ok(Self::Id),
                _ => Err(UserTokenError::Kind("neither access token nor ID token")),
            };
        }
        if ID_TOKEN_CLAIMS.iter().any(|name| claims.contains_key(*name)) {
            return Ok(Self::Id);
        }
        if ACCESS_TOKEN_CLAIMS.iter().any(|name| claims.contains_key(*name)) || issued_for_another(claims) {
            return Ok(Self::Access);
        }
        Ok(Self::Unmarked)
    }

    /// Refuses a token of another kind than announced.
    pub(super) fn check(self, announced: SubjectTokenType) -> Result<(), UserTokenError> {
        match (announced, self) {
            (SubjectTokenType::Jwt, _)
            | (SubjectTokenType::AccessToken, Self::Access)
            | (SubjectTokenType::IdToken, Self::Id | Self::Unmarked) => Ok(()),
            (SubjectTokenType::AccessToken, Self::Id | Self::Unmarked) => {
                Err(UserTokenError::Kind("not an access token"))
            }
            (SubjectTokenType::IdToken, Self::Access) => Err(UserTokenError::Kind("not an ID token")),
        }
    }
}

/// An ID token's `aud` contains the client it was issued to (OpenID Connect Core §2); an access token's need not.
fn issued_for_another(claims: &Object) -> bool {
    let Some(azp) = claims.get("azp") else { return false };
    match claims.get("aud") {
        Some(Value::Array(audiences)) => !audiences.contains(azp),
        Some(audience) => audience != azp,
        None => false,
    }
}

/// OpenID Connect Core §2, §3.3.2.11, and the financial profiles' `s_hash`.
const ID_TOKEN_CLAIMS: [&str; 4] = ["at_hash", "c_hash", "s_hash", "nonce"];
/// RFC 9068 §2.2 and its elders' spellings at Entra ID (`scp`, `appid`) and Okta (`scp`, `cid`).
const ACCESS_TOKEN_CLAIMS: [&str; 5] = ["scope", "scp", "client_id", "appid", "cid"];
