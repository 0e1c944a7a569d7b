//! Stage 2: who calls, with which key; what it costs, and what it uses up.

use crate::world::*;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    claims::Confirmation,
    dpop::NewProof,
    jws::{self, EmbeddedKey},
};
use deputize_issuer::{
    authenticate::{Possession, Presented, PresentedProof, authenticate},
    error::IssueError,
    limits::{Limits, Rate},
    provider::SubjectTokenType,
    record::Kind,
    verify_subject::PresentedSubject,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn an_assertion_and_a_proof_make_a_caller() {
    let world = World::new();
    let caller = world.caller("platform").await;
    assert_eq!(caller.client().id, "platform");
    assert_eq!(caller.method(), "private_key_jwt");
    let jkt = Confirmation::Jkt(world.key("platform").public().thumbprint().to_owned());
    assert_eq!(caller.confirmation(), Some(&jkt));
    assert_eq!(caller.spent().unwrap().until, NOW + 60 + 5, "until it expires, and the leeway");
}

#[tokio::test]
async fn each_assertion_that_misses_one_condition_is_refused() {
    let world = World::new();
    let rows: [(Value, &str); 21] = [
        (json!({ "aud": TOKEN_ENDPOINT }), "assertion_audience"),
        (json!({ "aud": format!("{ISSUER}/") }), "assertion_audience"),
        (json!({ "aud": [ISSUER] }), "assertion_audience"),
        (json!({ "aud": [ISSUER, "https://elsewhere.example"] }), "assertion_audience"),
        (json!({ "aud": null }), "assertion_audience"),
        (json!({ "iss": "crm" }), "assertion_subject"),
        (json!({ "sub": "crm" }), "assertion_subject"),
        (json!({ "iss": "crm", "sub": "crm" }), "assertion_signature"),
        (json!({ "iss": "nobody", "sub": "nobody" }), "assertion_signature"),
        (json!({ "iss": null }), "assertion_claims"),
        (json!({ "sub": 7 }), "assertion_claims"),
        (json!({ "jti": null }), "assertion_claims"),
        (json!({ "jti": "" }), "assertion_claims"),
        (json!({ "jti": "x".repeat(10_240) }), "assertion_claims"),
        (json!({ "iat": null }), "assertion_iat_missing"),
        (json!({ "iat": NOW + 6 }), "assertion_times"),
        (json!({ "nbf": NOW + 6 }), "assertion_times"),
        (json!({ "exp": null }), "assertion_times"),
        (json!({ "exp": NOW - 5 }), "assertion_times"),
        (json!({ "exp": NOW + 301 }), "assertion_too_long"),
        (json!({ "exp": NOW + 315_360_000 }), "assertion_too_long"),
    ];
    for (changes, reason) in rows {
        let shown = changes.to_string();
        let refused =
            world.authenticate(&world.assertion("platform", changes), &world.proof("platform")).await;
        assert_eq!(refused.unwrap_err(), IssueError::ClientAuthentication(reason), "{shown}");
    }
    assert_eq!(world.replay.spent(), 0, "nothing refused was used up");
    for changes in [
        json!({ "exp": NOW + 300 }),
        json!({ "iat": NOW + 5, "exp": NOW + 305 }),
        json!({ "exp": NOW - 4 }),
        json!({ "nbf": NOW + 5 }),
    ] {
        let shown = changes.to_string();
        let assertion = world.assertion("platform", changes);
        world.authenticate(&assertion, &world.proof("platform")).await.expect(&shown);
    }
}

#[tokio::test]
async fn only_tokens_made_to_be_assertions_are() {
    let world = World::new();
    for typ in ["JWT", "client-authentication+jwt", "application/client-authentication+jwt"] {
        let assertion = world.assertion_of_type(typ, "platform", json!({}));
        world.authenticate(&assertion, &world.proof("platform")).await.expect(typ);
    }
    for typ in ["at+jwt", "dpop+jwt", "logout+jwt"] {
        let assertion = world.assertion_of_type(typ, "platform", json!({}));
        let refused = world.authenticate(&assertion, &world.proof("platform")).await;
        assert_eq!(refused.unwrap_err(), IssueError::ClientAuthentication("assertion_typ"), "{typ}");
    }
}

#[tokio::test]
async fn a_client_id_beside_the_assertion_must_be_its_subject() {
    let world = World::new();
    for (client_id, accepted) in [("platform", true), ("crm", false), ("", false)] {
        let assertion = world.assertion("platform", json!({}));
        let presented = Presented::Assertion { assertion: &assertion, client_id: Some(client_id) };
        assert_eq!(
            authenticate(&world.desk, world.decision(), presented, Possession::default()).await.is_ok(),
            accepted,
            "{client_id}"
        );
    }
}

#[tokio::test]
async fn a_disabled_client_is_unknown() {
    let world = World::with(|setup| setup.find_client("platform").enabled = false);
    let refused = world.authenticate(&world.assertion("platform", json!({})), &world.proof("platform")).await;
    assert_eq!(refused.unwrap_err(), IssueError::ClientAuthentication("assertion_signature"));
}

#[tokio::test]
async fn a_challenge_uses_up_nothing() {
    let world = World::new();
    let assertion = world.assertion("platform", json!({}));
    let without = world.proof_as("platform", &NewProof { jti: "p1", ..world.plain_proof() });
    let Err(IssueError::NonceNeeded { nonce }) = world.authenticate(&assertion, &without).await else {
        panic!("a proof without nonce is answered with one");
    };
    let with =
        world.proof_as("platform", &NewProof { jti: "p1", nonce: Some(&nonce), ..world.plain_proof() });
    world
        .authenticate(&assertion, &with)
        .await
        .expect("the same assertion, and the same jti, with the nonce");
}

#[tokio::test]
async fn every_nonce_but_a_fresh_one_of_ours_is_answered_with_a_new_one() {
    let world = World::new();
    let (elsewhere, old) = (World::new().nonce(), world.nonce());
    world.clock.advance(Duration::from_secs(301));
    for nonce in [&elsewhere, &old, "made-up"] {
        let proof = world.proof_as("platform", &NewProof { nonce: Some(nonce), ..world.plain_proof() });
        let refused = world.authenticate(&world.assertion("platform", json!({})), &proof).await;
        assert!(matches!(refused, Err(IssueError::NonceNeeded { .. })), "{nonce}");
    }
}

#[tokio::test]
async fn the_challenge_comes_before_any_signature_is_looked_at() {
    let world = World::new();
    let proof = world.proof_as("platform", &world.plain_proof());
    let refused = world.authenticate("not.a.token", &proof).await.unwrap_err();
    assert!(matches!(refused, IssueError::NonceNeeded { .. }), "nonce before assertion");
    let wrong_url = NewProof {
        htu: "https://elsewhere.example/token",
        nonce: Some(&world.nonce()),
        ..world.plain_proof()
    };
    let refused =
        world.authenticate("not.a.token", &world.proof_as("platform", &wrong_url)).await.unwrap_err();
    assert_eq!(refused, IssueError::ClientAuthentication("assertion_malformed"), "assertion before proof");
    let refused = world
        .authenticate(&world.assertion("platform", json!({})), &world.proof_as("platform", &wrong_url))
        .await;
    assert_eq!(refused.unwrap_err(), IssueError::Proof("proof_claims"));
    assert_eq!(world.replay.spent(), 0);
}

#[tokio::test]
async fn each_proof_that_misses_one_condition_is_refused_and_leaves_the_assertion_good() {
    let world = World::new();
    let nonce = world.nonce();
    let good = NewProof { nonce: Some(&nonce), ..world.plain_proof() };
    let assertion = world.assertion("platform", json!({}));
    for (proof, reason) in [
        (NewProof { htm: "GET", ..good }, "proof_claims"),
        (NewProof { htm: "post", ..good }, "proof_claims"),
        (NewProof { htu: "https://deputize.example.com:8443/token", ..good }, "proof_claims"),
        (NewProof { htu: "https://deputize.example.com/Token", ..good }, "proof_claims"),
        (NewProof { htu: "https://deputize.example.com/x/../token", ..good }, "proof_claims"),
        (NewProof { iat: NOW - 31, ..good }, "proof_claims"),
        (NewProof { iat: NOW + 31, ..good }, "proof_claims"),
        (NewProof { jti: "", ..good }, "proof_claims"),
    ] {
        let refused = world.authenticate(&assertion, &world.proof_as("platform", &proof)).await;
        assert_eq!(refused.unwrap_err(), IssueError::Proof(reason), "{proof:?}");
    }
    let mut forged = world.proof_as("platform", &good);
    forged.truncate(forged.len() - 4);
    forged.push_str("AAAA");
    let refused = world.authenticate(&assertion, &forged).await;
    assert_eq!(refused.unwrap_err(), IssueError::Proof("proof_signature"));
    assert_eq!(world.replay.spent(), 0);
    for proof in [NewProof { iat: NOW - 30, jti: "a", ..good }, NewProof { iat: NOW + 30, jti: "b", ..good }]
    {
        let assertion = world.assertion("platform", json!({}));
        world.authenticate(&assertion, &world.proof_as("platform", &proof)).await.unwrap();
    }
    world.authenticate(&assertion, &world.proof_as("platform", &good)).await.unwrap();
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let world = World::new();
    let assertion = world.assertion("platform", json!({ "jti": "same" }));
    world.authenticate(&assertion, &world.proof("platform")).await.unwrap();
    let again = world.authenticate(&assertion, &world.proof("platform")).await;
    assert_eq!(again.unwrap_err(), IssueError::ClientAuthentication("assertion_replayed"));
    let resigned = world.assertion("platform", json!({ "jti": "same", "exp": NOW + 61 }));
    let again = world.authenticate(&resigned, &world.proof("platform")).await;
    assert_eq!(
        again.unwrap_err(),
        IssueError::ClientAuthentication("assertion_replayed"),
        "the id is what counts"
    );
    let of_another = world.assertion("crm", json!({ "jti": "same" }));
    world.authenticate(&of_another, &world.proof("crm")).await.expect("ids are each client's own");
}

#[tokio::test]
async fn a_proof_is_good_once_for_its_key() {
    let world = World::new();
    let nonce = world.nonce();
    let same = NewProof { jti: "same", nonce: Some(&nonce), ..world.plain_proof() };
    let proof = world.proof_as("platform", &same);
    world.authenticate(&world.assertion("platform", json!({})), &proof).await.unwrap();
    for again in [&proof, &world.proof_as("platform", &same)] {
        let refused = world.authenticate(&world.assertion("platform", json!({})), again).await;
        assert_eq!(refused.unwrap_err(), IssueError::Proof("proof_replayed"));
    }
    let of_another_key = world.proof_as("spare", &same);
    world.authenticate(&world.assertion("platform", json!({})), &of_another_key).await.unwrap();
}

#[tokio::test]
async fn a_replayed_proof_leaves_the_assertion_good() {
    let world = World::new();
    let proof = world.proof("platform");
    world.authenticate(&world.assertion("platform", json!({})), &proof).await.unwrap();
    let assertion = world.assertion("platform", json!({}));
    world.authenticate(&assertion, &proof).await.unwrap_err();
    world.authenticate(&assertion, &world.proof("platform")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_racers_with_one_proof_one_wins() {
    let world = Arc::new(World::new());
    let proof: Arc<str> = world.proof("platform").into();
    let racers: Vec<_> = (0..1000)
        .map(|_| {
            let (world, proof) = (Arc::clone(&world), Arc::clone(&proof));
            let assertion = world.assertion("platform", json!({}));
            tokio::spawn(async move { world.authenticate(&assertion, &proof).await.map(drop) })
        })
        .collect();
    assert_eq!(winners(racers, &IssueError::Proof("proof_replayed")).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_racers_with_one_assertion_one_wins() {
    let world = Arc::new(World::new());
    let assertion: Arc<str> = world.assertion("platform", json!({})).into();
    let racers: Vec<_> = (0..1000)
        .map(|_| {
            let (world, assertion) = (Arc::clone(&world), Arc::clone(&assertion));
            let proof = world.proof("platform");
            tokio::spawn(async move { world.authenticate(&assertion, &proof).await.map(drop) })
        })
        .collect();
    assert_eq!(winners(racers, &IssueError::ClientAuthentication("assertion_replayed")).await, 1);
}

async fn winners(racers: Vec<tokio::task::JoinHandle<Result<(), IssueError>>>, loss: &IssueError) -> usize {
    let mut winners = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(()) => winners += 1,
            Err(error) => assert_eq!(error, *loss),
        }
    }
    winners
}

#[tokio::test]
async fn what_the_stores_cannot_tell_is_refused() {
    let world = World::new();
    world.replay.set_uncertain(true);
    let refused = world.authenticate(&world.assertion("platform", json!({})), &world.proof("platform")).await;
    assert_eq!(refused.unwrap_err(), IssueError::Uncertain("assertion_memory_uncertain"));

    let tiny = World::with(|setup| setup.once_capacity = 1);
    tiny.caller("platform").await;
    let refused = tiny.authenticate(&tiny.assertion("platform", json!({})), &tiny.proof("platform")).await;
    assert_eq!(refused.unwrap_err(), IssueError::Uncertain("proof_memory_full"));
}

#[tokio::test]
async fn a_client_over_its_rate_is_refused_before_anything_is_used_up_and_others_are_not() {
    let once = Rate { per_second: 1, burst: 1 };
    let world = World::with(|setup| setup.limits = Limits::new(once, once));
    world.caller("platform").await;
    let (assertion, proof) = (world.assertion("platform", json!({})), world.proof("platform"));
    let refused = world.authenticate(&assertion, &proof).await;
    assert_eq!(refused.unwrap_err(), IssueError::RateLimited { retry_after_seconds: 1 });
    world.caller("crm").await;
    world.clock.advance(Duration::from_secs(1));
    world.authenticate(&assertion, &proof).await.expect("both are still good");
}

#[tokio::test]
async fn a_caught_assertion_costs_its_client_nothing_of_its_rate() {
    let two = Rate { per_second: 1, burst: 2 };
    let world = World::with(|setup| setup.limits = Limits::new(two, two));
    let caught = world.assertion("platform", json!({}));
    world.authenticate(&caught, &world.proof("platform")).await.unwrap();
    for _ in 0..5 {
        let again = world.authenticate(&caught, &world.proof("spare")).await;
        assert_eq!(again.unwrap_err(), IssueError::ClientAuthentication("assertion_replayed"));
    }
    world.caller("platform").await;
}

#[tokio::test]
async fn misuse_after_a_good_assertion_is_recorded_with_its_client_within_the_quota() {
    let (plenty, two) = (Rate { per_second: 1000, burst: 1000 }, Rate { per_second: 1, burst: 2 });
    let world = World::with(|setup| setup.limits = Limits::new(plenty, two));
    let (assertion, proof) = (world.assertion("platform", json!({})), world.proof("platform"));
    world.authenticate(&assertion, &proof).await.unwrap();
    world.authenticate(&world.assertion("platform", json!({})), &proof).await.unwrap_err();
    for _ in 0..3 {
        world.authenticate(&assertion, &world.proof("platform")).await.unwrap_err();
    }
    world.authenticate(&world.assertion("crm", json!({ "iss": 7 })), &proof).await.unwrap_err();
    let told: Vec<_> = world
        .audit
        .entries()
        .into_iter()
        .map(|entry| {
            assert_eq!(entry.method.as_deref(), Some("private_key_jwt"));
            (entry.kind, entry.client.unwrap(), entry.reason.unwrap())
        })
        .collect();
    let denial = |reason: &str| (Kind::Denial, "platform".to_owned(), reason.to_owned());
    assert_eq!(told, [denial("proof_replayed"), denial("assertion_replayed")]);
    let decisions: Vec<_> = world.audit.entries().iter().filter_map(|entry| entry.decision).collect();
    assert_eq!(decisions.len(), 2, "each under the id of its request");
    assert_ne!(decisions[0], decisions[1]);
    world.desk.refusals.write(&world.desk);
    let counted: Vec<_> = world
        .audit
        .entries()
        .into_iter()
        .skip(2)
        .map(|entry| (entry.kind, entry.client, entry.reason.unwrap(), entry.count.unwrap()))
        .collect();
    assert_eq!(
        counted,
        [
            (Kind::Refusals, None, "assertion_claims".to_owned(), 1),
            (Kind::Denials, Some("platform".to_owned()), "assertion_replayed".to_owned(), 2),
        ],
        "nobody's is counted without a name"
    );
}

#[test]
fn what_was_presented_is_not_shown() {
    let canary = "canary-4711";
    let kind = SubjectTokenType::AccessToken;
    let claims = format!(r#"{{"iss":"{canary}"}}"#);
    let [header, claims, signature] =
        [r#"{"alg":"ES256"}"#, &claims, canary].map(|part| URL_SAFE_NO_PAD.encode(part));
    let token = format!("{header}.{claims}.{signature}");
    let jws = jws::parse(&token, EmbeddedKey::Refused).unwrap();
    for shown in [
        format!("{:?}", Presented::Assertion { assertion: canary, client_id: Some("platform") }),
        format!("{:?}", Presented::Secret { client_id: "platform", secret: canary }),
        format!("{:?}", PresentedProof { header: canary, htu: TOKEN_ENDPOINT }),
        format!("{:?}", PresentedSubject { token: canary, kind, actor: Some((canary, kind)) }),
        format!("{jws:?}"),
    ] {
        let bytes = format!("{:?}", canary.as_bytes());
        let secrets = [canary, bytes.trim_matches(['[', ']']), &claims, &signature];
        assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
}

#[tokio::test]
async fn while_the_clocks_disagree_nothing_is_used_up() {
    let world = World::new();
    let (assertion, proof) = (world.assertion("platform", json!({})), world.proof("platform"));
    world.clock.jump_wall(Duration::from_secs(3));
    let refused = world.authenticate(&assertion, &proof).await;
    assert_eq!(refused.unwrap_err(), IssueError::Uncertain("clocks_disagree"));
    assert_eq!(world.replay.spent(), 0);
}

#[tokio::test]
async fn a_bootstrap_secret_is_good_where_configured() {
    let world = World::with(|setup| {
        setup.find_client("crm").secret_sha256 = Some(deputize_call::digest::sha256(b"correct horse"));
    });
    for (client_id, secret, accepted) in [
        ("crm", "correct horse", true),
        ("crm", "correct horse ", false),
        ("crm", "", false),
        ("platform", "correct horse", false),
        ("platform", "", false),
        ("nobody", "correct horse", false),
    ] {
        let proof = world.proof("spare");
        let caller = authenticate(
            &world.desk,
            world.decision(),
            Presented::Secret { client_id, secret },
            Possession {
                proof: Some(PresentedProof { header: &proof, htu: TOKEN_ENDPOINT }),
                certificate: None,
            },
        )
        .await;
        match caller {
            Ok(caller) => {
                assert!(accepted, "{client_id} {secret}");
                assert_eq!((caller.method(), caller.spent()), ("client_secret", None));
            }
            Err(error) => {
                assert!(!accepted, "{client_id} {secret}");
                assert_eq!(error, IssueError::ClientAuthentication("client_secret"));
            }
        }
    }
}
