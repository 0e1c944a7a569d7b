//! The routes, and what is looked at before anything else: where a request comes from, and how long its body is.

use super::{Proxy, failure::Failure, passage, reply, reply::Trouble, streams};
use crate::{Caller, GuardConfig};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::digest::sha256;
use http::{HeaderMap, Method, Response, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use url::Url;

/// Where things are.
pub(super) struct Places {
    /// Path of the MCP endpoint.
    path: String,
    /// `Origin` of pages that may call: the endpoint's own.
    origin: String,
    /// Protected resource metadata (RFC 9728 §2).
    metadata: Value,
}

impl Places {
    pub(super) fn of(public: &Url, config: &GuardConfig, takes_certificates: bool) -> Self {
        // Clients that know nothing of us go to the first. Whoever exchanges for itself finds the broker last.
        let servers: Vec<&String> = config.accept_issuers.iter().chain([&config.issuer]).collect();
        let takes_bearer = !config.accept_issuers.is_empty();
        let mut metadata = json!({
            "resource": config.resource,
            "authorization_servers": servers,
            "bearer_methods_supported": ["header"],
            // A token is bound to a key of the client or, where it can show one, to its certificate.
            "dpop_bound_access_tokens_required": !takes_certificates && !takes_bearer,
            "tls_client_certificate_bound_access_tokens": takes_certificates,
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
            "authorization_details_types_supported": [deputize_call::claims::DETAIL_TYPE],
        });
        let scopes = if takes_bearer { config.accept_scopes.clone() } else { vec!["mcp:list".to_owned()] };
        // MCP, scope selection: without the member clients ask for no scope; with an empty one, for an empty one.
        if let (false, Some(members)) = (scopes.is_empty(), metadata.as_object_mut()) {
            members.insert("scopes_supported".to_owned(), json!(scopes));
        }
        Self { path: public.path().to_owned(), origin: public.origin().ascii_serialization(), metadata }
    }
}

pub(super) fn router(proxy: &Arc<Proxy>) -> Router {
    let path = &proxy.front.path;
    let well_known = format!("{WELL_KNOWN}{}", path.trim_end_matches('/'));
    Router::new()
        .route(path, axum::routing::any(endpoint))
        .route(&well_known, get(metadata))
        .route("/healthz", get(async || reply::json(200, &json!({ "status": "ok" }))))
        .route("/readyz", get(ready))
        .with_state(Arc::clone(proxy))
}

async fn endpoint(State(proxy): State<Arc<Proxy>>, request: Request) -> Response<Body> {
    let uptime = proxy.clock.uptime();
    let (nonces, request_id) = (Arc::clone(&proxy), proxy.clock.unique_id());
    let served = serve(proxy, request, request_id.clone()).await;
    let mut response = served.unwrap_or_else(|trouble| {
        if let Trouble::Refused(refusal) = &trouble {
            tracing::info!(reason = %refusal.reason, status = refusal.status, request_id, "call refused");
        }
        let mut response = trouble.response();
        let is_ordinary = matches!(&trouble, Trouble::Refused(refusal) if refusal.rpc_id.is_some());
        if !is_ordinary && !response.headers().contains_key("dpop-nonce") {
            reply::set(&mut response, "dpop-nonce", &nonces.guard.next_nonce(uptime));
        }
        response
    });
    reply::set(&mut response, "x-request-id", &request_id);
    response
}

async fn serve(proxy: Arc<Proxy>, request: Request, request_id: String) -> Result<Response<Body>, Trouble> {
    let (mut parts, body) = request.into_parts();
    check_origin(&proxy, &parts.headers)?;
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let sender = Sender {
        headers: parts.headers,
        certificate: parts.extensions.remove::<ClientCertificate>(),
        source: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    };
    match parts.method {
        Method::POST => {
            let body = read(body, proxy.max_body_bytes).await?;
            let waiting = proxy.handovers.as_ref().map(|handovers| handovers.waiting(&request_id));
            // What is under way goes on to its end, whether the caller stays or not: what ran is told of.
            let work = tokio::spawn(passage::post(proxy, sender, body, request_id));
            let done = work.await.unwrap_or(Err(Trouble::Failed(Failure::Broken("a fault of the guard"))));
            if let Some(waiting) = waiting {
                waiting.answered();
            }
            done
        }
        Method::GET => streams::get(proxy, sender, request_id).await,
        Method::DELETE => streams::delete(proxy, sender).await,
        _ => Err(Failure::NoStream.into()),
    }
}

/// What is known of a request besides its body.
pub(super) struct Sender {
    pub(super) headers: HeaderMap,
    certificate: Option<ClientCertificate>,
    /// Where it comes from.
    pub(super) source: IpAddr,
}

impl Sender {
    /// Thumbprint of the certificate that the sender has shown.
    pub(super) fn certificate(&self) -> Option<&str> {
        self.certificate.as_ref().map(ClientCertificate::thumbprint)
    }

    /// The workload that this certificate is of.
    pub(super) fn caller(&self) -> Caller<'_> {
        self.certificate.as_ref().map(ClientCertificate::caller).unwrap_or_default()
    }
}

