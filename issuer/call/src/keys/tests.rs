use super::*;
use crate::{
    jws::{EmbeddedKey, parse},
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::json;

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa(bits: usize, e: &[u8]) -> Object {
    // Odd, with its highest bit set: long enough is all that it claims to be.
    let mut n = vec![0xFF; bits.div_ceil(8)];
    if !bits.is_multiple_of(8) {
        n[0] = (1 << (bits % 8)) - 1;
    }
    object(json!({"kty": "RSA", "n": encode(&n), "e": encode(e)}))
}

/// RFC 7638 §3.1.
const RFC_7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

#[test]
fn thumbprint_of_rfc_7638() {
    let jwk = json!({"kty": "RSA", "n": RFC_7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let key = PublicKey::from_jwk(&object(jwk.clone())).unwrap();
    assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(key.kid(), Some("2011-04-29"));
    let mut written = object(jwk);
    written.insert("use".to_owned(), "sig".into());
    assert_eq!(key.to_jwk(), written);
}

#[test]
fn thumbprint_of_rfc_8037() {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let key = PublicKey::from_jwk(&object(jwk)).unwrap();
    assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn rsa_keys_are_neither_weak_nor_huge() {
    for bits in [2048, 2049, 4096, 8192] {
        assert!(PublicKey::from_jwk(&rsa(bits, &[1, 0, 1])).is_ok(), "{bits}");
    }
    for bits in [512, 1024, 2047, 8193, 16_384] {
        assert!(PublicKey::from_jwk(&rsa(bits, &[1, 0, 1])).is_err(), "{bits}");
    }
    for e in [&[1][..], &[3], &[0xFF, 0xFF], &[1, 0, 0], &[1, 0, 2], &[0, 1, 0, 1], &[1, 0, 0, 0, 1], &[]] {
        assert!(PublicKey::from_jwk(&rsa(2048, e)).is_err(), "{e:?}");
    }
    let mut leading_zero = rsa(2048, &[1, 0, 1]);
    leading_zero.insert("n".to_owned(), encode(&[&[0], [0xFF; 256].as_slice()].concat()).into());
    assert!(PublicKey::from_jwk(&leading_zero).is_err());
}

#[test]
fn each_key_fits_its_own_algorithms() {
    let fitting = |jwk: &Object| {
        let key = PublicKey::from_jwk(jwk).unwrap();
        Algorithm::ALL
            .into_iter()
            .filter(|alg| key.fits(*alg))
            .map(Algorithm::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let p256 = SigningKey::generate(SigningAlgorithm::ES256).unwrap().public().to_bare_jwk();
    assert_eq!(fitting(&p256), "ES256");
    let ed25519 = SigningKey::generate(SigningAlgorithm::EdDSA).unwrap().public().to_bare_jwk();
    assert_eq!(fitting(&ed25519), "EdDSA");
    let mut rsa = rsa(2048, &[1, 0, 1]);
    assert_eq!(fitting(&rsa), "RS256 RS384 RS512 PS256 PS384 PS512");
    rsa.insert("alg".to_owned(), "PS256".into());
    assert_eq!(fitting(&rsa), "PS256");
    for alg in ["ES256", "HS256", "none", "RSA-OAEP", ""] {
        rsa.insert("alg".to_owned(), alg.into());
        assert!(PublicKey::from_jwk(&rsa).is_err(), "{alg}");
    }
}

#[test]
fn p384_keys_verify() {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
    let jwk = object(json!({"kty": "EC", "crv": "P-384", "x": encode(x), "y": encode(y)}));
    let key = PublicKey::from_jwk(&jwk).unwrap();
    let input = format!("{}.{}", encode(br#"{"alg":"ES384"}"#), encode(b"{}"));
    let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes()).unwrap();
    let token = format!("{input}.{}", encode(signature.as_ref()));
    key.verify(&parse(&token, EmbeddedKey::Refused).unwrap()).unwrap();
    let zeros = format!("{input}.{}", encode(&[0; 96]));
    assert_eq!(key.verify(&parse(&zeros, EmbeddedKey::Refused).unwrap()), Err(JwsError::Signature));
    let mut off_curve = jwk;
    off_curve.insert("y".to_owned(), encode(x).into());
    assert_eq!(PublicKey::from_jwk(&off_curve).unwrap_err(), OFF_CURVE);
}

#[test]
fn what_a_jwk_must_not_say() {
    let good = SigningKey::generate(SigningAlgorithm::ES256).unwrap().public().to_jwk();
    assert!(PublicKey::from_jwk(&good).is_ok());
    for (name, value) in [
        ("d", json!("AAAA")),
        ("k", json!("AAAA")),
        ("use", json!("enc")),
        ("use", json!(null)),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!("verify")),
        ("kty", json!("oct")),
        ("kty", json!("ec")),
        ("crv", json!("P-384")),
        ("crv", json!("P-521")),
        ("kid", json!(1)),
        ("kid", json!("")),
        ("kid", json!("a\r\nb")),
        ("kid", json!("k".repeat(257))),
        ("alg", json!(1)),
        ("x", json!("AAAA")),
        ("x", json!(null)),
    ] {
        let mut bad = good.clone();
        bad.insert(name.to_owned(), value.clone());
        assert!(PublicKey::from_jwk(&bad).is_err(), "{name}: {value}");
    }
    let mut padded = good.clone();
    padded.insert("x".to_owned(), format!("{}=", good["x"].as_str().unwrap()).into());
    assert!(PublicKey::from_jwk(&padded).is_err());
}

#[test]
fn a_set_skips_what_it_does_not_know_and_is_never_empty() {
    let key = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let good = Value::Object(key.public().to_jwk());
    let strange = json!([{"kty": "oct", "k": "AAAA"}, {"kty": "AKP"}, 1, null, good, rsa(512, &[1, 0, 1])]);
    let set = KeySet::from_jwks(json!({"keys": strange}).to_string().as_bytes()).unwrap();
    assert_eq!(set.iter().map(PublicKey::thumbprint).collect::<Vec<_>>(), [key.public().thumbprint()]);
    assert_eq!(set.to_jwks(), json!({"keys": [good]}));
    for document in [
        json!({}),
        json!({"keys": []}),
        json!({"keys": [{"kty": "oct", "k": "AAAA"}]}),
        json!({"keys": {"0": good}}),
        json!([good]),
        json!({"keys": vec![good.clone(); 101]}),
    ] {
        assert!(KeySet::from_jwks(document.to_string().as_bytes()).is_err(), "{document}");
    }
    assert!(KeySet::from_jwks(json!({"keys": vec![good.clone(); 100]}).to_string().as_bytes()).is_ok());
    assert!(KeySet::from_jwks(b"<html></html>").is_err());
    assert!(KeySet::from_jwks(format!(r#"{{"keys":[],"keys":[{good}]}}"#).as_bytes()).is_err());
    let spaces = " ".repeat(MAX_JWKS_BYTES);
    assert_eq!(
        KeySet::from_jwks(spaces.as_bytes()).unwrap_err(),
        JwsError::Malformed("key set is not a strict JSON object")
    );
    assert_eq!(KeySet::from_jwks(format!("{spaces} ").as_bytes()).unwrap_err(), JwsError::TooLong);
}

#[test]
fn exactly_one_key_must_fit() {
    let named = |algorithm, kid: &str| {
        let der = SigningKey::generate(algorithm).unwrap().to_pkcs8().unwrap();
        SigningKey::from_pkcs8(&der, Some(kid)).unwrap()
    };
    let (first, second) = (named(SigningAlgorithm::ES256, "1"), named(SigningAlgorithm::ES256, "2"));
    // One `kid` for keys of two types is allowed (RFC 7517 §4.5).
    let ed25519 = named(SigningAlgorithm::EdDSA, "1");
    let set = |keys: &[&SigningKey]| KeySet::new(keys.iter().map(|key| key.public().clone()).collect());
    let all = set(&[&first, &second, &ed25519]);
    for key in [&first, &second, &ed25519] {
        let token = key.sign("t", &json!({})).unwrap();
        let jws = parse(&token, EmbeddedKey::Refused).unwrap();
        assert_eq!(all.find(&jws).unwrap().thumbprint(), key.public().thumbprint());
        assert_eq!(all.verify(&jws), Ok(()));
    }
    let token = first.sign("t", &json!({})).unwrap();
    let mut jws = parse(&token, EmbeddedKey::Refused).unwrap();
    assert_eq!(set(&[&first, &named(SigningAlgorithm::ES256, "1")]).verify(&jws), Err(JwsError::UnknownKey));
    assert_eq!(set(&[&second]).verify(&jws), Err(JwsError::UnknownKey));
    assert_eq!(set(&[&named(SigningAlgorithm::ES256, "1")]).verify(&jws), Err(JwsError::Signature));
    jws.header.kid = None;
    assert_eq!(all.verify(&jws), Err(JwsError::UnknownKey));
    assert_eq!(set(&[&first, &ed25519]).verify(&jws), Ok(()));
}
