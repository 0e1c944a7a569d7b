//! What the standards demand of an honest exchange, and of what surrounds it. What they forbid is in `hostile`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets something unexpected should stop there"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use deputize_conformance::{
    exchange::{Exchange, Lab},
    forge::{Key, claims, decode},
    wire::{Request, Response},
    world::{CRM, LEDGER, World, token_of},
};
use serde_json::{Value, json};

#[tokio::test]
async fn an_exchange_is_answered_as_rfc_8693_says() {
    let lab = Lab::start(World::new().await).await;
    let answer = lab.send(&lab.honest(&Key::es256()).await).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(body["token_type"], "DPoP");
    assert!((30..=120).contains(&body["expires_in"].as_u64().unwrap()), "{body}");
    assert_eq!(body["scope"], "refund_payment");
    assert!(body.get("refresh_token").is_none());
    // RFC 9396 §7: the authorization details as granted.
    let granted = &body["authorization_details"][0];
    assert_eq!((&granted["type"], &granted["locations"]), (&json!("mcp_tool_call"), &json!([CRM])));
    assert!(granted.get("arguments").is_none(), "the digest stands for the arguments");
    // RFC 8693 §4.1: who acts is the agent, in the user's name.
    let claims = claims(&token_of(&answer));
    assert_eq!(claims["act"], json!({ "sub": "spiffe://acme.test/agent/desk" }));
    assert!(claims["sub"].as_str().unwrap().ends_with(":alice"));
}

#[tokio::test]
async fn a_token_says_what_rfc_9068_and_rfc_9449_demand() {
    let lab = Lab::start(World::new().await).await;
    let key = Key::es256();
    let token = lab.token(&key).await;
    let header: Value = serde_json::from_slice(&decode(token.split('.').next().unwrap())).unwrap();
    assert_eq!(header["typ"], "at+jwt");
    let claims = claims(&token);
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti", "scope"] {
        assert!(!claims[name].is_null(), "{name} is missing: {claims}");
    }
    assert_eq!(claims["iss"], lab.world.base.as_str());
    // RFC 8707 §2.2: the resource, and nothing else.
    assert_eq!(claims["aud"], CRM);
    assert_eq!(claims["cnf"], json!({ "jkt": key.thumbprint() }));
    let keys = lab.world.door.send(&Request::get("/jwks")).await.unwrap().json();
    let published = keys["keys"].as_array().unwrap();
    assert!(published.iter().any(|jwk| jwk["kid"] == header["kid"]), "the key is published before it signs");
    assert!(published.iter().all(|jwk| jwk.get("d").is_none()), "and its private part is not");
}

#[tokio::test]
async fn metadata_is_where_and_what_rfc_8414_says() {
    let lab = Lab::start(World::new().await).await;
    let answer = lab.world.door.send(&Request::get("/.well-known/oauth-authorization-server")).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let metadata = answer.json();
    assert_eq!(metadata["issuer"], lab.world.base.as_str());
    for name in ["token_endpoint", "jwks_uri", "introspection_endpoint", "revocation_endpoint"] {
        assert!(metadata[name].as_str().unwrap().starts_with(&lab.world.base), "{name}");
    }
    assert!(metadata["response_types_supported"].is_array());
    let algorithms = metadata["dpop_signing_alg_values_supported"].as_array().unwrap();
    assert!(
        !algorithms.is_empty()
            && !algorithms.iter().any(|alg| alg == "none" || alg.as_str().unwrap().starts_with("HS"))
    );
}

#[tokio::test]
async fn introspection_tells_those_whom_it_concerns() {
    let lab = Lab::start(World::new().await).await;
    let token = lab.token(&Key::es256()).await;
    for (client, active) in [("crm", true), ("desk", true), ("ledger", false), ("globex-desk", false)] {
        let answer = about(&lab, "/introspect", client, &token).await;
        assert_eq!(answer.json()["active"], active, "{client}: {}", answer.json());
        // RFC 7662 §2.2: of a token that does not concern the caller nothing else is said.
        assert!(active || answer.json().as_object().unwrap().len() == 1, "{}", answer.json());
    }
    assert_eq!(about(&lab, "/introspect", "crm", "no token at all").await.json(), json!({ "active": false }));
    let stranger = Request::form("/introspect", &[("token".into(), token)]);
    let answer = lab.world.door.send(&stranger).await.unwrap();
    assert_eq!((answer.status, answer.error_code().as_deref()), (401, Some("invalid_client")));
}

