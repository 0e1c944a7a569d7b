//! Next hops: what a token of ours may become, for its audience and for its holder.

use crate::world::*;
use deputize_call::level::Level;
use deputize_issuer::{
    ask::{Ask, CallAsk},
    error::IssueError,
    mint::ToolCallToken,
    record::Kind,
    redeem::{Redeemed, introspect, redeem},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn look_up() -> Ask {
    ask(MAILER, json!({ "identifier": "look_up" }))
}

fn word(refused: Result<ToolCallToken, IssueError>) -> &'static str {
    refused.expect_err("must be refused").reason()
}

#[tokio::test]
async fn a_server_calls_on_for_the_same_person_in_the_same_transaction() {
    let world = World::new();
    let first = world.for_alice(&read_one_contact()).await.unwrap();
    let next = world.hop("crm", &first, &send_mail()).await.unwrap();
    let (claims, before) = (&next.claims, &first.claims);
    assert_eq!((&claims.sub, &claims.txn), (&before.sub, &before.txn));
    assert_eq!(claims.pjti.as_ref(), Some(&before.jti));
    assert_eq!((claims.aud.as_str(), claims.client_id.as_str()), (MAILER, "crm"));
    assert_eq!(claims.act.as_ref().unwrap().chain().collect::<Vec<_>>(), ["crm", BOT]);
    let key = world.key("crm").public().thumbprint().to_owned();
    assert_eq!(claims.cnf, deputize_call::claims::Confirmation::Jkt(key), "bound to the server's own key");
    let third = world.hop("mailer", &next, &read_one_contact()).await.unwrap();
    assert_eq!(third.claims.act.as_ref().unwrap().chain().collect::<Vec<_>>(), ["mailer", "crm", BOT]);
    assert_eq!((&third.claims.txn, third.claims.pjti.as_ref()), (&before.txn, Some(&claims.jti)));
}

#[tokio::test]
async fn a_used_up_token_still_lets_its_server_call_on() {
    let world = World::new();
    let first = world.for_alice(&read_one_contact()).await.unwrap();
    let crm = world.caller("crm").await;
    let redeemed =
        deputize_issuer::redeem::redeem(&world.desk, &crm, first.access_token.expose()).await.unwrap();
    assert_eq!(redeemed, deputize_issuer::redeem::Redeemed::Yes);
    world.hop("crm", &first, &send_mail()).await.unwrap();
}

#[tokio::test]
async fn a_child_never_outlives_its_parent() {
    let world = World::new();
    let first = world.for_alice(&read_one_contact()).await.unwrap();
    world.clock.advance(Duration::from_secs(50));
    let next = world.hop("crm", &first, &send_mail()).await.unwrap();
    assert_eq!((next.claims.iat, next.claims.exp), (NOW + 50, first.claims.exp));
    let narrowed = World::new();
    let first = narrowed.for_alice(&read_contact()).await.unwrap();
    narrowed.clock.advance(Duration::from_secs(55));
    let next = narrowed.hop("platform", &first, &read_one_contact()).await.unwrap();
    assert_eq!(next.claims.exp, first.claims.exp);
    narrowed.clock.advance(Duration::from_secs(1));
    assert_eq!(
        word(narrowed.hop("platform", &first, &read_one_contact()).await),
        "subject_token_expired",
        "four seconds are of no use"
    );
    narrowed.clock.advance(Duration::from_secs(4));
    assert_eq!(word(narrowed.hop("platform", &first, &read_one_contact()).await), "subject_token_invalid");
}

#[tokio::test]
async fn a_server_reaches_what_the_calling_tool_lists_and_nothing_else() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    world.hop("crm", &first, &look_up()).await.unwrap();
    world.hop("crm", &first, &send_mail()).await.unwrap();
    for (asked, expected) in [
        // Listed up to L1.
        (
            ask(MAILER, json!({ "identifier": "look_up", "arguments": { "name": "a" } })),
            "above_the_downstream_level",
        ),
        (ask(MAILER, json!({ "identifier": "purge", "arguments": {} })), "not_downstream"),
        (ask(MAILER, Value::Null), "not_downstream"),
        (read_one_contact(), "not_downstream"),
    ] {
        assert_eq!(word(world.hop("crm", &first, &asked).await), expected, "{asked:?}");
    }
    let other_tool = world.for_alice(&update_contact()).await.unwrap();
    assert_eq!(word(world.hop("crm", &other_tool, &send_mail()).await), "subject_unknown_since_restart");
    let list = world.for_alice(&listing()).await.unwrap();
    assert_eq!(word(world.hop("crm", &list, &send_mail()).await), "not_downstream");
}

