//! What is not exactly one request is refused before anything is asked of the token (H-31).

use super::fixture::*;
use crate::*;
use serde_json::json;

fn granted(f: &Fixture, change: impl FnOnce(&mut Request)) -> Result<Verified, Box<Refusal>> {
    let token = f.sign(&f.claims(l1("lookup")));
    let mut request = f.request(&token, call("lookup", json!({ "payment_id": "p" })));
    change(&mut request);
    f.send(&request)
}

fn refused_body(f: &Fixture, body: &str) -> Refusal {
    let refusal = granted(f, |request| request.body = body.as_bytes().to_vec()).unwrap_err();
    assert_eq!(refusal.error, "invalid_request", "{body}");
    *refusal
}

#[test]
fn one_request_is_one_call() {
    let f = Fixture::new();
    assert!(granted(&f, |_| {}).is_ok());
    let one = call("lookup", json!({})).to_string();
    for body in [
        format!("[{one},{one}]"),
        format!("[{one}]"),
        "[]".into(),
        format!("{one}{one}"),
        format!("{one} x"),
        format!("{one}\n{one}"),
        one[..one.len() - 1].to_owned(),
        String::new(),
        "null".into(),
        "\"tools/call\"".into(),
        "\u{feff}".to_owned() + &one,
    ] {
        assert_eq!(refused_body(&f, &body).status, 400, "{body}");
    }
    assert_eq!(granted(&f, |request| request.body.push(0xff)).unwrap_err().status, 400);
    // White space around one value is still one value.
    assert!(granted(&f, |request| request.body.extend(b" \n")).is_ok());
}

#[test]
fn nothing_stands_twice_or_beside() {
    let f = Fixture::new();
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping","params":{"name":"lookup"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","name":"lookup"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"note":"a","note":"b"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"ping","params":{"name":"lookup"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","task":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup"},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"amount_cents":1e300}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"note":"\ud800"}}}"#,
    ] {
        assert_eq!(refused_body(&f, body).status, 400);
    }
}

#[test]
fn every_member_has_its_type() {
    let f = Fixture::new();
    for (pointer, values) in [
        ("/id", vec![json!({}), json!([]), json!(null), json!(true), json!(1.5)]),
        ("/jsonrpc", vec![json!("1.0"), json!(2), json!(null)]),
        ("/method", vec![json!(1), json!(null), json!(["tools/call"])]),
        ("/params", vec![json!([]), json!("lookup"), json!(null)]),
        ("/params/name", vec![json!(1), json!(null), json!(["lookup"])]),
        ("/params/arguments", vec![json!([]), json!("x"), json!(null)]),
    ] {
        for value in values {
            let mut body = call("lookup", json!({}));
            *body.pointer_mut(pointer).unwrap() = value;
            assert_eq!(refused_body(&f, &body.to_string()).status, 400);
        }
    }
}

#[test]
fn a_notification_smuggles_no_call() {
    let f = Fixture::new();
    let mut smuggled = call("lookup", json!({}));
    smuggled.as_object_mut().unwrap().remove("id");
    assert_eq!(refused_body(&f, &smuggled.to_string()).status, 400);
    let asking = json!({ "jsonrpc": "2.0", "id": 1, "method": "notifications/cancelled" });
    assert_eq!(f.with_grant(l0(), asking).unwrap_err().status, 400);
    let notification =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    assert!(matches!(f.with_grant(l0(), notification.clone()), Ok(Verified::Listing(_))));
    assert_eq!(f.with_grant(l1("lookup"), notification).unwrap_err().error, "insufficient_scope");
}

#[test]
fn a_response_is_one_and_needs_a_token_that_looks() {
    let f = Fixture::new();
    let result = json!({ "jsonrpc": "2.0", "id": 5, "result": { "action": "accept" } });
    let error = json!({ "jsonrpc": "2.0", "id": "a", "error": { "code": -1, "message": "no" } });
    for response in [&result, &error] {
        let Ok(Verified::Response(verified)) = f.with_grant(l0(), response.clone()) else {
            panic!("{response}")
        };
        assert_eq!(*verified.id(), response["id"]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(verified.rebuilt_body()).unwrap(), *response);
        assert_eq!(f.with_grant(l1("lookup"), response.clone()).unwrap_err().status, 403);
    }
    for (pointer, value) in [
        ("/id", json!(null)),
        ("/id", json!({})),
        ("/result", json!("text")),
        ("/error", json!({ "code": -1, "message": "no" })),
        ("/method", json!("ping")),
        ("/params", json!({})),
        ("/other", json!({})),
    ] {
        let mut body = result.clone();
        body.as_object_mut().unwrap().insert(pointer[1..].to_owned(), value);
        assert_eq!(f.with_grant(l0(), body.clone()).unwrap_err().status, 400, "{body}");
    }
    for error in [json!({ "code": "x", "message": "no" }), json!({ "code": 1 }), json!([])] {
        let body = json!({ "jsonrpc": "2.0", "id": 5, "error": error });
        assert_eq!(f.with_grant(l0(), body.clone()).unwrap_err().status, 400, "{body}");
    }
    let mut named = f.request(&f.sign(&f.claims(l0())), result);
    named.header("Mcp-Method", "tools/call");
    assert_eq!(f.send(&named).unwrap_err().status, 400, "a response has no method");
}

