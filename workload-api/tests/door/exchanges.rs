//! Delegated exchange, beside the Workload API on its socket.

use crate::client::{Door, NODE, USER, Wire, open, open_with, open_with_entry, secured, web};
use deputize_issuer::{
    client::Reach,
    entry::{Entry, Exchange},
    error::{DenialReason, IssueError},
    words::Words,
};
use deputize_workload_api::{
    Limits,
    exchange::NotExchanged,
    fakes::{FakeProcess, entry},
    peer::NotAttested,
    proto::exchange::{
        ExchangeRequest, ExchangeResponse, delegated_exchange_client::DelegatedExchangeClient,
    },
    reception::Process as _,
    source::SourceError,
};
use spiffe::SpiffeId;
use tonic::{Code, Request, Status};
use uuid::Uuid;

/// This entry, which lets exchange.
fn exchanging(entry: Entry) -> Entry {
    let may_call = vec![Reach { resource: "*".to_owned(), tools: None, prompts: None, resources: None }];
    let exchange =
        Exchange { tenant: "acme".to_owned(), subject_audiences: vec!["platform".to_owned()], may_call };
    Entry { exchange: Some(exchange), ..entry }
}

async fn client(door: &Door) -> DelegatedExchangeClient<Wire> {
    DelegatedExchangeClient::with_origin(
        Wire::connect(&door.path).await,
        http::Uri::from_static("http://localhost"),
    )
}

async fn exchange(door: &Door, spiffe_id: &str) -> Result<ExchangeResponse, Status> {
    let request = ExchangeRequest { spiffe_id: spiffe_id.to_owned(), ..ExchangeRequest::default() };
    client(door).await.exchange(secured(request)).await.map(tonic::Response::into_inner)
}

