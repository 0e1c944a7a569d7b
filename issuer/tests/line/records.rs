//! Stages 5 to 7 and afterwards: no record, no credential; used up, revoked, asked about.

use crate::world::*;
use deputize_issuer::{
    error::IssueError,
    fakes::Disk,
    limits::{Limits, Rate},
    lineage::Born,
    log::Class,
    mint::ToolCallToken,
    record::{Entry, Kind},
    redeem::{Redeemed, introspect, lift_by_admin, redeem, revoke, revoke_by_admin},
    revocation::{Revocations, Revoked},
};
use serde_json::json;
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

fn of_kind(world: &World, kind: Kind) -> Vec<Entry> {
    world.audit.entries().into_iter().filter(|entry| entry.kind == kind).collect()
}

async fn redeem_by(world: &World, client: &str, token: &ToolCallToken) -> Result<Redeemed, IssueError> {
    redeem(&world.desk, &world.caller(client).await, token.access_token.expose()).await
}

async fn is_active(world: &World, client: &str, token: &ToolCallToken) -> bool {
    let caller = world.caller(client).await;
    introspect(&world.desk, &caller, token.access_token.expose()).await.unwrap().is_some()
}

#[tokio::test]
async fn every_credential_has_its_intent_and_every_intent_its_outcome() {
    let world = World::new();
    let mut tokens = Vec::new();
    for ask in [listing(), read_contact(), read_one_contact(), update_contact()] {
        tokens.push(world.for_alice(&ask).await.unwrap());
    }
    tokens.push(world.hop("crm", &tokens[1], &send_mail()).await.unwrap());
    let entries = world.audit.entries();
    let outcomes = of_kind(&world, Kind::Outcome);
    assert_eq!((entries.len(), outcomes.len()), (10, 5));
    for token in &tokens {
        let index = token.claims.log.index;
        let intent = &entries[usize::try_from(index).unwrap()];
        assert_eq!((intent.kind, intent.jti.as_ref()), (Kind::Intent, Some(&token.claims.jti)));
        assert_eq!(
            (intent.txn.as_ref(), intent.pjti.as_ref()),
            (Some(&token.claims.txn), token.claims.pjti.as_ref())
        );
        assert_eq!((intent.sub.as_ref(), intent.exp), (Some(&token.claims.sub), Some(token.claims.exp)));
        assert!(intent.spent.is_some(), "with the assertion that was used up");
        let outcome = outcomes.iter().find(|outcome| outcome.intent == Some(index)).unwrap();
        assert_eq!((outcome.result.as_deref(), outcome.decision), (Some("minted"), intent.decision));
        assert_eq!(token.claims.log.origin, "log.example/one");
    }
}

#[tokio::test]
async fn arguments_and_digests_stand_in_the_log_under_other_names() {
    let world = World::new();
    let token = world.for_alice(&update_contact()).await.unwrap();
    let digest = token.claims.authorization_details[0].call_digest.unwrap().to_string();
    let intent = of_kind(&world, Kind::Intent).remove(0);
    assert_eq!(intent.arguments.keys().collect::<Vec<_>>(), ["id", "name"]);
    assert!(intent.call.is_some());
    for (_, bytes) in world.audit.raw_entries() {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(&digest) && !text.contains("\"Ann\"") && !text.contains("\"c1\""), "{text}");
    }
}

#[tokio::test]
async fn nothing_is_minted_before_its_intent_is_durable() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let subject = world.subject(&caller, &world.alice(json!({}))).await.unwrap();
    let ask = read_contact();
    let application = deputize_issuer::decide::Application {
        decision_id: uuid::Uuid::nil(),
        caller: &caller,
        subject: Some(&subject),
        ask: &ask,
    };
    world.audit.set_disk(Disk::Slow);
    let mut issuing = pin!(deputize_issuer::issue::issue(&world.desk, &application));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(issuing.as_mut().poll(&mut context).is_pending());
        assert!(world.audit.entries().is_empty(), "and so no outcome either");
    }
    world.audit.set_disk(Disk::Sound);
    let Poll::Ready(Ok(_)) = issuing.as_mut().poll(&mut context) else { panic!("it goes on with the disk") };
    assert_eq!(
        world.audit.entries().iter().map(|entry| entry.kind).collect::<Vec<_>>(),
        [Kind::Intent, Kind::Outcome]
    );
}

