//! AWS credentials for the one call that a server is running: asked of the broker in that server's name, with the token
//! that it was called with.

use crate::{
    answer,
    client::Client,
    error::ExchangeError,
    sealed,
    transport::{Post, Received},
};
use deputize_call::json::Object;
use serde::Deserialize;
use serde_json::Value;
use url::form_urlencoded;
use zeroize::Zeroizing;

/// What credentials are asked for: the call that runs.
#[derive(Clone, Copy)]
pub struct AwsAsk<'a> {
    token: &'a str,
    arguments: &'a Object,
    input_responses: Option<&'a Value>,
    request_state: Option<&'a Value>,
    template: Option<&'a str>,
}

/// AWS credentials for one call. What they may do ends with their window.
#[derive(Clone)]
pub struct AwsCredentials {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Zeroizing<String>,
    expiration: String,
    expires_at_seconds: u64,
    account_id: Option<String>,
    decision_id: Option<String>,
}

/// As the broker writes it, and as a container's endpoint does.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answered {
    version: Option<u32>,
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "Token")]
    session_token: String,
    expiration: String,
    account_id: Option<String>,
    #[serde(rename = "decision_id")]
    decision_id: Option<String>,
}

impl<'a> AwsAsk<'a> {
    /// For the call of this token with these arguments: those that the token was verified with, and no others.
    pub fn new(token: &'a str, arguments: &'a Object) -> Self {
        Self { token, arguments, input_responses: None, request_state: None, template: None }
    }

    /// What steers it, where the call is a retry of a multi-round-trip call (`inputResponses`, `requestState`).
    #[must_use]
    pub fn steered_by(mut self, responses: Option<&'a Value>, state: Option<&'a Value>) -> Self {
        (self.input_responses, self.request_state) = (responses, state);
        self
    }

    /// The role template that has to match.
    #[must_use]
    pub fn template(mut self, name: &'a str) -> Self {
        self.template = Some(name);
        self
    }

    fn form(&self) -> Zeroizing<String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("subject_token", self.token);
        form.append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:access_token");
        form.append_pair("arguments", &serde_json::to_string(self.arguments).unwrap_or_default());
        for (name, value) in
            [("input_responses", self.input_responses), ("request_state", self.request_state)]
        {
            if let Some(value) = value {
                form.append_pair(name, &value.to_string());
            }
        }
        if let Some(template) = self.template {
            form.append_pair("template", template);
        }
        Zeroizing::new(form.finish())
    }
}

impl Client {
    /// Asks for the AWS credentials of the call that this server runs, as the audience of its token. They are the same
    /// for one token however often they are asked for; keep them until they expire.
    ///
    /// Where this client has decryption keys ([`ClientBuilder::decryption_key`](crate::ClientBuilder::decryption_key)),
    /// only an answer that is sealed to one of them is taken.
    ///
    /// # Errors
    /// [`ExchangeError`]: a denial names its decision; [`ExchangeError::Unavailable`] says when to come back.
    pub async fn aws_credentials(&self, asked: &AwsAsk<'_>) -> Result<AwsCredentials, ExchangeError> {
        let url = &self.endpoints().await?.aws_credentials;
        let form = self.authenticated(&asked.form())?;
        let accept = if self.decryption_keys.is_empty() { JSON } else { SEALED };
        let post = Post { url, form: &form, proof: None, wait_seconds: None, accept };
        let received = self.transport.post(&post).await?;
        if received.status != 200 {
            return Err(answer::refusal(&received));
        }
        AwsCredentials::from_json(&self.opened(received)?)
    }

    fn opened(&self, received: Received) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
        let body = Zeroizing::new(received.body);
        match (received.media_type.as_str(), self.decryption_keys.as_slice()) {
            (JSON, []) => Ok(body),
            // Whoever ends TLS on the way could have opened it up; it would be read by others too.
            (JSON, _) => Err(ExchangeError::Protocol(
                "the answer is not sealed: put the key with use \"enc\" into the JWKS that the broker has of this client",
            )),
            (SEALED, []) => {
                Err(ExchangeError::Protocol("the answer is sealed: give the client its decryption key"))
            }
            (SEALED, keys) => {
                let text = std::str::from_utf8(&body).map_err(|_| sealed::NOT_SEALED)?;
                sealed::open(text, keys)
            }
            _ => Err(ExchangeError::Protocol("the answer about AWS credentials is of another media type")),
        }
    }
}

