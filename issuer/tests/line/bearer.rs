//! A person's own token, presented to a server as it stands and brought by that server's guard.

use crate::world::*;
use deputize_call::claims::{Actor, Confirmation, PresentedBy};
use deputize_issuer::{
    ask::Ask,
    client::AcceptedBearer,
    error::IssueError,
    mint::ToolCallToken,
    provider::{Preset, SubjectTokenType},
    record::Kind,
    revocation::Revoked,
    verify_subject::{PresentedSubject, verify_subject},
};
use serde_json::{Value, json};

/// The CRM's guard may bring what was made for `desk-app`.
fn accepting() -> World {
    World::with(accept)
}

fn accept(setup: &mut Setup) {
    setup.find_client("crm").accepts_bearer =
        vec![AcceptedBearer { issuer: IDP.to_owned(), clients: vec!["desk-app".to_owned()] }];
}

/// What alice's MCP client got from her identity provider for the CRM, with `changes`.
fn presented(world: &World, changes: Value) -> String {
    let now = world.now();
    let claims = json!({
        "iss": IDP, "sub": "alice", "aud": CRM, "client_id": "desk-app", "scope": "openid", "iat": now, "exp": now + 600,
    });
    world.key(IDP).sign("at+jwt", &merged(claims, changes)).unwrap()
}

async fn bring(world: &World, changes: Value, ask: &Ask) -> Result<ToolCallToken, IssueError> {
    world.exchange("crm", &presented(world, changes), ask).await
}

#[tokio::test]
async fn a_guard_exchanges_what_was_presented_to_its_server_and_says_so() {
    let world = accepting();
    let token = bring(&world, json!({}), &read_one_contact()).await.unwrap();
    let claims = &token.claims;
    assert_eq!((claims.sub.as_str(), claims.aud.as_str()), (world.alice_sub().as_str(), CRM));
    assert_eq!((claims.client_id.as_str(), claims.act.as_ref().unwrap().sub.as_str()), ("crm", "crm"));
    assert_eq!(claims.cnf, Confirmation::Jkt(world.key("crm").public().thumbprint().to_owned()));
    let by = PresentedBy { iss: IDP.to_owned(), client: "desk-app".to_owned() };
    assert_eq!(claims.bearer.as_ref(), Some(&by));
    let intent = world.audit.entries().into_iter().find(|entry| entry.kind == Kind::Intent).unwrap();
    assert_eq!(intent.bearer, Some(by));
    let own = world.for_alice(&read_one_contact()).await.unwrap();
    assert_eq!(own.claims.bearer, None, "an agent that exchanges for itself proved its key");
}

#[tokio::test]
async fn each_presented_token_that_misses_one_condition_is_refused() {
    let world = accepting();
    let jkt = world.key("crm").public().thumbprint().to_owned();
    for (changes, word) in [
        (json!({ "aud": MAILER }), "audience"),
        (json!({ "aud": PLATFORM_AUDIENCE }), "audience"),
        (json!({ "aud": [CRM, MAILER] }), "audience"),
        (json!({ "aud": [CRM, "https://id.example.com.evil.example/userinfo"] }), "audience"),
        (json!({ "aud": [CRM, format!("{IDP}/wiki/mcp")] }), "audience"),
        (json!({ "aud": [CRM, format!("{IDP}/userinfo/mcp")] }), "audience"),
        (json!({ "aud": [CRM, format!("{IDP}/userinfo"), format!("{IDP}/wiki/mcp")] }), "audience"),
        (json!({ "aud": "desk-app" }), "audience"),
        (json!({ "client_id": "platform" }), "authorized_party"),
        (json!({ "azp": "another" }), "authorized_party"),
        (json!({ "client_id": null }), "authorized_party"),
        (json!({ "iss": "https://evil.example" }), "issuer_not_trusted"),
        (json!({ "iss": OTHER_IDP }), "tenant"),
        (json!({ "exp": NOW - 5 }), "expired"),
        (json!({ "sub": "desk-app" }), "not_a_person"),
        // Even its own key: a bound token says that it is good with a proof alone.
        (json!({ "cnf": { "jkt": jkt } }), "subject_token_bound_to_another_key"),
        (json!({ "may_act": { "sub": "another" } }), "may_act_names_another"),
        (json!({ "act": { "sub": "crm" } }), "actor_chain_loops"),
    ] {
        let shown = changes.to_string();
        let refused = bring(&world, changes, &read_one_contact()).await.expect_err(&shown);
        assert_eq!(refused.reason(), word, "{shown}");
    }
    for changes in [
        json!({}),
        json!({ "azp": "desk-app" }),
        json!({ "client_id": null, "azp": "desk-app" }),
        json!({ "aud": [CRM, format!("{IDP}/userinfo")] }),
        json!({ "aud": [IDP, CRM] }),
        json!({ "may_act": { "sub": "crm" } }),
    ] {
        let shown = changes.to_string();
        bring(&world, changes, &read_one_contact()).await.expect(&shown);
    }
}

