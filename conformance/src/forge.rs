//! Tokens of every kind, right and wrong. Nothing here checks anything: a caller that wants a broken token gets it.

use aws_lc_rs::{
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin},
    hmac, rand, rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key pair with its public JWK. `kid` is the RFC 7638 thumbprint.
pub struct Key {
    /// Key id.
    pub kid: String,
    /// `alg` of its signatures.
    pub alg: &'static str,
    jwk: Value,
    pair: Pair,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl Key {
    /// A fresh P-256 key.
    pub fn es256() -> Self {
        Self::of_p256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The same key under another `kid`.
    pub fn named(self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), ..self }
    }

    /// A fresh Ed25519 key.
    pub fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({ "crv": "Ed25519", "kty": "OKP", "x": encode(pair.public_key().as_ref()) });
        Self { kid: thumbprint(&jwk), alg: "EdDSA", jwk, pair: Pair::Ed25519(pair) }
    }

    /// A fresh RSA key of 2,048 bits.
    pub fn rs256() -> Self {
        let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let (e, n) = (public.exponent(), public.modulus());
        let jwk = json!({
            "e": encode(e.big_endian_without_leading_zero()), "kty": "RSA",
            "n": encode(n.big_endian_without_leading_zero()),
        });
        Self { kid: thumbprint(&jwk), alg: "RS256", jwk, pair: Pair::Rs256(pair) }
    }

    /// The P-256 key of a private JWK, with that JWK's `kid`.
    pub fn from_private_jwk(jwk: &Value) -> Self {
        let part = |name: &str| decode(jwk[name].as_str().expect("a member of a private JWK"));
        let public = [&[4], &part("x")[..], &part("y")[..]].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &part("d"),
            &public,
        );
        let key = Self::of_p256(pair.expect("a P-256 key"));
        Self { kid: jwk["kid"].as_str().map_or(key.kid, str::to_owned), ..key }
    }

    fn of_p256(pair: EcdsaKeyPair) -> Self {
        let point = pair.public_key().as_ref();
        let jwk =
            json!({ "crv": "P-256", "kty": "EC", "x": encode(&point[1..33]), "y": encode(&point[33..]) });
        Self { kid: thumbprint(&jwk), alg: "ES256", jwk, pair: Pair::Es256(pair) }
    }

    /// The public JWK with the members of RFC 7638 alone, as a DPoP proof carries it.
    pub fn bare_jwk(&self) -> Value {
        self.jwk.clone()
    }

    /// The public JWK with `kid`, `alg` and `use`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.alg);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The JWK with its private part (P-256 alone).
    pub fn private_jwk(&self) -> Value {
        let Pair::Es256(pair) = &self.pair else { panic!("only P-256 keys show their private part") };
        let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().unwrap();
        let mut jwk = self.jwk();
        jwk["d"] = json!(encode(private.as_ref()));
        jwk
    }

    /// RFC 7638 thumbprint: the value of `cnf.jkt`.
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.jwk)
    }

    /// The raw signature of `input`.
    pub fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(input).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A compact JWS of these claims under `{ alg, kid, typ }`.
    pub fn token(&self, typ: &str, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "kid": self.kid, "typ": typ }), claims)
    }

    /// A compact JWS with this header, whatever it says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of_text(&header.to_string(), &claims.to_string())
    }

    /// A compact JWS of these texts, which need not be JSON.
    pub fn token_of_text(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self.sign(input.as_bytes());
        format!("{input}.{}", encode(signature))
    }

    /// A DPoP proof: header with the public key, these claims.
    pub fn proof(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "jwk": self.bare_jwk(), "typ": "dpop+jwt" }), claims)
    }

    /// The public key as SubjectPublicKeyInfo in DER: what a confused verifier would use as an HMAC key.
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Es256(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rs256(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

/// A compact JWS with an HMAC under `secret`.
pub fn hmac_token(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", encode(tag))
}

/// A compact JWS with these signature bytes.
pub fn token_with_signature(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}.{}", encode(header.to_string()), encode(claims.to_string()), encode(signature))
}

/// The other signature that ECDSA on P-256 accepts for the same message: (r, n − s).
pub fn malleable_twin(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = decode(signature);
    let mut twin = signature[..32].to_vec();
    let mut borrow = 0_i16;
    let mut s = [0_u8; 32];
    for at in (0..32).rev() {
        let difference = i16::from(P256_ORDER[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        s[at] = difference.rem_euclid(256) as u8;
    }
    twin.extend(s);
    format!("{input}.{}", encode(twin))
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a compact JWS");
    serde_json::from_slice(&decode(claims)).expect("JSON claims")
}

/// Unpadded base64url.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads unpadded base64url.
pub fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// SHA-256 in base64url: `ath`, `S256`.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.as_ref()))
}

/// A unique id.
pub fn unique() -> String {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).unwrap();
    encode(bytes)
}

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the black-box side lives in the real time of the broker's process"
    )]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// RFC 7638; the members of `jwk` are those of its §3.2, in order (`serde_json` keeps maps sorted).
fn thumbprint(jwk: &Value) -> String {
    sha256(jwk.to_string())
}

/// The order of P-256's base point (SP 800-186 §3.2.1.3).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malleable_twin_verifies() {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
        let key = Key::es256();
        let token = malleable_twin(&key.token("JWT", &json!({})));
        let (input, signature) = token.rsplit_once('.').unwrap();
        let point =
            [&[4], &decode(key.jwk["x"].as_str().unwrap())[..], &decode(key.jwk["y"].as_str().unwrap())[..]];
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.concat());
        public.verify(input.as_bytes(), &decode(signature)).unwrap();
    }

    #[test]
    fn a_private_jwk_makes_the_same_key() {
        let key = Key::es256();
        assert_eq!(Key::from_private_jwk(&key.private_jwk()).thumbprint(), key.thumbprint());
    }
}
