//! Prompts and resources, granted as tools are; and what lists show of all three.

use crate::world::*;
use deputize_call::{
    action::Action,
    claims::GrantedDetail,
    digest::{CallInput, call_digest, prompt_digest},
    json::Object,
    level::Level,
};
use deputize_issuer::{
    ask::{Ask, CallAsk, ResourceUri},
    client::Reach,
    decide::Application,
    drift::{Drifted, lift},
    error::{DenialReason, IssueError},
    issue::issue,
    mint::ToolCallToken,
    record::{Entry, Kind},
    redeem::{Redeemed, redeem},
};
use serde_json::{Value, json};

/// A world whose CRM has prompts and resources too.
fn world(change: impl FnOnce(&mut Setup)) -> World {
    World::with(|setup| {
        let record = setup.servers.iter_mut().find(|record| record["resource"] == CRM).unwrap();
        record["prompts"] = json!([
            prompt("greet", "low", json!([])),
            prompt("weather", "medium", json!([{ "name": "city", "required": true }, { "name": "mood" }])),
            prompt("read_contact", "low", json!([])),
        ]);
        record["resources"] = json!([
            { "uri": "demo://docs/*", "tier": "low" },
            { "uri": "demo://docs/salaries.csv", "tier": "medium" },
            { "uri": "demo://docs/old/*", "tier": "low", "enabled": false },
        ]);
        change(setup);
    })
}

fn prompt(name: &str, tier: &str, arguments: Value) -> Value {
    let definition = json!({ "name": name, "description": "d", "arguments": arguments });
    let digest = prompt_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "prompt_digest": digest, "definition": definition })
}

fn word(error: &IssueError) -> &'static str {
    error.reason()
}

fn get(details: Value) -> Ask {
    ask(CRM, merged(json!({ "actions": ["prompts/get"] }), details))
}

fn read(details: Value) -> Ask {
    ask(CRM, merged(json!({ "actions": ["resources/read"] }), details))
}

fn detail(token: &ToolCallToken) -> &GrantedDetail {
    let [detail] = &token.claims.authorization_details;
    detail
}

fn digest_of(action: Action, name: &str, arguments: Value) -> deputize_call::digest::Digest {
    let arguments: Object = arguments.as_object().unwrap().clone();
    let input = CallInput {
        method: action.as_str(),
        name,
        arguments: &arguments,
        input_responses: None,
        request_state: None,
    };
    call_digest(&input).unwrap()
}

#[tokio::test]
async fn each_level_gives_what_was_asked_of_prompts_and_resources() {
    let world = world(|_| ());
    let token = world.for_alice(&get(json!({ "identifier": "greet" }))).await.unwrap();
    let granted = detail(&token);
    assert_eq!((granted.level(), granted.actions.as_slice()), (Level::L1, &["prompts/get".to_owned()][..]));
    assert_eq!((granted.tool_digest, granted.prompt_digest.is_some()), (None, true));
    assert_eq!(token.claims.scope, "mcp:prompt:greet");

    let city = json!({ "city": "Bonn" });
    let token = world.for_alice(&get(json!({ "identifier": "weather", "arguments": city }))).await.unwrap();
    let digest = digest_of(Action::GetPrompt, "weather", city);
    assert_eq!((detail(&token).call_digest, detail(&token).max_uses), (Some(digest), Some(1)));

    let constraints =
        json!({ "/city": { "enum": ["Bonn"] }, "/mood": { "enum": ["gay"], "optional": true } });
    let ask = get(json!({ "identifier": "weather", "constraints": constraints, "max_uses": 2 }));
    let token = world.for_alice(&ask).await.unwrap();
    assert_eq!((detail(&token).level(), detail(&token).max_uses), (Level::L2, Some(2)));

    let uri = "demo://docs/a/b.md";
    let token = world.for_alice(&read(json!({ "identifier": uri }))).await.unwrap();
    let granted = detail(&token);
    assert_eq!((granted.level(), granted.identifier.as_deref()), (Level::L1, Some(uri)));
    assert_eq!((granted.tool_digest, granted.prompt_digest), (None, None));
    assert_eq!(token.claims.scope, format!("mcp:resource:{uri}"));
    let token = world.for_alice(&read(json!({ "identifier": uri, "arguments": {} }))).await.unwrap();
    assert_eq!(detail(&token).call_digest, Some(digest_of(Action::ReadResource, uri, json!({}))));

    let recorded = world.audit.entries();
    let of = |name: &str| {
        let is_it = |entry: &&Entry| entry.kind == Kind::Intent && entry.tool.as_deref() == Some(name);
        recorded.iter().find(is_it).unwrap().action
    };
    assert_eq!((of("greet"), of(uri)), (Some(Action::GetPrompt), Some(Action::ReadResource)));
}

