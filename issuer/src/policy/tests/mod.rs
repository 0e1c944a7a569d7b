//! Who, what, answer; and what must never change an answer.

mod arguments;
mod differential;
mod loading;
mod world;

use super::*;
use crate::person::ClaimValue;
use crate::registry::DataClass;
use deputize_call::{action::Action, level::Level};
use serde_json::json;
use world::{World, engine, object};

/// One row: a condition of a `permit` for everybody on every tool, and whether it holds in the world as it stands.
#[test]
fn every_attribute_can_be_asked() {
    let mut world = World::new();
    world.person.acr = Some("urn:mfa".into());
    world.person.amr = vec!["otp".into(), "pwd".into()];
    world.person.auth_time = Some(1_700_000_000);
    world.person.claims = [
        ("department", ClaimValue::Text("finance".into())),
        ("clearance", ClaimValue::Number(3)),
        ("contractor", ClaimValue::Flag(false)),
        ("regions", ClaimValue::Texts(vec!["eu".into(), "us".into()])),
    ]
    .map(|(name, claim)| (name.to_owned(), claim))
    .into();
    world.actor_chain = vec!["spiffe://corp.example/agent/planner".into()];
    world.approval = Some(ApprovalFacts {
        kind: Requirement::Approve,
        by: vec!["carol".into(), "dave".into(), "carol".into()],
    });
    world.data_classes_read = vec![DataClass::Confidential, DataClass::Internal];
    world.arguments = Some(object(json!({ "amount_cents": 4200, "note": "late", "express": true })));
    for (condition, holds) in [
        (r#"principal.tenant == "acme" && principal.issuer == "https://idp.example.com""#, true),
        (r#"principal == User::"user:acme:alice""#, true),
        (r#"principal == User::"user:acme:bob""#, false),
        (r#"principal in Group::"https://idp.example.com|crew" && principal in Tenant::"acme""#, true),
        (r#"principal in Group::"https://evil.example|crew""#, false),
        (r#"principal in Role::"support" && !(principal in Role::"admin")"#, true),
        (r#"principal has acr && principal.acr == "urn:mfa" && principal.amr.contains("otp")"#, true),
        (r#"principal has auth_time && context.time.epoch_seconds - principal.auth_time < 60"#, false),
        (r#"principal.text.hasTag("department") && principal.text.getTag("department") == "finance""#, true),
        (r#"principal.number.hasTag("clearance") && principal.number.getTag("clearance") >= 3"#, true),
        (r#"principal.flag.hasTag("contractor") && principal.flag.getTag("contractor")"#, false),
        (r#"principal.texts.hasTag("regions") && principal.texts.getTag("regions").contains("eu")"#, true),
        (r#"principal.text.hasTag("clearance")"#, false),
        (r#"resource == Tool::"crm#refund_payment" && resource in Server::"crm""#, true),
        (r#"resource in Tenant::"acme" && resource.name == "refund_payment""#, true),
        (r#"resource.tier == "high" && resource.tier_rank == 2 && resource.effect == "write""#, true),
        (r#"resource.data_class == "confidential" && resource.data_class_rank == 2"#, true),
        (r#"resource.level == 3 && resource.environment == "production""#, true),
        (r#"resource.server.id == "crm" && resource.server.owner == "crm-team""#, true),
        (r#"resource.server.resource == "https://crm.example.com/mcp""#, true),
        (r#"resource.server.verifier == "guard" && resource.server.data_class_rank == 1"#, true),
        (r#"resource.server has region && resource.server.region == "eu-central-1""#, true),
        (r#"context.tenant == "acme" && context.client == "platform""#, true),
        (r#"context.agent like "spiffe://corp.example/agent/*""#, true),
        (r#"context.agent like "spiffe://corp.example/*""#, true),
        (r#"context.agent like "spiffe://corp.exam/*""#, false),
        (r#"context.agent like "spiffe://partner.example/*""#, false),
        (r#"context.agent like "spiffe://corp.example/agents/*""#, false),
        (r#"context.agent == "spiffe://corp.example/agent/support-bot""#, true),
        (r#"context.agent_chain.contains("spiffe://corp.example/agent/planner")"#, true),
        ("context.delegation_depth == 2", true),
        (r#"context has host && context.host == "desk""#, true),
        (r#"context has model && context.model == "m-1""#, true),
        ("context has workflow", false),
        (r#"context has parent_request && context.parent_request == "req-1""#, true),
        (r#"context.binding == "dpop" && context.level == 3 && context.risk_score == 20"#, true),
        (r#"context.environment == "production""#, true),
        // 2026-11-21 was a Saturday; 11:26:40 UTC.
        (r#"context.time.now < datetime("2026-12-01") && context.time.now > datetime("2026-11-21")"#, true),
        ("context.time.hour_utc == 11 && context.time.weekday == 6", true),
        ("context.time.epoch_seconds == 1795260400", true),
        (
            r#"context has approval && context.approval.kind == "approve" && context.approval.count == 2"#,
            true,
        ),
        (r#"context has approval && context.approval.by.contains("carol")"#, true),
        (r#"context.data_read.contains("confidential") && context.data_read_rank == 2"#, true),
        ("context.has_arguments", true),
        (r#"context.number.hasTag("amount_cents") && context.number.getTag("amount_cents") <= 5000"#, true),
        (r#"context.number.hasTag("amount_cents") && context.number.getTag("amount_cents") <= 4199"#, false),
        (r#"context.text.hasTag("note") && context.text.getTag("note") like "l?te""#, false),
        (r#"context.flag.hasTag("express") && context.flag.getTag("express")"#, true),
        (r#"context.names.containsAll(["amount_cents", "note", "express"])"#, true),
        (r#"context.nulls.contains("note")"#, false),
        (r#"context.maximum.hasTag("amount_cents")"#, false),
    ] {
        let text = format!(
            r#"permit (principal, action == Action::"tools/call", resource) when {{ {condition} }};"#
        );
        let verdict = engine(&text).evaluate(&world.facts());
        assert_eq!(verdict.allowed, holds, "{condition}: {verdict:?}");
        assert!(verdict.errors.is_empty(), "{condition}: {verdict:?}");
    }
}

#[test]
fn what_nothing_permits_is_denied() {
    let world = World::new();
    assert!(engine("").is_empty());
    for text in ["", r#"permit (principal, action == Action::"tools/list", resource);"#, FORBID_ALL] {
        assert!(!engine(text).evaluate(&world.facts()).allowed, "{text}");
    }
    assert_eq!(engine("").evaluate(&world.facts()).policy_ids, Vec::<String>::new());
    assert_eq!(engine(FORBID_ALL).evaluate(&world.facts()).policy_ids, ["no"]);
    assert!(engine(PERMIT_ALL).evaluate(&world.facts()).allowed);
}

#[test]
fn a_forbid_beats_every_permit() {
    let verdict = engine(&format!("{PERMIT_ALL}{FORBID_ALL}")).evaluate(&World::new().facts());
    assert_eq!((verdict.allowed, verdict.policy_ids), (false, vec!["no".to_owned()]));
}

/// Cedar skips a `forbid` that errs. Here it denies; so does a `permit` that errs, and the neighbours decide nothing.
#[test]
fn any_policy_that_fails_denies() {
    let mut world = World::new();
    world.risk_score = 1;
    for (failing, word) in [
        (
            "forbid (principal, action, resource) when { context.risk_score + 9223372036854775807 > 0 };",
            "overflows",
        ),
        (
            "permit (principal, action, resource) when { context.risk_score + 9223372036854775807 > 0 };",
            "overflows",
        ),
        (
            r#"forbid (principal, action, resource) when { context.number.hasTag("n") && context.number.getTag("n") > 9 };"#,
            "ask with `arguments`",
        ),
        (
            r#"permit (principal, action, resource) when { context.nulls.contains("n") };"#,
            "ask with `arguments`",
        ),
    ] {
        let verdict = engine(&format!("{PERMIT_ALL}@id(\"bad\"){failing}")).evaluate(&world.facts());
        assert!(!verdict.allowed, "{failing}");
        assert_eq!(verdict.policy_ids, ["bad"], "{failing}");
        assert!(verdict.errors.len() == 1 && verdict.errors[0].contains(word), "{:?}", verdict.errors);
        assert!(verdict.requires.is_empty());
    }
    world.risk_score = 0;
    let sound = "forbid (principal, action, resource) when { context.risk_score + 9223372036854775807 < 0 };";
    assert!(engine(&format!("{PERMIT_ALL}{sound}")).evaluate(&world.facts()).allowed);
}

#[test]
fn a_failing_forbid_that_does_not_cover_the_request_is_nothing_to_it() {
    let elsewhere =
        r#"forbid (principal, action, resource == Tool::"crm#other") when { context.nulls.contains("n") };"#;
    assert!(engine(&format!("{PERMIT_ALL}{elsewhere}")).evaluate(&World::new().facts()).allowed);
}

#[test]
fn requirements_of_all_deciding_permits_are_gathered() {
    let text = r#"
        @id("a") @require_approval("approve") permit (principal, action, resource);
        @id("b") @require_approval("confirm") permit (principal, action, resource);
        @id("c") permit (principal, action, resource);
        @id("d") @require_approval("approve") permit (principal, action, resource) when { context.level == 0 };"#;
    let verdict = engine(text).evaluate(&World::new().facts());
    assert_eq!(verdict.policy_ids, ["a", "b", "c"]);
    assert_eq!(verdict.requires, [Requirement::Confirm, Requirement::Approve]);
    assert_eq!(engine(PERMIT_ALL).evaluate(&World::new().facts()).requires, []);
}

#[test]
fn tenants_must_agree_whatever_policy_says() {
    for change in [
        |world: &mut World| world.tenant = "other".into(),
        |world: &mut World| world.person.tenant = "other".into(),
    ] {
        let mut world = World::new();
        change(&mut world);
        let verdict = engine(PERMIT_ALL).evaluate(&world.facts());
        assert!(!verdict.allowed && verdict.errors[0].contains("tenant"), "{verdict:?}");
    }
}

/// Policies were checked against the schema's combinations and no others.
#[test]
fn an_action_applies_to_what_the_schema_says() {
    let world = World::new();
    let engine = engine(PERMIT_ALL);
    let facts = world.facts();
    let offer = |action, name: &str| world.server.offer(action, name).unwrap();
    let tool = offer(Action::CallTool, "read_contact");
    let prompt = offer(Action::GetPrompt, "greet");
    let resource = offer(Action::ReadResource, "demo://docs/a");
    for (action, person, tool, allowed) in [
        ("tools/call", true, Some(&tool), true),
        ("tools/call", true, None, false),
        ("tools/call", true, Some(&prompt), false),
        ("tools/call", true, Some(&resource), false),
        ("tools/call", false, Some(&tool), false),
        ("tools/list", true, None, true),
        ("tools/list", false, None, true),
        ("tools/list", true, Some(&tool), false),
        ("resources/read", true, Some(&resource), true),
        ("resources/read", true, None, false),
        ("resources/read", true, Some(&tool), false),
        ("resources/read", true, Some(&prompt), false),
        ("resources/read", false, Some(&resource), false),
        ("prompts/get", true, Some(&prompt), true),
        ("prompts/get", true, Some(&tool), false),
        ("prompts/get", true, Some(&resource), false),
        ("prompts/get", false, None, false),
        ("tools/forget", true, Some(&tool), false),
        ("", true, Some(&tool), false),
    ] {
        let facts = Facts {
            action,
            person: facts.person.filter(|_| person),
            tool: tool.map(|tool| tool.as_ref()),
            ..facts
        };
        let verdict = engine.evaluate(&facts);
        let kind = tool.map(|tool| tool.action);
        assert_eq!(verdict.allowed, allowed, "{action} {person} {kind:?}: {verdict:?}");
        assert_eq!(verdict.errors.is_empty(), allowed);
    }
}

/// A policy can speak of each of them, and of what a prefix names.
#[test]
fn policies_tell_tools_prompts_and_resources_apart() {
    let world = World::new();
    let offer = |action, name: &str| world.server.offer(action, name).unwrap();
    let all = [
        offer(Action::CallTool, "read_contact"),
        offer(Action::GetPrompt, "greet"),
        offer(Action::ReadResource, "demo://docs/a"),
        offer(Action::ReadResource, "demo://b"),
        offer(Action::ReadResource, "demo://docs/old/a"),
        offer(Action::ReadResource, "demo://docs/old/c"),
    ];
    for (scope, expected) in [
        ("action, resource", [true, true, true, true, true, true]),
        (r#"action == Action::"prompts/get", resource"#, [false, true, false, false, false, false]),
        (r#"action == Action::"resources/read", resource"#, [false, false, true, true, true, true]),
        (r#"action, resource in Resource::"crm#demo://docs/*""#, [false, false, true, false, true, true]),
        (
            r#"action, resource in Resource::"crm#demo://docs/old/*""#,
            [false, false, false, false, true, true],
        ),
        (r#"action, resource == Resource::"crm#demo://docs/a""#, [false, false, true, false, false, false]),
        (
            r#"action, resource in Resource::"crm#demo://docs/old/c""#,
            [false, false, false, false, false, true],
        ),
        (r#"action, resource == Resource::"crm#demo://docs/*""#, [false; 6]),
        (r#"action, resource == Prompt::"crm#greet""#, [false, true, false, false, false, false]),
        (r#"action, resource == Tool::"crm#greet""#, [false; 6]),
        (r#"action, resource in Server::"crm""#, [true; 6]),
    ] {
        let engine = engine(&format!("permit (principal, {scope});"));
        let allowed = all.each_ref().map(|tool| {
            let facts = Facts { action: tool.action.as_str(), tool: Some(tool), ..world.facts() };
            engine.evaluate(&facts).allowed
        });
        assert_eq!(allowed, expected, "{scope}");
    }
}

/// What is said of a folder misses nothing that narrower entries name in it: in calls, in lists, and in an engine that
/// has answered before.
#[test]
fn a_forbid_on_a_prefix_reaches_what_narrower_entries_name() {
    let world = World::new();
    let read = |name: &str| world.server.offer(Action::ReadResource, name).unwrap();
    let names = ["demo://docs/a", "demo://docs/old/a", "demo://docs/old/c", "demo://b"];
    let permit = "permit (principal, action, resource);";
    for (forbidden, expected) in [
        ("demo://docs/*", [false, false, false, true]),
        ("demo://docs/old/*", [true, false, false, true]),
        ("demo://docs/old/c", [true, true, false, true]),
        ("demo://docs/o*", [true, true, true, true]),
    ] {
        let forbid = format!(r#"forbid (principal, action, resource in Resource::"crm#{forbidden}");"#);
        let engine = engine(&format!("{permit}\n{forbid}"));
        for _ in 0..2 {
            let allowed = names.map(|name| {
                let tool = read(name);
                let facts = Facts { action: tool.action.as_str(), tool: Some(&tool), ..world.facts() };
                engine.evaluate(&facts).allowed
            });
            assert_eq!(allowed, expected, "{forbidden}");
        }
        let tools = names.map(read);
        assert_eq!(engine.survey(&world.facts(), &tools.each_ref()), expected, "{forbidden}");
    }
}

/// A wider entry that is registered later counts for who has asked before.
#[test]
fn what_is_held_of_a_resource_is_of_the_entries_that_are_registered_now() {
    let narrow = World::with_server(|server| {
        server["resources"] = json!([{ "uri": "demo://docs/old/c", "tier": "low" }])
    });
    let engine = engine(
        r#"permit (principal, action, resource);
        forbid (principal, action, resource in Resource::"crm#demo://docs/*");"#,
    );
    let is_allowed = |world: &World| {
        let tool = world.server.offer(Action::ReadResource, "demo://docs/old/c").unwrap();
        let facts = Facts { action: tool.action.as_str(), tool: Some(&tool), ..world.facts() };
        engine.evaluate(&facts).allowed
    };
    let wider = World::with_server(|server| {
        server["resources"] =
            json!([{ "uri": "demo://docs/old/c", "tier": "low" }, { "uri": "demo://docs/*", "tier": "low" }]);
    });
    assert!(is_allowed(&narrow));
    assert!(!is_allowed(&wider));
    assert!(is_allowed(&narrow));
}

/// What lists show before it is known what is called: all that could be allowed, and nothing that never would be.
#[test]
fn a_survey_finds_what_could_be_allowed() {
    let world = World::new();
    let offer = |action, name: &str| world.server.offer(action, name).unwrap();
    let (refund, read) = (offer(Action::CallTool, "refund_payment"), offer(Action::CallTool, "read_contact"));
    let tools = [&refund, &read];
    let permit = "permit (principal, action, resource);";
    for (policies, expected) in [
        ("", [false, false]),
        (permit, [true, true]),
        (r#"permit (principal in Role::"nobody", action, resource);"#, [false, false]),
        (r#"permit (principal in Role::"support", action, resource);"#, [true, true]),
        (r#"permit (principal, action == Action::"tools/list", resource);"#, [false, false]),
        (r#"permit (principal, action, resource == Tool::"crm#read_contact");"#, [false, true]),
        // What a call shows decides: it could be allowed.
        (
            r#"permit (principal is User, action == Action::"tools/call", resource) when { context.number.hasTag("n") && context.number.getTag("n") < 5 };"#,
            [true, true],
        ),
        // What a call shows is not looked at.
        (
            r#"permit (principal is User, action == Action::"tools/call", resource) when { principal.tenant == "other" && context.number.hasTag("n") && context.number.getTag("n") < 5 };"#,
            [false, false],
        ),
        // Level 3 is the only one for a tool of tier high.
        (r#"permit (principal, action, resource) when { context.level < 3 };"#, [false, true]),
        (
            r#"permit (principal, action, resource) when { context has host && context.host == "desk" };"#,
            [true, true],
        ),
        (r#"permit (principal, action, resource) when { context has approval };"#, [true, true]),
        (r#"permit (principal, action, resource) when { context.binding == "bearer" };"#, [false, false]),
    ] {
        assert_eq!(engine(policies).survey(&world.facts(), &tools), expected, "{policies}");
    }
    for (forbid, expected) in [
        (r#"forbid (principal, action, resource);"#, [false, false]),
        (
            r#"forbid (principal in Role::"support", action, resource == Tool::"crm#read_contact");"#,
            [true, false],
        ),
        (r#"forbid (principal, action, resource) when { context.level == 3 };"#, [false, true]),
        (
            r#"forbid (principal is User, action == Action::"tools/call", resource) when { context.number.hasTag("n") && context.number.getTag("n") > 5 };"#,
            [true, true],
        ),
        (r#"forbid (principal, action, resource) unless { context has approval };"#, [true, true]),
        (
            r#"forbid (principal, action, resource) when { context.agent == "spiffe://corp.example/agent/support-bot" };"#,
            [false, false],
        ),
        // What always fails always denies.
        (
            r#"forbid (principal, action, resource) when { context.delegation_depth + 9223372036854775807 > 0 };"#,
            [false, false],
        ),
    ] {
        assert_eq!(
            engine(&format!("{permit} {forbid}")).survey(&world.facts(), &tools),
            expected,
            "{forbid}"
        );
    }
    let nobody = Facts { person: None, ..world.facts() };
    assert_eq!(engine(permit).survey(&nobody, &tools), [false, false]);
    let stranger = Facts { tenant: "other", ..world.facts() };
    assert_eq!(engine(permit).survey(&stranger, &tools), [false, false]);
}

/// A client's id and a person's `sub` may be the same text: they are of different types.
#[test]
fn a_client_is_no_user() {
    let world = World::new();
    let engine = engine(
        r#"permit (principal == User::"platform", action, resource);
           @id("list") permit (principal == Client::"platform", action == Action::"tools/list", resource);"#,
    );
    let listing = Facts { action: "tools/list", person: None, tool: None, ..world.facts() };
    assert_eq!(engine.evaluate(&listing).policy_ids, ["list"]);
    assert!(!engine.evaluate(&Facts { client_id: "other", ..listing }).allowed);
}

/// The same engine, the same `sub`: what is held from the first request must not answer for the second.
#[test]
fn changed_persons_and_records_are_seen() {
    let text = r#"permit (principal in Role::"support", action, resource in Server::"crm")
        when { resource is Tool && resource.tier == "high" && resource.environment == "production" };"#;
    let engine = engine(text);
    let world = World::new();
    assert!(engine.evaluate(&world.facts()).allowed);
    let mut changed = World::new();
    changed.person.roles.clear();
    assert!(!engine.evaluate(&changed.facts()).allowed);
    assert!(engine.evaluate(&world.facts()).allowed);
    for (pointer, value) in [("/tools/0/tier", json!("critical")), ("/environment", json!("staging"))] {
        let other = World::with_server(|server| *server.pointer_mut(pointer).unwrap() = value);
        assert!(!engine.evaluate(&other.facts()).allowed, "{pointer}");
        assert!(engine.evaluate(&world.facts()).allowed, "{pointer}");
    }
}

#[test]
fn texts_of_policies_are_kept_for_explanations() {
    let engine = engine("// why\n@id(\"a\")\npermit ( principal,action , resource ); // after");
    assert_eq!(engine.policy_text("a").unwrap(), "@id(\"a\")\npermit ( principal,action , resource );");
    assert_eq!(engine.policy_text("b"), None);
}

#[test]
fn a_long_past_or_far_future_is_no_panic() {
    let world = World::new();
    let engine = engine("permit (principal, action, resource) when { context.time.hour_utc >= 0 };");
    for (now, allowed) in [(0, true), (253_402_300_799, true), (253_402_300_800, false), (u64::MAX, false)] {
        assert_eq!(engine.evaluate(&Facts { now, ..world.facts() }).allowed, allowed, "{now}");
    }
}

#[test]
fn levels_are_numbers() {
    let world = World::new();
    let engine = engine("permit (principal, action, resource) when { context.level >= 2 };");
    for (level, allowed) in [(Level::L0, false), (Level::L1, false), (Level::L2, true), (Level::L3, true)] {
        assert_eq!(engine.evaluate(&Facts { level, ..world.facts() }).allowed, allowed, "{level}");
    }
}

const PERMIT_ALL: &str = r#"@id("all") permit (principal, action, resource);"#;
const FORBID_ALL: &str = r#"@id("no") forbid (principal, action, resource);"#;
