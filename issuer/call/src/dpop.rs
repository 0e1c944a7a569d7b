//! DPoP proofs (RFC 9449): made by clients, verified by the broker and by guards.

use crate::{jws::JwsError, sign::SigningKey};

/// A proof that is well formed; the signature is not yet verified. Its nonce can be looked at first, so that a
/// challenge costs no signature.
#[derive(Debug)]
pub struct UnverifiedProof<'a> {
    nonce: Option<String>,
    marker: std::marker::PhantomData<&'a ()>,
}

/// A proof that passed every check of RFC 9449 §4.3 but replay, which is for the caller to ask of a once-only set.
#[derive(Debug, Clone)]
pub struct VerifiedProof {
    /// Thumbprint of the proof's key.
    pub jkt: String,
    /// Id of the proof.
    pub jti: String,
    /// When the client says it was made.
    pub iat: u64,
    /// 16 bytes that stand for (jkt, jti) in a once-only set.
    pub tag: [u8; 16],
}

/// What a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// HTTP method.
    pub htm: &'e str,
    /// The *configured* public URL, without query and fragment; compared after RFC 3986 normalization of scheme and host alone.
    pub htu: &'e str,
    /// The access token that it accompanies; `None` at the token endpoint.
    pub access_token: Option<&'e str>,
    /// `cnf.jkt` that the key must have, where one is known.
    pub jkt: Option<&'e str>,
    /// Now, in seconds since the epoch.
    pub now_seconds: u64,
    /// How far `iat` may be from now, either way.
    pub window_seconds: u64,
}

/// Parses the value of the one `DPoP` header (§4.3 checks 2–4: one well-formed JWT with all required claims).
pub fn parse(header: &str) -> Result<UnverifiedProof<'_>, JwsError> {
    let _ = header;
    todo!()
}

impl UnverifiedProof<'_> {
    /// The `nonce` claim.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
    /// All remaining checks of §4.3 but nonce (done by the caller, before) and replay (after).
    pub fn verify(self, expected: &Expected<'_>) -> Result<VerifiedProof, JwsError> {
        let _ = (expected, self.marker);
        todo!()
    }
}

/// What a new proof says.
#[derive(Debug, Clone, Copy)]
pub struct NewProof<'p> {
    /// HTTP method.
    pub htm: &'p str,
    /// Target URL without query and fragment.
    pub htu: &'p str,
    /// Unique id.
    pub jti: &'p str,
    /// Now.
    pub iat: u64,
    /// The nonce last given by this server.
    pub nonce: Option<&'p str>,
    /// The access token that it accompanies.
    pub access_token: Option<&'p str>,
}

/// Makes a proof.
pub fn prove(key: &SigningKey, proof: &NewProof<'_>) -> Result<String, JwsError> {
    let _ = (key, proof);
    todo!()
}

/// `ath`: base64url(SHA-256(access token)) (RFC 9449 §4.2).
pub fn access_token_hash(access_token: &str) -> String {
    let _ = access_token;
    todo!()
}
