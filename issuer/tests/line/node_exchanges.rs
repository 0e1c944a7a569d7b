//! Processes on other nodes that exchange a user's token: by the word of a node that is one, of its own processes, for as long as
//! it is one.

use deputize_issuer::{
    entry::Draft,
    error::IssueError,
    fakes::Disk,
    limits::{Limits, Rate},
    mint::ToolCallToken,
    record::{Entry, Kind},
    workload::Workload,
};
use serde_json::json;
use std::task::Poll;

use crate::{
    nodes::{EDGE, Nodes, id},
    spiffe::{SpiffeWorld, WEB, entries},
    workloads::{ENDPOINT, Sent, agent, proof, send},
    world::*,
};

const OTHER: &str = "spiffe://example.org/deputize/node/edge-2";

/// A process that this node saw.
async fn seen_on(nodes: &Nodes, name: &str) -> Workload {
    let svid = nodes.join(name).await;
    let node = nodes.authenticate(&svid.chain).unwrap();
    node.saw(&nodes.registry, ["unix:uid:1000".parse().unwrap()].into(), false)
}

/// The entry `web`, which lets exchange on these nodes.
fn on(nodes: &[&str]) -> Draft {
    Draft { nodes: nodes.iter().map(|&node| node.to_owned()).collect(), ..agent(&[CRM]) }
}

async fn for_alice(nodes: &Nodes, workload: &Workload) -> Result<ToolCallToken, IssueError> {
    let world = &nodes.spiffe;
    let (token, proof) = (world.world.alice(json!({})), proof(world, ENDPOINT));
    send(world, Sent { workload, entry: "web", token: &token, proof: &proof }, update_contact()).await
}

fn records(nodes: &Nodes, kind: Kind) -> Vec<Entry> {
    let entries = nodes.spiffe.world.audit.entries().into_iter();
    entries.filter(|entry| entry.kind == kind && entry.client.as_deref() == Some(WEB)).collect()
}

#[tokio::test]
async fn a_token_for_a_process_elsewhere_is_on_record_with_its_node_by_whose_word_it_is() {
    let nodes = Nodes::new();
    nodes.spiffe.door.entries.replace(entries(&[on(&[EDGE])]));
    let seen = seen_on(&nodes, "edge-1").await;
    let token = for_alice(&nodes, &seen).await.unwrap();
    assert_eq!(token.claims.client_id, WEB);
    let intents = records(&nodes, Kind::Intent);
    let told = json!({
        "entry": "web", "spiffe_id": WEB, "node": EDGE, "asked_by": ["unix:uid:1000"], "reported_by_node": true,
    });
    assert_eq!(serde_json::to_value(&intents[0].spiffe).unwrap(), told);
    // Another node's process, whatever its node says of it.
    let elsewhere = seen_on(&nodes, "edge-2").await;
    assert_eq!(for_alice(&nodes, &elsewhere).await.unwrap_err(), IssueError::NotEntitled("no_entry"));
    let denial = nodes.spiffe.world.audit.entries().pop().unwrap().spiffe.unwrap();
    assert_eq!((denial.node.as_str(), denial.reported_by_node), (OTHER, true));
    assert_eq!(records(&nodes, Kind::Intent).len(), 1);
}

#[tokio::test]
async fn nobody_exchanges_through_a_node_that_is_banned_or_evicted_or_has_attested_itself_anew() {
    let nodes = Nodes::new();
    nodes.spiffe.door.entries.replace(entries(&[on(&[EDGE])]));
    let seen = seen_on(&nodes, "edge-1").await;
    for_alice(&nodes, &seen).await.unwrap();
    let desk = &nodes.spiffe.world.desk;
    nodes.registry.ban(desk, id(), EDGE).await.unwrap();
    assert_eq!(for_alice(&nodes, &seen).await.unwrap_err(), IssueError::NotEntitled("node_banned"));
    nodes.registry.lift(desk, id(), EDGE).await.unwrap();
    nodes.registry.evict(desk, id(), EDGE).await.unwrap();
    let evicted = for_alice(&nodes, &seen).await.unwrap_err();
    assert_eq!(evicted, IssueError::ClientAuthentication("node_unknown"));
    let again = seen_on(&nodes, "edge-1").await;
    let replaced = for_alice(&nodes, &seen).await.unwrap_err();
    assert_eq!(replaced, IssueError::ClientAuthentication("node_svid_superseded"));
    assert_eq!(records(&nodes, Kind::Intent).len(), 1);
    for_alice(&nodes, &again).await.unwrap();
}

#[tokio::test]
async fn a_ban_while_the_record_is_written_keeps_the_token_from_being_made() {
    let nodes = Nodes::new();
    nodes.spiffe.door.entries.replace(entries(&[on(&[EDGE])]));
    let seen = seen_on(&nodes, "edge-1").await;
    nodes.spiffe.world.audit.set_disk(Disk::Slow);
    let desk = &nodes.spiffe.world.desk;
    let mut banned = Box::pin(nodes.registry.ban(desk, id(), EDGE));
    let mut asked = Box::pin(for_alice(&nodes, &seen));
    // Each waits for the disk; the ban holds all the same.
    assert!(std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await);
    assert!(std::future::poll_fn(|context| Poll::Ready(banned.as_mut().poll(context).is_pending())).await);
    nodes.spiffe.world.audit.set_disk(Disk::Sound);
    assert_eq!(asked.await.unwrap_err(), IssueError::NotEntitled("node_banned"));
    banned.await.unwrap();
}

