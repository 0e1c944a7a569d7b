//! What a node's agent and the broker say to each other: JSON over HTTPS, below `/node/`.
//!
//! The node itself stands in no request: it is whoever's certificate the connection has. No private key stands in any
//! answer: keys are made on the node.

mod exchange;
mod secret;
mod state;

pub use exchange::{ExchangeAnswer, ExchangeAsk};
pub use secret::Told;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use deputize_issuer::{
    authority::{AuthorityError, Standing},
    bundle,
    desk::Desk,
    entry::Draft,
    svid::{Bundle, SpiffeDoor},
    workload::{Selector, Workload},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spiffe::{SpiffeId, TrustDomain};
use std::collections::{BTreeMap, BTreeSet};

/// `POST /node/attest`: with at most one of the two, for without either the connection's certificate is the proof.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// Certificate signing request (DER), base64.
    pub csr: String,
    /// A join token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<Told>,
    /// The service account token of the agent's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<ServiceAccountToken>,
}

/// A service account token of Kubernetes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountToken {
    /// Name of the cluster at the broker; may be left out where there is one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// It.
    pub token: Told,
}

/// `POST /node/renew`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// Certificate signing request (DER), base64.
    pub csr: String,
}

/// The SVID of a node, as both answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeSvidAnswer {
    /// The node.
    pub spiffe_id: String,
    /// Certificates (DER), base64, the leaf first.
    pub chain: Vec<String>,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The authorities that it leads to: SHA-256 of each one's key, in hexadecimal.
    pub authorities: Vec<String>,
    /// The bundle of its trust domain (SPIFFE Trust Domain and Bundle §4).
    pub bundle: Value,
}

/// A process, as the agent saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenProcess {
    /// What is true of it.
    pub selectors: Vec<String>,
    /// Whether it runs in a container.
    pub contained: bool,
}

/// `POST /node/x509-svid`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct X509Request {
    /// Name of the entry.
    pub entry: String,
    /// Who asks.
    pub process: SeenProcess,
    /// Certificate signing request (DER), base64.
    pub csr: String,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct X509Answer {
    /// Whose it is.
    pub spiffe_id: String,
    /// Certificates (DER), base64, the leaf first.
    pub chain: Vec<String>,
    /// From when it is valid, in Unix seconds.
    pub not_before: u64,
    /// When it ends, in Unix seconds.
    pub not_after: u64,
    /// The entry's hint.
    pub hint: String,
    /// The authorities that it leads to, in hexadecimal.
    pub authorities: Vec<String>,
}

/// `POST /node/jwt-svid`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtRequest {
    /// Name of the entry.
    pub entry: String,
    /// Who asks.
    pub process: SeenProcess,
    /// Whom it is for.
    pub audiences: Vec<String>,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct JwtAnswer {
    /// Whose it is.
    pub spiffe_id: String,
    /// The token.
    pub token: Told,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
    /// The entry's hint.
    pub hint: String,
}

/// `POST /node/denied`: a process asked, and no entry is for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedRequest {
    /// Who asked.
    pub process: SeenProcess,
}

/// A line of `GET /node/watch`: the whole state when it changed, and nothing every few seconds that nothing did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// The state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// All that a node's agent has to know, and nothing of other nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Grows with each state on one stream.
    pub version: u64,
    /// The trust domain.
    pub trust_domain: String,
    /// The entries for this node's processes, each a [`Draft`]. Which other nodes they are for is not said.
    pub entries: Vec<Value>,
    /// Our bundle (SPIFFE Trust Domain and Bundle §4).
    pub bundle: Value,
    /// Those of the foreign trust domains that these entries federate with, by name.
    pub federated: BTreeMap<String, Value>,
    /// X.509 authorities whose work holds, in hexadecimal.
    pub authorities: Vec<String>,
    /// X.509 authorities whose work is to be replaced.
    pub tainted: Vec<String>,
    /// `kid`s of the JWT authorities whose work holds.
    pub jwt_keys: Vec<String>,
}

/// What was said cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(pub String);

impl State {
    /// What this node's agent has to know now. A foreign bundle that cannot be written is left out: whose it is has
    /// nothing to do with whether nodes hear of all else.
    ///
    /// # Errors
    /// If our own bundle cannot be written.
    pub fn of(door: &SpiffeDoor, node: &SpiffeId, version: u64) -> Result<Self, AuthorityError> {
        let (entries, ring) = (door.entries.now(), door.authorities.ring());
        let drafts: Vec<Draft> = entries
            .of_node(node)
            .into_iter()
            .map(|entry| Draft { nodes: Vec::new(), ..entry.to_draft() })
            .collect();
        let wanted: BTreeSet<&str> =
            drafts.iter().flat_map(|entry| &entry.federates_with).map(String::as_str).collect();
        let foreign = door.foreign.now();
        let federated = foreign.iter().filter(|bundle| wanted.contains(bundle.trust_domain.as_str()));
        let federated = federated.filter_map(|bundle| told(bundle)).collect();
        let standing = ring.standing();
        Ok(Self {
            version,
            trust_domain: door.trust_domain.to_string(),
            bundle: bundle::to_document(&ring.bundle)?,
            federated,
            authorities: standing.untainted.iter().map(to_hex).collect(),
            tainted: standing.tainted.iter().map(to_hex).collect(),
            jwt_keys: standing.jwt_keys,
            // Texts, numbers and lists of them can always be written.
            entries: drafts.iter().filter_map(|draft| serde_json::to_value(draft).ok()).collect(),
        })
    }