#[tokio::test]
async fn an_id_token_is_not_presented_to_servers() {
    let world = accepting();
    let crm = world.caller("crm").await;
    let now = world.now();
    let claims = json!({ "iss": IDP, "sub": "alice", "aud": CRM, "azp": CRM, "nonce": "n", "iat": now, "exp": now + 60 });
    let id_token = world.key(IDP).sign("JWT", &claims).unwrap();
    for (token, kind) in [
        (id_token.as_str(), SubjectTokenType::Jwt),
        (&id_token, SubjectTokenType::AccessToken),
        (&presented(&world, json!({})), SubjectTokenType::IdToken),
    ] {
        let subject = PresentedSubject { token, kind, actor: None };
        let refused = verify_subject(&world.desk, &crm, &subject).await.unwrap_err();
        assert!(matches!(refused.reason(), "token_kind" | "subject_token_type"), "{refused:?}");
    }
    let actor = Some((id_token.as_str(), SubjectTokenType::Jwt));
    let token = presented(&world, json!({}));
    let subject = PresentedSubject { token: &token, kind: SubjectTokenType::AccessToken, actor };
    let refused = verify_subject(&world.desk, &crm, &subject).await.unwrap_err();
    assert_eq!(refused.reason(), "actor_token_beside_a_bearer_token");
}

#[tokio::test]
async fn nobody_brings_one_who_is_not_told_to() {
    let world = World::new();
    let refused = bring(&world, json!({}), &read_one_contact()).await.unwrap_err();
    assert_eq!(refused.reason(), "audience");
    let world = accepting();
    for client in ["mailer", "platform"] {
        let refused = world.exchange(client, &presented(&world, json!({})), &read_one_contact()).await;
        assert!(matches!(refused, Err(IssueError::SubjectToken { .. })), "{client}: {refused:?}");
    }
    let refused = world.exchange("crm", &world.alice(json!({})), &read_one_contact()).await.unwrap_err();
    assert_eq!(refused.reason(), "audience", "what the platform may bring");
    let any = World::with(|setup| {
        accept(setup);
        setup.find_client("crm").accepts_bearer[0].clients = vec!["*".to_owned()];
    });
    let token =
        bring(&any, json!({ "client_id": "registered-yesterday" }), &read_one_contact()).await.unwrap();
    assert_eq!(token.claims.bearer.unwrap().client, "registered-yesterday");
    let refused = bring(&any, json!({ "client_id": null }), &read_one_contact()).await.unwrap_err();
    assert_eq!(refused.reason(), "authorized_party", "somebody it must be");
}

