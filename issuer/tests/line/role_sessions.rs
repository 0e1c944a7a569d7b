//! Sessions of AWS roles: one call gets one, for its one resource, and nobody else gets it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_issuer::{
    error::{DenialReason, IssueError},
    fakes::{Disk, FakeSts, Mood},
    mint::{StsRefusal, ToolCallToken},
    record::{Audit as _, AwsKey, Entry, Kind},
    redeem::{revoke, revoke_by_admin},
    revocation::Revoked,
    role_session::{RoleAsk, RoleSession, role_session},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

use crate::world::{CRM, ISSUER, NOW, Setup, World, ask, merge, merged, server, tool};

const OPS: &str = "https://ops.example.com/mcp";
const INSTANCE: &str = "i-0123456789abcdef0";
const NEIGHBOUR: &str = "i-0123456789abcdef1";
const ROLE: &str = "arn:aws:iam::111122223333:role/deputize/restart";

/// A template for `tool` of the operations server.
fn template(name: &str, tool: &str) -> Value {
    json!({
        "name": name, "description": "d", "match": { "server": OPS, "tool": tool, "tenant": "acme" },
        "params": { "instance": { "from": { "argument": "/instance_id" }, "type": "ec2_instance_id" } },
        "aws": { "partition": "aws", "account": "111122223333", "region": "eu-central-1", "role_arn": ROLE },
        "statements": [{
            "actions": ["ec2:RebootInstances"],
            "resources": [{ "service": "ec2", "parts": [{ "literal": "instance/" }, { "param": "instance" }] }],
        }],
        "tags": { "tool": [{ "fact": "tool" }], "instance": [{ "param": "instance" }] },
        "ceiling": {
            "actions": ["ec2:RebootInstances"],
            "resources": ["arn:aws:ec2:eu-central-1:111122223333:instance/i-*"],
        },
    })
}

/// A world with an operations server, two templates and a security token service.
struct Cloud {
    world: World,
    sts: Arc<FakeSts>,
}

impl Cloud {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut kept = None;
        let world = World::with(|setup| {
            setup.servers.push(server(
                "ops",
                vec![
                    tool("restart", "medium", &["instance_id"], &["note"]),
                    tool("describe", "low", &["instance_id"], &[]),
                    tool("rename", "low", &["instance_id"], &[]),
                ],
            ));
            setup.client("ops", |client| client.server = Some(OPS.to_owned()));
            setup.templates =
                vec![template("restart-instance", "restart"), template("describe-instance", "describe")];
            let sts = Arc::new(FakeSts::new(setup.clock.clone()));
            setup.sts = Some(Arc::clone(&sts));
            kept = Some(sts);
            change(setup);
        });
        Self { world, sts: kept.unwrap() }
    }

    /// Alice's token for one call of `restart` with this instance.
    async fn restart(&self, instance: &str) -> ToolCallToken {
        self.token(json!({ "identifier": "restart", "arguments": { "instance_id": instance } })).await
    }

    async fn token(&self, details: Value) -> ToolCallToken {
        self.world.for_alice(&ask(OPS, details)).await.unwrap()
    }

    /// The operations server asks for credentials for the call with this instance.
    async fn session(&self, token: &ToolCallToken, instance: &str) -> Result<Arc<RoleSession>, IssueError> {
        self.session_for("ops", token, json!({ "instance_id": instance })).await
    }

    async fn session_for(
        &self,
        client: &str,
        token: &ToolCallToken,
        arguments: Value,
    ) -> Result<Arc<RoleSession>, IssueError> {
        self.session_as(client, asked(token, &arguments)).await
    }

    async fn session_as(&self, client: &str, asked: RoleAsk<'_>) -> Result<Arc<RoleSession>, IssueError> {
        let caller = self.world.caller(client).await;
        role_session(&self.world.desk, &caller, &asked).await
    }

    fn orders(&self) -> usize {
        self.sts.orders().len()
    }

    fn last(&self, kind: Kind) -> Entry {
        let entries = self.world.audit.entries();
        entries.into_iter().rev().find(|entry| entry.kind == kind).unwrap()
    }

    fn advance(&self, seconds: u64) {
        self.world.clock.advance(Duration::from_secs(seconds));
    }

    /// Loads rules anew, as a reload would.
    fn reload(&self, change: impl FnOnce(&mut Setup)) {
        let mut setup = Setup::new();
        setup.servers.push(server("ops", vec![tool("restart", "medium", &["instance_id"], &["note"])]));
        setup.client("ops", |client| client.server = Some(OPS.to_owned()));
        setup.templates = vec![template("restart-instance", "restart")];
        change(&mut setup);
        let mut rules = setup.rules(&self.world.provider_keys);
        // Clients keep their keys.
        rules.clients = deputize_issuer::client::Clients::new(self.world.clients.clone());
        self.world.desk.rules.store(Arc::new(rules));
    }
}

