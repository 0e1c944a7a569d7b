//! Private keys that sign certificates, parsed once and held; and those of SVIDs, which sign nothing here.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};

use super::AuthorityError;
use crate::secret::Secret;

/// A held key pair. The pair wipes itself; no copy of its bytes is kept beside it.
pub(crate) struct CertificateKey {
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl CertificateKey {
    /// A fresh key on P-256. Not `rcgen`'s: that one writes its key down and reads it again.
    pub(crate) fn generate() -> Result<Self, AuthorityError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        pair.map(|pair| Self { pair: Pair::P256(pair) })
            .map_err(|_| AuthorityError("no key could be generated"))
    }

    /// Reads DER: PKCS#8, or the older forms of EC (RFC 5915) and RSA (RFC 8017 §A.1.2) keys.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, AuthorityError> {
        let p256 =
            || EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Pair::P256);
        let p384 =
            || EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, der).map(Pair::P384);
        let pair = p256()
            .or_else(|_| p384())
            .or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519))
            .or_else(|_| RsaKeyPair::from_pkcs8(der).map(Pair::Rsa))
            .or_else(|_| RsaKeyPair::from_der(der).map(Pair::Rsa));
        pair.map(|pair| Self { pair })
            .map_err(|_| AuthorityError("not a private key of P-256, P-384, Ed25519 or RSA"))
    }

    /// PKCS#8 DER. Only keys that are made here are ever written down, and those are on P-256.
    pub(crate) fn to_pkcs8(&self) -> Result<Secret<Vec<u8>>, AuthorityError> {
        let Pair::P256(pair) = &self.pair else {
            return Err(AuthorityError("the key is not ours to write down"));
        };
        let der = pair.to_pkcs8v1().map_err(|_| AuthorityError("the key cannot be written down"))?;
        Ok(Secret::new(der.as_ref().to_vec()))
    }
}

impl PublicKeyData for CertificateKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.pair {
            Pair::P256(_) => &PKCS_ECDSA_P256_SHA256,
            Pair::P384(_) => &PKCS_ECDSA_P384_SHA384,
            Pair::Ed25519(_) => &PKCS_ED25519,
            Pair::Rsa(_) => &PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for CertificateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&random, message).map(|signature| signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateKey").finish_non_exhaustive()
    }
}
