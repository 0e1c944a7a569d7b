//! What a guard knows, and what it does when it does not know (H-32).

use super::fixture::*;
use crate::*;
use deputize_call::{
    claims::ToolCallClaims,
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

fn look(f: &Fixture) -> Result<Verified, Box<Refusal>> {
    f.with_grant(l1("lookup"), call("lookup", json!({})))
}

fn revoked(revocation: impl FnOnce(&ToolCallClaims) -> Revocation) {
    let f = Fixture::new();
    let (mut claims, mut other) = (f.claims(l1("lookup")), f.claims(l1("transfer")));
    other.sub = "user:acme:x:bob".into();
    other.client_id = "other".into();
    other.act = None;
    other.authorization_details[0] = f.claims(l3("refund", &json!({}))).authorization_details[0].clone();
    claims.txn = "txn-revoked".into();
    let send = |claims: &ToolCallClaims, tool| f.send(&f.request(&f.sign(claims), call(tool, json!({}))));
    assert!(send(&claims, "lookup").is_ok());
    let revocation = revocation(&claims);
    f.guard.revoke(revocation.clone(), f.uptime);
    let refusal = send(&claims, "lookup").unwrap_err();
    assert_eq!((refusal.status, refusal.error), (401, "invalid_token"), "{revocation:?}");
    let neighbour = send(&other, "refund");
    let reaches_all = matches!(revocation, Revocation::Everything | Revocation::Key { .. });
    assert_eq!(neighbour.is_ok(), !reaches_all, "{revocation:?}");
}

#[test]
fn revocations_reach_what_they_name() {
    revoked(|claims| Revocation::Token { jti: claims.jti.clone() });
    revoked(|claims| Revocation::Token { jti: claims.pjti.clone().unwrap() });
    revoked(|claims| Revocation::Transaction { txn: claims.txn.clone() });
    revoked(|claims| Revocation::Person { sub: claims.sub.clone() });
    revoked(|claims| Revocation::Client { client_id: claims.client_id.clone() });
    revoked(|_| Revocation::Actor { sub: "agent:support".into() });
    revoked(|_| Revocation::Actor { sub: "agent:planner".into() });
    revoked(|_| Revocation::Tool { name: "lookup".into() });
    revoked(|claims| match &claims.cnf {
        deputize_call::claims::Confirmation::Jkt(jkt) => Revocation::Key { thumbprint: jkt.clone() },
        other => panic!("{other:?}"),
    });
    revoked(|_| Revocation::Everything);
}

#[test]
fn silence_about_revocations_stops_calls() {
    let mut f = Fixture::new();
    f.pass(Duration::from_secs(60));
    assert!(look(&f).is_ok());
    f.pass(Duration::from_secs(1));
    assert_eq!(look(&f).unwrap_err().status, 503);
    assert_eq!(f.with_grant(l0(), list()).unwrap_err().status, 503);
    f.guard.hear_revocations(f.uptime);
    assert!(look(&f).is_ok());
}

#[test]
fn a_newer_snapshot_lifts_a_kill_switch_and_keeps_revoked_tokens() {
    let f = Fixture::new();
    let claims = f.claims(l1("lookup"));
    let send = || f.send(&f.request(&f.sign(&claims), call("lookup", json!({}))));
    f.guard.revoke(Revocation::Everything, f.uptime);
    f.guard.revoke(Revocation::Token { jti: claims.jti.clone() }, f.uptime);
    f.guard.install(f.snapshot(|_| {}), f.uptime).unwrap();
    assert!(look(&f).is_err(), "the same version knows nothing of the switch");
    f.guard.install(f.snapshot(|document| document.version = 2), f.uptime).unwrap();
    assert!(look(&f).is_ok());
    assert_eq!(send().unwrap_err().status, 401);
}

#[test]
fn a_snapshot_of_the_same_version_adds_what_it_knows_to_be_revoked() {
    let f = Fixture::new();
    let claims = f.claims(l1("lookup"));
    let person = Revocation::Person { sub: claims.sub.clone() };
    let with = |revocation: Revocation| f.snapshot(|document| document.revocations = vec![revocation]);
    f.guard.install(with(person), f.uptime).unwrap();
    let send = || f.send(&f.request(&f.sign(&claims), call("lookup", json!({}))));
    assert_eq!(send().unwrap_err().status, 401);
    f.guard.install(f.snapshot(|_| {}), f.uptime).unwrap();
    assert_eq!(send().unwrap_err().status, 401, "it may have been made before the revocation");
    f.guard.install(f.snapshot(|document| document.version = 2), f.uptime).unwrap();
    assert!(send().is_ok());
}

#[test]
fn what_a_guard_remembers_is_no_word_about_revocations() {
    let f = Fixture::new();
    let config = GuardConfig::new(ISSUER, RESOURCE, RESOURCE, "https://pay.example.com/metadata");
    let guard = Guard::new(config, f.outside.clone(), f.outside.clone(), NOW - 1000).unwrap();
    let restarted = Fixture { guard, ..f };
    restarted.guard.recall(restarted.snapshot(|_| {}), restarted.uptime).unwrap();
    restarted.observe(&definitions());
    assert_eq!(look(&restarted).unwrap_err().reason, Reason::Unavailable("revocations are stale"));
    restarted.guard.hear_revocations(restarted.uptime);
    assert!(look(&restarted).is_ok());
}

#[test]
fn clocks_that_part_stop_calls_until_they_agree() {
    let mut f = Fixture::new();
    assert!(look(&f).is_ok());
    f.now += 4;
    assert_eq!(look(&f).unwrap_err().reason, Reason::Unavailable("the clocks disagree"));
    f.now -= 8;
    assert_eq!(look(&f).unwrap_err().status, 503);
    f.now += 4;
    assert!(look(&f).is_ok());
}

#[test]
fn a_guard_without_knowledge_refuses() {
    let f = Fixture::new();
    let config = GuardConfig::new(ISSUER, RESOURCE, RESOURCE, "https://pay.example.com/metadata");
    let mut empty =
        Fixture { guard: Guard::new(config, f.outside.clone(), f.outside.clone(), NOW - 1000).unwrap(), ..f };
    let ask = |f: &Fixture| {
        let mut request = Request::bare(call("lookup", json!({})));
        request.header("Authorization", "DPoP x");
        f.send(&request).unwrap_err().status
    };
    assert_eq!(ask(&empty), 503);
    empty.guard.install(empty.snapshot(|_| {}), empty.uptime).unwrap();
    assert_eq!(look(&empty).unwrap_err().status, 503, "the server's tools were not seen");
    empty.observe(&definitions());
    assert!(look(&empty).is_ok());
    empty.pass(Duration::from_secs(1800));
    empty.guard.hear_revocations(empty.uptime);
    assert_eq!(ask(&empty), 503, "the snapshot has expired");
}

#[test]
fn snapshots_never_go_back_and_never_come_from_elsewhere() {
    let f = Fixture::new();
    f.guard.install(f.snapshot(|document| document.version = 5), f.uptime).unwrap();
    let older = f.guard.install(f.snapshot(|document| document.version = 4), f.uptime);
    assert_eq!(older, Err(SnapshotError::Older { offered: 4, highest: 5 }));
    let other_server =
        f.snapshot(|document| (document.version, document.resource) = (6, "https://x.example/".into()));
    assert_eq!(f.guard.install(other_server, f.uptime), Err(SnapshotError::Other("server")));
    let other_broker =
        f.snapshot(|document| (document.version, document.issuer) = (6, "https://x.example".into()));
    assert_eq!(f.guard.install(other_broker, f.uptime), Err(SnapshotError::Other("broker")));
}

#[test]
fn snapshots_hold_within_their_time_and_with_their_tools() {
    let f = Fixture::new();
    let read = |change: &dyn Fn(&mut SnapshotDocument)| {
        let mut document = f.document();
        change(&mut document);
        Snapshot::from_json(serde_json::to_string(&document).unwrap().as_bytes(), NOW)
    };
    assert!(read(&|_| {}).is_ok());
    assert_eq!(read(&|document| document.expires_at = NOW).unwrap_err(), SnapshotError::Time);
    assert_eq!(read(&|document| document.expires_at = NOW + 3600).unwrap_err(), SnapshotError::Time);
    assert_eq!(read(&|document| document.issued_at = NOW + 61).unwrap_err(), SnapshotError::Time);
    assert!(read(&|document| document.jwks = json!({ "keys": [] })).is_err());
    assert!(read(&|document| document.tools.push(document.tools[0].clone())).is_err());
    assert!(read(&|document| document.tools[0].tool_digest = digest_of("refund")).is_err());
    assert!(read(&|document| document.tools[0].least_level = deputize_call::level::Level::L0).is_err());
    assert!(Snapshot::from_json(br#"{"version":1,"version":2}"#, NOW).is_err());
}

#[test]
fn a_signed_snapshot_is_signed_by_a_configured_key() {
    let f = Fixture::new();
    let signer = SigningKey::generate(SigningAlgorithm::EdDSA).unwrap();
    let keys = KeySet::new(vec![signer.public().clone()]);
    let signed = SignedSnapshot::sign(&f.document(), &signer).unwrap();
    assert_eq!(signed.clone().open(&keys, NOW).unwrap().version(), 1);

    let foreign = SignedSnapshot::sign(&f.document(), &f.broker).unwrap();
    assert!(matches!(foreign.open(&keys, NOW), Err(SnapshotError::Signature(_))));
    let mut altered = signed.clone();
    altered.snapshot = altered.snapshot.replace("\"version\":1", "\"version\":9");
    assert!(matches!(altered.open(&keys, NOW), Err(SnapshotError::Signature(_))));
    let other_typ = SignedSnapshot {
        signature: signer.sign("at+jwt", &json!({ "exp": NOW + 9 })).unwrap(),
        ..signed.clone()
    };
    assert!(matches!(other_typ.open(&keys, NOW), Err(SnapshotError::Signature(_))));
    assert!(signed.open(&keys, NOW + 3600).is_err());
}

#[test]
fn a_tool_that_changed_or_vanished_is_not_called() {
    let f = Fixture::new();
    for (member, value) in [
        ("description", json!("lookup.")),
        ("title", json!("new")),
        ("annotations", json!({ "readOnlyHint": true })),
        ("inputSchema", json!({ "type": "object" })),
    ] {
        let mut live = definitions();
        live[0][member] = value;
        let observed = f.observe(&live);
        assert_eq!(
            (observed.drifted, observed.approved),
            (vec!["lookup".to_owned()], vec!["refund".into(), "transfer".into()])
        );
        assert_eq!(look(&f).unwrap_err().status, 403, "{member}");
    }
    f.observe(&definitions()[1..]);
    assert_eq!(look(&f).unwrap_err().status, 403);
    let mut more = definitions();
    more.push(json!({ "name": "new", "inputSchema": {} }));
    more.push(definitions()[1].clone());
    let observed = f.observe(&more);
    assert_eq!((observed.unknown, observed.drifted), (vec!["new".to_owned()], vec!["transfer".to_owned()]));
    assert!(look(&f).is_ok());
    f.observe(&definitions());
    assert!(look(&f).is_ok(), "it may return as it was approved");
}

#[test]
fn a_token_for_an_earlier_definition_or_an_unapproved_tool_is_refused() {
    let f = Fixture::new();
    let mut stale = l1("lookup");
    stale["tool_digest"] = json!(digest_of("refund"));
    assert_eq!(f.with_grant(stale, call("lookup", json!({}))).unwrap_err().status, 403);
    let mut unapproved = l1("lookup");
    unapproved["identifier"] = json!("unapproved");
    assert_eq!(f.with_grant(unapproved, call("unapproved", json!({}))).unwrap_err().status, 403);
}

#[test]
fn tokens_with_counted_uses_from_before_the_start_are_refused() {
    let f = Fixture::new();
    let constraints = json!({ "/payment_id": { "enum": ["a"] } });
    let started = NOW - 1000;
    let counted = |iat: u64| {
        let mut claims = f.claims(l2("transfer", constraints.clone(), 5));
        (claims.iat, claims.nbf) = (iat, iat);
        f.send(&f.request(&f.sign(&claims), call("transfer", json!({ "payment_id": "a" }))))
    };
    assert_eq!(counted(started + 4).unwrap_err().status, 401);
    assert!(counted(started + 5).is_ok());
}

#[test]
fn the_count_of_uses_is_bounded_and_forgets_only_what_expired() {
    let mut f = Fixture::with(|config| config.counted_tokens = 2);
    let counted = |f: &Fixture| {
        let mut grant = l1("lookup");
        grant["max_uses"] = json!(1);
        f.with_grant(grant, call("lookup", json!({}))).map(drop).map_err(|refusal| refusal.status)
    };
    assert_eq!((counted(&f), counted(&f), counted(&f)), (Ok(()), Ok(()), Err(503)));
    f.pass(Duration::from_secs(71));
    f.guard.hear_revocations(f.uptime);
    assert_eq!(counted(&f), Ok(()));
}

#[test]
fn a_thousand_racers_have_one_winner() {
    let f = Arc::new(Fixture::new());
    let token = f.sign(&f.claims(l1("lookup")));
    let request = Arc::new(f.request(&token, call("lookup", json!({}))));
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let (f, request) = (f.clone(), request.clone());
            std::thread::spawn(move || (0..125).filter(|_| f.send(&request).is_ok()).count())
        })
        .collect();
    assert_eq!(racers.into_iter().map(|racer| racer.join().unwrap()).sum::<usize>(), 1);
}