fn code(answer: Result<ExchangeResponse, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn the_one_identity_that_may_exchange_acts_and_of_several_the_one_that_is_named() {
    let door = open();
    let id = |name: &str| format!("spiffe://example.org/{name}");
    let of = |name: &str| entry(name, &id(name), NODE, USER).unwrap();
    let others = entry("others", &id("others"), NODE, USER + 1).unwrap();
    let again = entry("again", &id("a"), NODE, USER).unwrap();
    door.source.set_entries(vec![of("plain"), exchanging(of("a")), exchanging(again)]);
    let token = exchange(&door, "").await.unwrap();
    assert!(token.access_token.ends_with(&id("a")), "{}", token.access_token);
    door.source.set_entries(vec![of("plain"), exchanging(of("a")), exchanging(of("b")), exchanging(others)]);
    assert_eq!(code(exchange(&door, "").await), Code::InvalidArgument, "names of entries do not decide");
    assert!(exchange(&door, &id("b")).await.unwrap().access_token.ends_with(&id("b")));
    for (wanted, expected) in [
        (id("plain"), Code::PermissionDenied),
        (id("others"), Code::PermissionDenied),
        (id("nobody"), Code::PermissionDenied),
        ("b".to_owned(), Code::InvalidArgument),
        (id("B/"), Code::InvalidArgument),
    ] {
        assert_eq!(code(exchange(&door, &wanted).await), expected, "{wanted}");
    }
    assert_eq!(door.source.made(), 2);
    assert!(!format!("{token:?}").contains(&token.access_token), "no token is printed");
}

#[tokio::test]
async fn the_header_attestation_and_an_entry_are_asked_for_as_for_svids() {
    let door = open_with_entry();
    let entitled = exchanging(web());
    assert_eq!(code(exchange(&door, "").await), Code::PermissionDenied, "its entry has no exchange");
    door.source.set_entries(vec![entitled]);
    let unsecured = client(&door).await.exchange(Request::new(ExchangeRequest::default())).await;
    assert_eq!(unsecured.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(door.process.attested(), 1, "who sends no header is not even looked at");
    door.process.set_found(Err(NotAttested::Changed("another program")));
    assert_eq!(code(exchange(&door, "").await), Code::PermissionDenied);
    door.process.set_found(Err(NotAttested::Unavailable("busy")));
    assert_eq!(code(exchange(&door, "").await), Code::Unavailable);
    let other = open();
    assert_eq!(code(exchange(&other, "").await), Code::PermissionDenied);
    assert_eq!(other.source.denials(), 1, "who is entitled to nothing is on record");
    assert_eq!(door.source.made() + other.source.made(), 0);
}

#[tokio::test]
async fn a_process_that_became_another_meanwhile_gets_no_token() {
    let door = open_with_entry();
    door.source.set_entries(vec![exchanging(web())]);
    exchange(&door, "").await.unwrap();
    let other = FakeProcess::new(SpiffeId::new(NODE).unwrap(), USER + 1).attest().await;
    for found in [other, Err(NotAttested::Changed("another program")), Err(NotAttested::Gone)] {
        let before = door.process.attest().await;
        door.process.set_found_later(found);
        assert_eq!(code(exchange(&door, "").await), Code::PermissionDenied);
        door.process.set_found(before);
        exchange(&door, "").await.unwrap();
    }
}

#[tokio::test]
async fn each_refusal_has_its_status_and_says_in_the_metadata_what_the_token_endpoint_would() {
    let door = open_with_entry();
    door.source.set_entries(vec![exchanging(web())]);
    let decision_id = Uuid::from_u128(7);
    let text = String::new;
    let denied = IssueError::Denied(DenialReason::Policy { ids: Vec::new(), errors: Vec::new() });
    let sign_in =
        IssueError::UserAuthentication { acr_values: vec!["aal2".to_owned()], max_age_seconds: Some(60) };
    for (error, status, expected) in [
        (
            IssueError::NonceNeeded { nonce: "n1".to_owned() },
            Code::FailedPrecondition,
            &[("error", "use_dpop_nonce"), ("dpop-nonce", "n1")][..],
        ),
        (IssueError::Proof("proof_replayed"), Code::FailedPrecondition, &[("error", "invalid_dpop_proof")]),
        (
            sign_in,
            Code::FailedPrecondition,
            &[("error", "insufficient_user_authentication"), ("acr_values", "aal2"), ("max_age", "60")],
        ),
        (IssueError::Request("x"), Code::InvalidArgument, &[("error", "invalid_request")]),
        (
            IssueError::SubjectToken { reason: "x", detail: text() },
            Code::InvalidArgument,
            &[("error", "invalid_request")],
        ),
        (IssueError::Target("x"), Code::InvalidArgument, &[("error", "invalid_target")]),
        (IssueError::Scope("x"), Code::InvalidArgument, &[("error", "invalid_scope")]),
        (
            IssueError::AuthorizationDetails { reason: "x", detail: text() },
            Code::InvalidArgument,
            &[("error", "invalid_authorization_details")],
        ),
        (denied, Code::PermissionDenied, &[("error", "access_denied"), ("reason", "policy")]),
        (
            IssueError::Denied(DenialReason::ApprovalRequired),
            Code::PermissionDenied,
            &[("error", "access_denied"), ("reason", "approval_required")],
        ),
        (IssueError::NotEntitled("x"), Code::PermissionDenied, &[("error", "access_denied")]),
        (
            IssueError::RateLimited { retry_after_seconds: 3 },
            Code::ResourceExhausted,
            &[("error", "temporarily_unavailable"), ("retry-after", "3")],
        ),
        (
            IssueError::RecordUnavailable("x"),
            Code::Unavailable,
            &[("error", "temporarily_unavailable"), ("retry-after", "1")],
        ),
        (IssueError::Internal("x"), Code::Internal, &[("error", "server_error")]),
    ] {
        let words = Words::from(&error);
        let refusal = NotExchanged { words: words.clone(), decision_id: Some(decision_id) };
        door.source.set_not_exchanged(Some(refusal));
        let refused = exchange(&door, "").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (status, words.description.as_str()), "{error:?}");
        let said = |name: &str| refused.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        for (name, value) in expected {
            assert_eq!(said(name).as_deref(), Some(*value), "{error:?}: {name}");
        }
        assert_eq!(said("decision_id"), Some(decision_id.to_string()));
    }
    door.source.set_not_exchanged(None);
    door.source.set_failure(Some(SourceError::NotEntitled));
    assert_eq!(code(exchange(&door, "").await), Code::PermissionDenied, "the entry has gone meanwhile");
}

#[tokio::test]
async fn a_request_may_be_as_long_as_what_it_has_to_bring_and_no_longer() {
    let door = open_with_entry();
    door.source.set_entries(vec![exchanging(web())]);
    let of = |bytes: usize| ExchangeRequest {
        authorization_details: "d".repeat(bytes),
        ..ExchangeRequest::default()
    };
    let mut client = client(&door).await;
    let longest = client.exchange(secured(of(48 * 1024))).await.unwrap().into_inner();
    assert_eq!(longest.authorization_details.len(), 48 * 1024);
    let refused = client.exchange(secured(of(81 * 1024))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    client.exchange(secured(of(1))).await.unwrap();
}

#[tokio::test]
async fn exchanges_have_places_of_their_own() {
    let door = open_with(Limits { exchanges: 0, ..Limits::default() });
    door.source.set_entries(vec![exchanging(web())]);
    assert_eq!(code(exchange(&door, "").await), Code::Unavailable);
    assert!(door.try_x509().await.is_some(), "SVIDs do not suffer");
}
