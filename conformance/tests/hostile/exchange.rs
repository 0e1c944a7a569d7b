//! H-10 to H-14: exchanges that ask for what is malformed, wider, or somebody else's.

use crate::cases;
use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{self, Key, now, unique},
    wire::Response,
    world::{ARCHIVE, CRM, GLOBEX, LEDGER, PROPOSED, token_of},
};
use serde_json::{Value, json};
use std::time::Duration;

cases![exchange:
    subject_missing, subject_blank, subject_twice, subject_type_missing, subject_type_wrong, subject_type_unknown,
    refresh_token_as_subject, actor_without_type, actor_type_without_actor, two_resources, resource_missing,
    resource_relative, resource_with_fragment, resource_unknown, resource_nearly_right, resource_disabled, resource_unapproved,
    resource_of_another_tenant, resource_and_audience_disagree,
    beyond_downstream, above_the_downstream_level, scope_superset, scope_empty, scope_of_bad_characters,
    ten_thousand_scopes, wider_at_the_next_hop, parent_revoked, parent_expired, user_disabled,
    may_act_names_another, may_act_is_text, actor_is_not_the_caller, act_is_text, chain_of_fifty, chain_with_a_loop,
    actor_beside_a_delegated_token,
    token_of_another_client, authorized_party_of_another_client, server_brings_another_servers_token,
    bound_token_without_its_key, svid_as_subject, cloud_token_as_subject,
    presented_where_none_is_accepted, presented_and_asked_for_elsewhere, presented_by_a_client_not_accepted,
    presented_though_bound, presented_though_an_id_token, presented_though_for_others_too,
    details_not_json, details_an_object, details_two_entries, details_of_unknown_type, details_with_unknown_member,
    unknown_tool, tool_of_another_server, tool_retired, tool_out_of_the_clients_reach, arguments_miss_the_schema,
    arguments_unknown, arguments_of_40_kib, digest_of_other_arguments, duplicate_argument, integer_beyond_doubles,
    float_beyond_doubles, exponent_beyond_doubles, lone_surrogate, arguments_too_deep, constraints_leave_one_open,
    prefix_with_dots, prefix_with_encoded_dots, prefix_with_backslash, prefix_empty, level_below_the_tier,
    locations_disagree, actions_disagree, policy_forbids, approval_needed,
];

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// An honest exchange but for this change.
async fn changed(lab: &Lab, change: impl FnOnce(&mut Exchange) -> &mut Exchange) -> Vec<Response> {
    let mut exchange = lab.honest(&Key::es256()).await;
    change(&mut exchange);
    vec![lab.send(&exchange).await]
}

async fn subject_missing(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.remove("subject_token")).await
}

async fn subject_blank(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| exchange.set("subject_token", "")).await;
    answers.extend(changed(lab, |exchange| exchange.set("subject_token", "   ")).await);
    answers
}

async fn subject_twice(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("bob");
    changed(lab, |exchange| exchange.add("subject_token", &token)).await
}

async fn subject_type_missing(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.remove("subject_token_type")).await
}

async fn subject_type_wrong(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for name in ["saml1", "saml2", "device_code"] {
        let kind = format!("urn:ietf:params:oauth:token-type:{name}");
        answers.extend(changed(lab, |exchange| exchange.set("subject_token_type", &kind)).await);
    }
    answers
}

async fn subject_type_unknown(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| exchange.set("subject_token_type", "jwt")).await;
    let capitals = JWT.to_uppercase();
    answers.extend(changed(lab, |exchange| exchange.set("subject_token_type", &capitals)).await);
    answers
}

async fn refresh_token_as_subject(lab: &Lab) -> Vec<Response> {
    let kind = "urn:ietf:params:oauth:token-type:refresh_token";
    changed(lab, |exchange| exchange.set("subject_token_type", kind)).await
}

async fn actor_without_type(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("bob");
    changed(lab, |exchange| exchange.set("actor_token", &token)).await
}

