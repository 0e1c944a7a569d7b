//! Private keys for JWS, parsed once and held (`jsonwebtoken::encode` re-reads its key on every call).

use crate::{
    json::Object,
    jws::{JwsError, base64url, is_key_id},
    keys::{Algorithm, PublicKey},
};
use aws_lc_rs::{
    encoding::{AsBigEndian as _, AsDer as _},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

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

/// A held private key. `Debug` shows `kid` alone; no copy of the key's bytes is kept beside the parsed pair.
pub struct SigningKey {
    kid: String,
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// A fresh key whose `kid` is its RFC 7638 thumbprint.
    pub fn generate(algorithm: SigningAlgorithm) -> Result<Self, JwsError> {
        let pair = match algorithm {
            SigningAlgorithm::ES256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::P256)
            }
            SigningAlgorithm::EdDSA => Ed25519KeyPair::generate().map(Pair::Ed25519),
            SigningAlgorithm::RS256 => RsaKeyPair::generate(KeySize::Rsa2048).map(Pair::Rsa),
        };
        Self::hold(pair.map_err(|_| JwsError::Key("could not be generated"))?, None)
    }
    /// Reads PKCS#8 DER: P-256, Ed25519 or RSA.
    pub fn from_pkcs8(der: &[u8], kid: Option<&str>) -> Result<Self, JwsError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(Pair::P256)
            .or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519))
            .or_else(|_| RsaKeyPair::from_pkcs8(der).map(Pair::Rsa))
            .map_err(|_| JwsError::Key("not a supported PKCS#8 private key"))?;
        Self::hold(pair, kid)
    }
    /// Reads a private JWK: EC P-256 (`d`, `x`, `y`) or OKP Ed25519 (`d`, `x`).
    pub fn from_private_jwk(jwk: &Object) -> Result<Self, JwsError> {
        let octets = |name| {
            jwk.get(name).and_then(Value::as_str).ok_or(JwsError::Key("missing member")).and_then(base64url)
        };
        let mut public = jwk.clone();
        public.remove("d");
        // A private JWK's operations are those of the private half.
        public.remove("key_ops");
        let public = PublicKey::from_jwk(&public)?;
        let private = Zeroizing::new(octets("d")?);
        let x = octets("x")?;
        let pair = if public.fits(Algorithm::ES256) {
            let point = [&[4], x.as_slice(), octets("y")?.as_slice()].concat();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, &point).map(Pair::P256)
        } else if public.fits(Algorithm::EdDSA) && private.len() == 32 {
            Ed25519KeyPair::from_seed_and_public_key(&private, &x).map(Pair::Ed25519)
        } else {
            return Err(JwsError::Key("type or curve not supported for signing"));
        };
        Self::hold(pair.map_err(|_| JwsError::Key("halves do not belong together"))?, public.kid())
    }
    /// The private JWK, `kid` included.
    pub fn to_private_jwk(&self) -> Result<Zeroizing<String>, JwsError> {
        let private = match &self.pair {
            Pair::P256(pair) => pair.private_key().as_be_bytes().map(|d| Zeroizing::new(d.as_ref().to_vec())),
            Pair::Ed25519(pair) => {
                pair.seed().and_then(|seed| Ok(Zeroizing::new(seed.as_be_bytes()?.as_ref().to_vec())))
            }
            Pair::Rsa(_) => return Err(JwsError::Key("RSA keys are kept as PKCS#8")),
        };
        let private = private.map_err(|_| JwsError::Key("cannot be exported"))?;
        let d = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*private));
        let public = Value::Object(self.public.to_jwk()).to_string();
        // Written by hand, so that the private half is in no buffer that is not wiped. `d` is base64url and needs no escape.
        let members = public.strip_prefix('{').ok_or(JwsError::Key("cannot be exported"))?;
        Ok(Zeroizing::new(format!("{{\"d\":\"{}\",{members}", d.as_str())))
    }
    /// PKCS#8 DER, for a key file.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, JwsError> {
        match &self.pair {
            Pair::P256(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Pair::Rsa(pair) => pair.as_der().map(|der| der.as_ref().to_vec()),
        }
        .map(Zeroizing::new)
        .map_err(|_| JwsError::Key("cannot be exported"))
    }
    /// Key id.
    pub fn kid(&self) -> &str {
        &self.kid
    }
    /// Algorithm.
    pub fn algorithm(&self) -> SigningAlgorithm {
        match self.pair {
            Pair::P256(_) => SigningAlgorithm::ES256,
            Pair::Ed25519(_) => SigningAlgorithm::EdDSA,
            Pair::Rsa(_) => SigningAlgorithm::RS256,
        }
    }
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
    /// A compact JWS with header `{ "alg", "typ", "kid" }`.
    pub fn sign<C: Serialize>(&self, typ: &str, claims: &C) -> Result<String, JwsError> {
        let alg = self.algorithm().as_str();
        self.compact(&NewHeader { alg, typ, kid: Some(&self.kid), jwk: None }, claims)
    }
    /// A compact JWS whose header carries the public JWK instead of a `kid` (RFC 9449 §4.2).
    pub fn sign_with_embedded_key<C: Serialize>(&self, typ: &str, claims: &C) -> Result<String, JwsError> {
        let alg = self.algorithm().as_str();
        self.compact(&NewHeader { alg, typ, kid: None, jwk: Some(self.public.to_bare_jwk()) }, claims)
    }
    /// A raw signature over `message` (JOSE form: r‖s for ECDSA).
    pub fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, JwsError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map(|()| signature)
            }
        }
        .map_err(|_| JwsError::Key("cannot sign"))
    }

    fn hold(pair: Pair, kid: Option<&str>) -> Result<Self, JwsError> {
        if kid.is_some_and(|kid| !is_key_id(kid)) {
            return Err(JwsError::Key("bad kid"));
        }
        let public = PublicKey::from_jwk(&pair.public_jwk()?)?;
        let kid = kid.unwrap_or(public.thumbprint()).to_owned();
        let alg = match pair {
            Pair::P256(_) => Algorithm::ES256,
            Pair::Ed25519(_) => Algorithm::EdDSA,
            Pair::Rsa(_) => Algorithm::RS256,
        };
        Ok(Self { public: public.named(kid.clone(), alg), kid, pair })
    }
    fn compact<C: Serialize>(&self, header: &NewHeader<'_>, claims: &C) -> Result<String, JwsError> {
        let mut token = encode_part(header)?;
        token.push('.');
        token.push_str(&encode_part(claims)?);
        let signature = self.sign_bytes(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl Pair {
    fn public_jwk(&self) -> Result<Object, JwsError> {
        let encode = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        let members = match self {
            Self::P256(pair) => {
                let (x, y) = pair
                    .public_key()
                    .as_ref()
                    .strip_prefix(&[4])
                    .and_then(|point| point.split_at_checked(32))
                    .ok_or(JwsError::Key("not an uncompressed point"))?;
                vec![("kty", "EC".into()), ("crv", "P-256".into()), ("x", encode(x)), ("y", encode(y))]
            }
            Self::Ed25519(pair) => {
                vec![
                    ("kty", "OKP".into()),
                    ("crv", "Ed25519".into()),
                    ("x", encode(pair.public_key().as_ref())),
                ]
            }
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                vec![("kty", "RSA".into()), ("n", encode(n)), ("e", encode(e))]
            }
        };
        Ok(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl SigningAlgorithm {
    /// The `alg` value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
            Self::RS256 => "RS256",
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct NewHeader<'h> {
    alg: &'h str,
    typ: &'h str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'h str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwk: Option<Object>,
}

fn encode_part<P: Serialize>(part: &P) -> Result<String, JwsError> {
    let json = serde_json::to_vec(part).map_err(|_| JwsError::Malformed("cannot be serialized"))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        json,
        jws::{EmbeddedKey, parse},
        keys::KeySet,
    };
    use serde_json::json;

    const ALGORITHMS: [SigningAlgorithm; 3] =
        [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA, SigningAlgorithm::RS256];

    #[test]
    fn what_a_key_signs_its_public_half_verifies_and_no_other_does() {
        for algorithm in ALGORITHMS {
            let (key, other) =
                (SigningKey::generate(algorithm).unwrap(), SigningKey::generate(algorithm).unwrap());
            let token = key.sign("at+jwt", &json!({"sub": "alice"})).unwrap();
            let jws = parse(&token, EmbeddedKey::Refused).unwrap();
            assert_eq!(jws.header.typ.as_deref(), Some("at+jwt"));
            assert_eq!(jws.header.kid.as_deref(), Some(key.public().thumbprint()));
            assert_eq!(jws.claims.get("sub"), Some(&json!("alice")));
            KeySet::new(vec![other.public().clone(), key.public().clone()]).verify(&jws).unwrap();
            assert_eq!(other.public().verify(&jws), Err(JwsError::Signature));
            assert_eq!(KeySet::new(vec![other.public().clone()]).verify(&jws), Err(JwsError::UnknownKey));
        }
    }

    #[test]
    fn keys_survive_being_written_and_read() {
        for algorithm in ALGORITHMS {
            let key = SigningKey::generate(algorithm).unwrap();
            let read = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap(), None).unwrap();
            assert_eq!((read.kid(), read.algorithm()), (key.kid(), algorithm));
            if algorithm == SigningAlgorithm::RS256 {
                assert!(key.to_private_jwk().is_err());
                continue;
            }
            let named = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap(), Some("2026-11")).unwrap();
            let jwk = json::parse_object(named.to_private_jwk().unwrap().as_bytes()).unwrap();
            let read = SigningKey::from_private_jwk(&jwk).unwrap();
            assert_eq!((read.kid(), read.algorithm()), ("2026-11", algorithm));
            let token = read.sign("t", &json!({})).unwrap();
            named.public().verify(&parse(&token, EmbeddedKey::Refused).unwrap()).unwrap();
        }
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        for algorithm in [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA] {
            let jwk =
                |key: &SigningKey| json::parse_object(key.to_private_jwk().unwrap().as_bytes()).unwrap();
            let mut mixed = jwk(&SigningKey::generate(algorithm).unwrap());
            mixed.insert("d".to_owned(), jwk(&SigningKey::generate(algorithm).unwrap())["d"].clone());
            assert!(SigningKey::from_private_jwk(&mixed).is_err());
            mixed.remove("d");
            assert!(SigningKey::from_private_jwk(&mixed).is_err());
        }
        assert!(SigningKey::from_pkcs8(b"not a key", None).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
        let jwk = json::parse_object(key.to_private_jwk().unwrap().as_bytes()).unwrap();
        assert!(!format!("{key:?}").contains(jwk["d"].as_str().unwrap()));
    }

    #[test]
    fn an_embedded_key_is_public_and_bare() {
        let key = SigningKey::generate(SigningAlgorithm::EdDSA).unwrap();
        let token = key.sign_with_embedded_key("dpop+jwt", &json!({})).unwrap();
        assert_eq!(parse(&token, EmbeddedKey::Refused).unwrap_err(), JwsError::Header("jwk"));
        let jws = parse(&token, EmbeddedKey::Required).unwrap();
        let jwk = jws.header.jwk.clone().unwrap();
        assert_eq!(
            jwk.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
            ["crv", "kty", "x"].into()
        );
        PublicKey::from_jwk(&jwk).unwrap().verify(&jws).unwrap();
    }
}