#[tokio::test]
async fn the_next_tools_own_conditions_hold_too() {
    let world = World::with(|setup| {
        merge(setup.tool(MAILER, "send_mail"), json!({ "acr_values": ["aal2"] }));
    });
    let first = world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(word(world.hop("crm", &first, &send_mail()).await), "user_authentication");
    let below = ask(MAILER, json!({ "identifier": "send_mail" }));
    assert_eq!(word(world.hop("crm", &first, &below).await), "level_too_low");
    let strong =
        world.exchange("platform", &world.alice(json!({ "acr": "aal2" })), &read_contact()).await.unwrap();
    world.hop("crm", &strong, &send_mail()).await.expect("the person is the same at every hop");
}

#[tokio::test]
async fn a_reload_takes_the_next_hop_away() {
    for (change, expected) in
        [(json!({ "downstream": [] }), "not_downstream"), (json!({ "enabled": false }), "not_downstream")]
    {
        let mut changed = Setup::new();
        let world = World::with(|setup| changed.keys = setup.keys.clone());
        let first = world.for_alice(&read_contact()).await.unwrap();
        merge(changed.tool(CRM, "read_contact"), change);
        reload(&world, changed);
        assert_eq!(word(world.hop("crm", &first, &send_mail()).await), expected);
    }
    for disabled in [CRM, MAILER] {
        let mut changed = Setup::new();
        let world = World::with(|setup| changed.keys = setup.keys.clone());
        let first = world.for_alice(&read_contact()).await.unwrap();
        let record = changed.servers.iter_mut().find(|record| record["resource"] == disabled).unwrap();
        record["enabled"] = json!(false);
        reload(&world, changed);
        let expected = if disabled == CRM { "not_downstream" } else { "server_disabled" };
        assert_eq!(word(world.hop("crm", &first, &send_mail()).await), expected);
    }
    let mut changed = Setup::new();
    let world = World::with(|setup| changed.keys = setup.keys.clone());
    let first = world.for_alice(&read_contact()).await.unwrap();
    let renewed = merged(
        tool("read_contact", "low", &["id", "more"], &[]),
        json!({ "downstream": [{ "server": MAILER, "tool": "send_mail", "level": "L3" }] }),
    );
    *changed.tool(CRM, "read_contact") = renewed;
    reload(&world, changed);
    assert_eq!(word(world.hop("crm", &first, &send_mail()).await), "calling_tool_changed");
    assert_eq!(word(world.hop("platform", &first, &read_contact()).await), "tool_changed");
}

/// Swaps rules in, with the clients' keys as they were.
fn reload(world: &World, mut setup: Setup) {
    let clients: Vec<String> = setup.clients.iter().map(|client| client.id.clone()).collect();
    for id in clients {
        let keys = deputize_call::keys::KeySet::new(vec![world.key(&id).public().clone()]);
        setup.find_client(&id).keys = keys;
    }
    world.desk.rules.store(Arc::new(setup.rules(&world.provider_keys)));
}

#[tokio::test]
async fn every_agent_in_the_chain_must_be_able_to_do_it_alone() {
    let narrow = World::with(|setup| setup.find_client("platform").may_call = vec![reach(CRM)]);
    let first = narrow.for_alice(&read_contact()).await.unwrap();
    assert_eq!(word(narrow.hop("crm", &first, &send_mail()).await), "beyond_a_predecessors_reach");

    let forbidden = World::with(|setup| {
        setup.policies.push_str(&format!(
            r#"@id("not-the-bot") forbid (principal, action == Action::"tools/call", resource)
                when {{ context.agent == "{BOT}" && resource.name == "send_mail" }};"#
        ));
    });
    let first = forbidden.for_alice(&read_contact()).await.unwrap();
    assert_eq!(word(forbidden.hop("crm", &first, &send_mail()).await), "policy");
    forbidden.hop("crm", &first, &look_up()).await.unwrap();

    let asking = World::with(|setup| {
        setup.policies.push_str(&format!(
            r#"@id("ask") @require_approval("confirm") permit (principal, action == Action::"tools/call", resource)
                when {{ context.agent == "{BOT}" && resource.name == "send_mail" }};"#
        ));
    });
    let first = asking.for_alice(&read_contact()).await.unwrap();
    assert_eq!(word(asking.hop("crm", &first, &send_mail()).await), "approval_required");
}

