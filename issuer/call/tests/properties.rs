//! What must hold for every input, not for the chosen ones alone.

use deputize_call::{
    constraints::{Constraint, Constraints},
    json::{self, Object},
    jws::{EmbeddedKey, parse},
    sign::{SigningAlgorithm, SigningKey},
};
use proptest::{collection, option, prelude::*, sample};
use serde_json::{Number, Value, json};
use std::sync::LazyLock;

/// Any value that a strict parse may return, a few levels deep.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
        any::<f64>().prop_filter("strict", |number| number.abs() < 9e15).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::hash_map(any::<String>(), inner, 0..5)
                .prop_map(|members| members.into_iter().collect::<Object>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn canonical_form_is_stable_and_equal_for_equal_texts(value in value()) {
        let canonical = json::canonicalize(&value).unwrap();
        for text in [canonical.clone(), serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            let read = json::parse_value(&text, 32).unwrap();
            prop_assert_eq!(&json::canonicalize(&read).unwrap(), &canonical);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_or_differ_from_a_lenient_one(text in r#"[\[\]{}:,"0-9eE.\\ua-f+\- ]{0,60}"#) {
        if let Ok(value) = json::parse_value(text.as_bytes(), 32) {
            prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
        }
    }

    #[test]
    fn a_changed_token_never_verifies(position in any::<sample::Index>(), replacement in any::<char>(), algorithm in 0..2_usize) {
        static KEYS: LazyLock<[(SigningKey, String); 2]> = LazyLock::new(|| {
            [SigningAlgorithm::ES256, SigningAlgorithm::EdDSA].map(|algorithm| {
                let key = SigningKey::generate(algorithm).unwrap();
                let token = key.sign("at+jwt", &json!({"sub": "alice", "exp": 1_795_000_000_u64})).unwrap();
                (key, token)
            })
        });
        let (key, token) = &KEYS[algorithm];
        let mut characters: Vec<char> = token.chars().collect();
        let position = position.index(characters.len());
        for replacement in [replacement, 'A', '_', '.'] {
            let before = std::mem::replace(&mut characters[position], replacement);
            let changed: String = characters.iter().collect();
            let verified = parse(&changed, EmbeddedKey::Refused).and_then(|jws| key.public().verify(&jws));
            prop_assert_eq!(verified.is_ok(), replacement == before);
            characters[position] = before;
        }
    }

    #[test]
    fn a_shortened_or_lengthened_token_never_verifies(cut in any::<sample::Index>()) {
        static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(SigningAlgorithm::ES256).unwrap());
        let token = KEY.sign("at+jwt", &json!({"sub": "alice"})).unwrap();
        let cut = cut.index(token.len());
        for changed in [token[..cut].to_owned(), token[cut + 1..].to_owned(), format!("{token}{}", &token[cut..])] {
            let verified = parse(&changed, EmbeddedKey::Refused).and_then(|jws| KEY.public().verify(&jws));
            prop_assert!(verified.is_err());
        }
    }
}

/// Arguments of a small world, in which constraints of [`constraints`] often meet them.
fn arguments() -> impl Strategy<Value = Object> {
    let leaf = || prop_oneof![(0..4_i64).prop_map(Value::from), path().prop_map(Value::from)];
    let nested = prop_oneof![
        leaf(),
        collection::btree_map("[xy]", leaf(), 0..3)
            .prop_map(|members| members.into_iter().collect::<Object>().into()),
        collection::vec(leaf(), 0..3).prop_map(Value::from),
    ];
    collection::btree_map("[ab]", nested, 0..3).prop_map(|members| members.into_iter().collect())
}

fn path() -> impl Strategy<Value = String> {
    sample::select(vec!["/d", "/d/", "/d/e", "/d/ef", "/d/e/f", "/d/../e", "/e/"]).prop_map(str::to_owned)
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let bound = || option::of((0..4_i64).prop_map(Number::from));
    let leaf = || prop_oneof![(0..4_i64).prop_map(Value::from), path().prop_map(Value::from)];
    let whole = prop_oneof![
        3 => leaf(),
        1 => collection::btree_map("[xy]", leaf(), 0..3).prop_map(|members| members.into_iter().collect::<Object>().into()),
        1 => collection::vec(leaf(), 0..3).prop_map(Value::from),
    ];
    let kind = prop_oneof![
        collection::vec(whole, 1..6)
            .prop_map(|values| Constraint { one_of: Some(values), ..Constraint::default() }),
        (bound(), bound()).prop_map(|(minimum, maximum)| Constraint {
            minimum,
            maximum,
            ..Constraint::default()
        }),
        collection::vec(path(), 1..3).prop_map(|prefix| Constraint { prefix, ..Constraint::default() }),
    ];
    (kind, any::<bool>()).prop_map(|(kind, optional)| Constraint { optional, ..kind })
}

fn constraints() -> impl Strategy<Value = Constraints> {
    let pointer =
        sample::select(vec!["/a", "/b", "/a/x", "/a/y", "/b/0", "/b/1", "/b/x"]).prop_map(str::to_owned);
    collection::btree_map(pointer, constraint(), 1..4).prop_filter_map("well formed", |constraints| {
        constraints.into_iter().collect::<Constraints>().checked().ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_conjunction_admits_exactly_what_both_hops_admit(
        left in constraints(), right in constraints(), tries in collection::vec(arguments(), 20),
    ) {
        let conjoined = left.conjoin(&right);
        for arguments in tries {
            let both = left.admit(&arguments).is_ok() && right.admit(&arguments).is_ok();
            match &conjoined {
                Ok(conjoined) => prop_assert_eq!(conjoined.admit(&arguments).is_ok(), both, "{:?}", arguments),
                // Where nothing but `{}` would be left, the conjunction is refused as a whole.
                Err(_) => prop_assert!(!both || arguments.is_empty(), "{:?}", arguments),
            }
        }
    }

    #[test]
    fn a_hop_with_the_same_constraints_changes_nothing(constraints in constraints(), arguments in arguments()) {
        if let Ok(conjoined) = constraints.conjoin(&constraints) {
            prop_assert_eq!(conjoined.admit(&arguments).is_ok(), constraints.admit(&arguments).is_ok());
        }
    }
}
