//! What every call must bring, and what no call gets.

use crate::client::{Client, Wire, open, open_with, open_with_entry, secured, web};
use deputize_workload_api::{
    Limits,
    fakes::{FakeProcess, entry},
    peer::NotAttested,
    proto::{JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest},
    source::SourceError,
};
use spiffe::SpiffeId;
use std::sync::Arc;
use tonic::{Code, Request};

/// The code of each method's answer, the metadata as `with` makes it.
async fn codes(client: &mut Client, with: fn(&mut tonic::metadata::MetadataMap)) -> Vec<Code> {
    fn request<T>(message: T, with: fn(&mut tonic::metadata::MetadataMap)) -> Request<T> {
        let mut request = Request::new(message);
        with(request.metadata_mut());
        request
    }
    let jwt = JwtsvidRequest { audience: vec!["db".into()], spiffe_id: String::new() };
    let validate = ValidateJwtsvidRequest { audience: "db".into(), svid: "x".into() };
    let code = |error: Option<tonic::Status>| error.map_or(Code::Ok, |error| error.code());
    vec![
        code(client.fetch_x509svid(request(X509svidRequest {}, with)).await.err()),
        code(client.fetch_x509_bundles(request(X509BundlesRequest {}, with)).await.err()),
        code(client.fetch_jwtsvid(request(jwt, with)).await.err()),
        code(client.fetch_jwt_bundles(request(JwtBundlesRequest {}, with)).await.err()),
        code(client.validate_jwtsvid(request(validate, with)).await.err()),
    ]
}

fn secure(metadata: &mut tonic::metadata::MetadataMap) {
    metadata.insert("workload.spiffe.io", "true".parse().unwrap());
}

#[tokio::test]
async fn without_the_security_header_no_method_answers() {
    let door = open_with_entry();
    let mut client = door.client().await;
    let ways: [fn(&mut tonic::metadata::MetadataMap); 5] = [
        |_| {},
        |metadata| _ = metadata.insert("workload.spiffe.io", "True".parse().unwrap()),
        |metadata| _ = metadata.insert("workload.spiffe.io", "".parse().unwrap()),
        |metadata| _ = metadata.insert("workload.spiffe.io", "true,true".parse().unwrap()),
        |metadata| {
            metadata.append("workload.spiffe.io", "true".parse().unwrap());
            metadata.append("workload.spiffe.io", "false".parse().unwrap());
        },
    ];
    for way in ways {
        assert_eq!(codes(&mut client, way).await, [Code::InvalidArgument; 5]);
    }
    assert_eq!(door.process.attested(), 0, "nobody was even looked at");
    let with = codes(&mut client, secure).await;
    // The token to be validated is none.
    assert_eq!(with, [Code::Ok, Code::Ok, Code::Ok, Code::Ok, Code::InvalidArgument]);
}

#[tokio::test]
async fn whoever_has_no_entry_is_denied_everything() {
    let door = open();
    let mut client = door.client().await;
    assert_eq!(codes(&mut client, secure).await, [Code::PermissionDenied; 5]);
    assert_eq!(door.source.denials(), 5);
    // Each says what to ask `explain` about.
    let refused = client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap_err();
    let said = refused.metadata().get("decision_id").unwrap().to_str().unwrap();
    assert_eq!(said, uuid::Uuid::from_u128(6).to_string());
    // Another user's, another node's, and one that has ended.
    let mut ended = web();
    ended.expires_at_seconds = Some(1);
    door.source.set_entries(vec![
        entry("a", "spiffe://example.org/a", crate::client::NODE, 8).unwrap(),
        entry("b", "spiffe://example.org/b", "spiffe://example.org/other", crate::client::USER).unwrap(),
        ended,
    ]);
    assert_eq!(codes(&mut client, secure).await, [Code::PermissionDenied; 5]);
    assert_eq!(door.source.made(), 0);
    door.source.set_entries(vec![web()]);
    assert_eq!(codes(&mut client, secure).await[0], Code::Ok);
}

