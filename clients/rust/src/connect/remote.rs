//! The guarded MCP server, over Streamable HTTP: each request with a token and a proof for it.

use super::failure::{Failure, ServerRefusal};
use crate::{
    Client, ToolToken,
    sse::{Event, Reader},
};
use deputize_call::json::Object;
use reqwest::{Method, Response, header};
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use url::Url;

/// The server.
pub(super) struct Remote {
    pub(super) http: reqwest::Client,
    pub(super) url: Url,
    pub(super) client: Arc<Client>,
    /// How long the head of an answer may take.
    pub(super) patience: Duration,
    /// The nonce that the server gave last (RFC 9449 §9).
    nonce: Mutex<Option<String>>,
}

/// One request to it.
pub(super) struct Sending<'s> {
    /// `POST` with a body, `GET` and `DELETE` without.
    pub(super) method: Method,
    pub(super) body: Option<&'s str>,
    pub(super) headers: &'s [(String, String)],
    pub(super) token: &'s ToolToken,
}

/// What came back.
pub(super) enum Answer {
    /// One message, with its HTTP status, and the session that it begins, if it does.
    Message { status: u16, said: Said, session: Option<String> },
    /// A stream of messages.
    Stream { stream: Stream, session: Option<String> },
    /// 202 and the like: there is nothing to say.
    Accepted,
    /// The server, or its guard, does not let it through.
    Refused(ServerRefusal),
}

/// A message of the server: as it stands, on one line, and as it was read.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) message: Object,
}

/// Messages as they come. Dropped, it closes the connection.
pub(super) struct Stream {
    response: Response,
    reader: Reader,
    ready: VecDeque<Event>,
}

impl Remote {
    pub(super) fn new(http: reqwest::Client, url: Url, client: Arc<Client>, patience: Duration) -> Self {
        Self { http, url, client, patience, nonce: Mutex::default() }
    }

    /// Sends it; once more where the server first wants its nonce in the proof. A challenge consumed nothing.
    pub(super) async fn send(&self, sending: &Sending<'_>) -> Result<Answer, Failure> {
        let mut response = self.send_once(sending).await?;
        if wants_nonce(&response) {
            response = self.send_once(sending).await?;
        }
        let session = header_value(&response, SESSION_ID).map(str::to_owned);
        match (response.status().as_u16(), media(&response)) {
            (200, Media::Events) => {
                let stream =
                    Stream { response, reader: Reader::new(MAX_MESSAGE_BYTES), ready: VecDeque::new() };
                Ok(Answer::Stream { stream, session })
            }
            (200, Media::Json) => {
                let said = Said::read(&collect(response).await?)?;
                Ok(Answer::Message { status: 200, said, session })
            }
            (200, Media::Other) => Err(Failure::Broken("it is neither JSON nor a stream of events")),
            (201..=299, _) => Ok(Answer::Accepted),
            _ => refusal(response).await,
        }
    }

    async fn send_once(&self, sending: &Sending<'_>) -> Result<Response, Failure> {
        let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proof = self.client.proof_for(
            sending.method.as_str(),
            self.proven_url().as_str(),
            sending.token.access_token(),
            nonce.as_deref(),
        )?;
        let mut request = self
            .http
            .request(sending.method.clone(), self.url.clone())
            .header(header::ACCEPT, accepted(&sending.method))
            .header(header::AUTHORIZATION, sending.token.authorization().as_str())
            .header("dpop", proof);
        for (name, value) in sending.headers {
            request = request.header(name, value);
        }
        if let Some(body) = sending.body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_owned());
        }
        let response = tokio::time::timeout(self.patience, request.send()).await;
        let response = response.map_err(|_| Failure::TimedOut)?.map_err(unreachable)?;
        // RFC 9449 §8.2: any answer may bring the nonce for the next request.
        if let Some(next) = header_value(&response, "dpop-nonce").filter(|next| next.len() <= MAX_NONCE_BYTES)
        {
            *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(next.to_owned());
        }
        Ok(response)
    }

    /// RFC 9449 §4.2: `htu` is without query and fragment.
    fn proven_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_query(None);
        url
    }
}

impl Answer {
    /// Whether the server says that it does not know the session (MCP 2025-11-25, session management).
    pub(super) fn knows_no_session(&self) -> bool {
        match self {
            Self::Message { status, .. } => *status == 404,
            Self::Refused(refusal) => refusal.status == 404,
            Self::Stream { .. } | Self::Accepted => false,
        }
    }
}

impl Stream {
    /// The next event; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.ready.extend(self.reader.take_in(&piece)?),
                // A connection that breaks ends the stream as one that is closed.
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

impl Said {
    /// Reads one message. As one line it stays what it is: line breaks stand only between the tokens of JSON.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        let message =
            serde_json::from_slice(bytes).map_err(|_| Failure::Broken("it is not one JSON object"))?;
        let text = std::str::from_utf8(bytes).map_err(|_| Failure::Broken("it is not UTF-8"))?;
        Ok(Self { text: text.replace(['\n', '\r'], " "), message })
    }

