//! H-09: key sets of identity providers that are hostile, broken, or away.

use crate::cases;
use deputize_conformance::{
    exchange::Lab,
    forge::{self, Key, encode, unique},
    identity::{self, Document},
    weak_rsa::{self, WeakRsa},
    wire::Response,
    world::{World, token_of},
};
use serde_json::{Value, json};
use std::sync::LazyLock;

cases![key_sets:
    set_of_a_mebibyte, set_of_ten_thousand_keys, rsa_of_512_bits, rsa_of_16384_bits, rsa_with_exponent_one,
    symmetric_keys, empty_set, html, slow_drip, redirect, private_address, gzip_bomb, key_off_its_curve,
    unknown_kids_fetch_once, issuer_rotates, issuer_is_down,
];

/// The world of this suite: an issuer for each hostile key set. All of them are trusted before the start.
pub(crate) async fn world() -> World {
    let mut world = World::new().await;
    world.decrypt_with(&crate::encrypted::KEY.to_string());
    for name in ISSUERS {
        world.trust_issuer(name, &json!({}));
    }
    // The same server under its address: to be trusted, but on loopback, which this entry does not allow.
    world.trust_issuer("inward", &json!({ "allow_private_addresses": false }));
    let good = KEY.jwk();
    let set = |keys: Value| Document::Json(json!({ "keys": keys }));
    let filler = |count: usize| {
        (0..count).map(|n| {
            let mut key = good.clone();
            key["kid"] = json!(n.to_string());
            key
        })
    };
    let mut padded = good.clone();
    padded["x5c"] = json!(["A".repeat(1024 * 1024)]);
    let publish = |name: &str, document: Document| world.identity.publish(name, document);
    publish("mebibyte", set(json!([padded])));
    publish("many", set(filler(10_000).chain([good.clone()]).collect()));
    for bits in [512, 2048, 16_384] {
        publish(&format!("rsa-{bits}"), set(json!([WeakRsa::of_bits(bits).jwk("r")])));
    }
    let mut exponent_one = WeakRsa::of_bits(2048).jwk("r");
    exponent_one["e"] = json!("AQ");
    publish("rsa-e1", set(json!([exponent_one])));
    publish(
        "symmetric",
        set(json!([{ "kty": "oct", "k": encode(SECRET), "alg": "HS256", "kid": "s", "use": "sig" }])),
    );
    publish("empty", set(json!([])));
    publish("html", Document::Bytes("text/html", vec![], b"<!doctype html><title>Sign in</title>".to_vec()));
    publish("drip", Document::Drip);
    publish("redirect", Document::Redirect(format!("{}/elsewhere", world.identity.base)));
    world.identity.set("/elsewhere", identity::jwks(&[&KEY]));
    publish("inward", identity::jwks(&[&KEY]));
    let gzip = vec![("content-encoding", "gzip".to_owned())];
    publish("bomb", Document::Bytes("application/json", gzip, identity::gzip_bomb(64)));
    let off =
        json!({ "kty": "EC", "crv": "P-256", "x": encode([1; 32]), "y": encode([1; 32]), "kid": KEY.kid });
    publish("off-curve", set(json!([off])));
    publish("twin-1", identity::jwks(&[&TWINS[0]]));
    publish("twin-2", identity::jwks(&[&TWINS[1]]));
    publish("flooded", identity::jwks(&[&KEY]));
    publish("rotating", identity::jwks(&[&KEY]));
    publish("leaving", identity::jwks(&[&KEY]));
    world
}

const ISSUERS: [&str; 18] = [
    "mebibyte",
    "many",
    "rsa-512",
    "rsa-2048",
    "rsa-16384",
    "rsa-e1",
    "symmetric",
    "empty",
    "html",
    "drip",
    "redirect",
    "bomb",
    "off-curve",
    "flooded",
    "rotating",
    "leaving",
    "twin-1",
    "twin-2",
];
const SECRET: &[u8] = b"known to everybody who reads the key set";

/// A key that is good wherever its set is.
static KEY: LazyLock<Key> = LazyLock::new(Key::es256);

/// Two keys of the same `kid`, each of its own issuer.
pub(crate) static TWINS: LazyLock<[Key; 2]> =
    LazyLock::new(|| [Key::es256().named("same"), Key::es256().named("same")]);

fn claims(lab: &Lab, issuer: &str) -> Value {
    lab.world.user_claims_of(issuer, "alice", "desk-app")
}

