//! H-01 to H-08: tokens that are forged, broken, or not what they pass for. Those in envelopes are in `encrypted`.

use crate::cases;
use deputize_conformance::{
    exchange::Lab,
    forge::{self, Key, now},
    identity,
    wire::Response,
    world::token_of,
};
use serde_json::{Value, json};

cases![tokens:
    alg_none, alg_none_in_mixed_case, alg_empty, hmac_with_the_public_key, alg_of_another_key_type,
    assertion_alg_none, assertion_hmac_with_the_public_key,
    embedded_jwk, jku_is_not_fetched, x5u_is_not_fetched, x5c, unknown_crit, b64_false, assertion_embedded_jwk,
    access_token_embedded_jwk,
    kid_with_dots, kid_with_quotes, kid_with_line_break, kid_with_nul, kid_of_64_kib, kid_of_two_issuers,
    key_of_another_issuer,
    exp_as_text, exp_as_float, exp_negative, exp_beyond_integers, exp_missing, exp_past_the_leeway, nbf_as_text,
    nbf_ahead, iat_as_text, iat_far_ahead,
    aud_missing, aud_empty, aud_of_a_thousand, aud_of_another_client, iss_with_trailing_slash, iss_in_capitals,
    logout_token, transaction_token, identity_assertion_grant, dpop_proof_as_subject, access_token_as_id_token,
    access_token_as_assertion, id_token_as_assertion,
    padding, standard_alphabet, white_space, trailing_bits, three_dots, ten_thousand_dots, not_utf8, json_serialization,
    duplicate_claim, duplicate_claim_deep_inside, nested_128_deep, token_over_16_kib, ten_thousand_claims,
    signature_of_zeros, malleable_assertion_replayed, malleable_proof_replayed,
];

/// An honest exchange but for its subject token.
async fn subject(lab: &Lab, token: &str) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", token);
    vec![lab.send(&exchange).await]
}

/// An honest exchange but for its client assertion.
async fn assertion(lab: &Lab, token: &str) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("client_assertion", token);
    vec![lab.send(&exchange).await]
}

/// A properly signed user token but for these members of its header.
async fn subject_with_header(lab: &Lab, members: Value) -> Vec<Response> {
    let key = &lab.world.issuer_keys["a"];
    subject(lab, &key.token_with(&header(key, members), &lab.world.user_claims("alice"))).await
}

/// A properly signed user token but for these claims; null takes one out.
async fn subject_with_claims(lab: &Lab, members: Value) -> Vec<Response> {
    let claims = with(lab.world.user_claims("alice"), members);
    subject(lab, &lab.world.issuer_keys["a"].token("JWT", &claims)).await
}

fn header(key: &Key, members: Value) -> Value {
    with(json!({ "alg": key.alg, "kid": key.kid, "typ": "JWT" }), members)
}

fn with(mut object: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => object.as_object_mut().unwrap().remove(name),
            value => object.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    object
}

fn claims(lab: &Lab) -> Value {
    lab.world.user_claims("alice")
}

async fn unsigned(lab: &Lab, alg: &str) -> Vec<Response> {
    let header = json!({ "alg": alg, "typ": "JWT" });
    let mut answers = subject(lab, &forge::token_with_signature(&header, &claims(lab), b"")).await;
    // The neighbour: the header says so, a good signature is there all the same.
    answers.extend(subject_with_header(lab, json!({ "alg": alg })).await);
    answers
}

async fn alg_none(lab: &Lab) -> Vec<Response> {
    unsigned(lab, "none").await
}

async fn alg_none_in_mixed_case(lab: &Lab) -> Vec<Response> {
    unsigned(lab, "nOnE").await
}

async fn alg_empty(lab: &Lab) -> Vec<Response> {
    unsigned(lab, "").await
}

async fn hmac_with_the_public_key(lab: &Lab) -> Vec<Response> {
    let key = &lab.world.issuer_keys["a"];
    let mut answers = Vec::new();
    for secret in
        [key.public_der(), key.jwk().to_string().into_bytes(), key.bare_jwk().to_string().into_bytes()]
    {
        let token = forge::hmac_token(&header(key, json!({ "alg": "HS256" })), &claims(lab), &secret);
        answers.extend(subject(lab, &token).await);
    }
    answers
}

async fn alg_of_another_key_type(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for alg in ["RS256", "EdDSA", "ES384", "PS512"] {
        answers.extend(subject_with_header(lab, json!({ "alg": alg })).await);
    }
    answers
}

async fn assertion_alg_none(lab: &Lab) -> Vec<Response> {
    let header = json!({ "alg": "none", "typ": "JWT" });
    assertion(lab, &forge::token_with_signature(&header, &lab.assertion_claims("desk"), b"")).await
}

