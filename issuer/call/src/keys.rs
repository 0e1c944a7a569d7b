//! Public keys: JWKs of the kinds we accept, thumbprints, verification, and sets of them.

use crate::{json::Object, jws::{JwsError, UnverifiedJws}};
use serde::{Deserialize, Serialize};

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

/// One public key, parsed and held. EC keys are on their curve; RSA moduli are 2,048–8,192 bits with an odd e ≥ 65,537.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    inner: (),
}

/// Keys found by `kid`; without a `kid`, by algorithm if exactly one key fits.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

impl PublicKey {
    /// Reads a public JWK (RFC 7517, RFC 8037). Symmetric keys, private members, weak RSA, unknown curves,
    /// `use` other than `sig`, and an `alg` that does not fit are refused.
    pub fn from_jwk(jwk: &Object) -> Result<Self, JwsError> {
        let _ = jwk;
        todo!()
    }
    /// `kid` of the JWK.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }
    /// RFC 7638 SHA-256 thumbprint, base64url: the value of `cnf.jkt`.
    pub fn thumbprint(&self) -> &str {
        todo!()
    }
    /// The public JWK, with `kid`, `alg` and `use` where known.
    pub fn to_jwk(&self) -> Object {
        todo!()
    }
    /// Whether this key may verify `algorithm` (type, curve, and the JWK's own `alg` if it named one).
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let _ = algorithm;
        todo!()
    }
    /// Verifies a parsed token's signature.
    pub fn verify(&self, jws: &UnverifiedJws<'_>) -> Result<(), JwsError> {
        let _ = jws;
        todo!()
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
        let _ = document;
        todo!()
    }
    /// The key that a token's header points to.
    pub fn find(&self, jws: &UnverifiedJws<'_>) -> Result<&PublicKey, JwsError> {
        let _ = jws;
        todo!()
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
    pub fn to_jwks(&self) -> serde_json::Value {
        todo!()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = &self.inner;
        f.debug_struct("PublicKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
