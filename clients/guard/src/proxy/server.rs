//! The server behind the guard, over whatever transport: what can be sent to it, and what it says.

use super::{
    failure::Failure,
    handover::{AUTHORIZATION_HEADER, Handover, URI_HEADER},
};
use crate::{VerifiedCall, VerifiedListing, VerifiedResponse, mirrored};
use async_trait::async_trait;
use deputize_call::json::Object;
use serde_json::Value;
use std::sync::Arc;

/// A message on its way to the server. There is no way to make one but from a verified value, or as the guard's own.
///
/// INVARIANT: the constructors take verified values by value, and [`Channel::send`] takes this by value: a request
/// that was not verified cannot be forwarded, and one that was cannot be forwarded twice.
pub(crate) struct Outgoing {
    pub(super) body: Vec<u8>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) mirrored: Vec<(String, String)>,
    /// What is asked, by method; empty for a response.
    pub(super) method: String,
    /// The id of the request; absent for what has no answer.
    pub(super) id: Option<Value>,
}

/// What goes with a message so that it can be followed.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    /// W3C trace context, if the caller sent a valid one.
    pub(super) traceparent: Option<String>,
    /// The guard's own id of this request.
    pub(super) request_id: String,
    /// `MCP-Protocol-Version`, where no session has settled it.
    pub(super) version: Option<String>,
}

impl Outgoing {
    pub(super) fn call(
        call: VerifiedCall,
        id: Option<Value>,
        trace: &Trace,
        handover: Option<&Handover>,
    ) -> Self {
        let method = call.action().as_str().to_owned();
        let mut headers = vec![
            ("mcp-method", method.clone()),
            ("mcp-name", mirrored::encode(call.name()).into_owned()),
            (CALL_HEADER, call.token),
        ];
        if let Some(handover) = handover {
            headers.push((URI_HEADER, handover.uri()));
            headers.push((AUTHORIZATION_HEADER, handover.authorization().to_owned()));
        }
        Self { body: call.body, headers, mirrored: call.mirrored, method, id }.traced(trace)
    }

    pub(super) fn listing(listing: VerifiedListing, id: Option<Value>, trace: &Trace) -> Self {
        let headers = vec![("mcp-method", listing.method.clone())];
        Self { body: listing.body, headers, mirrored: Vec::new(), method: listing.method, id }.traced(trace)
    }

    pub(super) fn response(response: VerifiedResponse, trace: &Trace) -> Self {
        let nothing = Vec::new();
        Self { body: response.body, headers: Vec::new(), mirrored: nothing, method: String::new(), id: None }
            .traced(trace)
    }

    /// What the guard says for itself: to list tools, to refuse what the server asks.
    pub(super) fn own(message: &Value, trace: &Trace) -> Self {
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        // A response carries the id of what it answers; that is none of our own.
        let id = message.get("id").filter(|_| !method.is_empty()).cloned();
        let headers = if method.is_empty() { Vec::new() } else { vec![("mcp-method", method.clone())] };
        Self { body: message.to_string().into_bytes(), headers, mirrored: Vec::new(), method, id }
            .traced(trace)
    }

    fn traced(mut self, trace: &Trace) -> Self {
        self.headers.push(("x-request-id", trace.request_id.clone()));
        if let Some(traceparent) = &trace.traceparent {
            self.headers.push(("traceparent", traceparent.clone()));
        }
        if let Some(version) = &trace.version {
            self.headers.push(("mcp-protocol-version", version.clone()));
        }
        self
    }
}

/// One thing that the server said on a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    /// Cursor of the event.
    pub(super) cursor: Option<String>,
    /// How long to wait before resuming, in milliseconds.
    pub(super) retry_ms: Option<u64>,
    /// The message; absent from an event that only sets a cursor.
    pub(super) message: Option<Object>,
}

/// How the server answers.
pub(crate) enum Answer {
    /// It has taken note of a notification or response.
    Accepted,
    /// One message.
    One(Object),
    /// A stream of messages, of which one is the response.
    Many(Box<dyn Messages>),
    /// An error of the protocol, with its HTTP status: such of the caller's requests are let through to him.
    Rejected(u16, Object),
}

/// A stream of messages.
#[async_trait]
pub(crate) trait Messages: Send {
    /// The next one; `None` at the end.
    async fn next(&mut self) -> Option<Result<Said, Failure>>;
}

/// One conversation with the server: a session, or the place for requests that belong to none.
#[async_trait]
pub(crate) trait Channel: Send + Sync {
    /// Sends a message.
    async fn send(&self, outgoing: Outgoing) -> Result<Answer, Failure>;
    /// Listens to what the server says unasked; with a cursor, from there on.
    async fn listen(&self, cursor: Option<&str>, trace: &Trace) -> Result<Box<dyn Messages>, Failure>;
    /// The version that `initialize` settled.
    fn settle_version(&self, version: &str);
    /// Ends the conversation.
    async fn end(&self);
}

/// A server, wherever it runs.
#[async_trait]
pub(crate) trait Server: Send + Sync {
    /// A new conversation, which `initialize` will begin.
    async fn open(&self) -> Result<Arc<dyn Channel>, Failure>;
    /// Where requests without a session go. `legacy`: to a version of MCP that would begin with `initialize`.
    async fn without_session(&self, legacy: bool) -> Result<Arc<dyn Channel>, Failure>;
    /// Ends it, where it is the guard's to end.
    async fn stop(&self) {}
    /// Whether a request without a session can have a stream that lasts.
    fn streams_alone(&self) -> bool {
        false
    }
}

/// The header with the verified token of a call.
pub(super) const CALL_HEADER: &str = "deputize-call";
