//! Stage 4: what may be asked for, at which level, by whom, for whom.

use crate::world::*;
use deputize_call::level::Level;
use deputize_issuer::{
    ask::{Ask, CallAsk, ResourceUri},
    client::Reach,
    decide::{Application, LISTING_ACTIONS, LISTING_SCOPE},
    error::{DenialReason, IssueError},
    issue::issue,
    provider::SubjectTokenType,
    revocation::Revoked,
    verify_subject::PresentedSubject,
};
use serde_json::{Value, json};
use std::{str::FromStr, time::Duration};

#[tokio::test]
async fn each_level_gives_what_was_asked_and_no_more() {
    let world = World::new();
    let constrained = ask(
        CRM,
        json!({ "identifier": "update_contact", "constraints": { "/id": { "enum": ["c1"] } }, "max_uses": 3 }),
    );
    for (ask, level, scope, uses) in [
        (listing(), Level::L0, LISTING_SCOPE, None),
        (read_contact(), Level::L1, "read_contact", None),
        (constrained, Level::L2, "update_contact", Some(3)),
        (update_contact(), Level::L3, "update_contact", Some(1)),
    ] {
        let token = world.for_alice(&ask).await.unwrap();
        let claims = &token.claims;
        let [detail] = &claims.authorization_details;
        assert_eq!((detail.level(), claims.scope.as_str(), detail.max_uses), (level, scope, uses));
        assert_eq!((claims.aud.as_str(), &detail.locations), (CRM, &[CRM.to_owned()]));
        assert_eq!((claims.iss.as_str(), claims.sub.as_str()), (ISSUER, world.alice_sub().as_str()));
        assert_eq!((claims.client_id.as_str(), claims.tenant.as_str()), ("platform", "acme"));
        assert_eq!((claims.iat, claims.nbf, claims.exp), (NOW, NOW, NOW + 60));
        assert_eq!(claims.act.as_ref().unwrap().chain().collect::<Vec<_>>(), [BOT]);
        assert_eq!(claims.pjti, None);
        assert_eq!(detail.policy.ids, ["everything"]);
        if level == Level::L0 {
            assert_eq!(detail.actions, LISTING_ACTIONS);
            assert_eq!((&detail.identifier, detail.tool_digest), (&None, None));
            assert!(detail.shown.is_some());
        } else {
            assert_eq!(detail.actions, ["tools/call"]);
            assert!(detail.tool_digest.is_some());
        }
        let read = deputize_call::token::verify(
            token.access_token.expose(),
            &world.desk.keys.ring().published,
            &deputize_call::token::Expected {
                issuer: ISSUER,
                audience: Some(CRM),
                now_seconds: NOW,
                leeway_seconds: 0,
            },
        );
        assert_eq!(read.unwrap().claims(), claims, "the token says what the door is told");
    }
}

#[tokio::test]
async fn a_level_below_the_tier_is_refused_with_the_level_that_is_due() {
    let world = World::new();
    let constrained = json!({ "/id": { "enum": ["c1"] } });
    for (details, least) in [
        (json!({ "identifier": "update_contact" }), Level::L2),
        (json!({ "identifier": "refund" }), Level::L3),
        (json!({ "identifier": "refund", "constraints": constrained }), Level::L3),
        (json!({ "identifier": "delete_all" }), Level::L3),
    ] {
        assert_eq!(world.refusal(&ask(CRM, details)).await, IssueError::LevelTooLow { least });
    }
}

fn word(error: &IssueError) -> &'static str {
    error.reason()
}

