//! `POST /node/exchange`: a process on a node swaps its user's token. The messages are those of the socket
//! ([`crate::proto::exchange`]), member by member.

use prost::Message as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::SeenProcess;
use crate::{
    exchange::MAX_REQUEST_BYTES,
    proto::exchange::{ExchangeRequest, ExchangeResponse},
};

/// `POST /node/exchange`. Its token and its proof are wiped when it is dropped.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeAsk {
    /// Name of the entry.
    pub entry: String,
    /// Who asks.
    pub process: SeenProcess,
    /// What it asks.
    #[serde(with = "Asked")]
    pub request: ExchangeRequest,
}

/// Its answer. The token is wiped when it is dropped.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangeAnswer(#[serde(with = "Answered")] ExchangeResponse);

impl ExchangeAsk {
    /// Whether the request is longer than any that the socket takes.
    pub fn is_too_long(&self) -> bool {
        self.request.encoded_len() > MAX_REQUEST_BYTES
    }
}

impl ExchangeAnswer {
    /// Says this.
    pub fn new(response: ExchangeResponse) -> Self {
        Self(response)
    }

    /// What is said.
    pub fn into_response(mut self) -> ExchangeResponse {
        std::mem::take(&mut self.0)
    }
}

impl Drop for ExchangeAsk {
    fn drop(&mut self) {
        self.request.subject_token.zeroize();
        self.request.dpop.zeroize();
    }
}

impl Drop for ExchangeAnswer {
    fn drop(&mut self) {
        self.0.access_token.zeroize();
    }
}

/// The members of [`ExchangeRequest`]; what is empty there may be left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(remote = "ExchangeRequest", deny_unknown_fields, default)]
struct Asked {
    dpop: String,
    spiffe_id: String,
    subject_token: String,
    subject_token_type: String,
    resource: String,
    scope: String,
    authorization_details: String,
    transaction_id: String,
    approval_id: String,
    parent_request_id: String,
    host: String,
    model: String,
    workflow: String,
    traceparent: String,
}

/// The members of [`ExchangeResponse`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "ExchangeResponse")]
struct Answered {
    access_token: String,
    issued_token_type: String,
    token_type: String,
    expires_in: u64,
    scope: String,
    authorization_details: String,
    transaction_id: String,
    decision_id: String,
    dpop_nonce: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ask() -> Value {
        json!({
            "entry": "web", "process": { "selectors": ["unix:uid:1000"], "contained": false },
            "request": { "dpop": "a proof", "subject_token": "a token", "resource": "https://crm.example/mcp" },
        })
    }

    #[test]
    fn what_is_asked_arrives_as_it_was_and_is_not_printed() {
        let read: ExchangeAsk = serde_json::from_value(ask()).unwrap();
        let again: ExchangeAsk = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(read.request, again.request);
        assert_eq!((read.request.dpop.as_str(), read.request.scope.as_str()), ("a proof", ""));
        let shown = format!("{read:?}");
        assert!(!shown.contains("a proof") && !shown.contains("a token"), "{shown}");
        let answer = ExchangeAnswer::new(ExchangeResponse {
            access_token: "secret".to_owned(),
            expires_in: 90,
            ..ExchangeResponse::default()
        });
        let told = serde_json::to_value(&answer).unwrap();
        assert_eq!((&told["access_token"], &told["expires_in"]), (&json!("secret"), &json!(90)));
        assert!(!format!("{answer:?}").contains("secret"));
        let heard: ExchangeAnswer = serde_json::from_value(told).unwrap();
        assert_eq!(heard.into_response().access_token, "secret");
    }

    #[test]
    fn what_nobody_reads_is_no_part_of_it() {
        for (place, member) in [("", "node"), ("/request", "client_id"), ("/request", "actor_token")] {
            let mut twisted = ask();
            twisted.pointer_mut(place).unwrap()[member] = json!("x");
            assert!(serde_json::from_value::<ExchangeAsk>(twisted).is_err(), "{place}/{member}");
        }
    }

    #[test]
    fn longer_than_the_socket_takes_is_too_long() {
        let mut read: ExchangeAsk = serde_json::from_value(ask()).unwrap();
        assert!(!read.is_too_long());
        read.request.authorization_details = "x".repeat(MAX_REQUEST_BYTES);
        assert!(read.is_too_long());
    }
}
