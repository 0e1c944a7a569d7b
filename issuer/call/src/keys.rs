//! Public keys: JWKs of the kinds we accept, thumbprints, verification, and sets of them.

use crate::{
    digest::sha256,
    json::{self, Object},
    jws::{JwsError, UnverifiedJws, base64url, is_key_id},
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, crypto::aws_lc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The asymmetric JWS algorithms that we verify (RFC 8725 §3.1: an allow-list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of RFC 7518 §3.1 and RFC 8037")]
pub enum Algorithm {
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::ES256,
        Self::ES384,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::EdDSA,
    ];
    /// The `alg` value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDSA => "EdDSA",
        }
    }
    /// Reads an `alg` value; case matters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
    fn jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// One public key, parsed and held. EC keys are on their curve; RSA moduli are 2,048–8,192 bits with an odd e ≥ 65,537.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    alg: Option<Algorithm>,
    material: Material,
    thumbprint: String,
    held: Held,
}

/// The key as it verifies.
#[derive(Clone)]
enum Held {
    /// Of a curve, which stands for one algorithm: read once, and not again for each signature.
    Parsed(ParsedPublicKey),
    /// RSA: each signature says which of its algorithms it is.
    Rsa(DecodingKey),
}

/// The key's own members, as canonical base64url: what a thumbprint covers.
#[derive(Clone)]
enum Material {
    P256 { x: String, y: String },
    P384 { x: String, y: String },
    Rsa { n: String, e: String },
    Ed25519 { x: String },
}

/// Keys found by `kid`; without a `kid`, by algorithm. Either way exactly one key must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

impl PartialEq for PublicKey {
    /// The same key, under the same name, for the same algorithm: its thumbprint (RFC 7638) stands for its material.
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint && self.kid == other.kid && self.alg == other.alg
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Reads a public JWK (RFC 7517, RFC 8037). Symmetric keys, private members, weak RSA, unknown curves,
    /// `use` other than `sig`, and an `alg` that does not fit are refused.
    pub fn from_jwk(jwk: &Object) -> Result<Self, JwsError> {
        // RFC 7518 §6.2.2, §6.3.2, §6.4.1: whoever shows one of these has given the key away.
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| jwk.contains_key(*name)) {
            return Err(JwsError::Key("private member"));
        }
        if jwk.get("use").is_some_and(|usage| usage != "sig") {
            return Err(JwsError::Key("not for signatures"));
        }
        if jwk.get("key_ops").is_some_and(|operations| !allows_verify(operations)) {
            return Err(JwsError::Key("not for verification"));
        }
        let (material, held) = Material::from_jwk(jwk)?;
        let alg = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(alg.as_str().and_then(Algorithm::from_name).ok_or(JwsError::Algorithm)?),
        };
        if alg.is_some_and(|alg| !material.fits(alg)) {
            return Err(JwsError::Key("alg does not fit the key"));
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().filter(|kid| is_key_id(kid)).ok_or(JwsError::Key("bad kid"))?),
        };
        Ok(Self { kid: kid.map(str::to_owned), alg, thumbprint: material.thumbprint(), material, held })
    }
    /// `kid` of the JWK.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }
    /// The same key under another `kid`, limited to `alg`.
    pub(crate) fn named(self, kid: String, alg: Algorithm) -> Self {
        Self { kid: Some(kid), alg: Some(alg), ..self }
    }
    /// RFC 7638 SHA-256 thumbprint, base64url: the value of `cnf.jkt`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
    /// The public JWK, with `kid`, `alg` and `use` where known.
    pub fn to_jwk(&self) -> Object {
        let mut jwk: Object =
            self.material.members().map(|(name, value)| (name.to_owned(), value.into())).collect();
        if let Some(kid) = &self.kid {
            jwk.insert("kid".to_owned(), kid.as_str().into());
        }
        if let Some(alg) = self.alg {
            jwk.insert("alg".to_owned(), alg.as_str().into());
        }
        jwk.insert("use".to_owned(), "sig".into());
        jwk
    }
    /// The members that a thumbprint covers, and no others: what a DPoP proof carries.
    pub(crate) fn to_bare_jwk(&self) -> Object {
        self.material.members().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
    /// Whether this key may verify `algorithm` (type, curve, and the JWK's own `alg` if it named one).
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.material.fits(algorithm) && self.alg.is_none_or(|alg| alg == algorithm)
    }
    /// How long its signatures are, in bytes (RFC 7518 §3.3 to §3.5, RFC 8032 §5.1.6).
    pub fn signature_bytes(&self) -> usize {
        match &self.material {
            Material::P256 { .. } | Material::Ed25519 { .. } => 64,
            Material::P384 { .. } => 96,
            // Base64url without padding: four characters for three bytes.
            Material::Rsa { n, .. } => n.len() * 3 / 4,
        }
    }
    /// Verifies a parsed token's signature.
    pub fn verify(&self, jws: &UnverifiedJws<'_>) -> Result<(), JwsError> {
        if !self.fits(jws.header.alg) {
            return Err(JwsError::Algorithm);
        }
        let message = jws.signing_input.as_bytes();
        match &self.held {
            Held::Parsed(key) => key.verify_sig(message, &jws.signature).map_err(|_| JwsError::Signature),
            // Not `jsonwebtoken::decode`: it would parse the token again, ignoring `crit` and duplicate members.
            Held::Rsa(key) => {
                (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&jws.header.alg.jsonwebtoken(), key)
                    .map_err(|_| JwsError::Algorithm)?
                    .verify(message, &jws.signature)
                    .map_err(|_| JwsError::Signature)
            }
        }
    }
}