impl AwsCredentials {
    /// Reads what the broker answers, or a container's endpoint.
    ///
    /// # Errors
    /// [`ExchangeError::Protocol`].
    pub fn from_json(text: &[u8]) -> Result<Self, ExchangeError> {
        let answered: Answered = serde_json::from_slice(text).map_err(|_| MALFORMED)?;
        let Answered { version, access_key_id, expiration, account_id, .. } = answered;
        let secret_access_key = Zeroizing::new(answered.secret_access_key);
        let session_token = Zeroizing::new(answered.session_token);
        // They go into header fields and signatures, and into files of lines.
        let is_plain = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let expires_at_seconds = seconds(&expiration).filter(|_| {
            version.is_none_or(|version| version == 1)
                && is_plain(&access_key_id, MAX_ID_BYTES)
                && is_plain(&secret_access_key, MAX_ID_BYTES)
                && is_plain(&session_token, MAX_TOKEN_BYTES)
                && account_id.as_deref().is_none_or(|id| is_plain(id, MAX_ID_BYTES))
        });
        let expires_at_seconds = expires_at_seconds.ok_or(MALFORMED)?;
        let decision_id = answered.decision_id.as_deref().map(answer::plain);
        Ok(Self {
            access_key_id,
            secret_access_key,
            session_token,
            expiration,
            expires_at_seconds,
            account_id,
            decision_id,
        })
    }

    /// `AccessKeyId`.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
    /// `SecretAccessKey`.
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }
    /// `SessionToken`.
    pub fn session_token(&self) -> &str {
        &self.session_token
    }
    /// The end of their window, in seconds since the epoch.
    pub fn expires_at_seconds(&self) -> u64 {
        self.expires_at_seconds
    }
    /// The account in which they are good.
    pub fn account_id(&self) -> Option<&str> {
        self.account_id.as_deref()
    }
    /// The decision that gave them: what an operator asks `explain` about, and the session's name in AWS's own log. A
    /// container's endpoint does not say it.
    pub fn decision_id(&self) -> Option<&str> {
        self.decision_id.as_deref()
    }

    /// What a `credential_process` prints.
    pub fn to_process_json(&self) -> Zeroizing<String> {
        self.written("\"Version\":1,", "SessionToken")
    }

    /// What a container's credential endpoint answers (`AWS_CONTAINER_CREDENTIALS_FULL_URI`).
    pub fn to_container_json(&self) -> Zeroizing<String> {
        self.written("", "Token")
    }

    /// Written by hand, so that secrets are in no buffer that is not wiped.
    fn written(&self, first: &str, token: &str) -> Zeroizing<String> {
        let mut text =
            Zeroizing::new(String::with_capacity(MAX_WRITTEN_BYTES + 2 * self.session_token.len()));
        let members = [
            ("AccessKeyId", self.access_key_id.as_str()),
            ("SecretAccessKey", self.secret_access_key.as_str()),
            (token, self.session_token.as_str()),
            ("Expiration", self.expiration.as_str()),
            ("AccountId", self.account_id.as_deref().unwrap_or_default()),
        ];
        text.push('{');
        text.push_str(first);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_empty()) {
            for piece in ["\"", name, "\":\""] {
                text.push_str(piece);
            }
            // INVARIANT: all of them are visible ASCII (`read`), of which JSON escapes these two alone (RFC 8259 §7).
            for character in value.chars() {
                if matches!(character, '"' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push_str("\",");
        }
        text.pop();
        text.push('}');
        text
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ` in seconds since the epoch; no other form (RFC 3339 §5.6 admits more, AWS's SDKs less).
fn seconds(moment: &str) -> Option<u64> {
    let bytes = moment.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if bytes.len() != 20 || separators.iter().any(|(at, byte)| bytes.get(*at) != Some(byte)) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = moment.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in = |month: u64| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_moment = year >= 1970 && (1..=12).contains(&month) && (1..=days_in(month)).contains(&day);
    if !is_moment || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    let days = years + (1..month).map(days_in).sum::<u64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

impl std::fmt::Debug for AwsAsk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsAsk").field("template", &self.template).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsCredentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .field("decision_id", &self.decision_id)
            .finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
const SEALED: &str = "application/jose";
const MALFORMED: ExchangeError = ExchangeError::Protocol("the answer about AWS credentials is malformed");
const MAX_ID_BYTES: usize = 256;
/// AWS gives no bound of session tokens; those of today are about 1,000 characters.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// All but the session token.
const MAX_WRITTEN_BYTES: usize = 8 * MAX_ID_BYTES;

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_moment_is_read_in_one_form() {
        for (moment, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-22T01:02:03Z", 1_795_309_323),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(seconds(moment), Some(expected), "{moment}");
        }
        for wrong in [
            "",
            "2026-11-22T01:02:03",
            "2026-11-22 01:02:03Z",
            "2026-11-22T01:02:03z",
            "2026-11-22T01:02:03.5Z",
            "2026-11-22T01:02:03+00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T01:60:03Z",
            "2026-11-22T01:02:60Z",
            "1969-12-31T23:59:59Z",
            "+026-11-22T01:02:03Z",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