async fn actor_type_without_actor(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("actor_token_type", JWT)).await
}

async fn two_resources(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| exchange.add("resource", LEDGER)).await;
    answers.extend(changed(lab, |exchange| exchange.add("resource", CRM)).await);
    answers
}

async fn resource_missing(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.remove("resource")).await
}

async fn resource(lab: &Lab, resource: &str) -> Vec<Response> {
    let arguments = json!({ "payment_id": "pay_81", "amount_cents": 4200 });
    changed(lab, |exchange| exchange.call(resource, "refund_payment", &arguments)).await
}

async fn resource_relative(lab: &Lab) -> Vec<Response> {
    let mut answers = resource(lab, "/mcp").await;
    answers.extend(resource(lab, "crm.acme.test/mcp").await);
    answers
}

async fn resource_with_fragment(lab: &Lab) -> Vec<Response> {
    let mut answers = resource(lab, &format!("{CRM}#top")).await;
    answers.extend(resource(lab, &format!("{CRM}#")).await);
    answers
}

async fn resource_unknown(lab: &Lab) -> Vec<Response> {
    resource(lab, "https://nobody.acme.test/mcp").await
}

async fn resource_nearly_right(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for near in [
        format!("{CRM}/"),
        format!("{CRM}?"),
        CRM.replace("https", "http"),
        CRM.replace("crm", "CRM"),
        CRM.replace("/mcp", ":443/mcp"),
        CRM.replace("/mcp", "/x/../mcp"),
        CRM.replace("/mcp", "/%6dcp"),
        CRM.replace("crm", "user@crm"),
    ] {
        answers.extend(resource(lab, &near).await);
    }
    answers
}

async fn resource_disabled(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.call(ARCHIVE, "look", &json!({ "name": "x" }))).await
}

async fn resource_unapproved(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.call(PROPOSED, "look", &json!({ "name": "x" }))).await
}

async fn resource_of_another_tenant(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.call(GLOBEX, "find_customer", &json!({ "name": "x" }))).await
}

async fn resource_and_audience_disagree(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("audience", LEDGER)).await
}

/// What the CRM asks for when it was called with a genuine token.
async fn next_hop(lab: &Lab, change: impl FnOnce(&mut Exchange) -> &mut Exchange) -> Response {
    let token = lab.token(&Key::es256()).await;
    let mut exchange = lab.for_client("crm", &Key::es256()).await;
    exchange
        .set("subject_token", &token)
        .set("subject_token_type", ACCESS_TOKEN)
        .tool(LEDGER, "list_entries");
    change(&mut exchange);
    lab.send(&exchange).await
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

async fn beyond_downstream(lab: &Lab) -> Vec<Response> {
    let honest = token_of(&next_hop(lab, |exchange| exchange).await);
    let claims = forge::claims(&honest);
    assert_eq!(claims["act"]["act"]["sub"], "spiffe://acme.test/agent/desk", "the chain nests: {claims}");
    let another_server = next_hop(lab, |exchange| exchange.tool(CRM, "find_customer")).await;
    // find_customer lists nothing downstream.
    let mut first = lab.honest(&Key::es256()).await;
    first.tool(CRM, "find_customer");
    let token = token_of(&lab.send(&first).await);
    let another_tool = next_hop(lab, |exchange| exchange.set("subject_token", &token)).await;
    vec![another_server, another_tool]
}

async fn above_the_downstream_level(lab: &Lab) -> Vec<Response> {
    vec![next_hop(lab, |exchange| exchange.call(LEDGER, "list_entries", &json!({ "account": "a" }))).await]
}

async fn scope(lab: &Lab, scope: &str) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("scope", scope)).await
}

async fn scope_superset(lab: &Lab) -> Vec<Response> {
    let mut answers = scope(lab, "refund_payment find_customer").await;
    answers.extend(scope(lab, "admin").await);
    answers
}

