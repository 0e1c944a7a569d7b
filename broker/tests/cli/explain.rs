//! `deputize explain`.

use deputize_issuer::{
    record::{Entry, Kind},
    revocation::Revoked,
};
use serde_json::Value;

use crate::program::{
    AT_MS, Data, decision, denial, intent, jwt_svid, outcome, redemption, registration, revocation,
    role_session, run, svid_denial, x509_svid,
};

#[test]
fn a_grant_is_told_from_who_to_what_became_of_it() {
    let mut onward = intent(2);
    onward.pjti = Some("jti-1".to_owned());
    let unrelated = revocation(Revoked::Token("jti-other".to_owned()));
    let data = Data::with(&[
        intent(1),
        outcome(1, 0),
        redemption(1),
        onward,
        outcome(2, 3),
        unrelated,
        revocation(Revoked::Person("user:acme:idp:alice".to_owned())),
    ]);
    let id = decision(1).to_string();
    let story = run(&["explain", &id, "--data", data.path(), "-o", "json"]).expect(0).json();
    assert_eq!(story["decision"], "granted");
    assert_eq!(story["record"]["sub"], "user:acme:idp:alice");
    assert!(story["outcome"]["what"] == "minted" && story["outcome"]["index"] == 1, "{story}");
    assert_eq!(story["redeemed"]["what"], "by crm-guard");
    assert_eq!(story["onward"][0]["decision"], decision(2).to_string());
    assert_eq!(story["revoked"].as_array().unwrap().len(), 1);
    assert_eq!(story["revoked"][0]["index"], 6);
    let text = run(&["explain", &id, "--data", data.path()]).expect(0).stdout;
    for part in [
        "✔ granted",
        "support-bot, acting as spiffe://",
        "L3: one call",
        "40 of 100: tier_medium, writes",
        "support.refund",
        "by crm-guard",
        "everything in this person's name",
        "audit prove 0",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_call_and_its_aws_session_name_each_other() {
    let data = Data::with(&[intent(1), role_session(2, 1)]);
    let told =
        |number| run(&["explain", &decision(number).to_string(), "--data", data.path()]).expect(0).stdout;
    let (call, session) = (told(1), told(2));
    assert!(call.contains(&format!("role/deputize/restart-instance, decision {}", decision(2))), "{call}");
    assert!(session.contains(&format!("--aws-session {}", decision(2))), "{session}");
    assert!(session.contains("by template restart-instance") && session.contains("for alice"), "{session}");
}

#[test]
fn a_denial_says_why_and_what_to_do() {
    let data = Data::with(&[intent(1), denial(2, "policy")]);
    let text = run(&["explain", &decision(2).to_string(), "--data", data.path()]).expect(0).stdout;
    for part in [
        "✖ denied",
        "delete_account on https://crm.example/mcp",
        "baseline.no_deletes",
        "next: no policy permits it",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_svid_is_told_with_what_names_it_and_what_became_of_its_entry() {
    let data = Data::with(&[
        registration(1, "created"),
        x509_svid(2),
        outcome(2, 1),
        jwt_svid(3),
        registration(4, "deleted"),
    ]);
    let told = |number, parts: &[&str]| {
        let text = run(&["explain", &decision(number).to_string(), "--data", data.path()]).expect(0).stdout;
        // The columns are as wide as their widest label.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        text
    };
    let of_both = [
        "✔ granted",
        "SPIFFE ID spiffe://example.org/support",
        "by entry support; `deputize audit query --entry support`",
        "on node spiffe://example.org/deputize/node/local",
        "good until 2026-11-21T10:30:00",
        "entry since deleted, by admin at 2026-11-21T09:30:00.004",
    ];
    let x509 = [
        "SVID X.509-SVID",
        "serial 5e41a1",
        "signed by 4f1c2b9e",
        "DNS name support.example.org",
        "minted at",
    ];
    let text = told(2, &[&of_both[..], &x509].concat());
    assert!(!text.contains("created"), "what was before the SVID is no part of its story: {text}");
    let jwt = [
        "SVID JWT-SVID",
        "jti svid-jti-3",
        "signed by kid-of-jwt-svids",
        "audience https://db.example",
        "treat the SVID as issued",
    ];
    told(3, &[&of_both[..], &jwt].concat());
    let created = told(1, &["✔ entry created", "that is unix:uid:1000", "that is unix:path:/usr/bin/agent"]);
    assert!(created.contains("by admin") && created.contains("entry since deleted"), "{created}");
    let deleted = told(4, &["✔ entry deleted", "SPIFFE ID spiffe://example.org/support"]);
    assert!(!deleted.contains("entry since") && !deleted.contains("outcome"), "{deleted}");
}

#[test]
fn a_refused_process_is_told_with_what_was_true_of_it() {
    let data = Data::with(&[svid_denial(1), registration(2, "created")]);
    let id = decision(1).to_string();
    let text = run(&["explain", &id, "--data", data.path()]).expect(0).stdout;
    for part in [
        "✖ denied",
        "no_entry",
        "that is unix:uid:1001",
        "that is unix:path:/usr/bin/agent",
        "svid fetch --explain",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("asked by") && !text.contains("detail"), "{text}");
    assert!(!text.contains("entry since"), "it was refused for no entry, not for this one: {text}");
    let story = run(&["explain", &id, "--data", data.path(), "-o", "json"]).expect(0).json();
    assert_eq!((&story["decision"], &story["record"]["spiffe"]["svid"]), (&"denied".into(), &Value::Null));
}

#[test]
fn an_intent_without_outcome_counts_as_issued() {
    let data = Data::with(&[intent(1)]);
    let text = run(&["explain", &decision(1).to_string(), "--data", data.path()]).expect(0).stdout;
    assert!(text.contains("treat the token as issued"), "{text}");
}

#[test]
fn an_unknown_decision_and_no_id_at_all_are_refused() {
    let data = Data::with(&[intent(1)]);
    let ran = run(&["explain", &decision(9).to_string(), "--data", data.path()]).expect(1);
    assert!(ran.stderr.contains("no record of decision"), "{ran:?}");
    assert!(ran.stderr.contains("nothing was counted in that moment"), "{ran:?}");
    run(&["explain", "not-an-id", "--data", data.path()]).expect(2);
}

#[test]
fn a_refusal_that_was_only_counted_is_pointed_to() {
    let data = Data::with(&[
        counted(Kind::Refusals, None, "assertion_signature", 40, AT_MS - 1),
        counted(Kind::Refusals, None, "proof_malformed", 3, AT_MS + 900),
        counted(Kind::Denials, Some("support-bot"), "policy", 2, AT_MS + 900),
        counted(Kind::Refusals, None, "media_type", 7, AT_MS + 60_000),
    ]);
    let ran = run(&["explain", &decision(9).to_string(), "--data", data.path()]).expect(1);
    assert!(ran.stderr.contains("no record of decision"), "{ran:?}");
    assert!(ran.stderr.contains("2 × policy of support-bot, 3 × proof_malformed"), "{ran:?}");
    for elsewhen in ["assertion_signature", "media_type"] {
        assert!(!ran.stderr.contains(elsewhen), "{ran:?}");
    }
}

fn counted(kind: Kind, client: Option<&str>, reason: &str, count: u64, at_ms: u64) -> Entry {
    Entry {
        client: client.map(str::to_owned),
        reason: Some(reason.to_owned()),
        count: Some(count),
        ..Entry::new(kind, at_ms)
    }
}
