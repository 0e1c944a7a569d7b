//! Parameters of an OAuth request, each at most once (RFC 6749 §3.1, §3.2).

use std::collections::BTreeMap;

/// The parameters of one request, by name.
#[derive(Debug)]
pub(crate) struct Parameters(BTreeMap<String, String>);

/// Why they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error("a parameter stands twice")]
    Repeated,
    #[error("too many or too long parameters")]
    TooLarge,
}

impl Parameters {
    /// Reads a query or a form body.
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, ParameterError> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            if parameters.len() == MAX_COUNT || name.len() > MAX_BYTES || value.len() > MAX_BYTES {
                return Err(ParameterError::TooLarge);
            }
            // RFC 6749 §3.1: request parameters MUST NOT be included more than once.
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(ParameterError::Repeated);
            }
        }
        Ok(Self(parameters))
    }

    /// The parameter's value; an empty one counts as absent (RFC 6749 §3.1).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same request with these parameters set instead, encoded anew.
    pub(crate) fn encode_with(&self, changes: &[(&str, &str)]) -> String {
        let kept = self.0.iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).extend_pairs(changes).finish()
    }
}

const MAX_COUNT: usize = 32;
const MAX_BYTES: usize = 2048;
