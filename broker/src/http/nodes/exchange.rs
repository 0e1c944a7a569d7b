//! `POST /node/exchange`: a process on a node swaps its user's token, by the same line as one at the broker's own socket.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use deputize_issuer::{error::IssueError, node::AttestedNode};
use deputize_workload_api::{
    exchange::{Asking, MAX_REQUEST_BYTES, exchange_by},
    node::wire::{ExchangeAnswer, ExchangeAsk},
};
use http::StatusCode;
use std::sync::Arc;
use uuid::Uuid;

use super::{
    NodeDoor, Shown,
    body::{MAX_BODY_BYTES, NotTaken, receive_within},
    places::Places,
    workload,
};
use crate::http::{
    error::{self, DoorError},
    source::RequestId,
};

/// Answers it. Who asks is known before anything of the body is read.
pub async fn exchange(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    let node = match door.node(id, &shown) {
        Ok(node) => node,
        Err(error) => return door.refuse(error, id),
    };
    // For as long as it is decided: keys of an identity provider may have to be fetched.
    let Some(_place) = door.exchanges.enter(&node.id().to_string()) else {
        return NotTaken::Door(DoorError::Unavailable).answer(&door, id);
    };
    let (parts, body) = request.into_parts();
    let received = receive_within(MAX_EXCHANGE_BYTES, door.bodies.of_node(&node), (&parts, body)).await;
    let asked: ExchangeAsk = match received {
        Ok(asked) => asked,
        Err(refused) => return refused.answer(&door, id),
    };
    if asked.is_too_long() {
        return NotTaken::Door(DoorError::TooLarge).answer(&door, id);
    }
    match decided(&door, &node, (&asked, id)).await {
        Ok(answer) => {
            let mut response = error::json(StatusCode::OK, &answer);
            error::insert(response.headers_mut(), error::DECISION_ID, &id.to_string());
            response
        }
        Err(refused) => {
            // 401 is the door's word alone: nothing was used up there. Who is another node since, makes a new proof.
            let refused = match refused {
                IssueError::ClientAuthentication(reason) => IssueError::Uncertain(reason),
                other => other,
            };
            // A new proof is needed anyway: with this it does not take two.
            let nonce = matches!(refused, IssueError::Proof(_))
                .then(|| door.desk.nonces.make(door.desk.clock.uptime()));
            let mut response = door.refuse(refused, id);
            if let Some(nonce) = nonce {
                error::insert(response.headers_mut(), error::DPOP_NONCE, &nonce);
            }
            response
        }
    }
}

async fn decided(
    door: &NodeDoor,
    node: &AttestedNode,
    (asked, id): (&ExchangeAsk, Uuid),
) -> Result<ExchangeAnswer, IssueError> {
    let workload = workload(door, node, &asked.process)?;
    let asking = Asking { workload: &workload, entry: &asked.entry, message: &asked.request };
    exchange_by((&door.desk, &door.door), asking, id).await.map(ExchangeAnswer::new)
}

/// Places for exchanges under way: a node that waits for an identity provider leaves some to the others.
pub fn places() -> Arc<Places> {
    Places::new(MAX_EXCHANGES, MAX_EXCHANGES_OF_A_NODE)
}

/// A process and a request; of quotes and backslashes, which JSON writes as two, there may be many.
const MAX_EXCHANGE_BYTES: usize = MAX_BODY_BYTES + 2 * MAX_REQUEST_BYTES;
const MAX_EXCHANGES: usize = 1024;
const MAX_EXCHANGES_OF_A_NODE: usize = 128;
