//! Stage 3: for whom, and through whom.

use crate::world::*;
use deputize_call::claims::Actor;
use deputize_issuer::{
    authenticate::Caller,
    client::PresentedActor,
    error::IssueError,
    provider::SubjectTokenType,
    verify_subject::{PresentedSubject, Subject, verify_subject},
};
use serde_json::{Value, json};
use std::time::Duration;

const CARRIED: &str = "spiffe://corp.example/agent/carried";

fn reason(refused: Result<Subject, IssueError>) -> &'static str {
    match refused {
        Err(IssueError::SubjectToken { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn alices_token_stands_for_alice_with_the_client_acting() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let subject = world.subject(&caller, &world.alice(json!({}))).await.unwrap();
    assert_eq!(subject.person().sub, world.alice_sub());
    assert_eq!(subject.person().groups, [format!("{IDP}|staff")]);
    assert_eq!(*subject.act(), Actor { sub: BOT.to_owned(), act: None });
    assert_eq!(subject.expires_at(), NOW + 600);
    assert!(subject.parent().is_none());
}

#[tokio::test]
async fn each_user_token_that_misses_one_condition_is_refused() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let jkt = world.key("spare").public().thumbprint();
    for changes in [
        json!({ "exp": NOW - 5 }),
        json!({ "exp": null }),
        json!({ "nbf": NOW + 6 }),
        json!({ "iat": NOW + 6 }),
        json!({ "aud": "https://another.example.com" }),
        json!({ "client_id": "another" }),
        json!({ "azp": "another" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": OTHER_IDP }),
        json!({ "sub": null }),
        json!({ "cnf": { "jkt": jkt } }),
        json!({ "cnf": { "x5t#S256": jkt } }),
        json!({ "act": "an agent" }),
        json!({ "may_act": "an agent" }),
        // Whoever is behind that server has seen it; what is for us says who acts.
        json!({ "aud": [PLATFORM_AUDIENCE, CRM] }),
        json!({ "aud": [PLATFORM_AUDIENCE, ISSUER] }),
    ] {
        let shown = changes.to_string();
        let refused = world.subject(&caller, &world.alice(changes)).await;
        assert!(matches!(refused, Err(IssueError::SubjectToken { .. })), "{shown}: {refused:?}");
    }
    let own = world.key("platform").public().thumbprint();
    for changes in [
        json!({ "exp": NOW - 4 }),
        json!({ "nbf": NOW + 5 }),
        json!({ "aud": [PLATFORM_AUDIENCE, "https://another.example.com"] }),
        json!({ "cnf": { "jkt": own } }),
    ] {
        let shown = changes.to_string();
        world.subject(&caller, &world.alice(changes)).await.expect(&shown);
    }
    let too_long = "x".repeat(16 * 1024 + 1);
    assert_eq!(reason(world.subject(&caller, &too_long).await), "subject_token_too_large");
}

#[tokio::test]
async fn a_token_of_one_client_is_no_good_to_another() {
    let world = World::new();
    let caller = world.caller("crm").await;
    assert!(world.subject(&caller, &world.alice(json!({}))).await.is_err());
}

#[tokio::test]
async fn no_person_of_one_tenant_for_a_client_of_another() {
    let world = World::new();
    let foreigner = world.caller("foreigner").await;
    assert!(world.subject(&foreigner, &world.alice(json!({}))).await.is_err());
    let now = world.now();
    let claims = json!({
        "iss": OTHER_IDP, "sub": "zoe", "aud": PLATFORM_AUDIENCE, "client_id": "platform", "scope": "openid",
        "iat": now, "exp": now + 600,
    });
    let zoe = world.key(OTHER_IDP).sign("at+jwt", &claims).unwrap();
    assert_eq!(world.subject(&foreigner, &zoe).await.unwrap().person().tenant, "other");
    assert!(world.subject(&world.caller("platform").await, &zoe).await.is_err());
}

#[tokio::test]
async fn a_provider_whose_keys_were_never_had_is_unavailable_and_nobody_is_waved_through() {
    let world = World::new();
    world.provider_keys.forget(IDP);
    let caller = world.caller("platform").await;
    let refused = world.subject(&caller, &world.alice(json!({}))).await.unwrap_err();
    assert_eq!(refused, IssueError::UpstreamUnavailable("identity_provider_keys_unavailable"));
}

#[tokio::test]
async fn tokens_made_for_other_purposes_are_no_subjects() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let now = world.now();
    for (typ, issuer) in [
        ("JWT", format!("{ISSUER}/spiffe")),
        ("JWT", format!("{ISSUER}/web-identity")),
        ("JWT", ISSUER.to_owned()),
        ("jwt-svid", ISSUER.to_owned()),
        ("dpop+jwt", ISSUER.to_owned()),
    ] {
        let claims = json!({
            "iss": issuer, "sub": "alice", "aud": PLATFORM_AUDIENCE, "client_id": "platform", "iat": now, "exp": now + 60,
        });
        let token = world.key(ISSUER).sign(typ, &claims).unwrap();
        let refused = world.subject(&caller, &token).await;
        assert!(matches!(refused, Err(IssueError::SubjectToken { .. })), "{typ} {issuer}: {refused:?}");
    }
}

#[tokio::test]
async fn a_token_of_ours_is_read_by_our_key_alone() {
    let world = World::new();
    let token = world.for_alice(&read_contact()).await.unwrap();
    let crm = world.caller("crm").await;
    world.subject(&crm, token.access_token.expose()).await.unwrap();
    let forged = world.key("spare").sign("at+jwt", &token.claims).unwrap();
    assert_eq!(reason(world.subject(&crm, &forged).await), "subject_token_invalid");
    // By the provider's own key: who names our issuer is not read as a user's token.
    let forged = world.key(IDP).sign("at+jwt", &token.claims).unwrap();
    assert_eq!(reason(world.subject(&crm, &forged).await), "subject_token_invalid");
    let as_id_token =
        PresentedSubject { token: token.access_token.expose(), kind: SubjectTokenType::IdToken, actor: None };
    assert_eq!(reason(verify_subject(&world.desk, &crm, &as_id_token).await), "subject_token_type");
    let with_actor = PresentedSubject {
        kind: SubjectTokenType::Jwt,
        actor: Some((token.access_token.expose(), SubjectTokenType::Jwt)),
        ..as_id_token
    };
    assert_eq!(reason(verify_subject(&world.desk, &crm, &with_actor).await), "actor_token_at_a_next_hop");
}

#[tokio::test]
async fn a_token_of_ours_is_brought_by_its_audience_or_its_holder() {
    let world = World::with(|setup| {
        // A second client of the platform's key: the key alone is not the client.
        let key = setup.keys["platform"].clone();
        setup.client("twin", |client| client.subject_audiences = vec![PLATFORM_AUDIENCE.to_owned()]);
        setup.keys.insert("twins-key".to_owned(), key);
    });
    let token = world.for_alice(&read_contact()).await.unwrap();
    let token = token.access_token.expose();
    let by = async |client: &str, key: &str| {
        let caller = world.caller_with_key(client, key).await;
        world.subject(&caller, token).await
    };
    by("crm", "crm").await.expect("the audience");
    by("crm", "spare").await.expect("the audience needs no key of the token's");
    by("platform", "platform").await.expect("the holder, with its key");
    assert_eq!(reason(by("platform", "spare").await), "subject_token_of_another_party");
    assert_eq!(reason(by("mailer", "mailer").await), "subject_token_of_another_party");
    assert_eq!(reason(by("mailer", "platform").await), "subject_token_of_another_party");
    assert_eq!(reason(by("twin", "twins-key").await), "subject_token_of_another_party");
    assert_eq!(reason(by("foreigner", "platform").await), "subject_token_of_another_party");
}

#[tokio::test]
async fn a_token_of_ours_is_good_until_it_expires_without_grace() {
    let world = World::new();
    let token = world.for_alice(&read_contact()).await.unwrap();
    world.clock.advance(Duration::from_secs(59));
    let crm = world.caller("crm").await;
    world.subject(&crm, token.access_token.expose()).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(reason(world.subject(&crm, token.access_token.expose()).await), "subject_token_invalid");
}

#[tokio::test]
async fn a_clients_own_token_stands_for_nobody() {
    let world = World::with(|setup| setup.find_client("platform").client_credentials = true);
    let caller = world.caller("platform").await;
    let ask = listing();
    let application = deputize_issuer::decide::Application {
        decision_id: uuid::Uuid::nil(),
        caller: &caller,
        subject: None,
        ask: &ask,
    };
    let token = deputize_issuer::issue::issue(&world.desk, &application).await.unwrap();
    assert_eq!((token.claims.sub.as_str(), &token.claims.act), ("platform", &None));
    for client in ["platform", "crm"] {
        let caller = world.caller(client).await;
        let refused = world.subject(&caller, token.access_token.expose()).await;
        assert_eq!(reason(refused), "subject_token_without_actor", "{client}");
    }
}

#[tokio::test]
async fn may_act_must_name_who_acts() {
    let world = World::new();
    let caller = world.caller("platform").await;
    for (may_act, accepted) in [
        (json!({ "sub": BOT }), true),
        (json!({ "sub": "platform" }), true),
        (json!({ "sub": BOT, "iss": ISSUER }), true),
        (json!({ "sub": BOT, "client_id": "platform" }), true),
        (json!({ "sub": "another" }), false),
        (json!({ "sub": BOT, "iss": IDP }), false),
        (json!({ "sub": BOT, "client_id": "another" }), false),
        (json!({ "sub": "" }), false),
        (json!({}), false),
        (json!({ "sub": BOT, "email": "bot@corp.example" }), false),
    ] {
        let subject = world.subject(&caller, &world.alice(json!({ "may_act": may_act }))).await;
        assert_eq!(subject.is_ok(), accepted, "{may_act}: {subject:?}");
    }
}

/// A world whose platform may present one actor, and that actor's own token.
fn presenting() -> World {
    World::with(|setup| {
        setup.find_client("platform").presents_actors = vec![PresentedActor {
            issuer: IDP.to_owned(),
            subject: "agent-7".to_owned(),
            actor: CARRIED.to_owned(),
        }];
    })
}

fn actor_token(world: &World, changes: Value) -> String {
    let now = world.now();
    let claims =
        json!({ "iss": IDP, "sub": "agent-7", "aud": ISSUER, "scope": "act", "iat": now, "exp": now + 60 });
    world.key(IDP).sign("at+jwt", &merged(claims, changes)).unwrap()
}

async fn with_actor(
    world: &World,
    caller: &Caller,
    user: Value,
    actor: Value,
) -> Result<Subject, IssueError> {
    let (token, actor) = (world.alice(user), actor_token(world, actor));
    let kind = SubjectTokenType::AccessToken;
    verify_subject(
        &world.desk,
        caller,
        &PresentedSubject { token: &token, kind, actor: Some((&actor, kind)) },
    )
    .await
}

#[tokio::test]
async fn an_actor_that_the_client_may_present_acts() {
    let world = presenting();
    let caller = world.caller("platform").await;
    let subject = with_actor(&world, &caller, json!({}), json!({})).await.unwrap();
    assert_eq!(*subject.act(), Actor { sub: CARRIED.to_owned(), act: None });
    assert_eq!(subject.person().sub, world.alice_sub());
    let own_key = world.key("platform").public().thumbprint();
    with_actor(&world, &caller, json!({}), json!({ "cnf": { "jkt": own_key } })).await.unwrap();
}

#[tokio::test]
async fn each_actor_token_that_misses_one_condition_is_refused() {
    let world = presenting();
    let caller = world.caller("platform").await;
    let other_key = world.key("spare").public().thumbprint();
    for (changes, expected) in [
        (json!({ "aud": [ISSUER, "https://another.example.com"] }), "actor_token_audience"),
        // On the list as the actor's own name, but not us.
        (json!({ "aud": "agent-7" }), "actor_token_audience"),
        (json!({ "aud": PLATFORM_AUDIENCE }), "actor_token_invalid"),
        (json!({ "sub": "agent-8" }), "actor_not_configured_for_client"),
        (json!({ "exp": NOW - 5 }), "actor_token_invalid"),
        (json!({ "iss": OTHER_IDP }), "actor_token_invalid"),
        (json!({ "cnf": { "jkt": other_key } }), "actor_token_bound_to_another_key"),
        (json!({ "act": { "sub": "an earlier agent" } }), "actor_token_delegated"),
    ] {
        let shown = changes.to_string();
        assert_eq!(reason(with_actor(&world, &caller, json!({}), changes).await), expected, "{shown}");
    }
}

#[tokio::test]
async fn no_client_presents_an_actor_that_is_not_its_own() {
    let world = presenting();
    let world_without = World::new();
    for (world, expected) in [(&world, None), (&world_without, Some("actor_not_configured_for_client"))] {
        let caller = world.caller("platform").await;
        let presented = with_actor(world, &caller, json!({}), json!({})).await;
        match expected {
            None => drop(presented.unwrap()),
            Some(expected) => assert_eq!(reason(presented), expected),
        }
    }
}

#[tokio::test]
async fn may_act_beside_an_actor_token_must_name_that_actor() {
    let world = presenting();
    let caller = world.caller("platform").await;
    for (may_act, accepted) in [
        (json!({ "sub": CARRIED }), true),
        (json!({ "sub": CARRIED, "iss": ISSUER }), true),
        (json!({ "sub": "agent-7", "iss": IDP }), true),
        (json!({ "sub": "agent-7" }), true),
        (json!({ "sub": "agent-7", "iss": IDP, "client_id": "platform" }), true),
        (json!({ "sub": "agent-7", "iss": OTHER_IDP }), false),
        (json!({ "sub": "agent-7", "client_id": "another" }), false),
        // The carrier is named, not who would act.
        (json!({ "sub": BOT }), false),
        (json!({ "sub": "platform" }), false),
        (json!({ "sub": "agent-8", "iss": IDP }), false),
    ] {
        let subject = with_actor(&world, &caller, json!({ "may_act": may_act.clone() }), json!({})).await;
        assert_eq!(subject.is_ok(), accepted, "{may_act}: {subject:?}");
    }
}

#[tokio::test]
async fn agents_that_the_provider_names_stay_in_the_chain() {
    let world = World::new();
    let caller = world.caller("platform").await;
    let subject = world.subject(&caller, &world.alice(json!({ "act": { "sub": "first" } }))).await.unwrap();
    assert_eq!(subject.act().chain().collect::<Vec<_>>(), [BOT, "first"]);
    let chain_of = |names: &[&str]| {
        names.iter().rev().fold(Value::Null, |inner, name| match inner {
            Value::Null => json!({ "sub": name }),
            inner => json!({ "sub": name, "act": inner }),
        })
    };
    let four = chain_of(&["a", "b", "c", "d"]);
    world.subject(&caller, &world.alice(json!({ "act": four }))).await.expect("five with the client");
    let five = chain_of(&["a", "b", "c", "d", "e"]);
    let refused = world.subject(&caller, &world.alice(json!({ "act": five }))).await;
    assert_eq!(reason(refused), "actor_chain_too_deep");
    let fifty: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let fifty = chain_of(&fifty.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(world.subject(&caller, &world.alice(json!({ "act": fifty }))).await.is_err());
    let refused = world.subject(&caller, &world.alice(json!({ "act": chain_of(&["a", BOT]) }))).await;
    assert_eq!(reason(refused), "actor_chain_loops");
}
