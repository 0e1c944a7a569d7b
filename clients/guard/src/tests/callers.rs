//! Whoever calls is the workload that acts by the token, and one that may call (S-06).

use super::fixture::*;
use crate::*;
use serde_json::json;

const BOT: &str = "spiffe://acme.example/agent/bot";
const OTHER: &str = "spiffe://acme.example/agent/other";

/// A guard that looks at callers, and lets in those alone.
fn looking(required: &[&str]) -> Fixture {
    let required = required.iter().map(|pattern| SpiffeIdPattern::parse(pattern).unwrap()).collect();
    Fixture::with(|config| config.caller_svids = Some(CallerSvids { required, svidless: false }))
}

/// Status and code of a call with a token of this actor, by this workload.
fn called(f: &Fixture, actor: &str, workload: Option<Result<&str, &'static str>>) -> (u16, &'static str) {
    let mut claims = f.claims(l1("lookup"));
    claims.act.as_mut().unwrap().sub = actor.into();
    let mut request = f.request(&f.sign(&claims), call("lookup", json!({})));
    request.workload = workload.map(|found| found.map(str::to_owned));
    f.send(&request).map_or_else(|refusal| (refusal.status, refusal.error), |_| (200, ""))
}

#[test]
fn a_workload_calls_with_tokens_by_which_it_acts_itself() {
    let f = looking(&[]);
    assert_eq!(called(&f, BOT, Some(Ok(BOT))), (200, ""));
    // The actor is another one; in part; in another trust domain; the one before it in the chain.
    for actor in [
        OTHER,
        "spiffe://acme.example/agent/bot/2",
        "spiffe://acme.example/agent",
        "spiffe://other.example/agent/bot",
    ] {
        assert_eq!(called(&f, actor, Some(Ok(BOT))), (401, "invalid_token"), "{actor}");
    }
    let mut claims = f.claims(l1("lookup"));
    let chain = json!({ "sub": OTHER, "act": { "sub": BOT } });
    claims.act = Some(serde_json::from_value(chain).unwrap());
    let mut request = f.request(&f.sign(&claims), call("lookup", json!({})));
    request.workload = Some(Ok(BOT.to_owned()));
    assert_eq!(f.send(&request).unwrap_err().status, 401);
    // An actor that is no workload: the token's key alone says who it is.
    assert_eq!(called(&f, "platform", Some(Ok(BOT))), (200, ""));
}

#[test]
fn a_certificate_that_is_no_svid_is_worse_than_none() {
    let f = looking(&[]);
    assert_eq!(called(&f, BOT, Some(Err("it has no time to live left"))), (403, "access_denied"));
    assert_eq!(called(&f, "platform", None), (200, ""), "nobody demands one");
    let f = Fixture::new();
    assert_eq!(called(&f, BOT, Some(Err("not looked at"))), (200, ""), "a guard that looks at none");
    assert_eq!(called(&f, BOT, Some(Ok(OTHER))), (200, ""));
}

#[test]
fn a_workload_that_acts_shows_who_it_is_unless_it_is_said_otherwise() {
    let f = looking(&[]);
    assert_eq!(called(&f, BOT, None), (403, "access_denied"));
    assert_eq!(called(&f, BOT, Some(Ok(BOT))), (200, ""));
    let svidless = || Some(CallerSvids { required: Vec::new(), svidless: true });
    let f = Fixture::with(|config| config.caller_svids = svidless());
    assert_eq!(called(&f, BOT, None), (200, ""));
    assert_eq!(called(&f, BOT, Some(Ok(OTHER))), (401, "invalid_token"), "what is shown counts");
    assert_eq!(called(&f, BOT, Some(Err("expired"))), (403, "access_denied"));
}

#[test]
fn whoever_shows_one_is_not_decided_upon_while_no_bundle_is_known() {
    let f = looking(&[]);
    let mut claims = f.claims(l1("lookup"));
    claims.act.as_mut().unwrap().sub = BOT.into();
    let mut request = f.request(&f.sign(&claims), call("lookup", json!({})));
    request.is_undecided = true;
    let refusal = f.send(&request).unwrap_err();
    assert_eq!((refusal.status, refusal.error), (503, "temporarily_unavailable"));
    assert!(refusal.description.contains("no bundles"), "{}", refusal.description);
    assert!(refusal.retry_after_seconds.is_some());
    request.is_undecided = false;
    request.workload = Some(Ok(BOT.to_owned()));
    assert!(f.send(&request).is_ok(), "nothing was used up");
}

#[test]
fn a_guard_that_demands_svids_lets_in_nobody_else() {
    let f = looking(&["spiffe://acme.example/agent/*", "spiffe://partner.example/bot"]);
    assert_eq!(called(&f, BOT, Some(Ok(BOT))), (200, ""));
    assert_eq!(called(&f, "platform", Some(Ok("spiffe://partner.example/bot"))), (200, ""));
    for workload in [None, Some(Err("expired")), Some(Ok("spiffe://acme.example/mcp/crm"))] {
        assert_eq!(called(&f, BOT, workload), (403, "access_denied"), "{workload:?}");
    }
    let anybody = looking(&["spiffe://*"]);
    assert_eq!(called(&anybody, BOT, None), (403, "access_denied"));
    assert_eq!(called(&anybody, BOT, Some(Ok(BOT))), (200, ""));
}

#[test]
fn whoever_is_refused_for_that_has_used_nothing_up() {
    let f = looking(&["spiffe://*"]);
    let mut claims = f.claims(l1("lookup"));
    claims.act.as_mut().unwrap().sub = BOT.into();
    let mut request = f.request(&f.sign(&claims), call("lookup", json!({})));
    for refused in [None, Some(Err("expired")), Some(Ok(OTHER.to_owned()))] {
        request.workload = refused;
        assert!(f.send(&request).is_err());
    }
    request.workload = Some(Ok(BOT.to_owned()));
    assert!(f.send(&request).is_ok(), "the proof is still good");
}
