//! At L3 the order of members is nothing, and everything else is everything.

use super::fixture::*;
use proptest::{prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// Values that the schema of the fixture's tools admits.
fn arguments() -> impl Strategy<Value = Value> {
    let line = (prop::option::of("[a-z]{0,4}"), prop::option::of(-100i64..100)).prop_map(|(sku, n)| {
        let mut line = Map::new();
        sku.map(|sku| line.insert("sku".into(), json!(sku)));
        n.map(|n| line.insert("n".into(), json!(n)));
        Value::Object(line)
    });
    ("\\PC{0,8}", -1000i64..1000, "\\PC{0,8}", prop::collection::vec(line, 1..4)).prop_map(
        |(payment_id, amount_cents, note, lines)| {
            json!({ "payment_id": payment_id, "amount_cents": amount_cents, "note": note, "lines": lines })
        },
    )
}

/// JSON text whose members stand in the reverse order.
fn reversed(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .rev()
                .map(|(name, member)| format!("{}:{}", json!(name), reversed(member)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(reversed).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// One change anywhere: a leaf replaced, a member or item removed, items swapped.
fn changed(value: &Value, at: Index, kind: u8) -> Value {
    let mut pointers = vec![];
    collect(value, String::new(), &mut pointers);
    let pointer = at.get(&pointers).clone();
    let mut copy = value.clone();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match (kind, copy.pointer_mut(parent).unwrap()) {
        (0, Value::Object(members)) => drop(members.remove(last)),
        (0, Value::Array(items)) => drop(items.remove(last.parse().unwrap())),
        _ => {
            let leaf = copy.pointer_mut(&pointer).unwrap();
            *leaf = match leaf {
                Value::String(text) => json!(format!("{text}x")),
                Value::Number(number) => json!(number.as_i64().unwrap() + 1),
                Value::Array(items) => {
                    let mut items = items.clone();
                    items.push(json!({}));
                    json!(items)
                }
                _ => json!({ "sku": "changed-entirely" }),
            };
        }
    }
    copy
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    let mut child = |name: String, member: &Value| {
        let pointer = format!("{at}/{name}");
        pointers.push(pointer.clone());
        collect(member, pointer, pointers);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| child(name.clone(), member)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| child(i.to_string(), item)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reordering_is_equal_and_any_other_change_is_refused(arguments in arguments(), at in any::<Index>(), kind in 0u8..2) {
        let f = Fixture::new();
        let send = |text: String| {
            let token = f.sign(&f.claims(l3("refund", &arguments)));
            let mut request = f.request(&token, json!(null));
            request.body = format!(
                r#"{{"params":{{"arguments":{text},"name":"refund"}},"method":"tools/call","id":1,"jsonrpc":"2.0"}}"#
            ).into_bytes();
            f.send(&request)
        };
        prop_assert!(send(arguments.to_string()).is_ok());
        prop_assert!(send(reversed(&arguments)).is_ok());
        let other = changed(&arguments, at, kind);
        prop_assert_ne!(&other, &arguments);
        prop_assert_eq!(send(other.to_string()).map(drop).map_err(|refusal| refusal.status), Err(403));
    }
}