/// What a server asks with a token and the call's arguments.
fn asked<'a>(token: &'a ToolCallToken, arguments: &'a Value) -> RoleAsk<'a> {
    RoleAsk {
        token: token.access_token.expose(),
        arguments: arguments.as_object().unwrap(),
        input_responses: None,
        request_state: None,
        template: None,
    }
}

/// The claims of a compact JWS.
fn claims_of(jws: &str) -> Value {
    let payload = jws.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn reason(refused: Result<Arc<RoleSession>, IssueError>) -> &'static str {
    refused.expect_err("must be refused").reason()
}

#[tokio::test]
async fn a_call_gets_a_session_for_its_one_resource_and_the_intent_comes_first() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    let session = cloud.session(&token, INSTANCE).await.unwrap();
    assert_eq!(session.credentials.secret_access_key.expose(), "secret-access-key-1");
    assert_eq!(session.session_name, session.decision_id.to_string());
    assert_eq!(
        (session.template.as_str(), session.account.as_str(), session.role_arn.as_str()),
        ("restart-instance", "111122223333", ROLE)
    );
    assert_eq!((session.source_identity.as_str(), session.window_end_seconds), ("alice", NOW + 300));

    let [order] = &cloud.sts.orders()[..] else { panic!("one order") };
    assert!(order.session.policy.contains(&format!("instance/{INSTANCE}\"")), "{}", order.session.policy);

    let entries = cloud.world.audit.entries();
    let at = entries.iter().position(|entry| entry.aws.is_some()).unwrap();
    let (intent, outcome) = (&entries[at], &entries[at + 1]);
    assert_eq!((intent.kind, intent.decision), (Kind::Intent, Some(session.decision_id)));
    assert_eq!((&intent.jti, &intent.exp), (&None, &None), "it is no token");
    assert_eq!(intent.pjti.as_deref(), Some(token.claims.jti.as_str()));
    assert_eq!(intent.txn.as_deref(), Some(token.claims.txn.as_str()));
    assert_eq!(intent.sub, Some(cloud.world.alice_sub()));
    assert_eq!((intent.client.as_deref(), intent.server.as_deref()), (Some("ops"), Some(OPS)));
    assert_eq!(intent.tool.as_deref(), Some("restart"));
    assert_eq!(intent.arguments.keys().collect::<Vec<_>>(), ["instance_id"]);
    assert!(intent.spent.is_some(), "the assertion is used up");
    let aws = intent.aws.as_ref().unwrap();
    assert_eq!((aws.role.as_str(), aws.region.as_str()), (ROLE, "eu-central-1"));
    assert_eq!((aws.session_name.as_str(), aws.window_end), (session.session_name.as_str(), NOW + 300));
    assert_eq!((outcome.kind, outcome.result.as_deref()), (Kind::Outcome, Some("minted")));
    assert_eq!((outcome.intent, outcome.decision), (Some(at as u64), intent.decision));
}