async fn scope_empty(lab: &Lab) -> Vec<Response> {
    scope(lab, "").await
}

async fn scope_of_bad_characters(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for bad in ["tool:\"x\"", "a\\b", "a  b", " a", "caf\u{e9}"] {
        answers.extend(scope(lab, bad).await);
    }
    answers
}

async fn ten_thousand_scopes(lab: &Lab) -> Vec<Response> {
    scope(lab, &vec!["x"; 10_000].join(" ")).await
}

async fn wider_at_the_next_hop(lab: &Lab) -> Vec<Response> {
    // A holder narrows an L0 token to nothing else, and cannot turn one tool into another.
    let key = Key::es256();
    let mut first = lab.honest(&key).await;
    first.tool(CRM, "find_customer");
    let narrowed = token_of(&lab.send(&first).await);
    let mut wider = lab.for_client("desk", &key).await;
    wider.set("subject_token", &narrowed).set("subject_token_type", ACCESS_TOKEN);
    vec![lab.send(&wider).await]
}

async fn parent_revoked(lab: &Lab) -> Vec<Response> {
    let token = lab.token(&Key::es256()).await;
    revoke(lab, &json!({ "token": forge::claims(&token)["jti"] })).await;
    vec![next_hop(lab, |exchange| exchange.set("subject_token", &token)).await]
}

async fn parent_expired(lab: &Lab) -> Vec<Response> {
    // A token ends with the user's sign-in, so one that ends soon can be had.
    let mut claims = lab.world.user_claims("alice");
    claims["exp"] = json!(now() + 7);
    let mut first = lab.honest(&Key::es256()).await;
    first.set("subject_token", &lab.world.issuer_keys["a"].token("JWT", &claims));
    let token = token_of(&lab.send(&first).await);
    token_of(&next_hop(lab, |exchange| exchange.set("subject_token", &token)).await);
    // Until the broker itself says that it is good no longer.
    while is_active(lab, &token).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(now() >= forge::claims(&token)["exp"].as_i64().unwrap(), "not before its time");
    let genuine = next_hop(lab, |exchange| exchange.set("subject_token", &token)).await;
    // And with its expiry changed, which breaks its signature.
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    let mut claims = forge::claims(&token);
    claims["exp"] = json!(now() + 60);
    parts[1] = forge::encode(claims.to_string());
    let edited = parts.join(".");
    vec![genuine, next_hop(lab, |exchange| exchange.set("subject_token", &edited)).await]
}

/// What introspection tells the audience; outside the books, for it is no exchange.
async fn is_active(lab: &Lab, token: &str) -> bool {
    let mut question = lab.template("crm", "none");
    question.at("POST", "/introspect").form.retain(|(name, _)| name.starts_with("client_"));
    question.set("token", token);
    let answer = lab.world.door.send(&question.request()).await.unwrap();
    answer.json()["active"].as_bool().unwrap()
}

async fn user_disabled(lab: &Lab) -> Vec<Response> {
    let user = format!("leaver-{}", unique());
    let ask = async || {
        let mut exchange = lab.honest(&Key::es256()).await;
        exchange.set("subject_token", &lab.world.user_token(&user));
        lab.send(&exchange).await
    };
    let token = token_of(&ask().await);
    revoke(lab, &json!({ "person": forge::claims(&token)["sub"] })).await;
    vec![ask().await, next_hop(lab, |exchange| exchange.set("subject_token", &token)).await]
}

