//! Health and metrics of an agent.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::http::error::{self, DoorError};

/// What probes and scrapers may see.
pub struct Health {
    /// Whether the socket is served.
    pub serves: AtomicBool,
    /// Whether the broker's stream is open.
    pub connected: AtomicBool,
    /// The metrics of this process.
    pub metrics: PrometheusHandle,
}

impl Health {
    /// `/healthz`, `/readyz`, `/metrics`.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// The process runs; whether it has the broker is said, and no reason to restart it.
async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let connected = health.connected.load(Ordering::Acquire);
    error::json(StatusCode::OK, &json!({ "status": "ok", "broker": connected }))
}

/// Processes get their identities.
async fn readyz(State(health): State<Arc<Health>>) -> Response {
    if health.serves.load(Ordering::Acquire) {
        error::json(StatusCode::OK, &json!({ "status": "ready" }))
    } else {
        DoorError::Unavailable.into_response()
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], health.metrics.render()).into_response()
}