#[tokio::test]
async fn the_web_identity_says_what_the_session_is_and_is_nowhere_else() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    let session = cloud.session(&token, INSTANCE).await.unwrap();
    let [order] = &cloud.sts.orders()[..] else { panic!("one order") };
    let mut claims = claims_of(&order.web_identity);
    assert!(claims["jti"].as_str().is_some_and(|jti| jti.len() == 36));
    merge(&mut claims, json!({ "jti": null }));
    assert_eq!(
        claims,
        json!({
            "iss": format!("{ISSUER}/web-identity"),
            "sub": "template:acme:restart-instance",
            "aud": "sts.amazonaws.com",
            "iat": NOW, "nbf": NOW, "exp": NOW + 60,
            "https://aws.amazon.com/tags": {
                "principal_tags": { "instance": [INSTANCE], "tool": ["restart"] },
                "transitive_tag_keys": [],
            },
            "https://aws.amazon.com/source_identity": "alice",
            "https://aws.amazon.com/roles": [ROLE],
        })
    );
    // Signed with a key of its own: neither passes for the other.
    let jws =
        deputize_call::jws::parse(&order.web_identity, deputize_call::jws::EmbeddedKey::Refused).unwrap();
    let aws = cloud.world.desk.aws.as_ref().unwrap();
    aws.web_identity.keys.ring().published.verify(&jws).unwrap();
    cloud.world.desk.keys.ring().published.verify(&jws).unwrap_err();

    let secret = session.credentials.secret_access_key.expose();
    let shown = format!("{session:?}");
    let log = cloud.world.audit.raw_entries();
    let log: String = log.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect();
    for hidden in [secret, session.credentials.session_token.expose(), &order.web_identity] {
        assert!(!shown.contains(hidden.as_str()) && !log.contains(hidden.as_str()));
    }
    assert!(!log.contains(INSTANCE), "arguments are pseudonyms in the log");
}

#[tokio::test]
async fn nobody_but_the_audience_gets_one_and_only_for_the_arguments_of_the_call() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    for stranger in ["platform", "crm", "foreigner"] {
        let refused = cloud.session_for(stranger, &token, json!({ "instance_id": INSTANCE })).await;
        assert_eq!(reason(refused), "not_the_audience", "{stranger}");
        let denial = cloud.last(Kind::Denial);
        assert_eq!(denial.reason.as_deref(), Some("not_the_audience"));
        assert_eq!(
            (denial.client.as_deref(), &denial.jti),
            (Some(stranger), &Some(token.claims.jti.clone()))
        );
        assert!(denial.spent.is_some());
    }
    for other in
        [json!({ "instance_id": NEIGHBOUR }), json!({ "instance_id": INSTANCE, "note": "n" }), json!({})]
    {
        assert_eq!(
            reason(cloud.session_for("ops", &token, other.clone()).await),
            "other_arguments",
            "{other}"
        );
    }
    let arguments = json!({ "instance_id": INSTANCE });
    let asked = || asked(&token, &arguments);
    let (responses, state) = (json!({ "confirm": true }), json!("s"));
    let named = |template| RoleAsk { template: Some(template), ..asked() };
    for (other, expected) in [
        (RoleAsk { input_responses: Some(&responses), ..asked() }, "other_arguments"),
        (RoleAsk { request_state: Some(&state), ..asked() }, "other_arguments"),
        (named("describe-instance"), "another_template"),
        (RoleAsk { token: "not.a.token", ..asked() }, "token_not_active"),
    ] {
        assert_eq!(reason(cloud.session_as("ops", other).await), expected, "{other:?}");
    }
    assert_eq!(cloud.orders(), 0, "STS hears of none of it");

    cloud.session(&token, INSTANCE).await.unwrap();
    // What it got is held, and still nobody else gets it.
    assert_eq!(reason(cloud.session_as("platform", asked()).await), "not_the_audience");
    assert_eq!(reason(cloud.session(&token, NEIGHBOUR).await), "other_arguments");
    assert_eq!(reason(cloud.session_as("ops", named("describe-instance")).await), "another_template");
    cloud.session_as("ops", named("restart-instance")).await.unwrap();
    assert_eq!(cloud.orders(), 1);
}

#[tokio::test]
async fn each_of_two_callers_at_once_gets_only_its_own() {
    let cloud = Cloud::new();
    let (one, other) = (cloud.restart(INSTANCE).await, cloud.restart(NEIGHBOUR).await);
    let (first, second) = tokio::join!(cloud.session(&one, INSTANCE), cloud.session(&other, NEIGHBOUR));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first.credentials.access_key_id, second.credentials.access_key_id);
    assert_ne!(first.session_name, second.session_name);
    for order in cloud.sts.orders() {
        let own = if order.session.session_name == first.session_name { INSTANCE } else { NEIGHBOUR };
        let foreign = if own == INSTANCE { NEIGHBOUR } else { INSTANCE };
        assert!(order.session.policy.contains(own) && !order.session.policy.contains(foreign));
    }
    assert_eq!(reason(cloud.session(&one, NEIGHBOUR).await), "other_arguments");
    assert_eq!(reason(cloud.session(&other, INSTANCE).await), "other_arguments");
    assert_eq!(cloud.orders(), 2);
}

