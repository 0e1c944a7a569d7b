//! Tokens in the shape of the large vendors' pass their presets; the same tokens one claim off do not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected should stop there"
)]

use deputize_conformance::{
    exchange::Lab,
    forge::{Key, now, unique},
    identity,
    world::World,
};
use serde_json::{Value, json};

/// One vendor: its preset, what its token says besides `iss` and the times, what that is called, and what makes the
/// same token one that must be refused.
struct Vendor {
    preset: &'static str,
    token_type: &'static str,
    header: Value,
    claims: Value,
    person: &'static str,
    spoiled_by: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_five_vendors_pass_their_presets() {
    let key = Key::rs256();
    let mut world = World::new().await;
    for vendor in vendors() {
        world.identity.publish(vendor.preset, identity::jwks(&[&key]));
        world.trust_issuer(vendor.preset, &json!({ "preset": vendor.preset }));
    }
    let lab = Lab::start(world).await;
    for vendor in vendors() {
        let answer = bring(&lab, &key, &vendor, &json!({})).await;
        assert_eq!(answer.status, 200, "{}: {}", vendor.preset, answer.json());
        let token = deputize_conformance::world::token_of(&answer);
        let sub = deputize_conformance::forge::claims(&token)["sub"].as_str().unwrap().to_owned();
        assert!(sub.ends_with(vendor.person), "{}: {sub}", vendor.preset);
        let answer = bring(&lab, &key, &vendor, &vendor.spoiled_by).await;
        assert_eq!(
            answer.error_code().as_deref(),
            Some("invalid_request"),
            "{}: {}",
            vendor.preset,
            answer.json()
        );
    }
}

async fn bring(
    lab: &Lab,
    key: &Key,
    vendor: &Vendor,
    change: &Value,
) -> deputize_conformance::wire::Response {
    let mut claims = json!({
        "iss": lab.world.identity.issuer(vendor.preset), "iat": now() - 10, "exp": now() + 3000,
    });
    for (name, value) in vendor.claims.as_object().unwrap().iter().chain(change.as_object().unwrap()) {
        claims[name] = value.clone();
    }
    let mut header = vendor.header.clone();
    header["alg"] = json!("RS256");
    header["kid"] = json!(key.kid);
    let mut exchange = lab.honest(&Key::es256()).await;
    exchange.set("subject_token", &key.token_with(&header, &claims));
    exchange.set("subject_token_type", &format!("urn:ietf:params:oauth:token-type:{}", vendor.token_type));
    lab.send(&exchange).await
}

fn vendors() -> [Vendor; 5] {
    [
        // An access token v2.0, delegated.
        Vendor {
            preset: "entra_id",
            token_type: "access_token",
            header: json!({ "typ": "JWT" }),
            claims: json!({
                "aud": "desk-app", "azp": "desk-app", "azpacr": "1", "name": "Alice", "nbf": now() - 10,
                "oid": "0f3c1a52-9d3a-4b1e-8a55-5c1f2a9b7d10", "preferred_username": "alice@acme.test",
                "rh": "0.AAAA", "scp": "calls.make", "sub": "pairwise-subject", "uti": unique(), "ver": "2.0",
                "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47", "groups": ["5a6b"],
            }),
            person: "0f3c1a52-9d3a-4b1e-8a55-5c1f2a9b7d10",
            spoiled_by: json!({ "scp": null, "idtyp": "app", "roles": ["Calls.All"] }),
        },
        // An access token of a custom authorization server: no `typ`.
        Vendor {
            preset: "okta",
            token_type: "access_token",
            header: json!({}),
            claims: json!({
                "ver": 1, "jti": format!("AT.{}", unique()), "aud": "desk-app", "cid": "desk-app", "uid": "00u1alice",
                "scp": ["openid", "calls"], "auth_time": now() - 30, "sub": "alice@acme.test", "groups": ["Everyone"],
            }),
            person: "00u1alice",
            spoiled_by: json!({ "uid": null, "sub": "desk-app" }),
        },
        // An access token for an API.
        Vendor {
            preset: "auth0",
            token_type: "access_token",
            header: json!({ "typ": "JWT" }),
            claims: json!({
                "sub": "auth0|507f1f77bcf86cd799439011", "aud": ["desk-app"], "azp": "desk-app",
                "scope": "openid profile", "permissions": ["calls"],
            }),
            person: "507f1f77bcf86cd799439011",
            spoiled_by: json!({ "gty": "client-credentials", "sub": "desk-app@clients" }),
        },
        // An access token of a realm.
        Vendor {
            preset: "keycloak",
            token_type: "access_token",
            header: json!({ "typ": "JWT" }),
            claims: json!({
                "jti": unique(), "aud": ["desk-app", "account"], "sub": "f9a0c1de-8b7a-4d57-9e0e-2f4f4f9f0001",
                "typ": "Bearer", "azp": "desk-app", "sid": unique(), "acr": "1", "scope": "openid email",
                "realm_access": { "roles": ["offline_access", "support"] },
                "resource_access": { "account": { "roles": ["view-profile"] } }, "preferred_username": "alice",
            }),
            person: "f9a0c1de-8b7a-4d57-9e0e-2f4f4f9f0001",
            spoiled_by: json!({ "typ": "Refresh" }),
        },
        // An ID token: the access tokens are opaque.
        Vendor {
            preset: "google",
            token_type: "id_token",
            header: json!({ "typ": "JWT" }),
            claims: json!({
                "azp": "desk-app", "aud": "desk-app", "sub": "110169484474386276334", "hd": "acme.test",
                "email": "alice@acme.test", "email_verified": true, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "name": "Alice",
            }),
            person: "110169484474386276334",
            spoiled_by: json!({ "aud": "another-app" }),
        },
    ]
}