#[test]
fn a_stream_needs_a_token_that_looks_and_a_proof_of_its_method() {
    let f = Fixture::new();
    let verify = |detail, proven: &'static str, method: &str, body: &[u8]| {
        let token = f.sign(&f.claims(detail));
        let mut request = f.request(&token, json!(null));
        request.replace("DPoP", &f.proof(&token, |proof| proof.htm = proven));
        let headers: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (uptime, now_seconds) = (f.uptime, f.now);
        let call = IncomingCall {
            method,
            headers: &headers,
            body,
            client_certificate: None,
            caller: crate::Caller::default(),
            uptime,
            now_seconds,
        };
        block_on(f.guard.verify_stream(&call)).map(|stream| stream.claims().sub.clone()).map_err(|r| r.status)
    };
    for method in ["GET", "DELETE"] {
        assert_eq!(verify(l0(), method, method, b""), Ok("user:acme:x:alice".to_owned()));
        assert_eq!(verify(l1("lookup"), method, method, b""), Err(403));
        assert_eq!(verify(l0(), "POST", method, b""), Err(401));
        assert_eq!(verify(l0(), method, method, b"{}"), Err(400));
    }
    assert_eq!(verify(l0(), "POST", "POST", b""), Err(405));
}

#[test]
fn servers_are_not_told_of_the_clients_model() {
    let f = Fixture::new();
    let capabilities = json!({ "sampling": {}, "roots": {} });
    let begin = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "capabilities": capabilities } });
    let Ok(Verified::Listing(listing)) = f.with_grant(l0(), begin) else { panic!("refused") };
    let sent: serde_json::Value = serde_json::from_slice(listing.rebuilt_body()).unwrap();
    assert_eq!(sent["params"]["capabilities"], json!({ "roots": {} }));
    let mut asked = call("lookup", json!({ "note": "sampling" }));
    asked["params"]["_meta"] =
        json!({ "io.modelcontextprotocol/clientCapabilities": capabilities, "other": 1 });
    let Ok(Verified::Call(verified)) = f.with_grant(l1("lookup"), asked.clone()) else { panic!("refused") };
    asked["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "roots": {} });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(verified.rebuilt_body()).unwrap(), asked);
}

#[test]
fn unknown_methods_have_no_token() {
    let f = Fixture::new();
    for method in [
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "tasks/result",
        "sampling/createMessage",
        "tools/Call",
        "",
        "tools/call ",
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "name": "lookup" } });
        for grant in [l0(), l1("lookup")] {
            assert_eq!(f.with_grant(grant, body.clone()).unwrap_err().status, 403, "{method}");
        }
    }
}

#[test]
fn sizes_methods_and_media_types_are_bounded() {
    let f = Fixture::with(|config| config.max_body_bytes = 1000);
    let long = call("lookup", json!({ "note": "x".repeat(1000) })).to_string();
    assert_eq!(granted(&f, |request| request.body = long.into_bytes()).unwrap_err().status, 413);
    for method in ["GET", "PUT", "DELETE", "post"] {
        assert_eq!(granted(&f, |request| request.method = method.into()).unwrap_err().status, 405);
    }
    for media in ["text/plain", "application/json; charset=utf-16", "application/json-patch+json", ""] {
        assert_eq!(granted(&f, |r| r.replace("Content-Type", media)).unwrap_err().status, 415);
    }
    for media in ["Application/JSON", "application/json; charset=UTF-8"] {
        assert!(granted(&f, |r| r.replace("Content-Type", media)).is_ok(), "{media}");
    }
    for encoding in ["gzip", "br", "identity, gzip"] {
        let refusal = granted(&f, |r| r.header("Content-Encoding", encoding)).unwrap_err();
        assert_eq!(refusal.status, 415);
    }
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(f.with_grant(l1("lookup"), call("lookup", json!({ "note": deep }))).unwrap_err().status, 400);
}

#[test]
fn headers_say_what_the_body_says() {
    let f = Fixture::new();
    let with = |headers: &[(&str, &str)]| {
        granted(&f, |request| headers.iter().for_each(|(name, value)| request.header(name, value)))
    };
    assert!(
        with(&[("Mcp-Method", "tools/call"), ("mcp-name", "lookup"), ("Mcp-Param-Payment", "p")]).is_ok()
    );
    for wrong in [
        &[("Mcp-Method", "tools/list")][..],
        &[("Mcp-Method", "Tools/Call")],
        &[("Mcp-Name", "refund")],
        &[("Mcp-Name", "")],
        &[("Mcp-Name", "lookup"), ("mcp-name", "lookup")],
        &[("Mcp-Param-Payment", "q")],
        &[("Mcp-Param-Payment", "p"), ("mcp-param-payment", "p")],
        &[("Mcp-Param-Other", "p")],
    ] {
        assert_eq!(with(wrong).unwrap_err().status, 400, "{wrong:?}");
    }
    let token = f.sign(&f.claims(l0()));
    let mut named = f.request(&token, list());
    named.header("Mcp-Name", "lookup");
    assert_eq!(f.send(&named).unwrap_err().status, 400);
}

#[test]
fn ids_are_short_enough_to_be_remembered() {
    let f = Fixture::new();
    let with_id = |length: usize| {
        let mut body = call("lookup", json!({}));
        body["id"] = "x".repeat(length).into();
        body.to_string()
    };
    assert!(granted(&f, |request| request.body = with_id(256).into_bytes()).is_ok());
    refused_body(&f, &with_id(257));
}
