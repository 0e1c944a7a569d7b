//! The listener of operators: health, metrics, revocation, keys, the log.

use axum::{
    Extension, Json,
    extract::{
        Path, Query, Request, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use deputize_call::action::Action;
use deputize_issuer::{
    desk::Desk,
    drift::{self, Drifted, Drifts},
    error::IssueError,
    log::{Log, LogReader},
    person::Person,
    redeem::{lift_by_admin, revoke_by_admin},
    revocation::Revoked,
    transaction::TransactionIds,
};
use http::{StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use uuid::Uuid;

use super::{
    error::{self, DoorError, Refusal},
    lifecycle::to_its_end,
    log_tile::TilePath,
    source::{RequestId, refuse},
};

/// What administration works on.
pub struct Administration {
    /// The desk.
    pub desk: Arc<Desk>,
    /// The log.
    pub log: Log,
    /// Whether requests are taken: not while starting or draining.
    pub ready: AtomicBool,
    /// The metrics of this process.
    pub metrics: PrometheusHandle,
}

/// Answers `GET /healthz`: the process runs and its log is sound.
pub async fn healthz(State(administration): State<Arc<Administration>>) -> Response {
    if administration.log.failed() {
        return DoorError::Unavailable.into_response();
    }
    error::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// Answers `GET /readyz`: requests are taken.
pub async fn readyz(State(administration): State<Arc<Administration>>) -> Response {
    if !administration.ready.load(Ordering::Acquire) || administration.log.failed() {
        return DoorError::Unavailable.into_response();
    }
    error::json(StatusCode::OK, &json!({ "status": "ready" }))
}

/// Answers `GET /metrics` in the Prometheus text format.
pub async fn metrics(State(administration): State<Arc<Administration>>) -> Response {
    let statistics = administration.log.statistics();
    metrics::gauge!("deputize_log_entries").set(as_gauge(statistics.entries));
    metrics::gauge!("deputize_log_flushes").set(as_gauge(statistics.flushes));
    let text = administration.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The body of a revocation: exactly one member.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationOrder {
    transaction: Option<String>,
    person: Option<String>,
    token: Option<String>,
}

impl RevocationOrder {
    /// What is meant, in the form that the ids of tokens, transactions and persons have: a slip of the pen must not
    /// pass for a revocation.
    fn what(self) -> Result<Revoked, DoorError> {
        match (self.transaction, self.person, self.token) {
            (Some(txn), None, None) if TransactionIds::is_id(&txn) => Ok(Revoked::Transaction(txn)),
            (None, Some(sub), None) if Person::is_sub(&sub) => Ok(Revoked::Person(sub)),
            (None, None, Some(jti)) if Uuid::try_parse(&jti).is_ok() => Ok(Revoked::Token(jti)),
            (Some(_), None, None) => {
                Err(DoorError::Order("transaction is no transaction id: the txn of a token"))
            }
            (None, Some(_), None) => Err(DoorError::Order("person is no person: the sub of a token of ours")),
            (None, None, Some(_)) => Err(DoorError::Order("token is no token id: the jti of a token")),
            _ => Err(BAD_ORDER),
        }
    }
}

/// Answers `POST /admin/revocations` with `{"transaction": txn}`, `{"person": sub}` or `{"token": jti}`.
pub async fn revoke(
    State(administration): State<Arc<Administration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    order: Result<Json<RevocationOrder>, JsonRejection>,
) -> Response {
    let what = match order.map_err(|_| BAD_ORDER).and_then(|Json(order)| order.what()) {
        Ok(what) => what,
        Err(error) => return refuse(error),
    };
    let desk = Arc::clone(&administration.desk);
    carry_out(Arc::clone(&desk), decision_id, async move {
        revoke_by_admin(&desk, "admin", what).await?;
        Ok(json!({ "revoked": true }))
    })
    .await
}

/// Answers `DELETE /admin/revocations` with `{"person": sub}`: the person is enabled again.
pub async fn lift(
    State(administration): State<Arc<Administration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    order: Result<Json<RevocationOrder>, JsonRejection>,
) -> Response {
    let sub = match order.map_err(|_| BAD_ORDER).and_then(|Json(order)| order.what()) {
        Ok(Revoked::Person(sub)) => sub,
        Ok(Revoked::Token(_) | Revoked::Transaction(_)) => return refuse(NOT_LIFTED),
        Err(error) => return refuse(error),
    };
    let desk = Arc::clone(&administration.desk);
    carry_out(Arc::clone(&desk), decision_id, async move {
        lift_by_admin(&desk, "admin", sub).await?;
        Ok(json!({ "revoked": false }))
    })
    .await
}

/// Carries out an order to its end, whether or not whoever gave it stays to hear.
async fn carry_out(
    desk: Arc<Desk>,
    decision_id: Uuid,
    order: impl Future<Output = Result<serde_json::Value, IssueError>> + Send + 'static,
) -> Response {
    to_its_end(async move {
        match order.await {
            Ok(done) => error::json(StatusCode::OK, &done),
            Err(error) => {
                Refusal { error, decision_id, issuer: desk.settings.issuer.clone() }.into_response()
            }
        }
    })
    .await
}

/// Answers `GET /admin/drifted`: tools and prompts for which nothing is issued, because they are no longer what was
/// approved.
pub async fn drifted(State(administration): State<Arc<Administration>>) -> Response {
    error::json(StatusCode::OK, &json!({ "drifted": administration.desk.drifts.all() }))
}

/// The body of a lift.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftOrder {
    server: String,
    /// Of what `tool` is the name; without it, of a tool.
    action: Option<Action>,
    tool: String,
}

impl LiftOrder {
    /// What is meant. Nobody who says only a name has looked at a prompt of that name.
    fn action(&self, drifts: &dyn Drifts) -> Result<Action, DoorError> {
        let is_other = |drifted: &Drifted| {
            drifted.action != Action::CallTool && drifted.is_of(&self.server, drifted.action, &self.tool)
        };
        match self.action {
            Some(action) => Ok(action),
            None if drifts.all().iter().any(is_other) => Err(AMBIGUOUS_LIFT),
            None => Ok(Action::CallTool),
        }
    }
}

/// Answers `POST /admin/drifted/lift` with `{"server": resource, "tool": name}`, and `"action": "prompts/get"` where a
/// prompt has that name: somebody looked, and the approved definition holds. A guard that sees another one stops it again.
pub async fn lift_drift(
    State(administration): State<Arc<Administration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    order: Result<Json<LiftOrder>, JsonRejection>,
) -> Response {
    let Ok(Json(order)) = order else { return refuse(BAD_LIFT) };
    let desk = Arc::clone(&administration.desk);
    let action = match order.action(desk.drifts.as_ref()) {
        Ok(action) => action,
        Err(error) => return refuse(error),
    };
    carry_out(Arc::clone(&desk), decision_id, async move {
        let lifted = drift::lift(&desk, "admin", (&order.server, action, &order.tool)).await?;
        Ok(json!({ "lifted": lifted }))
    })
    .await
}

/// Answers `GET /admin/keys`: the published keys, and which one signs.
pub async fn keys(State(administration): State<Arc<Administration>>) -> Response {
    let ring = administration.desk.keys.ring();
    error::json(
        StatusCode::OK,
        &json!({ "signing": ring.signing_kid(), "published": ring.published.to_jwks() }),
    )
}

/// Which entries of the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRange {
    #[serde(default)]
    from: u64,
    #[serde(default = "LogRange::default_limit")]
    limit: u64,
}

impl LogRange {
    fn default_limit() -> u64 {
        100
    }
}

/// Answers `GET /admin/log?from=N&limit=M`: entries as they stand, with their indices; at most 1,000.
pub async fn log_entries(
    State(administration): State<Arc<Administration>>,
    range: Result<Query<LogRange>, QueryRejection>,
) -> Response {
    let Ok(Query(range)) = range else {
        return refuse(DoorError::Order(
            "from and limit are whole numbers, and there is nothing else to give",
        ));
    };
    read_log(&administration, move |reader| {
        let to = range.from.saturating_add(range.limit.min(1000)).min(reader.size());
        let mut entries = Vec::new();
        for entry in reader.entries(range.from, to) {
            let (index, bytes) = entry.map_err(|_| DoorError::Unavailable)?;
            let entry: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            entries.push(json!({ "index": index, "entry": entry }));
        }
        Ok(error::json(StatusCode::OK, &json!({ "size": reader.size(), "entries": entries })))
    })
    .await
}

/// Answers `GET /log/checkpoint` (C2SP tlog-tiles).
pub async fn checkpoint(State(administration): State<Arc<Administration>>) -> Response {
    let note = administration.log.checkpoint().note().to_owned();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], note).into_response()
}

/// Answers `GET /log/tile/…` (C2SP tlog-tiles): hash tiles and entry bundles.
pub async fn tile(
    State(administration): State<Arc<Administration>>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(path)) = path else { return refuse(DoorError::NotFound) };
    read_log(&administration, move |reader| {
        let tile = TilePath::parse(&path).ok_or(DoorError::NotFound)?;
        let bytes = match tile.level {
            Some(level) => reader.tile(level, tile.number, tile.width),
            None => reader.entry_bundle(tile.number, tile.width),
        };
        let bytes = bytes.map_err(|_| DoorError::NotFound)?;
        Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
    })
    .await
}

