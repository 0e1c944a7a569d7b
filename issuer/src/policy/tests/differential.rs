//! The index against the whole set: the same decision, the same policies, the same failures.

use super::world::{World, object, person, server};
use crate::{
    person::Person,
    policy::{
        ApprovalFacts, Binding, Facts, PolicyEngine, PolicyFile, Refusal, Requirement, Verdict, reads::Reads,
    },
    registry::{Registry, Server, Tool},
};
use cedar_policy::PolicySet;
use deputize_call::{action::Action, level::Level};
use proptest::prelude::*;
use serde_json::json;
use std::sync::{Arc, LazyLock};

impl PolicyEngine {
    /// Asks every policy there is, and shows them everything.
    fn evaluate_all(&self, facts: &Facts<'_>) -> Verdict {
        let mut all = PolicySet::new();
        for policy in self.policies.values() {
            all.add(policy.policy.clone()).unwrap();
        }
        self.prepare(facts)
            .and_then(|held| self.ask(facts, &held, &all, Reads::ALL))
            .unwrap_or_else(|Refusal(reason)| Verdict::refused(reason))
    }
}

fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        r#"principal == User::"u1""#,
        r#"principal == User::"u2""#,
        r#"principal == Client::"platform""#,
        r#"principal in Role::"r1""#,
        r#"principal in Role::"r2""#,
        r#"principal in Group::"https://idp.example.com|g1""#,
        r#"principal in Tenant::"acme""#,
        r#"principal in Tenant::"other""#,
        "principal is User",
        "principal is Client",
        r#"principal is User in Role::"r2""#,
    ]);
    let action = prop::sample::select(vec![
        "action",
        r#"action == Action::"tools/call""#,
        r#"action == Action::"tools/list""#,
        r#"action in Action::"resources/read""#,
        r#"action in [Action::"tools/call", Action::"prompts/get"]"#,
        r#"action in [Action::"tools/list", Action::"resources/read"]"#,
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        r#"resource == Tool::"s1#refund_payment""#,
        r#"resource == Tool::"s2#read_contact""#,
        r#"resource == Server::"s1""#,
        r#"resource in Server::"s1""#,
        r#"resource in Server::"s2""#,
        r#"resource in Tenant::"acme""#,
        r#"resource == Prompt::"s1#greet""#,
        r#"resource in Resource::"s1#demo://docs/*""#,
        r#"resource in Resource::"s1#demo://docs/old/*""#,
        r#"resource == Resource::"s2#demo://docs/old/c""#,
        "resource is Tool",
        "resource is Resource",
        "resource is Server",
        r#"resource is Tool in Server::"s2""#,
    ]);
    let condition = prop::sample::select(vec![
        "",
        "when { context.level >= 2 }",
        "when { context.has_arguments }",
        r#"when { context.number.hasTag("n") && context.number.getTag("n") <= 5 }"#,
        r#"unless { context.has_arguments && context.text.hasTag("t") && context["text"].getTag("t") == "x" }"#,
        r#"when { context has host && context.host == "desk" }"#,
        "when { context has approval && context.approval.count > 1 }",
        r#"when { (if context.level == 3 then context else context).binding == "dpop" }"#,
        "when { context.risk_score + 9223372036854775790 > 0 }",
        r#"when { context.maximum.hasTag("n") && context.maximum.getTag("n") < 9 }"#,
        r#"when { context.nulls.contains("n") || context.names.contains("t") }"#,
        "when { context.time.hour_utc < 12 && context.delegation_depth == 1 }",
        r#"when { principal has acr || principal.tenant == "acme" }"#,
        "when { resource.data_class_rank >= 1 }",
        r#"when { resource is Tool && resource.server.id == "s1" }"#,
    ]);
    (prop::sample::select(vec!["permit", "permit", "forbid"]), principal, action, resource, condition)
        .prop_map(|(effect, p, a, r, condition)| format!("{effect} ({p}, {a}, {r}) {condition};"))
}