#[tokio::test]
async fn who_cannot_be_attested_is_denied() {
    let door = open_with_entry();
    let mut client = door.client().await;
    for (why, code) in [
        (NotAttested::Foreign("elsewhere"), Code::PermissionDenied),
        (NotAttested::Changed("another program"), Code::PermissionDenied),
        (NotAttested::Unreadable("no /proc"), Code::PermissionDenied),
        (NotAttested::Unavailable("busy"), Code::Unavailable),
    ] {
        door.process.set_found(Err(why));
        assert_eq!(codes(&mut client, secure).await, [code; 5]);
    }
    // Nobody is let in of whom nothing is known.
    door.reception.set(Err(NotAttested::Gone));
    assert!(door.try_x509().await.is_none());
}

#[tokio::test]
async fn while_nothing_can_be_made_the_answer_is_unavailable() {
    let door = open_with_entry();
    door.source.set_failure(Some(SourceError::Unavailable("the record is not durable")));
    let mut client = door.client().await;
    let codes = codes(&mut client, secure).await;
    assert_eq!((codes[0], codes[2]), (Code::Unavailable, Code::Unavailable));
    assert_eq!((codes[1], codes[3]), (Code::Ok, Code::Ok), "bundles need none");
}

#[tokio::test]
async fn methods_that_are_not_served_are_unimplemented() {
    let door = open_with_entry();
    let wire = Wire::connect(&door.path).await;
    let mut grpc = tonic::client::Grpc::with_origin(wire, http::Uri::from_static("http://localhost"));
    for path in [
        "/SpiffeWorkloadAPI/FetchWITSVID",
        "/SpiffeWorkloadAPI/FetchWITBundles",
        "/SpiffeWorkloadAPI/Nothing",
        "/Elsewhere/FetchX509SVID",
    ] {
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<X509svidRequest, deputize_workload_api::proto::X509svidResponse>::default();
        let path = path.parse().unwrap();
        let refused = grpc.unary(secured(X509svidRequest {}), path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn one_user_cannot_starve_another() {
    let limits = Limits { calls: 6, calls_of_one_user: 3, ..Limits::default() };
    let door = open_with(limits);
    let other = entry("other", "spiffe://example.org/other", crate::client::NODE, 8).unwrap();
    door.source.set_entries(vec![web(), other]);
    let mut client = door.client().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap());
    }
    let refused = client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let process = FakeProcess::new(SpiffeId::new(crate::client::NODE).unwrap(), 8);
    door.reception.set(Ok(Arc::new(process)));
    door.client().await.fetch_x509svid(secured(X509svidRequest {})).await.unwrap();
    // Places that are left are free again.
    streams.clear();
    for _ in 0..200 {
        if client.fetch_x509svid(secured(X509svidRequest {})).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no place became free");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_the_next_is_served() {
    let limits = Limits { connections_of_one_user: 2, ..Limits::default() };
    let door = open_with(limits);
    door.source.set_entries(vec![web()]);
    let first = door.x509().await;
    let _second = door.x509().await;
    assert!(door.try_x509().await.is_none());
    drop(first);
    door.is_served_soon().await;
}

#[tokio::test]
async fn reflection_tells_of_the_service_and_demands_the_header_too() {
    let door = open_with_entry();
    let wire = Wire::connect(&door.path).await;
    let mut grpc = tonic::client::Grpc::with_origin(wire, http::Uri::from_static("http://localhost"));
    for version in ["v1", "v1alpha"] {
        for (is_secured, code) in [(true, Code::Ok), (false, Code::InvalidArgument)] {
            grpc.ready().await.unwrap();
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let codec = tonic_prost::ProstCodec::<ListServices, Listed>::default();
            let ask = tokio_stream::iter([ListServices { list_services: "*".into() }]);
            let request = if is_secured { secured(ask) } else { Request::new(ask) };
            match grpc.streaming(request, path.parse().unwrap(), codec).await {
                Ok(mut answers) => {
                    let listed = answers.get_mut().message().await.unwrap().unwrap();
                    let text = format!("{listed:?}");
                    assert!(text.contains("SpiffeWorkloadAPI"), "{text}");
                    assert!(text.contains("deputize.exchange.v1.DelegatedExchange"), "{text}");
                    assert_eq!(code, Code::Ok);
                }
                Err(refused) => assert_eq!(refused.code(), code, "{refused:?}"),
            }
        }
    }
}

/// Of the reflection protocol, what lists services.
#[derive(Clone, PartialEq, prost::Message)]
struct ListServices {
    #[prost(string, tag = "7")]
    list_services: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, optional, tag = "6")]
    list: Option<List>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}