#[tokio::test]
async fn a_disabled_agent_ends_the_chain_that_it_began() {
    let mut changed = Setup::new();
    let world = World::with(|setup| changed.keys = setup.keys.clone());
    let first = world.for_alice(&read_contact()).await.unwrap();
    let mail = world.hop("crm", &first, &send_mail()).await.unwrap();
    let once = world.for_alice(&read_one_contact()).await.unwrap();
    let [crm, mailer] = [world.caller("crm").await, world.caller("mailer").await];
    changed.find_client("platform").enabled = false;
    reload(&world, changed);
    assert_eq!(word(world.hop("crm", &first, &send_mail()).await), "subject_token_of_a_disabled_client");
    assert_eq!(
        word(world.hop("mailer", &mail, &read_one_contact()).await),
        "subject_token_of_a_disabled_client"
    );
    let told = introspect(&world.desk, &crm, first.access_token.expose()).await.unwrap();
    assert_eq!(told, None, "nor is its token active");
    let redeemed = redeem(&world.desk, &crm, once.access_token.expose()).await.unwrap();
    assert_eq!(redeemed, Redeemed::No("not_redeemable"));
    // Nor what was made of them at the next hop, though whoever got that is as it was.
    let told = introspect(&world.desk, &mailer, mail.access_token.expose()).await.unwrap();
    assert_eq!(told, None);
    let redeemed = redeem(&world.desk, &mailer, mail.access_token.expose()).await.unwrap();
    assert_eq!(redeemed, Redeemed::No("not_redeemable"));
}

#[tokio::test]
async fn who_is_taken_out_or_changed_while_keys_are_fetched_gets_nothing() {
    let ask = read_contact();
    for expected in [Some("client_gone_meanwhile"), Some("caller_changed_meanwhile"), None] {
        let mut changed = Setup::new();
        let world = World::with(|setup| changed.keys = setup.keys.clone());
        let platform = changed.find_client("platform");
        match expected {
            Some("client_gone_meanwhile") => platform.enabled = false,
            Some(_) => platform.may_call = vec![reach(MAILER)],
            None => {}
        }
        world.provider_keys.hold(true);
        let (answer, ()) = tokio::join!(world.for_alice(&ask), async {
            assert_eq!(world.provider_keys.waiting(), 1);
            reload(&world, changed);
            world.provider_keys.hold(false);
        });
        assert_eq!(answer.err().map(|error| error.reason()), expected);
        let intents = world.audit.entries().iter().filter(|entry| entry.kind == Kind::Intent).count();
        assert_eq!(intents, usize::from(expected.is_none()));
    }
}

#[tokio::test]
async fn a_disabled_server_or_tool_ends_its_tokens() {
    for whole in [true, false] {
        let mut changed = Setup::new();
        let world = World::with(|setup| changed.keys = setup.keys.clone());
        let token = world.for_alice(&read_contact()).await.unwrap();
        let crm = world.caller("crm").await;
        let active = async || introspect(&world.desk, &crm, token.access_token.expose()).await.unwrap();
        assert!(active().await.is_some());
        if whole {
            let record = changed.servers.iter_mut().find(|record| record["resource"] == CRM).unwrap();
            record["enabled"] = json!(false);
        } else {
            merge(changed.tool(CRM, "read_contact"), json!({ "enabled": false }));
        }
        reload(&world, changed);
        assert_eq!(active().await, None);
    }
}

#[tokio::test]
async fn a_person_whose_provider_is_no_longer_trusted_goes_no_further() {
    let mut changed = Setup::new();
    let world = World::with(|setup| changed.keys = setup.keys.clone());
    let first = world.for_alice(&read_contact()).await.unwrap();
    changed.providers.retain(|provider| provider.issuer != IDP);
    reload(&world, changed);
    assert_eq!(word(world.hop("crm", &first, &send_mail()).await), "subject_issuer_no_longer_trusted");
}

#[tokio::test]
async fn a_client_outside_the_chain_lends_no_reach_that_it_lacks() {
    let world = World::with(|setup| {
        setup.client("carrier", |client| client.may_call = vec![reach(CRM)]);
    });
    let first = world.for_alice(&read_contact()).await.unwrap();
    let through = async |client_id: &str| {
        let mut claims = first.claims.clone();
        claims.client_id = client_id.to_owned();
        world.exchange("crm", &world.own_token(&claims), &send_mail()).await
    };
    through("platform").await.unwrap();
    assert_eq!(word(through("carrier").await), "beyond_a_predecessors_reach");
}

#[tokio::test]
async fn an_agent_that_a_provider_named_is_for_policy_to_judge() {
    let world = World::with(|setup| {
        setup.policies.push_str(
            r#"@id("no-strangers") forbid (principal, action == Action::"tools/call", resource)
                when { context.agent == "stranger" };"#,
        );
    });
    let through = async |agent: &str| {
        let token = world.alice(json!({ "act": { "sub": agent } }));
        world.exchange("platform", &token, &read_contact()).await
    };
    assert_eq!(
        through("known").await.unwrap().claims.act.unwrap().chain().collect::<Vec<_>>(),
        [BOT, "known"]
    );
    assert_eq!(word(through("stranger").await), "policy");
}

