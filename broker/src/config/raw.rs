//! What the configuration file says, member for member. `resolved` checks it; nothing else reads it.

mod aws;
mod client_tls;
mod federation;
mod kubelet;
mod nodes;
mod spiffe;

pub use aws::{AssumeRole, Aws, Sts, WEB_IDENTITY_AUDIENCE, WebIdentityAlgorithm};
pub use client_tls::TlsClientAuth;
pub use federation::{SpiffeBundleEndpoint, SpiffeEndpoint, SpiffeFederation, SpiffeProfile};
pub use kubelet::SpiffeKubelet;
pub use nodes::{SpiffeCluster, SpiffeNodes};
pub use spiffe::{EntryFile, Spiffe};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// The configuration of a broker. Relative paths are relative to the file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Public base URL of the broker: `iss` of its tokens. https, without a trailing slash.
    pub issuer: String,
    /// Folder of the log, keys and runtime facts.
    pub data_dir: PathBuf,
    /// The public listener.
    pub listen: Listen,
    /// The listener of health, metrics and administration.
    #[serde(default)]
    pub admin: Admin,
    /// The audit log.
    #[serde(default)]
    pub audit: Audit,
    /// OIDC issuers whose users' tokens are accepted.
    #[serde(default)]
    pub identity_providers: Vec<IdentityProvider>,
    /// OAuth clients: agent platforms, agents, guards of MCP servers.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// The registry of MCP servers.
    pub registry: Registry,
    /// Folder of policies (`*.cedar`).
    pub policies: PathBuf,
    /// Whether clients may authenticate with a bootstrap secret. Off by default: keys are better.
    #[serde(default)]
    pub allow_client_secrets: bool,
    /// Files with private keys (JWK) for JWE-wrapped subject tokens.
    #[serde(default)]
    pub jwe_key_files: Vec<PathBuf>,
    /// AWS credentials for the one resource in a call; without it there are none.
    #[serde(default)]
    pub aws: Option<Aws>,
    /// SPIFFE identities for the processes of this machine; without it there are none.
    #[serde(default)]
    pub spiffe: Option<Spiffe>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// The registry of MCP servers, and whose approvals count.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Folder of records, one server each (`*.yaml`, `*.yml`, `*.json`), with their approvals in `approvals`.
    pub folder: PathBuf,
    /// Files with the public keys (JWKS) of those who may approve; `deputize registry key new` makes them.
    #[serde(default)]
    pub approval_keys: Vec<PathBuf>,
    /// Whether records count as approved without a signature: then whoever can write these files approves.
    #[serde(default)]
    pub unsigned_approvals: UnsignedApprovals,
}

/// What becomes of a record that nobody signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnsignedApprovals {
    /// It is refused.
    #[default]
    Refuse,
    /// It counts as approved unless it says `approved: false`.
    Allow,
}

/// A listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// `host:port`; port 0 takes a free one.
    pub address: String,
    /// TLS, unless a proxy in front terminates it.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Set to true where a proxy in front terminates TLS and this listener is not reachable otherwise.
    #[serde(default)]
    pub behind_proxy: bool,
}

/// Certificate and key of a listener.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM chain.
    pub certificate_file: PathBuf,
    /// PEM key, readable by its owner alone.
    pub key_file: PathBuf,
    /// Whether clients are asked for a certificate of theirs; without this they are, where somebody has one to show
    /// (`spiffe_id`, `tls_client_auth`, `certificate_file`). Who shows none is served all the same.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether a TLS listener asks clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// It does not.
    Ignore,
    /// It does.
    Ask,
}

/// Administration.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `host:port` for health and metrics; administration itself only where `socket` is not enough (see `tls`).
    #[serde(default)]
    pub address: Option<String>,
    /// Unix socket for administration: whoever may open it is an administrator. `data_dir/admin.sock` by default.
    #[serde(default)]
    pub socket: Option<PathBuf>,
}

/// The audit log.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Where the newest checkpoint is kept outside the data folder, so that a rollback of the folder is seen.
    pub anchor: Option<PathBuf>,
    /// Serve without an anchor: a data folder put back to an older state is then not seen, and with it client
    /// assertions that were used in between can be used again.
    pub allow_no_anchor: bool,
    /// Space kept free for decisions and revocations, in MiB.
    pub reserve_mib: u64,
    /// Size of a segment file, in MiB.
    pub segment_mib: u64,
}

/// One trusted OIDC issuer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityProvider {
    /// `iss`, exactly as in its tokens.
    pub issuer: String,
    /// Tenant of its users.
    pub tenant: String,
    /// Where its claims are: `entra_id`, `okta`, `auth0`, `keycloak`, `google` or `generic`.
    #[serde(default)]
    pub preset: Preset,
    /// What differs from the preset.
    #[serde(default)]
    pub claims: Claims,
    /// Where its keys are, for an issuer without discovery.
    #[serde(default)]
    pub jwks_uri: Option<String>,
    /// Greatest age of its tokens since `iat`, in seconds.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// PEM file of a private certification authority.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether its address may be private or loopback. Off by default, so that a name cannot point inward.
    #[serde(default)]
    pub allow_private_addresses: bool,
}

/// Vendors whose claims are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is named as its vendor is")]
pub enum Preset {
    EntraId,
    Okta,
    Auth0,
    Keycloak,
    Google,
    #[default]
    Generic,
}

