use super::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_issuer::provider::{TokenDecrypter as _, UserTokenError};
use josekit::{
    jwe::{
        Dir, ECDH_ES, ECDH_ES_A128KW, ECDH_ES_A192KW, ECDH_ES_A256KW, JweEncrypter, JweHeader,
        PBES2_HS256_A128KW, RSA_OAEP, RSA_OAEP_256, RSA_OAEP_384, serialize_compact,
    },
    jwk::{
        Jwk,
        alg::{ec::EcCurve, rsa::RsaKeyPair},
    },
};
use serde_json::{Value, json};
use std::{io::Write as _, sync::LazyLock};

const INSIDE: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";

static EC: LazyLock<Jwk> = LazyLock::new(|| named(Jwk::generate_ec_key(EcCurve::P256).unwrap(), "ec"));
static EC_384: LazyLock<Jwk> =
    LazyLock::new(|| named(Jwk::generate_ec_key(EcCurve::P384).unwrap(), "ec-384"));
static RSA: LazyLock<Jwk> = LazyLock::new(|| named(Jwk::generate_rsa_key(2048).unwrap(), "rsa"));

fn named(mut jwk: Jwk, kid: &str) -> Jwk {
    jwk.set_key_id(kid);
    jwk
}

/// Keys in files, as they are configured. The files are read once and gone.
fn load(keys: &[&Jwk]) -> JweKeys {
    load_with(keys, false).unwrap()
}

fn load_with(keys: &[&Jwk], allow_rsa_oaep_sha1: bool) -> Result<JweKeys, JweSetupError> {
    let files: Vec<_> = keys.iter().map(|key| file(".json", key.to_string().as_bytes())).collect();
    let keys: Vec<_> = files
        .iter()
        .map(|file| DecryptionKeyFile { file: file.path().to_owned(), kid: None, allow_rsa_oaep_sha1 })
        .collect();
    JweKeys::load(&keys)
}