#[tokio::test]
async fn a_token_that_leaves_anything_open_gets_none() {
    let cloud = Cloud::new();
    let fixed = json!({ "enum": [INSTANCE] });
    let constrained = |constraints: Value| json!({ "identifier": "restart", "constraints": constraints });
    for (details, expected) in [
        (json!({ "identifier": "describe" }), "token_leaves_the_call_open"),
        (constrained(json!({ "/instance_id": { "enum": [INSTANCE, NEIGHBOUR] } })), "parameter_left_open"),
        (constrained(json!({ "/instance_id": { "prefix": INSTANCE } })), "parameter_left_open"),
        (constrained(json!({ "/instance_id": { "enum": [NEIGHBOUR] } })), "arguments_beyond_the_constraints"),
    ] {
        let token = cloud.token(details.clone()).await;
        assert_eq!(reason(cloud.session(&token, INSTANCE).await), expected, "{details}");
    }
    let listing = cloud.world.for_alice(&ask(OPS, Value::Null)).await.unwrap();
    assert_eq!(reason(cloud.session(&listing, INSTANCE).await), "not_a_call_of_a_tool");
    assert_eq!(cloud.orders(), 0);

    // Fixed, it is as good as the call itself; what the template does not take may stay open.
    let details = constrained(json!({ "/instance_id": fixed, "/note": { "prefix": "a", "optional": true } }));
    let token = cloud.token(details).await;
    let steered = json!({});
    let arguments = json!({ "instance_id": INSTANCE });
    let refused = RoleAsk { input_responses: Some(&steered), ..asked(&token, &arguments) };
    assert_eq!(reason(cloud.session_as("ops", refused).await), "steered_beyond_the_token");
    cloud.session(&token, INSTANCE).await.unwrap();
    cloud.session_for("ops", &token, json!({ "instance_id": INSTANCE, "note": "a/b" })).await.unwrap();
    assert_eq!(cloud.orders(), 1, "one token, one session");
}

#[tokio::test]
async fn a_call_without_a_template_of_its_own_gets_none() {
    let arguments = || json!({ "instance_id": INSTANCE });
    let call = |tool: &str| json!({ "identifier": tool, "arguments": arguments() });
    let cloud = Cloud::new();
    let token = cloud.token(call("rename")).await;
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "no_template");
    let remembered = cloud.world.desk.lineage.person(&token.claims.jti);
    assert!(remembered.is_none(), "no person is remembered whose call cannot lead to a session");
    assert_eq!(cloud.last(Kind::Denial).reason.as_deref(), Some("no_template"));
    let other = cloud.restart(INSTANCE).await;
    cloud.session(&other, INSTANCE).await.unwrap();
    let held = format!("{:?}", cloud.world.desk.aws.as_ref().unwrap().sessions);
    assert!(held.contains(&other.claims.jti));
    assert!(
        !held.contains(&token.claims.jti),
        "a call that cannot have a session takes no place from others"
    );

    for (changes, expected) in [
        (
            json!({ "match": { "server": OPS, "tool": "restart", "tenant": "acme", "roles": ["operator"] } }),
            "no_template",
        ),
        (json!({ "match": { "server": OPS, "tool": "restart", "tenant": "other" } }), "no_template"),
        (json!({ "approval": "confirm" }), "approval_required"),
        (json!({ "approval": "approve" }), "approval_required"),
        (json!({ "source_identity": { "claim": "email" } }), "source_identity"),
        (json!({ "residency": { "regions": ["eu-central-1"] } }), "residency"),
    ] {
        let cloud = Cloud::with(|setup| merge(&mut setup.templates[0], changes.clone()));
        let token = cloud.restart(INSTANCE).await;
        assert_eq!(reason(cloud.session(&token, INSTANCE).await), expected, "{changes}");
        assert_eq!(cloud.orders(), 0);
        assert_eq!(cloud.last(Kind::Denial).reason.as_deref(), Some(expected));
    }
    let approval = Cloud::with(|setup| merge(&mut setup.templates[0], json!({ "approval": "confirm" })));
    let token = approval.restart(INSTANCE).await;
    let refused = approval.session(&token, INSTANCE).await.unwrap_err();
    assert_eq!(refused, IssueError::Denied(DenialReason::ApprovalRequired));

    let abroad = Cloud::with(|setup| {
        let ops = setup.servers.iter_mut().find(|server| server["resource"] == OPS).unwrap();
        merge(ops, json!({ "region": "us-east-1" }));
    });
    let token = abroad.restart(INSTANCE).await;
    assert_eq!(reason(abroad.session(&token, INSTANCE).await), "residency");
    let bad = cloud.restart("i-abc").await;
    assert_eq!(reason(cloud.session(&bad, "i-abc").await), "parameter_outside_its_type");
}

