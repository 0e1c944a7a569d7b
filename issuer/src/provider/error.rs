//! Why a user's token is refused. Constant words for the record; what a caller is told is the door's affair.

use deputize_call::jws::JwsError;

/// Why a user's token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserTokenError {
    /// Form, signature, or a claim of RFC 7519.
    #[error("{0}")]
    Jws(#[from] JwsError),
    /// No provider of this `iss` is configured.
    #[error("issuer is not trusted")]
    UnknownIssuer,
    /// The provider belongs to another tenant than the client.
    #[error("issuer belongs to another tenant")]
    Tenant,
    /// The provider's configuration does not list the token's algorithm.
    #[error("algorithm not allowed for this issuer")]
    Algorithm,
    /// `typ` is not one that this provider gives to such tokens.
    #[error("header typ not acceptable")]
    HeaderType,
    /// An ID token where an access token is due, the reverse, or neither (a logout token, a refresh token).
    #[error("token is of another kind: {0}")]
    Kind(&'static str),
    /// None (or, of an ID token, not all) of `aud` is on the client's list.
    #[error("audience is not on the client's list")]
    Audience,
    /// The token was issued to a party that is not on the client's list.
    #[error("authorized party is not on the client's list: {0}")]
    AuthorizedParty(&'static str),
    /// Issued longer ago than the configuration allows.
    #[error("token is too old")]
    TooOld,
    /// `auth_time` lies ahead.
    #[error("auth_time is in the future")]
    AuthTime,
    /// A claim that the configuration demands is missing or has another value.
    #[error("required claim does not match: {0}")]
    RequiredClaim(String),
    /// The configured stable claim is missing, or cannot be an identifier.
    #[error("no acceptable stable claim: {0}")]
    Subject(&'static str),
    /// No person stands behind it: a client's or service account's own token.
    #[error("token of an application, not of a person")]
    NotAPerson,
    /// The groups are not in the token (overage), too many, or not texts.
    #[error("groups not acceptable: {0}")]
    Groups(&'static str),
    /// A claim that is passed to policy cannot be expressed there.
    #[error("claim cannot be expressed: {0}")]
    ClaimShape(String),
    /// `act`, `may_act` or `cnf` is there, and not in a form that could be honoured.
    #[error("{0}: {1}")]
    Delegation(&'static str, &'static str),
    /// The token is encrypted, and cannot be decrypted here.
    #[error("encrypted token not acceptable: {0}")]
    Encrypted(&'static str),
    /// The issuer's keys are not known now: neither yes nor no.
    #[error(transparent)]
    KeysUnavailable(#[from] KeysUnavailable),
}

/// No keys of this issuer are at hand, or they are too old to be trusted. Try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the issuer's keys are not available")]
pub struct KeysUnavailable;

impl UserTokenError {
    /// The constant word under which the refusal is counted and recorded.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Jws(error) => jws_reason(error),
            Self::UnknownIssuer => "issuer_not_trusted",
            Self::Tenant => "tenant",
            Self::Algorithm => "algorithm",
            Self::HeaderType => "header_type",
            Self::Kind(_) => "token_kind",
            Self::Audience => "audience",
            Self::AuthorizedParty(_) => "authorized_party",
            Self::TooOld => "too_old",
            Self::AuthTime => "auth_time",
            Self::RequiredClaim(_) => "required_claim",
            Self::Subject(_) => "subject",
            Self::NotAPerson => "not_a_person",
            Self::Groups(_) => "groups",
            Self::ClaimShape(_) => "claim_shape",
            Self::Delegation(..) => "delegation",
            Self::Encrypted(_) => "encrypted",
            Self::KeysUnavailable(_) => "keys_unavailable",
        }
    }
}

fn jws_reason(error: &JwsError) -> &'static str {
    match error {
        JwsError::TooLong => "too_long",
        JwsError::Algorithm => "algorithm",
        JwsError::Header(_) => "header",
        JwsError::UnknownKey => "unknown_key",
        JwsError::Signature => "signature",
        JwsError::Claim("exp", "expired") => "expired",
        JwsError::Claim("nbf", "not yet valid") => "not_yet_valid",
        JwsError::Claim("iat", "in the future") => "issued_in_the_future",
        JwsError::Claim("sub", _) => "subject",
        JwsError::Claim(..) => "claim",
        _ => "malformed",
    }
}
