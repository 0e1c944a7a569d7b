use super::*;
use serde_json::json;

fn claims(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

const NOW: u64 = 1_795_000_000;

#[test]
fn times_hold_to_the_second_of_the_leeway() {
    let token = claims(json!({"exp": NOW, "nbf": NOW - 60, "iat": NOW - 60}));
    let times = Times { exp: NOW, nbf: Some(NOW - 60), iat: Some(NOW - 60) };
    assert_eq!(check_times(&token, NOW - 1, 0), Ok(times));
    assert_eq!(check_times(&token, NOW, 0), Err(JwsError::Claim("exp", "expired")));
    assert_eq!(check_times(&token, NOW + 4, 5), Ok(times));
    assert_eq!(check_times(&token, NOW + 5, 5), Err(JwsError::Claim("exp", "expired")));
    assert_eq!(check_times(&token, NOW - 65, 5), Ok(times));
    assert_eq!(check_times(&token, NOW - 66, 5), Err(JwsError::Claim("nbf", "not yet valid")));
    let no_nbf = claims(json!({"exp": NOW, "iat": NOW - 60}));
    assert_eq!(check_times(&no_nbf, NOW - 66, 5), Err(JwsError::Claim("iat", "in the future")));
    assert_eq!(check_times(&token, u64::MAX, u64::MAX), Err(JwsError::Claim("exp", "expired")));
    assert!(check_times(&token, NOW, u64::MAX).is_ok());
}

#[test]
fn times_are_whole_numbers_or_nothing() {
    for (name, others) in [("exp", json!({})), ("nbf", json!({"exp": NOW})), ("iat", json!({"exp": NOW}))] {
        for wrong in [
            json!("1795000000"),
            json!(1_795_000_000.0),
            json!(-1),
            json!(null),
            json!(true),
            json!([1]),
            json!({}),
        ] {
            let mut claims = claims(others.clone());
            claims.insert(name.to_owned(), wrong.clone());
            assert_eq!(
                check_times(&claims, 0, 0),
                Err(JwsError::Claim(name, "not a whole number")),
                "{name} {wrong}"
            );
        }
    }
    assert_eq!(check_times(&Object::new(), 0, 0), Err(JwsError::Claim("exp", "missing")));
}

#[test]
fn string_claims_are_bounded_and_plain() {
    let read = |value: Value| string_claim(&claims(json!({"sub": value})), "sub", 5).map(str::to_owned);
    assert_eq!(read(json!("alice")), Ok("alice".to_owned()));
    assert_eq!(read(json!("élan")), Ok("élan".to_owned()));
    for wrong in [
        json!(""),
        json!("alice2"),
        json!("élans"),
        json!("a\n"),
        json!("a\u{0}"),
        json!("a\u{85}"),
        json!(1),
        json!(["a"]),
    ] {
        assert!(matches!(read(wrong), Err(JwsError::Claim("sub", _))));
    }
    assert_eq!(string_claim(&Object::new(), "sub", 5), Err(JwsError::Claim("sub", "missing")));
}

#[test]
fn audiences_are_a_string_or_a_short_list() {
    let token = claims(json!({"aud": "a"}));
    assert_eq!(audiences(&token, 1), Ok(vec!["a"]));
    let token = claims(json!({"aud": ["a", "b"]}));
    assert_eq!(audiences(&token, 2), Ok(vec!["a", "b"]));
    assert_eq!(audiences(&token, 1), Err(JwsError::Claim("aud", "too many")));
    for wrong in [
        json!([]),
        json!(""),
        json!(["a", ""]),
        json!(["a", 1]),
        json!({"a": 1}),
        json!(null),
        json!([["a"]]),
    ] {
        assert!(audiences(&claims(json!({"aud": wrong})), 5).is_err());
    }
    assert!(audiences(&Object::new(), 5).is_err());
}

#[test]
fn media_types_are_read_without_prefix_and_case() {
    for (typ, read) in [
        ("at+jwt", "at+jwt"),
        ("AT+JWT", "at+jwt"),
        ("Application/at+JWT", "at+jwt"),
        ("application/x/y", "application/x/y"),
    ] {
        assert_eq!(media_type(&json!(typ)).unwrap(), read);
    }
    for wrong in [json!(""), json!(1), json!("a\n"), json!("x".repeat(129))] {
        assert!(media_type(&wrong).is_err());
    }
}

#[test]
fn length_is_looked_at_first() {
    assert_eq!(parse(&".".repeat(MAX_TOKEN_BYTES + 1), EmbeddedKey::Refused).unwrap_err(), JwsError::TooLong);
    assert_eq!(parse(&".".repeat(MAX_TOKEN_BYTES), EmbeddedKey::Refused).unwrap_err(), NOT_THREE_PARTS);
}