#[tokio::test]
async fn an_intent_whose_caller_went_away_has_its_outcome() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let subject = world.subject(&caller, &world.alice(json!({}))).await.unwrap();
    let (decision_id, ask) = (uuid::Uuid::from_u128(7), read_contact());
    let application = deputize_issuer::decide::Application {
        decision_id,
        caller: &caller,
        subject: Some(&subject),
        ask: &ask,
    };
    world.audit.set_disk(Disk::Slow);
    {
        let mut issuing = pin!(deputize_issuer::issue::issue(&world.desk, &application));
        assert!(issuing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let outcomes = of_kind(&world, Kind::Outcome);
    assert_eq!((outcomes.len(), outcomes[0].decision), (1, Some(decision_id)));
    assert_eq!(outcomes[0].result.as_deref(), Some("abandoned"));
    world.audit.set_disk(Disk::Sound);
    world.for_alice(&ask).await.unwrap();
    let results: Vec<_> =
        of_kind(&world, Kind::Outcome).into_iter().map(|outcome| outcome.result.unwrap()).collect();
    assert_eq!(results, ["abandoned", "minted"], "who waits is not abandoned too");
}

#[tokio::test]
async fn without_a_durable_intent_there_is_no_credential() {
    let world = World::new();
    let (caller, token) = (world.caller("platform").await, world.alice(json!({})));
    let subject = world.subject(&caller, &token).await.unwrap();
    let ask = read_contact();
    let application = deputize_issuer::decide::Application {
        decision_id: uuid::Uuid::nil(),
        caller: &caller,
        subject: Some(&subject),
        ask: &ask,
    };
    world.audit.set_disk(Disk::Broken);
    let refused = deputize_issuer::issue::issue(&world.desk, &application).await;
    assert!(matches!(refused, Err(IssueError::RecordUnavailable(_))), "{refused:?}");
    let refused = world.for_alice(&ask).await;
    assert!(matches!(refused, Err(IssueError::RecordUnavailable(_))), "{refused:?}");
    assert!(world.audit.entries().is_empty());
}

#[tokio::test]
async fn a_refusal_whose_record_fails_is_unavailability() {
    let world = World::new();
    world.audit.set_disk(Disk::Broken);
    let wrong = ask(CRM, json!({ "identifier": "no_such_tool" }));
    assert!(matches!(world.refusal(&wrong).await, IssueError::RecordUnavailable(_)));
}

#[tokio::test]
async fn refusals_are_recorded_one_by_one_within_the_quota_then_counted_and_used_assertions_always() {
    let (plenty, three) = (Rate { per_second: 1000, burst: 1000 }, Rate { per_second: 1, burst: 3 });
    let world = World::with(|setup| setup.limits = Limits::new(plenty, three));
    let wrong = ask(CRM, json!({ "identifier": "no_such_tool" }));
    for _ in 0..5 {
        world.refusal(&wrong).await;
    }
    let denials = of_kind(&world, Kind::Denial);
    assert_eq!(denials.len(), 3);
    for denial in &denials {
        assert_eq!(denial.reason.as_deref(), Some("tool_unknown"));
        assert_eq!(
            (denial.client.as_deref(), denial.sub.as_deref()),
            (Some("platform"), Some(&*world.alice_sub()))
        );
        assert_eq!((denial.server.as_deref(), denial.tool.as_deref()), (Some(CRM), Some("no_such_tool")));
    }
    assert_eq!(of_kind(&world, Kind::Spent).len(), 2, "beyond the quota");
    let spent: std::collections::HashSet<_> =
        world.audit.entries().into_iter().map(|entry| entry.spent.unwrap().to_tag().unwrap()).collect();
    assert_eq!(spent.len(), 5, "each of the five assertions is durable");
    world.desk.refusals.write(&world.desk);
    let counted = of_kind(&world, Kind::Denials);
    assert_eq!(
        (counted.len(), counted[0].count, counted[0].reason.as_deref()),
        (1, Some(2), Some("tool_unknown"))
    );
    world.desk.refusals.write(&world.desk);
    assert_eq!(of_kind(&world, Kind::Denials).len(), 1, "and not twice");
    // Never at the cost of what must be taken to the end.
    for (class, bytes) in world.audit.raw_entries() {
        let entry: Entry = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(class, Class::Denial, "{entry:?}");
    }
    world.clock.advance(Duration::from_secs(1));
    world.refusal(&wrong).await;
    assert_eq!(of_kind(&world, Kind::Denial).len(), 4, "the quota refills");
}

#[tokio::test]
async fn one_call_is_redeemed_once_by_its_audience() {
    let world = World::new();
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    for stranger in ["mailer", "platform", "foreigner"] {
        assert_eq!(redeem_by(&world, stranger, &token).await.unwrap(), Redeemed::No("not_redeemable"));
    }
    assert_eq!(redeem_by(&world, "crm", &token).await.unwrap(), Redeemed::Yes);
    let recorded = of_kind(&world, Kind::Redemption);
    assert_eq!((recorded.len(), recorded[0].jti.as_ref()), (1, Some(&token.claims.jti)));
    assert_eq!(recorded[0].method.as_deref(), Some("private_key_jwt"));
    for _ in 0..2 {
        assert_eq!(redeem_by(&world, "crm", &token).await.unwrap(), Redeemed::AlreadyUsed);
    }
    let told: Vec<_> = of_kind(&world, Kind::Denial)
        .into_iter()
        .map(|entry| {
            assert!(entry.spent.is_some() && entry.jti.as_ref() == Some(&token.claims.jti));
            assert_eq!(entry.method.as_deref(), Some("private_key_jwt"), "how it proved itself");
            (entry.client.unwrap(), entry.reason.unwrap())
        })
        .collect();
    let expected = [
        ("mailer", "not_the_audience"),
        ("platform", "not_the_audience"),
        ("foreigner", "not_the_audience"),
        ("crm", "already_used"),
        ("crm", "already_used"),
    ];
    assert_eq!(told, expected.map(|(client, reason)| (client.to_owned(), reason.to_owned())));
    assert!(!is_active(&world, "crm", &token).await, "what was used up is not active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_redeemers_one_wins() {
    let world = std::sync::Arc::new(World::new());
    let token = std::sync::Arc::new(world.for_alice(&read_one_contact()).await.unwrap());
    let racers: Vec<_> = (0..200)
        .map(|_| {
            let (world, token) = (world.clone(), token.clone());
            tokio::spawn(async move { redeem_by(&world, "crm", &token).await.unwrap() })
        })
        .collect();
    let mut first = 0;
    for racer in racers {
        first += usize::from(racer.await.unwrap() == Redeemed::Yes);
    }
    assert_eq!(first, 1);
}

#[tokio::test]
async fn only_live_tokens_for_one_call_made_by_this_process_are_redeemed() {
    let world = World::with(|setup| setup.settings.log_size_at_start = 5);
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    assert_eq!(token.claims.log.index, 0);
    assert_eq!(redeem_by(&world, "crm", &token).await.unwrap(), Redeemed::No("made_before_this_start"));

    // As when the log was put back to an older state, and so its indices are given again.
    let world = World::with(|setup| setup.settings.started_at_seconds = NOW + 1);
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    assert_eq!(redeem_by(&world, "crm", &token).await.unwrap(), Redeemed::No("made_before_this_start"));
    world.clock.advance(Duration::from_secs(1));
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    assert_eq!(
        redeem_by(&world, "crm", &token).await.unwrap(),
        Redeemed::Yes,
        "made in the second of the start"
    );

    let world = World::new();
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    let crm = world.caller("crm").await;
    let mut elsewhere = token.claims.clone();
    elsewhere.log.origin = "log.example/two".to_owned();
    let elsewhere = world.own_token(&elsewhere);
    assert_eq!(redeem(&world.desk, &crm, &elsewhere).await.unwrap(), Redeemed::No("made_before_this_start"));
    let plain = world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(redeem_by(&world, "crm", &plain).await.unwrap(), Redeemed::No("not_a_single_use_token"));
    assert_eq!(redeem(&world.desk, &crm, "not.a.token").await.unwrap(), Redeemed::No("not_redeemable"));
    let forged = world.key("spare").sign("at+jwt", &token.claims).unwrap();
    assert_eq!(redeem(&world.desk, &crm, &forged).await.unwrap(), Redeemed::No("not_redeemable"));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(redeem_by(&world, "crm", &token).await.unwrap(), Redeemed::No("not_redeemable"));
}

#[tokio::test]
async fn a_call_does_not_run_when_its_redemption_is_not_durable_or_not_certain() {
    let world = World::new();
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    let crm = world.caller("crm").await;
    world.audit.set_disk(Disk::Broken);
    let refused = redeem(&world.desk, &crm, token.access_token.expose()).await;
    assert!(matches!(refused, Err(IssueError::RecordUnavailable(_))));
    world.audit.set_disk(Disk::Sound);
    assert_eq!(
        redeem_by(&world, "crm", &token).await.unwrap(),
        Redeemed::AlreadyUsed,
        "it may have been used"
    );

    let world = World::new();
    let token = world.for_alice(&read_one_contact()).await.unwrap();
    let crm = world.caller("crm").await;
    world.clock.jump_wall(Duration::from_secs(3));
    let refused = redeem(&world.desk, &crm, token.access_token.expose()).await;
    assert_eq!(refused.unwrap_err(), IssueError::Uncertain("clocks_disagree"));
}

#[tokio::test]
async fn introspection_tells_its_parties_and_nobody_else() {
    let world = World::with(|setup| setup.client("bystander", |_| ()));
    let token = world.for_alice(&read_contact()).await.unwrap();
    for (client, told) in
        [("platform", true), ("crm", true), ("mailer", false), ("bystander", false), ("foreigner", false)]
    {
        assert_eq!(is_active(&world, client, &token).await, told, "{client}");
    }
    world.clock.advance(Duration::from_secs(60));
    assert!(!is_active(&world, "crm", &token).await, "expired");
}

#[tokio::test]
async fn a_revoked_token_ends_with_all_that_came_from_it() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let other = world.for_alice(&read_contact()).await.unwrap();
    let mail = world.hop("crm", &first, &send_mail()).await.unwrap();
    let back = world.hop("mailer", &mail, &read_one_contact()).await.unwrap();
    revoke(&world.desk, &world.caller("platform").await, first.access_token.expose()).await.unwrap();
    for (client, token) in [("crm", &first), ("mailer", &mail), ("crm", &back)] {
        assert!(!is_active(&world, client, token).await);
        assert!(
            world.revocations.any_revoked(&[Revoked::Token(token.claims.jti.clone())]),
            "guards are told by id"
        );
    }
    assert!(is_active(&world, "crm", &other).await);
    assert_eq!(redeem_by(&world, "crm", &back).await.unwrap(), Redeemed::No("not_redeemable"));
    for (client, token, ask) in [("crm", &first, send_mail()), ("mailer", &mail, read_one_contact())] {
        assert_eq!(world.hop(client, token, &ask).await.unwrap_err().reason(), "subject_token_revoked");
    }
    let methods: Vec<_> = of_kind(&world, Kind::Revocation).into_iter().map(|entry| entry.method).collect();
    assert_eq!(methods, [Some("private_key_jwt".to_owned())]);
    let recorded: Vec<_> =
        of_kind(&world, Kind::Revocation).into_iter().flat_map(|entry| entry.revoked).collect();
    assert_eq!(recorded, [&first, &mail, &back].map(|token| Revoked::Token(token.claims.jti.clone())));
}

#[tokio::test]
async fn a_child_revoked_leaves_its_parent_and_a_revoked_ancestor_blocks_at_any_depth() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let mail = world.hop("crm", &first, &send_mail()).await.unwrap();
    let back = world.hop("mailer", &mail, &read_one_contact()).await.unwrap();
    revoke(&world.desk, &world.caller("mailer").await, mail.access_token.expose()).await.unwrap();
    assert!(is_active(&world, "crm", &first).await);
    assert!(!is_active(&world, "mailer", &mail).await);
    assert!(!is_active(&world, "crm", &back).await);
    world.hop("crm", &first, &send_mail()).await.expect("the parent may call again");

    // Only the grandparent is on the list: as when its descendants were made while it was revoked.
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let mail = world.hop("crm", &first, &send_mail()).await.unwrap();
    let back = world.hop("mailer", &mail, &read_one_contact()).await.unwrap();
    world.revocations.insert([Revoked::Token(first.claims.jti.clone())], u64::MAX);
    assert!(!is_active(&world, "crm", &back).await);
    assert_eq!(
        world.hop("mailer", &mail, &read_one_contact()).await.unwrap_err().reason(),
        "subject_token_revoked"
    );
}

