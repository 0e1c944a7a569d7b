//! Every path of the broker, on one screen.

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use deputize_issuer::{desk::Desk, svid::SpiffeDoor};
use std::sync::Arc;

use crate::guards::Guards;

use super::{
    admin::{self, Administration},
    aws::{self, AwsCredentials},
    entries::{self, EntryAdministration},
    error::DoorError,
    guard, lifecycle, metadata,
    node_orders::{self, NodeAdministration},
    nodes::{self, NodeDoor},
    source::{SourceLimit, limit_source, name_request, refuse},
    spiffe, token,
    web_identity::{self, PublishedIdentity},
};

/// The public door. Without AWS there are no paths of it, nor without SPIFFE, nor of nodes where there are none.
pub fn public(
    desk: Arc<Desk>,
    guards: Arc<Guards>,
    sources: Arc<SourceLimit>,
    aws: Option<(PublishedIdentity, AwsCredentials)>,
    nodes: Option<(Arc<NodeDoor>, Arc<SourceLimit>)>,
) -> Router {
    let guards = Router::new()
        .route("/guard/snapshot", get(guard::snapshot))
        .route("/guard/events", get(guard::stream).post(guard::report))
        .with_state(guards);
    let spiffe = desk.spiffe.clone().map(spiffe_routes).unwrap_or_default();
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
        .merge(aws.map(aws_routes).unwrap_or_default())
        .merge(spiffe)
        .merge(nodes.map(node_door).unwrap_or_default());
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

/// What verifies SVIDs.
fn spiffe_routes(door: Arc<SpiffeDoor>) -> Router {
    Router::new()
        .route("/spiffe/bundle", get(spiffe::bundle))
        .route("/spiffe/.well-known/openid-configuration", get(spiffe::discovery))
        .route("/spiffe/jwks", get(spiffe::jwks))
        .with_state(door)
}

/// What other nodes ask, and the rate of one address at which they attest themselves.
fn node_door((door, attesting): (Arc<NodeDoor>, Arc<SourceLimit>)) -> Router {
    let attest = Router::new()
        .route("/node/attest", post(nodes::attest_node))
        // Each may have others asked, and each costs a signature: fewer of one address than of other requests.
        .layer(from_fn_with_state(attesting, limit_source));
    attest
        .route("/node/renew", post(nodes::renew_node))
        .route("/node/watch", get(nodes::watch_node))
        .route("/node/x509-svid", post(nodes::x509))
        .route("/node/jwt-svid", post(nodes::jwt))
        .route("/node/exchange", post(nodes::exchange))
        .route("/node/denied", post(nodes::denied))
        .with_state(door)
}

/// The bundle, on a listener of its own.
pub fn bundle_endpoint(desk: Arc<Desk>, door: Arc<SpiffeDoor>, sources: Arc<SourceLimit>) -> Router {
    let routes = Router::new().route("/spiffe/bundle", get(spiffe::bundle)).with_state(door);
    named(closed(routes).layer(from_fn_with_state(sources, limit_source)), desk)
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

/// Administration: on the local socket, and in `dev` on loopback, there without registration entries and nodes. Without SPIFFE
/// there are no paths of it.
pub fn administration(
    administration: Arc<Administration>,
    entries: Option<Arc<EntryAdministration>>,
    nodes: Option<Arc<NodeAdministration>>,
) -> Router {
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
        .merge(entries.map(entry_routes).unwrap_or_default())
        .merge(nodes.map(node_routes).unwrap_or_default())
        .layer(from_fn(admin::refuse_browsers))
        .merge(observation_routes(administration));
    named(closed(routes), desk)
}

/// Registration entries, and who is entitled to what.
fn entry_routes(entries: Arc<EntryAdministration>) -> Router {
    Router::new()
        .route("/admin/entries", get(entries::list).post(entries::create))
        .route("/admin/entries/{id}", get(entries::show).delete(entries::delete))
        .route("/admin/workloads/explain", post(entries::explain))
        .route("/admin/federation", get(entries::federation))
        .with_state(entries)
}

/// Nodes, and who may be one.
fn node_routes(nodes: Arc<NodeAdministration>) -> Router {
    Router::new()
        .route("/admin/nodes", get(node_orders::list))
        .route("/admin/nodes/token", post(node_orders::token))
        .route("/admin/nodes/ban", post(node_orders::ban))
        .route("/admin/nodes/lift", post(node_orders::lift))
        .route("/admin/nodes/evict", post(node_orders::evict))
        .with_state(nodes)
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
