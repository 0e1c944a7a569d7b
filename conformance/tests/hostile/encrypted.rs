//! H-08: tokens in an envelope. The broker has a key to open them, so that what is refused is what is inside, or what
//! the envelope demands.

use crate::cases;
use deputize_conformance::{
    exchange::Lab,
    forge::{self, Key, encode},
    wire::Response,
    world::token_of,
};
use josekit::{
    jwe::{ECDH_ES_A128KW, JweEncrypter, JweHeader, PBES2_HS256_A128KW, serialize_compact},
    jwk::{Jwk, alg::ec::EcCurve},
};
use serde_json::{Value, json};
use std::sync::LazyLock;

cases![encrypted: to_somebody_else, around_what_does_not_verify, with_zip, with_password];

/// The private key of the broker.
pub(crate) static KEY: LazyLock<Jwk> = LazyLock::new(|| {
    let mut key = Jwk::generate_ec_key(EcCurve::P256).unwrap();
    key.set_key_id("envelopes");
    key
});

/// An honest exchange but for its subject token.
async fn bring(lab: &Lab, token: &str) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", token);
    lab.send(&exchange).await
}

/// A header for A256GCM with these members besides.
fn header(members: &[(&str, Value)]) -> JweHeader {
    let mut header = JweHeader::new();
    header.set_content_encryption("A256GCM");
    header.set_content_type("JWT");
    for (name, value) in members {
        header.set_claim(name, Some(value.clone())).unwrap();
    }
    header
}

fn encrypted_to(key: &Jwk, members: &[(&str, Value)], inside: &str) -> String {
    let encrypter = ECDH_ES_A128KW.encrypter_from_jwk(&key.to_public_key().unwrap()).unwrap();
    serialize_compact(inside.as_bytes(), &header(members), &encrypter).unwrap()
}

/// To the broker's own key.
fn encrypted(inside: &str) -> String {
    encrypted_to(&KEY, &[], inside)
}

/// The same envelope under another header: it no longer authenticates, but that must not be reached.
fn with_header(jwe: &str, members: &[(&str, Value)]) -> String {
    let (header, rest) = jwe.split_once('.').unwrap();
    let mut header: Value = serde_json::from_slice(&forge::decode(header)).unwrap();
    for (name, value) in members {
        header[name] = value.clone();
    }
    format!("{}.{rest}", encode(header.to_string()))
}

async fn to_somebody_else(lab: &Lab) -> Vec<Response> {
    let good = lab.world.user_token("alice");
    token_of(&bring(lab, &encrypted(&good)).await);
    let other = Jwk::generate_ec_key(EcCurve::P256).unwrap();
    let mut named = other.clone();
    named.set_key_id("envelopes");
    let direct = with_header(&encrypted(&good), &[("alg", json!("dir"))]);
    vec![
        bring(lab, &encrypted_to(&other, &[], &good)).await,
        bring(lab, &encrypted_to(&named, &[("kid", json!("envelopes"))], &good)).await,
        bring(lab, &encrypted_to(&KEY, &[("kid", json!("another"))], &good)).await,
        bring(lab, &direct).await,
    ]
}

async fn around_what_does_not_verify(lab: &Lab) -> Vec<Response> {
    let claims = lab.world.user_claims("alice");
    let unsigned = forge::token_with_signature(&json!({ "alg": "none" }), &claims, b"");
    let forged = Key::es256().token("JWT", &claims);
    let named = Key::es256().named(&lab.world.issuer_keys["a"].kid).token("JWT", &claims);
    let twice = encrypted(&lab.world.user_token("alice"));
    let mut answers = Vec::new();
    for inside in [unsigned.as_str(), &forged, &named, &twice, &claims.to_string(), "alice"] {
        answers.push(bring(lab, &encrypted(inside)).await);
    }
    let none = with_header(&encrypted(&unsigned), &[("alg", json!("none")), ("enc", json!("none"))]);
    answers.push(bring(lab, &none).await);
    answers
}

async fn with_zip(lab: &Lab) -> Vec<Response> {
    let good = lab.world.user_token("alice");
    let zip = [("zip", json!("DEF"))];
    // Deflated indeed, and a header that only says so.
    let deflated = encrypted_to(&KEY, &zip, &good);
    vec![bring(lab, &deflated).await, bring(lab, &with_header(&encrypted(&good), &zip)).await]
}

async fn with_password(lab: &Lab) -> Vec<Response> {
    let good = lab.world.user_token("alice");
    let encrypter = PBES2_HS256_A128KW.encrypter_from_bytes(b"envelopes").unwrap();
    let honest = serialize_compact(good.as_bytes(), &header(&[]), &encrypter as &dyn JweEncrypter).unwrap();
    let endless = with_header(&honest, &[("p2c", json!(2_000_000_000))]);
    vec![bring(lab, &honest).await, bring(lab, &endless).await]
}
