//! Answers sealed to a client's key.

use deputize_issuer::client::{EncryptionKey, SealingAlgorithm};
use josekit::{
    JoseError,
    jwe::{
        JweEncrypter, JweHeader,
        alg::{ecdh_es::EcdhEsJweAlgorithm, rsaes::RsaesJweAlgorithm},
        serialize_compact,
    },
    jwk::Jwk,
};

use crate::http::aws::{CannotSeal, SealAnswer};

/// Seals with `A256GCM` under `ECDH-ES+A256KW` or `RSA-OAEP-256` (RFC 7518).
#[derive(Debug, Clone, Copy, Default)]
pub struct JweSeal;

impl SealAnswer for JweSeal {
    fn seal(&self, key: &EncryptionKey, content: &[u8]) -> Result<String, CannotSeal> {
        let sealed = || -> Result<String, JoseError> {
            let jwk = Jwk::from_map(key.material().clone())?;
            let encrypter: Box<dyn JweEncrypter> = match key.algorithm() {
                SealingAlgorithm::EcdhEsA256Kw => {
                    Box::new(EcdhEsJweAlgorithm::EcdhEsA256kw.encrypter_from_jwk(&jwk)?)
                }
                SealingAlgorithm::RsaOaep256 => {
                    Box::new(RsaesJweAlgorithm::RsaOaep256.encrypter_from_jwk(&jwk)?)
                }
            };
            let mut header = JweHeader::new();
            header.set_content_encryption("A256GCM");
            header.set_content_type("application/json");
            if let Some(kid) = key.kid() {
                header.set_key_id(kid);
            }
            serialize_compact(content, &header, &*encrypter)
        };
        sealed().map_err(|error| {
            tracing::error!(%error, "an answer cannot be sealed");
            CannotSeal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use josekit::{
        jwe::{ECDH_ES_A256KW, JweDecrypter, RSA_OAEP_256, deserialize_compact},
        jwk::alg::ec::EcCurve,
    };
    use serde_json::{Value, json};

    fn key_of(private: &Jwk, kid: Option<&str>) -> EncryptionKey {
        let mut public: Value = serde_json::from_str(&private.to_public_key().unwrap().to_string()).unwrap();
        public["use"] = "enc".into();
        if let Some(kid) = kid {
            public["kid"] = kid.into();
        }
        EncryptionKey::from_jwks(json!({ "keys": [public] }).to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn only_who_has_the_key_reads_an_answer() {
        let (ec, other) =
            (Jwk::generate_ec_key(EcCurve::P256).unwrap(), Jwk::generate_ec_key(EcCurve::P256).unwrap());
        let rsa = Jwk::generate_rsa_key(2048).unwrap();
        let ec_opener =
            |jwk: &Jwk| Box::new(ECDH_ES_A256KW.decrypter_from_jwk(jwk).unwrap()) as Box<dyn JweDecrypter>;
        let rsa_opener = Box::new(RSA_OAEP_256.decrypter_from_jwk(&rsa).unwrap()) as Box<dyn JweDecrypter>;
        for (jwk, kid, opener, alg) in
            [(&ec, Some("e"), ec_opener(&ec), "ECDH-ES+A256KW"), (&rsa, None, rsa_opener, "RSA-OAEP-256")]
        {
            let sealed = JweSeal.seal(&key_of(jwk, kid), b"{\"canary\":1}").unwrap();
            let (content, header) = deserialize_compact(&sealed, &*opener).unwrap();
            assert_eq!(content, b"{\"canary\":1}");
            assert_eq!((header.algorithm(), header.key_id()), (Some(alg), kid));
            assert_eq!(header.content_encryption(), Some("A256GCM"));
            assert_eq!(header.content_type(), Some("application/json"));
            assert_ne!(
                sealed,
                JweSeal.seal(&key_of(jwk, kid), b"{\"canary\":1}").unwrap(),
                "never twice the same"
            );
        }
        let sealed = JweSeal.seal(&key_of(&ec, None), b"{}").unwrap();
        assert!(deserialize_compact(&sealed, &*ec_opener(&other)).is_err());
    }
}