    /// Whose work goes on to be used.
    ///
    /// # Errors
    /// If a name is none.
    pub fn standing(&self) -> Result<Standing, NotUnderstood> {
        let read = |names: &[String]| names.iter().map(|name| from_hex(name)).collect::<Result<Vec<_>, _>>();
        Ok(Standing {
            untainted: read(&self.authorities)?,
            tainted: read(&self.tainted)?,
            jwt_keys: self.jwt_keys.clone(),
        })
    }
}

impl SeenProcess {
    /// As an agent saw it.
    pub fn of(workload: &Workload) -> Self {
        Self {
            selectors: workload.selectors().iter().map(ToString::to_string).collect(),
            contained: workload.is_contained(),
        }
    }

    /// What is true of it.
    ///
    /// # Errors
    /// If one of its selectors is none, or there are too many.
    pub fn selectors(&self) -> Result<BTreeSet<Selector>, NotUnderstood> {
        if self.selectors.len() > MAX_SELECTORS {
            return Err(not_understood("too many selectors"));
        }
        let read = |text: &String| text.parse().map_err(|error| not_understood(format!("{text:?}: {error}")));
        self.selectors.iter().map(read).collect()
    }
}

/// A foreign bundle as nodes are told of it.
fn told(bundle: &Bundle) -> Option<(String, Value)> {
    let name = bundle.trust_domain.to_string();
    match bundle::to_document(bundle) {
        Ok(document) => Some((name, document)),
        Err(error) => {
            metrics::counter!("deputize_node_bundles_left_out_total", "trust_domain" => name.clone())
                .increment(1);
            tracing::error!(trust_domain = name, %error, "foreign bundle cannot be told to a node, it is left out");
            None
        }
    }
}

/// The bundle that verifies what this desk signs, as it is told.
///
/// # Errors
/// If it cannot be written.
pub fn own_bundle(desk: &Desk) -> Result<Value, AuthorityError> {
    match &desk.spiffe {
        Some(door) => bundle::to_document(&door.authorities.ring().bundle),
        None => Ok(Value::Null),
    }
}

/// Reads a bundle.
///
/// # Errors
/// If it is none.
pub fn read_bundle(trust_domain: TrustDomain, document: &Value) -> Result<Bundle, NotUnderstood> {
    bundle::from_document(trust_domain, document.to_string().as_bytes()).map_err(not_understood)
}

/// Certificates as they are told.
pub fn to_base64(chain: &[Vec<u8>]) -> Vec<String> {
    chain.iter().map(|der| STANDARD.encode(der)).collect()
}

/// Reads certificates.
///
/// # Errors
/// If one of them is no base64, or there are too many.
pub fn from_base64(chain: &[String]) -> Result<Vec<Vec<u8>>, NotUnderstood> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(not_understood("a chain of no certificates, or of too many"));
    }
    chain.iter().map(|text| STANDARD.decode(text).map_err(not_understood)).collect()
}

/// A digest as it is told.
pub fn to_hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a digest.
///
/// # Errors
/// If it is none.
pub fn from_hex(text: &str) -> Result<[u8; 32], NotUnderstood> {
    let none = || not_understood("no digest in hexadecimal");
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(none()) };
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(none)
}

fn not_understood(why: impl ToString) -> NotUnderstood {
    NotUnderstood(why.to_string())
}

/// More than a process has groups.
const MAX_SELECTORS: usize = 2048;
const MAX_CHAIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::keys::KeySet;

    #[test]
    fn a_foreign_bundle_that_cannot_be_told_is_left_out() {
        let bundle = |x509_authorities| Bundle {
            trust_domain: TrustDomain::new("partner.test").unwrap(),
            x509_authorities,
            jwt_authorities: KeySet::default(),
            sequence: 1,
            refresh_hint_seconds: 300,
        };
        assert!(told(&bundle(vec![b"no certificate".to_vec()])).is_none());
        let (name, document) = told(&bundle(Vec::new())).unwrap();
        assert_eq!((name.as_str(), document["spiffe_sequence"].as_u64()), ("partner.test", Some(1)));
    }
}
