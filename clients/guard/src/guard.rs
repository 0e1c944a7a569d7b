//! What a guard knows and is told: settings, the snapshot, revocations, the server's live tools.

use crate::{
    clocks::ClockWatch,
    config::GuardConfig,
    drift::Drift,
    outside::{Redeemer, Upstream},
    possession::Proofs,
    refusal::Reason,
    revocation::{Revocation, Revocations},
    snapshot::{ObservedTools, Snapshot, SnapshotError},
    uses::Uses,
};
use deputize_call::{
    action::Action,
    digest::{Digest, prompt_digest, tool_digest},
    json::{JsonError, Object},
    jws::JwsError,
    nonce::NonceMaker,
    once::OnceSet,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// Stands before one MCP server and lets through what was granted, and nothing else.
pub struct Guard {
    pub(crate) config: GuardConfig,
    pub(crate) redeemer: Arc<dyn Redeemer>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) proofs: Proofs,
    pub(crate) uses: Uses,
    pub(crate) revocations: RwLock<Revocations>,
    pub(crate) snapshot: RwLock<Option<Arc<Snapshot>>>,
    pub(crate) live: RwLock<Live>,
    pub(crate) clocks: ClockWatch,
    pub(crate) started_seconds: u64,
}

/// What the server lists now, by name; nothing where it was not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) tools: Option<BTreeMap<String, Digest>>,
    pub(crate) prompts: Option<BTreeMap<String, Digest>>,
}

impl Guard {
    /// A guard that refuses every call with 503 until it has a snapshot ([`Guard::install`]) and has seen the
    /// server's tools ([`Guard::observe_tools`]). Fails only if the system has no randomness.
    pub fn new(
        config: GuardConfig,
        redeemer: Arc<dyn Redeemer>,
        upstream: Arc<dyn Upstream>,
        now_seconds: u64,
    ) -> Result<Self, JwsError> {
        let proofs = Proofs {
            nonces: NonceMaker::new(&config.name, config.nonce_lifetime)?,
            seen: OnceSet::new(config.nonce_lifetime + PROOF_MARGIN, config.proof_capacity),
        };
        Ok(Self {
            proofs,
            redeemer,
            upstream,
            uses: Uses::new(config.counted_tokens),
            revocations: RwLock::default(),
            snapshot: RwLock::default(),
            live: RwLock::default(),
            clocks: ClockWatch::default(),
            started_seconds: now_seconds,
            config,
        })
    }

    /// Takes a snapshot into use that the broker gave just now. One that is older than the present one, or of another
    /// server, is refused.
    pub fn install(&self, snapshot: Snapshot, uptime: Duration) -> Result<(), SnapshotError> {
        self.take(snapshot, uptime)?;
        self.hear_revocations(uptime);
        Ok(())
    }

    /// As [`Guard::install`], for a snapshot from this guard's own memory: it says nothing of what was revoked since, so
    /// calls wait for word from the broker.
    pub fn recall(&self, snapshot: Snapshot, uptime: Duration) -> Result<(), SnapshotError> {
        self.take(snapshot, uptime)
    }

    fn take(&self, snapshot: Snapshot, uptime: Duration) -> Result<(), SnapshotError> {
        if snapshot.issuer() != self.config.issuer {
            return Err(SnapshotError::Other("broker"));
        }
        if snapshot.resource() != self.config.resource {
            return Err(SnapshotError::Other("server"));
        }
        let mut installed = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        let highest = installed.as_ref().map(|present| present.version());
        if let Some(highest) = highest.filter(|highest| snapshot.version() < *highest) {
            return Err(SnapshotError::Older { offered: snapshot.version(), highest });
        }
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        if highest.is_none_or(|highest| snapshot.version() > highest) {
            revocations.lift_standing();
        }
        // One of the same version may have been made before a revocation of which we have heard, or after.
        for revocation in snapshot.revocations() {
            revocations.add(revocation.clone(), uptime);
        }
        *installed = Some(Arc::new(snapshot));
        Ok(())
    }

    /// A revocation that the broker pushed.
    pub fn revoke(&self, revocation: Revocation, uptime: Duration) {
        let mut revocations = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        revocations.add(revocation, uptime);
        revocations.hear(uptime);
    }

