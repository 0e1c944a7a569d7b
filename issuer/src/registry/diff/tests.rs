use super::*;
use deputize_call::digest::tool_digest;
use proptest::prelude::*;

fn tool(name: &str) -> Value {
    json!({
        "name": name, "title": "Refund a payment",
        "description": "Pays back a payment, wholly or in part. Never more than was paid.",
        "inputSchema": {
            "type": "object", "additionalProperties": false, "required": ["payment_id", "amount"],
            "properties": {
                "payment_id": { "type": "string", "maxLength": 12, "description": "Its id." },
                "amount": { "type": "integer", "minimum": 1 },
                "reason": { "enum": ["fraud", "error", "goodwill"] },
            },
        },
        "annotations": { "readOnlyHint": false, "destructiveHint": true },
    })
}

fn between(before: impl AsRef<[Value]>, after: impl AsRef<[Value]>) -> ManifestDiff {
    let objects = |values: &[Value]| values.iter().map(|value| value.as_object().unwrap().clone()).collect();
    let (before, after): (Vec<Object>, Vec<Object>) = (objects(before.as_ref()), objects(after.as_ref()));
    diff(&before.iter().collect::<Vec<_>>(), &after.iter().collect::<Vec<_>>())
}

fn only(before: impl AsRef<[Value]>, after: impl AsRef<[Value]>) -> Change {
    let mut diff = between(before, after);
    assert_eq!((diff.changes.len(), diff.omitted), (1, 0), "{diff:?}");
    diff.changes.remove(0)
}

fn set(mut value: Value, pointer: &str, member: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[name] = member;
    value
}

#[test]
fn a_changed_place_is_named_and_its_words_are_shown() {
    let text = "Pays back a payment, wholly or partly. Never more than was paid.";
    let change = only([tool("refund")], [set(tool("refund"), "/description", json!(text))]);
    assert_eq!((change.pointer.as_str(), change.kind), ("/description", ChangeKind::Changed));
    assert_eq!(
        change.words,
        [
            Piece::Same("Pays back a payment, wholly or ".into()),
            Piece::Removed("in part".into()),
            Piece::Added("partly".into()),
            Piece::Same(". Never more than was paid.".into()),
        ]
    );
}

#[test]
fn every_kind_of_change_has_its_line() {
    let was = tool("refund");
    for (is, pointer, kind) in [
        (set(was.clone(), "/title", json!("Refund payments")), "/title", ChangeKind::Changed),
        (
            set(was.clone(), "/annotations/destructiveHint", json!(false)),
            "/annotations/destructiveHint",
            ChangeKind::Changed,
        ),
        (
            set(was.clone(), "/annotations/openWorldHint", json!(true)),
            "/annotations/openWorldHint",
            ChangeKind::Added,
        ),
        (
            set(was.clone(), "/inputSchema/properties/payment_id/maxLength", json!(13)),
            "/inputSchema/properties/payment_id/maxLength",
            ChangeKind::Changed,
        ),
        (
            set(was.clone(), "/inputSchema/required", json!(["payment_id"])),
            "/inputSchema/required/1",
            ChangeKind::Removed,
        ),
        (
            set(
                was.clone(),
                "/inputSchema/properties/reason/enum",
                json!(["other", "fraud", "error", "goodwill"]),
            ),
            "/inputSchema/properties/reason/enum/0",
            ChangeKind::Added,
        ),
        (
            set(was.clone(), "/inputSchema/properties/a~1b", json!({})),
            "/inputSchema/properties/a~01b",
            ChangeKind::Added,
        ),
        (set(was.clone(), "/outputSchema", json!({ "type": "object" })), "/outputSchema", ChangeKind::Added),
        // Its text says the same, but it is another value.
        (
            set(was.clone(), "/inputSchema/properties/amount/minimum", json!("1")),
            "/inputSchema/properties/amount/minimum",
            ChangeKind::Changed,
        ),
    ] {
        let change = only([was.clone()], [is.clone()]);
        assert_eq!((change.pointer.as_str(), change.kind), (pointer, kind), "{is}");
    }
}

#[test]
fn what_no_digest_covers_does_not_count() {
    let was = tool("refund");
    let mut reordered = serde_json::Map::new();
    for (name, value) in was.as_object().unwrap().iter().rev() {
        reordered.insert(name.clone(), value.clone());
    }
    for is in [
        Value::Object(reordered),
        set(was.clone(), "/icons", json!([{ "src": "https://a.example/i.png" }])),
        set(was.clone(), "/inputSchema/properties/amount/minimum", json!(1.0)),
    ] {
        assert!(between([was.clone()], [is.clone()]).is_empty(), "{is}");
    }
    assert!(between([was.clone(), tool("b")], [tool("b"), was]).is_empty());
}

#[test]
fn tools_come_go_and_get_other_names() {
    let (a, b) = (tool("a"), set(tool("b"), "/description", json!("Another.")));
    assert_eq!(only([a.clone()], [a.clone(), b.clone()]).kind, ChangeKind::ToolAdded);
    let gone = only([a.clone(), b.clone()], [a.clone()]);
    assert_eq!((gone.kind, gone.tool.as_str()), (ChangeKind::ToolRemoved, "b"));
    assert_eq!(gone.words, [Piece::Removed("Another.".into())]);
    let renamed = only([a.clone()], [tool("c")]);
    assert_eq!((renamed.kind, renamed.tool.as_str()), (ChangeKind::ToolRenamed, "c"));
    // Not the same tool: two changes.
    assert_eq!(between([a.clone()], [b]).changes.len(), 2);
    // A name that stands twice.
    assert_eq!(only([a.clone()], [a.clone(), a]).kind, ChangeKind::ToolAdded);
}