#[tokio::test]
async fn what_is_not_approved_is_not_granted() {
    let world = world(|_| ());
    for (asked, expected) in [
        (get(json!({ "identifier": "unheard_of" })), "prompt_unknown"),
        (get(json!({ "identifier": "update_contact", "arguments": {} })), "prompt_unknown"),
        (ask(CRM, json!({ "identifier": "greet" })), "tool_unknown"),
        (ask(MAILER, json!({ "actions": ["prompts/get"], "identifier": "greet" })), "prompt_unknown"),
        (
            ask(MAILER, json!({ "actions": ["resources/read"], "identifier": "demo://docs/a" })),
            "resource_unknown",
        ),
        (get(json!({ "identifier": "weather", "arguments": { "city": 1 } })), "arguments_miss_the_schema"),
        (get(json!({ "identifier": "weather", "arguments": {} })), "arguments_miss_the_schema"),
        (
            get(json!({ "identifier": "weather", "arguments": { "city": "Bonn", "more": "x" } })),
            "arguments_miss_the_schema",
        ),
        (
            get(json!({ "identifier": "weather", "constraints": { "/mood": { "enum": ["gay"] } } })),
            "constraints_leave_an_argument_open",
        ),
        (
            get(json!({ "identifier": "weather", "constraints": { "/size": { "enum": ["x"] } } })),
            "constraint_on_unknown_argument",
        ),
        (get(json!({ "identifier": "weather" })), "level_too_low"),
        (read(json!({ "identifier": "demo://docs/salaries.csv" })), "level_too_low"),
        (
            read(json!({ "identifier": "demo://docs/a", "arguments": { "x": 1 } })),
            "arguments_miss_the_schema",
        ),
        (
            read(json!({ "identifier": "demo://docs/a", "constraints": { "/x": { "enum": [1] } } })),
            "constraint_on_unknown_argument",
        ),
    ] {
        assert_eq!(word(&world.refusal(&asked).await), expected, "{asked:?}");
    }
    for uri in [
        "file:///etc/passwd",
        "demo://docs/",
        "demo://docs",
        "demo://docs/../salaries.csv",
        "demo://docs/a/../../b",
        "demo://docs/%2e%2e/b",
        "demo://docs/a%2fb",
        "demo://docs//etc",
        "demo://docs/a?b",
        "demo://docs/a#b",
        "DEMO://docs/a",
        "demo://DOCS/a",
        "demo://user@docs/a",
        "https://docs/a",
        "demo://docs/old/a",
        "demo://docs/old",
        "demo://docs/old/",
        "demo://docs/salaries.csv/",
        "demo://docs/a/",
        "demo://other/a",
    ] {
        assert_eq!(
            word(&world.refusal(&read(json!({ "identifier": uri }))).await),
            "resource_unknown",
            "{uri}"
        );
    }
    world
        .for_alice(&read(json!({ "identifier": "demo://docs/salaries.csv", "arguments": {} })))
        .await
        .unwrap();
}

