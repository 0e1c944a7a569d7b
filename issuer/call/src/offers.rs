//! What a server offers, counted; and which of it the holder of an L0 token is shown, in a few bytes.
//!
//! A list of names would make the token of a large server larger than a header may be. So a token says, for the offers
//! in an order that both sides know, yes or no, and which offers it was said about.

use crate::{
    action::Action,
    digest::{Digest, digest_canonical},
    json::JsonError,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that can be asked of a server now: its tools, then its prompts, then its resources, each sorted by the
/// bytes of its name (of a resource, the registry's entry).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    numbers: BTreeMap<(Action, String), usize>,
    digest: Digest,
}

/// Which offers are shown, as an L0 token carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Digest of the offers that are meant, prefix `mcp-offers/1`: about others it says nothing.
    pub of: Digest,
    /// One bit for each offer, the first the lowest of the first byte; zero bytes at the end are left out.
    /// Base64url.
    pub bits: String,
}

impl Offers {
    /// Counts these names. Their order does not matter; a name that stands twice counts once.
    ///
    /// # Errors
    /// [`JsonError`] if they have no digest.
    pub fn new<'n>(names: impl IntoIterator<Item = (Action, &'n str)>) -> Result<Self, JsonError> {
        let mut numbers: BTreeMap<(Action, String), usize> =
            names.into_iter().map(|(action, name)| ((action, name.to_owned()), 0)).collect();
        for (number, counted) in numbers.values_mut().enumerate() {
            *counted = number;
        }
        let of =
            |action: Action| numbers.keys().filter(move |key| key.0 == action).map(|key| &key.1).collect();
        let form = Form {
            prompts: of(Action::GetPrompt),
            resources: of(Action::ReadResource),
            tools: of(Action::CallTool),
        };
        let digest = digest_canonical("mcp-offers/1", &form)?;
        Ok(Self { numbers, digest })
    }

    /// What stands for these offers in tokens.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Action, &str)> {
        self.numbers.keys().map(|(action, name)| (*action, name.as_str()))
    }

    /// Those of which this says yes.
    pub fn show(&self, mut is_shown: impl FnMut(Action, &str) -> bool) -> Shown {
        let mut bytes = Vec::new();
        for (number, (action, name)) in self.iter().enumerate() {
            if is_shown(action, name) {
                bytes.resize(bytes.len().max(number / 8 + 1), 0_u8);
                if let Some(last) = bytes.last_mut() {
                    *last |= 1 << (number % 8);
                }
            }
        }
        Shown { of: self.digest, bits: URL_SAFE_NO_PAD.encode(bytes) }
    }

    /// Whether an offer is shown. What says nothing of these offers shows none of them.
    pub fn is_shown(&self, shown: &Shown, action: Action, name: &str) -> bool {
        let Some(number) = self.numbers.get(&(action, name.to_owned())) else { return false };
        let bytes = URL_SAFE_NO_PAD.decode(&shown.bits).unwrap_or_default();
        shown.of == self.digest && bytes.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }
}

impl Shown {
    /// Whether it has the form in which a broker writes it.
    pub(crate) fn is_well_formed(&self) -> bool {
        URL_SAFE_NO_PAD
            .decode(&self.bits)
            .is_ok_and(|bytes| bytes.len() <= MAX_BYTES && bytes.last() != Some(&0))
    }
}

#[derive(Serialize)]
struct Form<'n> {
    prompts: Vec<&'n String>,
    resources: Vec<&'n String>,
    tools: Vec<&'n String>,
}

/// 4,096 offers: more than a registry record can have.
const MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{CallTool, GetPrompt, ReadResource};

    #[test]
    fn what_is_shown_is_read_back_and_nothing_else() {
        let names: Vec<String> = (0..300).map(|number| format!("tool-{number:03}")).collect();
        let rest = [(GetPrompt, "tool-001"), (ReadResource, "demo://a/*")];
        let all = || names.iter().map(|name| (CallTool, name.as_str())).chain(rest);
        let offers = Offers::new(all()).unwrap();
        let chosen = |action, name: &str| action == CallTool && name.ends_with('7') || action == ReadResource;
        let shown = offers.show(chosen);
        assert!(shown.is_well_formed());
        assert!(serde_json::to_string(&shown).unwrap().len() < 128, "{shown:?}");
        for (action, name) in all() {
            assert_eq!(offers.is_shown(&shown, action, name), chosen(action, name), "{name}");
        }
        assert!(!offers.is_shown(&shown, CallTool, "unheard-of"));
        assert!(!offers.is_shown(&shown, GetPrompt, "tool-007"), "a tool's name is not a prompt's");
    }

    #[test]
    fn nothing_is_said_about_other_offers() {
        let offers = Offers::new([(CallTool, "a"), (CallTool, "b")]).unwrap();
        let shown = offers.show(|_, name| name == "a");
        assert_eq!(shown.bits, "AQ");
        for others in [vec![(CallTool, "a")], vec![(CallTool, "a"), (CallTool, "c")], vec![(GetPrompt, "a")]]
        {
            let others = Offers::new(others).unwrap();
            assert!(others.iter().all(|(action, name)| !others.is_shown(&shown, action, name)));
        }
        let none = offers.show(|_, _| false);
        assert_eq!(none.bits, "");
        assert!(none.is_well_formed() && !offers.is_shown(&none, CallTool, "a"));
    }

    #[test]
    fn it_has_one_form() {
        let of = Offers::new([]).unwrap().digest();
        for (bits, is_good) in
            [("AQ", true), ("AQA", false), ("AR", false), ("A", false), ("*", false), ("AQ==", false)]
        {
            assert_eq!(Shown { of, bits: bits.to_owned() }.is_well_formed(), is_good, "{bits}");
        }
        assert!(!Shown { of, bits: URL_SAFE_NO_PAD.encode([1; MAX_BYTES + 1]) }.is_well_formed());
        let orders = [[(CallTool, "a"), (CallTool, "b")], [(CallTool, "b"), (CallTool, "a")]];
        let [one, other] = orders.map(|names| Offers::new(names).unwrap());
        assert_eq!(one, other);
    }
}
