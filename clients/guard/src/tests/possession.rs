//! A token for this server from the holder of its key, and each neighbour that is not (H-22).

use super::fixture::*;
use crate::*;
use deputize_call::{
    claims::{Confirmation, TYP, ToolCallClaims},
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::json;
use std::time::Duration;

fn body() -> serde_json::Value {
    call("lookup", json!({}))
}

fn with_claims(f: &Fixture, change: impl FnOnce(&mut ToolCallClaims)) -> Result<Verified, Box<Refusal>> {
    let mut claims = f.claims(l1("lookup"));
    change(&mut claims);
    f.send(&f.request(&f.sign(&claims), body()))
}

fn with_request(f: &Fixture, change: impl FnOnce(&str, &mut Request)) -> Result<Verified, Box<Refusal>> {
    let token = f.sign(&f.claims(l1("lookup")));
    let mut request = f.request(&token, body());
    change(&token, &mut request);
    f.send(&request)
}

fn invalid_token(refused: Result<Verified, Box<Refusal>>) {
    let refusal = refused.unwrap_err();
    assert_eq!((refusal.status, refusal.error), (401, "invalid_token"), "{:?}", refusal.reason);
    assert!(refusal.challenges[0].starts_with("DPoP "), "{:?}", refusal.challenges);
    assert!(refusal.challenges[0].contains("resource_metadata=\"https://pay.example.com/.well-known/"));
}

fn invalid_proof(refused: Result<Verified, Box<Refusal>>) {
    let refusal = refused.unwrap_err();
    assert_eq!((refusal.status, refusal.error), (401, "invalid_dpop_proof"), "{:?}", refusal.reason);
}

#[test]
fn a_token_of_this_broker_for_this_server_within_its_time() {
    let f = Fixture::new();
    assert!(with_claims(&f, |_| {}).is_ok());
    invalid_token(with_claims(&f, |claims| claims.iss = "https://other.example.com".into()));
    invalid_token(with_claims(&f, |claims| claims.tenant = "other".into()));
    invalid_token(with_claims(&f, |claims| claims.exp = NOW - 30));
    invalid_token(with_claims(&f, |claims| (claims.nbf, claims.iat) = (NOW + 30, NOW + 30)));
    invalid_token(with_claims(&f, |claims| {
        claims.aud = "https://crm.example.com/mcp".into();
        claims.authorization_details[0].locations = ["https://crm.example.com/mcp".into()];
    }));
    let edge = with_claims(&f, |claims| (claims.iat, claims.nbf, claims.exp) = (NOW - 60, NOW - 60, NOW - 3));
    assert!(edge.is_ok(), "within the leeway");
}

#[test]
fn a_token_that_comes_again_is_held_against_everything_but_its_signature() {
    let mut f = Fixture::new();
    let token = f.sign(&f.claims(l1("lookup")));
    for _ in 0..3 {
        assert!(f.send(&f.request(&token, body())).is_ok());
    }
    let (head, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let spoiled = format!("{head}.{first}{}", &signature[1..]);
    invalid_token(f.send(&f.request(&spoiled, body())));
    let stranger = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let mut request = f.request(&token, body());
    request.replace("DPoP", &f.proof_by(&stranger, &token, |_| {}));
    invalid_proof(f.send(&request));
    assert_eq!(f.send(&f.request(&token, call("transfer", json!({})))).unwrap_err().status, 403);
    // Its key is no longer among the broker's.
    let other = deputize_call::keys::KeySet::new(vec![stranger.public().clone()]).to_jwks();
    let rotated = f.snapshot(|document| (document.version, document.jwks) = (2, other));
    f.guard.install(rotated, f.uptime).unwrap();
    invalid_token(f.send(&f.request(&token, body())));
    f.guard.install(f.snapshot(|document| document.version = 3), f.uptime).unwrap();
    assert!(f.send(&f.request(&token, body())).is_ok());
    f.pass(Duration::from_secs(66));
    f.guard.hear_revocations(f.uptime);
    invalid_token(f.send(&f.request(&token, body())));
}

#[test]
fn another_signer_or_kind_of_token_is_refused() {
    let f = Fixture::new();
    let claims = f.claims(l1("lookup"));
    let other = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    for token in [
        other.sign(TYP, &claims).unwrap(),
        f.broker.sign("JWT", &claims).unwrap(),
        f.broker.sign("deputize-snapshot+jwt", &claims).unwrap(),
        f.sign(&claims) + "x",
        "x".repeat(20_000),
        "a.b.c".into(),
    ] {
        invalid_token(f.send(&f.request(&token, body())));
    }
}

#[test]
fn one_authorization_header_with_the_right_scheme() {
    let f = Fixture::new();
    assert!(with_request(&f, |token, r| r.replace("Authorization", &format!("dpop {token}"))).is_ok());
    invalid_token(with_request(&f, |token, r| r.replace("Authorization", &format!("Bearer {token}"))));
    invalid_token(with_request(&f, |token, r| r.replace("Authorization", token)));
    let twice = with_request(&f, |token, r| r.header("authorization", &format!("DPoP {token}")));
    assert_eq!(twice.unwrap_err().status, 400);

    let none = f.send(&Request::bare(body())).unwrap_err();
    assert_eq!((none.status, none.error), (401, ""));
    // RFC 6750 §3.1: no error code where there was no token.
    assert!(!none.challenges[0].contains("error="), "{:?}", none.challenges);
}

#[test]
fn a_proof_for_this_request_token_and_key() {
    let f = Fixture::new();
    let other = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let proof = |f: &Fixture, proof: &dyn Fn(&str) -> String| {
        with_request(f, |token, r| r.replace("DPoP", &proof(token)))
    };
    assert!(proof(&f, &|token| f.proof(token, |_| {})).is_ok());
    invalid_proof(proof(&f, &|token| f.proof_by(&other, token, |_| {})));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.access_token = None)));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.access_token = Some("another"))));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.htm = "GET")));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.htu = "https://pay.example.com/other")));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.htu = "https://evil.example.com/mcp")));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.iat = NOW - 61)));
    invalid_proof(proof(&f, &|token| f.proof(token, |p| p.iat = NOW + 61)));
    assert!(proof(&f, &|token| f.proof(token, |p| p.iat = NOW + 60)).is_ok());
    invalid_proof(proof(&f, &|_| "rubbish".into()));
    invalid_proof(with_request(&f, |_, r| r.headers.retain(|(name, _)| name != "DPoP")));
    let twice = with_request(&f, |token, r| r.header("dpop", &f.proof(token, |_| {})));
    assert_eq!(twice.unwrap_err().status, 400);
    // Host and forwarding headers decide nothing.
    let spoofed = with_request(&f, |token, r| {
        r.header("Host", "evil.example.com");
        r.header("X-Forwarded-Host", "evil.example.com");
        r.replace("DPoP", &f.proof(token, |p| p.htu = "https://evil.example.com/mcp"));
    });
    invalid_proof(spoofed);
}