#[derive(Debug, Clone)]
struct Asked {
    person: Option<Person>,
    server: usize,
    tool: Option<&'static str>,
    action: &'static str,
    level: Level,
    arguments: Option<serde_json::Value>,
    call_digest_only: bool,
    constrained: bool,
    chain: Vec<String>,
    risk_score: u8,
    approved: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let person = prop::option::weighted(
        0.9,
        (
            prop::sample::select(vec!["u1", "u2", "u3"]),
            prop::sample::subsequence(vec!["g1", "g2"], 0..=2),
            prop::sample::subsequence(vec!["r1", "r2", "r3"], 0..=3),
        )
            .prop_map(|(sub, groups, roles)| person(sub, &groups, &roles)),
    );
    let arguments = prop::option::of(prop::sample::select(vec![
        json!({}),
        json!({ "n": 3, "t": "x" }),
        json!({ "n": 30, "t": "y" }),
        json!({ "n": null }),
        json!({ "n": 0.5 }),
        json!({ "n": 0.123_456 }),
    ]));
    let asked = prop::sample::select(vec![
        ("tools/call", Some("refund_payment")),
        ("tools/call", Some("read_contact")),
        ("tools/call", None),
        ("tools/list", None),
        ("tools/list", Some("read_contact")),
        ("prompts/get", Some("greet")),
        ("prompts/get", Some("read_contact")),
        ("resources/read", Some("demo://docs/a")),
        ("resources/read", Some("demo://b")),
        ("resources/read", Some("demo://docs/old/a")),
        ("resources/read", Some("demo://docs/old/c")),
        ("resources/read", None),
    ]);
    let level = prop::sample::select(vec![Level::L0, Level::L1, Level::L2, Level::L3]);
    let chain = prop::collection::vec("[a-z]{3}", 0..2);
    let circumstances = (any::<bool>(), any::<bool>(), chain, 0_u8..40, any::<bool>());
    (person, 0_usize..2, asked, level, arguments, circumstances).prop_map(
        |(
            person,
            server,
            (action, tool),
            level,
            arguments,
            (digest, constrained, chain, risk_score, approved),
        )| Asked {
            call_digest_only: digest && arguments.is_none(),
            person,
            server,
            tool,
            action,
            level,
            arguments,
            constrained,
            chain,
            risk_score,
            approved,
        },
    )
}

/// Loads what is valid of these policies: a scope that can never apply is refused, and left out.
fn load(policies: &[String]) -> PolicyEngine {
    let mut files: Vec<_> = policies
        .iter()
        .enumerate()
        .map(|(n, text)| PolicyFile { name: format!("f{n}"), text: format!("@id(\"p{n}\") {text}") })
        .collect();
    PolicyEngine::load(&files).unwrap_or_else(|errors| {
        files.retain(|file| errors.iter().all(|error| error.file != file.name));
        PolicyEngine::load(&files).unwrap()
    })
}

/// What has this name, whatever it is.
fn named(server: &Server, name: &str) -> Arc<Tool> {
    let found = Action::ALL.into_iter().find_map(|action| server.offer(action, name));
    found.unwrap_or_else(|| panic!("{name}"))
}

static SERVERS: LazyLock<Vec<Arc<Server>>> = LazyLock::new(|| {
    let records = ["s1", "s2"].map(|id| serde_json::from_value(server(id)).unwrap()).into();
    Registry::build(records).unwrap().servers().cloned().collect()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_index_changes_no_answer(
        policies in prop::collection::vec(policy(), 1..24),
        requests in prop::collection::vec(asked(), 1..24),
    ) {
        let engine = load(&policies);
        let world = World::new();
        let constraints = serde_json::from_value(json!({ "/n": { "maximum": 7 } })).unwrap();
        let approval =
            ApprovalFacts { kind: Requirement::Approve, by: vec!["carol".into(), "dave".into()] };
        for asked in requests {
            let server = &SERVERS[asked.server];
            let arguments = asked.arguments.clone().map(object);
            let tool = asked.tool.map(|name| named(server, name));
            let facts = Facts {
                person: asked.person.as_ref(),
                server,
                tool: tool.as_deref(),
                action: asked.action,
                level: asked.level,
                binding: Binding::Dpop,
                bearer_client: None,
                arguments: arguments.as_ref(),
                call_digest_only: asked.call_digest_only,
                constraints: asked.constrained.then_some(&constraints),
                actor_chain: &asked.chain,
                risk_score: asked.risk_score,
                approval: asked.approved.then_some(&approval),
                ..world.facts()
            };
            let (indexed, whole) = (engine.evaluate(&facts), engine.evaluate_all(&facts));
            prop_assert_eq!(&indexed, &whole, "{:?}\n{:#?}", asked, policies);
            // Lists leave out nothing that would be allowed.
            if let Some(tool) = tool.as_ref().filter(|_| indexed.allowed && asked.person.is_some())
                && asked.level >= tool.least_level
            {
                prop_assert_eq!(engine.survey(&facts, &[tool]), [true], "{:?}\n{:#?}", asked, policies);
            }
        }
    }
}
