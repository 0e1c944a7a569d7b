//! A server that speaks Streamable HTTP.

use super::{
    failure::Failure,
    launched::{Launched, Told},
    server::{Answer, Channel, Messages, Outgoing, Said, Server, Trace},
    settings::{HttpUpstream, SettingsError},
};
use async_trait::async_trait;
use bytes::Bytes;
use deputize_call::json::Object;
use deputize_client::{
    Clock,
    sse::{Event, Reader},
};
use reqwest::{Response, header};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The server.
pub(super) struct HttpServer {
    link: Arc<Link>,
    launched: Option<Launched>,
}

/// How it is reached.
struct Link {
    client: reqwest::Client,
    upstream: HttpUpstream,
    /// Of a program that the guard starts: the header that it knows the guard by, and what it was told stands in it.
    told: Option<(String, Arc<Told>)>,
}

/// One conversation: a session, if the server gives one.
struct HttpChannel {
    link: Arc<Link>,
    session: OnceLock<String>,
    version: OnceLock<String>,
}

impl HttpServer {
    /// Connects when it is first needed.
    pub(super) fn new(mut upstream: HttpUpstream, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        // For what is not configured here the process's provider is used; an error says that it has one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            // A redirect would carry a verified call to where nobody approved.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT);
        let unusable = |error: reqwest::Error| SettingsError::Certificates(error.to_string());
        if let Some(pem) = &upstream.ca_pem {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?);
        }
        if let Some(pem) = &upstream.identity_pem {
            builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(unusable)?);
        }
        let client = builder.build().map_err(unusable)?;
        let (launched, told) = match upstream.program.take() {
            Some(program) => {
                let header = program.secret_header.clone();
                let launched = Launched::start(program, clock);
                let told = (header, launched.told());
                (Some(launched), Some(told))
            }
            None => (None, None),
        };
        Ok(Self { link: Arc::new(Link { client, upstream, told }), launched })
    }

    fn channel(&self) -> Arc<dyn Channel> {
        let (session, version) = (OnceLock::new(), OnceLock::new());
        Arc::new(HttpChannel { link: Arc::clone(&self.link), session, version })
    }
}

#[async_trait]
impl Server for HttpServer {
    async fn open(&self) -> Result<Arc<dyn Channel>, Failure> {
        Ok(self.channel())
    }

    async fn without_session(&self, _legacy: bool) -> Result<Arc<dyn Channel>, Failure> {
        // Whether it takes requests without a session is the server's to say.
        Ok(self.channel())
    }

    async fn stop(&self) {
        if let Some(launched) = &self.launched {
            launched.stop().await;
        }
    }

    fn streams_alone(&self) -> bool {
        true
    }
}

#[async_trait]
impl Channel for HttpChannel {
    async fn send(&self, outgoing: Outgoing) -> Result<Answer, Failure> {
        let asked = outgoing.id.is_some();
        let begins = outgoing.method == "initialize";
        let mut request = self.request(reqwest::Method::POST)?;
        for (name, value) in &outgoing.headers {
            request = request.header(*name, value);
        }
        for (name, value) in &outgoing.mirrored {
            request = request.header(name, value);
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(outgoing.body);
        let response = self.ask(request).await?;
        if begins
            && response.status().is_success()
            && let Some(session) = response.headers().get(SESSION_ID).and_then(|id| id.to_str().ok())
        {
            // Only the first counts: a conversation has one session.
            let _ = self.session.set(session.to_owned());
        }
        self.read(response, asked).await
    }

    async fn listen(&self, cursor: Option<&str>, trace: &Trace) -> Result<Box<dyn Messages>, Failure> {
        let mut request = self
            .request(reqwest::Method::GET)?
            .header(header::ACCEPT, "text/event-stream")
            .header("x-request-id", &trace.request_id);
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = self.ask(request).await?;
        match response.status().as_u16() {
            200 if media_type(&response) == Some(Media::Events) => Ok(self.stream(response)),
            200 => Err(Failure::Broken("another media type")),
            400 | 405 => Err(Failure::NoStream),
            status => Err(self.failure(status)),
        }
    }

    fn settle_version(&self, version: &str) {
        // A conversation has one version, the one of its beginning.
        let _ = self.version.set(version.to_owned());
    }

    async fn end(&self) {
        if self.session.get().is_some()
            && let Ok(request) = self.request(reqwest::Method::DELETE)
        {
            // A server may refuse to end sessions (405), or be gone: nobody can use this one any more either way.
            drop(self.ask(request).await);
        }
    }
}

impl HttpChannel {
    /// A request, with what proves the guard. There is none to a program that does not run.
    fn request(&self, method: reqwest::Method) -> Result<reqwest::RequestBuilder, Failure> {
        let mut request = self.link.client.request(method, self.link.upstream.url.clone());
        if let Some((name, value)) = &self.link.upstream.secret {
            request = request.header(name.as_str(), value.as_str());
        }
        if let Some((name, told)) = &self.link.told {
            let secret = told.secret().ok_or(Failure::Unreachable)?;
            request = request.header(name.as_str(), secret.as_str());
        }
        if let Some(session) = self.session.get() {
            request = request.header(SESSION_ID, session);
        }
        if let Some(version) = self.version.get() {
            request = request.header("mcp-protocol-version", version);
        }
        Ok(request)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        let sent = tokio::time::timeout(self.link.upstream.answer_timeout, request.send()).await;
        sent.map_err(|_| Failure::TimedOut)?.map_err(|error| {
            tracing::warn!(%error, "server not reached");
            Failure::Unreachable
        })
    }