#[tokio::test]
async fn a_child_minted_while_its_parent_is_revoked_is_revoked_too() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let (platform, crm) = (world.caller("platform").await, world.caller("crm").await);
    let token = first.access_token.expose();
    let subject = world.subject(&crm, token).await.unwrap();
    // A next hop has decided and waits for its record, and meanwhile its token is revoked.
    world.audit.set_disk(Disk::Slow);
    let mut revoking = pin!(revoke(&world.desk, &platform, token));
    let ask = send_mail();
    let application = deputize_issuer::decide::Application {
        decision_id: uuid::Uuid::nil(),
        caller: &crm,
        subject: Some(&subject),
        ask: &ask,
    };
    let mut issuing = pin!(deputize_issuer::issue::issue(&world.desk, &application));
    let mut context = Context::from_waker(Waker::noop());
    assert!(issuing.as_mut().poll(&mut context).is_pending());
    assert!(revoking.as_mut().poll(&mut context).is_pending());
    world.audit.set_disk(Disk::Sound);
    let Poll::Ready(Ok(child)) = issuing.as_mut().poll(&mut context) else {
        panic!("decided before the revocation")
    };
    assert!(matches!(revoking.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    assert!(world.revocations.any_revoked(&[Revoked::Token(child.claims.jti.clone())]));
    assert!(!is_active(&world, "mailer", &child).await);
    // And one that verified its subject before, but decides after.
    let late = deputize_issuer::issue::issue(&world.desk, &application).await;
    assert_eq!(late.unwrap_err().reason(), "subject_token_revoked");
}

#[tokio::test]
async fn a_token_with_very_many_children_is_revoked_with_all_of_them() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let jti = first.claims.jti.clone();
    for n in 0..3000 {
        let child = format!("00000000-0000-7000-8000-{n:012}");
        let born = Born {
            jti: &child,
            parent: Some(&jti),
            person: None,
            client_id: "platform",
            audience: &first.claims.aud,
            txn: &first.claims.txn,
            expires_at: first.claims.exp,
        };
        world.desk.lineage.remember(born, NOW).unwrap();
    }
    revoke(&world.desk, &world.caller("platform").await, first.access_token.expose()).await.unwrap();
    let recorded: usize = of_kind(&world, Kind::Revocation).iter().map(|entry| entry.revoked.len()).sum();
    assert_eq!((recorded, world.revocations.in_force(0).len()), (3001, 3001));
}

