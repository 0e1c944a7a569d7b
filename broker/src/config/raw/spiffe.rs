//! What the file says of the Workload API.

use deputize_issuer::{
    client::Reach,
    entry::{Draft, Exchange},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::{Reach as RawReach, SpiffeBundleEndpoint, SpiffeFederation, SpiffeKubelet, SpiffeNodes};
use crate::moment;

/// SPIFFE identities for the processes of this machine, on a Unix socket (docs/workload-api.md).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spiffe {
    /// Name of our trust domain, as in `spiffe://example.org/…`: for good, once SVIDs of it are about.
    pub trust_domain: String,
    /// The socket of the Workload API. Its folder must exist, and nobody else may write to it; the socket itself is open to
    /// every process, for the kernel says which one asks. `null`: none here, agents of other machines have theirs.
    #[serde(default = "Spiffe::default_socket")]
    pub socket: Option<PathBuf>,
    /// SPIFFE ID of the node that this broker serves itself; `spiffe://{trust_domain}/deputize/node/local` by default.
    #[serde(default)]
    pub node: Option<String>,
    /// Folder of registration entries (`*.yaml`, `*.yml`), one or many a file, with `---` between them. Without it there
    /// are those alone that administration makes.
    #[serde(default)]
    pub entries: Option<PathBuf>,
    /// Life of X.509-SVIDs, in seconds, where their entry does not say: no longer than that of what signs them.
    #[serde(default = "Spiffe::default_x509_svid_ttl")]
    pub x509_svid_ttl_seconds: u64,
    /// Life of JWT-SVIDs, in seconds, where their entry does not say.
    #[serde(default = "Spiffe::default_jwt_svid_ttl")]
    pub jwt_svid_ttl_seconds: u64,
    /// What signs X.509-SVIDs.
    #[serde(default)]
    pub authority: SpiffeAuthority,
    /// Foreign trust domains whose SVIDs can be verified here. Processes get the bundles of those that their entries name
    /// in `federates_with`.
    #[serde(default)]
    pub federation: Vec<SpiffeFederation>,
    /// A listener of its own for our bundle, which shows our own X.509-SVID (SPIFFE Federation §5.2.2, `https_spiffe`).
    /// Beside it the bundle is at `{issuer}/spiffe/bundle`, in any case.
    #[serde(default)]
    pub bundle_endpoint: Option<SpiffeBundleEndpoint>,
    /// Other machines that have identities for their processes from here; none by default.
    #[serde(default)]
    pub nodes: Option<SpiffeNodes>,
    /// The kubelet of the node that this broker serves itself; none by default.
    #[serde(default)]
    pub kubelet: Option<SpiffeKubelet>,
}

/// What signs X.509-SVIDs. It is replaced by itself, long before its time is over.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpiffeAuthority {
    /// Life of each signing certificate, in seconds.
    pub ttl_seconds: u64,
    /// A certification authority that signs ours; without one, ours sign themselves.
    pub upstream: Option<SpiffeUpstream>,
}

/// A certification authority above ours.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeUpstream {
    /// PEM: its certificate, and those above it up to its root.
    pub certificate_file: PathBuf,
    /// PEM key (PKCS#8), readable by its owner alone.
    pub key_file: PathBuf,
}

/// One registration entry: which processes are entitled to which SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryFile {
    /// Its name, unique among all.
    pub id: String,
    /// The SPIFFE ID that it entitles to. May have places for what was attested, each a whole segment:
    /// `spiffe://example.org/user/{unix:user}`.
    pub spiffe_id: String,
    /// What must be true of a process, all of it: `unix:uid:1000`, `unix:path:/usr/bin/agent`, `systemd:id:agent.service`.
    pub selectors: Vec<String>,
    /// SPIFFE IDs of the nodes whose processes it is for; the broker's own by default. Of all nodes of a cluster:
    /// `spiffe://example.org/deputize/node/kubernetes/CLUSTER/*`; of all machines with certificates: `…/x509pop/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Life of its X.509-SVIDs, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509_svid_ttl_seconds: Option<u64>,
    /// Life of its JWT-SVIDs, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_svid_ttl_seconds: Option<u64>,
    /// What tells several identities of one process apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// DNS names in its X.509-SVIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Foreign trust domains whose bundles its processes get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub federates_with: Vec<String>,
    /// Lets its processes exchange users' tokens for tool-call tokens, without a client's registration or key. In files
    /// alone, which somebody reviews: administration makes no entry that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<EntryExchange>,
    /// When it ends: `2027-01-31T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What processes of an entry may exchange: its SPIFFE ID is their `client_id` and their actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntryExchange {
    /// The tenant: decides for everything that they do.
    pub tenant: String,
    /// `aud`, and `azp`/`client_id`, of the user tokens that they may bring; no registered server's, nor the broker's own.
    pub subject_audiences: Vec<String>,
    /// Servers, and what of them, that they may ask for.
    pub may_call: Vec<RawReach>,
}

impl EntryFile {
    /// The entry, not checked yet.
    ///
    /// # Errors
    /// If `expires_at` is no time.
    pub fn into_draft(self) -> Result<Draft, String> {
        // No "15m ago": of what is so long ago nothing is left at the beginning of time.
        let end = |text: String| {
            moment::parse(&text, 0).map(|ms| ms / 1000).map_err(|_| {
                format!("entry {:?}: expires_at: {text:?} is no time: give 2027-01-31T12:00:00Z", self.id)
            })
        };
        Ok(Draft {
            expires_at_seconds: self.expires_at.map(end).transpose()?,
            id: self.id,
            spiffe_id: self.spiffe_id,
            selectors: self.selectors,
            nodes: self.nodes,
            x509_svid_ttl_seconds: self.x509_svid_ttl_seconds,
            jwt_svid_ttl_seconds: self.jwt_svid_ttl_seconds,
            hint: self.hint,
            dns_names: self.dns_names,
            federates_with: self.federates_with,
            exchange: self.exchange.map(Exchange::from),
        })
    }
}

impl From<EntryExchange> for Exchange {
    fn from(exchange: EntryExchange) -> Self {
        let EntryExchange { tenant, subject_audiences, may_call } = exchange;
        Self { tenant, subject_audiences, may_call: may_call.into_iter().map(Reach::from).collect() }
    }
}

impl From<Exchange> for EntryExchange {
    fn from(exchange: Exchange) -> Self {
        let Exchange { tenant, subject_audiences, may_call } = exchange;
        Self { tenant, subject_audiences, may_call: may_call.into_iter().map(RawReach::from).collect() }
    }
}

impl From<Draft> for EntryFile {
    fn from(draft: Draft) -> Self {
        Self {
            id: draft.id,
            spiffe_id: draft.spiffe_id,
            selectors: draft.selectors,
            nodes: draft.nodes,
            x509_svid_ttl_seconds: draft.x509_svid_ttl_seconds,
            jwt_svid_ttl_seconds: draft.jwt_svid_ttl_seconds,
            hint: draft.hint,
            dns_names: draft.dns_names,
            federates_with: draft.federates_with,
            exchange: draft.exchange.map(EntryExchange::from),
            expires_at: draft.expires_at_seconds.map(moment::format_seconds),
        }
    }
}

impl Spiffe {
    fn default_socket() -> Option<PathBuf> {
        Some(PathBuf::from("/run/deputize/workload-api.sock"))
    }
    fn default_x509_svid_ttl() -> u64 {
        3600
    }
    fn default_jwt_svid_ttl() -> u64 {
        300
    }
}

impl Default for SpiffeAuthority {
    fn default() -> Self {
        Self { ttl_seconds: 86_400, upstream: None }
    }
}
