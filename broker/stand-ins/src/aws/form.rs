//! The parameters of a query request.

use std::collections::BTreeMap;
use url::form_urlencoded;

use super::answer::Refusal;

/// The parameters, each once.
#[derive(Debug)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a body.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut members = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if members.len() >= MAX_PARAMETERS
                || members.insert(name.into_owned(), value.into_owned()).is_some()
            {
                return Err(Refusal::new(
                    "MalformedQueryString",
                    "a parameter comes twice, or too many come",
                ));
            }
        }
        Ok(Self(members))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether there are these parameters and no others, beside the action and its version. `Name.N` stands for all that are
    /// numbered.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let is_known = |name: &&String| {
            let plain = name.rsplit_once('.').filter(|(_, number)| number.parse::<u32>().is_ok());
            let plain = plain.map_or_else(|| name.to_string(), |(list, _)| format!("{list}.N"));
            plain == "Action" || plain == "Version" || known.contains(&plain.as_str())
        };
        match self.0.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(stranger) => {
                Err(Refusal::new("InvalidParameterValue", format!("{stranger} is not known to the stand-in")))
            }
        }
    }

    /// The values of a numbered parameter, in their order.
    pub(super) fn numbered(&self, name: &str) -> Vec<&str> {
        (1..=MAX_PARAMETERS).map_while(|number| self.get(&format!("{name}.{number}"))).collect()
    }
}

const MAX_PARAMETERS: usize = 100;