async fn revoke(lab: &Lab, order: &Value) {
    let answer = lab.world.order("POST", "/admin/revocations", order).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn with_claim(lab: &Lab, name: &str, value: Value) -> Vec<Response> {
    let mut claims = lab.world.user_claims("alice");
    claims[name] = value;
    let token = lab.world.issuer_keys["a"].token("JWT", &claims);
    changed(lab, |exchange| exchange.set("subject_token", &token)).await
}

async fn may_act_names_another(lab: &Lab) -> Vec<Response> {
    with_claim(lab, "may_act", json!({ "sub": "spiffe://acme.test/agent/somebody-else" })).await
}

async fn may_act_is_text(lab: &Lab) -> Vec<Response> {
    with_claim(lab, "may_act", json!("spiffe://acme.test/agent/desk")).await
}

async fn actor_is_not_the_caller(lab: &Lab) -> Vec<Response> {
    let token = lab.world.user_token("bob");
    changed(lab, |exchange| exchange.set("actor_token", &token).set("actor_token_type", JWT)).await
}

async fn act_is_text(lab: &Lab) -> Vec<Response> {
    let mut answers = with_claim(lab, "act", json!("spiffe://acme.test/agent/desk")).await;
    answers.extend(with_claim(lab, "act", json!({ "sub": 7 })).await);
    answers.extend(with_claim(lab, "act", json!({})).await);
    answers
}

async fn chain_of_fifty(lab: &Lab) -> Vec<Response> {
    // Strict JSON ends at 32 levels, so the chain is refused at 20 already, and at 50 as JSON.
    let chain = |depth: usize| {
        (1..depth).fold(json!({ "sub": "a0" }), |act, n| json!({ "sub": format!("a{n}"), "act": act }))
    };
    let mut answers = with_claim(lab, "act", chain(6)).await;
    answers.extend(with_claim(lab, "act", chain(20)).await);
    answers.extend(with_claim(lab, "act", chain(50)).await);
    answers
}

async fn chain_with_a_loop(lab: &Lab) -> Vec<Response> {
    let desk = "spiffe://acme.test/agent/desk";
    let mut answers = with_claim(lab, "act", json!({ "sub": "other", "act": { "sub": desk } })).await;
    answers.extend(
        with_claim(lab, "act", json!({ "sub": "other", "act": { "sub": "x", "act": { "sub": "other" } } }))
            .await,
    );
    answers
}

async fn actor_beside_a_delegated_token(lab: &Lab) -> Vec<Response> {
    let actor = lab.world.user_token("bob");
    vec![next_hop(lab, |exchange| exchange.set("actor_token", &actor).set("actor_token_type", JWT)).await]
}

async fn token_of_another_client(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.for_client("other", &Key::es256()).await;
    exchange.set("subject_token", &lab.world.user_token("alice"));
    vec![lab.send(&exchange).await]
}

async fn authorized_party_of_another_client(lab: &Lab) -> Vec<Response> {
    let mut answers = with_claim(lab, "azp", json!("other-app")).await;
    answers.extend(with_claim(lab, "client_id", json!("other-app")).await);
    answers
}

async fn server_brings_another_servers_token(lab: &Lab) -> Vec<Response> {
    let token = lab.token(&Key::es256()).await;
    let mut exchange = lab.for_client("ledger", &Key::es256()).await;
    exchange
        .set("subject_token", &token)
        .set("subject_token_type", ACCESS_TOKEN)
        .tool(LEDGER, "list_entries");
    vec![lab.send(&exchange).await]
}

async fn bound_token_without_its_key(lab: &Lab) -> Vec<Response> {
    let token = lab.token(&Key::es256()).await;
    let mut answers = Vec::new();
    for client in ["desk", "other"] {
        let mut exchange = lab.for_client(client, &Key::es256()).await;
        exchange.set("subject_token", &token).set("subject_token_type", ACCESS_TOKEN);
        answers.push(lab.send(&exchange).await);
    }
    answers
}

async fn presented_where_none_is_accepted(lab: &Lab) -> Vec<Response> {
    let token = lab.world.issuer_keys["a"].token("at+jwt", &presented(lab, CRM, &json!({})));
    let mut exchange = lab.for_client("crm", &Key::es256()).await;
    exchange.set("subject_token", &token).set("subject_token_type", ACCESS_TOKEN);
    vec![lab.send(&exchange).await]
}

async fn presented_and_asked_for_elsewhere(lab: &Lab) -> Vec<Response> {
    let mut exchange = bringing(lab, "at+jwt", &json!({})).await;
    exchange.tool(CRM, "find_customer");
    vec![lab.send(&exchange).await]
}

async fn presented_by_a_client_not_accepted(lab: &Lab) -> Vec<Response> {
    let mut answers = Vec::new();
    for changes in
        [json!({ "client_id": "other-app" }), json!({ "client_id": null }), json!({ "azp": "other-app" })]
    {
        answers.push(lab.send(&bringing(lab, "at+jwt", &changes).await).await);
    }
    answers
}

async fn presented_though_bound(lab: &Lab) -> Vec<Response> {
    let bound = json!({ "cnf": { "jkt": Key::es256().thumbprint() } });
    vec![lab.send(&bringing(lab, "at+jwt", &bound).await).await]
}

async fn presented_though_an_id_token(lab: &Lab) -> Vec<Response> {
    let marked = json!({ "nonce": "n", "client_id": null, "scope": null, "azp": "desk-app" });
    vec![lab.send(&bringing(lab, "JWT", &marked).await).await]
}

async fn presented_though_for_others_too(lab: &Lab) -> Vec<Response> {
    vec![lab.send(&bringing(lab, "at+jwt", &json!({ "aud": [LEDGER, CRM] })).await).await]
}

/// The claims of a person's own token for a server, as an MCP client got it, with `changes` (`null` leaves one out).
fn presented(lab: &Lab, resource: &str, changes: &Value) -> Value {
    let mut claims = lab.world.user_claims_of("a", "alice", resource);
    (claims["client_id"], claims["scope"]) = (json!("desk-app"), json!("mcp"));
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// The ledger's guard brings what was presented to the ledger.
async fn bringing(lab: &Lab, typ: &str, changes: &Value) -> Exchange {
    let token = lab.world.issuer_keys["a"].token(typ, &presented(lab, LEDGER, changes));
    let mut exchange = lab.for_client("ledger", &Key::es256()).await;
    exchange
        .set("subject_token", &token)
        .set("subject_token_type", ACCESS_TOKEN)
        .tool(LEDGER, "list_entries");
    exchange
}

/// A token that says it comes from this issuer of ours, signed by somebody.
async fn of_our_issuer(lab: &Lab, path: &str, audience: &str) -> Vec<Response> {
    let claims = json!({
        "iss": format!("{}{path}", lab.world.base), "sub": "spiffe://acme.test/agent/desk", "aud": audience,
        "iat": now(), "exp": now() + 60, "jti": unique(),
    });
    let token = Key::es256().token("JWT", &claims);
    changed(lab, |exchange| exchange.set("subject_token", &token)).await
}

async fn svid_as_subject(lab: &Lab) -> Vec<Response> {
    of_our_issuer(lab, "/spiffe", CRM).await
}

async fn cloud_token_as_subject(lab: &Lab) -> Vec<Response> {
    of_our_issuer(lab, "/web-identity", "sts.amazonaws.com").await
}

async fn details(lab: &Lab, text: &str) -> Vec<Response> {
    changed(lab, |exchange| exchange.set("authorization_details", text)).await
}

/// The honest entry but for this change.
async fn entry(lab: &Lab, change: impl FnOnce(&mut Value)) -> Vec<Response> {
    changed(lab, |exchange| {
        let mut entry = exchange.entry();
        change(&mut entry);
        exchange.details(entry);
        exchange
    })
    .await
}

/// The honest entry with arguments that are this text.
async fn arguments(lab: &Lab, text: &str) -> Vec<Response> {
    let entry = |arguments: &str| {
        format!(r#"[{{"type":"mcp_tool_call","identifier":"count","arguments":{arguments}}}]"#)
    };
    details(lab, &entry(text)).await
}

async fn details_not_json(lab: &Lab) -> Vec<Response> {
    let mut answers = details(lab, "refund_payment").await;
    answers.extend(details(lab, "[{}] trailing").await);
    answers
}

async fn details_an_object(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| {
        let entry = exchange.entry();
        exchange.set("authorization_details", &entry.to_string());
        exchange
    })
    .await
}

async fn details_two_entries(lab: &Lab) -> Vec<Response> {
    let mut answers = changed(lab, |exchange| {
        let entry = exchange.entry();
        exchange.set("authorization_details", &json!([entry, entry]).to_string());
        exchange
    })
    .await;
    answers.extend(details(lab, "[]").await);
    answers
}

async fn details_of_unknown_type(lab: &Lab) -> Vec<Response> {
    let mut answers = entry(lab, |entry| entry["type"] = json!("payment_initiation")).await;
    answers.extend(entry(lab, |entry| entry["type"] = Value::Null).await);
    answers
}

async fn details_with_unknown_member(lab: &Lab) -> Vec<Response> {
    entry(lab, |entry| entry["privileges"] = json!(["admin"])).await
}

async fn unknown_tool(lab: &Lab) -> Vec<Response> {
    let mut answers = entry(lab, |entry| entry["identifier"] = json!("refund_everything")).await;
    answers.extend(entry(lab, |entry| entry["identifier"] = json!("Refund_Payment")).await);
    answers
}

async fn tool_of_another_server(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.tool(CRM, "list_entries")).await
}

async fn tool_retired(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.tool(CRM, "old_refund")).await
}