#[tokio::test]
async fn chains_are_five_deep_and_never_loop() {
    let resource = |n: usize| format!("https://hop{n}.example.com/mcp");
    let step = |n: usize| ask(&resource(n), json!({ "identifier": "go" }));
    let world = World::with(|setup| {
        for n in 0..6 {
            let next: Vec<Value> =
                (0..6).map(|to| json!({ "server": resource(to), "tool": "go", "level": "L1" })).collect();
            let record = merged(tool("go", "low", &[], &[]), json!({ "downstream": next }));
            setup.servers.push(server(&format!("hop{n}"), vec![record]));
            setup.client(&format!("hop{n}"), |client| {
                client.server = Some(resource(n));
                client.may_call = vec![reach("*")];
            });
        }
    });
    let mut token = world.for_alice(&step(0)).await.unwrap();
    for n in 0..4 {
        token = world.hop(&format!("hop{n}"), &token, &step(n + 1)).await.unwrap();
        assert_eq!(token.claims.act.as_ref().unwrap().chain().count(), n + 2);
    }
    assert_eq!(word(world.hop("hop4", &token, &step(5)).await), "actor_chain_too_deep");

    let first = world.for_alice(&step(0)).await.unwrap();
    let back = world.hop("hop0", &first, &step(1)).await.unwrap();
    let again = world.hop("hop1", &back, &step(0)).await.unwrap();
    assert_eq!(word(world.hop("hop0", &again, &step(2)).await), "actor_chain_loops");
}

#[tokio::test]
async fn a_holder_narrows_and_never_widens() {
    let world = World::new();
    let plain = world.for_alice(&read_contact()).await.unwrap();
    let constrained =
        ask(CRM, json!({ "identifier": "read_contact", "constraints": { "/id": { "enum": ["c1"] } } }));
    for (narrower, level) in
        [(read_contact(), Level::L1), (constrained, Level::L2), (read_one_contact(), Level::L3)]
    {
        let next = world.hop("platform", &plain, &narrower).await.unwrap();
        assert_eq!(next.claims.authorization_details[0].level(), level);
        assert_eq!(next.claims.act, plain.claims.act, "nobody was added");
        assert_eq!(
            (&next.claims.txn, next.claims.pjti.as_ref()),
            (&plain.claims.txn, Some(&plain.claims.jti))
        );
    }
    for (wider, expected) in [
        (listing(), "holder_asks_for_another_target"),
        (update_contact(), "holder_asks_for_another_target"),
        (send_mail(), "holder_asks_for_another_target"),
    ] {
        assert_eq!(word(world.hop("platform", &plain, &wider).await), expected);
    }
    let list = world.for_alice(&listing()).await.unwrap();
    world.hop("platform", &list, &listing()).await.unwrap();
    assert_eq!(word(world.hop("platform", &list, &read_contact()).await), "holder_asks_for_another_target");
}

#[tokio::test]
async fn a_holder_multiplies_no_counted_use() {
    let world = World::with(|setup| {
        merge(setup.tool(CRM, "read_contact"), json!({ "max_uses": 2 }));
    });
    let counted = world.for_alice(&read_contact()).await.unwrap();
    for asked in [read_contact(), read_one_contact()] {
        assert_eq!(word(world.hop("platform", &counted, &asked).await), "holder_multiplies_uses");
    }
    // L2 and L3 of a tool without next hops have no descendants at all, whoever brings them.
    let once = world.for_alice(&update_contact()).await.unwrap();
    assert_eq!(word(world.hop("platform", &once, &update_contact()).await), "subject_unknown_since_restart");
}

#[tokio::test]
async fn one_call_cannot_be_made_into_another_by_its_holder() {
    let world = World::new();
    let once = world.for_alice(&read_one_contact()).await.unwrap();
    for asked in [
        read_one_contact(),
        read_contact(),
        ask(CRM, json!({ "identifier": "read_contact", "arguments": { "id": "c2" } })),
        ask(CRM, json!({ "identifier": "read_contact", "constraints": { "/id": { "enum": ["c1"] } } })),
    ] {
        assert!(matches!(asked.call, CallAsk::Tool { .. } | CallAsk::Constrained { .. } | CallAsk::Call(_)));
        assert_eq!(word(world.hop("platform", &once, &asked).await), "holder_multiplies_uses");
    }
}

#[tokio::test]
async fn a_next_hop_stays_in_its_transaction() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let other = world.for_alice(&read_contact()).await.unwrap().claims.txn;
    let same = Ask { transaction_id: Some(first.claims.txn.clone()), ..send_mail() };
    assert_eq!(world.hop("crm", &first, &same).await.unwrap().claims.txn, first.claims.txn);
    let another = Ask { transaction_id: Some(other), ..send_mail() };
    assert_eq!(word(world.hop("crm", &first, &another).await), "transaction_of_another_token");
}
