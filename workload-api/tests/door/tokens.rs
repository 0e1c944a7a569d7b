//! FetchJWTSVID and ValidateJWTSVID.

use crate::client::{Client, Door, NODE, USER, open, open_with_entry, secured, web};
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::{clock::Clock, svid::Bundle};
use deputize_workload_api::{
    fakes::entry,
    proto::{JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse},
    source::SourceError,
};
use serde_json::{Value, json};
use spiffe::TrustDomain;
use std::sync::Arc;
use tonic::{Code, Status};

async fn fetch(client: &mut Client, audience: &[&str], spiffe_id: &str) -> Result<JwtsvidResponse, Status> {
    let audience = audience.iter().map(|one| (*one).to_owned()).collect();
    let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    client.fetch_jwtsvid(secured(request)).await.map(tonic::Response::into_inner)
}

async fn validate(
    client: &mut Client,
    audience: &str,
    svid: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
    client.validate_jwtsvid(secured(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_token_that_was_fetched_is_valid_for_its_audiences_alone() {
    let door = open_with_entry();
    let mut client = door.client().await;
    let fetched = fetch(&mut client, &["db", "cache"], "").await.unwrap();
    assert_eq!(fetched.svids.len(), 1);
    assert_eq!(fetched.svids[0].spiffe_id, "spiffe://example.org/web");
    let token = &fetched.svids[0].svid;
    for audience in ["db", "cache"] {
        let valid = validate(&mut client, audience, token).await.unwrap();
        assert_eq!(valid.spiffe_id, "spiffe://example.org/web");
        let claims = valid.claims.unwrap();
        assert!(format!("{:?}", claims.fields["aud"]).contains("cache"));
        assert!(format!("{:?}", claims.fields["exp"]).contains("NumberValue(1800000300"), "{claims:?}");
    }
    for audience in ["other", "DB", "db ", "d"] {
        assert_eq!(validate(&mut client, audience, token).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(!format!("{fetched:?}").contains(token), "no token is printed");
}

#[tokio::test]
async fn all_identities_come_or_the_one_that_is_named() {
    let door = open();
    let db = entry("db", "spiffe://example.org/db", NODE, USER).unwrap();
    let other = entry("other", "spiffe://example.org/other", NODE, 8).unwrap();
    door.source.set_entries(vec![web(), db, other]);
    let mut client = door.client().await;
    let ids = |response: JwtsvidResponse| -> Vec<String> {
        response.svids.into_iter().map(|svid| svid.spiffe_id).collect()
    };
    let all = fetch(&mut client, &["x"], "").await.unwrap();
    assert_eq!(ids(all), ["spiffe://example.org/web", "spiffe://example.org/db"]);
    let one = fetch(&mut client, &["x"], "spiffe://example.org/db").await.unwrap();
    assert_eq!(ids(one), ["spiffe://example.org/db"]);
    let made = door.source.made();
    for (id, code) in [
        ("spiffe://example.org/other", Code::PermissionDenied),
        ("spiffe://example.org/none", Code::PermissionDenied),
        ("spiffe://elsewhere.example/web", Code::PermissionDenied),
        ("web", Code::InvalidArgument),
        ("spiffe://example.org/web/", Code::InvalidArgument),
        ("spiffe://example.org/%2e", Code::InvalidArgument),
        ("spiffe://EXAMPLE.org/web", Code::InvalidArgument),
    ] {
        assert_eq!(fetch(&mut client, &["x"], id).await.unwrap_err().code(), code, "{id}");
    }
    assert_eq!(door.source.made(), made);
}

#[tokio::test]
async fn audiences_are_mandatory() {
    let door = open_with_entry();
    let mut client = door.client().await;
    let (longest, too_long) = ("x".repeat(512), "x".repeat(513));
    let longest_together = [longest.as_str(); 4];
    let too_long_together = [&longest_together[..], &["x"]].concat();
    let many = ["x"; 17];
    for audience in [&[][..], &[""], &["db", ""], &["a\nb"], &[too_long.as_str()], &too_long_together, &many]
    {
        assert_eq!(fetch(&mut client, audience, "").await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(door.source.made(), 0);
    assert!(fetch(&mut client, &longest_together, "").await.is_ok());
    door.source.set_failure(Some(SourceError::Invalid("a cloud's audience")));
    assert_eq!(
        fetch(&mut client, &["sts.amazonaws.com"], "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// Claims of a good token for `db`.
fn claims(door: &Door) -> Value {
    json!({ "sub": "spiffe://example.org/web", "aud": ["db"], "exp": door.clock.now_seconds() + 60 })
}

#[tokio::test]
async fn what_is_no_jwt_svid_is_not_valid() {
    let door = open_with_entry();
    let mut client = door.client().await;
    let ours = door.source.jwt_key();
    let now = door.clock.now_seconds();
    for typ in ["JWT", "JOSE"] {
        validate(&mut client, "db", &ours.sign(typ, &claims(&door)).unwrap()).await.unwrap();
    }
    let mut bad = Vec::new();
    for typ in ["at+jwt", "dpop+jwt", "wit+jwt", "JWS"] {
        bad.push((typ.to_owned(), ours.sign(typ, &claims(&door)).unwrap()));
    }
    for (what, member, value) in [
        ("no exp", "exp", Value::Null),
        ("expired", "exp", json!(now - 5)),
        ("exp as text", "exp", json!("2000000000")),
        ("not yet valid", "nbf", json!(now + 60)),
        ("no aud", "aud", Value::Null),
        ("aud empty", "aud", json!([])),
        ("aud of numbers", "aud", json!([1])),
        ("no sub", "sub", Value::Null),
        ("sub no SPIFFE ID", "sub", json!("web")),
        ("sub without a path", "sub", json!("spiffe://example.org")),
        ("sub in capitals", "sub", json!("spiffe://EXAMPLE.org/web")),
        ("sub of another trust domain", "sub", json!("spiffe://other.example/web")),
    ] {
        let mut claims = claims(&door);
        claims[member] = value;
        if claims[member].is_null() {
            claims.as_object_mut().unwrap().remove(member);
        }
        bad.push((what.to_owned(), ours.sign("JWT", &claims).unwrap()));
    }
    let good = ours.sign("JWT", &claims(&door)).unwrap();
    let stranger = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    bad.push(("another's key".into(), stranger.sign("JWT", &claims(&door)).unwrap()));
    // Not its last character: some of those bits mean nothing.
    let at = good.len() - 20;
    let other = if &good[at..=at] == "A" { "B" } else { "A" };
    bad.push(("another signature".into(), format!("{}{other}{}", &good[..at], &good[at + 1..])));
    bad.push(("no signature".into(), good[..=good.rfind('.').unwrap()].to_owned()));
    bad.push(("alg none".into(), format!("eyJhbGciOiJub25lIn0{}", &good[good.find('.').unwrap()..])));
    bad.push(("no token".into(), "x".into()));
    bad.push(("too long".into(), format!("{good}{}", "A".repeat(17 * 1024))));
    for (what, token) in bad {
        let refused = validate(&mut client, "db", &token).await.expect_err(&what);
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}");
        assert!(!refused.message().contains(&token) || token.len() < 2, "{what}");
    }
    assert_eq!(validate(&mut client, "", &good).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(validate(&mut client, "db", "").await.unwrap_err().code(), Code::InvalidArgument);
    validate(&mut client, "db", &good).await.unwrap();
}

#[tokio::test]
async fn each_trust_domain_has_its_own_keys() {
    let door = open();
    let theirs = SigningKey::generate(SigningAlgorithm::ES256).unwrap();
    let partner = TrustDomain::new("partner.example").unwrap();
    let bundle = Bundle {
        trust_domain: partner.clone(),
        x509_authorities: Vec::new(),
        jwt_authorities: KeySet::new(vec![theirs.public().clone()]),
        sequence: 1,
        refresh_hint_seconds: 300,
    };
    door.source.change_bundles(|bundles| bundles.federated = vec![Arc::new(bundle)]);
    let mut federated = web();
    federated.federates_with = vec![partner];
    door.source.set_entries(vec![federated]);
    let mut client = door.client().await;
    let mut claims = claims(&door);
    claims["sub"] = json!("spiffe://partner.example/web");
    let (good, ours) =
        (theirs.sign("JWT", &claims).unwrap(), door.source.jwt_key().sign("JWT", &claims).unwrap());
    let valid = validate(&mut client, "db", &good).await.unwrap();
    assert_eq!(valid.spiffe_id, "spiffe://partner.example/web");
    assert!(validate(&mut client, "db", &ours).await.is_err(), "our key does not speak for them");
    claims["sub"] = json!("spiffe://example.org/web");
    let theirs = theirs.sign("JWT", &claims).unwrap();
    assert!(validate(&mut client, "db", &theirs).await.is_err(), "nor theirs for us");
    // Whose entry does not federate with them does not know them.
    door.source.set_entries(vec![web()]);
    assert!(validate(&mut client, "db", &good).await.is_err());
}
