//! What is sent to the door of nodes: who sends it has a place for it, for as long as it is on its way.

use axum::{
    body::Body,
    extract::ConnectInfo,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use deputize_call::json::{self, MAX_DEPTH};
use deputize_issuer::{error::IssueError, node::AttestedNode};
use http::{HeaderValue, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    NodeDoor, counted,
    places::{Place, Places},
};
use crate::http::{error::DoorError, source::network_of};

/// Places for bodies on their way: strangers take none from nodes, and no stranger and no node has all.
#[derive(Debug)]
pub struct Bodies {
    strangers: Arc<Places>,
    nodes: Arc<Places>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            strangers: Places::new(MAX_OF_STRANGERS, MAX_OF_A_SOURCE),
            nodes: Places::new(MAX_OF_NODES, MAX_OF_A_NODE),
        }
    }
}

impl Bodies {
    /// For somebody of whom nothing is known but where he is.
    pub fn of_stranger(&self, parts: &Parts) -> Option<Place> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let source = peer.map(network_of).map_or_else(String::new, |source| source.to_string());
        self.strangers.enter(&source)
    }

    /// For a node.
    pub fn of_node(&self, node: &AttestedNode) -> Option<Place> {
        self.nodes.enter(&node.id().to_string())
    }
}

/// Why a body is not taken.
pub enum NotTaken {
    /// It does not come, or is too long.
    Door(DoorError),
    /// It says nothing that is asked here.
    Malformed,
}

impl NotTaken {
    /// Says so.
    pub fn answer(self, door: &NodeDoor, id: Uuid) -> Response {
        match self {
            Self::Door(error) => {
                door.desk.refusals.count(error.reason());
                error.into_response()
            }
            Self::Malformed => door.refuse(counted(door, IssueError::Request("body_malformed")), id),
        }
    }
}

/// Strictly: what two readers could read differently is refused, and so is what nobody reads, such as a node.
pub async fn receive<T: DeserializeOwned>(place: Option<Place>, sent: (&Parts, Body)) -> Result<T, NotTaken> {
    receive_within(MAX_BODY_BYTES, place, sent).await
}

/// The same of what may have so many bytes.
pub async fn receive_within<T: DeserializeOwned>(
    most: usize,
    place: Option<Place>,
    (parts, body): (&Parts, Body),
) -> Result<T, NotTaken> {
    let _place = place.ok_or(NotTaken::Door(DoorError::Unavailable))?;
    let bytes = collect(parts, (body, most)).await.map_err(NotTaken::Door)?;
    let value = json::parse_value(&bytes, MAX_DEPTH).map_err(|_| NotTaken::Malformed)?;
    serde_json::from_value(value).map_err(|_| NotTaken::Malformed)
}

async fn collect(parts: &Parts, (body, most): (Body, usize)) -> Result<Zeroizing<Vec<u8>>, DoorError> {
    let mut types = parts.headers.get_all(header::CONTENT_TYPE).iter();
    if types.next().map(HeaderValue::as_bytes) != Some(b"application/json") || types.next().is_some() {
        return Err(DoorError::MediaType { takes: "the body must be application/json" });
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await;
    let whole: Bytes =
        collected.map_err(|_| DoorError::Timeout)?.map_err(|_| DoorError::TooLarge)?.to_bytes();
    Ok(Zeroizing::new(whole.to_vec()))
}

/// A process with the most selectors there can be has less.
pub const MAX_BODY_BYTES: usize = 128 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_OF_STRANGERS: usize = 128;
/// Many machines may be behind one address.
const MAX_OF_A_SOURCE: usize = 32;
const MAX_OF_NODES: usize = 512;
const MAX_OF_A_NODE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use hyper::body::Frame;
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    /// A body that goes on for ever.
    struct Dribble;

    impl hyper::body::Body for Dribble {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    fn parts(source: u8) -> Parts {
        let request = Request::post("/node/attest").header("content-type", "application/json");
        let peer = SocketAddr::from(([192, 0, 2, source], 1));
        request.extension(ConnectInfo(peer)).body(()).unwrap().into_parts().0
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_who_never_end_what_they_send_take_no_place_from_nodes() {
        let bodies = Bodies::default();
        let mut dribbling = Vec::new();
        for stranger in 0..200_u8 {
            let (place, parts) = (bodies.of_stranger(&parts(stranger)), parts(stranger));
            let has_place = place.is_some();
            assert_eq!(has_place, usize::from(stranger) < MAX_OF_STRANGERS);
            dribbling.push(tokio::spawn(async move {
                receive::<serde_json::Value>(place, (&parts, Body::new(Dribble))).await.is_err()
            }));
        }
        let of_node = bodies.nodes.enter("spiffe://example.org/deputize/node/edge-1");
        let sent = receive::<serde_json::Value>(of_node, (&parts(1), Body::from("{}"))).await;
        assert!(sent.is_ok_and(|sent| sent == serde_json::json!({})));
        for one in dribbling {
            assert!(one.await.unwrap(), "each is cut off");
        }
        assert!(bodies.of_stranger(&parts(1)).is_some(), "and their places are free again");
    }

    #[test]
    fn one_source_leaves_places_to_the_others() {
        let bodies = Bodies::default();
        let held: Vec<_> = (0..200).filter_map(|_| bodies.of_stranger(&parts(1))).collect();
        assert_eq!(held.len(), MAX_OF_A_SOURCE);
        assert!(bodies.of_stranger(&parts(2)).is_some());
    }
}