/// Reads from disk away from the threads that answer requests.
async fn read_log(
    administration: &Administration,
    read: impl FnOnce(&LogReader) -> Result<Response, DoorError> + Send + 'static,
) -> Response {
    let log = administration.log.clone();
    let answered = tokio::task::spawn_blocking(move || read(&log.reader())).await;
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => error.into_response(),
        Err(_) => DoorError::Unavailable.into_response(),
    }
}

/// No page in a browser may reach administration, by whatever name it resolved loopback.
pub async fn refuse_browsers(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let from_page = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let local = headers.get(header::HOST).and_then(|host| host.to_str().ok()).is_none_or(|host| {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    });
    if from_page || !local {
        return DoorError::Forbidden.into_response();
    }
    next.run(request).await
}

const NOT_LIFTED: DoorError = DoorError::Order(
    "only a person can be enabled again; what was revoked by token or transaction stays so until it expires",
);
const BAD_LIFT: DoorError = DoorError::Order(
    "give server, its resource URI, and tool, its name; of a prompt also action, which is prompts/get",
);
const AMBIGUOUS_LIFT: DoorError = DoorError::Order(
    "a prompt of this name is stopped: give action, tools/call or prompts/get, to say which of the two is meant",
);
const BAD_ORDER: DoorError =
    DoorError::Order("send JSON with exactly one of transaction, person, token, as a text");

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn as_gauge(value: u64) -> f64 {
    value as f64
}
