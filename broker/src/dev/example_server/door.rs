//! The door of an example server: MCP over Streamable HTTP, every request past a guard.

use super::{ExampleServer, broker::Broker};
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
    keys::KeySet,
    level::Level,
    token,
};
use deputize_guard::{
    Admission, Guard, GuardConfig, IncomingCall, Refusal, Revocation, Snapshot, SnapshotDocument,
    SnapshotError, ToolDocument, Upstream, Verified,
};
use deputize_issuer::{clock::Clock, registry};
use serde_json::json;
use std::sync::Arc;

/// An example server behind its guard.
pub(crate) struct Door {
    server: Arc<ExampleServer>,
    approved: Arc<registry::Server>,
    guard: Guard,
    broker: Arc<Broker>,
    keys: KeySet,
    clock: Arc<dyn Clock>,
}

/// Why a server cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("the resource is not a URL: {0}")]
    Resource(#[from] url::ParseError),
    #[error(transparent)]
    Guard(#[from] JwsError),
    #[error("the registry's record does not hold: {0}")]
    Snapshot(#[from] SnapshotError),
}

impl Door {
    /// Guards `server` as the registry approved it, for tokens of the broker signed with `keys`.
    pub(crate) fn new(
        server: Arc<ExampleServer>,
        approved: Arc<registry::Server>,
        keys: KeySet,
        broker: Arc<Broker>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DoorError> {
        let resource = &approved.record.resource;
        let config = GuardConfig::new(broker.issuer(), resource, resource, &metadata_url(resource)?);
        let guard = Guard::new(config, Arc::clone(&broker) as _, Arc::new(AlwaysThere), clock.now_seconds())?;
        let door = Self { server, approved, guard, broker, keys, clock };
        door.renew()?;
        door.guard.observe_tools(&door.server.definitions().cloned().collect::<Vec<_>>());
        Ok(door)
    }

    /// Tells the guard for another hour what the registry approved.
    pub(crate) fn renew(&self) -> Result<(), SnapshotError> {
        let now_seconds = self.clock.now_seconds();
        let document = snapshot(&self.approved, self.broker.issuer(), &self.keys, now_seconds);
        self.guard.install(Snapshot::from_document(document, now_seconds)?, self.clock.uptime())
    }

    /// Its routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/mcp", post(call))
            .route("/.well-known/oauth-protected-resource/mcp", get(metadata))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self)
    }

    /// The guard learns whether this token was revoked. A token that must be redeemed is asked about then; until
    /// revocations are pushed to guards, the broker is asked about every other one.
    async fn hear_revocation(&self, headers: &HeaderMap) {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let expected = token::Expected {
            issuer: self.broker.issuer(),
            audience: Some(&self.server.record().resource),
            now_seconds: self.clock.now_seconds(),
            leeway_seconds: LEEWAY_SECONDS,
        };
        // Only of a genuine token: else a forgery could have another's token revoked.
        let verified =
            token.and_then(|(_, token)| Some((token, token::verify(token, &self.keys, &expected).ok()?)));
        let Some((token, verified)) = verified else {
            return self.guard.hear_revocations(self.clock.uptime());
        };
        let claims = verified.into_claims();
        let [detail] = &claims.authorization_details;
        if detail.level() == Level::L3 {
            return self.guard.hear_revocations(self.clock.uptime());
        }
        match self.broker.is_active(token).await {
            Ok(true) => self.guard.hear_revocations(self.clock.uptime()),
            Ok(false) => self.guard.revoke(Revocation::Token { jti: claims.jti }, self.clock.uptime()),
            // Silence grows stale, and then the guard stops calls.
            Err(error) => tracing::warn!(%error, "revocation not asked"),
        }
    }
}

async fn call(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Response {
    door.hear_revocation(&headers).await;
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
        "authorization_servers": [door.broker.issuer()],
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

/// What the registry approved, as a guard is told. In one process there is no way on which it could be forged.
fn snapshot(approved: &registry::Server, issuer: &str, keys: &KeySet, now_seconds: u64) -> SnapshotDocument {
    let record = &approved.record;
    SnapshotDocument {
        version: 1,
        issued_at: now_seconds,
        expires_at: now_seconds.saturating_add(SNAPSHOT_SECONDS),
        issuer: issuer.to_owned(),
        server_id: record.id.clone(),
        resource: record.resource.clone(),
        tenant: record.tenant.clone(),
        manifest_digest: approved.manifest_digest,
        jwks: keys.to_jwks(),
        tools: approved
            .tools()
            .map(|tool| ToolDocument {
                definition: tool.record.definition.clone(),
                tool_digest: tool.tool_digest,
                least_level: tool.least_level,
                tier: tool.record.tier.as_str().to_owned(),
            })
            .collect(),
        revocations: Vec::new(),
    }
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
const LEEWAY_SECONDS: u64 = 5;
/// The longest that a guard accepts.
const SNAPSHOT_SECONDS: u64 = 3600;
