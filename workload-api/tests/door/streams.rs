//! Streams: the whole state at once, another when it changed, and an end.

use crate::client::{NODE, USER, key, next, open, open_with_entry, secured, web};
use deputize_call::keys::KeySet;
use deputize_issuer::{svid::Bundle, workload::Workload};
use deputize_workload_api::{
    fakes::entry,
    proto::{JwtBundlesRequest, X509BundlesRequest, X509svidRequest},
};
use spiffe::{SpiffeId, TrustDomain};
use std::{collections::BTreeSet, sync::Arc};
use tonic::Code;

fn foreign(name: &str) -> Arc<Bundle> {
    Arc::new(Bundle {
        trust_domain: TrustDomain::new(name).unwrap(),
        x509_authorities: vec![b"their ".to_vec(), b"authorities".to_vec()],
        jwt_authorities: KeySet::default(),
        sequence: 1,
        refresh_hint_seconds: 300,
    })
}

#[tokio::test]
async fn the_first_state_has_everything_and_comes_at_once() {
    let door = open();
    let mut web = web();
    web.hint = "external".into();
    web.federates_with = vec![TrustDomain::new("partner.example").unwrap()];
    door.source.set_entries(vec![web]);
    door.source.change_bundles(|bundles| {
        bundles.federated = vec![foreign("partner.example"), foreign("stranger.example")];
    });
    let state = next(&mut door.x509().await).await.unwrap();
    let svid = &state.svids[0];
    assert_eq!(svid.spiffe_id, "spiffe://example.org/web");
    assert_eq!(svid.x509_svid, "leaf 1, intermediate");
    assert_eq!(svid.x509_svid_key, "key 1");
    assert_eq!(svid.bundle, "authority 1");
    assert_eq!(svid.hint, "external");
    let federated: Vec<_> =
        state.federated_bundles.iter().map(|(id, der)| (id.as_str(), der.as_ref())).collect();
    assert_eq!(federated, [("spiffe://partner.example", b"their authorities".as_slice())]);
    assert!(!format!("{state:?}").contains("key 1"), "no key is printed");
}

#[tokio::test]
async fn bundles_are_ours_and_those_that_an_entry_federates_with() {
    let door = open();
    let mut web = web();
    web.federates_with = vec![TrustDomain::new("partner.example").unwrap()];
    door.source.set_entries(vec![web]);
    door.source.change_bundles(|bundles| {
        bundles.federated = vec![foreign("partner.example"), foreign("stranger.example")];
    });
    let mut client = door.client().await;
    let x509 = client.fetch_x509_bundles(secured(X509BundlesRequest {})).await.unwrap();
    let state = next(&mut x509.into_inner()).await.unwrap();
    let ids: Vec<_> = state.bundles.keys().map(String::as_str).collect();
    assert_eq!(ids, ["spiffe://example.org", "spiffe://partner.example"]);
    let jwt = client.fetch_jwt_bundles(secured(JwtBundlesRequest {})).await.unwrap();
    let state = next(&mut jwt.into_inner()).await.unwrap();
    let ids: Vec<_> = state.bundles.keys().map(String::as_str).collect();
    assert_eq!(ids, ["spiffe://example.org", "spiffe://partner.example"]);
    let keys = KeySet::from_jwks(&state.bundles["spiffe://example.org"]).unwrap();
    let kids: Vec<_> = keys.iter().map(|key| key.kid().unwrap()).collect();
    assert_eq!(kids, [door.source.jwt_key().kid()]);
}

#[tokio::test]
async fn whoever_comes_again_gets_the_same() {
    let door = open_with_entry();
    let first = next(&mut door.x509().await).await.unwrap();
    let again = next(&mut door.x509().await).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(door.source.made(), 1);
}

#[tokio::test]
async fn an_entry_that_is_made_comes_to_open_streams() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    let looks = door.process.attested();
    let db = entry("db", "spiffe://example.org/db", NODE, USER).unwrap();
    door.source.set_entries(vec![web(), db]);
    let state = next(&mut stream).await.unwrap();
    let ids: Vec<_> = state.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/web", "spiffe://example.org/db"]);
    assert_eq!(state.svids[0].x509_svid_key, "key 1", "what did not change stays");
    assert_eq!(door.process.attested(), looks + 1, "it was looked at anew");
}