async fn bring(lab: &Lab, token: &str) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", token);
    lab.send(&exchange).await
}

/// A token of this issuer, well signed by the key that is good elsewhere.
async fn well_signed(lab: &Lab, issuer: &str) -> Vec<Response> {
    vec![bring(lab, &KEY.token("JWT", &claims(lab, issuer))).await]
}

async fn set_of_a_mebibyte(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "mebibyte").await
}

async fn set_of_ten_thousand_keys(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "many").await
}

/// A token of this issuer under RS256 with this signature.
async fn rs256(lab: &Lab, issuer: &str, signature: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<Response> {
    let header = json!({ "alg": "RS256", "kid": "r", "typ": "JWT" });
    let claims = claims(lab, issuer);
    let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let token = forge::token_with_signature(&header, &claims, &signature(input.as_bytes()));
    vec![bring(lab, &token).await]
}

async fn rsa_of_512_bits(lab: &Lab) -> Vec<Response> {
    // What is refused is the length: a key made in the same way, but long enough, is good.
    token_of(&rs256(lab, "rsa-2048", |input| WeakRsa::of_bits(2048).sign(input)).await[0]);
    rs256(lab, "rsa-512", |input| WeakRsa::of_bits(512).sign(input)).await
}

async fn rsa_of_16384_bits(lab: &Lab) -> Vec<Response> {
    rs256(lab, "rsa-16384", |input| WeakRsa::of_bits(16_384).sign(input)).await
}

async fn rsa_with_exponent_one(lab: &Lab) -> Vec<Response> {
    // With e = 1 a signature is the padded hash itself (RFC 8017 §9.2): anyone can make it.
    rs256(lab, "rsa-e1", |input| weak_rsa::padded(input, 256)).await
}

async fn symmetric_keys(lab: &Lab) -> Vec<Response> {
    let header = json!({ "alg": "HS256", "kid": "s", "typ": "JWT" });
    vec![bring(lab, &forge::hmac_token(&header, &claims(lab, "symmetric"), SECRET)).await]
}

async fn empty_set(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "empty").await
}

async fn html(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "html").await
}

async fn slow_drip(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "drip").await
}

async fn redirect(lab: &Lab) -> Vec<Response> {
    let answers = well_signed(lab, "redirect").await;
    assert_eq!(lab.world.identity.fetches("/elsewhere"), 0, "the redirect was followed");
    answers
}

async fn private_address(lab: &Lab) -> Vec<Response> {
    let answers = well_signed(lab, "inward").await;
    assert_eq!(lab.world.identity.fetches("/inward/jwks"), 0, "a private address was fetched");
    assert_eq!(lab.world.identity.fetches("/inward/.well-known/openid-configuration"), 0);
    answers
}

async fn gzip_bomb(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "bomb").await
}

async fn key_off_its_curve(lab: &Lab) -> Vec<Response> {
    well_signed(lab, "off-curve").await
}

async fn unknown_kids_fetch_once(lab: &Lab) -> Vec<Response> {
    token_of(&well_signed(lab, "flooded").await[0]);
    let before = lab.world.identity.fetches("/flooded/jwks");
    let mut answers = Vec::new();
    for _ in 0..20 {
        let stranger = Key::es256().named(&unique());
        answers.push(bring(lab, &stranger.token("JWT", &claims(lab, "flooded"))).await);
    }
    let fetched = lab.world.identity.fetches("/flooded/jwks") - before;
    assert!(fetched <= 1, "{fetched} fetches in one cooldown");
    token_of(&well_signed(lab, "flooded").await[0]);
    answers
}

async fn issuer_rotates(lab: &Lab) -> Vec<Response> {
    token_of(&well_signed(lab, "rotating").await[0]);
    let new = Key::es256();
    lab.world.identity.publish("rotating", identity::jwks(&[&new]));
    token_of(&bring(lab, &new.token("JWT", &claims(lab, "rotating"))).await);
    // The old key is gone from the set: what it signed is good no longer.
    well_signed(lab, "rotating").await
}

async fn issuer_is_down(lab: &Lab) -> Vec<Response> {
    token_of(&well_signed(lab, "leaving").await[0]);
    lab.world.identity.publish("leaving", Document::Down);
    // Known keys stay good while the issuer is away; unknown ones do not become so.
    token_of(&well_signed(lab, "leaving").await[0]);
    vec![bring(lab, &Key::es256().token("JWT", &claims(lab, "leaving"))).await]
}