#[test]
fn an_invisible_character_is_a_word_of_its_own() {
    let was = tool("refund");
    let text = "Pays back a payment, wholly or in part.\u{200b} Never more than was paid.";
    let change = only([was.clone()], [set(was, "/description", json!(text))]);
    assert!(change.words.contains(&Piece::Added("\u{200b}".into())), "{change:?}");
}

#[test]
fn it_stays_small_and_says_what_it_left_out() {
    let long = |marked: &str| format!("{}{marked}{}", "lorem ipsum ".repeat(4000), "dolor ".repeat(4000));
    let was = set(tool("t"), "/description", json!(long("old")));
    let change = only([was.clone()], [set(was, "/description", json!(long("new")))]);
    assert_eq!(change.words.len(), 6, "{:?}", change.words);
    assert!(serde_json::to_string(&change).unwrap().len() < 400);

    // Nothing alike: too dear to align, and shown from where they part.
    let (a, b) = ("abc ".repeat(3000), "xyz! ".repeat(3000));
    let was = set(tool("t"), "/description", json!(a));
    let change = only([was.clone()], [set(was, "/description", json!(b))]);
    assert!(serde_json::to_string(&change).unwrap().len() < 1500, "{change:?}");

    let many: Vec<Value> = (0..1200).map(|n| set(tool("t"), "/name", json!(format!("t{n}")))).collect();
    let diff = between([] as [Value; 0], &many);
    assert_eq!((diff.changes.len(), diff.omitted), (1000, 200));
    for room in [0, 100, 4096] {
        let json = diff.to_json_within(room);
        assert!(json.to_string().len() <= room.max(48), "{room}: {}", json.to_string().len());
        let listed = json["changes"].as_array().unwrap().len();
        assert_eq!(json["omitted"], 1200 - listed);
    }
    assert!(!diff.to_json_within(4096)["changes"].as_array().unwrap().is_empty());
}

/// What a tool may hold, somewhere inside.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-1000_i64..1000).prop_map(Value::from),
        "[a-z \u{200b}é]{0,12}".prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d/~]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn definition() -> impl Strategy<Value = Value> {
    (value(), value(), "[ -~]{0,80}").prop_map(|(schema, annotations, description)| {
        json!({ "name": "t", "description": description, "inputSchema": schema, "annotations": annotations })
    })
}

fn digest(value: &Value) -> deputize_call::digest::Digest {
    tool_digest(value.as_object().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_definition_does_not_differ_from_itself(definition in definition()) {
        prop_assert!(between([definition.clone()], [definition]).is_empty());
    }

    #[test]
    fn it_is_empty_exactly_where_the_digests_agree(one in definition(), other in definition()) {
        let diff = between([one.clone()], [other.clone()]);
        prop_assert_eq!(diff.is_empty(), digest(&one) == digest(&other));
    }

    #[test]
    fn every_change_of_one_character_is_found_and_can_be_read_back(
        text in "[a-zA-Z ,.\u{200b}\u{202e}é]{1,120}", at in any::<prop::sample::Index>(), new in any::<char>(),
        place in prop::sample::select(vec![
            "/description", "/title", "/annotations/title", "/inputSchema/properties/payment_id/description",
        ]),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        prop_assume!(chars[at] != new);
        let changed: String = chars.iter().enumerate().map(|(i, c)| if i == at { new } else { *c }).collect();
        let was = set(tool("t"), place, json!(text));
        let diff = between([was.clone()], [set(was, place, json!(changed))]);
        prop_assert_eq!(diff.changes.len(), 1);
        prop_assert_eq!(&diff.changes[0].pointer, place);
        let read = |side: fn(&Piece) -> Option<&str>| diff.changes[0].words.iter().filter_map(side).collect::<String>();
        let skipped = diff.changes[0].words.iter().any(|piece| matches!(piece, Piece::Skipped(_)));
        if !skipped {
            prop_assert_eq!(read(|piece| match piece { Piece::Same(t) | Piece::Removed(t) => Some(t), _ => None }), text);
            prop_assert_eq!(read(|piece| match piece { Piece::Same(t) | Piece::Added(t) => Some(t), _ => None }), changed);
        }
    }
}

#[test]
fn prompts_and_resources_differ_in_their_own_members() {
    let object = |value: Value| value.as_object().cloned().unwrap();
    let was = object(json!({ "name": "greet", "description": "Greets.", "inputSchema": 1 }));
    let is = object(json!({ "name": "greet", "description": "Greets!", "arguments": [], "inputSchema": 2 }));
    let changes = diff_of(Action::GetPrompt, &[&was], &[&is]).changes;
    let places: Vec<_> = changes.iter().map(|one| (one.tool.as_str(), one.pointer.as_str())).collect();
    assert_eq!(places, [("prompt greet", "/arguments"), ("prompt greet", "/description")]);
    let (one, other) = (object(json!({ "uri": "demo://a" })), object(json!({ "uri": "demo://b" })));
    let changes = diff_of(Action::ReadResource, &[&one], &[&other]).changes;
    let kinds: Vec<_> = changes.iter().map(|change| (change.tool.as_str(), change.kind)).collect();
    let expected =
        [("resource demo://a", ChangeKind::ToolRemoved), ("resource demo://b", ChangeKind::ToolAdded)];
    assert_eq!(kinds, expected, "no resource is another one renamed");
}