impl Held {
    fn parse(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Result<Self, JwsError> {
        UnparsedPublicKey::new(algorithm, bytes).parse().map(Self::Parsed).map_err(|_| OFF_CURVE)
    }
}

impl Material {
    fn from_jwk(jwk: &Object) -> Result<(Self, Held), JwsError> {
        match (text(jwk, "kty")?, jwk.get("crv").and_then(Value::as_str)) {
            ("EC", Some("P-256")) => {
                let (x, y, point) = point(jwk, 32)?;
                Ok((Self::P256 { x, y }, Held::parse(&ECDSA_P256_SHA256_FIXED, &point)?))
            }
            ("EC", Some("P-384")) => {
                let (x, y, point) = point(jwk, 48)?;
                Ok((Self::P384 { x, y }, Held::parse(&ECDSA_P384_SHA384_FIXED, &point)?))
            }
            ("OKP", Some("Ed25519")) => {
                let (x, bytes) = coordinate(jwk, "x", 32)?;
                Ok((Self::Ed25519 { x }, Held::parse(&ED25519, &bytes)?))
            }
            ("RSA", _) => {
                let (n, e) = (unsigned(jwk, "n")?, unsigned(jwk, "e")?);
                check_rsa(&n.1, &e.1)?;
                Ok((
                    Self::Rsa { n: n.0, e: e.0 },
                    Held::Rsa(DecodingKey::from_rsa_raw_components(&n.1, &e.1)),
                ))
            }
            _ => Err(JwsError::Key("type or curve not supported")),
        }
    }
    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::P256 { .. } => algorithm == ES256,
            Self::P384 { .. } => algorithm == ES384,
            Self::Ed25519 { .. } => algorithm == EdDSA,
            Self::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
        }
    }
    /// The members of RFC 7638 §3.2 (RFC 8037 §2 for OKP) in lexicographic order.
    fn members(&self) -> impl Iterator<Item = (&'static str, &str)> {
        match self {
            Self::P256 { x, y } => vec![("crv", "P-256"), ("kty", "EC"), ("x", x.as_str()), ("y", y)],
            Self::P384 { x, y } => vec![("crv", "P-384"), ("kty", "EC"), ("x", x), ("y", y)],
            Self::Rsa { n, e } => vec![("e", e.as_str()), ("kty", "RSA"), ("n", n)],
            Self::Ed25519 { x } => vec![("crv", "Ed25519"), ("kty", "OKP"), ("x", x)],
        }
        .into_iter()
    }
    fn thumbprint(&self) -> String {
        // Names and values are plain ASCII without anything to escape.
        let members: Vec<String> =
            self.members().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        URL_SAFE_NO_PAD.encode(sha256(format!("{{{}}}", members.join(",")).as_bytes()))
    }
}

