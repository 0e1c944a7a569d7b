//! The cache of verified tokens remembers signatures and claims, and nothing else.

use super::*;
use SubjectTokenType::{AccessToken, IdToken};

/// Changes the signature into its twin: (r, s) and (r, n − s) both verify.
fn malleable_twin(token: &str) -> String {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0_i16;
    for place in (0..32).rev() {
        let difference = i16::from(ORDER[place]) - i16::from(signature[32 + place]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + place] = difference.rem_euclid(256) as u8;
    }
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn the_twin_of_a_signature_is_the_same_token() {
    let scene = plain();
    let token = at_jwt(&plain_claims());
    let twin = malleable_twin(&token);
    assert_ne!(token, twin);
    let (first, second) =
        (scene.verify(&token, AccessToken).unwrap(), scene.verify(&twin, AccessToken).unwrap());
    assert_eq!(first.token_hash, second.token_hash);
    let another = at_jwt(&with(&plain_claims(), json!({ "jti": "t2" })));
    assert_ne!(first.token_hash, scene.verify(&another, AccessToken).unwrap().token_hash);
}

#[test]
fn a_forged_signature_does_not_profit_from_a_cached_token() {
    let scene = plain();
    let token = at_jwt(&plain_claims());
    scene.verify(&token, AccessToken).unwrap();
    let (input, _) = token.rsplit_once('.').unwrap();
    let zeros = format!("{input}.{}", URL_SAFE_NO_PAD.encode([0_u8; 64]));
    assert_eq!(scene.reason(&zeros, AccessToken), "signature", "r and s of zero");
}

#[test]
fn a_cached_token_is_checked_anew_each_time() {
    let scene = plain();
    let token = at_jwt(&plain_claims());
    scene.verify(&token, AccessToken).unwrap();
    assert_eq!(scene.verify_at(&token, AccessToken, NOW + 331).unwrap_err().reason(), "expired");
    assert_eq!(scene.verify_at(&token, AccessToken, NOW - 100).unwrap_err().reason(), "not_yet_valid");
    assert_eq!(scene.reason(&token, IdToken), "token_kind");
    let other_client = ["https://other.example.com".to_owned(), "platform".to_owned()];
    let refused = ready(scene.providers.verify(&token, AccessToken, TENANT, &other_client, NOW));
    assert_eq!(refused.unwrap_err(), UserTokenError::Audience);
    let other_party = ["https://platform.example.com".to_owned()];
    let refused = ready(scene.providers.verify(&token, AccessToken, TENANT, &other_party, NOW));
    assert_eq!(refused.unwrap_err(), UserTokenError::AuthorizedParty("client_id"));
    let refused = ready(scene.providers.verify(&token, AccessToken, TENANT, &[], NOW));
    assert_eq!(refused.unwrap_err(), UserTokenError::Audience);
}

#[test]
fn a_withdrawn_key_withdraws_its_cached_tokens() {
    let scene = plain();
    let token = at_jwt(&plain_claims());
    scene.verify(&token, AccessToken).unwrap();
    scene.keys.publish("https://id.example.com", &[&RSA]);
    assert_eq!(scene.reason(&token, AccessToken), "unknown_key");
    scene.keys.publish("https://id.example.com", &[&RSA, &ES256]);
    scene.verify(&token, AccessToken).unwrap();
    scene.keys.forget("https://id.example.com");
    assert_eq!(
        scene.verify(&token, AccessToken).unwrap_err(),
        UserTokenError::KeysUnavailable(KeysUnavailable)
    );
}

#[test]
fn an_unknown_key_asks_once_for_newer_ones() {
    let rotated = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let scene = plain();
    let token = sign(&rotated, json!({ "typ": "at+jwt" }), &plain_claims());
    assert_eq!(scene.reason(&token, AccessToken), "unknown_key");
    *scene.keys.next.lock().unwrap() = Some(KeySet::new(vec![rotated.public().clone()]));
    scene.verify(&token, AccessToken).unwrap();
    assert_eq!(scene.keys.fetches.load(Ordering::SeqCst), 2);
    // Known keys, good signature or bad, ask for nothing; neither does what is refused for another reason.
    scene.verify(&token, AccessToken).unwrap();
    let expired =
        sign(&ES256, json!({ "typ": "at+jwt" }), &with(&plain_claims(), json!({ "exp": NOW - 100 })));
    assert_eq!(scene.reason(&expired, AccessToken), "expired");
    assert_eq!(scene.keys.fetches.load(Ordering::SeqCst), 2);
}
