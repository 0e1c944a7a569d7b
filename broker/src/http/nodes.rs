//! What nodes ask: `POST /node/attest`, then with the certificate that they got `/node/renew`, `/node/watch`,
//! `/node/x509-svid`, `/node/jwt-svid`, `/node/exchange`, `/node/denied`.
//!
//! Who asks is whoever's certificate the TLS connection has: no header and no body says it.

mod body;
mod exchange;
mod places;
mod stream;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::{
    certificate::PresentedCertificate,
    desk::Desk,
    error::IssueError,
    node::{
        AttestAsk, AttestedNode, NodeRegistry, NodeSvid, Proof, attest, authenticate, authenticate_to_renew,
        renew,
    },
    record::{RefusedSvid, record_svid_denial},
    svid::{JwtAsk, SpiffeDoor, SvidKey, X509Ask, jwt_svid, x509_svid},
    workload::Workload,
};
use deputize_workload_api::node::wire::{
    self, AttestRequest, DeniedRequest, JwtAnswer, JwtRequest, NodeSvidAnswer, RenewRequest, SeenProcess,
    X509Answer, X509Request,
};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

pub use self::exchange::exchange;
use self::{
    body::{Bodies, receive},
    places::Places,
};
use super::{
    error::{self, Refusal},
    lifecycle::to_its_end,
    source::RequestId,
};

/// The door of nodes.
pub struct NodeDoor {
    desk: Arc<Desk>,
    door: Arc<SpiffeDoor>,
    registry: Arc<NodeRegistry>,
    bodies: Bodies,
    exchanges: Arc<Places>,
    streams: Arc<Places>,
    /// Bytes that nodes have yet to read.
    unread: Arc<Places>,
    /// Turns true when the broker stops.
    stop: watch::Receiver<bool>,
}

/// The certificate of the connection, if it has one.
type Shown = Option<Extension<Arc<PresentedCertificate>>>;

impl NodeDoor {
    /// A door to this desk's SVIDs; there is none without them.
    pub fn new(desk: Arc<Desk>, registry: Arc<NodeRegistry>, stop: watch::Receiver<bool>) -> Option<Self> {
        let door = Arc::clone(desk.spiffe.as_ref()?);
        let (exchanges, streams, unread) = (exchange::places(), stream::places(), stream::room());
        Some(Self { desk, door, registry, bodies: Bodies::default(), exchanges, streams, unread, stop })
    }

    fn refuse(&self, error: IssueError, decision_id: Uuid) -> Response {
        Refusal { error, decision_id, issuer: self.desk.settings.issuer.clone() }.into_response()
    }

    fn node(&self, decision_id: Uuid, shown: &Shown) -> Result<AttestedNode, IssueError> {
        authenticate(&self.desk, &self.registry, (decision_id, certificate(shown)))
    }

    /// One that has to renew may ask, too.
    fn node_to_renew(&self, decision_id: Uuid, shown: &Shown) -> Result<AttestedNode, IssueError> {
        authenticate_to_renew(&self.desk, &self.registry, (decision_id, certificate(shown)))
    }

    fn told(&self, svid: &NodeSvid) -> Result<NodeSvidAnswer, IssueError> {
        Ok(NodeSvidAnswer {
            spiffe_id: svid.id.to_string(),
            chain: wire::to_base64(&svid.chain),
            expires_at: svid.not_after_seconds,
            authorities: svid.authorities.iter().map(wire::to_hex).collect(),
            bundle: wire::own_bundle(&self.desk).map_err(|_| IssueError::Internal("bundle"))?,
        })
    }
}

/// Answers `POST /node/attest`: a machine becomes a node.
pub async fn attest_node(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    // What it brings may be used up by it: then it gets what it is for, whoever waits.
    to_its_end(async move {
        let asked: AttestRequest = match receive(door.bodies.of_stranger(&parts), (&parts, body)).await {
            Ok(asked) => asked,
            Err(refused) => return refused.answer(&door, id),
        };
        let answered = async {
            let proof = match (&asked.join_token, &asked.kubernetes, &shown) {
                (Some(token), None, _) => Proof::JoinToken(token.expose()),
                (None, Some(pod), _) => {
                    Proof::ServiceAccountToken { cluster: pod.cluster.as_deref(), token: pod.token.expose() }
                }
                (None, None, Some(Extension(certificate))) => Proof::Certificate(certificate),
                (None, None, None) => {
                    return Err(counted(&door, IssueError::ClientAuthentication("node_proof_missing")));
                }
                (Some(_), Some(_), _) => {
                    return Err(counted(
                        &door,
                        IssueError::ClientAuthentication("two_authentication_methods"),
                    ));
                }
            };
            let csr = decode(&door, &asked.csr)?;
            let svid = attest(&door.desk, &door.registry, (id, &AttestAsk { proof, csr: &csr })).await?;
            door.told(&svid)
        };
        door.answer(id, answered.await)
    })
    .await
}

