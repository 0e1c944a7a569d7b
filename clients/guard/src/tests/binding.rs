//! A grant is good for what it names (H-30), at every level.

use super::fixture::*;
use crate::*;
use deputize_call::claims::DETAIL_TYPE;
use serde_json::{Value, json};

fn out_of_scope(refused: Result<Verified, Box<Refusal>>) -> Refusal {
    let refusal = refused.unwrap_err();
    assert_eq!((refusal.status, refusal.error), (403, "insufficient_scope"), "{:?}", refusal.reason);
    *refusal
}

fn verified(result: Result<Verified, Box<Refusal>>) -> VerifiedCall {
    match result {
        Ok(Verified::Call(call)) => call,
        other => panic!("{other:?}"),
    }
}

fn refund() -> Value {
    json!({ "payment_id": "pay_81", "amount_cents": 4200, "lines": [{ "sku": "a", "n": 1 }] })
}

#[test]
fn l3_admits_the_one_call_and_nothing_beside_it() {
    let f = Fixture::new();
    let granted = || l3("refund", &refund());
    let call_once = verified(f.with_grant(granted(), call("refund", refund())));
    assert_eq!((call_once.name(), call_once.level().as_str()), ("refund", "L3"));
    assert_eq!(Value::Object(call_once.arguments().clone()), refund());
    for other in [
        json!({ "payment_id": "pay_82", "amount_cents": 4200, "lines": [{ "sku": "a", "n": 1 }] }),
        json!({ "payment_id": "pay_81", "amount_cents": 4201, "lines": [{ "sku": "a", "n": 1 }] }),
        json!({ "payment_id": "pay_81", "amount_cents": 4200 }),
        json!({ "payment_id": "pay_81", "amount_cents": 4200, "lines": [{ "sku": "a", "n": 1 }], "note": "" }),
        json!({ "payment_id": "pay_81", "amount_cents": 4200, "lines": [] }),
        json!({ "payment_id": "pay_81", "amount_cents": 4200, "lines": [{ "sku": "a", "n": 1 }, { "sku": "b" }] }),
        json!({}),
    ] {
        let refusal = out_of_scope(f.with_grant(granted(), call("refund", other.clone())));
        // It says what would be needed, and that is exactly what was sent.
        let needed = json!([{ "type": DETAIL_TYPE, "locations": [RESOURCE], "actions": ["tools/call"],
            "identifier": "refund", "arguments": other }]);
        assert_eq!(refusal.authorization_details, Some(needed.clone()));
        assert_eq!(refusal.body()["authorization_details"], needed);
        assert!(refusal.challenges[0].contains("scope=\"refund\""));
    }
    out_of_scope(f.with_grant(granted(), call("transfer", refund())));
}

#[test]
fn numbers_are_equal_as_the_canonical_form_has_them() {
    let f = Fixture::new();
    let grant = l3("refund", &json!({ "amount_cents": 1 }));
    for (written, equal) in
        [("1", true), ("1.0", true), ("1e0", true), ("10e-1", true), ("1.1", false), ("-1", false)]
    {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"refund","arguments":{{"amount_cents":{written}}}}}}}"#
        );
        let token = f.sign(&f.claims(grant.clone()));
        let mut request = f.request(&token, json!(null));
        request.body = body.into_bytes();
        assert_eq!(f.send(&request).is_ok(), equal, "{written}");
    }
}

#[test]
fn an_l3_token_is_used_once() {
    let f = Fixture::new();
    let token = f.sign(&f.claims(l3("refund", &refund())));
    assert!(f.send(&f.request(&token, call("refund", refund()))).is_ok());
    let again = f.send(&f.request(&token, call("refund", refund()))).unwrap_err();
    assert_eq!((again.status, again.error), (401, "invalid_token"));
}

#[test]
fn a_token_that_cannot_be_redeemed_does_not_pass() {
    let f = Fixture::new();
    for (answer, status) in [
        (Redeemed::AlreadyUsed, 401),
        (Redeemed::Revoked, 401),
        (Redeemed::Unavailable, 503),
        (Redeemed::Yes, 200),
    ] {
        *f.outside.redemption.lock().unwrap() = Some(answer);
        let result = f.with_grant(l3("refund", &refund()), call("refund", refund()));
        assert_eq!(result.map_or_else(|refusal| refusal.status, |_| 200), status);
    }
}

#[test]
fn a_call_that_cannot_run_spends_no_token() {
    let f = Fixture::new();
    let token = f.sign(&f.claims(l3("refund", &refund())));
    let send = |body: Value| f.send(&f.request(&token, body));
    *f.outside.admission.lock().unwrap() = Some(Admission::Unavailable);
    let refusal = send(call("refund", refund())).unwrap_err();
    assert_eq!((refusal.status, refusal.retry_after_seconds), (503, Some(1)));
    *f.outside.admission.lock().unwrap() = Some(Admission::Limited { retry_after_seconds: 7 });
    let refusal = send(call("refund", refund())).unwrap_err();
    assert_eq!((refusal.status, refusal.retry_after_seconds), (429, Some(7)));
    *f.outside.admission.lock().unwrap() = None;
    out_of_scope(send(call("refund", json!({}))));
    out_of_scope(send(call("lookup", refund())));
    assert!(f.outside.redeemed.lock().unwrap().is_empty());
    assert!(send(call("refund", refund())).is_ok());
}