#[tokio::test]
async fn revocation_ends_a_token_and_what_came_of_it() {
    let lab = Lab::start(World::new().await).await;
    let token = lab.token(&Key::es256()).await;
    let mut hop = lab.for_client("crm", &Key::es256()).await;
    hop.set("subject_token", &token).tool(LEDGER, "list_entries");
    let child = token_of(&lab.send(&hop).await);
    assert_eq!(claims(&child)["pjti"], claims(&token)["jti"]);
    assert_eq!(claims(&child)["txn"], claims(&token)["txn"]);
    // A stranger's revocation changes nothing, and says nothing.
    assert_eq!(about(&lab, "/revoke", "ledger", &token).await.status, 200);
    assert_eq!(about(&lab, "/introspect", "crm", &token).await.json()["active"], true);
    assert_eq!(about(&lab, "/revoke", "desk", &token).await.status, 200);
    assert_eq!(about(&lab, "/introspect", "crm", &token).await.json()["active"], false);
    assert_eq!(
        about(&lab, "/introspect", "ledger", &child).await.json()["active"],
        false,
        "its child neither"
    );
    // RFC 7009 §2.2: what is unknown or gone already is revoked already.
    assert_eq!(about(&lab, "/revoke", "desk", &token).await.status, 200);
    assert_eq!(about(&lab, "/revoke", "desk", "no token at all").await.status, 200);
}

#[tokio::test]
async fn the_log_is_a_tlog_that_anyone_can_recompute() {
    let lab = Lab::start(World::new().await).await;
    for _ in 0..5 {
        lab.token(&Key::es256()).await;
    }
    let (origin, size, root, signatures) = settled_checkpoint(&lab).await;
    assert!(
        !origin.is_empty() && signatures.iter().any(|line| line.starts_with(&format!("\u{2014} {origin} ")))
    );
    let bundle = get(&lab, &format!("/log/tile/entries/000.p/{size}")).await.body;
    let mut entries = Vec::new();
    let mut rest = &bundle[..];
    while let [high, low, tail @ ..] = rest {
        let (entry, after) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        entries.push(entry);
        rest = after;
    }
    assert_eq!(entries.len(), size);
    // RFC 6962 §2.1.
    let leaves: Vec<_> = entries.iter().map(|entry| sha256(&[&[0], entry])).collect();
    assert_eq!(get(&lab, &format!("/log/tile/0/000.p/{size}")).await.body, leaves.concat());
    assert_eq!(STANDARD.encode(tree_hash(&leaves)), root);
    let kinds: Vec<_> =
        entries.iter().map(|entry| serde_json::from_slice::<Value>(entry).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "intent").count(), 5);
}

/// A checkpoint that covers all five outcomes: origin, size, root, signature lines (C2SP tlog-checkpoint).
async fn settled_checkpoint(lab: &Lab) -> (String, usize, String, Vec<String>) {
    for _ in 0..400 {
        let note = String::from_utf8(get(lab, "/log/checkpoint").await.body).unwrap();
        let (text, signatures) = note.split_once("\n\n").unwrap();
        let lines: Vec<_> = text.lines().collect();
        let size: usize = lines[1].parse().unwrap();
        let (entries, _) = lab.world.log(0).await;
        if size == entries.len() && entries.iter().filter(|entry| entry["kind"] == "outcome").count() == 5 {
            return (lines[0].into(), size, lines[2].into(), signatures.lines().map(str::to_owned).collect());
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("the checkpoint does not catch up with the log")
}

async fn get(lab: &Lab, path: &str) -> Response {
    let answer = lab.world.administration.send(&Request::get(path)).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.json());
    answer
}

/// What this client is told about (or may do to) this token.
async fn about(lab: &Lab, path: &str, client: &str, token: &str) -> Response {
    let mut exchange: Exchange = lab.template(client, "none");
    exchange.at("POST", path).form.retain(|(name, _)| name.starts_with("client_"));
    exchange.set("token", token);
    lab.send(&exchange).await
}

fn tree_hash(leaves: &[Vec<u8>]) -> Vec<u8> {
    match leaves {
        [] => sha256(&[]),
        [leaf] => leaf.clone(),
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            sha256(&[&[1], &tree_hash(left), &tree_hash(right)])
        }
    }
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    decode(&deputize_conformance::forge::sha256(parts.concat()))
}
