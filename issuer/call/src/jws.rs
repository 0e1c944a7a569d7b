//! Compact JWS, read strictly: one serialization, canonical base64url, no header that would fetch or switch anything.

use crate::{json::Object, keys::Algorithm};

/// The longest compact token accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A compact JWS that is well formed; its signature is *not* yet verified.
#[derive(Debug)]
pub struct UnverifiedJws<'a> {
    /// Protected header, strictly parsed (`alg` allow-listed; `crit`, `b64` refused).
    pub header: Header,
    /// Claims, strictly parsed, at most 256 members.
    pub claims: Object,
    /// The bytes that were signed: everything before the last dot.
    pub signing_input: &'a str,
    /// Decoded signature.
    pub signature: Vec<u8>,
}

/// The members of a protected header that we read. `jku`, `x5u`, `x5c` are never used or fetched.
#[derive(Debug, Clone)]
pub struct Header {
    /// Signature algorithm.
    pub alg: Algorithm,
    /// Media type, lower-cased, without a leading `application/`.
    pub typ: Option<String>,
    /// Key id: at most 256 printable ASCII characters.
    pub kid: Option<String>,
    /// Embedded public key: allowed in DPoP proofs alone; elsewhere its presence refuses the token.
    pub jwk: Option<Object>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("token too long")]
    TooLong,
    /// Not three base64url parts, or not strict JSON inside.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// `alg` missing, `none`, symmetric or unknown.
    #[error("algorithm not allowed")]
    Algorithm,
    /// A header member that must not be there (`crit`, `b64`, `jku`, `x5u`, `x5c`, `jwk`).
    #[error("header member not allowed: {0}")]
    Header(&'static str),
    /// No key of this `kid` and algorithm.
    #[error("no such key")]
    UnknownKey,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// A claim is missing, of the wrong type, or has an unacceptable value.
    #[error("claim {0}: {1}")]
    Claim(&'static str, &'static str),
}

/// Whether an embedded `jwk` header is expected (DPoP) or refused (everything else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddedKey {
    /// RFC 9449 proofs carry their public key.
    Required,
    /// H-02: never trusted.
    Refused,
}

/// Parses a compact JWS.
pub fn parse(token: &str, embedded_key: EmbeddedKey) -> Result<UnverifiedJws<'_>, JwsError> {
    let _ = (token, embedded_key);
    todo!()
}

/// Times of a token, read strictly (non-negative integers below 2⁵³).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// `exp`.
    pub exp: u64,
    /// `nbf`.
    pub nbf: Option<u64>,
    /// `iat`.
    pub iat: Option<u64>,
}

/// Reads and checks `exp` (required), `nbf`, `iat` against `now_seconds` with `leeway_seconds` of grace either way.
pub fn check_times(claims: &Object, now_seconds: u64, leeway_seconds: u64) -> Result<Times, JwsError> {
    let _ = (claims, now_seconds, leeway_seconds);
    todo!()
}

/// A required string claim, 1–`max` bytes long, without control characters.
pub fn string_claim<'c>(claims: &'c Object, name: &'static str, max: usize) -> Result<&'c str, JwsError> {
    let _ = (claims, name, max);
    todo!()
}

/// `aud` as a list: a string or an array of 1–`max` strings (RFC 7519 §4.1.3).
pub fn audiences(claims: &Object, max: usize) -> Result<Vec<&str>, JwsError> {
    let _ = (claims, max);
    todo!()
}
