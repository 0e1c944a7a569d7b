//! The broker, as an agent asks it: HTTPS, with the node's SVID as its certificate.

mod exchange;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use deputize_issuer::svid::OwnKey;
use deputize_workload_api::{
    exchange::NotExchanged,
    node::{
        NodeBroker,
        wire::{
            AttestRequest, DeniedRequest, ExchangeAnswer, ExchangeAsk, JwtAnswer, JwtRequest, Line,
            NodeSvidAnswer, RenewRequest, ServiceAccountToken, Told, X509Answer, X509Request,
        },
    },
    source::SourceError,
};
use reqwest::{Client, Response, Url, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use zeroize::Zeroizing;

use super::{NodeProof, identity::NodeIdentity};

/// Where the broker is, and who vouches for its certificate.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Its public URL.
    pub broker: Url,
    /// PEM: these authorities alone; without them those of the system.
    pub ca_pem: Option<Vec<u8>>,
}

/// Why the broker does not answer as it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It cannot be reached, or cannot answer now.
    #[error("the broker cannot be asked now: {0}")]
    Away(String),
    /// It does not know this node by what was shown.
    #[error("the broker does not take this proof: {0}")]
    NotANode(String),
    /// It knows the node, and says no.
    #[error("the broker refuses this node: {0}")]
    Denied(String),
    /// It cannot do with the request.
    #[error("the broker does not take the request: {0}")]
    Invalid(String),
}

/// A connection to the broker that shows the node's SVID.
pub struct Link {
    reach: Reach,
    /// Another one with each SVID.
    client: ArcSwap<Client>,
    /// Whether the broker's stream is open, or was when the node renewed.
    is_followed: AtomicBool,
}

impl Link {
    /// Shows this one.
    ///
    /// # Errors
    /// If TLS cannot do with it.
    pub fn new(reach: Reach, identity: &NodeIdentity) -> Result<Self, LinkError> {
        let client = ArcSwap::from_pointee(client(&reach, Some(&identity.to_pem()))?);
        Ok(Self { reach, client, is_followed: AtomicBool::new(true) })
    }

    /// Shows this one from now on, over new connections.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn show(&self, identity: &NodeIdentity) -> Result<(), LinkError> {
        self.client.store(Arc::new(client(&self.reach, Some(&identity.to_pem()))?));
        Ok(())
    }

    /// Says whether the broker's stream is open: while it is not, no exchange waits long for an answer.
    pub fn set_followed(&self, is_followed: bool) {
        self.is_followed.store(is_followed, Ordering::Release);
    }

    /// Makes a node of this machine.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn attest(
        reach: &Reach,
        proof: &NodeProof,
        now_seconds: u64,
    ) -> Result<NodeIdentity, LinkError> {
        let key = OwnKey::generate().map_err(|error| LinkError::Away(error.to_string()))?;
        let csr = key.request(None).map_err(|error| LinkError::Away(error.to_string()))?;
        let mut request = AttestRequest { csr: STANDARD.encode(csr), ..AttestRequest::default() };
        let mut certificate = None;
        match proof {
            NodeProof::JoinToken(token) => request.join_token = Some(Told::new(token.trim().to_owned())),
            NodeProof::JoinTokenGone(file) => {
                return Err(LinkError::Invalid(format!("{} is not there", file.display())));
            }
            NodeProof::Certificate(pem) => certificate = Some(pem),
            NodeProof::ServiceAccount { cluster, file } => {
                let token = std::fs::read_to_string(file).map(Zeroizing::new);
                let token = token.map_err(|error| LinkError::Away(format!("{}: {error}", file.display())))?;
                let (cluster, token) = (cluster.clone(), Told::new(token.trim().to_owned()));
                request.kubernetes = Some(ServiceAccountToken { cluster, token });
            }
        }
        let client = client(reach, certificate)?;
        let answer: NodeSvidAnswer = post((&client, reach), "/node/attest", &request).await?;
        NodeIdentity::of(&answer, &key, now_seconds).map_err(LinkError::Away)
    }

    /// The node's next SVID, with a new key.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn renew(&self, now_seconds: u64) -> Result<NodeIdentity, LinkError> {
        let key = OwnKey::generate().map_err(|error| LinkError::Away(error.to_string()))?;
        let csr = key.request(None).map_err(|error| LinkError::Away(error.to_string()))?;
        let answer: NodeSvidAnswer =
            self.ask("/node/renew", &RenewRequest { csr: STANDARD.encode(csr) }).await?;
        NodeIdentity::of(&answer, &key, now_seconds).map_err(LinkError::Away)
    }

    /// The stream of states.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn watch(&self) -> Result<Lines, LinkError> {
        let url = url(&self.reach, "/node/watch")?;
        let client = self.client.load_full();
        let asked = tokio::time::timeout(PATIENCE, client.get(url).send()).await;
        let response = asked.map_err(|_| LinkError::Away("it does not answer".to_owned()))?.map_err(away)?;
        Ok(Lines { response: accepted(response).await?, buffer: BytesMut::new() })
    }

    async fn ask<A: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<A, LinkError> {
        let client = self.client.load_full();
        match post((&client, &self.reach), path, body).await {
            // A connection that was kept may have been closed meanwhile; nothing asked for twice is given twice to
            // anybody else.
            Err(LinkError::Away(_)) => post((&self.client.load_full(), &self.reach), path, body).await,
            // The node renewed its SVID while this was under way, and has shown the new one elsewhere already.
            Err(LinkError::NotANode(_)) if !Arc::ptr_eq(&client, &self.client.load_full()) => {
                post((&self.client.load_full(), &self.reach), path, body).await
            }
            answered => answered,
        }
    }
}