#[tokio::test]
async fn roles_of_accounts_that_are_not_listed_are_not_used() {
    let cloud = Cloud::with(|setup| {
        let text = setup.templates[0].to_string().replace("111122223333", "444455556666");
        setup.templates[0] = serde_json::from_str(&text).unwrap();
    });
    let token = cloud.restart(INSTANCE).await;
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "account_not_allowed");
    assert_eq!(cloud.orders(), 0);
    let rules = cloud.world.desk.rules.load();
    let errors = rules.templates.check_accounts(&rules.aws_accounts).unwrap_err();
    assert_eq!(errors.len(), 1, "and it would not have been loaded: {errors:?}");
}

#[tokio::test]
async fn who_gets_a_session_again_is_on_record_within_bounds() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    let session = cloud.session(&token, INSTANCE).await.unwrap();
    let outcome = cloud.last(Kind::Outcome);
    let key = AwsKey { access_key_id: session.credentials.access_key_id.clone(), attempts: 1 };
    assert_eq!((outcome.decision, outcome.aws_key), (Some(session.decision_id), Some(key)));
    for _ in 0..40 {
        cloud.session(&token, INSTANCE).await.unwrap();
    }
    let entries = cloud.world.audit.entries();
    let of_kind = |kind| entries.iter().filter(move |entry| entry.kind == kind);
    let times: Vec<_> = of_kind(Kind::HandedOut).filter_map(|entry| entry.count).collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32]);
    for entry in of_kind(Kind::HandedOut) {
        assert_eq!((entry.decision, entry.client.as_deref()), (Some(session.decision_id), Some("ops")));
        assert_eq!(entry.method.as_deref(), Some("private_key_jwt"));
        assert_eq!(
            (entry.jti.as_ref(), entry.txn.as_ref()),
            (Some(&token.claims.jti), Some(&token.claims.txn))
        );
        assert!(entry.spent.is_some(), "with the assertion that was used up");
    }
    assert_eq!(of_kind(Kind::Spent).count(), 30, "and all others with it alone");
    let all = format!("{entries:?}");
    for secret in [&session.credentials.secret_access_key, &session.credentials.session_token] {
        assert!(!all.contains(secret.expose()), "{all}");
    }
}

#[tokio::test]
async fn a_revoked_token_gets_nothing_not_even_what_it_got() {
    for cached in [false, true] {
        for how in ["token", "token by admin", "transaction", "person"] {
            let cloud = Cloud::new();
            let token = cloud.restart(INSTANCE).await;
            if cached {
                cloud.session(&token, INSTANCE).await.unwrap();
            }
            let desk = &cloud.world.desk;
            let what = match how {
                "token" => {
                    let platform = cloud.world.caller("platform").await;
                    revoke(desk, &platform, token.access_token.expose()).await.unwrap();
                    None
                }
                "token by admin" => Some(Revoked::Token(token.claims.jti.clone())),
                "transaction" => Some(Revoked::Transaction(token.claims.txn.clone())),
                _ => Some(Revoked::Person(token.claims.sub.clone())),
            };
            if let Some(what) = what {
                revoke_by_admin(desk, "admin", what).await.unwrap();
            }
            assert_eq!(reason(cloud.session(&token, INSTANCE).await), "token_not_active", "{how} {cached}");
            // And it stays so: for as long as a window may last after the token's end.
            cloud.advance(250);
            cloud.world.revocations.forget_before(cloud.world.now());
            assert_eq!(reason(cloud.session(&token, INSTANCE).await), "token_not_active", "{how} {cached}");
            assert_eq!(cloud.orders(), usize::from(cached));
        }
    }
}

