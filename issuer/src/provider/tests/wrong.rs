//! What no provider's preset makes acceptable.

use super::*;
use SubjectTokenType::{AccessToken, IdToken, Jwt};

#[test]
fn the_honest_token_passes_and_says_who_it_is() {
    let verified = plain().verify(&at_jwt(&plain_claims()), AccessToken).unwrap();
    let person = &verified.person;
    assert_eq!(person.sub, crate::person::Person::encode_sub(TENANT, "https://id.example.com", "alice"));
    assert_eq!((person.tenant.as_str(), person.issuer.as_str()), (TENANT, "https://id.example.com"));
    assert_eq!((person.acr.as_deref(), person.auth_time), (Some("aal2"), Some(NOW - 60)));
    assert_eq!(
        (person.amr.as_slice(), person.roles.as_slice()),
        (["pwd", "otp"].map(str::to_owned).as_slice(), ["support".to_owned()].as_slice())
    );
    assert_eq!(verified.expires_at, NOW + 300);
    assert!(verified.may_act.is_none() && verified.act.is_none() && verified.bound_to.is_none());
}

#[test]
fn claims_that_are_missing_foreign_or_malformed_are_refused() {
    let scene = plain();
    for (change, reason) in [
        (json!({ "iss": null }), "claim"),
        (json!({ "iss": "https://id.example.com/" }), "issuer_not_trusted"),
        (json!({ "iss": "https://ID.example.com" }), "issuer_not_trusted"),
        (json!({ "iss": 7 }), "claim"),
        (json!({ "sub": null }), "subject"),
        (json!({ "sub": "" }), "subject"),
        (json!({ "sub": "a".repeat(256) }), "subject"),
        (json!({ "sub": "al\nice" }), "subject"),
        (json!({ "sub": 7 }), "subject"),
        (json!({ "sub": "platform" }), "not_a_person"),
        (json!({ "aud": null }), "claim"),
        (json!({ "aud": [] }), "claim"),
        (json!({ "aud": vec!["a"; 1000] }), "claim"),
        (json!({ "aud": "https://platform.example.com/" }), "audience"),
        (json!({ "aud": ["https://other.example.com"] }), "audience"),
        (json!({ "client_id": "other" }), "authorized_party"),
        (json!({ "azp": "other" }), "authorized_party"),
        (json!({ "appid": "other" }), "authorized_party"),
        (json!({ "cid": "other" }), "authorized_party"),
        (json!({ "client_id": ["platform"] }), "claim"),
        (json!({ "exp": null }), "claim"),
        (json!({ "exp": NOW - 31 }), "expired"),
        (json!({ "exp": (NOW + 300).to_string() }), "claim"),
        (json!({ "exp": 1_790_000_300.5 }), "claim"),
        (json!({ "exp": -1 }), "claim"),
        (json!({ "nbf": NOW + 31 }), "not_yet_valid"),
        (json!({ "nbf": "0" }), "claim"),
        (json!({ "iat": NOW + 31 }), "issued_in_the_future"),
        (json!({ "iat": [] }), "claim"),
        (json!({ "auth_time": NOW + 31 }), "auth_time"),
        (json!({ "auth_time": "yesterday" }), "claim_shape"),
        (json!({ "acr": 2 }), "claim_shape"),
        (json!({ "amr": [1] }), "claim_shape"),
        (json!({ "groups": 7 }), "groups"),
        (json!({ "groups": ["staff", 7] }), "groups"),
        (json!({ "groups": (0..201).map(|n| n.to_string()).collect::<Vec<_>>() }), "groups"),
        (json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }), "token_kind"),
        (json!({ "act": "spiffe://corp.example/agent" }), "delegation"),
        (json!({ "act": { "sub": "a", "act": { "sub": "a" } } }), "delegation"),
        (json!({ "may_act": "platform" }), "delegation"),
        (json!({ "may_act": { "email": "agent@example.com" } }), "delegation"),
        (json!({ "cnf": { "jwk": {} } }), "delegation"),
        (json!({ "cnf": { "jkt": "short" } }), "delegation"),
    ] {
        assert_eq!(
            scene.reason(&at_jwt(&with(&plain_claims(), change.clone())), AccessToken),
            reason,
            "{change}"
        );
    }
    for beyond in ["9223372036854775808", "9007199254740993.0", "1e300"] {
        let claims = plain_claims()
            .to_string()
            .replace(&format!("\"exp\":{}", NOW + 300), &format!("\"exp\":{beyond}"));
        let token = sign_text(
            &ES256,
            &json!({ "alg": "ES256", "typ": "at+jwt", "kid": ES256.kid() }).to_string(),
            &claims,
        );
        assert_eq!(scene.reason(&token, AccessToken), "malformed", "{beyond}");
    }
}