/// Answers `POST /node/renew`: a node gets its next SVID.
pub async fn renew_node(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    let node = match door.node_to_renew(id, &shown) {
        Ok(node) => node,
        Err(error) => return door.refuse(error, id),
    };
    let (parts, body) = request.into_parts();
    // What is stored of it must not come after what was ordered later, such as a ban.
    to_its_end(async move {
        let asked: RenewRequest = match receive(door.bodies.of_node(&node), (&parts, body)).await {
            Ok(asked) => asked,
            Err(refused) => return refused.answer(&door, id),
        };
        let renewed = async {
            let csr = decode(&door, &asked.csr)?;
            let svid = renew(&door.desk, &door.registry, (id, &node, &csr)).await?;
            door.told(&svid)
        };
        door.answer(id, renewed.await)
    })
    .await
}

/// Answers `GET /node/watch`: a stream of states, each a line of JSON.
pub async fn watch_node(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
) -> Response {
    let begun = door.node_to_renew(id, &shown).and_then(|node| {
        let Some(Extension(certificate)) = shown else {
            return Err(IssueError::Internal("node_without_certificate"));
        };
        stream::begin(&door, (node, certificate))
    });
    match begun {
        Ok(lines) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, Body::new(lines)).into_response()
        }
        Err(error) => door.refuse(error, id),
    }
}

/// Answers `POST /node/x509-svid`: the key stays on the node.
pub async fn x509(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    of_node(door, (id, shown), request, async |door: &NodeDoor, node, asked: X509Request| {
        let (workload, csr) = (workload(door, &node, &asked.process)?, decode(door, &asked.csr)?);
        let ask = X509Ask { workload: &workload, entry: &asked.entry, key: SvidKey::Csr(&csr) };
        let svid = x509_svid(&door.desk, &ask).await?;
        Ok(X509Answer {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: wire::to_base64(&svid.chain),
            not_before: svid.not_before_seconds,
            not_after: svid.not_after_seconds,
            hint: svid.hint,
            authorities: svid.authorities.iter().map(wire::to_hex).collect(),
        })
    })
    .await
}

/// Answers `POST /node/jwt-svid`.
pub async fn jwt(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    of_node(door, (id, shown), request, async |door: &NodeDoor, node, asked: JwtRequest| {
        let workload = workload(door, &node, &asked.process)?;
        let ask = JwtAsk { workload: &workload, entry: &asked.entry, audiences: &asked.audiences };
        let svid = jwt_svid(&door.desk, &ask).await?;
        Ok(JwtAnswer {
            spiffe_id: svid.spiffe_id.to_string(),
            token: wire::Told::new(svid.token.expose().clone()),
            expires_at: svid.expires_at_seconds,
            hint: svid.hint,
        })
    })
    .await
}

/// Answers `POST /node/denied`: the agent refused a process, which goes on record here as at the broker's own socket.
pub async fn denied(
    State(door): State<Arc<NodeDoor>>,
    Extension(RequestId(id)): Extension<RequestId>,
    shown: Shown,
    request: Request,
) -> Response {
    of_node(door, (id, shown), request, async |door: &NodeDoor, node, asked: DeniedRequest| {
        let workload = workload(door, &node, &asked.process)?;
        let refused = RefusedSvid { kind: None, workload: &workload, entry: None, audiences: &[] };
        record_svid_denial(&door.desk, id, &refused, &IssueError::NotEntitled("no_entry"));
        Ok(json!({}))
    })
    .await
}

/// Who asks is known before anything of the body is read.
async fn of_node<Q, A>(
    door: Arc<NodeDoor>,
    (id, shown): (Uuid, Shown),
    request: Request,
    act: impl AsyncFnOnce(&NodeDoor, AttestedNode, Q) -> Result<A, IssueError>,
) -> Response
where
    Q: DeserializeOwned,
    A: Serialize,
{
    let node = match door.node(id, &shown) {
        Ok(node) => node,
        Err(error) => return door.refuse(error, id),
    };
    let (parts, body) = request.into_parts();
    match receive(door.bodies.of_node(&node), (&parts, body)).await {
        Ok(asked) => {
            let answered = act(&door, node, asked).await;
            door.answer(id, answered)
        }
        Err(refused) => refused.answer(&door, id),
    }
}

impl NodeDoor {
    fn answer<A: Serialize>(&self, id: Uuid, answered: Result<A, IssueError>) -> Response {
        match answered {
            Ok(answer) => error::json(StatusCode::OK, &answer),
            Err(error) => self.refuse(error, id),
        }
    }
}

fn certificate(shown: &Shown) -> Option<&PresentedCertificate> {
    shown.as_ref().map(|Extension(certificate)| certificate.as_ref())
}

/// The process that an agent saw: of its own node, whatever it says.
fn workload(door: &NodeDoor, node: &AttestedNode, process: &SeenProcess) -> Result<Workload, IssueError> {
    let selectors = process.selectors();
    let selectors = selectors.map_err(|_| counted(door, IssueError::Request("selectors_malformed")))?;
    Ok(node.saw(&door.registry, selectors, process.contained))
}

fn decode(door: &NodeDoor, csr: &str) -> Result<Vec<u8>, IssueError> {
    STANDARD.decode(csr).map_err(|_| counted(door, IssueError::Request("csr_malformed")))
}

fn counted(door: &NodeDoor, error: IssueError) -> IssueError {
    door.desk.refusals.count(error.reason());
    error
}