#[tokio::test]
async fn a_token_that_has_expired_can_be_revoked_until_its_window_ends() {
    for (by, is_revoked) in [("platform", true), ("ops", true), ("crm", false)] {
        let cloud = Cloud::new();
        let token = cloud.restart(INSTANCE).await;
        let session = cloud.session(&token, INSTANCE).await.unwrap();
        cloud.advance(token.claims.exp + 1 - NOW);
        cloud.session(&token, INSTANCE).await.unwrap();
        let caller = cloud.world.caller(by).await;
        revoke(&cloud.world.desk, &caller, token.access_token.expose()).await.unwrap();
        assert_eq!(cloud.world.desk.is_revoked(&token.claims), is_revoked, "{by}");
        // And it stays so to the window's end.
        for at in [cloud.world.now(), session.window_end_seconds - 1] {
            cloud.advance(at - cloud.world.now());
            cloud.world.revocations.forget_before(at);
            let again = cloud.session(&token, INSTANCE).await;
            match is_revoked {
                true => assert_eq!(reason(again), "token_not_active", "{by} {at}"),
                false => assert_eq!(again.unwrap().decision_id, session.decision_id, "{by} {at}"),
            }
        }
        assert_eq!(cloud.orders(), 1);
    }
}

#[tokio::test]
async fn what_is_revoked_while_sts_is_asked_is_not_given_out() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.sts.set_mood(Mood::Hangs);
    let asking = cloud.session(&token, INSTANCE);
    tokio::pin!(asking);
    until_asked(&cloud, asking.as_mut()).await;
    let admin = revoke_by_admin(&cloud.world.desk, "admin", Revoked::Token(token.claims.jti.clone()));
    admin.await.unwrap();
    cloud.sts.set_mood(Mood::Gives);
    assert_eq!(reason(asking.await), "subject_token_revoked");
}

#[tokio::test]
async fn an_expired_token_gets_again_what_it_got_until_the_window_ends_and_nothing_new() {
    let cloud = Cloud::new();
    let (used, unused) = (cloud.restart(INSTANCE).await, cloud.restart(INSTANCE).await);
    let first = cloud.session(&used, INSTANCE).await.unwrap();
    cloud.advance(used.claims.exp - NOW);
    let again = cloud.session(&used, INSTANCE).await.unwrap();
    assert_eq!(again.credentials.access_key_id, first.credentials.access_key_id);
    assert_eq!(again.decision_id, first.decision_id);
    assert_eq!(reason(cloud.session(&unused, INSTANCE).await), "subject_token_expired");
    cloud.advance(first.window_end_seconds - 1 - cloud.world.now());
    cloud.session(&used, INSTANCE).await.unwrap();
    cloud.advance(1);
    assert_eq!(reason(cloud.session(&used, INSTANCE).await), "window_over");
    cloud.advance(1000);
    assert_eq!(reason(cloud.session(&used, INSTANCE).await), "token_not_active");
    assert_eq!(cloud.orders(), 1);
}

#[tokio::test]
async fn one_call_has_one_window_though_its_token_lives_longer() {
    let cloud = Cloud::with(|setup| {
        let aws = merged(setup.templates[0]["aws"].take(), json!({ "window_seconds": 30 }));
        setup.templates[0]["aws"] = aws;
    });
    let once = cloud.restart(INSTANCE).await;
    let several = cloud
        .token(json!({ "identifier": "restart", "constraints": { "/instance_id": { "enum": [INSTANCE] } } }))
        .await;
    for token in [&once, &several] {
        cloud.session(token, INSTANCE).await.unwrap();
    }
    cloud.advance(30);
    assert_eq!(reason(cloud.session(&once, INSTANCE).await), "window_over");
    cloud.session(&several, INSTANCE).await.unwrap();
    assert_eq!(cloud.orders(), 3);
}

#[tokio::test]
async fn tokens_from_before_this_start_get_none() {
    let cloud = Cloud::with(|setup| setup.settings.started_at_seconds = NOW + 1);
    let token = cloud.restart(INSTANCE).await;
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "made_before_this_start");
    let cloud = Cloud::with(|setup| setup.settings.log_size_at_start = 1_000);
    let token = cloud.restart(INSTANCE).await;
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "made_before_this_start");
    assert_eq!(cloud.orders(), 0);
}