impl KeySet {
    /// A set of these keys.
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys }
    }
    /// Reads a JWKS document: at most 256 KiB and 100 keys; keys of kinds we do not accept are skipped; an
    /// empty result is an error.
    pub fn from_jwks(document: &[u8]) -> Result<Self, JwsError> {
        if document.len() > MAX_JWKS_BYTES {
            return Err(JwsError::TooLong);
        }
        let document = json::parse_object(document)
            .map_err(|_| JwsError::Malformed("key set is not a strict JSON object"))?;
        let Some(Value::Array(jwks)) = document.get("keys") else {
            return Err(JwsError::Malformed("key set without keys"));
        };
        if jwks.len() > MAX_JWKS_KEYS {
            return Err(JwsError::Malformed("too many keys"));
        }
        // RFC 7517 §5: implementations should ignore keys that they do not understand.
        let keys: Vec<_> = jwks
            .iter()
            .filter_map(Value::as_object)
            .filter_map(|jwk| PublicKey::from_jwk(jwk).ok())
            .collect();
        if keys.is_empty() {
            return Err(JwsError::Malformed("no acceptable key in the set"));
        }
        Ok(Self { keys })
    }
    /// The key that a token's header points to.
    pub fn find(&self, jws: &UnverifiedJws<'_>) -> Result<&PublicKey, JwsError> {
        let named = |key: &&PublicKey| jws.header.kid.is_none() || key.kid == jws.header.kid;
        let mut candidates = self.keys.iter().filter(named).filter(|key| key.fits(jws.header.alg));
        match (candidates.next(), candidates.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(JwsError::UnknownKey),
        }
    }
    /// Finds the key and verifies.
    pub fn verify(&self, jws: &UnverifiedJws<'_>) -> Result<(), JwsError> {
        self.find(jws)?.verify(jws)
    }
    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter()
    }
    /// The JWKS document.
    pub fn to_jwks(&self) -> Value {
        let keys: Vec<_> = self.keys.iter().map(|key| Value::Object(key.to_jwk())).collect();
        serde_json::json!({ "keys": keys })
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

fn allows_verify(operations: &Value) -> bool {
    operations.as_array().is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
}

fn text<'j>(jwk: &'j Object, name: &'static str) -> Result<&'j str, JwsError> {
    jwk.get(name).and_then(Value::as_str).ok_or(JwsError::Key("missing member"))
}

/// A member of exactly `length` octets (RFC 7518 §6.2.1.2, RFC 8037 §2).
fn coordinate(jwk: &Object, name: &'static str, length: usize) -> Result<(String, Vec<u8>), JwsError> {
    let text = text(jwk, name)?;
    let bytes = base64url(text)?;
    if bytes.len() != length {
        return Err(JwsError::Key("coordinate of the wrong length"));
    }
    Ok((text.to_owned(), bytes))
}

/// The uncompressed point 0x04 ‖ x ‖ y (SEC 1 §2.3.3).
fn point(jwk: &Object, length: usize) -> Result<(String, String, Vec<u8>), JwsError> {
    let (x, y) = (coordinate(jwk, "x", length)?, coordinate(jwk, "y", length)?);
    Ok((x.0, y.0, [&[4], x.1.as_slice(), y.1.as_slice()].concat()))
}

/// A big-endian unsigned integer in as few octets as possible (RFC 7518 §2, Base64urlUInt): so a key has one thumbprint.
fn unsigned(jwk: &Object, name: &'static str) -> Result<(String, Vec<u8>), JwsError> {
    let text = text(jwk, name)?;
    let bytes = base64url(text)?;
    match bytes.first() {
        None | Some(0) => Err(JwsError::Key("integer not in its shortest form")),
        Some(_) => Ok((text.to_owned(), bytes)),
    }
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), JwsError> {
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(JwsError::Key("RSA modulus too short or too long"));
    }
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if e.len() > 4 || exponent < 65_537 || exponent % 2 == 0 {
        return Err(JwsError::Key("RSA exponent not acceptable"));
    }
    RsaPublicKeyComponents { n, e }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .map(|_| ())
        .map_err(|_| JwsError::Key("RSA key not acceptable"))
}

const OFF_CURVE: JwsError = JwsError::Key("point not on its curve");
const MAX_JWKS_BYTES: usize = 256 * 1024;
const MAX_JWKS_KEYS: usize = 100;

#[cfg(test)]
mod tests;