async fn assertion_hmac_with_the_public_key(lab: &Lab) -> Vec<Response> {
    let key = &lab.world.client_keys["desk"];
    let header = header(key, json!({ "alg": "HS256" }));
    assertion(lab, &forge::hmac_token(&header, &lab.assertion_claims("desk"), &key.public_der())).await
}

async fn embedded_jwk(lab: &Lab) -> Vec<Response> {
    let thief = Key::es256();
    let header = header(&thief, json!({ "jwk": thief.jwk() }));
    let mut answers = subject(lab, &thief.token_with(&header, &claims(lab))).await;
    let own = &lab.world.issuer_keys["a"];
    answers.extend(subject_with_header(lab, json!({ "jwk": own.jwk() })).await);
    answers
}

/// A header that points to a key set of the attacker, which would answer.
async fn pointer(lab: &Lab, member: &str) -> Vec<Response> {
    let thief = Key::es256();
    lab.world.identity.set("/thief", identity::jwks(&[&thief]));
    let header = header(&thief, json!({ member: format!("{}/thief", lab.world.identity.base) }));
    let answers = subject(lab, &thief.token_with(&header, &claims(lab))).await;
    assert_eq!(lab.world.identity.fetches("/thief"), 0, "what {member} names was fetched");
    answers
}

async fn jku_is_not_fetched(lab: &Lab) -> Vec<Response> {
    pointer(lab, "jku").await
}

async fn x5u_is_not_fetched(lab: &Lab) -> Vec<Response> {
    pointer(lab, "x5u").await
}

async fn x5c(lab: &Lab) -> Vec<Response> {
    subject_with_header(lab, json!({ "x5c": ["MIIB"] })).await
}

async fn unknown_crit(lab: &Lab) -> Vec<Response> {
    let mut answers = subject_with_header(lab, json!({ "crit": ["exp"], "exp": 1 })).await;
    answers.extend(subject_with_header(lab, json!({ "crit": [] })).await);
    answers
}

async fn b64_false(lab: &Lab) -> Vec<Response> {
    subject_with_header(lab, json!({ "b64": false, "crit": ["b64"] })).await
}

async fn assertion_embedded_jwk(lab: &Lab) -> Vec<Response> {
    let thief = Key::es256();
    let header = header(&thief, json!({ "jwk": thief.jwk() }));
    assertion(lab, &thief.token_with(&header, &lab.assertion_claims("desk"))).await
}

async fn access_token_embedded_jwk(lab: &Lab) -> Vec<Response> {
    let genuine = lab.token(&Key::es256()).await;
    let thief = Key::es256();
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": thief.kid, "jwk": thief.jwk() });
    let mut exchange = lab.for_client("crm", &Key::es256()).await;
    exchange.set("subject_token", &thief.token_with(&header, &forge::claims(&genuine)));
    exchange.tool("https://ledger.acme.test/mcp", "list_entries");
    vec![lab.send(&exchange).await]
}

async fn kid(lab: &Lab, kid: &str) -> Vec<Response> {
    subject_with_header(lab, json!({ "kid": kid })).await
}

async fn kid_with_dots(lab: &Lab) -> Vec<Response> {
    kid(lab, "../../../../etc/passwd").await
}

async fn kid_with_quotes(lab: &Lab) -> Vec<Response> {
    kid(lab, "' OR '1'='1\" --").await
}

async fn kid_with_line_break(lab: &Lab) -> Vec<Response> {
    kid(lab, "a\r\nset-cookie: b=c").await
}

async fn kid_with_nul(lab: &Lab) -> Vec<Response> {
    kid(lab, &format!("{}\0", lab.world.issuer_keys["a"].kid)).await
}

async fn kid_of_64_kib(lab: &Lab) -> Vec<Response> {
    // The whole form must stay below its own limit, so that the token is what is refused.
    kid(lab, &"k".repeat(24 * 1024)).await
}

async fn kid_of_two_issuers(lab: &Lab) -> Vec<Response> {
    let [first, second] = &*crate::key_sets::TWINS;
    let of = |issuer: &str| lab.world.user_claims_of(issuer, "alice", "desk-app");
    for (issuer, key) in [("twin-1", first), ("twin-2", second)] {
        let mut exchange = lab.honest(&Key::es256()).await;
        exchange.set("subject_token", &key.token("JWT", &of(issuer)));
        token_of(&lab.send(&exchange).await);
    }
    let mut answers = subject(lab, &first.token("JWT", &of("twin-2"))).await;
    answers.extend(subject(lab, &second.token("JWT", &of("twin-1"))).await);
    answers
}