#[tokio::test]
async fn arguments_must_fit_the_pinned_schema() {
    let world = World::new();
    let call = |arguments: Value| ask(CRM, json!({ "identifier": "update_contact", "arguments": arguments }));
    for arguments in [json!({ "id": "c1" }), json!({ "id": "c1", "name": "Ann" })] {
        world.for_alice(&call(arguments)).await.unwrap();
    }
    for arguments in [
        json!({}),
        json!({ "name": "Ann" }),
        json!({ "id": 7 }),
        json!({ "id": "x".repeat(101) }),
        json!({ "id": "c1", "unknown": true }),
        json!({ "id": "c1", "ID": "c2" }),
        json!({ "id": null }),
    ] {
        let error = world.refusal(&call(arguments.clone())).await;
        assert_eq!(word(&error), "arguments_miss_the_schema", "{arguments}");
    }
}

#[tokio::test]
async fn a_refusal_for_arguments_repeats_none_of_their_values() {
    let world = World::new();
    let canary = "canary-4711";
    for arguments in [json!({ "id": [canary] }), json!({ "id": "c1", "name": { "x": canary } })] {
        let error =
            world.refusal(&ask(CRM, json!({ "identifier": "update_contact", "arguments": arguments }))).await;
        assert!(!format!("{error:?}").contains(canary), "{error:?}");
    }
    world
        .for_alice(&ask(CRM, json!({ "identifier": "update_contact", "arguments": { "id": canary } })))
        .await
        .unwrap();
    for (_, bytes) in world.audit.raw_entries() {
        assert!(!String::from_utf8(bytes).unwrap().contains(canary));
    }
}

#[tokio::test]
async fn constraints_leave_no_argument_open_and_name_none_that_is_not_there() {
    let world = World::new();
    let constrained =
        |constraints: Value| ask(CRM, json!({ "identifier": "update_contact", "constraints": constraints }));
    let one = json!({ "enum": ["c1"] });
    world.for_alice(&constrained(json!({ "/id": one }))).await.expect("the optional name may stay away");
    let both = world.for_alice(&constrained(json!({ "/id": one, "/name": one }))).await.unwrap();
    assert_eq!(
        both.claims.authorization_details[0].max_uses,
        Some(10),
        "counted even where nobody said how often"
    );
    for (constraints, expected) in [
        (json!({ "/name": one }), "constraints_leave_an_argument_open"),
        (json!({ "/id": one, "/unknown": one }), "constraint_on_unknown_argument"),
        (json!({ "/i~1d": one }), "constraint_on_unknown_argument"),
    ] {
        assert_eq!(word(&world.refusal(&constrained(constraints)).await), expected);
    }
    let endless = json!({ "/id": { "enum": ["x".repeat(9 * 1024)] } });
    assert_eq!(word(&world.refusal(&constrained(endless)).await), "constraints_too_large");
}

#[tokio::test]
async fn the_longest_token_that_is_made_can_still_be_read() {
    let world = World::with(|setup| {
        setup.policies = (0..1000)
            .map(|n| format!("@id(\"{n:0>100}\") permit (principal, action, resource);\n"))
            .collect();
    });
    let values: Vec<String> = (0..8).map(|n| format!("{n}{}", "x".repeat(980))).collect();
    let wide =
        ask(CRM, json!({ "identifier": "update_contact", "constraints": { "/id": { "enum": values } } }));
    let token = world.for_alice(&wide).await.unwrap();
    let expected = deputize_call::token::Expected {
        issuer: ISSUER,
        audience: Some(CRM),
        now_seconds: NOW,
        leeway_seconds: 0,
    };
    deputize_call::token::verify(token.access_token.expose(), &world.desk.keys.ring().published, &expected)
        .unwrap();
}

#[tokio::test]
async fn uses_are_at_most_what_the_record_allows() {
    let world = World::with(|setup| {
        merge(setup.tool(CRM, "update_contact"), json!({ "max_uses": 4 }));
        merge(setup.tool(CRM, "read_contact"), json!({ "max_uses": 5 }));
    });
    let uses = |max_uses: Value| {
        let details = json!({ "identifier": "update_contact", "constraints": { "/id": { "enum": ["c1"] } } });
        ask(CRM, merged(details, json!({ "max_uses": max_uses })))
    };
    for (asked, granted) in [(json!(1), 1), (json!(4), 4), (Value::Null, 4)] {
        let token = world.for_alice(&uses(asked)).await.unwrap();
        assert_eq!(token.claims.authorization_details[0].max_uses, Some(granted));
    }
    assert_eq!(word(&world.refusal(&uses(json!(5))).await), "max_uses_beyond_the_record");
    let at_l1 = world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(at_l1.claims.authorization_details[0].max_uses, Some(5));
}

