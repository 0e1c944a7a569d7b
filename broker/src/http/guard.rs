//! What guards ask and tell: `GET /guard/snapshot`, `GET /guard/events`, `POST /guard/events`.
//!
//! A guard proves itself as the client that its server is, with a fresh assertion (RFC 7523) as bearer of each request or
//! by the certificate of its TLS connection, and speaks of that server alone.

use axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use deputize_call::json::{self, MAX_DEPTH};
use deputize_guard::EventRecord;
use deputize_issuer::{
    authenticate::{Caller, Possession, Presented, authenticate},
    certificate::PresentedCertificate,
    error::IssueError,
    record::{Refused, record_denial, record_spent},
    registry::Server,
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    error::{self, DoorError, Refusal},
    form::Form,
    lifecycle::to_its_end,
    source::RequestId,
};
use crate::guards::Guards;

/// Answers `GET /guard/snapshot`: what the registry approved for this guard's server, signed.
pub async fn snapshot(
    State(guards): State<Arc<Guards>>,
    Extension(RequestId(id)): Extension<RequestId>,
    sender: Sender,
) -> Response {
    answer(&guards, (id, &sender), async |caller, server| {
        record_spent(guards.desk(), caller.spent()).await?;
        let snapshot = guards.snapshot(server).await?;
        let content = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Ok((content, snapshot.text).into_response())
    })
    .await
}

/// Answers `GET /guard/events`: the snapshot, then what changes, as it changes.
pub async fn stream(
    State(guards): State<Arc<Guards>>,
    Extension(RequestId(id)): Extension<RequestId>,
    sender: Sender,
) -> Response {
    answer(&guards, (id, &sender), async |caller, server| {
        record_spent(guards.desk(), caller.spent()).await?;
        let feed = guards.feed(caller.client(), server).await?;
        let content = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        Ok((content, Body::new(feed)).into_response())
    })
    .await
}

/// Answers `POST /guard/events`: what a guard saw.
pub async fn report(
    State(guards): State<Arc<Guards>>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let sender = Sender::of(&parts);
    // What is recorded is also remembered, though the guard went away.
    to_its_end(async move {
        // Who speaks is known before anything of the body is read: nobody else takes up room with one.
        answer(&guards, (id, &sender), async |caller, server| {
            let place = guards.body_place(server);
            let place = place.ok_or(IssueError::RateLimited { retry_after_seconds: 1 })?;
            let body = match receive(&parts.headers, body).await {
                Ok(body) => body,
                Err(error) => {
                    guards.desk().refusals.count(error.reason());
                    record_spent(guards.desk(), caller.spent()).await?;
                    return Ok(error.into_response());
                }
            };
            drop(place);
            let accepted = guards.report(caller, server, read(&body)?).await?;
            Ok(error::json(StatusCode::OK, &json!({ "accepted": accepted })))
        })
        .await
    })
    .await
}

/// Authenticates the guard, finds its server, and records a refusal with its client.
async fn answer<F>(guards: &Guards, (decision_id, sender): (Uuid, &Sender), act: F) -> Response
where
    F: AsyncFnOnce(&Caller, &Server) -> Result<Response, IssueError>,
{
    let desk = guards.desk();
    let answered = async {
        let presented = sender.client().inspect_err(|error| desk.refusals.count(error.reason()))?;
        let shown = Possession { proof: None, certificate: sender.certificate.as_deref() };
        let caller = authenticate(desk, decision_id, presented, shown).await?;
        let acted = match guards.server_of(caller.client()) {
            Ok(server) => act(&caller, &server).await,
            Err(error) => Err(error),
        };
        match acted {
            Ok(response) => Ok(response),
            Err(error) => Err(recorded(guards, decision_id, &caller, error).await),
        }
    };
    answered.await.unwrap_or_else(|error| {
        Refusal { error, decision_id, issuer: desk.settings.issuer.clone() }.into_response()
    })
}

async fn recorded(guards: &Guards, decision_id: Uuid, caller: &Caller, error: IssueError) -> IssueError {
    let resource = caller.client().server.as_deref();
    let refused = Refused { caller: Some(caller), resource, ..Refused::default() };
    record_denial(guards.desk(), decision_id, refused, &error).await.err().unwrap_or(error)
}

/// What says who sends a request.
pub struct Sender {
    headers: HeaderMap,
    certificate: Option<Arc<PresentedCertificate>>,
    /// `client_id`, which a guard with a certificate that does not say who it is puts into the query.
    client_id: Result<Option<String>, IssueError>,
}

impl Sender {
    fn of(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let client_id = Form::parse(query).map(|form| form.get("client_id").map(str::to_owned));
        Self { headers: parts.headers.clone(), certificate: parts.extensions.get().cloned(), client_id }
    }

    fn client(&self) -> Result<Presented<'_>, IssueError> {
        let client_id = self.client_id.as_ref().map_err(Clone::clone)?.as_deref();
        match (bearer(&self.headers)?, self.certificate.as_deref()) {
            (Some(assertion), _) => Ok(Presented::Assertion { assertion, client_id }),
            (None, Some(certificate)) => Ok(Presented::Certificate { client_id, certificate }),
            (None, None) => Err(IssueError::ClientAuthentication("client_authentication_missing")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// The one assertion, if there is one (RFC 6750 §2.1 carries it; RFC 7523 §3 says what it must be).
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| refuse("assertion_malformed"))?,
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(refuse("two_authentication_methods")),
    };
    match value.split_once(' ') {
        Some((scheme, assertion)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Some(assertion.trim_matches(' ')))
        }
        Some(_) | None => Err(refuse("authorization_scheme_not_supported")),
    }
}

async fn receive(headers: &HeaderMap, body: Body) -> Result<Bytes, DoorError> {
    if !is_json(headers) {
        return Err(DoorError::MediaType { takes: "the body must be application/json" });
    }
    // Bounds what bodies on their way may hold: [`BODIES`] times [`MAX_BODY_BYTES`].
    let _place = BODIES.try_acquire().map_err(|_| DoorError::Unavailable)?;
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    Ok(collected.map_err(|_| DoorError::Timeout)?.map_err(|_| DoorError::TooLarge)?.to_bytes())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return false;
    };
    value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reports {
    events: Vec<EventRecord>,
}

/// Strictly: what two readers could read differently is refused.
fn read(body: &[u8]) -> Result<Vec<EventRecord>, IssueError> {
    let malformed = IssueError::Request("events_malformed");
    let value = json::parse_value(body, MAX_DEPTH).map_err(|_| malformed.clone())?;
    serde_json::from_value::<Reports>(value).map(|reports| reports.events).map_err(|_| malformed)
}

/// A hundred events with the longest detail, and room for their other members.
const MAX_BODY_BYTES: usize = 640 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
static BODIES: Semaphore = Semaphore::const_new(64);
