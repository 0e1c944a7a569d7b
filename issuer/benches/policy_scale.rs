//! `policy_scale`: what one decision costs with 10, 100, 1,000 and 10,000 policies in force. Prints CPU microseconds
//! per decision and the ratio to 100 policies; rounds alternate between the sizes, and medians are shown.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, takes the time, and stops at the first surprise"
)]

use deputize_call::{digest::tool_digest, json::Object, level::Level};
use deputize_issuer::{
    person::Person,
    policy::{Binding, Claimed, Facts, PolicyEngine, PolicyFile},
    registry::{Registry, Server},
};
use serde_json::{Value, json};
use std::{fmt::Write, hint::black_box, sync::Arc, time::Instant};

fn main() {
    let registry = Registry::build((0..SERVERS).map(server).collect()).unwrap();
    let servers: Vec<&Arc<Server>> = registry.servers().collect();
    let persons: Vec<Person> = (0..PERSONS).map(person).collect();
    let arguments = json!({ "payment_id": "pay_81", "amount_cents": 4200 }).as_object().unwrap().clone();
    let engines = SIZES.map(|size| {
        let start = Instant::now();
        let engine = PolicyEngine::load(&[file(size)]).unwrap();
        println!("{size:>6} policies loaded in {:.0?}", start.elapsed());
        engine
    });
    for (what, arguments) in [("L1, no arguments", None), ("L3, two arguments", Some(&arguments))] {
        let mut costs = SIZES.map(|_| Vec::new());
        for round in 0..=ROUNDS {
            for (engine, costs) in engines.iter().zip(&mut costs) {
                let cost = microseconds(engine, &persons, &servers, arguments);
                // The first round only warms what is held.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        let medians = costs.map(median);
        let hundred = SIZES.iter().zip(medians).find(|(size, _)| **size == 100).unwrap().1;
        println!("\n{what}");
        for (size, cost) in SIZES.iter().zip(medians) {
            println!("{size:>6} policies  {cost:>7.2} µs a decision  {:>5.2} × of 100", cost / hundred);
        }
    }
}

/// One pass over persons and servers, with the answers checked: a run with a wrong answer is void.
fn microseconds(
    engine: &PolicyEngine,
    persons: &[Person],
    servers: &[&Arc<Server>],
    arguments: Option<&Object>,
) -> f64 {
    let start = cpu_seconds();
    let mut asked = 0_u32;
    while asked < DECISIONS {
        for (person, server) in persons.iter().zip(servers.iter().cycle()) {
            let facts = Facts {
                tenant: "acme",
                person: Some(person),
                client_id: "platform",
                actor: "spiffe://corp.example/agent/bot",
                actor_chain: &[],
                server,
                tool: server.tool("refund_payment").map(|tool| &**tool),
                action: "tools/call",
                level: if arguments.is_some() { Level::L3 } else { Level::L1 },
                binding: Binding::Dpop,
                bearer_client: None,
                arguments,
                call_digest_only: false,
                constraints: None,
                claimed: Claimed::default(),
                risk_score: 20,
                approval: None,
                data_classes_read: &[],
                now: 1_795_260_400,
            };
            assert!(black_box(engine.evaluate(black_box(&facts))).allowed);
            asked += 1;
        }
    }
    (cpu_seconds() - start) * 1e6 / f64::from(asked)
}

/// Seconds that this thread has been on a processor (proc_pid_schedstat), so that a busy machine does not count.
fn cpu_seconds() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Policies as an organization grows them: four for everybody, the rest for a role on a server; a tenth forbids.
fn file(size: usize) -> PolicyFile {
    let mut text = String::from(
        r#"
        permit (principal in Role::"everybody", action == Action::"tools/call", resource)
        when { !context.has_arguments || (context.number.hasTag("amount_cents") && context.number.getTag("amount_cents") <= 5000) };
        forbid (principal, action == Action::"tools/call", resource)
        when { context.binding == "bearer" && resource.tier_rank >= 1 };
        forbid (principal, action, resource) when { context.delegation_depth > 5 };
        forbid (principal, action, resource) when { context.risk_score >= 90 };
        "#,
    );
    for n in 4..size {
        let (effect, condition) = match n % 10 {
            0 => ("forbid", r#"when { context has host && context.host == "unknown" }"#),
            1..=5 => ("permit", "when { resource.tier_rank <= 1 }"),
            _ => ("permit", r#"when { resource.effect == "read" && context.risk_score < 50 }"#),
        };
        let (role, server) = (n % ROLES, n / ROLES % SERVERS);
        writeln!(
            text,
            "{effect} (principal in Role::\"r{role}\", action == Action::\"tools/call\", resource in Server::\"s{server}\") {condition};"
        )
        .unwrap();
    }
    PolicyFile { name: format!("{size}.cedar"), text }
}

fn person(n: usize) -> Person {
    Person {
        tenant: "acme".into(),
        issuer: "https://idp.example.com".into(),
        sub: format!("user:acme:x:{n}"),
        groups: (0..8).map(|group| format!("https://idp.example.com|group-{group}")).collect(),
        roles: vec!["everybody".into(), format!("r{}", n % ROLES)],
        claims: [].into(),
        acr: None,
        amr: vec!["pwd".into()],
        auth_time: Some(1_795_260_000),
    }
}

fn server(n: usize) -> deputize_issuer::registry::ServerRecord {
    let definition =
        json!({ "name": "refund_payment", "description": "d", "inputSchema": { "type": "object" } });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    let record: Value = json!({
        "id": format!("s{n}"), "resource": format!("https://s{n}.example.com/mcp"), "tenant": "acme",
        "version": "1", "owner": "o", "purpose": "p", "environment": "production", "data_class": "internal",
        "verifier": "guard",
        "tools": [{ "tier": "low", "effect": "write", "tool_digest": digest, "definition": definition }],
    });
    serde_json::from_value(record).unwrap()
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const ROLES: usize = 50;
const SERVERS: usize = 50;
const PERSONS: usize = 500;
const DECISIONS: u32 = 5_000;
const ROUNDS: usize = 5;