#[tokio::test]
async fn a_digest_alone_names_a_call_that_policy_may_not_look_into() {
    let world = World::new();
    let shown = world.for_alice(&update_contact()).await.unwrap();
    let digest = shown.claims.authorization_details[0].call_digest.unwrap().to_string();
    let by_digest = ask(CRM, json!({ "identifier": "update_contact", "call_digest": digest }));
    let token = world.for_alice(&by_digest).await.unwrap();
    assert_eq!(token.claims.authorization_details, shown.claims.authorization_details);

    let looking = World::with(|setup| {
        setup.policies = r#"permit (principal, action == Action::"tools/call", resource)
            when { context.text.hasTag("id") && context.text.getTag("id") == "c1" };"#
            .to_owned();
    });
    looking.for_alice(&update_contact()).await.unwrap();
    let denied = looking.refusal(&by_digest).await;
    assert!(matches!(denied, IssueError::Denied(DenialReason::Policy { .. })), "{denied:?}");
}

#[test]
fn a_digest_that_disagrees_with_the_arguments_is_refused() {
    let resource = ResourceUri::parse(CRM).unwrap();
    let other = deputize_call::digest::sha256(b"another call");
    let digest = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, other);
    let text =
        json!([{ "type": "mcp_tool_call", "identifier": "t", "arguments": {}, "call_digest": digest }]);
    let refused = CallAsk::parse(Some(&text.to_string()), &resource).unwrap_err();
    assert_eq!(refused.reason(), "authorization_details_digest");
}

#[tokio::test]
async fn scope_names_the_tool_or_nothing() {
    let world = World::new();
    world.for_alice(&scoped(read_contact(), "read_contact")).await.unwrap();
    world.for_alice(&scoped(listing(), LISTING_SCOPE)).await.unwrap();
    for refused in [
        scoped(read_contact(), "refund"),
        scoped(read_contact(), "read_contact refund"),
        scoped(read_contact(), LISTING_SCOPE),
        scoped(listing(), "read_contact"),
    ] {
        assert_eq!(world.refusal(&refused).await, IssueError::Scope("scope_beyond_the_tool"));
    }
}

#[tokio::test]
async fn the_target_is_registered_enabled_and_of_this_tenant() {
    let world = World::with(|setup| {
        setup
            .servers
            .push(merged(server("closed", vec![tool("t", "low", &[], &[])]), json!({ "enabled": false })));
        merge(setup.tool(CRM, "delete_all"), json!({ "enabled": false }));
        let plain = vec![tool("low", "low", &[], &[])];
        setup.servers.push(merged(server("plain", plain), json!({ "verifier": "rfc9068" })));
    });
    for (resource, details, expected) in [
        ("https://crm.example.com/mcp/", Value::Null, "server_unknown"),
        ("https://CRM.example.com/mcp", Value::Null, "server_unknown"),
        ("https://closed.example.com/mcp", Value::Null, "server_disabled"),
        ("https://abroad.example.com/mcp", Value::Null, "server_of_another_tenant"),
        (CRM, json!({ "identifier": "look_up" }), "tool_unknown"),
        (CRM, json!({ "identifier": "READ_CONTACT" }), "tool_unknown"),
        (CRM, json!({ "identifier": "delete_all", "arguments": {} }), "tool_unknown"),
        (
            "https://plain.example.com/mcp",
            json!({ "identifier": "low", "arguments": {} }),
            "server_without_guard",
        ),
    ] {
        assert_eq!(word(&world.refusal(&ask(resource, details)).await), expected, "{resource}");
    }
    world.for_alice(&ask("https://plain.example.com/mcp", json!({ "identifier": "low" }))).await.unwrap();
}