fn file(suffix: &str, content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn header(enc: &str, kid: Option<&str>) -> JweHeader {
    let mut header = JweHeader::new();
    header.set_content_encryption(enc);
    header.set_content_type("JWT");
    if let Some(kid) = kid {
        header.set_key_id(kid);
    }
    header
}

fn to_ec(key: &Jwk) -> Box<dyn JweEncrypter> {
    Box::new(ECDH_ES_A128KW.encrypter_from_jwk(&key.to_public_key().unwrap()).unwrap())
}

fn encrypt(encrypter: &dyn JweEncrypter, header: &JweHeader) -> String {
    serialize_compact(INSIDE.as_bytes(), header, encrypter).unwrap()
}

/// An honest token to the EC key.
fn honest() -> String {
    encrypt(&*to_ec(&EC), &header("A256GCM", Some("ec")))
}

/// The same token with another protected header: what follows no longer authenticates, but must not be reached.
fn with_header(jwe: &str, change: impl FnOnce(&mut Value)) -> String {
    let (header, rest) = jwe.split_once('.').unwrap();
    let mut header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    change(&mut header);
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

fn with_part(jwe: &str, place: usize, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut parts: Vec<String> = jwe.split('.').map(str::to_owned).collect();
    let mut bytes = URL_SAFE_NO_PAD.decode(&parts[place]).unwrap();
    change(&mut bytes);
    parts[place] = URL_SAFE_NO_PAD.encode(bytes);
    parts.join(".")
}

fn refusal(keys: &JweKeys, jwe: &str) -> &'static str {
    match keys.decrypt(jwe) {
        Err(UserTokenError::Encrypted(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_allowed_combination_decrypts() {
    let keys = load_with(&[&EC, &EC_384, &RSA], true).unwrap();
    let mut encrypters: Vec<(&str, Box<dyn JweEncrypter>)> = Vec::new();
    for (kid, key) in [("ec", &*EC), ("ec-384", &*EC_384)] {
        let public = key.to_public_key().unwrap();
        for alg in [ECDH_ES, ECDH_ES_A128KW, ECDH_ES_A256KW] {
            encrypters.push((kid, Box::new(alg.encrypter_from_jwk(&public).unwrap())));
        }
    }
    let public = RSA.to_public_key().unwrap();
    for alg in [RSA_OAEP_256, RSA_OAEP] {
        encrypters.push(("rsa", Box::new(alg.encrypter_from_jwk(&public).unwrap())));
    }
    for (kid, encrypter) in &encrypters {
        for enc in ["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"] {
            let jwe = encrypt(&**encrypter, &header(enc, Some(kid)));
            let alg = encrypter.algorithm().name();
            assert_eq!(keys.decrypt(&jwe).unwrap().as_str(), INSIDE, "{alg} {enc} {kid}");
        }
    }
}

#[test]
fn keys_are_chosen_by_kid_or_by_being_the_only_one() {
    let second = named(Jwk::generate_ec_key(EcCurve::P256).unwrap(), "second");
    let both = load(&[&EC, &second]);
    for (kid, key) in [("ec", &*EC), ("second", &second)] {
        both.decrypt(&encrypt(&*to_ec(key), &header("A128GCM", Some(kid)))).unwrap();
    }
    assert_eq!(
        refusal(&both, &encrypt(&*to_ec(&EC), &header("A128GCM", Some("second")))),
        "does not decrypt"
    );
    assert_eq!(refusal(&both, &encrypt(&*to_ec(&EC), &header("A128GCM", Some("third")))), "no such key");
    let unnamed = encrypt(&*to_ec(&EC), &header("A128GCM", None));
    assert_eq!(refusal(&both, &unnamed), "no such key");
    load(&[&EC, &RSA]).decrypt(&unnamed).unwrap();
}

#[test]
fn algorithms_off_the_list_are_refused() {
    let keys = load(&[&EC, &RSA]);
    let ec = EC.to_public_key().unwrap();
    let rsa = RSA.to_public_key().unwrap();
    let oct = Jwk::generate_oct_key(32).unwrap();
    let encrypters: [(&str, Box<dyn JweEncrypter>); 4] = [
        ("ec", Box::new(ECDH_ES_A192KW.encrypter_from_jwk(&ec).unwrap())),
        ("rsa", Box::new(RSA_OAEP_384.encrypter_from_jwk(&rsa).unwrap())),
        ("rsa", Box::new(Dir.encrypter_from_jwk(&oct).unwrap())),
        ("rsa", Box::new(PBES2_HS256_A128KW.encrypter_from_jwk(&oct).unwrap())),
    ];
    for (kid, encrypter) in &encrypters {
        let jwe = encrypt(&**encrypter, &header("A256GCM", Some(kid)));
        let why = refusal(&keys, &jwe);
        assert!(["alg not allowed", "header member not allowed"].contains(&why), "{why}");
    }
    for alg in ["RSA1_5", "dir", "PBES2-HS256+A128KW", "A128KW", "none", "", "ecdh-es"] {
        assert_eq!(
            refusal(&keys, &with_header(&honest(), |header| header["alg"] = alg.into())),
            "alg not allowed"
        );
    }
    for enc in ["A192GCM", "A192CBC-HS384", "none", ""] {
        assert_eq!(
            refusal(&keys, &with_header(&honest(), |header| header["enc"] = enc.into())),
            "enc not allowed"
        );
    }
    let sha1 = encrypt(&RSA_OAEP.encrypter_from_jwk(&rsa).unwrap(), &header("A256GCM", Some("rsa")));
    assert_eq!(refusal(&keys, &sha1), "no such key", "only where it is configured");
    load_with(&[&RSA], true).unwrap().decrypt(&sha1).unwrap();
}

#[test]
fn nothing_is_inflated() {
    let mut compressed = header("A256GCM", Some("ec"));
    compressed.set_compression("DEF");
    let bomb = serialize_compact(&vec![b' '; 4 * 1024 * 1024], &compressed, &*to_ec(&EC)).unwrap();
    assert!(bomb.len() < 16 * 1024, "small on the wire");
    assert_eq!(refusal(&load(&[&EC]), &bomb), "header member not allowed");
}

#[test]
fn header_members_that_would_change_the_rules_are_refused() {
    let keys = load(&[&EC]);
    for member in ["zip", "crit", "p2c", "p2s", "jku", "jwk", "x5u", "x5c", "b64", "iv", "tag", "unknown"] {
        let jwe = with_header(&honest(), |header| header[member] = json!("DEF"));
        assert_eq!(refusal(&keys, &jwe), "header member not allowed", "{member}");
    }
    let (_, rest) = honest().split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let twice = format!("{}.{rest}", URL_SAFE_NO_PAD.encode("{\"alg\":\"ECDH-ES\",\"alg\":\"ECDH-ES\"}"));
    assert_eq!(refusal(&keys, &twice), "header is not a strict JSON object");
}

#[test]
fn an_ephemeral_key_off_its_curve_is_refused() {
    let keys = load(&[&EC]);
    let epk =
        |change: fn(&mut Value)| refusal(&keys, &with_header(&honest(), |header| change(&mut header["epk"])));
    let off_curve = |epk: &mut Value| {
        let mut y = URL_SAFE_NO_PAD.decode(epk["y"].as_str().unwrap()).unwrap();
        y[31] ^= 1;
        epk["y"] = URL_SAFE_NO_PAD.encode(y).into();
    };
    assert_eq!(epk(off_curve), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| epk["x"] = URL_SAFE_NO_PAD.encode([0; 32]).into()), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| epk["crv"] = "P-384".into()), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| epk["crv"] = "secp256k1".into()), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| epk["kty"] = "OKP".into()), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| epk["d"] = "AA".into()), "ephemeral key not acceptable");
    assert_eq!(epk(|epk| *epk = json!("x")), "no ephemeral key");
    // A good point, of another curve than the key.
    let other = encrypt(&*to_ec(&EC_384), &header("A256GCM", Some("ec")));
    assert_eq!(refusal(&keys, &other), "no such key");
}

