//! Every refusal of the broker has its own variant.

use super::stub::*;
use crate::*;
use serde_json::json;

async fn refused(answer: Answer) -> ExchangeError {
    let stub = Stub::start().await;
    let client = stub.client().build().unwrap();
    stub.will(answer);
    client.exchange(&request()).await.unwrap_err()
}

#[tokio::test]
async fn codes_become_variants_with_their_details() {
    let is = |code: &str, details: &ErrorDetails| {
        (details.code.as_str(), details.description.as_str(), details.decision_id.as_deref())
            == (code, "what to do", Some("dec-1"))
    };
    for (status, code) in [
        (400, "invalid_request"),
        (400, "invalid_target"),
        (400, "invalid_scope"),
        (400, "invalid_authorization_details"),
        (401, "invalid_client"),
        (400, "invalid_dpop_proof"),
        (400, "slow_down"),
        (400, "expired_token"),
        (413, "invalid_request"),
        (415, "invalid_request"),
        (400, "something_new"),
    ] {
        let error = refused(Answer::error(status, code)).await;
        let holds = match (&error, status, code) {
            (ExchangeError::Refused { status: said, details }, 413 | 415, _)
            | (ExchangeError::Refused { status: said, details }, _, "something_new") => {
                *said == status && is(code, details)
            }
            (ExchangeError::InvalidRequest(details), 400, "invalid_request")
            | (ExchangeError::InvalidTarget(details), _, "invalid_target")
            | (ExchangeError::InvalidScope(details), _, "invalid_scope")
            | (ExchangeError::InvalidAuthorizationDetails(details), _, "invalid_authorization_details")
            | (ExchangeError::InvalidClient(details), _, "invalid_client")
            | (ExchangeError::InvalidProof(details), _, "invalid_dpop_proof")
            | (ExchangeError::SlowDown(details), _, "slow_down")
            | (ExchangeError::Expired(details), _, "expired_token") => is(code, details),
            _ => false,
        };
        assert!(holds, "{status} {code}: {error:?}");
        assert!(error.to_string().contains("what to do (decision dec-1)"), "{error}");
    }
}

#[tokio::test]
async fn waiting_says_where_and_how_long() {
    let pending = json!({ "error": "authorization_pending", "approval_id": "apr-1", "interval": 2, "expires_in": 300,
        "approval_uri": "https://deputize.example.com/approvals/apr-1", "decision_id": "dec-1" });
    let expected = ExchangeError::Waiting {
        approval_id: "apr-1".into(),
        approval_uri: Some("https://deputize.example.com/approvals/apr-1".into()),
        interval_seconds: 2,
        expires_in_seconds: 300,
        decision_id: Some("dec-1".into()),
    };
    assert_eq!(refused(Answer::json(400, pending)).await, expected);
    let nameless = refused(Answer::error(400, "authorization_pending")).await;
    assert!(matches!(nameless, ExchangeError::Protocol(_)));
}

#[tokio::test]
async fn a_denial_says_who_denied() {
    for (said, reason) in [
        ("policy", DenialReason::Policy),
        ("approval_required", DenialReason::ApprovalRequired),
        ("human", DenialReason::Human),
        ("else", DenialReason::Other),
    ] {
        let error = refused(Answer::json(400, json!({ "error": "access_denied", "reason": said }))).await;
        assert!(matches!(error, ExchangeError::AccessDenied { reason: is, .. } if is == reason), "{error:?}");
    }
}

#[tokio::test]
async fn a_step_up_says_what_would_do() {
    let body =
        json!({ "error": "insufficient_user_authentication", "acr_values": "phr phrh", "max_age": 300 });
    let ExchangeError::InsufficientUserAuthentication { acr_values, max_age_seconds, .. } =
        refused(Answer::json(400, body)).await
    else {
        panic!("another error")
    };
    assert_eq!((acr_values, max_age_seconds), (vec!["phr".to_owned(), "phrh".to_owned()], Some(300)));
}

#[tokio::test]
async fn rates_and_outages_say_when_to_come_back() {
    let limited = refused(Answer::error(429, "temporarily_unavailable").header("Retry-After", "7")).await;
    assert!(
        matches!(limited, ExchangeError::RateLimited { retry_after_seconds: Some(7), .. }),
        "{limited:?}"
    );
    let down = refused(Answer::error(503, "temporarily_unavailable").header("Retry-After", "1")).await;
    assert!(matches!(down, ExchangeError::Unavailable { retry_after_seconds: Some(1), .. }), "{down:?}");
    let gateway = refused(Answer::raw(502, b"<html>".to_vec())).await;
    assert!(matches!(gateway, ExchangeError::Unavailable { retry_after_seconds: None, .. }), "{gateway:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_a_protocol_violation() {
    let mut bearer = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60, "scope": "s",
        "authorization_details": [], "transaction_id": "x", "decision_id": "d" });
    assert!(matches!(refused(Answer::json(200, bearer.clone())).await, ExchangeError::Protocol(_)));
    bearer["token_type"] = json!("dpop");
    bearer.as_object_mut().unwrap().remove("scope");
    assert!(matches!(refused(Answer::json(200, bearer)).await, ExchangeError::Protocol(_)));
    assert!(matches!(refused(Answer::raw(200, Vec::new())).await, ExchangeError::Protocol(_)));
    assert!(matches!(refused(Answer::raw(200, vec![b' '; 300_000])).await, ExchangeError::Protocol(_)));
    let moved = refused(Answer::raw(307, Vec::new()).header("Location", "http://127.0.0.1:1/")).await;
    assert!(matches!(moved, ExchangeError::Refused { status: 307, .. }), "{moved:?}");
}

#[tokio::test]
async fn words_of_the_broker_are_shown_without_control_characters() {
    let text = format!("line\n\u{1b}[31mred{}", "x".repeat(10_000));
    let error =
        refused(Answer::json(400, json!({ "error": "invalid_scope", "error_description": text }))).await;
    let shown = error.to_string();
    assert!(shown.len() < 1000 && !shown.contains(['\n', '\u{1b}']), "{shown}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let client = Client::builder("http://127.0.0.1:1", "agent")
        .bootstrap_secret("canary-secret")
        .token_endpoint("http://127.0.0.1:1/token?canary")
        .build()
        .unwrap();
    let error = client.exchange(&request()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable(_)), "{error:?}");
    assert!(!error.to_string().contains("canary"), "{error}");
}