#[tokio::test]
async fn a_client_reaches_what_it_was_given() {
    let tools = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    let world = World::with(|setup| {
        setup.find_client("platform").may_call =
            vec![Reach { tools: tools(&["read_contact"]), ..reach(CRM) }];
    });
    world.for_alice(&read_contact()).await.unwrap();
    world.for_alice(&listing()).await.expect("whoever may call something may see what there is");
    for refused in [update_contact(), send_mail(), ask(MAILER, Value::Null)] {
        assert_eq!(world.refusal(&refused).await, IssueError::Target("beyond_the_clients_reach"));
    }
    let none = World::with(|setup| setup.find_client("platform").may_call.clear());
    let unknown = ask(CRM, json!({ "identifier": "no_such_tool" }));
    assert_eq!(
        none.refusal(&unknown).await,
        IssueError::Target("beyond_the_clients_reach"),
        "who may not reach a server is not told which tools it has"
    );
    assert_eq!(none.refusal(&listing()).await, IssueError::Target("beyond_the_clients_reach"));
}

#[tokio::test]
async fn a_user_authenticated_too_weakly_or_too_long_ago_is_asked_again() {
    let world = World::with(|setup| {
        merge(
            setup.tool(CRM, "read_contact"),
            json!({ "acr_values": ["aal2", "aal3"], "max_age_seconds": 300 }),
        );
    });
    let needed = IssueError::UserAuthentication {
        acr_values: vec!["aal2".to_owned(), "aal3".to_owned()],
        max_age_seconds: Some(300),
    };
    for (changes, accepted) in [
        (json!({ "acr": "aal2", "auth_time": NOW - 300 }), true),
        (json!({ "acr": "aal3", "auth_time": NOW }), true),
        (json!({ "acr": "aal1", "auth_time": NOW }), false),
        (json!({ "acr": null, "auth_time": NOW }), false),
        (json!({ "acr": "aal2", "auth_time": NOW - 301 }), false),
        (json!({ "acr": "aal2", "auth_time": null }), false),
    ] {
        let token = world.alice(changes.clone());
        let answer = world.exchange("platform", &token, &read_contact()).await;
        assert_eq!(answer.as_ref().err(), (!accepted).then_some(&needed), "{changes}");
    }
    world.for_alice(&listing()).await.expect("the server's list needs no more than it did");
}

#[tokio::test]
async fn policy_decides_and_what_it_cannot_evaluate_is_a_denial() {
    let world = World::with(|setup| {
        setup.policies = r#"
            @id("reads") permit (principal, action == Action::"tools/call", resource)
                when { resource.name == "read_contact" };
            @id("writes") permit (principal, action == Action::"tools/call", resource)
                when { resource.name == "update_contact" };
            @id("not-c9") forbid (principal, action == Action::"tools/call", resource)
                when { resource.name == "update_contact" && context.text.hasTag("name")
                    && context.text.getTag("name") == "c9" };
        "#
        .to_owned();
    });
    let token = world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(token.claims.authorization_details[0].policy.ids, ["reads"]);
    world.for_alice(&update_contact()).await.unwrap();
    let Err(IssueError::Denied(DenialReason::Policy { ids, errors })) = world.for_alice(&listing()).await
    else {
        panic!("nothing permits listing");
    };
    assert_eq!((ids, errors), (vec![], vec![]));
    // The forbid cannot look at what is not shown, and errs. Cedar would skip it, and the permit would stand.
    let digest =
        deputize_call::digest::Digest::from_str("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU").unwrap();
    let unseen = ask(CRM, json!({ "identifier": "update_contact", "call_digest": digest.to_string() }));
    let Err(IssueError::Denied(DenialReason::Policy { ids, errors })) = world.for_alice(&unseen).await else {
        panic!("an error denies");
    };
    assert_eq!((ids, errors.len()), (vec!["not-c9".to_owned()], 1));
    let c9 = json!({ "identifier": "update_contact", "arguments": { "id": "c1", "name": "c9" } });
    let Err(IssueError::Denied(DenialReason::Policy { ids, .. })) = world.for_alice(&ask(CRM, c9)).await
    else {
        panic!("forbidden");
    };
    assert_eq!(ids, ["not-c9"]);
}