#[test]
fn the_leeway_ends_where_it_ends() {
    let scene = plain();
    let token = at_jwt(&with(&plain_claims(), json!({ "exp": NOW, "nbf": NOW, "iat": NOW })));
    for (at, passes) in [(NOW - 31, false), (NOW - 30, true), (NOW + 29, true), (NOW + 30, false)] {
        // Each with the cache empty and with the cache full.
        for _ in 0..2 {
            assert_eq!(scene.verify_at(&token, AccessToken, at).is_ok(), passes, "{at}");
        }
    }
}

#[test]
fn a_token_older_than_the_greatest_age_is_refused() {
    let mut provider = Preset::Generic.provider("https://id.example.com", TENANT);
    provider.max_age_seconds = Some(600);
    let scene = Scene::new(provider, &["https://platform.example.com", "platform"]);
    let issued = |iat: Value| at_jwt(&with(&plain_claims(), json!({ "iat": iat })));
    scene.verify(&issued(json!(NOW - 630)), AccessToken).unwrap();
    assert_eq!(scene.reason(&issued(json!(NOW - 631)), AccessToken), "too_old");
    assert_eq!(scene.reason(&issued(json!(null)), AccessToken), "too_old");
}

#[test]
fn only_types_of_access_and_id_tokens_are_accepted() {
    let scene = plain();
    for typ in
        ["logout+jwt", "dpop+jwt", "txntoken+jwt", "secevent+jwt", "oauth-id-jag+jwt", "JOSE", "jwt+at"]
    {
        let token = sign(&ES256, json!({ "typ": typ }), &plain_claims());
        for kind in [Jwt, AccessToken, IdToken] {
            scene.verify(&token, kind).expect_err(typ);
        }
        assert_eq!(scene.reason(&token, Jwt), "header_type", "{typ}");
    }
    for typ in [json!("at+jwt"), json!("application/at+jwt"), json!("AT+JWT"), json!("JWT"), json!(null)] {
        scene.verify(&sign(&ES256, json!({ "typ": typ }), &plain_claims()), AccessToken).unwrap();
    }
    // As bare as an ID token may be, and nothing that makes it an access token.
    let bare = with(&plain_claims(), json!({ "scope": null, "client_id": null }));
    let token = sign(&ES256, json!({}), &bare);
    scene.verify(&token, IdToken).unwrap();
    scene.verify(&token, Jwt).unwrap();
    assert_eq!(scene.reason(&token, AccessToken), "token_kind");
    assert_eq!(scene.reason(&at_jwt(&bare), IdToken), "token_kind");
}

#[test]
fn only_its_own_issuers_keys_verify_a_token() {
    let other = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let keys = Arc::new(FakeKeys::default());
    keys.publish("https://id.example.com", &[&ES256]);
    keys.publish("https://other.example.com", &[&other]);
    let providers = ["https://id.example.com", "https://other.example.com"];
    let providers = providers.map(|issuer| Preset::Generic.provider(issuer, TENANT)).to_vec();
    let providers = Providers::new(providers, keys, None).unwrap();
    assert!(providers.trusts("https://id.example.com") && !providers.trusts("https://id.example.com/"));
    let allowed = ["https://platform.example.com".to_owned(), "platform".to_owned()];
    let reason = |token: &str| {
        ready(providers.verify(token, AccessToken, TENANT, &allowed, NOW)).err().map(|error| error.reason())
    };

    assert_eq!(reason(&at_jwt(&plain_claims())), None);
    let foreign = sign(&other, json!({ "typ": "at+jwt" }), &plain_claims());
    assert_eq!(reason(&foreign), Some("unknown_key"));
    // The same `kid` at two issuers: each its own key.
    let named_alike = sign(&other, json!({ "typ": "at+jwt", "kid": ES256.kid() }), &plain_claims());
    assert_eq!(reason(&named_alike), Some("signature"));
    let swapped = with(&plain_claims(), json!({ "iss": "https://other.example.com" }));
    assert_eq!(reason(&at_jwt(&swapped)), Some("unknown_key"));
    let same_person_elsewhere = sign(&other, json!({ "typ": "at+jwt" }), &swapped);
    let there = ready(providers.verify(&same_person_elsewhere, AccessToken, TENANT, &allowed, NOW)).unwrap();
    let here = ready(providers.verify(&at_jwt(&plain_claims()), AccessToken, TENANT, &allowed, NOW)).unwrap();
    assert_ne!(there.person.sub, here.person.sub, "alice there is not alice here");
}

