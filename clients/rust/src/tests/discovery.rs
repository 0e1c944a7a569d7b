//! Where the endpoints are, and whom to believe about it.

use super::stub::*;
use crate::*;
use serde_json::{Value, json};

fn metadata(issuer: &str) -> Value {
    json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/elsewhere/token"),
        "introspection_endpoint": format!("{issuer}/elsewhere/introspect") })
}

#[tokio::test]
async fn endpoints_are_discovered_once() {
    let stub = Stub::start().await;
    let client = stub.discovering().build().unwrap();
    stub.will(Answer::json(200, metadata(&stub.issuer)))
        .will(Answer::token("a", json!({ "call_digest": "d" })))
        .will(Answer::json(200, json!({ "active": false })))
        .will(Answer::json(200, json!({ "redeemed": true })));
    client.exchange(&request()).await.unwrap();
    assert!(!client.introspect("t").await.unwrap().active);
    client.redeem("t").await.unwrap();
    let lines: Vec<String> = stub.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "GET /.well-known/oauth-authorization-server HTTP/1.1",
            "POST /elsewhere/token HTTP/1.1",
            "POST /elsewhere/introspect HTTP/1.1",
            "POST /redeem HTTP/1.1",
        ]
    );
}

#[tokio::test]
async fn metadata_of_another_issuer_or_with_unsafe_endpoints_is_refused() {
    let stub = Stub::start().await;
    let mut unsafe_endpoint = metadata(&stub.issuer);
    unsafe_endpoint["token_endpoint"] = json!("http://attacker.example/token");
    let mut no_endpoint = metadata(&stub.issuer);
    no_endpoint.as_object_mut().unwrap().remove("token_endpoint");
    for answer in [
        Answer::json(200, metadata("https://attacker.example")),
        Answer::json(200, metadata(&format!("{}/", stub.issuer))),
        Answer::json(200, unsafe_endpoint),
        Answer::json(200, no_endpoint),
        Answer::json(404, metadata(&stub.issuer)),
        Answer::json(302, json!({})).header("location", "/elsewhere"),
        Answer::raw(200, b"<html>".to_vec()),
    ] {
        let client = stub.discovering().build().unwrap();
        stub.will(answer);
        let refused = client.exchange(&request()).await;
        assert!(matches!(refused, Err(ExchangeError::Protocol(_))), "{refused:?}");
        assert_eq!(stub.asked().len(), 1, "nothing was sent to an endpoint");
    }
}

#[tokio::test]
async fn a_failed_discovery_is_tried_again() {
    let stub = Stub::start().await;
    let client = stub.discovering().build().unwrap();
    stub.will(Answer::json(503, json!({})));
    assert!(client.exchange(&request()).await.is_err());
    stub.will(Answer::json(200, metadata(&stub.issuer))).will(Answer::token("a", json!({})));
    assert!(client.exchange(&request()).await.is_ok());
}

#[tokio::test]
async fn the_well_known_path_comes_before_the_issuers_own() {
    let stub = Stub::start().await;
    let issuer = format!("{}/tenant", stub.issuer);
    let client = Client::builder(&issuer, "agent").private_key_jwt(key()).build().unwrap();
    assert!(client.exchange(&request()).await.is_err());
    assert_eq!(stub.asked()[0].line, "GET /.well-known/oauth-authorization-server/tenant HTTP/1.1");
}

#[test]
fn clear_text_is_for_loopback_alone() {
    let build = |issuer: &str| Client::builder(issuer, "agent").private_key_jwt(key()).build();
    for good in ["https://deputize.example.com", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"]
    {
        assert!(build(good).is_ok(), "{good}");
    }
    for bad in [
        "http://deputize.example.com",
        "http://127.0.0.1.example.com",
        "ftp://x.example",
        "x",
        "https://u@x.example",
    ] {
        assert!(matches!(build(bad), Err(BuildError::Url(_))), "{bad}");
    }
    let endpoint = Client::builder("https://deputize.example.com", "agent").private_key_jwt(key());
    assert!(matches!(endpoint.token_endpoint("http://x.example/token").build(), Err(BuildError::Url(_))));
}

#[test]
fn a_client_needs_a_credential_and_readable_certificates() {
    let builder = || Client::builder("https://deputize.example.com", "agent");
    assert!(matches!(builder().build(), Err(BuildError::NoCredential)));
    for pem in ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let built = builder().bootstrap_secret("s").ca_pem(pem).build();
        assert!(matches!(built, Err(BuildError::CaPem(_))), "{pem}");
    }
}

#[test]
fn a_client_certificate_has_to_be_one_and_its_key_has_to_be_its_own() {
    let made = || rcgen::generate_simple_self_signed(["agent.example.com".to_owned()]).unwrap();
    let (own, other) = (made(), made());
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let build = |certificate: &str, key: &str, roots: Option<&str>| {
        let builder = Client::builder("https://deputize.example.com", "agent");
        let builder = builder.client_certificate(certificate, key);
        match roots {
            Some(roots) => builder.ca_pem(roots).build(),
            None => builder.build(),
        }
    };
    // With roots of its own and with the platform's.
    for roots in [None, Some(certificate.as_str())] {
        assert!(build(&certificate, &key, roots).is_ok());
        let other = other.signing_key.serialize_pem();
        for (certificate, key) in
            [("", &key), (&certificate, &String::new()), (&key, &key), (&certificate, &other)]
        {
            let built = build(certificate, key, roots);
            assert!(matches!(built, Err(BuildError::ClientCertificate(_))), "{built:?}");
        }
    }
}