#[tokio::test]
async fn who_is_no_party_revokes_nothing_and_is_not_told() {
    let world = World::with(|setup| setup.client("bystander", |_| ()));
    let token = world.for_alice(&read_contact()).await.unwrap();
    for client in ["bystander", "mailer", "foreigner"] {
        revoke(&world.desk, &world.caller(client).await, token.access_token.expose()).await.unwrap();
    }
    revoke(&world.desk, &world.caller("crm").await, "not.a.token").await.unwrap();
    assert!(world.revocations.in_force(0).is_empty());
    assert_eq!(of_kind(&world, Kind::Spent).len(), 4);
    revoke(&world.desk, &world.caller("crm").await, token.access_token.expose()).await.unwrap();
    assert!(!is_active(&world, "platform", &token).await, "the audience may");
}

#[tokio::test]
async fn a_revocation_that_is_not_recorded_is_not_confirmed() {
    let world = World::new();
    let token = world.for_alice(&read_contact()).await.unwrap();
    let platform = world.caller("platform").await;
    world.audit.set_disk(Disk::Broken);
    let refused = revoke(&world.desk, &platform, token.access_token.expose()).await;
    assert!(matches!(refused, Err(IssueError::RecordUnavailable(_))));
}

#[tokio::test]
async fn a_revocation_is_in_force_before_its_record_and_stays_so_when_the_caller_goes_away() {
    let world = World::new();
    let token = world.for_alice(&read_contact()).await.unwrap();
    let (platform, crm) = (world.caller("platform").await, world.caller("crm").await);
    world.audit.set_disk(Disk::Slow);
    {
        let mut revoking = pin!(revoke(&world.desk, &platform, token.access_token.expose()));
        assert!(revoking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    world.audit.set_disk(Disk::Sound);
    assert!(world.revocations.any_revoked(&[Revoked::Token(token.claims.jti.clone())]));
    assert_eq!(introspect(&world.desk, &crm, token.access_token.expose()).await.unwrap(), None);
    revoke_by_admin(&world.desk, "root", Revoked::Person(world.alice_sub())).await.unwrap();
    let until = of_kind(&world, Kind::Revocation).pop().unwrap().exp;
    assert!(until > Some(NOW), "the next start reads from the record until when it holds: {until:?}");
}

#[tokio::test]
async fn a_token_exchanged_by_its_holder_many_times_is_revoked_with_the_first() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let mut last = world.hop("platform", &first, &read_contact()).await.unwrap();
    for _ in 0..8 {
        last = world.hop("platform", &last, &read_contact()).await.unwrap();
    }
    assert!(is_active(&world, "crm", &last).await);
    world.revocations.insert([Revoked::Token(first.claims.jti.clone())], u64::MAX);
    assert!(!is_active(&world, "crm", &last).await);
}

#[tokio::test]
async fn a_person_is_enabled_again_once_that_is_recorded() {
    let world = World::new();
    let before = world.for_alice(&read_contact()).await.unwrap();
    revoke_by_admin(&world.desk, "root", Revoked::Person(world.alice_sub())).await.unwrap();
    assert_eq!(world.refusal(&read_contact()).await.reason(), "person_disabled");
    world.audit.set_disk(Disk::Broken);
    let refused = lift_by_admin(&world.desk, "root", world.alice_sub()).await;
    assert!(matches!(refused, Err(IssueError::RecordUnavailable(_))));
    assert!(world.revocations.any_revoked(&[Revoked::Person(world.alice_sub())]), "no record, no change");
    world.audit.set_disk(Disk::Sound);
    lift_by_admin(&world.desk, "root", world.alice_sub()).await.unwrap();
    world.for_alice(&read_contact()).await.unwrap();
    assert!(is_active(&world, "crm", &before).await);
    let lifted = of_kind(&world, Kind::Lifted).remove(0);
    assert_eq!(
        (lifted.by.as_deref(), lifted.revoked),
        (Some("root"), vec![Revoked::Person(world.alice_sub())])
    );
    // Enabled, disabled, enabled: the last word counts.
    revoke_by_admin(&world.desk, "root", Revoked::Person(world.alice_sub())).await.unwrap();
    assert_eq!(world.refusal(&read_contact()).await.reason(), "person_disabled");
}

#[tokio::test]
async fn administrators_end_transactions_families_and_persons() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap();
    let mail = world.hop("crm", &first, &send_mail()).await.unwrap();
    let other = world.for_alice(&read_contact()).await.unwrap();
    revoke_by_admin(&world.desk, "root", Revoked::Transaction(first.claims.txn.clone())).await.unwrap();
    assert!(!is_active(&world, "crm", &first).await);
    assert!(!is_active(&world, "mailer", &mail).await);
    assert_eq!(world.hop("crm", &first, &send_mail()).await.unwrap_err().reason(), "subject_token_revoked");
    assert!(is_active(&world, "crm", &other).await, "another transaction");

    let mail = world.hop("crm", &other, &send_mail()).await.unwrap();
    revoke_by_admin(&world.desk, "root", Revoked::Token(other.claims.jti.clone())).await.unwrap();
    assert!(!is_active(&world, "mailer", &mail).await);
    assert!(world.revocations.any_revoked(&[Revoked::Token(mail.claims.jti.clone())]));

    let last = world.for_alice(&read_one_contact()).await.unwrap();
    let bobs =
        world.exchange("platform", &world.alice(json!({ "sub": "bob" })), &read_contact()).await.unwrap();
    revoke_by_admin(&world.desk, "root", Revoked::Person(world.alice_sub())).await.unwrap();
    assert!(!is_active(&world, "crm", &last).await);
    assert_eq!(redeem_by(&world, "crm", &last).await.unwrap(), Redeemed::No("not_redeemable"));
    assert_eq!(world.hop("crm", &last, &send_mail()).await.unwrap_err().reason(), "subject_token_revoked");
    assert_eq!(world.refusal(&read_contact()).await.reason(), "person_disabled");
    assert!(is_active(&world, "crm", &bobs).await);
    let by: Vec<_> = of_kind(&world, Kind::Revocation).into_iter().map(|entry| entry.by.unwrap()).collect();
    assert!(by.iter().all(|by| by == "root"));
    let revocations = of_kind(&world, Kind::Revocation);
    assert!(revocations.iter().all(|entry| entry.method.is_none()), "administration proves nothing");
}
