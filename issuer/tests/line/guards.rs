//! What guards see: on record where it cannot crowd out decisions, and a drifted tool gets no token.

use crate::world::*;
use deputize_call::action::Action::CallTool;
use deputize_issuer::{
    drift::{Drifted, lift},
    error::IssueError,
    fakes::Disk,
    log::Class,
    record::{Entry, Kind, Seen, record_drift, record_seen},
};
use serde_json::json;

fn drifted(world: &World, tool: &str) -> Drifted {
    let rules = world.desk.rules.load();
    let server = rules.registry.server(CRM).unwrap();
    Drifted::from_approved(server, server.tool(tool).unwrap())
}

#[tokio::test]
async fn a_drifted_tool_gets_no_token_and_is_not_redeemed_until_it_is_lifted() {
    let world = World::new();
    let token = world.for_alice(&read_contact()).await.unwrap();
    let drifted = drifted(&world, "read_contact");
    assert!(world.desk.drifts.hold(&drifted));
    let refused = world.for_alice(&read_contact()).await.unwrap_err();
    assert!(
        matches!(refused, IssueError::AuthorizationDetails { reason: "tool_drifted", .. }),
        "{refused:?}"
    );
    world.for_alice(&update_contact()).await.unwrap();
    let active = async || {
        let caller = world.caller("crm").await;
        let access_token = token.access_token.expose();
        deputize_issuer::redeem::introspect(&world.desk, &caller, access_token).await.unwrap().is_some()
    };
    assert!(!active().await);

    world.audit.set_disk(Disk::Broken);
    lift(&world.desk, "admin", (CRM, CallTool, "read_contact")).await.unwrap_err();
    world.audit.set_disk(Disk::Sound);
    assert!(
        world.for_alice(&read_contact()).await.is_err(),
        "nobody answers for a lift that is not on record"
    );
    assert!(lift(&world.desk, "admin", (CRM, CallTool, "read_contact")).await.unwrap());
    assert!(!lift(&world.desk, "admin", (CRM, CallTool, "read_contact")).await.unwrap());
    world.for_alice(&read_contact()).await.unwrap();
    assert!(active().await);
}

#[tokio::test]
async fn another_definition_that_was_approved_has_not_drifted() {
    let world = World::new();
    let earlier =
        Drifted { approved: drifted(&world, "update_contact").approved, ..drifted(&world, "read_contact") };
    world.desk.drifts.hold(&earlier);
    world.for_alice(&read_contact()).await.unwrap();
}

#[tokio::test]
async fn reports_give_way_before_decisions_do_and_a_stop_does_not() {
    let world = World::new();
    let caller = world.caller("crm").await;
    let seen = |n: u64| Entry {
        txn: Some(format!("txn-{n}")),
        seen: Some(Seen {
            id: deputize_issuer::clock::new_id(world.desk.clock.as_ref()).unwrap(),
            event: "executed".to_owned(),
            at: n,
            class: None,
            bytes: None,
            detail: None,
            unconfirmed: None,
        }),
        ..Entry::new(Kind::Guard, n)
    };
    world.audit.clear();
    record_seen(&world.desk, &caller, CRM, vec![seen(1), seen(2)]).await.unwrap();
    let difference = json!({ "changes": [] });
    let drifted = drifted(&world, "read_contact");
    record_drift(&world.desk, &drifted, ("stopped", "crm"), Some(&difference)).await.unwrap();
    let classes: Vec<Class> = world.audit.raw_entries().into_iter().map(|(class, _)| class).collect();
    assert_eq!(classes, [Class::Denial, Class::Denial, Class::Vital]);
    let entries = world.audit.entries();
    assert_eq!(entries[0].txn.as_deref(), Some("txn-1"));
    assert_eq!((entries[1].client.as_deref(), entries[1].server.as_deref()), (Some("crm"), Some(CRM)));
    assert!(entries[0].spent.is_some() && entries[1].spent.is_none(), "one request used up one assertion");
    assert_eq!(entries[2].detail.as_deref(), Some("{\"changes\":[]}"));
}