#[test]
fn a_proof_serves_once_and_a_challenge_consumes_nothing() {
    let f = Fixture::new();
    let token = f.sign(&f.claims(l1("lookup")));
    let challenged = {
        let mut request = f.request(&token, body());
        request.replace("DPoP", &f.proof_with_nonce(&token, None, "j1"));
        f.send(&request).unwrap_err()
    };
    assert_eq!((challenged.status, challenged.error), (401, "use_dpop_nonce"));
    let nonce = challenged.dpop_nonce.unwrap();
    let proof = f.proof_with_nonce(&token, Some(&nonce), "j2");
    let mut request = f.request(&token, body());
    request.replace("DPoP", &proof);
    let Ok(Verified::Call(verified)) = f.send(&request) else { panic!("refused") };
    invalid_proof(f.send(&request));
    // The answer brings a nonce that is good for the next request.
    let next = verified.next_nonce().to_owned();
    request.replace("DPoP", &f.proof_with_nonce(&token, Some(&next), "j3"));
    assert!(f.send(&request).is_ok());
}

#[test]
fn nonces_of_others_and_of_long_ago_are_challenged() {
    let mut f = Fixture::new();
    let foreign = Fixture::new().nonce();
    let stale = f.nonce();
    f.pass(Duration::from_secs(121));
    f.guard.hear_revocations(f.uptime);
    for nonce in [foreign.as_str(), stale.as_str(), "made-up"] {
        let token = f.sign(&f.claims(l1("lookup")));
        let mut request = f.request(&token, body());
        request.replace("DPoP", &f.proof_with_nonce(&token, Some(nonce), nonce));
        let refusal = f.send(&request).unwrap_err();
        assert_eq!((refusal.status, refusal.error), (401, "use_dpop_nonce"));
    }
}

#[test]
fn full_memories_refuse_and_never_forget() {
    let f = Fixture::with(|config| config.proof_capacity = 1);
    let mut refused = None;
    for _ in 0..100_000 {
        if let Err(refusal) = with_claims(&f, |_| {}) {
            refused = Some(refusal);
            break;
        }
    }
    assert_eq!(refused.unwrap().status, 503);
}

#[test]
fn one_clients_proofs_leave_room_for_those_of_others() {
    let f = Fixture::with(|config| config.proof_capacity = 64);
    let is_full = |client: &str| {
        let answered = with_claims(&f, |claims| claims.client_id = client.to_owned());
        answered.is_err_and(|refusal| refusal.status == 503)
    };
    let sent = (0..200).take_while(|_| !is_full("greedy")).count();
    assert!(sent < 64, "{sent}");
    assert!(!is_full("other"));
}

#[test]
fn a_certificate_bound_token_needs_its_certificate() {
    let f = Fixture::new();
    let thumbprint = f.agent.public().thumbprint().to_owned();
    let mut claims = f.claims(l1("lookup"));
    claims.cnf = Confirmation::X5tS256(thumbprint.clone());
    let token = f.sign(&claims);
    let mut request = Request::bare(body());
    request.header("Authorization", &format!("Bearer {token}"));
    invalid_token(f.send(&request));
    request.certificate = Some("another".into());
    invalid_token(f.send(&request));
    request.certificate = Some(thumbprint);
    assert!(f.send(&request).is_ok());
    request.replace("Authorization", &format!("DPoP {token}"));
    invalid_token(f.send(&request));
}
