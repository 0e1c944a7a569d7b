//! Clients and providers that other people wrote.

use deputize_conformance::{
    dev::Dev,
    exchange::Lab,
    node::Script,
    world::{CRM, World},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauth4webapi_exchanges_with_dev_and_validates_the_token() {
    let dev = Dev::start().await;
    let (server, tool) = ("/servers/0", "/servers/0/tools/0");
    let member = |pointer: &str, name: &str| dev.ready.pointer(pointer).unwrap()[name].clone();
    let details =
        details(&member(server, "resource"), &member(tool, "name"), &member(tool, "example_arguments"));
    let result = tokio::task::block_in_place(|| {
        let given = json!({
            "issuer": dev.text("/issuer"), "client": dev.ready["client"], "user_token": dev.text("/user_tokens/alice"),
            "resource": member(server, "resource"), "authorization_details": details,
        });
        Script::start("exchange.mjs", &[], None).tell(&given).hear()
    });
    assert_eq!(result["claims"]["authorization_details"][0]["max_uses"], 1, "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oauth4webapi_brings_a_token_of_oidc_provider_to_serve() {
    let mut world = World::new().await;
    let folder = world.folder().to_owned();
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, world.authority.pem()).unwrap();
    world.authority.certify().write(&folder, "provider");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let arguments = [path("provider.pem"), path("provider.key"), "alice".to_owned()];
    let mut provider =
        Script::start("provider.mjs", &arguments.each_ref().map(String::as_str), Some(&authority));
    let issuer = tokio::task::block_in_place(|| provider.hear())["issuer"].as_str().unwrap().to_owned();
    let id_token = tokio::task::block_in_place(|| provider.hear())["id_token"].clone();
    world.trust_issuer_of(&issuer, &json!({}));
    let lab = Lab::start(world).await;
    let given = json!({
        "issuer": lab.world.base, "resource": CRM, "user_token": id_token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "client": { "client_id": "desk", "private_jwk": lab.world.client_keys["desk"].private_jwk() },
        "authorization_details":
            details(&json!(CRM), &json!("refund_payment"), &json!({ "payment_id": "pay_81", "amount_cents": 4200 })),
    });
    let result = tokio::task::block_in_place(|| {
        Script::start("exchange.mjs", &[], Some(&authority)).tell(&given).hear()
    });
    assert_eq!(result["claims"]["act"]["sub"], "spiffe://acme.test/agent/desk", "{result}");
    assert!(result["claims"]["sub"].as_str().unwrap().ends_with(":alice"), "{result}");
}

fn details(resource: &Value, tool: &Value, arguments: &Value) -> Value {
    json!([{
        "type": "mcp_tool_call", "locations": [resource], "actions": ["tools/call"], "identifier": tool,
        "arguments": arguments,
    }])
}