#[tokio::test]
async fn a_thousand_equal_requests_at_once_make_one_call_of_sts() {
    let cloud = Arc::new(Cloud::new());
    let token = Arc::new(cloud.restart(INSTANCE).await);
    let asking: Vec<_> = (0..1_000)
        .map(|_| {
            let (cloud, token) = (Arc::clone(&cloud), Arc::clone(&token));
            tokio::spawn(async move { cloud.session(&token, INSTANCE).await })
        })
        .collect();
    for asked in asking {
        let session = asked.await.unwrap().unwrap();
        assert_eq!(session.credentials.secret_access_key.expose(), "secret-access-key-1");
    }
    assert_eq!(cloud.orders(), 1);
    let entries = cloud.world.audit.entries();
    assert_eq!(entries.iter().filter(|entry| entry.aws.is_some()).count(), 1, "one intent");
    // Each request's own assertion is on record nevertheless.
    let spent = entries.iter().filter(|entry| entry.spent.is_some()).count();
    assert_eq!(spent, 1 + 1_000, "the exchange's, and each of these");
}

#[tokio::test]
async fn a_storm_of_requests_that_fail_is_none_for_sts() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.sts.set_mood(Mood::Refuses(StsRefusal::AccessDenied));
    for _ in 0..100 {
        assert_eq!(reason(cloud.session(&token, INSTANCE).await), "sts_access_denied");
    }
    assert_eq!(cloud.orders(), 1);
    let outcome = cloud.last(Kind::Outcome);
    assert_eq!(
        (outcome.result.as_deref(), outcome.reason.as_deref()),
        (Some("failed"), Some("sts_access_denied"))
    );
    // Another call is not held back by it, and after a second this one is not either.
    let other = cloud.restart(NEIGHBOUR).await;
    cloud.sts.set_mood(Mood::Gives);
    cloud.session(&other, NEIGHBOUR).await.unwrap();
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "sts_access_denied");
    cloud.advance(1);
    cloud.session(&token, INSTANCE).await.unwrap();
    assert_eq!(cloud.orders(), 3);
}

