//! The starter policies of `broker/policies`: who, what, answer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails should panic")]

use deputize_call::{digest::tool_digest, json::Object, level::Level};
use deputize_issuer::{
    person::Person,
    policy::{Binding, Claimed, Facts, PolicyEngine, PolicyFile, Requirement, Verdict},
    registry::{DataClass, Registry, Server},
};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const FILES: [(&str, &str); 4] = [
    ("baseline.cedar", include_str!("../../broker/policies/baseline.cedar")),
    ("admin.cedar", include_str!("../../broker/policies/admin.cedar")),
    ("analyst.cedar", include_str!("../../broker/policies/analyst.cedar")),
    ("support.cedar", include_str!("../../broker/policies/support.cedar")),
];

/// Who, what, with which arguments, and the policies that decide; `allowed` tells what they decide.
#[test]
fn who_what_answer() {
    let refund = |cents: Value| Some(json!({ "payment_id": "pay_81", "amount_cents": cents }));
    let (support, analyst, admin): (&[_], &[_], &[_]) = (&["support"], &["analyst"], &["admin"]);
    let nobody: &[&str] = &[];
    for (who, what, arguments, allowed, policies) in [
        (nobody, "crm", None, false, &[][..]),
        (nobody, "crm#read_contact", None, false, &[]),
        (&["Support"], "crm#read_contact", None, false, &[]),
        (analyst, "crm", None, true, &["analyst-list"]),
        (analyst, "crm#read_contact", None, true, &["analyst-read"]),
        (analyst, "lab#read_contact", None, false, &[]),
        (analyst, "crm#read_salaries", None, false, &[]),
        (analyst, "crm#draft_reply", None, false, &[]),
        (analyst, "crm#add_note", None, false, &[]),
        (analyst, "crm#refund_payment", refund(json!(1)), false, &[]),
        (support, "crm", None, true, &["support-list"]),
        (support, "crm#read_contact", None, true, &["support-read"]),
        (support, "lab#read_contact", None, true, &["support-read"]),
        (support, "crm#draft_reply", None, true, &["support-read"]),
        (support, "crm#read_salaries", None, false, &[]),
        (support, "crm#add_note", None, true, &["support-write-low"]),
        (support, "crm#change_address", None, true, &["support-write-medium"]),
        (support, "crm#close_account", Some(json!({})), false, &[]),
        (support, "crm#delete_tenant", Some(json!({})), false, &[]),
        (support, "crm#refund_payment", refund(json!(4200)), true, &["support-refund-small"]),
        (support, "crm#refund_payment", refund(json!(5000)), true, &["support-refund-small"]),
        (support, "crm#refund_payment", refund(json!(5001)), true, &["support-refund-large"]),
        (support, "crm#refund_payment", refund(json!(50_000)), true, &["support-refund-large"]),
        (support, "crm#refund_payment", refund(json!(50_001)), false, &["support-refund-limit"]),
        (support, "crm#refund_payment", refund(json!(0)), false, &["support-refund-limit"]),
        (support, "crm#refund_payment", refund(json!(-5)), false, &["support-refund-limit"]),
        (support, "crm#refund_payment", refund(json!("4200")), false, &["support-refund-limit"]),
        (support, "crm#refund_payment", refund(json!(42.5)), false, &["support-refund-limit"]),
        (support, "crm#refund_payment", refund(json!([4200])), false, &["support-refund-limit"]),
        (
            support,
            "crm#refund_payment",
            Some(json!({ "payment_id": "pay_81" })),
            false,
            &["support-refund-limit"],
        ),
        (admin, "crm", None, true, &["admin-read"]),
        (admin, "crm#read_salaries", None, true, &["admin-call"]),
        (admin, "crm#change_address", None, true, &["admin-call"]),
        (admin, "crm#refund_payment", refund(json!(90_000)), true, &["admin-call-high"]),
        (admin, "crm#delete_tenant", Some(json!({})), true, &["admin-call-critical"]),
        (
            &["admin", "support"],
            "crm#refund_payment",
            refund(json!(9)),
            true,
            &["admin-call-high", "support-refund-small"],
        ),
    ] {
        let verdict = ask(who, what, arguments.clone(), |_| ());
        assert_eq!(verdict.policy_ids, policies, "{who:?} {what} {arguments:?}: {verdict:?}");
        assert_eq!(verdict.allowed, allowed, "{who:?} {what} {arguments:?}: {verdict:?}");
        assert!(verdict.errors.is_empty(), "{verdict:?}");
    }
}