#[test]
fn what_was_changed_does_not_decrypt() {
    let keys = load(&[&EC]);
    let honest = honest();
    keys.decrypt(&honest).unwrap();
    for place in 1..5 {
        assert_eq!(
            refusal(&keys, &with_part(&honest, place, |bytes| bytes[0] ^= 1)),
            "does not decrypt",
            "{place}"
        );
    }
    assert_eq!(
        refusal(&keys, &with_header(&honest, |header| header["typ"] = "JWT".into())),
        "does not decrypt"
    );
    for length in [0, 4, 12, 15, 17] {
        let cut = with_part(&honest, 4, |tag| tag.resize(length, 0));
        assert_eq!(refusal(&keys, &cut), "iv or tag of the wrong length", "{length}");
    }
    assert_eq!(refusal(&keys, &with_part(&honest, 2, Vec::clear)), "iv or tag of the wrong length");
    assert_eq!(refusal(&keys, &with_part(&honest, 1, Vec::clear)), "encrypted key does not go with alg");
}

#[test]
fn texts_that_are_no_compact_jwe_are_refused() {
    let keys = load(&[&EC]);
    let honest = honest();
    for (text, why) in [
        (String::new(), "not five parts"),
        (INSIDE.to_owned(), "not five parts"),
        (format!("{honest}.x"), "not five parts"),
        (format!("{honest}="), "not canonical base64url"),
        (format!(" {honest}"), "not canonical base64url"),
        ("a".repeat(16 * 1024 + 1), "too long"),
    ] {
        assert_eq!(refusal(&keys, &text), why, "{}", text.get(..40).unwrap_or(&text));
    }
    let binary = serialize_compact(&[0xff, 0xfe], &header("A256GCM", Some("ec")), &*to_ec(&EC)).unwrap();
    assert_eq!(refusal(&keys, &binary), "inside is not a token");
}

#[test]
fn pem_files_serve_as_well() {
    let pair = RsaKeyPair::from_jwk(&RSA).unwrap();
    let ec = josekit::jwk::alg::ec::EcKeyPair::from_jwk(&EC).unwrap();
    use josekit::jwk::KeyPair as _;
    for (pem, kid, encrypter) in [
        (
            pair.to_pem_private_key(),
            "rsa",
            Box::new(RSA_OAEP_256.encrypter_from_jwk(&RSA.to_public_key().unwrap()).unwrap())
                as Box<dyn JweEncrypter>,
        ),
        (ec.to_pem_private_key(), "ec", to_ec(&EC)),
    ] {
        let file = file(".pem", &pem);
        let named = DecryptionKeyFile {
            file: file.path().to_owned(),
            kid: Some(kid.to_owned()),
            allow_rsa_oaep_sha1: false,
        };
        let keys = JweKeys::load(&[named]).unwrap();
        assert_eq!(
            keys.decrypt(&encrypt(&*encrypter, &header("A256GCM", Some(kid)))).unwrap().as_str(),
            INSIDE
        );
    }
}

#[test]
fn key_files_that_cannot_serve_are_named() {
    let problem = |keys: &[&Jwk]| match load_with(keys, false) {
        Err(JweSetupError::Key { problem, .. }) => problem,
        other => panic!("not refused: {other:?}"),
    };
    let changed = |jwk: &Jwk, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk.set_parameter(name, Some(value)).unwrap();
        jwk
    };
    assert_eq!(problem(&[&EC, &EC]), "another key has the same kid");
    assert_eq!(problem(&[&changed(&EC, "use", json!("sig"))]), "not a key for encryption");
    assert_eq!(problem(&[&changed(&EC, "alg", json!("ECDH-ES+A192KW"))]), "its alg is not allowed");
    assert_eq!(problem(&[&EC.to_public_key().unwrap()]), "not a private EC key");
    assert_eq!(
        problem(&[&Jwk::generate_rsa_key(1024).unwrap()]),
        "not a private RSA key of at least 2,048 bits"
    );
    assert_eq!(problem(&[&Jwk::generate_oct_key(32).unwrap()]), "neither RSA nor P-256 nor P-384");
    assert_eq!(problem(&[&Jwk::generate_ec_key(EcCurve::P521).unwrap()]), "neither RSA nor P-256 nor P-384");
    // A key that is for one algorithm serves no other.
    let limited = load(&[&changed(&EC, "alg", json!("ECDH-ES+A256KW"))]);
    assert_eq!(refusal(&limited, &honest()), "no such key");
    let nonsense = file(".pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let nonsense =
        DecryptionKeyFile { file: nonsense.path().to_owned(), kid: None, allow_rsa_oaep_sha1: false };
    assert!(matches!(JweKeys::load(&[nonsense]), Err(JweSetupError::Key { .. })));
    assert!(!format!("{:?}", load(&[&EC])).contains(EC.parameter("d").unwrap().as_str().unwrap()));
}