/// Where claims are, where that differs from the preset.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// The claim that never changes for a person.
    pub stable: Option<String>,
    /// The claim that lists groups.
    pub groups: Option<String>,
    /// Groups that make a role.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Further claims for policy: name there → claim here.
    pub extra: BTreeMap<String, String>,
    /// Claims that must have one of these values: `hd` at Google, `org_id` at Auth0.
    pub required: BTreeMap<String, Vec<String>>,
    /// The claim that names one human at all of the tenant's issuers, for comparing persons across them.
    pub common: Option<String>,
}

/// One OAuth client.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Tenant.
    pub tenant: String,
    /// What `act.sub` says when it acts; its id by default. Often a SPIFFE ID.
    #[serde(default)]
    pub actor: Option<String>,
    /// File with its public keys (JWKS). Answers with AWS credentials are sealed to the first with `use: enc`.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// SPIFFE ID by whose SVIDs it authenticates, JWT-SVIDs and X.509-SVIDs: of our trust domain, or of one in
    /// `spiffe.federation`. It acts as that.
    #[serde(default)]
    pub spiffe_id: Option<String>,
    /// Authenticates by a TLS certificate that an authority vouches for.
    #[serde(default)]
    pub tls_client_auth: Option<TlsClientAuth>,
    /// Authenticates by a TLS certificate of its own, whoever signed it: PEM, several while one follows another.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// SHA-256 of its bootstrap secret, base64url; `deputize client add --secret` prints it.
    #[serde(default)]
    pub secret_sha256: Option<String>,
    /// `aud` (and `azp`/`client_id`) of the user tokens that it may bring; no registered server's, nor the broker's own.
    #[serde(default)]
    pub subject_audiences: Vec<String>,
    /// Actors that it may present by `actor_token`.
    #[serde(default)]
    pub presents_actors: Vec<PresentedActor>,
    /// Servers and tools that it may ask for; none by default.
    #[serde(default)]
    pub may_call: Vec<Reach>,
    /// Resource URI of the MCP server that this client is.
    #[serde(default)]
    pub server: Option<String>,
    /// Users' own tokens that the guard of that server may exchange, for clients that know nothing of Deputize; none
    /// by default.
    #[serde(default)]
    pub accepts_bearer: Vec<AcceptedBearer>,
    /// Whether it may get L0 tokens of its own (`client_credentials`).
    #[serde(default)]
    pub client_credentials: bool,
    /// A disabled client is unknown.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// An actor that a client may present.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PresentedActor {
    /// `iss` of the actor token.
    pub issuer: String,
    /// Its stable claim.
    pub subject: String,
    /// What `act.sub` then says: a name that nobody else has.
    pub actor: String,
}

/// Access tokens of one identity provider that a server accepts as bearer tokens. Their `aud` is the server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedBearer {
    /// `iss` of the tokens: one of `identity_providers`.
    pub issuer: String,
    /// Clients that they may be made for (`azp`, `client_id`); `*` for any that the issuer makes them for.
    pub clients: Vec<String>,
}

/// How far a client may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// Resource URI, or `*` for every server of the tenant.
    pub resource: String,
    /// Tools. Without any of these three lists, everything that the server has; with one of them, what is listed alone.
    #[serde(default)]
    pub tools: Option<Vec<String>>,
    /// Prompts.
    #[serde(default)]
    pub prompts: Option<Vec<String>>,
    /// Resources: each a URI or, with `/*` at its end, everything below.
    #[serde(default)]
    pub resources: Option<Vec<String>>,
}

/// Bounds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second of one source address, before anything is verified.
    pub source_per_second: u32,
    /// Requests a second of one authenticated client.
    pub client_per_second: u32,
    /// Records of denials a second of one client; more are counted.
    pub denials_per_second: u32,
    /// Reports a second of the guards of one server.
    pub guard_events_per_second: u32,
    /// Open connections.
    pub connections: usize,
    /// Grace on the times of other parties' tokens, in seconds.
    pub leeway_seconds: u64,
    /// Proofs and assertions remembered, each.
    pub once_capacity: usize,
    /// How long a stop waits for requests under way, in seconds.
    pub drain_seconds: u64,
}

impl Config {
    /// Issuer of the identity that AWS knows us by: where discovery and keys are, at the broker itself unless it is said.
    pub fn web_identity_issuer(&self) -> String {
        let elsewhere = self.aws.as_ref().and_then(|aws| aws.web_identity.issuer.clone());
        elsewhere.unwrap_or_else(|| format!("{}/web-identity", self.issuer.trim_end_matches('/')))
    }

    /// Audience of that identity.
    pub fn web_identity_audience(&self) -> String {
        self.aws.as_ref().map_or_else(|| WEB_IDENTITY_AUDIENCE.to_owned(), |aws| aws.web_identity.audience())
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { anchor: None, allow_no_anchor: false, reserve_mib: 64, segment_mib: 64 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_per_second: 5000,
            client_per_second: 5000,
            denials_per_second: 10,
            guard_events_per_second: 500,
            connections: 10_000,
            leeway_seconds: 5,
            once_capacity: 2_000_000,
            drain_seconds: 10,
        }
    }
}

fn yes() -> bool {
    true
}