#[tokio::test]
async fn whatever_sts_refuses_or_babbles_is_a_failure_on_record() {
    for (mood, expected, may_pass) in [
        (Mood::Refuses(StsRefusal::Throttled), "sts_throttled", true),
        (Mood::Refuses(StsRefusal::Unreachable), "sts_unreachable", true),
        (Mood::Refuses(StsRefusal::PackedPolicyTooLarge), "sts_packed_policy_too_large", false),
        (Mood::Refuses(StsRefusal::Other("Strange".to_owned())), "sts_other", false),
        (Mood::Rubbish, "sts_unintelligible", false),
    ] {
        let cloud = Cloud::new();
        let token = cloud.restart(INSTANCE).await;
        cloud.sts.set_mood(mood);
        let IssueError::Sts(refusal) = cloud.session(&token, INSTANCE).await.unwrap_err() else {
            panic!("{expected}")
        };
        assert_eq!((refusal.reason(), refusal.may_pass()), (expected, may_pass));
        assert_eq!(cloud.last(Kind::Outcome).reason.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn without_a_durable_record_sts_is_not_asked() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.world.audit.set_disk(Disk::Broken);
    let refused = cloud.session(&token, INSTANCE).await.unwrap_err();
    assert!(matches!(refused, IssueError::RecordUnavailable(_)), "{refused:?}");
    assert_eq!(cloud.orders(), 0);
    cloud.world.audit.set_disk(Disk::Sound);
    cloud.session(&token, INSTANCE).await.unwrap();
    // What it has is given again only once the assertion's use is durable.
    cloud.world.audit.set_disk(Disk::Broken);
    let refused = cloud.session(&token, INSTANCE).await.unwrap_err();
    assert!(matches!(refused, IssueError::RecordUnavailable(_)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn when_sts_hangs_nobody_waits_for_ever() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.sts.set_mood(Mood::Hangs);
    assert_eq!(reason(cloud.session(&token, INSTANCE).await), "sts_timeout");
    let outcome = cloud.last(Kind::Outcome);
    assert_eq!((outcome.result.as_deref(), outcome.reason.as_deref()), (Some("failed"), Some("sts_timeout")));
}

#[tokio::test]
async fn an_asker_who_goes_away_leaves_an_outcome_and_the_next_one_asks() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.sts.set_mood(Mood::Hangs);
    {
        let asking = cloud.session(&token, INSTANCE);
        tokio::pin!(asking);
        until_asked(&cloud, asking.as_mut()).await;
    }
    let (intent, outcome) = (cloud.last(Kind::Intent), cloud.last(Kind::Outcome));
    assert!(intent.aws.is_some());
    assert_eq!((outcome.decision, outcome.result.as_deref()), (intent.decision, Some("abandoned")));
    cloud.sts.set_mood(Mood::Gives);
    cloud.session(&token, INSTANCE).await.unwrap();
    assert_eq!(cloud.orders(), 2);
}

/// Drives a request until STS was asked.
async fn until_asked(cloud: &Cloud, mut asking: std::pin::Pin<&mut impl Future>) {
    while cloud.orders() == 0 {
        tokio::select! {
            biased;
            _ = asking.as_mut() => panic!("answered though STS hangs"),
            () = tokio::task::yield_now() => {}
        }
    }
}

type Change = fn(&mut Setup);

#[tokio::test]
async fn what_is_changed_or_taken_away_by_a_reload_gives_nothing_out_any_more() {
    let cases: [(&str, Change, Option<&str>); 4] = [
        ("no templates", |setup| setup.templates.clear(), Some("no_template")),
        (
            "a server that is switched off",
            |setup| {
                let ops = setup.servers.iter_mut().find(|server| server["resource"] == OPS).unwrap();
                merge(ops, json!({ "enabled": false }));
            },
            Some("token_not_active"),
        ),
        (
            "a tool that is another",
            |setup| *setup.tool(OPS, "restart") = tool("restart", "medium", &["instance_id"], &["comment"]),
            Some("tool_changed"),
        ),
        ("the same", |_| (), None),
    ];
    for (what, change, expected) in cases {
        let cloud = Cloud::new();
        let token = cloud.restart(INSTANCE).await;
        cloud.session(&token, INSTANCE).await.unwrap();
        cloud.reload(change);
        let again = cloud.session(&token, INSTANCE).await;
        match expected {
            Some(expected) => assert_eq!(reason(again), expected, "{what}"),
            None => assert_eq!(again.unwrap().credentials.secret_access_key.expose(), "secret-access-key-1"),
        }
        assert_eq!(cloud.orders(), 1, "{what}");
    }
    // A template that says something else now is another one: its session is its own.
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    let first = cloud.session(&token, INSTANCE).await.unwrap();
    cloud.reload(|setup| merge(&mut setup.templates[0], json!({ "tags": {} })));
    let second = cloud.session(&token, INSTANCE).await.unwrap();
    assert_ne!(first.credentials.access_key_id, second.credentials.access_key_id);
    assert!(cloud.sts.orders()[1].session.tags.is_empty());
}

#[tokio::test]
async fn clocks_that_part_stop_sessions_too() {
    let cloud = Cloud::new();
    let token = cloud.restart(INSTANCE).await;
    cloud.session(&token, INSTANCE).await.unwrap();
    let caller = cloud.world.caller("ops").await;
    cloud.world.clock.jump_wall(Duration::from_secs(10));
    let arguments = json!({ "instance_id": INSTANCE });
    let refused = role_session(&cloud.world.desk, &caller, &asked(&token, &arguments)).await;
    assert_eq!(reason(refused), "clocks_disagree");
}

#[tokio::test]
async fn without_a_door_to_aws_nothing_is_remembered_or_given() {
    let world = World::new();
    let token = world.for_alice(&crate::world::read_one_contact()).await.unwrap();
    let caller = world.caller("crm").await;
    let arguments = json!({ "id": "c1" });
    let refused = role_session(&world.desk, &caller, &asked(&token, &arguments)).await;
    assert_eq!(reason(refused), "no_door_to_aws");
    assert_eq!((token.claims.aud.as_str(), world.audit.origin()), (CRM, "log.example/one"));
}