#[test]
fn what_names_no_one_thing_to_do_is_refused() {
    let crm = ResourceUri::parse(CRM).unwrap();
    let word = |members: Value| {
        let text = json!([merged(json!({ "type": "mcp_tool_call" }), members)]).to_string();
        CallAsk::parse(Some(&text), &crm).unwrap_err().reason()
    };
    for actions in [
        json!([]),
        json!(["prompts/list"]),
        json!(["resources/subscribe"]),
        json!(["completion/complete"]),
        json!(["sampling/createMessage"]),
        json!(["tools/call", "prompts/get"]),
        json!(["resources/read "]),
        json!([1]),
    ] {
        let asked = json!({ "actions": actions, "identifier": "demo://docs/a" });
        assert_eq!(word(asked), "authorization_details_actions", "{actions}");
    }
    for uri in
        ["demo://docs/a b", "demo://docs\\a", "/etc/passwd", "docs", "demo://docs/\u{e9}", "demo:", ":a"]
    {
        let asked = json!({ "actions": ["resources/read"], "identifier": uri });
        assert_eq!(word(asked), "authorization_details_identifier", "{uri}");
    }
    let long = "a".repeat(129);
    for action in ["tools/call", "prompts/get"] {
        let asked = json!({ "actions": [action], "identifier": long });
        assert_eq!(word(asked), "authorization_details_identifier");
    }
}

#[tokio::test]
async fn a_digest_is_of_one_method() {
    let world = world(|_| ());
    let of_a_tool = digest_of(Action::CallTool, "weather", json!({ "city": "Bonn" }));
    let of_the_prompt = digest_of(Action::GetPrompt, "weather", json!({ "city": "Bonn" }));
    assert_ne!(of_a_tool, of_the_prompt);
    let with = |digest: deputize_call::digest::Digest| {
        json!([{ "type": "mcp_tool_call", "actions": ["prompts/get"], "identifier": "weather",
            "arguments": { "city": "Bonn" }, "call_digest": digest }])
        .to_string()
    };
    let crm = ResourceUri::parse(CRM).unwrap();
    assert!(CallAsk::parse(Some(&with(of_the_prompt)), &crm).is_ok());
    let refused = CallAsk::parse(Some(&with(of_a_tool)), &crm).unwrap_err();
    assert_eq!(refused.reason(), "authorization_details_digest");
    drop(world);
}

#[tokio::test]
async fn scope_tells_a_prompt_from_a_tool_of_its_name() {
    let world = world(|_| ());
    let prompt = || get(json!({ "identifier": "read_contact" }));
    world.for_alice(&scoped(prompt(), "mcp:prompt:read_contact")).await.unwrap();
    for scope in ["read_contact", "mcp:list", "mcp:resource:read_contact"] {
        let refused = world.refusal(&scoped(prompt(), scope)).await;
        assert_eq!(refused, IssueError::Scope("scope_beyond_the_tool"), "{scope}");
    }
}

#[tokio::test]
async fn policy_and_reach_tell_the_three_apart() {
    let world = world(|setup| {
        setup.policies = r#"
            permit (principal, action == Action::"tools/list", resource);
            permit (principal, action == Action::"resources/read", resource in Resource::"crm#demo://docs/*");
            forbid (principal, action, resource in Resource::"crm#demo://docs/salaries.csv");
        "#
        .to_owned();
    });
    world.for_alice(&read(json!({ "identifier": "demo://docs/a" }))).await.unwrap();
    for denied in [
        read(json!({ "identifier": "demo://docs/salaries.csv", "arguments": {} })),
        get(json!({ "identifier": "greet" })),
        read_contact(),
    ] {
        let refused = world.refusal(&denied).await;
        assert!(matches!(refused, IssueError::Denied(DenialReason::Policy { .. })), "{refused:?}");
    }
    let narrow = world_with_reach(Reach {
        prompts: Some(vec!["greet".to_owned()]),
        resources: Some(vec!["demo://docs/a".to_owned()]),
        ..reach(CRM)
    });
    narrow.for_alice(&get(json!({ "identifier": "greet" }))).await.unwrap();
    narrow.for_alice(&read(json!({ "identifier": "demo://docs/a" }))).await.unwrap();
    for beyond in [
        read_contact(),
        get(json!({ "identifier": "read_contact" })),
        read(json!({ "identifier": "demo://docs/b" })),
    ] {
        assert_eq!(narrow.refusal(&beyond).await, IssueError::Target("beyond_the_clients_reach"));
    }
}