    async fn read(&self, response: Response, asked: bool) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        match (status, media_type(&response)) {
            (202 | 204, _) if !asked => Ok(Answer::Accepted),
            (200, _) if !asked => Ok(Answer::Accepted),
            (200, Some(Media::Json)) => Ok(Answer::One(self.message(response).await?)),
            (200, Some(Media::Events)) => Ok(Answer::Many(self.stream(response))),
            (200..=299, _) => Err(Failure::Broken("another media type")),
            // A session that the server no longer knows, or a method that it does not.
            (400 | 404, Some(Media::Json)) if asked => match self.message(response).await {
                Ok(message) if message.contains_key("error") && message.contains_key("jsonrpc") => {
                    let is_gone = status == 404 && self.session.get().is_some();
                    if is_gone { Err(Failure::UnknownSession) } else { Ok(Answer::Rejected(status, message)) }
                }
                _ => Err(self.failure(status)),
            },
            (status, _) => Err(self.failure(status)),
        }
    }

    fn failure(&self, status: u16) -> Failure {
        match status {
            401 | 403 => Failure::GuardRefused,
            404 if self.session.get().is_some() => Failure::UnknownSession,
            502..=504 => Failure::Unreachable,
            _ => Failure::Broken("an HTTP error"),
        }
    }

    async fn message(&self, response: Response) -> Result<Object, Failure> {
        let bytes = tokio::time::timeout(self.link.upstream.answer_timeout, self.collect(response)).await;
        let bytes = bytes.map_err(|_| Failure::TimedOut)??;
        // What is let through is what is read here: a member that stands twice is gone, whichever the server meant.
        serde_json::from_slice(&bytes).map_err(|_| Failure::Broken("what is not one JSON object"))
    }

    async fn collect(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|_| Failure::Unreachable)? {
            if bytes.len() + piece.len() > self.link.upstream.max_answer_bytes {
                return Err(Failure::TooLarge);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn stream(&self, response: Response) -> Box<dyn Messages> {
        let max = self.link.upstream.max_answer_bytes;
        Box::new(EventStream { response, reader: Reader::new(max), ready: VecDeque::new() })
    }
}

/// The events of an answer. Dropped, it closes the connection.
struct EventStream {
    response: Response,
    reader: Reader,
    ready: VecDeque<Event>,
}

#[async_trait]
impl Messages for EventStream {
    async fn next(&mut self) -> Option<Result<Said, Failure>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(said(event));
            }
            let piece: Bytes = match self.response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return None,
                Err(_) => return Some(Err(Failure::Unreachable)),
            };
            match self.reader.take_in(&piece) {
                Ok(events) => self.ready.extend(events),
                Err(unreadable) => return Some(Err(unreadable.into())),
            }
        }
    }
}

fn said(event: Event) -> Result<Said, Failure> {
    let message = match event.data.as_str() {
        "" => None,
        data => Some(
            serde_json::from_str(data).map_err(|_| Failure::Broken("an event that is not one message"))?,
        ),
    };
    Ok(Said { cursor: event.id, retry_ms: event.retry_ms, message })
}

#[derive(PartialEq, Eq)]
enum Media {
    Json,
    Events,
}

fn media_type(response: &Response) -> Option<Media> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Some(Media::Json)
    } else if media.eq_ignore_ascii_case("text/event-stream") {
        Some(Media::Events)
    } else {
        None
    }
}

const SESSION_ID: &str = "mcp-session-id";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