async fn key_of_another_issuer(lab: &Lab) -> Vec<Response> {
    let claims = lab.world.user_claims_of("b", "alice", "desk-app");
    let key = &lab.world.issuer_keys["a"];
    let mut answers = subject(lab, &key.token("JWT", &claims)).await;
    let renamed = header(key, json!({ "kid": lab.world.issuer_keys["b"].kid }));
    answers.extend(subject(lab, &key.token_with(&renamed, &claims)).await);
    answers
}

async fn exp_as_text(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "exp": (now() + 600).to_string() })).await
}

async fn exp_as_float(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "exp": now() as f64 + 600.5 })).await
}

async fn exp_negative(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "exp": -1 })).await
}

async fn exp_beyond_integers(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "exp": 9_223_372_036_854_775_808_u64 })).await
}

async fn exp_missing(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "exp": null })).await
}

async fn exp_past_the_leeway(lab: &Lab) -> Vec<Response> {
    let leeway = 30;
    let mut short = lab.honest(&Key::es256()).await;
    let exp = now() + 15;
    let nearly_expired = with(claims(lab), json!({ "exp": exp, "iat": now() - 600 }));
    short.set("subject_token", &lab.world.issuer_keys["a"].token("JWT", &nearly_expired));
    let token = token_of(&lab.send(&short).await);
    assert_eq!(forge::claims(&token)["exp"], exp, "nothing outlives the token that it comes from");
    let mut answers = Vec::new();
    // Past the leeway; within it, where only a token that expired already could come of it; and too late to be of use.
    for exp in [now() - leeway - 1, now() - leeway + 20, now() + 1] {
        answers.extend(subject_with_claims(lab, json!({ "exp": exp, "iat": now() - 600 })).await);
    }
    answers
}

async fn nbf_as_text(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "nbf": now().to_string() })).await
}

async fn nbf_ahead(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "nbf": now() + 120 })).await
}

async fn iat_as_text(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "iat": "yesterday" })).await
}

async fn iat_far_ahead(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "iat": now() + 3600 })).await
}

async fn aud_missing(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "aud": null })).await
}

async fn aud_empty(lab: &Lab) -> Vec<Response> {
    let mut answers = subject_with_claims(lab, json!({ "aud": "" })).await;
    answers.extend(subject_with_claims(lab, json!({ "aud": [] })).await);
    answers
}

async fn aud_of_a_thousand(lab: &Lab) -> Vec<Response> {
    let mut audiences: Vec<_> = (0..999).map(|n| n.to_string()).collect();
    audiences.push("desk-app".into());
    subject_with_claims(lab, json!({ "aud": audiences })).await
}

async fn aud_of_another_client(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "aud": "other-app" })).await
}

async fn iss_with_trailing_slash(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "iss": format!("{}/", lab.world.identity.issuer("a")) })).await
}

async fn iss_in_capitals(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "iss": lab.world.identity.issuer("A") })).await
}

async fn subject_of_type(lab: &Lab, typ: &str) -> Vec<Response> {
    subject_with_header(lab, json!({ "typ": typ })).await
}

async fn logout_token(lab: &Lab) -> Vec<Response> {
    subject_of_type(lab, "logout+jwt").await
}

async fn transaction_token(lab: &Lab) -> Vec<Response> {
    subject_of_type(lab, "txntoken+jwt").await
}

async fn identity_assertion_grant(lab: &Lab) -> Vec<Response> {
    subject_of_type(lab, "oauth-id-jag+jwt").await
}

async fn dpop_proof_as_subject(lab: &Lab) -> Vec<Response> {
    let mut answers = subject_of_type(lab, "dpop+jwt").await;
    let proof = Key::es256().proof(&lab.proof_claims(&lab.nonce().await));
    answers.extend(subject(lab, &proof).await);
    answers
}

async fn access_token_as_id_token(lab: &Lab) -> Vec<Response> {
    let key = &lab.world.issuer_keys["a"];
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", &key.token("at+jwt", &claims(lab)));
    exchange.set("subject_token_type", "urn:ietf:params:oauth:token-type:id_token");
    vec![lab.send(&exchange).await]
}

async fn access_token_as_assertion(lab: &Lab) -> Vec<Response> {
    let genuine = lab.token(&Key::es256()).await;
    let key = &lab.world.client_keys["desk"];
    let mut answers = assertion(lab, &genuine).await;
    answers.extend(assertion(lab, &key.token("at+jwt", &lab.assertion_claims("desk"))).await);
    answers
}

async fn id_token_as_assertion(lab: &Lab) -> Vec<Response> {
    assertion(lab, &lab.world.user_token("desk")).await
}

async fn padding(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("alice");
    let mut answers = subject(lab, &format!("{token}=")).await;
    answers.extend(subject(lab, &format!("{token}==")).await);
    answers.extend(subject(lab, &token.replacen('.', "=.", 1)).await);
    answers
}