#[tokio::test]
async fn what_is_forbidden_of_a_folder_is_forbidden_of_what_a_narrower_entry_names_in_it() {
    let salaries = || read(json!({ "identifier": "demo://docs/salaries.csv", "arguments": {} }));
    world(|_| ()).for_alice(&salaries()).await.unwrap();
    let world = world(|setup| {
        setup.policies.push_str(r#"forbid (principal, action, resource in Resource::"crm#demo://docs/*");"#);
    });
    for asked in [salaries(), read(json!({ "identifier": "demo://docs/a" }))] {
        let refused = world.refusal(&asked).await;
        assert!(matches!(refused, IssueError::Denied(DenialReason::Policy { .. })), "{refused:?}");
    }
    let shown = shown_to_alice(&world).await;
    assert!(
        !shown.is_empty() && shown.iter().all(|(action, _)| *action != Action::ReadResource),
        "{shown:?}"
    );
}

fn world_with_reach(reach: Reach) -> World {
    world(|setup| setup.find_client("platform").may_call = vec![reach])
}

#[tokio::test]
async fn a_prompt_that_drifted_gets_no_token() {
    let world = world(|_| ());
    let rules = world.desk.rules.load();
    let server = rules.registry.server(CRM).unwrap();
    let drifted = Drifted::from_approved(server, server.prompt("read_contact").unwrap());
    world.desk.drifts.store(drifted).await.unwrap();
    assert_eq!(word(&world.refusal(&get(json!({ "identifier": "read_contact" }))).await), "tool_drifted");
    world.for_alice(&read_contact()).await.expect("the tool of that name has not drifted");
    let shown = shown_to_alice(&world).await;
    assert!(!shown.contains(&(Action::GetPrompt, "read_contact".to_owned())));
    assert!(shown.contains(&(Action::CallTool, "read_contact".to_owned())));
}

/// As it was stored before drifts said whether a tool or a prompt is meant.
#[tokio::test]
async fn a_prompt_that_drifted_before_drifts_told_the_action_gets_no_token_until_it_is_lifted() {
    let world = world(|_| ());
    let prompt = || get(json!({ "identifier": "read_contact" }));
    let stored = {
        let rules = world.desk.rules.load();
        let server = rules.registry.server(CRM).unwrap();
        let drifted = Drifted::from_approved(server, server.prompt("read_contact").unwrap());
        let mut written = serde_json::to_value(drifted).unwrap();
        written.as_object_mut().unwrap().remove("action").unwrap();
        serde_json::from_value::<Drifted>(written).unwrap()
    };
    for action in [Action::GetPrompt, Action::CallTool] {
        world.desk.drifts.store(stored.clone()).await.unwrap();
        assert_eq!(word(&world.refusal(&prompt()).await), "tool_drifted");
        world.for_alice(&read_contact()).await.expect("the tool of that name has another definition");
        assert!(!lift(&world.desk, "admin", (CRM, Action::ReadResource, "read_contact")).await.unwrap());
        assert!(lift(&world.desk, "admin", (CRM, action, "read_contact")).await.unwrap(), "{action:?}");
        world.for_alice(&prompt()).await.expect("somebody has looked");
    }
}

#[tokio::test]
async fn who_lifts_a_tool_lifts_no_prompt_of_its_name_and_the_other_way_round() {
    use Action::{CallTool, GetPrompt, ReadResource};
    let world = world(|_| ());
    let prompt = || get(json!({ "identifier": "read_contact" }));
    let stop = || {
        let rules = world.desk.rules.load();
        let server = rules.registry.server(CRM).unwrap();
        for action in [CallTool, GetPrompt] {
            let offer = server.offer(action, "read_contact").unwrap();
            assert!(world.desk.drifts.hold(&Drifted::from_approved(server, &offer)), "{action:?}");
        }
    };
    let order = async |action| lift(&world.desk, "admin", (CRM, action, "read_contact")).await.unwrap();

    stop();
    assert!(!order(ReadResource).await);
    assert!(order(CallTool).await);
    world.for_alice(&read_contact()).await.unwrap();
    assert_eq!(word(&world.refusal(&prompt()).await), "tool_drifted");
    assert!(!order(CallTool).await, "there is nothing left that this means");
    assert!(order(GetPrompt).await);
    world.for_alice(&prompt()).await.unwrap();

    stop();
    assert!(order(GetPrompt).await);
    world.for_alice(&prompt()).await.unwrap();
    assert_eq!(word(&world.refusal(&read_contact()).await), "tool_drifted");
    assert!(order(CallTool).await);

    let lifted: Vec<Option<Action>> = world
        .audit
        .entries()
        .iter()
        .filter(|entry| entry.result.as_deref() == Some("lifted"))
        .map(|entry| entry.action)
        .collect();
    assert_eq!(lifted, [None, Some(GetPrompt), Some(GetPrompt), None], "the record tells them apart");
}

#[tokio::test]
async fn a_token_for_a_prompt_or_resource_leads_nowhere_else() {
    let world = world(|setup| {
        let hops = json!([{ "server": MAILER, "tool": "look_up", "level": "L3" }]);
        merge(setup.tool(CRM, "read_contact"), json!({ "downstream": hops }));
    });
    let of_prompt = world.for_alice(&get(json!({ "identifier": "read_contact" }))).await.unwrap();
    let look_up = ask(MAILER, json!({ "identifier": "look_up" }));
    let refused = world.hop("crm", &of_prompt, &look_up).await.unwrap_err();
    assert_eq!(refused, IssueError::Target("not_downstream"), "that is for the tool of this name");
    let of_resource = world.for_alice(&read(json!({ "identifier": "demo://docs/a" }))).await.unwrap();
    assert_eq!(
        world.hop("crm", &of_resource, &look_up).await.unwrap_err(),
        IssueError::Target("not_downstream")
    );
    // Its holder may narrow it to one reading, and to nothing else.
    let narrower = read(json!({ "identifier": "demo://docs/a", "arguments": {} }));
    world.hop("platform", &of_resource, &narrower).await.unwrap();
    for other in [
        read(json!({ "identifier": "demo://docs/b", "arguments": {} })),
        get(json!({ "identifier": "read_contact" })),
        listing(),
    ] {
        let refused = world.hop("platform", &of_resource, &other).await.unwrap_err();
        assert_eq!(refused, IssueError::Target("holder_asks_for_another_target"));
    }
    let refused = world.hop("platform", &of_prompt, &read_contact()).await.unwrap_err();
    assert_eq!(refused, IssueError::Target("holder_asks_for_another_target"), "of the same name");
}

#[tokio::test]
async fn one_use_of_a_prompt_or_resource_is_redeemed_once() {
    let world = world(|_| ());
    for ask in [
        get(json!({ "identifier": "weather", "arguments": { "city": "Bonn" } })),
        read(json!({ "identifier": "demo://docs/a", "arguments": {} })),
    ] {
        let token = world.for_alice(&ask).await.unwrap();
        let redeem = async || {
            let caller = world.caller("crm").await;
            redeem(&world.desk, &caller, token.access_token.expose()).await.unwrap()
        };
        assert_eq!(redeem().await, Redeemed::Yes);
        assert_eq!(redeem().await, Redeemed::AlreadyUsed);
    }
    let held = world.for_alice(&get(json!({ "identifier": "greet", "arguments": {} }))).await.unwrap();
    {
        let rules = world.desk.rules.load();
        let server = rules.registry.server(CRM).unwrap();
        world.desk.drifts.hold(&Drifted::from_approved(server, server.prompt("greet").unwrap()));
    }
    let caller = world.caller("crm").await;
    let redeemed = redeem(&world.desk, &caller, held.access_token.expose()).await.unwrap();
    assert!(matches!(redeemed, Redeemed::No(_)), "it drifted meanwhile: {redeemed:?}");
}

/// What lists would show to Alice.
async fn shown_to_alice(world: &World) -> Vec<(Action, String)> {
    shown(world, &world.for_alice(&listing()).await.unwrap())
}

fn shown(world: &World, token: &ToolCallToken) -> Vec<(Action, String)> {
    let rules = world.desk.rules.load();
    let offers = rules.registry.server(CRM).unwrap().offers();
    let said = detail(token).shown.clone().unwrap();
    assert_eq!(said.of, offers.digest());
    let is_shown = |offer: &(Action, &str)| offers.is_shown(&said, offer.0, offer.1);
    offers.iter().filter(is_shown).map(|(action, name)| (action, name.to_owned())).collect()
}

#[tokio::test]
async fn lists_show_what_this_person_could_do_through_this_client() {
    let names = |shown: Vec<(Action, String)>| shown.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    let all = shown_to_alice(&world(|_| ())).await;
    assert!(all.len() > 5 && all.iter().all(|(_, name)| name != "demo://docs/old/*"));

    let staff = world(|setup| {
        setup.policies = r#"
            permit (principal, action == Action::"tools/list", resource);
            permit (principal in Group::"https://id.example.com|staff", action == Action::"tools/call",
                resource == Tool::"crm#read_contact");
            permit (principal, action == Action::"tools/call", resource == Tool::"crm#update_contact")
                when { context.text.hasTag("id") && context.text.getTag("id") == "c1" };
            permit (principal, action == Action::"prompts/get", resource == Prompt::"crm#greet");
        "#
        .to_owned();
    });
    assert_eq!(names(shown_to_alice(&staff).await), ["read_contact", "update_contact", "greet"]);
    let outsider = staff.alice(json!({ "groups": ["guests"] }));
    let token = staff.exchange("platform", &outsider, &listing()).await.unwrap();
    assert_eq!(names(shown(&staff, &token)), ["update_contact", "greet"]);

    let nobody = world(|setup| {
        setup.policies = r#"permit (principal, action == Action::"tools/list", resource);"#.to_owned();
    });
    assert_eq!(shown_to_alice(&nobody).await, [], "who may list and do nothing sees nothing");
    let narrow = world_with_reach(Reach { tools: Some(vec!["read_contact".to_owned()]), ..reach(CRM) });
    assert_eq!(names(shown_to_alice(&narrow).await), ["read_contact"]);
    let disabled = world(|setup| merge(setup.tool(CRM, "read_contact"), json!({ "enabled": false })));
    assert!(!shown_to_alice(&disabled).await.contains(&(Action::CallTool, "read_contact".to_owned())));
}

#[tokio::test]
async fn a_client_that_asks_for_itself_sees_what_it_could_reach() {
    let world = world(|setup| {
        let platform = setup.find_client("platform");
        platform.client_credentials = true;
        platform.may_call = vec![Reach { tools: Some(vec!["refund".to_owned()]), ..reach(CRM) }];
    });
    let caller = world.caller("platform").await;
    let (decision_id, ask) = (uuid::Uuid::nil(), listing());
    let application = Application { decision_id, caller: &caller, subject: None, ask: &ask };
    let token = issue(&world.desk, &application).await.unwrap();
    assert_eq!(shown(&world, &token), [(Action::CallTool, "refund".to_owned())]);
}

#[tokio::test]
async fn the_token_for_a_large_server_stays_small() {
    let world = world(|setup| {
        let template = setup.tool(CRM, "read_contact").clone();
        let record = setup.servers.iter_mut().find(|record| record["resource"] == CRM).unwrap();
        let tools = (0..300).map(|number| {
            let mut tool = template.clone();
            tool["definition"]["name"] = json!(format!("tool_with_a_long_name_{number}"));
            let digest = deputize_call::digest::tool_digest(tool["definition"].as_object().unwrap()).unwrap();
            tool["tool_digest"] = json!(digest);
            tool
        });
        record["tools"].as_array_mut().unwrap().extend(tools);
    });
    let token = world.for_alice(&listing()).await.unwrap();
    assert!(shown(&world, &token).len() > 300);
    assert!(token.access_token.expose().len() < 2048, "{} bytes", token.access_token.expose().len());
}