#[tokio::test]
async fn what_a_person_would_have_to_approve_is_refused_while_nobody_can() {
    let world = World::with(|setup| {
        setup.policies.push_str(
            r#"@id("ask") @require_approval("confirm") permit (principal, action == Action::"tools/call", resource)
                when { resource.name == "update_contact" };"#,
        );
    });
    let refund = ask(CRM, json!({ "identifier": "refund", "arguments": { "id": "r1" } }));
    let delete = ask(CRM, json!({ "identifier": "delete_all", "arguments": {} }));
    for waiting in [refund, delete, update_contact()] {
        assert_eq!(world.refusal(&waiting).await, IssueError::Denied(DenialReason::ApprovalRequired));
    }
    world.for_alice(&read_contact()).await.unwrap();
    let back = Ask { approval_id: Some("made-up".to_owned()), ..read_contact() };
    assert_eq!(world.refusal(&back).await, IssueError::Request("approval_unknown"));
}

#[tokio::test]
async fn a_client_asks_in_its_own_name_where_it_may_and_for_lists_alone() {
    let world = World::with(|setup| {
        setup.find_client("crm").client_credentials = true;
        setup.find_client("mailer").client_credentials = true;
    });
    let own = async |client: &str, ask: Ask| {
        let caller = world.caller(client).await;
        let application =
            Application { decision_id: uuid::Uuid::nil(), caller: &caller, subject: None, ask: &ask };
        issue(&world.desk, &application).await
    };
    let token = own("crm", ask(MAILER, Value::Null)).await.unwrap();
    assert_eq!(
        (token.claims.sub.as_str(), token.claims.authorization_details[0].level()),
        ("crm", Level::L0)
    );
    for (client, ask, expected) in [
        ("platform", listing(), "client_credentials_not_allowed"),
        ("mailer", ask(MAILER, Value::Null), "beyond_the_clients_reach"),
        ("crm", ask(MAILER, json!({ "identifier": "look_up" })), "client_credentials_beyond_listing"),
        ("crm", send_mail(), "client_credentials_beyond_listing"),
    ] {
        assert_eq!(word(&own(client, ask).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn without_a_proven_key_nothing_is_issued() {
    let world = World::new();
    let assertion = world.assertion("platform", json!({}));
    let presented =
        deputize_issuer::authenticate::Presented::Assertion { assertion: &assertion, client_id: None };
    let nothing = deputize_issuer::authenticate::Possession::default();
    let caller =
        deputize_issuer::authenticate::authenticate(&world.desk, world.decision(), presented, nothing)
            .await
            .unwrap();
    let subject = world.subject(&caller, &world.alice(json!({}))).await.unwrap();
    let (decision_id, ask) = (uuid::Uuid::nil(), read_contact());
    let application = Application { decision_id, caller: &caller, subject: Some(&subject), ask: &ask };
    assert_eq!(issue(&world.desk, &application).await.unwrap_err(), IssueError::Proof("proof_missing"));
    assert!(world.audit.entries().is_empty());
}

#[tokio::test]
async fn clocks_that_part_stop_minting() {
    let world = World::new();
    world.clock.jump_wall(Duration::from_millis(1999));
    world.for_alice(&read_contact()).await.unwrap();
    let (caller, token) = (world.caller("platform").await, world.alice(json!({})));
    world.clock.jump_wall(Duration::from_secs(2));
    for asked in [read_contact(), listing()] {
        let presented = PresentedSubject { token: &token, kind: SubjectTokenType::AccessToken, actor: None };
        let refused = world.exchange_as(&caller, presented, &asked).await;
        assert_eq!(refused.unwrap_err(), IssueError::Uncertain("clocks_disagree"));
    }
}

#[tokio::test]
async fn a_transaction_goes_on_for_who_began_it() {
    let world = World::with(|setup| {
        setup.client("rival", |client| {
            client.subject_audiences = vec![PLATFORM_AUDIENCE.to_owned(), "platform".to_owned()];
            client.may_call = vec![reach("*")];
        });
    });
    let first = world.for_alice(&read_contact()).await.unwrap().claims.txn;
    assert_ne!(
        world.for_alice(&read_contact()).await.unwrap().claims.txn,
        first,
        "one by itself, one transaction"
    );
    let go_on = |id: &str| Ask { transaction_id: Some(id.to_owned()), ..read_contact() };
    assert_eq!(world.for_alice(&go_on(&first)).await.unwrap().claims.txn, first);
    let unknown = IssueError::Request("transaction_unknown");
    let bob = world.alice(json!({ "sub": "bob" }));
    assert_eq!(world.exchange("platform", &bob, &go_on(&first)).await.unwrap_err(), unknown);
    let by_rival = world.exchange("rival", &world.alice(json!({})), &go_on(&first)).await;
    assert_eq!(by_rival.unwrap_err(), unknown);
    for made_up in ["", "AAAA", &first[1..], &"A".repeat(10_000)] {
        assert_eq!(world.refusal(&go_on(made_up)).await, unknown);
    }
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(world.refusal(&go_on(&first)).await, IssueError::Request("transaction_too_old"));
}

#[tokio::test]
async fn what_is_revoked_gets_nothing_more() {
    let world = World::new();
    let first = world.for_alice(&read_contact()).await.unwrap().claims;
    let go_on = Ask { transaction_id: Some(first.txn.clone()), ..read_contact() };
    world.revocations.insert([Revoked::Transaction(first.txn.clone())], u64::MAX);
    assert_eq!(word(&world.refusal(&go_on).await), "transaction_revoked");
    world.for_alice(&read_contact()).await.expect("another transaction");
    world.revocations.insert([Revoked::Person(first.sub.clone())], u64::MAX);
    assert_eq!(word(&world.refusal(&read_contact()).await), "person_disabled");
    let bob = world.alice(json!({ "sub": "bob" }));
    world.exchange("platform", &bob, &read_contact()).await.expect("another person");
}

#[tokio::test]
async fn lifetimes_are_those_of_the_record_within_bounds() {
    for (recorded, granted) in [(None, 60), (Some(30), 30), (Some(90), 90), (Some(120), 120)] {
        let world = World::with(|setup| {
            merge(setup.tool(CRM, "read_contact"), json!({ "lifetime_seconds": recorded }));
        });
        let claims = world.for_alice(&read_contact()).await.unwrap().claims;
        assert_eq!(claims.exp - claims.iat, granted);
    }
}

#[tokio::test]
async fn a_token_ends_with_the_users_sign_in_and_is_not_made_for_its_last_seconds() {
    let world = World::new();
    for (left, expected) in
        [(600, Some(60)), (60, Some(60)), (59, Some(59)), (5, Some(5)), (4, None), (0, None)]
    {
        let alice = world.alice(json!({ "exp": NOW + left }));
        match (world.exchange("platform", &alice, &read_contact()).await, expected) {
            (Ok(token), Some(lifetime)) => assert_eq!(token.claims.exp, NOW + lifetime, "{left}"),
            (Err(error), None) => assert_eq!(error.reason(), "subject_token_expired", "{left}"),
            (got, _) => panic!("{left}: {got:?}"),
        }
    }
    // Within the leeway it is still a token that can be read, but nothing can come of it.
    let late = world.exchange("platform", &world.alice(json!({ "exp": NOW - 1 })), &read_contact()).await;
    assert_eq!(late.unwrap_err().reason(), "subject_token_expired");
}