/// The lines of a stream.
pub struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    /// The next one; none where nothing came for so long that the connection must be dead, or it ended.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line)
                    .inspect_err(|error| tracing::warn!(%error, "the broker's line is not understood"))
                    .ok();
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk()).await;
            let Ok(Ok(Some(chunk))) = chunk else { return None };
            if self.buffer.len() + chunk.len() > MAX_LINE_BYTES {
                tracing::warn!("the broker's line is too long");
                return None;
            }
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

#[async_trait]
impl NodeBroker for Link {
    async fn x509_svid(&self, request: &X509Request) -> Result<X509Answer, SourceError> {
        let refused = SourceError::Unavailable("the broker signs no such certificate");
        self.ask("/node/x509-svid", request).await.map_err(|error| source_error(&error, refused))
    }

    async fn jwt_svid(&self, request: &JwtRequest) -> Result<JwtAnswer, SourceError> {
        let refused = SourceError::Invalid("the broker signs no token for such audiences");
        self.ask("/node/jwt-svid", request).await.map_err(|error| source_error(&error, refused))
    }

    async fn exchange(&self, ask: &ExchangeAsk) -> Result<ExchangeAnswer, NotExchanged> {
        exchange::exchange(self, ask).await
    }

    async fn denied(&self, request: &DeniedRequest) -> Result<(), SourceError> {
        let told: Result<serde_json::Value, LinkError> = self.ask("/node/denied", request).await;
        told.map(drop).map_err(|error| source_error(&error, SourceError::Unavailable("not taken")))
    }
}

fn source_error(error: &LinkError, refused: SourceError) -> SourceError {
    match error {
        LinkError::Away(_) => SourceError::Unavailable("the broker cannot be asked now"),
        LinkError::NotANode(_) => SourceError::Unavailable("this node has to attest itself anew"),
        LinkError::Denied(_) => SourceError::NotEntitled,
        LinkError::Invalid(_) => refused,
    }
}

fn client(reach: &Reach, identity_pem: Option<&Zeroizing<Vec<u8>>>) -> Result<Client, LinkError> {
    // One provider of cryptography in the process; an error only says that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let unusable = |error: reqwest::Error| LinkError::Invalid(describe(&error));
    let mut builder = Client::builder()
        .user_agent("deputize-agent")
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        // Less than the broker keeps an idle connection.
        .pool_idle_timeout(IDLE);
    if let Some(pem) = &reach.ca_pem {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(unusable)?);
    }
    if let Some(pem) = identity_pem {
        builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(unusable)?);
    }
    builder.build().map_err(unusable)
}

fn url(reach: &Reach, path: &str) -> Result<Url, LinkError> {
    let base = reach.broker.as_str().trim_end_matches('/');
    Url::parse(&format!("{base}{path}")).map_err(|error| LinkError::Invalid(error.to_string()))
}

async fn post<A: DeserializeOwned>(
    (client, reach): (&Client, &Reach),
    path: &str,
    body: &impl Serialize,
) -> Result<A, LinkError> {
    let response = accepted(send((client, reach), path, (body, MOST_BODIES_BYTES, PATIENCE)).await?).await?;
    let text = collect(response).await?;
    serde_json::from_slice(&text)
        .map_err(|error| LinkError::Away(format!("its answer is not understood: {error}")))
}

/// The answer, whatever its status.
async fn send(
    (client, reach): (&Client, &Reach),
    path: &str,
    (body, most_bytes, patience): (&impl Serialize, usize, Duration),
) -> Result<Response, LinkError> {
    // Tokens may be in it: wiped when it was sent. What grows leaves behind what it was.
    let mut text = Zeroizing::new(Vec::with_capacity(most_bytes));
    serde_json::to_writer(&mut *text, body).map_err(|error| LinkError::Invalid(error.to_string()))?;
    let request = client
        .post(url(reach, path)?)
        .timeout(patience)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from_owner(text));
    request.send().await.map_err(away)
}

/// The error of an answer (RFC 6749 §5.2), as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
    decision_id: String,
}

async fn accepted(response: Response) -> Result<Response, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = collect(response).await.unwrap_or_default();
    let refusal: Refusal = serde_json::from_slice(&text).unwrap_or_default();
    let said = format!("{status}: {} ({})", refusal.error_description, refusal.decision_id);
    Err(match (status.as_u16(), refusal.error.as_str()) {
        (401, _) => LinkError::NotANode(said),
        (400, "access_denied") => LinkError::Denied(said),
        (400 | 404 | 405 | 413 | 415, _) => LinkError::Invalid(said),
        _ => LinkError::Away(said),
    })
}

async fn collect(mut response: Response) -> Result<Zeroizing<Vec<u8>>, LinkError> {
    // Tokens may be in it, as in what is sent.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if text.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(LinkError::Away("its answer is too long".to_owned()));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

fn away(error: reqwest::Error) -> LinkError {
    LinkError::Away(describe(&error))
}

/// An error with its causes; reqwest's own text stops at the first.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(10);
/// The broker says every ten seconds that it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// As long as most bodies are at most.
const MOST_BODIES_BYTES: usize = 64 * 1024;
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// All entries that there can be, as long as entries are.
const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
