//! Administration of nodes: join tokens, and which machines may be nodes.

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::Response,
};
use deputize_issuer::{
    desk::Desk,
    node::{NodeRecord, NodeRegistry, NotDone},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

use super::{
    entries::BadOrder,
    error::{self, DoorError},
    lifecycle::to_its_end,
    source::{RequestId, refuse},
};

/// What administration of nodes works on.
pub struct NodeAdministration {
    /// The desk.
    pub desk: Arc<Desk>,
    /// The nodes.
    pub registry: Arc<NodeRegistry>,
}

/// The body of an order about one node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOrder {
    /// Its SPIFFE ID, or what stands in it after `/deputize/node/`.
    node: String,
}

/// The body of an order for a join token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenOrder {
    node: String,
    #[serde(default = "TokenOrder::default_ttl")]
    ttl_seconds: u64,
}

impl TokenOrder {
    fn default_ttl() -> u64 {
        600
    }
}

type Order<T> = Result<Json<T>, JsonRejection>;
type Administered = State<Arc<NodeAdministration>>;

/// Answers `GET /admin/nodes`: those that attested themselves, and those that are banned.
pub async fn list(State(administration): Administered) -> Response {
    let now = administration.desk.clock.now_seconds();
    let nodes: Vec<Value> = administration.registry.all().iter().map(|node| told(node, now)).collect();
    error::json(StatusCode::OK, &json!({ "nodes": nodes }))
}

/// Answers `POST /admin/nodes/token` with `{"node": NAME, "ttl_seconds": N}`: a join token, which is shown this once.
pub async fn token(
    State(administration): Administered,
    Extension(RequestId(id)): Extension<RequestId>,
    order: Order<TokenOrder>,
) -> Response {
    let Ok(Json(TokenOrder { node, ttl_seconds })) = order else { return refuse(BAD_TOKEN_ORDER) };
    to_its_end(async move {
        let NodeAdministration { desk, registry } = administration.as_ref();
        match registry.new_token(desk, id, (&node, ttl_seconds)).await {
            Ok(made) => error::json(
                StatusCode::CREATED,
                &json!({
                    "join_token": made.token.text().expose(),
                    "node": made.node.to_string(),
                    "expires_at": made.expires_at_seconds,
                }),
            ),
            Err(error) => administration.refuse(error, id),
        }
    })
    .await
}

/// Answers `POST /admin/nodes/ban` with `{"node": …}`.
pub async fn ban(
    State(administration): Administered,
    Extension(RequestId(id)): Extension<RequestId>,
    order: Order<NodeOrder>,
) -> Response {
    administration.carry_out(Deed::Ban, (id, order)).await
}

/// Answers `POST /admin/nodes/lift` with `{"node": …}`: it is not banned any more.
pub async fn lift(
    State(administration): Administered,
    Extension(RequestId(id)): Extension<RequestId>,
    order: Order<NodeOrder>,
) -> Response {
    administration.carry_out(Deed::Lift, (id, order)).await
}

/// Answers `POST /admin/nodes/evict` with `{"node": …}`: it must attest itself anew.
pub async fn evict(
    State(administration): Administered,
    Extension(RequestId(id)): Extension<RequestId>,
    order: Order<NodeOrder>,
) -> Response {
    administration.carry_out(Deed::Evict, (id, order)).await
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Ban,
    Lift,
    Evict,
}

/// A node, as it is listed. `state` is `attested`, `expired`, `banned` or `evicted`.
fn told(node: &NodeRecord, now_seconds: u64) -> Value {
    let state = match (&node.attested, node.banned_at) {
        (_, Some(_)) => "banned",
        (None, None) => "evicted",
        (Some(attested), None) if attested.not_after <= now_seconds => "expired",
        (Some(_), None) => "attested",
    };
    let mut told = serde_json::to_value(node).unwrap_or_default();
    if let Some(members) = told.as_object_mut() {
        members.insert("state".to_owned(), state.into());
    }
    told
}

impl NodeAdministration {
    async fn carry_out(self: Arc<Self>, deed: Deed, (id, order): (Uuid, Order<NodeOrder>)) -> Response {
        let Ok(Json(NodeOrder { node })) = order else { return refuse(BAD_ORDER) };
        to_its_end(async move {
            let Self { desk, registry } = self.as_ref();
            let done = match deed {
                Deed::Ban => registry.ban(desk, id, &node).await,
                Deed::Lift => registry.lift(desk, id, &node).await,
                Deed::Evict => registry.evict(desk, id, &node).await,
            };
            match done {
                Ok(node) => error::json(StatusCode::OK, &told(&node, desk.clock.now_seconds())),
                Err(error) => self.refuse(error, id),
            }
        })
        .await
    }

    fn refuse(&self, error: NotDone, decision_id: Uuid) -> Response {
        let said = error.to_string();
        let order = match error {
            NotDone::Bad(_) => BadOrder::Invalid(said),
            NotDone::Unknown(_) => BadOrder::Unknown(said),
            NotDone::InTheWay(_) => BadOrder::Conflict(said),
            NotDone::Unavailable => BadOrder::Unavailable(said),
        };
        error::bad_order(order, &self.desk.settings.issuer, decision_id)
    }
}

const BAD_ORDER: DoorError = DoorError::Order("send JSON with node, its SPIFFE ID or its name");
const BAD_TOKEN_ORDER: DoorError =
    DoorError::Order("send JSON with node, the name of the node to be, and if need be ttl_seconds");
