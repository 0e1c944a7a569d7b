//! Streamable HTTP.

use deputize_call::json;
use deputize_client::sse::Reader;
use reqwest::{Method, Response, Url, header};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use zeroize::Zeroizing;

use super::{Answer, Era, LiveError, MAX_MESSAGE_BYTES, MAX_MESSAGE_DEPTH, MODERN, answer_in};

/// The endpoint of a server.
pub struct Http {
    client: reqwest::Client,
    url: Url,
    token: Option<Zeroizing<String>>,
    /// `Mcp-Session-Id` of 2025-11-25 and 2025-06-18.
    session: Option<String>,
    version: Option<String>,
    next_id: u64,
}

impl Http {
    /// The endpoint at `url`: https, or http on loopback; `token` is sent as a bearer token.
    ///
    /// # Errors
    /// [`LiveError::Unreachable`] if it cannot be asked at all.
    pub fn new(
        url: Url,
        token: Option<Zeroizing<String>>,
        ca_file: Option<&Path>,
    ) -> Result<Self, LiveError> {
        let loopback = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(LiveError::Unreachable(format!("{url}: only https, or http on loopback, is asked")));
        }
        // One provider of cryptography in the process; an error only says that it is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = Vec::new();
        if let Some(file) = ca_file {
            let pem = std::fs::read(file).map_err(|error| unreachable(&error))?;
            roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreachable(&error))?;
        }
        let builder = reqwest::Client::builder()
            .user_agent("deputize")
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(REQUEST);
        let builder = if url.scheme() == "http" {
            builder.tls_certs_only(roots)
        } else {
            builder.tls_certs_merge(roots)
        };
        let client = builder.build().map_err(|error| unreachable(&error))?;
        Ok(Self { client, url, token, session: None, version: None, next_id: 0 })
    }

    pub(super) async fn ask(&mut self, era: &Era, method: &str, params: Value) -> Result<Answer, LiveError> {
        self.next_id += 1;
        let id = self.next_id;
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let response = self.send(era, method, &body).await?;
        let status = response.status().as_u16();
        if method == "initialize"
            && let Some(session) = response.headers().get(SESSION)
        {
            self.session = session.to_str().ok().map(str::to_owned);
        }
        let answer = read_answer(response, id).await?;
        match answer {
            Some(answer) => Ok(answer),
            None if matches!(status, 401 | 403) => Err(LiveError::Unauthorized(status)),
            None => Err(LiveError::Protocol(format!("status {status}, and no response in it"))),
        }
    }

    pub(super) async fn tell(&mut self, era: &Era, method: &str) -> Result<(), LiveError> {
        let body = json!({ "jsonrpc": "2.0", "method": method });
        let status = self.send(era, method, &body).await?.status();
        if status.is_success() {
            return Ok(());
        }
        Err(LiveError::Protocol(format!("status {} to a notification", status.as_u16())))
    }

    /// Sessions of the older versions are ended by whoever no longer needs them.
    pub(super) async fn end(self) {
        if let Some(session) = &self.session {
            let request = self.request(Method::DELETE).header(SESSION, session);
            // Whether it minds is the server's affair: we are done.
            let _ = request.timeout(CONNECT).send().await;
        }
    }

    async fn send(&mut self, era: &Era, method: &str, body: &Value) -> Result<Response, LiveError> {
        let mut request = self
            .request(Method::POST)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::ACCEPT_ENCODING, "identity");
        match era {
            Era::Modern => request = request.header(VERSION, MODERN).header("mcp-method", method),
            Era::Legacy(version) => self.version.clone_from(version),
        }
        if let Some(version) = &self.version {
            request = request.header(VERSION, version);
        }
        if let Some(session) = &self.session {
            request = request.header(SESSION, session);
        }
        request.body(body.to_string()).send().await.map_err(|error| unreachable(&error))
    }

    fn request(&self, method: Method) -> reqwest::RequestBuilder {
        let request = self.client.request(method, self.url.clone());
        match &self.token {
            Some(token) => request.bearer_auth(token.as_str()),
            None => request,
        }
    }
}

/// The response to `id`: the body, or the event that carries it. A body that is no JSON-RPC is no response.
async fn read_answer(mut response: Response, id: u64) -> Result<Option<Answer>, LiveError> {
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let streamed = media_type.is_some_and(|media_type| media_type.starts_with("text/event-stream"));
    let (mut read, mut pending, mut events) = (0, Vec::new(), Reader::new(MAX_MESSAGE_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        read += chunk.len();
        if read > MAX_MESSAGE_BYTES {
            return Err(LiveError::TooMuch("a message of more than 8 MiB"));
        }
        if !streamed {
            pending.extend_from_slice(&chunk);
            continue;
        }
        let complete = events.take_in(&chunk).map_err(|error| LiveError::Protocol(error.to_string()))?;
        for event in complete {
            if !event.data.is_empty()
                && let Some(answer) = answer_in(parse(event.data.as_bytes())?, id)
            {
                return Ok(Some(answer));
            }
        }
    }
    if streamed || pending.is_empty() {
        return Ok(None);
    }
    match parse(&pending) {
        Ok(message) => Ok(answer_in(message, id)),
        Err(_) if !response.status().is_success() => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Result<Value, LiveError> {
    json::parse_value(text, MAX_MESSAGE_DEPTH).map_err(|error| LiveError::Protocol(error.to_string()))
}

fn unreachable(error: &dyn std::error::Error) -> LiveError {
    let causes = std::iter::successors(Some(error), |error| error.source());
    LiveError::Unreachable(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_are_asked() {
        for (url, allowed) in [
            ("http://127.0.0.1:1/mcp", true),
            ("http://localhost:1/mcp", true),
            ("http://[::1]:1/mcp", true),
            ("http://crm.example/mcp", false),
            ("http://127.0.0.1.example/mcp", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(Http::new(url.parse().unwrap(), None, None).is_ok(), allowed, "{url}");
        }
    }
}
