use super::*;
use deputize_call::digest::{Manifest, manifest_digest, prompt_digest, tool_digest};
use serde_json::{Value, json};

const CRM: &str = "https://crm.example.com/mcp";
const BANK: &str = "https://bank.example.com/mcp";

fn tool(name: &str, tier: &str) -> Value {
    let definition = json!({ "name": name, "description": "d", "inputSchema": {
        "type": "object", "properties": { "id": { "type": "string" } } } });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "effect": "read", "tool_digest": digest, "definition": definition })
}

fn server(id: &str, resource: &str, tools: Vec<Value>) -> Value {
    json!({ "id": id, "resource": resource, "tenant": "acme", "version": "1", "owner": "o", "purpose": "p",
        "environment": "production", "data_class": "internal", "verifier": "guard", "tools": tools })
}

fn set(mut value: Value, pointer: &str, member: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[name] = member;
    value
}

fn build(servers: Vec<Value>) -> Result<Registry, Vec<RegistryError>> {
    Registry::build(servers.into_iter().map(|server| serde_json::from_value(server).unwrap()).collect())
}

/// The only problem of a registry that is sound but for one change.
fn only_problem(servers: Vec<Value>) -> RegistryError {
    let mut problems = build(servers).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn crm() -> Value {
    server("crm", CRM, vec![tool("read_contact", "low"), tool("refund", "high")])
}

fn bank() -> Value {
    server("bank", BANK, vec![tool("balance", "medium")])
}

#[test]
fn a_sound_registry_is_pinned() {
    let registry = build(vec![crm(), bank()]).unwrap();
    let server = registry.server(CRM).unwrap();
    assert_eq!(server.tools().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["read_contact", "refund"]);
    assert_eq!(server.tool("refund").unwrap().least_level, Level::L3);
    assert_eq!(registry.server(BANK).unwrap().tool("balance").unwrap().least_level, Level::L2);
    assert!(registry.server("https://crm.example.com/mcp/").is_none());
    assert!(server.tool("delete_all").is_none());
}

#[test]
fn its_digest_depends_on_every_record_and_not_on_their_order() {
    let digest = build(vec![crm(), bank()]).unwrap().digest();
    assert_eq!(build(vec![bank(), crm()]).unwrap().digest(), digest);
    assert_ne!(build(vec![crm(), set(bank(), "/enabled", json!(false))]).unwrap().digest(), digest);
    assert_ne!(build(vec![crm()]).unwrap().digest(), digest);
}

#[test]
fn ids_and_resources_are_unique_and_well_formed() {
    assert!(only_problem(vec![crm(), set(bank(), "/id", json!("crm"))]).problem.contains("id is taken"));
    for taken in [CRM, "https://crm.example.com/mcp/"] {
        let problem = only_problem(vec![crm(), set(bank(), "/resource", json!(taken))]).problem;
        assert!(problem.contains("is taken by another"), "{problem}");
    }
    for id in ["", "CRM", "a b", "a/b", &"a".repeat(65)] {
        assert!(only_problem(vec![set(crm(), "/id", json!(id))]).problem.starts_with("id must"), "{id}");
    }
    assert!(only_problem(vec![set(crm(), "/tenant", json!("a:b"))]).problem.starts_with("tenant must"));
    assert!(
        only_problem(vec![set(crm(), "/client_id", json!("user:x"))]).problem.starts_with("client_id must")
    );
    assert!(only_problem(vec![set(crm(), "/owner", json!(""))]).problem.starts_with("owner must"));
    for day in ["2026-13-01", "yesterday", "2026-1-1", "2026-01-32"] {
        assert!(
            only_problem(vec![set(crm(), "/last_review", json!(day))]).problem.starts_with("last_review")
        );
    }
    assert!(build(vec![set(crm(), "/last_review", json!("2026-10-31"))]).is_ok());
}

#[test]
fn resources_have_one_spelling() {
    for good in [
        "https://crm.example.com/mcp",
        "https://crm.example.com",
        "https://crm.example.com/",
        "https://crm.example.com:8443/a/b",
        "http://127.0.0.1:8080/mcp",
        "http://localhost/mcp",
        "http://[::1]:1/mcp",
    ] {
        assert_eq!(check_resource(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "crm",
        "/mcp",
        "//crm.example.com/mcp",
        "urn:crm",
        "ftp://crm.example.com/",
        "http://crm.example.com/mcp",
        "http://127.0.0.1.example.com/mcp",
        "https://crm.example.com/mcp?x=1",
        "https://crm.example.com/mcp?",
        "https://crm.example.com/mcp#f",
        "https://crm.example.com/mcp#",
        "https://user@crm.example.com/mcp",
        "https://@crm.example.com/mcp",
        "https://CRM.example.com/mcp",
        "https://crm.example.com:443/mcp",
        "https://crm.example.com/a/../mcp",
        "https://crm.example.com/a%2Fmcp",
        "https://crm.example.com./mcp",
        "https:\\\\crm.example.com\\mcp",
        " https://crm.example.com/mcp",
        "https://crm.example.com/mcp\n",
    ] {
        assert!(check_resource(bad).is_err(), "{bad}");
    }
    assert!(check_resource(&format!("https://crm.example.com/{}", "a".repeat(512))).is_err());
}

#[test]
fn no_resource_is_an_audience_of_a_cloud() {
    for cloud in [
        "sts.amazonaws.com",
        "https://sts.amazonaws.com",
        "https://STS.amazonaws.com./",
        "https://sts.eu-west-1.amazonaws.com/",
        "https://sts.cn-north-1.amazonaws.com.cn/",
        "https://signin.aws.amazon.com/saml",
        "api://AzureADTokenExchange",
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "https://sts.googleapis.com/v1/token",
    ] {
        assert!(is_cloud_audience(cloud) || cloud.starts_with("//"), "{cloud}");
        assert!(check_resource(cloud).is_err(), "{cloud}");
    }
    assert!(!is_cloud_audience("https://notamazonaws.com/mcp"));
    assert!(!is_cloud_audience("https://amazonaws.com.example/mcp"));
    assert!(!is_cloud_audience(CRM));
}

#[test]
fn a_changed_definition_needs_a_new_approval() {
    for changed in ["description", "title"] {
        let drifted = set(crm(), &format!("/tools/0/definition/{changed}"), json!("changed"));
        let right = tool_digest(drifted["tools"][0]["definition"].as_object().unwrap()).unwrap();
        let problem = only_problem(vec![drifted]);
        assert_eq!(problem.tool.as_deref(), Some("read_contact"));
        assert!(problem.problem.contains(&right.to_string()) && problem.problem.contains("new approval"));
    }
}

#[test]
fn the_manifest_digest_is_checked_where_given() {
    let digests: Vec<Digest> = crm()["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| serde_json::from_value(tool["tool_digest"].clone()).unwrap())
        .collect();
    let manifest = Manifest { id: "crm", version: "1", tools: &digests, ..Manifest::default() };
    let right = manifest_digest(&manifest).unwrap();
    let registry = build(vec![set(crm(), "/manifest_digest", json!(right))]).unwrap();
    assert_eq!(registry.server(CRM).unwrap().manifest_digest, right);
    let other_version = set(set(crm(), "/manifest_digest", json!(right)), "/version", json!("2"));
    assert!(only_problem(vec![other_version]).problem.contains("new approval"));
    let fewer = server("crm", CRM, vec![tool("refund", "high")]);
    assert!(
        only_problem(vec![set(fewer, "/manifest_digest", json!(right))]).problem.contains("new approval")
    );
}

#[test]
fn tool_names_are_sane_and_unique() {
    for name in ["", "a b", "ä", "a\nb", &"a".repeat(129)] {
        let problem = only_problem(vec![server("crm", CRM, vec![tool(name, "low")])]).problem;
        assert!(problem.starts_with("definition.name"), "{name}");
    }
    assert!(build(vec![server("crm", CRM, vec![tool("Files/read.v2_x-y", "low")])]).is_ok());
    let twice = server("crm", CRM, vec![tool("read", "low"), tool("read", "low")]);
    assert!(only_problem(vec![twice]).problem.contains("name is taken"));
}

#[test]
fn tiers_bring_their_controls() {
    for (tier, below, least) in [("low", "L0", "L1"), ("medium", "L1", "L2"), ("high", "L2", "L3")] {
        let with = |level| vec![server("crm", CRM, vec![set(tool("t", tier), "/level", json!(level))])];
        assert!(only_problem(with(below)).problem.contains("is below"));
        assert!(build(with(least)).is_ok());
    }
    let plain = |tool| vec![set(server("crm", CRM, vec![tool]), "/verifier", json!("rfc9068"))];
    assert!(build(plain(tool("t", "medium"))).is_ok());
    for tier in ["high", "critical"] {
        assert!(only_problem(plain(tool("t", tier))).problem.contains("verifier: guard"));
    }
    assert!(
        only_problem(plain(set(tool("t", "low"), "/level", json!("L3")))).problem.contains("verifier: guard")
    );
}

#[test]
fn lifetimes_and_uses_are_bounded() {
    let with = |member: &str, value: u64| {
        vec![server("crm", CRM, vec![set(tool("t", "low"), member, json!(value))])]
    };
    for seconds in [30, 120] {
        assert!(build(with("/lifetime_seconds", seconds)).is_ok());
    }
    for seconds in [0, 29, 121] {
        assert!(only_problem(with("/lifetime_seconds", seconds)).problem.contains("30–120"));
    }
    for uses in [1, 1000] {
        assert!(build(with("/max_uses", uses)).is_ok());
    }
    for uses in [0, 1001] {
        assert!(only_problem(with("/max_uses", uses)).problem.contains("1–1000"));
    }
    let twice = server("crm", CRM, vec![set(tool("t", "high"), "/max_uses", json!(2))]);
    assert!(only_problem(vec![twice]).problem.contains("max_uses is 1"));
}

#[test]
fn downstream_points_to_a_tool_of_the_same_tenant_at_a_possible_level() {
    let with = |to: &str, name: &str, level: &str, other: Value| {
        let hop = json!([{ "server": to, "tool": name, "level": level }]);
        vec![set(crm(), "/tools/0/downstream", hop), other]
    };
    assert!(build(with(BANK, "balance", "L2", bank())).is_ok());
    assert!(build(with(BANK, "balance", "L3", bank())).is_ok());
    for (servers, expected) in [
        (with("https://unknown.example/", "balance", "L2", bank()), "not a registered server"),
        (with(BANK, "transfer", "L2", bank()), "no approved tool"),
        (with(BANK, "balance", "L1", bank()), "is below L2"),
        (with(BANK, "balance", "L2", set(bank(), "/tenant", json!("other"))), "another tenant"),
    ] {
        let problem = only_problem(servers);
        assert_eq!(problem.tool.as_deref(), Some("read_contact"));
        assert!(problem.problem.contains(expected), "{problem}");
    }
}

#[test]
fn schemas_compile_and_examples_satisfy_them() {
    let with = |example| vec![set(crm(), "/tools/0/example_arguments", example)];
    assert!(build(with(json!({ "id": "c1" }))).is_ok());
    assert!(only_problem(with(json!({ "id": 1 }))).problem.starts_with("example_arguments/id"));
    assert!(only_problem(with(json!({ "unknown": 1 }))).problem.starts_with("example_arguments"));

    for (schema, expected) in
        [(json!(null), "not an object"), (json!({ "$ref": "https://x.example/" }), "$ref")]
    {
        let mut broken = tool("t", "low");
        broken["definition"]["inputSchema"] = schema;
        broken["tool_digest"] = json!(tool_digest(broken["definition"].as_object().unwrap()).unwrap());
        assert!(only_problem(vec![server("crm", CRM, vec![broken])]).problem.contains(expected));
    }
    let mut missing = tool("t", "low");
    missing["definition"].as_object_mut().unwrap().remove("inputSchema");
    missing["tool_digest"] = json!(tool_digest(missing["definition"].as_object().unwrap()).unwrap());
    assert!(only_problem(vec![server("crm", CRM, vec![missing])]).problem.contains("no inputSchema"));
}

#[test]
fn every_problem_is_reported() {
    let broken = set(set(crm(), "/id", json!("CRM")), "/tools/1/lifetime_seconds", json!(5));
    let problems =
        build(vec![broken, set(bank(), "/resource", json!("http://bank.example.com/mcp"))]).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[1].to_string(), "server \"CRM\", tool \"refund\": lifetime_seconds must be 30–120");
}

#[test]
fn what_is_only_proposed_is_kept_apart_and_stops_nothing() {
    let proposed = |server: Value| set(server, "/approved", json!(false));
    let registry = build(vec![crm(), proposed(bank())]).unwrap();
    assert!(registry.server(BANK).is_none() && registry.servers().count() == 1);
    assert_eq!(registry.proposed()[0].id, "bank");
    // Neither a broken one nor one beside the approved one of the same name stands in the way.
    let broken = set(proposed(bank()), "/tools/0/definition/description", json!("changed"));
    assert!(build(vec![crm(), broken]).is_ok());
    assert!(build(vec![crm(), proposed(crm())]).unwrap().server(CRM).is_some());
    // A next hop to it stays as it is, and leads nowhere.
    let hop = json!([{ "server": BANK, "tool": "balance", "level": "L2" }]);
    let calling = set(crm(), "/tools/0/downstream", hop);
    assert!(build(vec![calling, proposed(bank())]).unwrap().server(BANK).is_none());
}

#[test]
fn packages_are_pinned() {
    let with = |version: Value, sha256: Value| {
        let package =
            json!({ "registry": "npm", "identifier": "@acme/crm", "version": version, "sha256": sha256 });
        vec![set(crm(), "/packages", json!([package]))]
    };
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(build(with(json!("1.2.0"), json!(digest))).is_ok());
    assert!(build(with(json!("1.2.0"), json!(null))).is_ok());
    for range in ["latest", "^1.2.0", "~1", "1.*", ">=1", ""] {
        assert!(only_problem(with(json!(range), json!(null))).problem.contains("version"), "{range}");
    }
    for wrong in ["abc", &digest.to_uppercase(), &digest.replace('b', "g")] {
        assert!(only_problem(with(json!("1"), json!(wrong))).problem.contains("sha256"), "{wrong}");
    }
}

fn prompt(name: &str, tier: &str, arguments: Value) -> Value {
    let definition = json!({ "name": name, "description": "d", "arguments": arguments });
    let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "prompt_digest": digest, "definition": definition })
}

fn offering(prompts: Value, resources: Value) -> Vec<Value> {
    vec![set(set(crm(), "/prompts", prompts), "/resources", resources)]
}

#[test]
fn prompts_and_resources_are_pinned_as_tools_are() {
    let takes_city = json!([{ "name": "city", "required": true }]);
    let prompts = json!([prompt("greet", "medium", json!([])), prompt("weather", "medium", takes_city)]);
    let resources = json!([
        { "uri": "demo://docs/a.md", "tier": "high" },
        { "uri": "demo://docs/*", "tier": "low" },
        { "uri": "demo://docs/secret/*", "tier": "low", "enabled": false },
        { "uri": "demo://other", "tier": "medium", "name": "Other" },
    ]);
    let registry = build(offering(prompts, resources)).unwrap();
    let server = registry.server(CRM).unwrap();
    let level = |action, name| server.offer(action, name).map(|offer| offer.least_level);
    assert_eq!(level(Action::GetPrompt, "weather"), Some(Level::L2));
    assert_eq!(level(Action::GetPrompt, "greet"), Some(Level::L3), "no arguments to constrain");
    assert_eq!(level(Action::CallTool, "greet"), None, "a prompt is no tool");
    assert_eq!(level(Action::GetPrompt, "refund"), None);
    assert_eq!(level(Action::ReadResource, "demo://docs/a.md"), Some(Level::L3));
    assert_eq!(level(Action::ReadResource, "demo://docs/b.md"), Some(Level::L1));
    assert_eq!(level(Action::ReadResource, "demo://other"), Some(Level::L3));
    for unknown in [
        "demo://docs/",
        "demo://docs/secret",
        "demo://docs/a.md/",
        "demo://docs/../other",
        "demo://otherwise",
        "refund",
        "demo://other/x",
    ] {
        assert_eq!(level(Action::ReadResource, unknown), None, "{unknown}");
    }
    let below = server.offer(Action::ReadResource, "demo://docs/b.md").unwrap();
    assert_eq!((below.name.as_str(), below.entry.as_str()), ("demo://docs/b.md", "demo://docs/*"));
    assert_eq!(below.scope(), "mcp:resource:demo://docs/b.md");
    let within = |uri| server.offer(Action::ReadResource, uri).unwrap().within.join(" ");
    assert_eq!(within("demo://docs/a.md"), "demo://docs/*");
    assert_eq!(within("demo://docs/secret/x"), "demo://docs/*");
    assert_eq!((within("demo://docs/b.md"), within("demo://other")), (String::new(), String::new()));
    let hidden = server.offer(Action::ReadResource, "demo://docs/secret/x").unwrap();
    assert!(!hidden.record.enabled, "the most exact entry decides, and it is switched off");
    let weather = server.prompt("weather").unwrap();
    assert!(weather.schema.validate(json!({ "city": "Bonn" }).as_object().unwrap()).is_ok());
    assert!(weather.schema.validate(json!({}).as_object().unwrap()).is_err());
    let counted: Vec<_> = server.offers().iter().map(|(_, name)| name.to_owned()).collect();
    let expected =
        ["read_contact", "refund", "greet", "weather", "demo://docs/*", "demo://docs/a.md", "demo://other"];
    assert_eq!(counted, expected, "what is switched off is not offered");
}

#[test]
fn a_server_without_any_has_the_manifest_that_it_had() {
    let plain = build(vec![crm()]).unwrap();
    let more = build(offering(json!([prompt("greet", "low", json!([]))]), json!([]))).unwrap();
    let of = |registry: &Registry| registry.server(CRM).unwrap().manifest_digest;
    let digests: Vec<Digest> = plain.server(CRM).unwrap().tools().map(|tool| tool.tool_digest).collect();
    let manifest = Manifest { id: "crm", version: "1", tools: &digests, ..Manifest::default() };
    assert_eq!(of(&plain), manifest_digest(&manifest).unwrap());
    assert_ne!(of(&plain), of(&more));
    let resource = json!([{ "uri": "demo://docs/a.md", "tier": "low" }]);
    let named = json!([{ "uri": "demo://docs/a.md", "tier": "low", "description": "Read me." }]);
    assert_ne!(
        of(&build(offering(json!([]), resource)).unwrap()),
        of(&build(offering(json!([]), named)).unwrap()),
        "what is shown is pinned"
    );
}

#[test]
fn a_prompt_or_resource_that_cannot_be_pinned_is_refused() {
    for (name, arguments, expected) in [
        ("a b", json!([]), "definition.name must"),
        ("", json!([]), "definition.name must"),
        ("p", json!([{ "name": "x" }, { "name": "x" }]), "two arguments of one name"),
        ("p", json!("x"), "no list"),
    ] {
        let problem = only_problem(offering(json!([prompt(name, "low", arguments)]), json!([])));
        assert!(problem.problem.contains(expected), "{problem}");
    }
    let changed = set(prompt("p", "low", json!([])), "/definition/description", json!("changed"));
    assert!(only_problem(offering(json!([changed]), json!([]))).problem.contains("new approval"));
    let twice = json!([prompt("p", "low", json!([])), prompt("p", "low", json!([]))]);
    assert!(only_problem(offering(twice, json!([]))).problem.contains("name is taken"));
    for uri in
        ["", "/etc/passwd", "file:///*", "demo://a/../b", "demo://a/%2e%2e/b", "demo://u@h/a", "demo://a b"]
    {
        let problem = only_problem(offering(json!([]), json!([{ "uri": uri, "tier": "low" }])));
        assert!(problem.problem.starts_with("uri "), "{uri}: {problem}");
    }
    let twice = json!([{ "uri": "demo://a", "tier": "low" }, { "uri": "demo://a", "tier": "high" }]);
    assert!(only_problem(offering(json!([]), twice)).problem.contains("URI is taken"));
    let below = json!([{ "uri": "demo://a", "tier": "high", "level": "L1" }]);
    assert!(only_problem(offering(json!([]), below)).problem.contains("is below"));
    let hidden = json!([{ "uri": "demo://a", "tier": "low", "name": "a\u{1b}[2J" }]);
    assert!(only_problem(offering(json!([]), hidden)).problem.contains("control characters"));
}
