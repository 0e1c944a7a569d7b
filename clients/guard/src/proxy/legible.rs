//! What a server says ends before people and models. Characters that steer a terminal, turn the direction of text so
//! that a person reads something else than stands there, or spell what a model reads and no person sees, are put in plain
//! sight.

use deputize_call::json::Object;
use serde_json::Value;

/// Puts U+FFFD in the place of each such character, in names and texts.
pub(super) fn make_legible(value: &mut Value) {
    match value {
        Value::String(text) if is_steering(text) => *text = legible(text),
        Value::Array(items) => items.iter_mut().for_each(make_legible),
        Value::Object(object) => make_members_legible(object),
        _ => {}
    }
}

/// The same for an object's members.
fn make_members_legible(object: &mut Object) {
    if object.keys().any(|name| is_steering(name)) {
        let members = std::mem::take(object).into_iter();
        *object = members.map(|(name, value)| (legible(&name), value)).collect();
    }
    object.values_mut().for_each(make_legible);
}

/// The same for the result of a method, but for the members in which the letter counts: `tools` of a list are what was
/// approved, and (MCP 2026-07-28) the state of a question is opaque text, which goes back to the server as it came.
pub(super) fn make_result_legible(method: &str, result: &mut Object) {
    let is_question = result.get("resultType").and_then(Value::as_str) == Some(INPUT_REQUIRED);
    let has_state = is_question && result.get(REQUEST_STATE).is_some_and(Value::is_string);
    let to_the_letter = [(TOOLS, method == "tools/list"), (REQUEST_STATE, has_state)];
    let kept: Vec<(String, Value)> = to_the_letter
        .into_iter()
        .filter(|(_, is_kept)| *is_kept)
        .filter_map(|(name, _)| result.remove_entry(name))
        .collect();
    make_members_legible(result);
    result.extend(kept);
}

fn legible(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn is_steering(text: &str) -> bool {
    // Most texts have no byte that such a character would begin with.
    text.bytes().any(|byte| matches!(byte, 0..=0x1f | 0x7f | 0xc2 | 0xe2 | 0xf3)) && text.chars().any(steers)
}

/// Controls but those that lay out text (ISO 6429: escape sequences begin with one), and the embeddings, overrides and
/// isolates of UAX 9; tag characters, which spell ASCII unseen, and the operators of mathematics that nobody sees. The marks
/// of UAX 9 and what joins or parts letters stay: there are scripts that need them.
fn steers(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

/// MCP 2026-07-28: the type of a result that asks for something first.
pub(super) const INPUT_REQUIRED: &str = "input_required";
/// MCP 2026-07-28: opaque, and echoed in a retry.
const REQUEST_STATE: &str = "requestState";
const TOOLS: &str = "tools";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_steers_is_seen_and_everything_else_stays() {
        for (said, shown) in [
            ("plain\ttext\r\n", "plain\ttext\r\n"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}", "\u{fffd}[2J\u{fffd}]0;title\u{fffd}"),
            ("\u{9b}31m\u{7f}\0", "\u{fffd}31m\u{fffd}\u{fffd}"),
            ("pay_\u{202e}18\u{202c}", "pay_\u{fffd}18\u{fffd}"),
            ("\u{2066}a\u{2069}", "\u{fffd}a\u{fffd}"),
            ("a\u{e0001}\u{e0068}\u{e0069}\u{e007f}", "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("a\u{2060}b\u{2063}", "a\u{fffd}b\u{fffd}"),
            ("\u{845b}\u{e0100}\u{f0000}\u{feff}\u{200c}", "\u{845b}\u{e0100}\u{f0000}\u{feff}\u{200c}"),
            ("é – “quoted” € \u{a0}", "é – “quoted” € \u{a0}"),
            ("\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{200f}!", "\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{200f}!"),
            ("👩\u{200d}🚀", "👩\u{200d}🚀"),
        ] {
            let mut value = json!({ "a": [{ "text": said, "n": 1 }], said: true });
            make_legible(&mut value);
            assert_eq!(value, json!({ "a": [{ "text": shown, "n": 1 }], shown: true }), "{said:?}");
        }
    }

    #[test]
    fn only_the_state_of_a_question_goes_back_as_it_came() {
        let question = |state: Value| json!({ "resultType": "input_required", "requestState": state });
        let hidden = "\u{1b}\u{e0041}";
        let (seen, nested) = ("\u{fffd}\u{fffd}", json!({ "requestState": "\u{1b}\u{e0041}" }));
        for (said, shown) in [
            (question(json!(hidden)), question(json!(hidden))),
            (question(nested.clone()), question(json!({ "requestState": seen }))),
            (question(json!([hidden])), question(json!([seen]))),
            (json!({ "requestState": hidden }), json!({ "requestState": seen })),
            (
                json!({ "resultType": "complete", "requestState": hidden }),
                json!({ "resultType": "complete", "requestState": seen }),
            ),
            (
                json!({ "structuredContent": nested }),
                json!({ "structuredContent": { "requestState": seen } }),
            ),
        ] {
            let mut result = said.as_object().unwrap().clone();
            make_result_legible("tools/call", &mut result);
            assert_eq!(Value::Object(result), shown, "{said}");
        }
    }

    #[test]
    fn only_the_tools_of_a_list_stay_to_the_letter() {
        let hidden = json!("\u{202e}a\u{1b}");
        let (seen, tools) = (json!("\u{fffd}a\u{fffd}"), json!([{ "name": "a", "description": hidden }]));
        let said = json!({ "tools": tools, "nextCursor": hidden, "_meta": { "m": hidden, "tools": hidden } });
        let all_seen = json!({ "m": seen, "tools": seen });
        for (method, kept) in
            [("tools/list", tools.clone()), ("tools/call", json!([{ "name": "a", "description": seen }]))]
        {
            let mut result = said.as_object().unwrap().clone();
            make_result_legible(method, &mut result);
            let shown = json!({ "tools": kept, "nextCursor": seen, "_meta": all_seen });
            assert_eq!(Value::Object(result), shown, "{method}");
        }
    }
}