#[test]
fn headers_cannot_choose_a_key_or_an_algorithm() {
    let scene = plain();
    let jwk = Value::Object(ES256.public().to_jwk());
    for (change, reason) in [
        (json!({ "alg": "none" }), "algorithm"),
        (json!({ "alg": "nOnE" }), "algorithm"),
        (json!({ "alg": "" }), "algorithm"),
        (json!({ "alg": "HS256" }), "algorithm"),
        (json!({ "alg": "RS256" }), "unknown_key"),
        (json!({ "alg": "ES384" }), "unknown_key"),
        (json!({ "jwk": jwk }), "header"),
        (json!({ "jku": "https://evil.example/jwks" }), "header"),
        (json!({ "x5u": "https://evil.example/cert" }), "header"),
        (json!({ "x5c": ["MII"] }), "header"),
        (json!({ "crit": ["exp"] }), "header"),
        (json!({ "b64": false }), "header"),
        (json!({ "kid": "../../etc/passwd" }), "unknown_key"),
        (json!({ "kid": "a\r\nb" }), "malformed"),
        (json!({ "kid": "k".repeat(8000) }), "malformed"),
    ] {
        let mut header = json!({ "typ": "at+jwt" });
        merge(&mut header, &change);
        assert_eq!(scene.reason(&sign(&ES256, header, &plain_claims()), AccessToken), reason, "{change}");
    }
    // Without a `kid` the algorithm decides, if one key alone fits.
    scene
        .verify(&sign(&ES256, json!({ "typ": "at+jwt", "kid": null }), &plain_claims()), AccessToken)
        .unwrap();
}

#[test]
fn an_algorithm_that_the_provider_does_not_use_is_refused() {
    let mut provider = Preset::Generic.provider("https://id.example.com", TENANT);
    provider.algorithms = vec![deputize_call::keys::Algorithm::RS256];
    let scene = Scene::new(provider, &["https://platform.example.com", "platform"]);
    scene.verify(&sign(&RSA, json!({ "typ": "at+jwt" }), &plain_claims()), AccessToken).unwrap();
    assert_eq!(scene.reason(&at_jwt(&plain_claims()), AccessToken), "algorithm");
}

#[test]
fn texts_that_are_no_compact_token_are_refused() {
    let scene = plain();
    let good = at_jwt(&plain_claims());
    let cut = good.rsplit_once('.').unwrap().0.to_owned();
    for (text, reason) in [
        (String::new(), "malformed"),
        ("...".to_owned(), "malformed"),
        (".".repeat(10_000), "malformed"),
        (format!("{good}="), "malformed"),
        (format!(" {good}"), "malformed"),
        (format!("{good}."), "malformed"),
        (format!("{cut}."), "signature"),
        ("a".repeat(MAX_TOKEN_BYTES + 1), "too_long"),
        (json!({ "payload": "e30", "signatures": [] }).to_string(), "malformed"),
    ] {
        assert_eq!(scene.reason(&text, AccessToken), reason, "{}", text.get(..40).unwrap_or(&text));
    }
    let twice = plain_claims().to_string().replacen('{', "{\"sub\":\"bob\",", 1);
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": ES256.kid() }).to_string();
    assert_eq!(scene.reason(&sign_text(&ES256, &header, &twice), AccessToken), "malformed");
}

#[test]
fn a_client_of_another_tenant_is_refused() {
    let scene = plain();
    let token = at_jwt(&plain_claims());
    for _ in 0..2 {
        let refused = ready(scene.providers.verify(&token, AccessToken, "umbrella", &scene.allowed, NOW));
        assert_eq!(refused.unwrap_err(), UserTokenError::Tenant);
        scene.verify(&token, AccessToken).unwrap();
    }
}