#[tokio::test]
async fn a_state_is_not_told_twice() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    // Changes that are none for this process.
    let other = entry("other", "spiffe://example.org/other", NODE, 8).unwrap();
    for _ in 0..10 {
        door.source.set_entries(vec![web(), other.clone()]);
        door.source.change_bundles(|bundles| bundles.federated = vec![foreign("stranger.example")]);
        tokio::task::yield_now().await;
    }
    let mut ours = web();
    ours.hint = "new".into();
    door.source.set_entries(vec![ours]);
    let state = next(&mut stream).await.unwrap();
    assert_eq!(state.svids[0].hint, "new", "the next that is told is the next that differs");
}

#[tokio::test]
async fn what_is_redacted_is_absent() {
    let door = open();
    let mut web = web();
    web.federates_with = vec![TrustDomain::new("partner.example").unwrap()];
    door.source.set_entries(vec![web]);
    door.source.change_bundles(|bundles| bundles.federated = vec![foreign("partner.example")]);
    let mut stream = door.x509().await;
    assert_eq!(next(&mut stream).await.unwrap().federated_bundles.len(), 1);
    door.source.change_bundles(|bundles| bundles.federated.clear());
    let state = next(&mut stream).await.unwrap();
    assert!(state.federated_bundles.is_empty());
    assert_eq!(key(&state), "key 1");
}

#[tokio::test]
async fn an_entry_that_is_deleted_ends_all_streams() {
    let door = open_with_entry();
    let mut client = door.client().await;
    let mut svids = client.fetch_x509svid(secured(X509svidRequest {})).await.unwrap().into_inner();
    let mut x509 = client.fetch_x509_bundles(secured(X509BundlesRequest {})).await.unwrap().into_inner();
    let mut jwt = client.fetch_jwt_bundles(secured(JwtBundlesRequest {})).await.unwrap().into_inner();
    next(&mut svids).await.unwrap();
    next(&mut x509).await.unwrap();
    next(&mut jwt).await.unwrap();
    door.source.set_entries(Vec::new());
    assert_eq!(next(&mut svids).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(next(&mut x509).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(next(&mut jwt).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(door.source.denials(), 3, "each is on record, once");
}

#[tokio::test]
async fn whoever_is_another_by_now_gets_nothing_more() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    // As after an exec: nothing is true of it any more that was.
    let nobody = Workload::attested(SpiffeId::new(NODE).unwrap(), BTreeSet::new());
    door.process.set_found(Ok(nobody));
    door.source.taint();
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(door.source.made(), 1, "nothing was made for it");
}

#[tokio::test]
async fn a_tainted_authority_has_a_new_svid_pushed() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    assert_eq!(key(&next(&mut stream).await.unwrap()), "key 1");
    door.source.taint();
    assert_eq!(key(&next(&mut stream).await.unwrap()), "key 2");
}

#[tokio::test]
async fn hints_are_unique() {
    let door = open();
    let entries = ["a", "b", "c", "d"].map(|name| {
        let mut entry = entry(name, &format!("spiffe://example.org/{name}"), NODE, USER).unwrap();
        entry.hint = if name == "d" { String::new() } else { "same".into() };
        entry
    });
    door.source.set_entries(entries.to_vec());
    let state = next(&mut door.x509().await).await.unwrap();
    let hints: Vec<_> = state.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["same", "", "", ""]);
}

#[tokio::test]
async fn a_process_that_is_gone_has_no_connection() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    door.process.end();
    assert!(next(&mut stream).await.is_err());
}

#[tokio::test]
async fn a_stop_is_told_to_open_streams_and_ends_the_server() {
    let door = open_with_entry();
    let mut stream = door.x509().await;
    next(&mut stream).await.unwrap();
    door.stop.send_replace(true);
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::Unavailable);
    drop(stream);
    door.served.await.unwrap();
}
