//! An `application/x-www-form-urlencoded` body, read strictly and mostly without copying.

use deputize_issuer::{
    error::IssueError,
    exchange::{Parameters, check_value},
};
use std::borrow::Cow;

/// The parameters of one request: each once, none empty, all UTF-8 without control characters.
#[derive(Debug)]
pub struct Form<'b> {
    parameters: Vec<(Cow<'b, str>, Cow<'b, str>)>,
}

impl<'b> Form<'b> {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`IssueError::Request`] for a parameter that is repeated or empty (RFC 6749 §3.2), invalid percent-encoding,
    /// NUL and other control characters, and more than [`MAX_PARAMETERS`].
    pub fn parse(body: &'b [u8]) -> Result<Self, IssueError> {
        let text = std::str::from_utf8(body).map_err(|_| IssueError::Request("body_not_utf8"))?;
        let mut parameters: Vec<(Cow<'b, str>, Cow<'b, str>)> = Vec::with_capacity(12);
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(IssueError::Request("too_many_parameters"));
            }
            let (name, value) = pair.split_once('=').ok_or(IssueError::Request("parameter_without_value"))?;
            let (name, value) = (decode(name)?, decode(value)?);
            check_value(&name)?;
            check_value(&value)?;
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                return Err(if name == "resource" {
                    IssueError::Target("several_targets")
                } else {
                    IssueError::Request("parameter_repeated")
                });
            }
            parameters.push((name, value));
        }
        Ok(Self { parameters })
    }

    /// A parameter, if it was sent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_ref())
    }

    /// A parameter that must be there; `missing` is the reason if not.
    ///
    /// # Errors
    /// [`IssueError::Request`] with that reason.
    pub fn require(&self, name: &str, missing: &'static str) -> Result<&str, IssueError> {
        self.get(name).ok_or(IssueError::Request(missing))
    }
}

impl Parameters for Form<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, IssueError> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = bytes.next().and_then(hex).zip(bytes.next().and_then(hex));
                let (high, low) = pair.ok_or(IssueError::Request("percent_encoding_invalid"))?;
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| IssueError::Request("parameter_not_utf8"))
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The most parameters in one request.
pub const MAX_PARAMETERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(body: &str) -> &'static str {
        Form::parse(body.as_bytes()).unwrap_err().reason()
    }

    #[test]
    fn parameters_are_decoded() {
        let form = Form::parse(b"a=1&b=x+y%2Fz&c=%C3%A9").unwrap();
        assert_eq!(
            (form.get("a"), form.get("b"), form.get("c"), form.get("d")),
            (Some("1"), Some("x y/z"), Some("é"), None)
        );
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        assert_eq!(reason("a=1&a=2"), "parameter_repeated");
        assert_eq!(reason("a=1&%61=2"), "parameter_repeated");
        assert_eq!(reason("resource=a&resource=b"), "several_targets");
        assert_eq!(reason("a="), "parameter_empty");
        assert_eq!(reason("a=+"), "parameter_empty");
        assert_eq!(reason("a"), "parameter_without_value");
        assert_eq!(reason("a=%"), "percent_encoding_invalid");
        assert_eq!(reason("a=%zz"), "percent_encoding_invalid");
        assert_eq!(reason("a=%+1"), "percent_encoding_invalid");
        assert_eq!(reason("a=%00"), "parameter_with_control_character");
        assert_eq!(reason("a=%ff"), "parameter_not_utf8");
        let many: Vec<String> = (0..=MAX_PARAMETERS).map(|i| format!("p{i}=1")).collect();
        assert_eq!(reason(&many.join("&")), "too_many_parameters");
    }
}
