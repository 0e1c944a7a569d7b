//! Accepted: access and ID tokens as each vendor makes them. Refused: what differs in one thing.

use super::*;
use SubjectTokenType::{AccessToken, IdToken, Jwt};

#[test]
fn entra_id_v2() {
    let issuer = "https://login.microsoftonline.com/8d5f2f4a-8a54-4f4a-a4a4-6a7e0b5a9e11/v2.0";
    let scene = Scene::new(
        Preset::EntraId.provider(issuer, TENANT),
        &["c4a1b0d2-0000-4b64-9d8f-ffb7d6a8c001", "1f6a7f0e-1111-4f4c-9b55-4a9c2a3b4c5d"],
    );
    let access = json!({
        "aud": "c4a1b0d2-0000-4b64-9d8f-ffb7d6a8c001", "iss": issuer, "iat": NOW - 60, "nbf": NOW - 60,
        "exp": NOW + 4000, "aio": "AWQAm/8XAAAA", "azp": "1f6a7f0e-1111-4f4c-9b55-4a9c2a3b4c5d", "azpacr": "1",
        "groups": ["0b0f3a6e-2222-4f7e-8f0e-000000000001"], "name": "Alice Archer",
        "oid": "5a8c1c70-3333-4b1e-9d0e-000000000002", "preferred_username": "alice@example.com",
        "rh": "0.AXoA", "roles": ["Refunds.Agent"], "scp": "access_as_user",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": "8d5f2f4a-8a54-4f4a-a4a4-6a7e0b5a9e11", "uti": "GvyTf", "ver": "2.0",
    });
    let id = with(
        &access,
        json!({
            "aud": "1f6a7f0e-1111-4f4c-9b55-4a9c2a3b4c5d", "azp": null, "azpacr": null, "scp": null, "roles": null,
            "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        }),
    );
    let header = json!({ "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg" });
    let token = |claims: &Value| sign(&RSA, header.clone(), claims);

    let verified = scene.verify(&token(&access), AccessToken).unwrap();
    assert!(verified.person.sub.ends_with(":5a8c1c70-3333-4b1e-9d0e-000000000002"), "oid identifies");
    assert_eq!(
        verified.person.groups,
        [format!("{issuer}|0b0f3a6e-2222-4f7e-8f0e-000000000001"), format!("{issuer}|role:Refunds.Agent")]
    );
    let from_id_token = scene.verify(&token(&id), IdToken).unwrap();
    assert_eq!(from_id_token.person.sub, verified.person.sub, "though `sub` differs by application");

    assert_eq!(scene.reason(&token(&id), AccessToken), "token_kind");
    assert_eq!(scene.reason(&token(&access), IdToken), "token_kind");
    for (change, reason) in [
        (json!({ "tid": "00000000-8a54-4f4a-a4a4-6a7e0b5a9e11" }), "required_claim"),
        (json!({ "tid": null }), "required_claim"),
        (json!({ "oid": null }), "subject"),
        (json!({ "azp": "99999999-1111-4f4c-9b55-4a9c2a3b4c5d" }), "authorized_party"),
        (json!({ "aud": "00000003-0000-0000-c000-000000000000" }), "audience"),
        (json!({ "scp": null, "idtyp": "app" }), "not_a_person"),
        (json!({ "scp": null }), "not_a_person"),
        (json!({ "groups": null, "_claim_names": { "groups": "src1" } }), "groups"),
        (json!({ "groups": null, "hasgroups": true }), "groups"),
        (json!({ "iss": issuer.replace("v2.0", "V2.0") }), "issuer_not_trusted"),
        (json!({ "iss": format!("{issuer}/") }), "issuer_not_trusted"),
    ] {
        assert_eq!(scene.reason(&token(&with(&access, change.clone())), AccessToken), reason, "{change}");
    }
}

#[test]
fn entra_id_v1() {
    let issuer = "https://sts.windows.net/8d5f2f4a-8a54-4f4a-a4a4-6a7e0b5a9e11/";
    let scene = Scene::new(Preset::EntraId.provider(issuer, TENANT), &["api://platform", "1f6a7f0e-1111"]);
    let access = json!({
        "aud": "api://platform", "iss": issuer, "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 4000, "acr": "1",
        "amr": ["pwd", "mfa"], "appid": "1f6a7f0e-1111", "appidacr": "1", "ipaddr": "203.0.113.7",
        "oid": "5a8c1c70-3333", "rh": "0.AXoA", "scp": "user_impersonation", "sub": "HKZpfaHy",
        "tid": "8d5f2f4a-8a54-4f4a-a4a4-6a7e0b5a9e11", "unique_name": "alice@example.com", "ver": "1.0",
    });
    let token = |claims: &Value| sign(&RSA, json!({ "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg" }), claims);
    let verified = scene.verify(&token(&access), AccessToken).unwrap();
    assert_eq!((verified.person.acr.as_deref(), verified.person.amr.len()), (Some("1"), 2));
    let foreign = with(&access, json!({ "appid": "99999999-1111" }));
    assert_eq!(scene.reason(&token(&foreign), AccessToken), "authorized_party");
}

#[test]
fn okta() {
    let issuer = "https://acme.okta.com/oauth2/default";
    let scene = Scene::new(Preset::Okta.provider(issuer, TENANT), &["api://default", "0oa1platform"]);
    let access = json!({
        "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": issuer, "aud": "api://default",
        "iat": NOW - 60, "exp": NOW + 3540, "cid": "0oa1platform", "uid": "00ujmkLgagxeRrAg20g3",
        "scp": ["openid", "email"], "auth_time": NOW - 100, "sub": "alice@example.com", "groups": ["Everyone"],
    });
    let id = json!({
        "ver": 1, "jti": "ID.0_JhRqwZqV5n5mbWzN5nT1uBGWlnDG2qRCiPvT9qwxM", "iss": issuer, "aud": "0oa1platform",
        "iat": NOW - 60, "exp": NOW + 3540, "sub": "00ujmkLgagxeRrAg20g3", "name": "Alice Archer",
        "preferred_username": "alice@example.com", "amr": ["pwd"], "idp": "00o4ytcs1ptMO5RsT1d7", "nonce": "n-0S6",
        "auth_time": NOW - 100, "at_hash": "preview_at_hash", "groups": ["Everyone"],
    });
    // Okta's headers have no `typ`.
    let token = |claims: &Value| sign(&RSA, json!({ "typ": null }), claims);

    let verified = scene.verify(&token(&access), AccessToken).unwrap();
    assert!(verified.person.sub.ends_with(":00ujmkLgagxeRrAg20g3"), "the id, not the login name");
    assert_eq!(scene.verify(&token(&id), IdToken).unwrap().person.sub, verified.person.sub);
    scene.verify(&token(&access), Jwt).unwrap();

    assert_eq!(scene.reason(&token(&id), AccessToken), "token_kind");
    assert_eq!(scene.reason(&token(&access), IdToken), "token_kind");
    assert_eq!(
        scene.reason(&sign(&RSA, json!({ "typ": "okta-internal-at+jwt" }), &access), AccessToken),
        "header_type"
    );
    for (change, reason) in [
        (json!({ "cid": "0oa2other" }), "authorized_party"),
        (json!({ "uid": null }), "subject"),
        (json!({ "uid": null, "sub": "0oa1platform" }), "subject"),
        (json!({ "sub": "0oa1platform" }), "not_a_person"),
        (json!({ "aud": "https://acme.okta.com" }), "audience"),
        (json!({ "iss": "https://acme.okta.com" }), "issuer_not_trusted"),
    ] {
        assert_eq!(scene.reason(&token(&with(&access, change.clone())), AccessToken), reason, "{change}");
    }
}

#[test]
fn auth0() {
    let issuer = "https://acme.eu.auth0.com/";
    let mut provider = Preset::Auth0.provider(issuer, TENANT);
    provider.claims.groups = vec![GroupsClaim::new("https://acme.example/groups", "")];
    let scene = Scene::new(provider, &["https://platform.example.com/api", "my_client_id"]);
    let access = json!({
        "iss": issuer, "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": ["https://platform.example.com/api", "https://acme.eu.auth0.com/userinfo"], "iat": NOW - 60,
        "exp": NOW + 80_000, "azp": "my_client_id", "scope": "openid profile", "permissions": ["read:refunds"],
        "https://acme.example/groups": ["support"],
    });
    let id = json!({
        "iss": issuer, "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "aud": "my_client_id", "iat": NOW - 60,
        "exp": NOW + 35_000, "nickname": "alice", "name": "Alice Archer", "email": "alice@example.com",
        "email_verified": true, "sid": "t0M6Yd", "nonce": "bm9uY2U", "https://acme.example/groups": ["support"],
    });
    let token = |claims: &Value| sign(&RSA, json!({}), claims);

    let verified = scene.verify(&token(&access), AccessToken).unwrap();
    assert!(verified.person.sub.ends_with(":auth0%7C5f7c8ec7c33c6c004bbafe82"));
    assert_eq!(verified.person.groups, [format!("{issuer}|support")]);
    assert_eq!(scene.verify(&token(&id), IdToken).unwrap().person, verified.person);
    scene.verify(&sign(&RSA, json!({ "typ": "at+jwt" }), &access), AccessToken).unwrap();

    assert_eq!(scene.reason(&token(&id), AccessToken), "token_kind");
    assert_eq!(scene.reason(&token(&access), IdToken), "token_kind");
    for (change, reason) in [
        (json!({ "gty": "client-credentials", "sub": "my_client_id@clients" }), "not_a_person"),
        (json!({ "aud": "https://acme.eu.auth0.com/userinfo" }), "audience"),
        (json!({ "azp": "another_client" }), "authorized_party"),
        (json!({ "iss": "https://acme.eu.auth0.com" }), "issuer_not_trusted"),
    ] {
        assert_eq!(scene.reason(&token(&with(&access, change.clone())), AccessToken), reason, "{change}");
    }
    // An ID token for someone else beside us is not ours (OpenID Connect Core §3.1.3.7, check 3).
    let shared = with(&id, json!({ "aud": ["my_client_id", "another_client"], "azp": "my_client_id" }));
    assert_eq!(scene.reason(&token(&shared), IdToken), "audience");
}

#[test]
fn keycloak() {
    let issuer = "https://keycloak.example.com/realms/acme";
    let mut provider = Preset::Keycloak.provider(issuer, TENANT);
    provider.claims.groups.push(GroupsClaim::new("/resource_access/platform/roles", "platform:"));
    provider.claims.roles.insert("support".to_owned(), vec!["realm:support".to_owned()]);
    let scene = Scene::new(provider, &["account", "platform", "platform-api"]);
    let access = json!({
        "exp": NOW + 300, "iat": NOW - 1, "auth_time": NOW - 2, "jti": "onrtac:8a1c", "iss": issuer,
        "aud": ["platform-api", "account"], "sub": "b2a1f6c0-9d53-4b3c-8a37-000000000003", "typ": "Bearer",
        "azp": "platform", "sid": "6f6d", "acr": "1", "allowed-origins": ["https://platform.example.com"],
        "realm_access": { "roles": ["support", "offline_access"] },
        "resource_access": { "platform": { "roles": ["clerk"] }, "account": { "roles": ["view-profile"] } },
        "scope": "openid profile email", "email_verified": true, "name": "Alice Archer", "groups": ["/support"],
        "preferred_username": "alice", "email": "alice@example.com",
    });
    let id = json!({
        "exp": NOW + 300, "iat": NOW - 1, "auth_time": NOW - 2, "jti": "8a1d", "iss": issuer, "aud": "platform",
        "sub": "b2a1f6c0-9d53-4b3c-8a37-000000000003", "typ": "ID", "azp": "platform", "nonce": "5c1a", "sid": "6f6d",
        "at_hash": "w1r9Ik8", "acr": "1", "preferred_username": "alice",
    });
    let token = |claims: &Value| sign(&RSA, json!({}), claims);

    let verified = scene.verify(&token(&access), AccessToken).unwrap();
    let groups: Vec<&str> = verified
        .person
        .groups
        .iter()
        .filter_map(|group| group.strip_prefix(issuer)?.strip_prefix('|'))
        .collect();
    assert_eq!(groups, ["/support", "realm:support", "realm:offline_access", "platform:clerk"]);
    assert_eq!(verified.person.roles, ["support"]);
    assert_eq!(scene.verify(&token(&id), IdToken).unwrap().person.sub, verified.person.sub);
    scene.verify(&token(&with(&access, json!({ "typ": "DPoP" }))), AccessToken).unwrap();

    assert_eq!(scene.reason(&token(&id), AccessToken), "token_kind");
    assert_eq!(scene.reason(&token(&access), IdToken), "token_kind");
    for (change, reason) in [
        (json!({ "typ": "Refresh" }), "token_kind"),
        (json!({ "typ": "Offline" }), "token_kind"),
        (json!({ "typ": "Logout", "events": {} }), "token_kind"),
        (json!({ "preferred_username": "service-account-platform" }), "not_a_person"),
        (json!({ "azp": "another" }), "authorized_party"),
        (json!({ "aud": "another-api" }), "audience"),
        (json!({ "groups": ["realm:support"] }), "groups"),
        (json!({ "iss": "https://keycloak.example.com/realms/Acme" }), "issuer_not_trusted"),
    ] {
        assert_eq!(scene.reason(&token(&with(&access, change.clone())), Jwt), reason, "{change}");
    }
}

#[test]
fn google() {
    let issuer = "https://accounts.google.com";
    let mut provider = Preset::Google.provider(issuer, TENANT);
    provider.claims.required.insert("hd".into(), vec!["example.com".to_owned()]);
    provider.claims.common_claim = Some("email".into());
    let client = "1234987819200.apps.googleusercontent.com";
    let scene = Scene::new(provider, &[client]);
    let id = json!({
        "iss": issuer, "azp": client, "aud": client, "sub": "10769150350006150715113082367", "hd": "example.com",
        "email": "alice@example.com", "email_verified": true, "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "iat": NOW - 60,
        "exp": NOW + 3540, "name": "Alice Archer",
    });
    let token = |claims: &Value| sign(&RSA, json!({}), claims);

    let verified = scene.verify(&token(&id), IdToken).unwrap();
    assert!(verified.person.sub.ends_with(":10769150350006150715113082367"));
    let common = |verified: &VerifiedUserToken| verified.person.claims.get(COMMON_CLAIM).cloned();
    assert_eq!(common(&verified), Some(crate::person::ClaimValue::Text("alice@example.com".to_owned())));
    let unverified = scene.verify(&token(&with(&id, json!({ "email_verified": false }))), IdToken).unwrap();
    assert_eq!(common(&unverified), None, "an address that anyone may claim identifies nobody");

    // Google's access tokens are opaque; nothing JWT-shaped is one.
    assert_eq!(scene.reason("ya29.a0AfH6SMBx", AccessToken), "malformed");
    assert_eq!(scene.reason(&token(&id), AccessToken), "token_kind");
    let scoped = with(&id, json!({ "at_hash": null, "scope": "openid" }));
    assert_eq!(scene.reason(&token(&scoped), AccessToken), "header_type");
    for (change, reason) in [
        (json!({ "hd": null }), "required_claim"),
        (json!({ "hd": "evil.example" }), "required_claim"),
        (json!({ "iss": "accounts.google.com" }), "issuer_not_trusted"),
        (json!({ "aud": "other.apps.googleusercontent.com" }), "audience"),
        (json!({ "azp": "other.apps.googleusercontent.com" }), "authorized_party"),
    ] {
        assert_eq!(scene.reason(&token(&with(&id, change.clone())), IdToken), reason, "{change}");
    }
}
