//! The key that answers to a client are sealed to (JWE, RFC 7516), so that nobody who ends TLS on the way reads them.

use deputize_call::{
    json::{self, Object},
    jws::JwsError,
    keys::{Algorithm, PublicKey},
};
use serde_json::Value;

/// A client's public key for encryption: EC on P-256, or RSA of at least 2,048 bits. It verifies nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct EncryptionKey {
    kid: Option<String>,
    algorithm: SealingAlgorithm,
    material: Object,
}

/// How the content key is conveyed (RFC 7518 §4.6, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealingAlgorithm {
    /// `ECDH-ES+A256KW`.
    EcdhEsA256Kw,
    /// `RSA-OAEP-256`.
    RsaOaep256,
}

impl EncryptionKey {
    /// The first key of a JWKS that says `use: "enc"`; a client that changes its key puts the new one first.
    ///
    /// # Errors
    /// Any key of that use that could not be used. None is passed over: what its owner thinks sealed must not go out
    /// open, or to another key than the one meant.
    pub fn from_jwks(document: &[u8]) -> Result<Option<Self>, JwsError> {
        let document = json::parse_object(document)
            .map_err(|_| JwsError::Malformed("key set is not a strict JSON object"))?;
        let jwks = document.get("keys").and_then(Value::as_array);
        let jwks = jwks.ok_or(JwsError::Malformed("key set without keys"))?;
        let for_encryption = jwks
            .iter()
            .filter_map(Value::as_object)
            .filter(|jwk| jwk.get("use").is_some_and(|it| it == "enc"));
        let keys = for_encryption.map(Self::from_jwk).collect::<Result<Vec<_>, _>>()?;
        Ok(keys.into_iter().next())
    }

    fn from_jwk(jwk: &Object) -> Result<Self, JwsError> {
        let mut bare = jwk.clone();
        for purpose in ["use", "key_ops", "alg"] {
            bare.remove(purpose);
        }
        // The same checks as of keys that verify: no private member, on its curve, long enough.
        let key = PublicKey::from_jwk(&bare)?;
        let algorithm = if key.fits(Algorithm::ES256) {
            SealingAlgorithm::EcdhEsA256Kw
        } else if key.fits(Algorithm::RS256) {
            SealingAlgorithm::RsaOaep256
        } else {
            return Err(JwsError::Key("answers are sealed to P-256 or RSA keys"));
        };
        if jwk.get("alg").is_some_and(|alg| alg != algorithm.as_str()) {
            return Err(JwsError::Key("answers are sealed with ECDH-ES+A256KW or RSA-OAEP-256"));
        }
        let mut material = key.to_jwk();
        for member in ["use", "kid", "alg"] {
            material.remove(member);
        }
        Ok(Self { kid: key.kid().map(str::to_owned), algorithm, material })
    }

    /// Its `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// How the content key is conveyed to it.
    pub fn algorithm(&self) -> SealingAlgorithm {
        self.algorithm
    }

    /// The key itself as a JWK, without `kid`, `use` and `alg`.
    pub fn material(&self) -> &Object {
        &self.material
    }
}

impl SealingAlgorithm {
    /// The `alg` value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
            Self::RsaOaep256 => "RSA-OAEP-256",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::{
        keys::KeySet,
        sign::{SigningAlgorithm, SigningKey},
    };
    use serde_json::json;

    fn jwk(algorithm: SigningAlgorithm, members: Value) -> Value {
        let mut jwk = SigningKey::generate(algorithm).unwrap().public().to_jwk();
        jwk.remove("alg");
        jwk.extend(members.as_object().unwrap().clone());
        jwk.into()
    }

    fn found(keys: &[Value]) -> Result<Option<EncryptionKey>, JwsError> {
        EncryptionKey::from_jwks(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn the_first_key_for_encryption_is_taken_and_never_verifies() {
        let signing = jwk(SigningAlgorithm::ES256, json!({"kid": "s"}));
        let first = jwk(SigningAlgorithm::ES256, json!({"kid": "e1", "use": "enc", "alg": "ECDH-ES+A256KW"}));
        let second = jwk(SigningAlgorithm::ES256, json!({"kid": "e2", "use": "enc"}));
        assert_eq!(found(std::slice::from_ref(&signing)), Ok(None));
        let keys = [signing, first.clone(), second];
        let key = found(&keys).unwrap().unwrap();
        assert_eq!((key.kid(), key.algorithm()), (Some("e1"), SealingAlgorithm::EcdhEsA256Kw));
        assert_eq!(key.material().get("x"), first.get("x"));
        let verifying = KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        assert_eq!(verifying.iter().filter_map(PublicKey::kid).collect::<Vec<_>>(), ["s"]);
    }

    #[test]
    fn a_key_that_cannot_be_sealed_to_is_not_passed_over() {
        let good = jwk(SigningAlgorithm::ES256, json!({"use": "enc"}));
        for bad in [
            jwk(SigningAlgorithm::EdDSA, json!({"use": "enc"})),
            jwk(SigningAlgorithm::ES256, json!({"use": "enc", "alg": "ECDH-ES"})),
            jwk(SigningAlgorithm::ES256, json!({"use": "enc", "alg": "ES256"})),
            jwk(SigningAlgorithm::ES256, json!({"use": "enc", "d": "AA"})),
            jwk(SigningAlgorithm::ES256, json!({"use": "enc", "x": "AA"})),
            json!({"kty": "RSA", "use": "enc", "e": "AQAB", "n": "wTJjXA"}),
            json!({"kty": "oct", "use": "enc", "k": "AAAA"}),
        ] {
            assert!(found(&[good.clone(), bad.clone()]).is_err(), "{bad}");
        }
    }
}