async fn tool_out_of_the_clients_reach(lab: &Lab) -> Vec<Response> {
    let mut exchange = lab.for_client("narrow", &Key::es256()).await;
    exchange.set("subject_token", &lab.world.user_token("alice"));
    vec![lab.send(&exchange).await]
}

async fn arguments_miss_the_schema(lab: &Lab) -> Vec<Response> {
    let mut answers = entry(lab, |entry| entry["arguments"]["amount_cents"] = json!("4200")).await;
    answers.extend(entry(lab, |entry| entry["arguments"]["amount_cents"] = json!(0)).await);
    answers.extend(entry(lab, |entry| entry["arguments"] = json!({ "payment_id": "pay_81" })).await);
    answers.extend(entry(lab, |entry| entry["arguments"] = json!([])).await);
    answers
}

async fn arguments_unknown(lab: &Lab) -> Vec<Response> {
    entry(lab, |entry| entry["arguments"]["also"] = json!("this")).await
}

async fn arguments_of_40_kib(lab: &Lab) -> Vec<Response> {
    // A whole MiB does not pass the limit of the form: that is H-16. This is as much as passes it.
    entry(lab, |entry| entry["arguments"]["payment_id"] = json!("p".repeat(50 * 1024))).await
}

async fn digest_of_other_arguments(lab: &Lab) -> Vec<Response> {
    entry(lab, |entry| entry["call_digest"] = json!(forge::sha256("something else"))).await
}