#[tokio::test]
async fn it_is_good_for_the_server_that_it_was_presented_to_and_no_other() {
    let world = accepting();
    for ask in [send_mail(), ask(MAILER, Value::Null)] {
        let refused = bring(&world, json!({}), &ask).await.unwrap_err();
        assert_eq!(refused, IssueError::Target("bearer_token_of_another_server"), "though it may call that");
    }
    bring(&world, json!({}), &listing()).await.unwrap();
    let claimed = World::with(|setup| {
        accept(setup);
        setup.servers[0]["client_id"] = json!("platform");
    });
    let refused = bring(&claimed, json!({}), &listing()).await.unwrap_err();
    assert_eq!(refused, IssueError::Target("bearer_token_of_another_server"), "the record names another");
}

#[tokio::test]
async fn policy_knows_the_difference_here_and_at_every_later_hop() {
    let world = World::with(|setup| {
        accept(setup);
        setup.policies += r#"
            @id("unproved-mail") forbid (principal, action == Action::"tools/call", resource)
            when { context.binding == "bearer" && resource.server.id == "mailer" };
            @id("unproved-changes") forbid (principal, action == Action::"tools/call", resource)
            when { context has bearer_client && context.bearer_client == "desk-app" && resource.tier_rank >= 1 };"#;
    });
    let denied = |refused: Result<ToolCallToken, IssueError>, policy: &str| match refused {
        Err(IssueError::Denied(deputize_issuer::error::DenialReason::Policy { ids, .. })) => {
            assert_eq!(ids, [policy]);
        }
        other => panic!("{other:?}"),
    };
    let first = bring(&world, json!({}), &read_one_contact()).await.unwrap();
    denied(bring(&world, json!({}), &update_contact()).await, "unproved-changes");
    denied(world.hop("crm", &first, &ask(MAILER, json!({ "identifier": "look_up" }))).await, "unproved-mail");
    world.for_alice(&update_contact()).await.unwrap();
    let proved = world.for_alice(&read_one_contact()).await.unwrap();
    world.hop("crm", &proved, &send_mail()).await.unwrap();
    let denials = world.audit.entries().into_iter().filter(|entry| entry.kind == Kind::Denial);
    assert_eq!(denials.filter(|denial| denial.bearer == first.claims.bearer).count(), 2);
}

#[tokio::test]
async fn a_server_calls_on_with_what_its_own_guard_exchanged() {
    let world = accepting();
    let first = bring(&world, json!({}), &read_one_contact()).await.unwrap();
    let next = world.hop("crm", &first, &send_mail()).await.unwrap();
    assert_eq!(next.claims.act, Some(Actor { sub: "crm".to_owned(), act: None }), "one actor, not two");
    assert_eq!(next.claims.bearer, first.claims.bearer);
    assert_eq!((&next.claims.txn, next.claims.pjti.as_ref()), (&first.claims.txn, Some(&first.claims.jti)));
}

#[tokio::test]
async fn who_is_disabled_is_so_here_too() {
    let world = accepting();
    world.revocations.insert([Revoked::Person(world.alice_sub())], NOW + 600);
    let refused = bring(&world, json!({}), &read_one_contact()).await.unwrap_err();
    assert_eq!(refused.reason(), "person_disabled");
}

#[tokio::test]
async fn what_a_preset_says_of_access_tokens_holds() {
    let world = World::with(|setup| {
        accept(setup);
        setup.providers[0] = Preset::Keycloak.provider(IDP, "acme");
    });
    let now = world.now();
    let token = |changes: Value| {
        let claims = json!({
            "iss": IDP, "sub": "alice", "aud": CRM, "azp": "desk-app", "typ": "Bearer", "iat": now, "exp": now + 60,
        });
        world.key(IDP).sign("JWT", &merged(claims, changes)).unwrap()
    };
    world.exchange("crm", &token(json!({})), &listing()).await.unwrap();
    for (changes, word) in [
        (json!({ "typ": "ID" }), "token_kind"),
        (json!({ "typ": "Refresh" }), "token_kind"),
        (json!({ "preferred_username": "service-account-desk-app" }), "not_a_person"),
    ] {
        let refused = world.exchange("crm", &token(changes), &listing()).await.unwrap_err();
        assert_eq!(refused.reason(), word);
    }
}