#[test]
fn steering_a_retry_is_part_of_the_call() {
    let f = Fixture::new();
    let mut steered = call("refund", refund());
    steered["params"]["inputResponses"] = json!({ "confirm": true });
    out_of_scope(f.with_grant(l3("refund", &refund()), steered.clone()));
    steered["params"]["name"] = json!("transfer");
    let constraints = json!({ "/payment_id": { "enum": ["pay_81"] }, "/amount_cents": { "maximum": 5000 },
        "/lines/0/sku": { "enum": ["a"] }, "/lines/0/n": { "enum": [1] } });
    let mut unsteered = steered.clone();
    unsteered["params"].as_object_mut().unwrap().remove("inputResponses");
    assert!(f.with_grant(l2("transfer", constraints.clone(), 1), unsteered).is_ok());
    out_of_scope(f.with_grant(l2("transfer", constraints, 1), steered));
    // `_meta` and the id are outside: retries change them.
    let mut retried = call("refund", refund());
    retried["params"]["_meta"] = json!({ "progressToken": 7 });
    retried["id"] = json!("another");
    assert!(f.with_grant(l3("refund", &refund()), retried).is_ok());
}

#[test]
fn l2_admits_what_its_constraints_admit_as_often_as_it_says() {
    let f = Fixture::new();
    let constraints =
        json!({ "/payment_id": { "enum": ["a", "b"] }, "/amount_cents": { "minimum": 1, "maximum": 100 } });
    let token = f.sign(&f.claims(l2("transfer", constraints, 2)));
    let send = |arguments: Value| f.send(&f.request(&token, call("transfer", arguments)));
    out_of_scope(send(json!({ "payment_id": "c", "amount_cents": 5 })));
    out_of_scope(send(json!({ "payment_id": "a", "amount_cents": 101 })));
    out_of_scope(send(json!({ "payment_id": "a", "amount_cents": 5, "note": "unconstrained" })));
    out_of_scope(send(json!({ "payment_id": "a" })));
    assert!(send(json!({ "payment_id": "a", "amount_cents": 5 })).is_ok());
    assert!(send(json!({ "payment_id": "b", "amount_cents": 100 })).is_ok());
    let spent = send(json!({ "payment_id": "a", "amount_cents": 5 })).unwrap_err();
    assert_eq!((spent.status, spent.error), (401, "invalid_token"));
}

#[test]
fn a_tool_never_takes_a_looser_token_than_its_least_level() {
    let f = Fixture::new();
    let constraints = json!({ "/payment_id": { "enum": ["pay_81"] } });
    let arguments = json!({ "payment_id": "pay_81" });
    for (tool, grant, passes) in [
        ("lookup", l0(), false),
        ("lookup", l1("lookup"), true),
        ("lookup", l3("lookup", &arguments), true),
        ("transfer", l1("transfer"), false),
        ("transfer", l2("transfer", constraints.clone(), 1), true),
        ("refund", l1("refund"), false),
        ("refund", l2("refund", constraints, 1), false),
        ("refund", l3("refund", &arguments), true),
    ] {
        let result = f.with_grant(grant.clone(), call(tool, arguments.clone()));
        assert_eq!(result.is_ok(), passes, "{tool} {grant}");
    }
}

#[test]
fn l0_looks_and_nothing_else_looks() {
    let f = Fixture::new();
    for method in LISTING_METHODS {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let Ok(Verified::Listing(listing)) = f.with_grant(l0(), body.clone()) else { panic!("{method}") };
        assert_eq!(listing.method(), method);
        out_of_scope(f.with_grant(l1("lookup"), body.clone()));
        out_of_scope(f.with_grant(l3("refund", &refund()), body));
    }
}

#[test]
fn arguments_satisfy_the_schema_with_nothing_unknown() {
    let f = Fixture::new();
    for (arguments, valid) in [
        (json!({ "payment_id": "p" }), true),
        (json!({ "payment_id": 1 }), false),
        (json!({ "unknown": 1 }), false),
        (json!({ "lines": [{ "sku": 1, "unknown": 2 }] }), false),
    ] {
        assert_eq!(
            f.with_grant(l1("lookup"), call("lookup", arguments.clone())).is_ok(),
            valid,
            "{arguments}"
        );
        // Even a token for exactly these arguments does not make them valid.
        let exact = f.with_grant(l3("refund", &arguments), call("refund", arguments.clone()));
        assert_eq!(exact.is_ok(), valid, "{arguments}");
    }
}

#[test]
fn what_is_forwarded_is_what_was_verified() {
    let f = Fixture::new();
    let token = f.sign(&f.claims(l1("lookup")));
    let mut request = f.request(&token, json!(null));
    request.body = br#" { "params" : {"arguments":{"note":"\u0041"},"name":"lookup"},"method":"tools/call","id":7,"jsonrpc":"2.0" } "#.to_vec();
    request.header("Cookie", "a=b");
    request.header("Mcp-Name", "lookup");
    let call = verified(f.send(&request));
    let forwarded: Value = serde_json::from_slice(call.rebuilt_body()).unwrap();
    assert_eq!(
        forwarded,
        json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": { "name": "lookup", "arguments": { "note": "A" } } })
    );
    let names = call.forwarded_headers().map(|(name, _)| name);
    assert_eq!(names, ["Content-Type", "Mcp-Method", "Mcp-Name", "Deputize-Call"]);
    assert_eq!(call.forwarded_headers()[3].1, token);
    let shown = format!("{call:?}");
    assert!(!shown.contains(&token) && !shown.contains("note"), "{shown}");
}

#[test]
fn errors_name_no_values() {
    let f = Fixture::new();
    let canary = json!({ "payment_id": ["canary-value"] });
    let refusal = f.with_grant(l1("lookup"), call("lookup", canary)).unwrap_err();
    assert!(!refusal.description.contains("canary"), "{}", refusal.description);
    assert!(refusal.challenges.iter().all(|challenge| !challenge.contains("canary")));
}
