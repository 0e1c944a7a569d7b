//! What another library sealed (panva/jose, `conformance/npm/sealed.mjs`).

use super::*;
use base64::engine::general_purpose::STANDARD;

struct Vectors {
    all: Value,
    keys: Vec<DecryptionKey>,
}

impl Vectors {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conformance/vectors/sealed.json");
        let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let der = STANDARD.decode(all["keys"]["rsa_pkcs8"].as_str().unwrap()).unwrap();
        let keys = vec![
            DecryptionKey::from_private_jwk(all["keys"]["ec"].as_object().unwrap()).unwrap(),
            DecryptionKey::from_pkcs8(&der, all["keys"]["rsa_kid"].as_str()).unwrap(),
        ];
        Self { all, keys }
    }

    fn of(&self, group: &str) -> impl Iterator<Item = (&String, &str)> {
        let vectors = self.all[group].as_object().unwrap();
        vectors.iter().map(|(name, jwe)| (name, jwe.as_str().unwrap()))
    }
}

#[test]
fn what_is_sealed_to_a_key_of_ours_is_opened() {
    let vectors = Vectors::read();
    for (name, jwe) in vectors.of("opened") {
        let content = open(jwe, &vectors.keys).unwrap_or_else(|error| panic!("{name}: {error}"));
        let content: Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(content, vectors.all["content"], "{name}");
    }
    assert_eq!(vectors.of("opened").count(), 5);
}

#[test]
fn what_is_sealed_in_another_way_or_to_another_key_is_refused() {
    let vectors = Vectors::read();
    for (name, jwe) in vectors.of("refused") {
        assert!(open(jwe, &vectors.keys).is_err(), "{name}");
    }
    for (name, jwe) in vectors.of("opened") {
        assert!(open(jwe, &[]).is_err(), "{name}: without a key");
    }
}

#[test]
fn a_changed_part_spoils_the_whole() {
    let vectors = Vectors::read();
    for (name, jwe) in vectors.of("opened") {
        let parts: Vec<&str> = jwe.split('.').collect();
        for at in 0..parts.len() {
            let mut octets = URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
            let mut changed = parts.clone();
            // In the header an unknown algorithm comes of it, or a key that is none; elsewhere another value.
            *octets.last_mut().unwrap() ^= 1;
            let other = URL_SAFE_NO_PAD.encode(&octets);
            changed[at] = &other;
            assert!(open(&changed.join("."), &vectors.keys).is_err(), "{name}: part {at} changed");
            octets.pop();
            let shorter = URL_SAFE_NO_PAD.encode(&octets);
            changed[at] = &shorter;
            assert!(open(&changed.join("."), &vectors.keys).is_err(), "{name}: part {at} cut");
            changed[at] = "";
            assert!(open(&changed.join("."), &vectors.keys).is_err(), "{name}: part {at} empty");
            changed.remove(at);
            assert!(open(&changed.join("."), &vectors.keys).is_err(), "{name}: part {at} missing");
        }
    }
}

#[test]
fn a_header_says_what_is_known_and_nothing_else() {
    let vectors = Vectors::read();
    let jwe = vectors.all["opened"]["ECDH-ES+A256KW"].as_str().unwrap();
    let (protected, rest) = jwe.split_once('.').unwrap();
    let header: Object = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(protected).unwrap()).unwrap();
    let read = |header: &str| Header::read(header.as_bytes());
    assert!(read(&Value::Object(header.clone()).to_string()).is_ok());
    for (member, value) in [
        ("zip", Value::from("DEF")),
        ("crit", serde_json::json!(["exp"])),
        ("jwk", Value::Object(Object::new())),
        ("alg", Value::from("dir")),
        ("alg", Value::from("none")),
        ("enc", Value::from(1)),
        ("kid", Value::from(1)),
        ("apu", Value::from("?")),
        ("epk", Value::from("x")),
        ("epk", serde_json::json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" })),
        ("epk", serde_json::json!({ "kty": "OKP", "crv": "X25519", "x": "AA" })),
    ] {
        let mut changed = header.clone();
        changed.insert(member.to_owned(), value);
        assert!(read(&Value::Object(changed).to_string()).is_err(), "{member}");
    }
    let twice = format!("{{\"enc\":\"A256GCM\",{}", &Value::Object(header.clone()).to_string()[1..]);
    assert!(read(&twice).is_err(), "a member that stands twice");

    // A point that is not on the curve (the invalid-curve attack of RFC 7516's implementations).
    let mut forged = header;
    forged["epk"]["y"] = forged["epk"]["x"].clone();
    let forged = URL_SAFE_NO_PAD.encode(Value::Object(forged).to_string());
    assert_eq!(open(&format!("{forged}.{rest}"), &vectors.keys).err(), Some(NO_KEY));
}

#[test]
fn keys_of_other_kinds_are_refused_and_none_is_shown() {
    let vectors = Vectors::read();
    let jwk = vectors.all["keys"]["ec"].as_object().unwrap();
    for (member, value) in
        [("crv", "P-384"), ("kty", "RSA"), ("use", "sig"), ("d", ""), ("d", "AAAA"), ("d", "not base64url")]
    {
        let mut changed = jwk.clone();
        changed.insert(member.to_owned(), value.into());
        assert!(DecryptionKey::from_private_jwk(&changed).is_err(), "{member} {value}");
    }
    let signing =
        deputize_call::sign::SigningKey::generate(deputize_call::sign::SigningAlgorithm::EdDSA).unwrap();
    assert!(DecryptionKey::from_pkcs8(&signing.to_pkcs8().unwrap(), None).is_err());
    let shown = format!("{:?}", vectors.keys);
    assert!(shown.contains("ec-1") && !shown.contains(jwk["d"].as_str().unwrap()), "{shown}");
}
