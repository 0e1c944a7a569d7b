//! Compact JWS, read strictly: one serialization, canonical base64url, no header that would fetch or switch anything.

use crate::{
    json::{self, Object},
    keys::Algorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// The longest compact token accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A compact JWS that is well formed; its signature is *not* yet verified.
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

/// Whoever holds the signed bytes and the signature holds the token: neither they nor the claims are shown.
impl std::fmt::Debug for UnverifiedJws<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnverifiedJws").field("header", &self.header).finish_non_exhaustive()
    }
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
    /// A key that we do not accept, or that cannot do what was asked of it.
    #[error("key not acceptable: {0}")]
    Key(&'static str),
    /// The system gave no random bytes.
    #[error("no randomness")]
    Randomness,
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
    if token.len() > MAX_TOKEN_BYTES {
        return Err(JwsError::TooLong);
    }
    let (signing_input, signature) = token.rsplit_once('.').ok_or(NOT_THREE_PARTS)?;
    let (header, payload) = signing_input.split_once('.').ok_or(NOT_THREE_PARTS)?;
    if payload.contains('.') {
        return Err(NOT_THREE_PARTS);
    }
    let header = read_header(strict_object(header)?, embedded_key)?;
    let claims = strict_object(payload)?;
    if claims.len() > MAX_CLAIMS {
        return Err(JwsError::Malformed("too many claims"));
    }
    Ok(UnverifiedJws { header, claims, signing_input, signature: base64url(signature)? })
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
    let exp = time_claim(claims, "exp")?.ok_or(JwsError::Claim("exp", "missing"))?;
    let (nbf, iat) = (time_claim(claims, "nbf")?, time_claim(claims, "iat")?);
    // RFC 7519 §4.1.4: now must be *before* `exp`.
    if now_seconds >= exp.saturating_add(leeway_seconds) {
        return Err(JwsError::Claim("exp", "expired"));
    }
    let latest = now_seconds.saturating_add(leeway_seconds);
    if nbf.is_some_and(|nbf| nbf > latest) {
        return Err(JwsError::Claim("nbf", "not yet valid"));
    }
    if iat.is_some_and(|iat| iat > latest) {
        return Err(JwsError::Claim("iat", "in the future"));
    }
    Ok(Times { exp, nbf, iat })
}

/// A required string claim, 1–`max` bytes long, without control characters.
pub fn string_claim<'c>(claims: &'c Object, name: &'static str, max: usize) -> Result<&'c str, JwsError> {
    let value = claims.get(name).ok_or(JwsError::Claim(name, "missing"))?;
    plain_string(value, max).map_err(|reason| JwsError::Claim(name, reason))
}

/// `aud` as a list: a string or an array of 1–`max` strings (RFC 7519 §4.1.3).
pub fn audiences(claims: &Object, max: usize) -> Result<Vec<&str>, JwsError> {
    let audience =
        |value| plain_string(value, MAX_AUDIENCE_BYTES).map_err(|reason| JwsError::Claim("aud", reason));
    match claims.get("aud") {
        None => Err(JwsError::Claim("aud", "missing")),
        Some(Value::Array(list)) if list.is_empty() => Err(JwsError::Claim("aud", "empty")),
        Some(Value::Array(list)) if list.len() > max => Err(JwsError::Claim("aud", "too many")),
        Some(Value::Array(list)) => list.iter().map(audience).collect(),
        Some(one) => Ok(vec![audience(one)?]),
    }
}

/// A time claim: absent, or a non-negative integer (a strict parse has bounded it below 2⁵³).
pub(crate) fn time_claim(claims: &Object, name: &'static str) -> Result<Option<u64>, JwsError> {
    claims
        .get(name)
        .map(|value| value.as_u64().ok_or(JwsError::Claim(name, "not a whole number")))
        .transpose()
}

/// Whether this may be a key id: 1–256 printable ASCII characters.
pub(crate) fn is_key_id(kid: &str) -> bool {
    (1..=MAX_KID_BYTES).contains(&kid.len()) && kid.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Decodes canonical base64url: no padding, no white space, zero trailing bits (RFC 7515 §2).
pub(crate) fn base64url(text: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed("not canonical base64url"))
}

fn strict_object(part: &str) -> Result<Object, JwsError> {
    json::parse_object(&base64url(part)?).map_err(|_| JwsError::Malformed("not a strict JSON object"))
}

fn read_header(mut header: Object, embedded_key: EmbeddedKey) -> Result<Header, JwsError> {
    // `crit`: we understand no extension (RFC 7515 §4.1.11). `b64`: RFC 7797 would change what is signed.
    // The rest would let the token choose its own key (RFC 8725 §3.10).
    for name in ["crit", "b64", "jku", "x5u", "x5c"] {
        if header.contains_key(name) {
            return Err(JwsError::Header(name));
        }
    }
    let alg = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
    let jwk = match (header.remove("jwk"), embedded_key) {
        (Some(Value::Object(jwk)), EmbeddedKey::Required) => Some(jwk),
        (None, EmbeddedKey::Refused) => None,
        _ => return Err(JwsError::Header("jwk")),
    };
    Ok(Header {
        alg: alg.ok_or(JwsError::Algorithm)?,
        typ: header.get("typ").map(media_type).transpose()?,
        kid: header.get("kid").map(key_id).transpose()?,
        jwk,
    })
}

fn media_type(typ: &Value) -> Result<String, JwsError> {
    let typ = plain_string(typ, MAX_TYP_BYTES).map_err(|_| JwsError::Malformed("bad typ"))?;
    let typ = typ.to_ascii_lowercase();
    // RFC 7515 §4.1.9: the prefix may be left out where no other slash follows.
    Ok(match typ.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => typ,
    })
}

fn key_id(kid: &Value) -> Result<String, JwsError> {
    kid.as_str().filter(|kid| is_key_id(kid)).map(str::to_owned).ok_or(JwsError::Malformed("bad kid"))
}

fn plain_string(value: &Value, max: usize) -> Result<&str, &'static str> {
    match value.as_str() {
        None => Err("not a string"),
        Some("") => Err("empty"),
        Some(text) if text.len() > max => Err("too long"),
        Some(text) if text.chars().any(char::is_control) => Err("control character"),
        Some(text) => Ok(text),
    }
}

const NOT_THREE_PARTS: JwsError = JwsError::Malformed("not three parts");
const MAX_CLAIMS: usize = 256;
const MAX_KID_BYTES: usize = 256;
const MAX_TYP_BYTES: usize = 128;
const MAX_AUDIENCE_BYTES: usize = 2048;

#[cfg(test)]
mod tests;
