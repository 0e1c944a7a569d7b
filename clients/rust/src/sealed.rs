//! Answers that are sealed to this client: compact JWE (RFC 7516), ECDH-ES+A256KW on P-256 or RSA-OAEP-256 for the key,
//! A256GCM for what is in it, and nothing else.

use crate::{builder::BuildError, error::ExchangeError};
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    digest,
    key_wrap::{AES_256, AesKek, KeyWrap as _},
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::json::{self, Object};
use serde_json::Value;
use zeroize::Zeroizing;

/// A private key that the broker seals answers to: the other half of a key with `use: "enc"` in the JWKS by which the
/// broker knows this client.
pub struct DecryptionKey {
    kid: Option<String>,
    private: Private,
}

enum Private {
    P256(PrivateKey),
    Rsa(OaepPrivateDecryptingKey),
}

/// The header of a JWE, checked.
struct Header {
    kid: Option<String>,
    agreed: Option<Agreed>,
}

/// What ECDH-ES adds (RFC 7518 §4.6.1).
struct Agreed {
    /// The ephemeral public key, uncompressed.
    point: Vec<u8>,
    apu: Vec<u8>,
    apv: Vec<u8>,
}

impl DecryptionKey {
    /// Reads a private JWK: EC P-256 (`d`).
    ///
    /// # Errors
    /// [`BuildError::DecryptionKey`].
    pub fn from_private_jwk(jwk: &Object) -> Result<Self, BuildError> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if (text("kty"), text("crv")) != (Some("EC"), Some("P-256")) {
            return Err(BuildError::DecryptionKey("a JWK has to be EC on P-256; give RSA as PKCS#8"));
        }
        if text("use").is_some_and(|usage| usage != "enc") {
            return Err(BuildError::DecryptionKey("its use is not enc"));
        }
        let octets = text("d").and_then(|d| URL_SAFE_NO_PAD.decode(d).ok()).map(Zeroizing::new);
        let octets = octets.ok_or(BuildError::DecryptionKey("it has no d, the private half"))?;
        let key = PrivateKey::from_private_key(&ECDH_P256, &octets);
        let key = key.map_err(|_| BuildError::DecryptionKey("d is no private key of P-256"))?;
        Ok(Self { kid: text("kid").map(str::to_owned), private: Private::P256(key) })
    }

    /// Reads PKCS#8 DER: EC P-256, or RSA of 2,048 to 8,192 bits.
    ///
    /// # Errors
    /// [`BuildError::DecryptionKey`].
    pub fn from_pkcs8(der: &[u8], kid: Option<&str>) -> Result<Self, BuildError> {
        let rsa = || {
            PrivateDecryptingKey::from_pkcs8(der).ok().and_then(|key| OaepPrivateDecryptingKey::new(key).ok())
        };
        let private = match PrivateKey::from_private_key_der(&ECDH_P256, der) {
            Ok(key) => Private::P256(key),
            Err(_) => {
                Private::Rsa(rsa().ok_or(BuildError::DecryptionKey("it is neither EC on P-256 nor RSA"))?)
            }
        };
        Ok(Self { kid: kid.map(str::to_owned), private })
    }

    fn fits(&self, header: &Header) -> bool {
        let is_named = match (&self.kid, &header.kid) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        is_named && matches!(self.private, Private::P256(_)) == header.agreed.is_some()
    }

    /// The content encryption key. `None`, whatever is wrong.
    fn unwrap(&self, header: &Header, encrypted: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match (&self.private, &header.agreed) {
            (Private::P256(key), Some(agreed)) => {
                let wrapping = agree(key, UnparsedPublicKey::new(&ECDH_P256, &agreed.point), (), |secret| {
                    Ok(concat_kdf(secret, agreed))
                });
                let kek = AesKek::new(&AES_256, &wrapping.ok()?).ok()?;
                let mut content_key = Zeroizing::new(vec![0; KEY_BYTES]);
                // RFC 3394: eight bytes more than what is wrapped.
                let is_whole = encrypted.len() == KEY_BYTES + 8;
                let length = kek.unwrap(encrypted, &mut content_key).ok()?.len();
                (is_whole && length == KEY_BYTES).then_some(content_key)
            }
            (Private::Rsa(key), None) => {
                let mut buffer = Zeroizing::new(vec![0; key.min_output_size()]);
                let found = key.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut buffer, None).ok()?;
                (found.len() == KEY_BYTES).then(|| Zeroizing::new(found.to_vec()))
            }
            _ => None,
        }
    }
}