#[test]
fn who_has_to_ask_whom() {
    let refund = |cents: u32| Some(json!({ "amount_cents": cents }));
    for (who, what, arguments, requires) in [
        ("support", "crm#read_contact", None, &[][..]),
        ("support", "crm#add_note", None, &[]),
        ("support", "crm#change_address", None, &[Requirement::Confirm]),
        ("support", "crm#refund_payment", refund(5_000), &[]),
        ("support", "crm#refund_payment", refund(5_001), &[Requirement::Approve]),
        ("admin", "crm#change_address", None, &[]),
        ("admin", "crm#close_account", Some(json!({})), &[Requirement::Confirm]),
        ("admin", "crm#delete_tenant", Some(json!({})), &[Requirement::Approve]),
    ] {
        let verdict = ask(&[who], what, arguments, |_| ());
        assert!(verdict.allowed, "{who} {what}");
        assert_eq!(verdict.requires, requires, "{who} {what}");
    }
}

/// What the baseline forbids even to administrators, each beside the neighbour that it lets pass.
#[test]
fn the_baseline_holds_for_administrators() {
    type Change = fn(&mut Facts<'_>);
    let rows: [(&str, &str, Change, Change); 5] = [
        (
            "baseline-bound-tokens",
            "crm#change_address",
            |facts| facts.binding = Binding::Bearer,
            |facts| facts.binding = Binding::Mtls,
        ),
        ("baseline-exact-calls", "crm#close_account", |facts| facts.level = Level::L2, |_| ()),
        (
            "baseline-no-leaks",
            "crm#publish_post",
            |facts| facts.data_classes_read = &[DataClass::Public, DataClass::Confidential],
            |facts| facts.data_classes_read = &[DataClass::Internal],
        ),
        ("baseline-risk", "crm#add_note", |facts| facts.risk_score = 90, |facts| facts.risk_score = 89),
        (
            "baseline-short-chains",
            "crm#add_note",
            |facts| facts.actor_chain = &CHAIN,
            |facts| {
                facts.actor_chain = CHAIN.get(..4).unwrap();
            },
        ),
    ];
    for (policy, what, refused, passed) in rows {
        let verdict = ask(&["admin"], what, Some(json!({})), refused);
        assert_eq!((verdict.allowed, verdict.policy_ids), (false, vec![policy.to_owned()]), "{what}");
        assert!(ask(&["admin"], what, Some(json!({})), passed).allowed, "{policy} {what}");
    }
    let unbound = ask(&["admin"], "crm#add_note", None, |facts| facts.binding = Binding::Bearer);
    assert!(unbound.allowed, "the low tier may be unbound: {unbound:?}");
}

/// A rule over arguments cannot be passed by hiding them: behind a digest, or at a lower level.
#[test]
fn hidden_amounts_are_refused() {
    let digest_only = ask(&["support"], "crm#refund_payment", None, |facts| facts.call_digest_only = true);
    assert!(!digest_only.allowed && !digest_only.errors.is_empty());
    assert!(digest_only.errors.iter().all(|error| error.contains("ask with `arguments`")), "{digest_only:?}");
    let lower = ask(&["support"], "crm#refund_payment", None, |facts| facts.level = Level::L1);
    assert_eq!(lower.policy_ids, ["baseline-exact-calls", "support-refund-limit"]);
}

#[test]
fn a_client_lists_and_does_no_more() {
    assert_eq!(ask(&[], "crm", None, |facts| facts.person = None).policy_ids, ["baseline-discovery"]);
    assert!(!ask(&[], "crm", None, |facts| (facts.person, facts.action) = (None, "resources/read")).allowed);
    assert!(!ask(&[], "crm#read_contact", None, |facts| facts.person = None).allowed);
}

#[test]
fn every_starter_policy_is_named_for_its_file() {
    for (name, text) in FILES {
        let ids: Vec<&str> = text.split("@id(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let is_policy = |line: &&str| line.starts_with("permit") || line.starts_with("forbid");
        assert_eq!(ids.len(), text.lines().filter(is_policy).count(), "{name}");
        for id in ids {
            assert!(ENGINE.policy_text(id).is_some(), "{id}");
            assert_eq!(id.split('-').next(), name.strip_suffix(".cedar"), "{id} in {name}");
        }
    }
}

/// Asks for one call at the tool's own level, or for the server where no tool is named; `change` alters the rest.
fn ask(roles: &[&str], what: &str, arguments: Option<Value>, change: impl FnOnce(&mut Facts<'_>)) -> Verdict {
    let (id, tool) = what.split_once('#').map_or((what, None), |(id, tool)| (id, Some(tool)));
    let person = person(roles);
    let arguments: Option<Object> = arguments.map(|value| value.as_object().unwrap().clone());
    let server: &Arc<Server> = REGISTRY.server(&format!("https://{id}.example.com/mcp")).unwrap();
    let tool = tool.map(|name| server.tool(name).unwrap().as_ref());
    let mut facts = Facts {
        tenant: "acme",
        person: Some(&person),
        client_id: "platform",
        actor: "spiffe://corp.example/agent/bot",
        actor_chain: &[],
        server,
        tool,
        action: if tool.is_some() { "tools/call" } else { "tools/list" },
        level: if arguments.is_some() { Level::L3 } else { tool.map_or(Level::L0, |tool| tool.least_level) },
        binding: Binding::Dpop,
        bearer_client: None,
        arguments: arguments.as_ref(),
        call_digest_only: false,
        constraints: None,
        claimed: Claimed::default(),
        risk_score: 20,
        approval: None,
        data_classes_read: &[],
        now: 1_795_260_400,
    };
    change(&mut facts);
    ENGINE.evaluate(&facts)
}

fn person(roles: &[&str]) -> Person {
    Person {
        tenant: "acme".into(),
        issuer: "https://idp.example.com".into(),
        sub: "user:acme:x:alice".into(),
        groups: Vec::new(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        claims: [].into(),
        acr: None,
        amr: Vec::new(),
        auth_time: None,
    }
}

fn tool(name: &str, tier: &str, effect: &str, data_class: &str) -> Value {
    let definition = json!({ "name": name, "description": "d", "inputSchema": { "type": "object" } });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "effect": effect, "data_class": data_class, "tool_digest": digest,
        "definition": definition })
}

static ENGINE: LazyLock<PolicyEngine> = LazyLock::new(|| {
    let files = FILES.map(|(name, text)| PolicyFile { name: name.into(), text: text.into() });
    PolicyEngine::load(&files).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
});

/// `crm` in production; `lab`, the same in development.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let server = |id: &str, environment: &str| {
        json!({
            "id": id, "resource": format!("https://{id}.example.com/mcp"), "tenant": "acme", "version": "1",
            "owner": "o", "purpose": "p", "environment": environment, "data_class": "internal", "verifier": "guard",
            "tools": [
                tool("read_contact", "low", "read", "confidential"),
                tool("read_salaries", "low", "read", "restricted"),
                tool("draft_reply", "low", "draft", "internal"),
                tool("add_note", "low", "write", "internal"),
                tool("change_address", "medium", "write", "confidential"),
                tool("refund_payment", "high", "write", "confidential"),
                tool("close_account", "high", "write", "confidential"),
                tool("delete_tenant", "critical", "write", "restricted"),
                tool("publish_post", "low", "write", "public"),
            ],
        })
    };
    let records = [server("crm", "production"), server("lab", "development")];
    Registry::build(records.map(|record| serde_json::from_value(record).unwrap()).into()).unwrap()
});

/// Five agents before the one that asks.
static CHAIN: LazyLock<Vec<String>> = LazyLock::new(|| (0..5).map(|n| format!("agent-{n}")).collect());
