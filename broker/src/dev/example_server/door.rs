//! The door of an example server: MCP over Streamable HTTP, every request past a guard.

use super::ExampleServer;
use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use deputize_call::{
    claims::ToolCallClaims,
    json::{self, Object},
    jws::JwsError,
};
use deputize_guard::{
    Admission, Guard, GuardConfig, IncomingCall, Refusal, Upstream, Verified,
    link::{Clock, Link, LinkError, LinkSettings},
};
use serde_json::json;
use std::sync::Arc;

/// An example server behind its guard, which the broker keeps supplied as it does any other.
pub(crate) struct Door {
    server: Arc<ExampleServer>,
    guard: Arc<Guard>,
    link: Link,
    clock: Arc<dyn Clock>,
    issuer: String,
}

/// Why a server cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("the resource is not a URL: {0}")]
    Resource(#[from] url::ParseError),
    #[error(transparent)]
    Guard(#[from] JwsError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Door {
    /// Guards `server`, with this link to its broker.
    pub(crate) fn new(server: Arc<ExampleServer>, settings: LinkSettings) -> Result<Self, DoorError> {
        let (issuer, resource) = (settings.issuer.clone(), settings.resource.clone());
        let link = Link::start(settings)?;
        let clock = link.clock();
        let config = GuardConfig::new(&issuer, &resource, &resource, &metadata_url(&resource)?);
        let guard = Guard::new(config, link.redeemer(), Arc::new(AlwaysThere), clock.now_seconds())?;
        let guard = Arc::new(guard);
        guard.observe_tools(&server.definitions().cloned().collect::<Vec<_>>());
        link.follow(Arc::clone(&guard));
        Ok(Self { server, guard, link, clock, issuer })
    }

    /// Waits until the guard knows what the registry approved.
    pub(crate) async fn ready(&self) {
        self.link.ready().await;
    }

    /// Its routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/mcp", post(call))
            .route("/.well-known/oauth-protected-resource/mcp", get(metadata))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self)
    }
}

async fn call(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut fields = Vec::with_capacity(headers.len());
    for (name, value) in &headers {
        let Ok(value) = value.to_str() else { return StatusCode::BAD_REQUEST.into_response() };
        fields.push((name.as_str(), value));
    }
    let incoming = IncomingCall {
        method: "POST",
        headers: &fields,
        body: &body,
        client_certificate: None,
        uptime: door.clock.uptime(),
        now_seconds: door.clock.now_seconds(),
    };
    let (verified_body, next_nonce) = match door.guard.verify(&incoming).await {
        Ok(Verified::Call(call)) => (json::parse_object(call.rebuilt_body()), call.next_nonce().to_owned()),
        Ok(Verified::Listing(listing)) => {
            (json::parse_object(listing.rebuilt_body()), listing.next_nonce().to_owned())
        }
        // The server asks nothing of its clients, so there is nothing to respond to.
        Ok(Verified::Response(_)) => return StatusCode::BAD_REQUEST.into_response(),
        Err(refusal) => return refuse(&refusal),
    };
    let mut response = match verified_body {
        Ok(message) => answer(&door.server, &message),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    set(&mut response, HeaderName::from_static("dpop-nonce"), &next_nonce);
    response
}

fn answer(server: &ExampleServer, message: &Object) -> Response {
    match server.answer(message) {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::ACCEPTED.into_response(),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    tracing::info!(reason = %refusal.reason, status = refusal.status, "call refused");
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = (status, Json(refusal.body())).into_response();
    for challenge in &refusal.challenges {
        set(&mut response, header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(nonce) = &refusal.dpop_nonce {
        set(&mut response, HeaderName::from_static("dpop-nonce"), nonce);
    }
    if let Some(seconds) = refusal.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}

/// RFC 9728 §3.2: where a client without a token learns whom to ask for one.
async fn metadata(State(door): State<Arc<Door>>) -> Response {
    Json(json!({
        "resource": door.server.record().resource,
        "authorization_servers": [door.issuer],
        "dpop_bound_access_tokens_required": true,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "authorization_details_types_supported": [deputize_call::claims::DETAIL_TYPE],
    }))
    .into_response()
}

/// RFC 9728 §3.1: the well-known path stands before the resource's own.
fn metadata_url(resource: &str) -> Result<String, url::ParseError> {
    let mut url = url::Url::parse(resource)?;
    let path = format!("/.well-known/oauth-protected-resource{}", url.path());
    url.set_path(&path);
    Ok(url.into())
}

/// The server is in this process: it is there as long as its door.
struct AlwaysThere;

#[async_trait]
impl Upstream for AlwaysThere {
    async fn admit(&self, _: &ToolCallClaims) -> Admission {
        Admission::Ready
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("resource", &self.server.record().resource).finish_non_exhaustive()
    }
}

/// The guard says itself what is too large; this only bounds what it is shown.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
