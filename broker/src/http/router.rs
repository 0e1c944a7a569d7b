//! Every path of the broker, on one screen.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use deputize_issuer::desk::Desk;
use std::sync::Arc;

use crate::guards::Guards;

use super::{
    admin::{self, Administration},
    aws::{self, AwsCredentials},
    error::DoorError,
    guard, lifecycle, metadata,
    source::{SourceLimit, limit_source, name_request, refuse},
    token,
    web_identity::{self, PublishedIdentity},
};

/// The public door. Without AWS there are no paths of it.
pub fn public(
    desk: Arc<Desk>,
    guards: Arc<Guards>,
    sources: Arc<SourceLimit>,
    aws: Option<(PublishedIdentity, AwsCredentials)>,
) -> Router {
    let guards = Router::new()
        .route("/guard/snapshot", get(guard::snapshot))
        .route("/guard/events", get(guard::stream).post(guard::report))
        .with_state(guards);
    let routes = Router::new()
        .route("/token", post(token::token))
        .route("/introspect", post(lifecycle::introspect))
        .route("/revoke", post(lifecycle::revoke))
        .route("/redeem", post(lifecycle::redeem))
        .route("/jwks", get(metadata::jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata::authorization_server))
        .route("/openapi.json", get(metadata::openapi))
        .route("/docs/errors/{code}", get(metadata::error_page))
        .with_state(Arc::clone(&desk))
        .merge(guards)
        .merge(aws.map(aws_routes).unwrap_or_default());
    named(closed(routes).layer(from_fn_with_state(sources, limit_source)), desk)
}

/// What AWS reads, and what servers ask for.
fn aws_routes((identity, credentials): (PublishedIdentity, AwsCredentials)) -> Router {
    Router::new()
        .route("/web-identity/.well-known/openid-configuration", get(web_identity::discovery))
        .route("/web-identity/jwks", get(web_identity::jwks))
        .with_state(identity)
        .merge(Router::new().route("/aws/credentials", post(aws::credentials)).with_state(credentials))
}

/// Health and metrics: what probes and scrapers may see.
pub fn observation(administration: Arc<Administration>) -> Router {
    let desk = Arc::clone(&administration.desk);
    named(closed(observation_routes(administration)), desk)
}

fn observation_routes(administration: Arc<Administration>) -> Router {
    Router::new()
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route("/metrics", get(admin::metrics))
        .with_state(administration)
}

/// Administration: on the local socket, and in `dev` on loopback.
pub fn administration(administration: Arc<Administration>) -> Router {
    let desk = Arc::clone(&administration.desk);
    let routes = Router::new()
        .route("/admin/revocations", post(admin::revoke).delete(admin::lift))
        .route("/admin/drifted", get(admin::drifted))
        .route("/admin/drifted/lift", post(admin::lift_drift))
        .route("/admin/keys", get(admin::keys))
        .route("/admin/log", get(admin::log_entries))
        .route("/log/checkpoint", get(admin::checkpoint))
        .route("/log/tile/{*path}", get(admin::tile))
        .with_state(Arc::clone(&administration))
        .layer(from_fn(admin::refuse_browsers))
        .merge(observation_routes(administration));
    named(closed(routes), desk)
}

/// Whatever else is asked for is refused in the form of all refusals.
fn closed(routes: Router) -> Router {
    routes
        .fallback(async || refuse(DoorError::NotFound))
        .method_not_allowed_fallback(async || refuse(DoorError::MethodNotAllowed))
}

/// Each request has its id. Outermost: what refusals of the door say is written there.
fn named(routes: Router, desk: Arc<Desk>) -> Router {
    routes.layer(from_fn_with_state(desk, name_request))
}