#[tokio::test]
async fn what_one_node_causes_is_counted_for_no_other() {
    let (few, plenty) = (Rate { per_second: 1, burst: 2 }, Rate { per_second: 100, burst: 100 });
    let refusals_of = async |limits: Limits| {
        let nodes = Nodes::with_world(SpiffeWorld::with(|setup| setup.limits = limits));
        nodes.spiffe.door.entries.replace(entries(&[on(&[EDGE, OTHER])]));
        let (one, other) = (seen_on(&nodes, "edge-1").await, seen_on(&nodes, "edge-2").await);
        let world = &nodes.spiffe;
        let mut found = Vec::new();
        // The same user, the same entry, the same SPIFFE ID; and a token that is for somebody else.
        for workload in [&one, &one, &one, &other] {
            let token = world.world.alice(json!({ "aud": "https://other.example.com" }));
            let sent = Sent { workload, entry: "web", token: &token, proof: &proof(world, ENDPOINT) };
            found.push(send(world, sent, update_contact()).await.unwrap_err());
        }
        let of_rate = |error: &IssueError| matches!(error, IssueError::RateLimited { .. });
        (found.iter().map(of_rate).collect::<Vec<_>>(), records(&nodes, Kind::Denial).len())
    };
    assert_eq!(refusals_of(Limits::new(few, plenty)).await.0, [false, false, true, false], "requests");
    assert_eq!(
        refusals_of(Limits::new(plenty, few)).await.1,
        2,
        "a record of the one, a record of the other"
    );
}

#[tokio::test]
async fn a_renewal_ends_nothing_that_is_under_way_and_attesting_anew_does() {
    let nodes = Nodes::new();
    nodes.spiffe.door.entries.replace(entries(&[on(&[EDGE])]));
    let first = nodes.join("edge-1").await;
    let node = nodes.authenticate(&first.chain).unwrap();
    let seen = node.saw(&nodes.registry, ["unix:uid:1000".parse().unwrap()].into(), false);
    // Made at once, so that the disk keeps the record of the exchange alone back.
    let second = nodes.renew(&node).await.unwrap();
    let under_way = async |meanwhile: &mut dyn FnMut()| {
        nodes.spiffe.world.audit.set_disk(Disk::Slow);
        let mut asked = Box::pin(for_alice(&nodes, &seen));
        assert!(std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await);
        meanwhile();
        nodes.spiffe.world.audit.set_disk(Disk::Sound);
        asked.await
    };
    under_way(&mut || drop(nodes.authenticate(&second.chain).unwrap())).await.unwrap();
    assert_eq!(nodes.authenticate(&first.chain), Err("node_svid_superseded"), "the former one is over");
    nodes.join("edge-1").await;
    let replaced = for_alice(&nodes, &seen).await.unwrap_err();
    assert_eq!(replaced, IssueError::ClientAuthentication("node_svid_superseded"));
}

#[tokio::test]
async fn many_entries_of_one_node_take_no_more_than_one_client_of_what_all_share() {
    let (few, plenty) = (Rate { per_second: 1, burst: 30 }, Rate { per_second: 10_000, burst: 10_000 });
    let nodes = Nodes::with_world(SpiffeWorld::with(|setup| {
        (setup.once_capacity, setup.limits) = (256, Limits::new(plenty, few));
    }));
    let names: Vec<String> = (0..20).map(|at| format!("web-{at}")).collect();
    let drafts: Vec<Draft> = names
        .iter()
        .map(|name| Draft { id: name.clone(), spiffe_id: format!("{WEB}/{name}"), ..on(&[EDGE]) })
        .collect();
    nodes.spiffe.door.entries.replace(entries(&drafts));
    let seen = seen_on(&nodes, "edge-1").await;
    let world = &nodes.spiffe;
    let token = world.world.alice(json!({ "aud": "https://other.example.com" }));
    let mut taken = 0;
    for name in &names {
        // As many as it gets, of a token that is for somebody else.
        for _ in 0..256 {
            let sent = Sent { workload: &seen, entry: name, token: &token, proof: &proof(world, ENDPOINT) };
            match send(world, sent, update_contact()).await.unwrap_err() {
                IssueError::Uncertain("proof_memory_full") => break,
                _ => taken += 1,
            }
        }
    }
    assert!((64..=128).contains(&taken), "{taken} of 256: half, and no half of what is left again");
    let denials = world.world.audit.entries().into_iter().filter(|entry| entry.kind == Kind::Denial);
    assert_eq!(denials.count(), 3, "an entry has a tenth of what all have together");
}
