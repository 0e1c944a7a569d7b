//! The door with nothing faked in front of it: this process knocks, and the kernel says who it is.

use crate::client::{NODE, next, open_in_front_of, secured, web};
use deputize_issuer::workload::Selector;
use deputize_workload_api::{
    attest::{AttestSettings, Attestor},
    proto::X509svidRequest,
    reception::Doorkeeper,
};
use rustix::process::{getegid, geteuid};
use spiffe::SpiffeId;
use std::{collections::BTreeSet, sync::Arc};
use tonic::Code;

#[tokio::test]
async fn this_process_gets_what_is_registered_for_it_and_no_more() {
    let attestor = Attestor::new(SpiffeId::new(NODE).unwrap(), AttestSettings::default());
    let door = open_in_front_of(Arc::new(Doorkeeper::new(attestor)));
    let program = std::env::current_exe().unwrap().canonicalize().unwrap();
    let ours = [
        format!("uid:{}", geteuid().as_raw()),
        format!("gid:{}", getegid().as_raw()),
        format!("path:{}", program.to_str().unwrap()),
    ];
    let selectors = |values: &[String]| -> BTreeSet<Selector> {
        values.iter().map(|value| Selector::new("unix", value).unwrap()).collect()
    };
    let mut entry = web();
    entry.selectors = selectors(&ours);
    door.source.set_entries(vec![entry.clone()]);
    let mut stream = door.x509().await;
    let state = next(&mut stream).await.unwrap();
    assert_eq!(state.svids[0].spiffe_id, "spiffe://example.org/web");
    // One thing more that is not true of it.
    let other = format!("uid:{}", geteuid().as_raw() + 1);
    entry.selectors.extend(selectors(&[other]));
    door.source.set_entries(vec![entry]);
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::PermissionDenied);
    let refused = door.client().await.fetch_x509svid(secured(X509svidRequest {})).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