/// Opens a compact JWE. Everything that fails behind its header fails alike: what exactly it was is an oracle
/// (RFC 7516 §11.5).
pub(crate) fn open(jwe: &str, keys: &[DecryptionKey]) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
    let [protected, encrypted_key, iv, ciphertext, tag] =
        jwe.trim().split('.').collect::<Vec<_>>().try_into().map_err(|_| NOT_SEALED)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| NOT_SEALED);
    let header = Header::read(&decode(protected)?)?;
    let (encrypted_key, iv, mut content) =
        (decode(encrypted_key)?, decode(iv)?, Zeroizing::new(decode(ciphertext)?));
    let tag = decode(tag)?;
    if tag.len() != AES_256_GCM.tag_len() {
        return Err(NOT_SEALED);
    }
    content.extend_from_slice(&tag);
    let mut fitting = keys.iter().filter(|key| key.fits(&header));
    let (Some(key), None) = (fitting.next(), fitting.next()) else { return Err(NO_KEY) };
    let opened = key.unwrap(&header, &encrypted_key).and_then(|content_key| {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &content_key).ok()?);
        let nonce = Nonce::try_assume_unique_for_key(&iv).ok()?;
        Some(cipher.open_in_place(nonce, Aad::from(protected.as_bytes()), &mut content).ok()?.len())
    });
    content.truncate(opened.ok_or(NO_KEY)?);
    Ok(content)
}

impl Header {
    /// Anything that is not known is refused: `zip`, `crit`, keys and addresses of keys (RFC 8725 §3.10).
    fn read(bytes: &[u8]) -> Result<Self, ExchangeError> {
        let header = json::parse_object(bytes).map_err(|_| NOT_SEALED)?;
        if header.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(NOT_SEALED);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(NOT_SEALED),
        };
        let is_json = text("cty")?.is_none_or(|cty| matches!(cty, "json" | "application/json"));
        if text("enc")? != Some("A256GCM") || !is_json {
            return Err(NOT_SEALED);
        }
        let party = |name| {
            text(name)?.map_or(Ok(Vec::new()), |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| NOT_SEALED))
        };
        let agreed = match (text("alg")?, header.get("epk")) {
            (Some(ECDH_ES), Some(Value::Object(epk))) => {
                Some(Agreed { point: point(epk)?, apu: party("apu")?, apv: party("apv")? })
            }
            (Some("RSA-OAEP-256"), None) => None,
            _ => return Err(NOT_SEALED),
        };
        Ok(Self { kid: text("kid")?.map(str::to_owned), agreed })
    }
}

/// The ephemeral key as an uncompressed point. Whether it is on the curve is checked where it is used.
fn point(epk: &Object) -> Result<Vec<u8>, ExchangeError> {
    let text = |name: &str| epk.get(name).and_then(Value::as_str);
    if (text("kty"), text("crv")) != (Some("EC"), Some("P-256")) || epk.contains_key("d") {
        return Err(NOT_SEALED);
    }
    let coordinate = |name| {
        let octets = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        octets.filter(|octets| octets.len() == COORDINATE_BYTES).ok_or(NOT_SEALED)
    };
    Ok([&[UNCOMPRESSED][..], &coordinate("x")?, &coordinate("y")?].concat())
}

/// RFC 7518 §4.6.2: one round gives all 256 bits.
fn concat_kdf(secret: &[u8], agreed: &Agreed) -> Zeroizing<Vec<u8>> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(secret);
    for part in [ECDH_ES.as_bytes(), &agreed.apu, &agreed.apv] {
        // What is longer does not fit into an answer.
        context.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(part);
    }
    context.update(&256_u32.to_be_bytes());
    Zeroizing::new(context.finish().as_ref().to_vec())
}

impl std::fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecryptionKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

const ECDH_ES: &str = "ECDH-ES+A256KW";
const MEMBERS: [&str; 8] = ["alg", "enc", "kid", "typ", "cty", "epk", "apu", "apv"];
const KEY_BYTES: usize = 32;
const COORDINATE_BYTES: usize = 32;
const UNCOMPRESSED: u8 = 4;
pub(crate) const NOT_SEALED: ExchangeError =
    ExchangeError::Protocol("the sealed answer is not of a form that is taken");
const NO_KEY: ExchangeError = ExchangeError::Protocol("the answer is sealed to another key, or damaged");

#[cfg(test)]
mod tests;