#[test]
fn delegation_and_binding_are_carried() {
    let thumbprint = ES256.public().thumbprint();
    let claims = with(
        &plain_claims(),
        json!({
            "may_act": { "sub": "spiffe://corp.example/agent", "iss": "https://id.example.com", "client_id": "platform" },
            "act": { "sub": "b", "act": { "sub": "a" } }, "cnf": { "jkt": thumbprint },
        }),
    );
    let verified = plain().verify(&at_jwt(&claims), AccessToken).unwrap();
    let may_act = verified.may_act.unwrap();
    assert_eq!(
        (may_act.sub.as_str(), may_act.client_id.as_deref()),
        ("spiffe://corp.example/agent", Some("platform"))
    );
    assert_eq!(verified.act.unwrap().chain().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(verified.bound_to, Some(deputize_call::claims::Confirmation::Jkt(thumbprint.to_owned())));
    let chain = |length: usize| {
        (0..length).fold(json!(null), |act, n| with(&json!({ "sub": n.to_string() }), json!({ "act": act })))
    };
    plain().verify(&at_jwt(&with(&plain_claims(), json!({ "act": chain(5) }))), AccessToken).unwrap();
    let long = at_jwt(&with(&plain_claims(), json!({ "act": chain(6) })));
    assert_eq!(plain().reason(&long, AccessToken), "delegation");
}

#[test]
fn extra_claims_reach_policy_in_forms_that_it_can_see_or_not_at_all() {
    let mut provider = Preset::Generic.provider("https://id.example.com", TENANT);
    provider.claims.extra.insert("department".to_owned(), "/org/department".into());
    let scene = Scene::new(provider, &["https://platform.example.com", "platform"]);
    let department = |value: Value| {
        let token = at_jwt(&with(&plain_claims(), json!({ "org": { "department": value } })));
        scene.verify(&token, AccessToken).map(|verified| verified.person.claims.get("department").cloned())
    };
    use crate::person::ClaimValue::{Flag, Number, Text, Texts};
    assert_eq!(department(json!("sales")).unwrap(), Some(Text("sales".to_owned())));
    assert_eq!(department(json!(7)).unwrap(), Some(Number(7)));
    assert_eq!(department(json!(true)).unwrap(), Some(Flag(true)));
    assert_eq!(department(json!(["a"])).unwrap(), Some(Texts(vec!["a".to_owned()])));
    assert_eq!(department(json!(null)).unwrap(), None);
    for inexpressible in [json!(0.5), json!({ "a": 1 }), json!([1]), json!("x".repeat(1025))] {
        assert_eq!(department(inexpressible.clone()).unwrap_err().reason(), "claim_shape", "{inexpressible}");
    }
}

#[test]
fn an_application_may_be_an_actor_and_never_a_person() {
    let scene = plain();
    let own = at_jwt(&with(&plain_claims(), json!({ "sub": "platform" })));
    assert_eq!(scene.reason(&own, AccessToken), "not_a_person");
    ready(scene.providers.verify_actor(&own, AccessToken, TENANT, &scene.allowed, NOW)).unwrap();
    assert_eq!(scene.reason(&own, AccessToken), "not_a_person", "though it is cached now");
}

#[test]
fn configurations_that_could_only_harm_are_refused() {
    let good = || Preset::Generic.provider("https://id.example.com", TENANT);
    let problem =
        |providers: Vec<Provider>| Providers::new(providers, Arc::new(FakeKeys::default()), None).err();
    assert_eq!(problem(vec![good()]), None);
    assert_eq!(problem(vec![good(), good()]).unwrap().problem, "is configured twice");
    let mut bad = [good(), good(), good(), good(), good()];
    bad[0].algorithms.clear();
    bad[1].tenant.clear();
    bad[2].accepted_types.id_token.push("at+jwt".to_owned());
    bad[3].leeway_seconds = 301;
    bad[4].claims.extra.insert(COMMON_CLAIM.to_owned(), "email".into());
    for bad in bad {
        assert!(problem(vec![bad.clone()]).is_some(), "{bad:?}");
    }
}
