//! The desk at which everything is issued: what the stages need, in one place.

use arc_swap::ArcSwap;
use deputize_call::{nonce::NonceMaker, once::OnceSet};
use std::sync::Arc;

use crate::{
    client::Clients,
    clock::{Clock, ClockWatch},
    drift::Drifts,
    keys::KeySource,
    limits::Limits,
    lineage::Lineage,
    mint::{SecurityTokenService, WebIdentity},
    policy::PolicyEngine,
    provider::Providers,
    record::{Audit, Pseudonyms, Refusals},
    registry::Registry,
    replay::ReplayStore,
    revocation::Revocations,
    role_session::RoleSessions,
    svid::SpiffeDoor,
    templates::{AwsAccounts, Templates},
    transaction::TransactionIds,
};

/// Everything that issuing needs. Shared by all doors.
pub struct Desk {
    /// What does not change while the process runs.
    pub settings: Settings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether the clocks agree.
    pub clock_watch: ClockWatch,
    /// Configuration that can be reloaded, swapped as a whole.
    pub rules: ArcSwap<Rules>,
    /// Keys of the tool-call token issuer.
    pub keys: KeySource,
    /// The log.
    pub audit: Arc<dyn Audit>,
    /// Client assertions that were used.
    pub assertions: Arc<dyn ReplayStore>,
    /// DPoP proofs that were used.
    pub proofs: OnceSet,
    /// DPoP nonces.
    pub nonces: NonceMaker,
    /// L3 tokens that were used.
    pub redemptions: OnceSet,
    /// What no longer holds.
    pub revocations: Arc<dyn Revocations>,
    /// Tools that are no longer what was approved.
    pub drifts: Arc<dyn Drifts>,
    /// Which live token came from which.
    pub lineage: Lineage,
    /// Transaction ids.
    pub transactions: TransactionIds,
    /// Names of arguments in the log.
    pub pseudonyms: Pseudonyms,
    /// Bounds for each client.
    pub limits: Limits,
    /// Counts of refusals.
    pub refusals: Refusals,
    /// The door to AWS, where there is one.
    pub aws: Option<AwsDoor>,
    /// The door to SVIDs, where there is one.
    pub spiffe: Option<Arc<SpiffeDoor>>,
}

/// What sessions of AWS roles need beyond the rest.
pub struct AwsDoor {
    /// Asked for sessions.
    pub sts: Arc<dyn SecurityTokenService>,
    /// What STS knows us by.
    pub web_identity: WebIdentity,
    /// Sessions that were given out, and those that are being asked for.
    pub sessions: RoleSessions,
}

/// What is read from configuration files, checked as a whole.
#[derive(Debug)]
pub struct Rules {
    /// OAuth clients.
    pub clients: Clients,
    /// Trusted identity providers.
    pub providers: Providers,
    /// Approved servers and tools.
    pub registry: Registry,
    /// Policies.
    pub policies: PolicyEngine,
    /// AWS role templates; none without `aws`.
    pub templates: Templates,
    /// The AWS accounts whose roles may be used.
    pub aws_accounts: AwsAccounts,
}

/// Settings of the issuer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our issuer URL: `iss`, and the `aud` of client assertions.
    pub issuer: String,
    /// Configured public URL of the token endpoint: the `htu` of proofs.
    pub token_endpoint: String,
    /// Whether TLS clients are asked for certificates: then tokens may be bound to one (RFC 8705 §3).
    pub takes_certificates: bool,
    /// Grace on the times of tokens that others made, in seconds.
    pub leeway_seconds: u64,
    /// How far a proof's `iat` may be from now, in seconds.
    pub proof_window_seconds: u64,
    /// Size of the log when this process started: tokens whose record is older were made before, and are not redeemed.
    pub log_size_at_start: u64,
    /// Wall time when this process started, in Unix seconds: what was made earlier is not redeemed either, for the log
    /// may have been put back to an older state.
    pub started_at_seconds: u64,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("settings", &self.settings).finish_non_exhaustive()
    }
}
