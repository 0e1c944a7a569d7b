//! Private keys for JWS, parsed once and held (`jsonwebtoken::encode` re-reads its key on every call).

use crate::{json::Object, jws::JwsError, keys::PublicKey};
use serde::Serialize;

/// The algorithms that we sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
    /// RSASSA-PKCS1-v1_5 with SHA-256: for identity providers in tests and `dev` alone; never our tokens.
    RS256,
}

/// A held private key. `Debug` shows `kid` alone; the PKCS#8 bytes are zeroized on drop.
pub struct SigningKey {
    kid: String,
}

impl SigningKey {
    /// A fresh key whose `kid` is its RFC 7638 thumbprint.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, JwsError> {
        let _ = algorithm;
        todo!()
    }
    /// Reads PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8], kid: Option<&str>) -> Result<Self, JwsError> {
        let _ = (der, kid);
        todo!()
    }
    /// Reads a private JWK: EC P-256 (`d`, `x`, `y`) or OKP Ed25519 (`d`, `x`).
    pub fn from_private_jwk(jwk: &Object) -> Result<Self, JwsError> {
        let _ = jwk;
        todo!()
    }
    /// The private JWK, `kid` included.
    pub fn to_private_jwk(&self) -> Result<zeroize::Zeroizing<String>, JwsError> {
        todo!()
    }
    /// PKCS#8 DER, for a key file.
    pub fn to_pkcs8(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, JwsError> {
        todo!()
    }
    /// Key id.
    pub fn kid(&self) -> &str {
        &self.kid
    }
    /// Algorithm.
    pub fn algorithm(&self) -> SigningAlgorithm {
        todo!()
    }
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        todo!()
    }
    /// A compact JWS with header `{ "alg", "typ", "kid" }`.
    pub fn sign<C: Serialize>(&self, typ: &str, claims: &C) -> Result<String, JwsError> {
        let _ = (typ, claims);
        todo!()
    }
    /// A compact JWS whose header carries the public JWK instead of a `kid` (RFC 9449 §4.2).
    pub fn sign_with_embedded_key<C: Serialize>(&self, typ: &str, claims: &C) -> Result<String, JwsError> {
        let _ = (typ, claims);
        todo!()
    }
    /// A raw signature over `message` (JOSE form: r‖s for ECDSA).
    pub fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, JwsError> {
        let _ = message;
        todo!()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