    /// The broker is there and has nothing new about revocations. Without this word calls stop after a while.
    pub fn hear_revocations(&self, uptime: Duration) {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).hear(uptime);
    }

    /// Takes note of the definitions that the server's `tools/list` gives now. Calls of a tool whose live definition
    /// is not the approved one are refused; a name that stands twice counts as changed.
    pub fn observe_tools(&self, definitions: &[Object]) -> ObservedTools {
        self.observe(Action::CallTool, definitions)
    }

    /// As [`Guard::observe_tools`], for what `prompts/list` gives: prompts are refused like tools until they were seen.
    pub fn observe_prompts(&self, definitions: &[Object]) -> ObservedTools {
        self.observe(Action::GetPrompt, definitions)
    }

    fn observe(&self, action: Action, definitions: &[Object]) -> ObservedTools {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut live: BTreeMap<String, Option<Digest>> = BTreeMap::new();
        for definition in definitions.iter().take(MAX_LIVE_TOOLS) {
            let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
            let digest = if live.contains_key(name) { None } else { digest_of(action, definition).ok() };
            live.insert(name.to_owned(), digest);
        }
        let mut observed = ObservedTools::default();
        for (name, digest) in &live {
            let pinned = snapshot.as_ref().and_then(|snapshot| snapshot.pinned(action, name));
            match pinned {
                None => observed.unknown.push(name.clone()),
                Some(tool) if *digest == Some(tool.digest) => observed.approved.push(name.clone()),
                Some(_) => observed.drifted.push(name.clone()),
            }
        }
        let listed = live.into_iter().filter_map(|(name, digest)| Some((name, digest?))).collect();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        match action {
            Action::GetPrompt => live.prompts = Some(listed),
            Action::CallTool | Action::ReadResource => live.tools = Some(listed),
        }
        observed
    }

    /// How a live definition of a tool differs from the approved one; `None` for a tool that was never approved, and for
    /// one that is as it was.
    pub fn drift(&self, live: &Object) -> Option<Drift> {
        self.drift_of(Action::CallTool, live)
    }

    /// As [`Guard::drift`], for a prompt too.
    pub fn drift_of(&self, action: Action, live: &Object) -> Option<Drift> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let pinned = snapshot.pinned(action, live.get("name").and_then(Value::as_str)?)?;
        Drift::between(action, (&pinned.definition, pinned.digest), live)
    }

    /// Whether calls can be decided now: snapshot, revocations and the server's tools are known and fresh.
    pub fn is_ready(&self, now_seconds: u64, uptime: Duration) -> bool {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = revocations.is_fresh(uptime, self.config.max_revocation_age);
        let Ok(snapshot) = self.current_snapshot(now_seconds) else { return false };
        // Tools that were approved and are all gone are no list that could be gone by.
        let is_seen = |tools: &BTreeMap<_, _>| !tools.is_empty() || !snapshot.has(Action::CallTool);
        is_fresh && live.tools.as_ref().is_some_and(is_seen)
    }

    /// A nonce for the next proof of whoever asked (RFC 9449 §8.2).
    pub fn next_nonce(&self, uptime: Duration) -> String {
        self.proofs.nonces.make(uptime)
    }

    /// Whether it is known what was approved.
    pub fn has_snapshot(&self, now_seconds: u64) -> bool {
        self.current_snapshot(now_seconds).is_ok()
    }

    pub(crate) fn current_snapshot(&self, now_seconds: u64) -> Result<Arc<Snapshot>, Reason> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let snapshot = snapshot.ok_or(Reason::Unavailable("no snapshot"))?;
        if snapshot.expires_at() <= now_seconds {
            return Err(Reason::Unavailable("snapshot expired"));
        }
        Ok(snapshot)
    }
}

/// Digest of a tool's or prompt's definition.
pub(crate) fn digest_of(action: Action, definition: &Object) -> Result<Digest, JsonError> {
    match action {
        Action::GetPrompt => prompt_digest(definition),
        Action::CallTool | Action::ReadResource => tool_digest(definition),
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("resource", &self.config.resource).finish_non_exhaustive()
    }
}

const PROOF_MARGIN: Duration = Duration::from_secs(10);
const MAX_LIVE_TOOLS: usize = 2_000;