    /// A message that was changed here.
    pub(super) fn rewritten(message: Object) -> Self {
        Self { text: Value::Object(message.clone()).to_string(), message }
    }

    /// Whether it is the response to the request with this id.
    pub(super) fn answers(&self, id: &Value) -> bool {
        self.is_response() && self.message.get("id") == Some(id)
    }

    /// Whether it is a response at all.
    pub(super) fn is_response(&self) -> bool {
        self.message.contains_key("result") || self.message.contains_key("error")
    }
}

/// An answer with an error status: an error of JSON-RPC is a message, all else a refusal.
async fn refusal(response: Response) -> Result<Answer, Failure> {
    let status = response.status().as_u16();
    let challenge = header_value(&response, "www-authenticate").unwrap_or_default().to_owned();
    let retry_after_seconds = header_value(&response, "retry-after").and_then(|value| value.parse().ok());
    let bytes = if media(&response) == Media::Json { collect(response).await? } else { Vec::new() };
    let body: Object = serde_json::from_slice(&bytes).unwrap_or_default();
    if body.contains_key("jsonrpc") && body.get("error").is_some_and(Value::is_object) {
        return Ok(Answer::Message { status, said: Said::read(&bytes)?, session: None });
    }
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(plain);
    Ok(Answer::Refused(ServerRefusal {
        status,
        code: text("error").or_else(|| parameter(&challenge, "error")).unwrap_or_default(),
        description: text("error_description")
            .or_else(|| parameter(&challenge, "error_description"))
            .unwrap_or_default(),
        needed: body.get("authorization_details").cloned(),
        retry_after_seconds,
    }))
}

/// RFC 9449 §9.
fn wants_nonce(response: &Response) -> bool {
    response.status().as_u16() == 401
        && response.headers().contains_key("dpop-nonce")
        && header_value(response, "www-authenticate")
            .and_then(|challenge| parameter(challenge, "error"))
            .is_some_and(|error| error == "use_dpop_nonce")
}

/// A parameter of a challenge (RFC 9110 §11.6.1).
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let quoted = format!("{name}=\"");
    let at = challenge.match_indices(&quoted).find(|(at, _)| {
        challenge.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with([' ', ',']))
    });
    let value = challenge.get(at?.0 + quoted.len()..)?;
    value.split('"').next().map(plain)
}

async fn collect(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|_| Failure::GoneUnderWay)? {
        if bytes.len() + piece.len() > MAX_MESSAGE_BYTES {
            return Err(Failure::Broken("it is too large"));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// MCP: what each method must say that it accepts.
fn accepted(method: &Method) -> &'static str {
    match *method {
        Method::GET => "text/event-stream",
        _ => "application/json, text/event-stream",
    }
}

#[derive(PartialEq, Eq)]
enum Media {
    Json,
    Events,
    Other,
}

fn media(response: &Response) -> Media {
    let value = header_value(response, "content-type").unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Media::Json,
        "text/event-stream" => Media::Events,
        _ => Media::Other,
    }
}

fn header_value<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// A connection that was never made sent nothing; after that nobody can tell what the server did.
fn unreachable(error: reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::Request("a header cannot hold what stands in it".to_owned());
    }
    if !error.is_connect() {
        return Failure::GoneUnderWay;
    }
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    Failure::Unreachable(plain(&deepest.to_string()))
}

/// What a server says ends before a model and in logs.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect()
}

/// MCP up to 2025-11-25.
pub(super) const SESSION_ID: &str = "mcp-session-id";
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
const MAX_NONCE_BYTES: usize = 256;
const MAX_TEXT_CHARS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_of_a_challenge_is_found_by_its_whole_name() {
        let challenge = r#"DPoP resource_metadata="https://a/b", algs="ES256", error="use_dpop_nonce""#;
        assert_eq!(parameter(challenge, "error").as_deref(), Some("use_dpop_nonce"));
        assert_eq!(parameter(r#"DPoP xerror="a""#, "error"), None);
        assert_eq!(parameter("DPoP", "error"), None);
    }

    #[test]
    fn a_message_on_many_lines_becomes_one() {
        let said = Said::read(b"{\n \"id\": 1,\r\n \"result\": { \"text\": \"a\\nb\" } }").unwrap();
        assert!(!said.text.contains('\n') && said.text.contains("a\\nb"));
        assert!(said.answers(&Value::from(1)) && !said.answers(&Value::from("1")));
        assert!(Said::read(b"[]").is_err() && Said::read(b"{} {}").is_err());
    }
}