/// The certificate of a TLS client, whose key it has proved to have: whoever terminates TLS puts it among the request's
/// extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    thumbprint: String,
    workload: Looked,
}

/// What was found in it, where it was looked at as an X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Looked {
    /// Nobody has looked.
    No,
    /// That of this SPIFFE ID.
    Svid(String),
    /// None, and why.
    NoSvid(&'static str),
    /// Nothing is known by which it could be verified.
    Undecided,
}

impl ClientCertificate {
    /// Of this certificate (DER).
    pub fn of(der: &[u8]) -> Self {
        Self { thumbprint: URL_SAFE_NO_PAD.encode(sha256(der)), workload: Looked::No }
    }

    /// It was looked at as an X.509-SVID: the SPIFFE ID, or why it is none that holds.
    #[must_use]
    pub fn of_workload(self, found: Result<String, &'static str>) -> Self {
        Self { workload: found.map_or_else(Looked::NoSvid, Looked::Svid), ..self }
    }

    /// It was to be looked at, and the bundles by which it could be verified are not known now: calls are refused with
    /// 503 until they are.
    #[must_use]
    pub fn of_undecided_workload(self) -> Self {
        Self { workload: Looked::Undecided, ..self }
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        match &self.workload {
            Looked::No => Caller::default(),
            Looked::Svid(spiffe_id) => Caller::workload(spiffe_id),
            Looked::NoSvid(why) => Caller::no_workload(why),
            Looked::Undecided => Caller::undecided(),
        }
    }

    /// `x5t#S256` (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
}

/// MCP, transports, security: a page of another origin may not call, whatever name it found this address under.
fn check_origin(proxy: &Proxy, headers: &HeaderMap) -> Result<(), Failure> {
    let foreign = |origin: &http::HeaderValue| origin.as_bytes() != proxy.front.origin.as_bytes();
    if headers.get_all(header::ORIGIN).iter().any(foreign) { Err(Failure::Origin) } else { Ok(()) }
}

async fn read(body: Body, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max_bytes).collect()).await;
    match collected.map_err(|_| Failure::BodyTooSlow)? {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::BodyTooLarge),
        Err(_) => Err(Failure::BodyBroken),
    }
}

/// RFC 9728 §3: where a client without a token learns whom to ask for one.
async fn metadata(State(proxy): State<Arc<Proxy>>) -> Response<Body> {
    reply::json(200, &proxy.front.metadata)
}

async fn ready(State(proxy): State<Arc<Proxy>>) -> Response<Body> {
    let ready = proxy.is_ready();
    reply::json(if ready { 200 } else { 503 }, &json!({ "ready": ready }))
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