async fn standard_alphabet(lab: &Lab) -> Vec<Response> {
    // Some signature holds one of the two characters that the alphabets differ in.
    let token = std::iter::repeat_with(|| lab.world.user_token("alice"))
        .find(|token| token.rsplit('.').next().unwrap().contains(['-', '_']))
        .unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    subject(lab, &format!("{input}.{}", signature.replace('-', "+").replace('_', "/"))).await
}

async fn white_space(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("alice");
    let mut answers = Vec::new();
    for broken in [format!(" {token}"), format!("{token}\n"), token.replacen('.', ". ", 1)] {
        answers.extend(subject(lab, &broken).await);
    }
    answers
}

async fn trailing_bits(lab: &Lab) -> Vec<Response> {
    // 64 bytes are 86 characters, the last of which carries two bits: its neighbour decodes to the same bytes.
    let mut token = lab.world.user_token("alice");
    let last = token.pop().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    subject(lab, &format!("{token}{next}")).await
}

async fn three_dots(lab: &Lab) -> Vec<Response> {
    let mut answers = subject(lab, "...").await;
    answers.extend(subject(lab, &format!("{}.", lab.world.user_token("alice"))).await);
    answers
}

async fn ten_thousand_dots(lab: &Lab) -> Vec<Response> {
    subject(lab, &".".repeat(10_000)).await
}

async fn not_utf8(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.remove("subject_token");
    let body = exchange.request().body;
    exchange.body = Some([&body[..], b"&subject_token=%ff%fe.%80.a"].concat());
    vec![lab.send(&exchange).await]
}

async fn json_serialization(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("alice");
    let parts: Vec<_> = token.split('.').collect();
    let flat = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] });
    subject(lab, &flat.to_string()).await
}

async fn subject_of_text(lab: &Lab, claims: &str) -> Vec<Response> {
    let key = &lab.world.issuer_keys["a"];
    subject(lab, &key.token_of_text(&header(key, json!({})).to_string(), claims)).await
}

async fn duplicate_claim(lab: &Lab) -> Vec<Response> {
    let claims = claims(lab).to_string();
    let mut answers = subject_of_text(lab, &claims.replacen('{', "{\"sub\":\"mallory\",", 1)).await;
    answers.extend(subject_of_text(lab, &claims.replacen('{', "{\"su\\u0062\":\"mallory\",", 1)).await);
    answers
}

async fn duplicate_claim_deep_inside(lab: &Lab) -> Vec<Response> {
    let claims = claims(lab).to_string();
    subject_of_text(lab, &claims.replacen('{', "{\"x\":[{\"y\":{\"z\":1,\"z\":2}}],", 1)).await
}

async fn nested_128_deep(lab: &Lab) -> Vec<Response> {
    let nest = format!("{}{}", "[".repeat(128), "]".repeat(128));
    subject_of_text(lab, &claims(lab).to_string().replacen('{', &format!("{{\"x\":{nest},"), 1)).await
}

async fn token_over_16_kib(lab: &Lab) -> Vec<Response> {
    subject_with_claims(lab, json!({ "x": "y".repeat(16 * 1024) })).await
}

async fn ten_thousand_claims(lab: &Lab) -> Vec<Response> {
    // As many as fit below the size limit are already far too many, so that the count is what is refused.
    let many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("{n:x}"), json!(0))).collect();
    let mut answers = subject_with_claims(lab, Value::Object(many)).await;
    let many: serde_json::Map<_, _> = (0..3000).map(|n| (format!("{n:x}"), json!(0))).collect();
    answers.extend(subject_with_claims(lab, Value::Object(many)).await);
    answers
}

async fn signature_of_zeros(lab: &Lab) -> Vec<Response> {
    let key = &lab.world.issuer_keys["a"];
    let genuine = forge::decode(lab.world.user_token("alice").rsplit('.').next().unwrap());
    let (r, s) = genuine.split_at(32);
    let zero = [0_u8; 32];
    let mut answers = Vec::new();
    for signature in [[&zero[..], &zero].concat(), [r, &zero].concat(), [&zero, s].concat()] {
        let token = forge::token_with_signature(&header(key, json!({})), &claims(lab), &signature);
        answers.extend(subject(lab, &token).await);
    }
    answers
}

async fn malleable_assertion_replayed(lab: &Lab) -> Vec<Response> {
    let genuine = lab.assertion("desk");
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("client_assertion", &genuine);
    token_of(&lab.send(&exchange).await);
    assertion(lab, &forge::malleable_twin(&genuine)).await
}

async fn malleable_proof_replayed(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    token_of(&lab.send(&exchange).await);
    exchange.set("client_assertion", &lab.assertion("desk"));
    exchange.proofs = vec![forge::malleable_twin(&exchange.proofs[0])];
    vec![lab.send(&exchange).await]
}