async fn duplicate_argument(lab: &Lab) -> Vec<Response> {
    let mut answers = arguments(lab, r#"{"n":1,"n":2}"#).await;
    answers.extend(arguments(lab, r#"{"n":1,"\u006e":2}"#).await);
    answers
}

async fn integer_beyond_doubles(lab: &Lab) -> Vec<Response> {
    let mut answers = arguments(lab, r#"{"n":9007199254740993}"#).await;
    answers.extend(arguments(lab, r#"{"n":-9007199254740992}"#).await);
    answers
}

async fn float_beyond_doubles(lab: &Lab) -> Vec<Response> {
    arguments(lab, r#"{"n":9007199254740993.0}"#).await
}

async fn exponent_beyond_doubles(lab: &Lab) -> Vec<Response> {
    let mut answers = arguments(lab, r#"{"n":1e300}"#).await;
    answers.extend(arguments(lab, r#"{"n":1e999}"#).await);
    answers
}

async fn lone_surrogate(lab: &Lab) -> Vec<Response> {
    let mut answers = entry_with_text(lab, r"\ud800").await;
    answers.extend(entry_with_text(lab, r"\udc00\ud800").await);
    answers
}

async fn entry_with_text(lab: &Lab, text: &str) -> Vec<Response> {
    details(
        lab,
        &format!(
            r#"[{{"type":"mcp_tool_call","identifier":"find_customer","arguments":{{"name":"{text}"}}}}]"#
        ),
    )
    .await
}

async fn arguments_too_deep(lab: &Lab) -> Vec<Response> {
    arguments(lab, &format!("{}1{}", "{\"n\":".repeat(33), "}".repeat(33))).await
}

/// An L2 request for `export_folder` under these constraints.
async fn constrained(lab: &Lab, constraints: Value) -> Response {
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.details(
        json!({ "type": "mcp_tool_call", "identifier": "export_folder", "constraints": constraints }),
    );
    lab.send(&exchange).await
}

async fn constraints_leave_one_open(lab: &Lab) -> Vec<Response> {
    let both = json!({ "/path": { "prefix": "/reports/" }, "/format": { "enum": ["csv"] } });
    let token = token_of(&constrained(lab, both).await);
    assert!(forge::claims(&token)["authorization_details"][0]["max_uses"].is_u64(), "uses are counted");
    vec![
        constrained(lab, json!({ "/path": { "prefix": "/reports/" } })).await,
        constrained(lab, json!({ "/path": { "prefix": "/reports/" }, "/format": {} })).await,
        constrained(lab, json!({})).await,
    ]
}

async fn prefix(lab: &Lab, prefix: &str) -> Response {
    constrained(lab, json!({ "/path": { "prefix": prefix }, "/format": { "enum": ["csv"] } })).await
}

async fn prefix_with_dots(lab: &Lab) -> Vec<Response> {
    vec![prefix(lab, "/reports/../").await, prefix(lab, "../").await]
}

async fn prefix_with_encoded_dots(lab: &Lab) -> Vec<Response> {
    vec![prefix(lab, "/reports/%2e%2e/").await, prefix(lab, "/reports/%2E%2e/").await]
}

async fn prefix_with_backslash(lab: &Lab) -> Vec<Response> {
    vec![prefix(lab, "/reports\\").await, prefix(lab, "/reports\\..\\/").await]
}

async fn prefix_empty(lab: &Lab) -> Vec<Response> {
    vec![prefix(lab, "").await, prefix(lab, "\0").await]
}

async fn level_below_the_tier(lab: &Lab) -> Vec<Response> {
    let l1_for_l3 = changed(lab, |exchange| exchange.tool(CRM, "refund_payment")).await;
    let l1_for_l2 = changed(lab, |exchange| exchange.tool(CRM, "export_folder")).await;
    [l1_for_l3, l1_for_l2].concat()
}

async fn locations_disagree(lab: &Lab) -> Vec<Response> {
    let mut answers = entry(lab, |entry| entry["locations"] = json!([LEDGER])).await;
    answers.extend(entry(lab, |entry| entry["locations"] = json!([CRM, LEDGER])).await);
    answers.extend(entry(lab, |entry| entry["locations"] = json!([])).await);
    answers
}

async fn actions_disagree(lab: &Lab) -> Vec<Response> {
    let mut answers = entry(lab, |entry| entry["actions"] = json!(["resources/read"])).await;
    answers.extend(entry(lab, |entry| entry["actions"] = json!(["tools/call", "tools/list"])).await);
    answers
}

async fn policy_forbids(lab: &Lab) -> Vec<Response> {
    with_claim(lab, "acr", json!("suspended")).await
}

async fn approval_needed(lab: &Lab) -> Vec<Response> {
    changed(lab, |exchange| exchange.call(CRM, "wipe", &json!({ "name": "x" }))).await
}
