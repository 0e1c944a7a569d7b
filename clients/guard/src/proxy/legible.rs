//! What a server says ends before people and models. Characters that steer a terminal, turn the direction of text so
//! that a person reads something else than stands there, or spell what a model reads and no person sees, are put in plain
//! sight.

use deputize_call::json::Object;
use serde_json::Value;

/// Puts U+FFFD in the place of each such character, in names and texts, but in what goes back to the server as it came.
pub(super) fn make_legible(value: &mut Value) {
    match value {
        Value::String(text) if is_steering(text) => *text = legible(text),
        Value::Array(items) => items.iter_mut().for_each(make_legible),
        Value::Object(object) => make_members_legible(object),
        _ => {}
    }
}

/// The same for an object's members.
pub(super) fn make_members_legible(object: &mut Object) {
    if object.keys().any(|name| is_steering(name)) {
        let members = std::mem::take(object).into_iter();
        *object = members.map(|(name, value)| (legible(&name), value)).collect();
    }
    let said = object.iter_mut().filter(|(name, _)| *name != REQUEST_STATE);
    said.for_each(|(_, value)| make_legible(value));
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

/// MCP 2026-07-28: opaque, and echoed in a retry.
const REQUEST_STATE: &str = "requestState";

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
    fn what_goes_back_to_the_server_is_as_it_came() {
        let state = json!({ "requestState": "\u{1b}", "inputRequests": {} });
        let mut value = state.clone();
        make_legible(&mut value);
        assert_eq!(value, state);
    }
}
