//! What a JWE's header may say. Read before decryption, since what decrypts would obey it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    json::{self, Object},
    keys::PublicKey,
};
use deputize_issuer::provider::UserTokenError;
use serde_json::Value;

/// A header that may be obeyed.
pub(super) struct CheckedHeader {
    pub(super) alg: KeyAlgorithm,
    pub(super) kid: Option<String>,
    /// Curve of the ephemeral key; it lies on it.
    pub(super) ephemeral_curve: Option<String>,
}

/// How the content key is conveyed (RFC 7518 §4.1, without what is weak).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum KeyAlgorithm {
    EcdhEs,
    EcdhEsA128Kw,
    EcdhEsA256Kw,
    RsaOaep,
    RsaOaep256,
}

/// Checks the form of a compact JWE and its header.
pub(super) fn check(jwe: &str) -> Result<CheckedHeader, UserTokenError> {
    let parts: Vec<&str> = jwe.split('.').take(6).collect();
    let [header, encrypted_key, iv, ciphertext, tag] = parts.as_slice() else {
        return Err(refuse("not five parts"));
    };
    let header =
        json::parse_object(&decode(header)?).map_err(|_| refuse("header is not a strict JSON object"))?;
    // An allow-list: `zip` would inflate without a bound, `p2c` iterate without one, `crit` change the rules,
    // `jwk`, `jku`, `x5u`, `x5c` bring keys.
    if header.keys().any(|name| !KNOWN_MEMBERS.contains(&name.as_str())) {
        return Err(refuse("header member not allowed"));
    }
    let alg = header.get("alg").and_then(Value::as_str).and_then(KeyAlgorithm::from_name);
    let alg = alg.ok_or(refuse("alg not allowed"))?;
    // RFC 7516 §5.2, steps 6 and 10: a directly agreed key is not conveyed.
    let encrypted_key = decode(encrypted_key)?;
    if encrypted_key.is_empty() != (alg == KeyAlgorithm::EcdhEs)
        || encrypted_key.len() > MAX_ENCRYPTED_KEY_BYTES
    {
        return Err(refuse("encrypted key does not go with alg"));
    }
    let (iv_bytes, tag_bytes) = header
        .get("enc")
        .and_then(Value::as_str)
        .and_then(iv_and_tag_bytes)
        .ok_or(refuse("enc not allowed"))?;
    // A tag cut short would authenticate nothing.
    if decode(iv)?.len() != iv_bytes || decode(tag)?.len() != tag_bytes {
        return Err(refuse("iv or tag of the wrong length"));
    }
    decode(ciphertext)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if (1..=MAX_KID_BYTES).contains(&kid.len()) => Some(kid.clone()),
        Some(_) => return Err(refuse("bad kid")),
    };
    Ok(CheckedHeader { alg, kid, ephemeral_curve: ephemeral_curve(alg, &header)? })
}

/// RFC 7518 §4.6.1.1: `epk` with exactly these members, a point of the curve that it names.
fn ephemeral_curve(alg: KeyAlgorithm, header: &Object) -> Result<Option<String>, UserTokenError> {
    let epk = header.get("epk");
    if alg.is_rsa() {
        return if epk.is_none() { Ok(None) } else { Err(refuse("header member not allowed")) };
    }
    let epk = epk.and_then(Value::as_object).ok_or(refuse("no ephemeral key"))?;
    if epk.keys().any(|name| !["kty", "crv", "x", "y"].contains(&name.as_str()))
        || epk.get("kty").and_then(Value::as_str) != Some("EC")
    {
        return Err(refuse("ephemeral key not acceptable"));
    }
    PublicKey::from_jwk(epk).map_err(|_| refuse("ephemeral key not acceptable"))?;
    Ok(epk.get("crv").and_then(Value::as_str).map(str::to_owned))
}

impl KeyAlgorithm {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "ECDH-ES" => Some(Self::EcdhEs),
            "ECDH-ES+A128KW" => Some(Self::EcdhEsA128Kw),
            "ECDH-ES+A256KW" => Some(Self::EcdhEsA256Kw),
            "RSA-OAEP" => Some(Self::RsaOaep),
            "RSA-OAEP-256" => Some(Self::RsaOaep256),
            _ => None,
        }
    }
    fn is_rsa(self) -> bool {
        matches!(self, Self::RsaOaep | Self::RsaOaep256)
    }
}

/// RFC 7518 §5.2 and §5.3.
fn iv_and_tag_bytes(enc: &str) -> Option<(usize, usize)> {
    match enc {
        "A128GCM" | "A256GCM" => Some((12, 16)),
        "A128CBC-HS256" => Some((16, 16)),
        "A256CBC-HS512" => Some((16, 32)),
        _ => None,
    }
}

fn decode(part: &str) -> Result<Vec<u8>, UserTokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| refuse("not canonical base64url"))
}

pub(super) fn refuse(why: &'static str) -> UserTokenError {
    UserTokenError::Encrypted(why)
}

/// RFC 7516 §4.1, RFC 7518 §4.6.1; `iss`, `sub`, `aud` may be repeated from the claims (RFC 7519 §5.3) and,
/// like the thumbprints, are not looked at.
const KNOWN_MEMBERS: [&str; 13] =
    ["alg", "enc", "kid", "typ", "cty", "epk", "apu", "apv", "iss", "sub", "aud", "x5t", "x5t#S256"];
/// RSA of 8,192 bits.
const MAX_ENCRYPTED_KEY_BYTES: usize = 1024;
const MAX_KID_BYTES: usize = 256;
