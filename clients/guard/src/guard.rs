//! The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept.

use crate::{
    config::GuardConfig,
    headers::IncomingCall,
    message::{Call, Kind, Message},
    outside::{Admission, Redeemed, Redeemer, Upstream},
    possession::{self, Proofs},
    refusal::{Needed, Reason, Refusal},
    revocation::{Revocation, Revocations},
    snapshot::{ObservedTools, PinnedTool, Snapshot, SnapshotError},
    uses::Uses,
    verified::{Verified, VerifiedCall, VerifiedListing},
};
use deputize_call::{
    claims::{GrantedDetail, ToolCallClaims},
    digest::{Digest, tool_digest},
    json::Object,
    jws::JwsError,
    level::Level,
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
    config: GuardConfig,
    redeemer: Arc<dyn Redeemer>,
    upstream: Arc<dyn Upstream>,
    proofs: Proofs,
    uses: Uses,
    revocations: RwLock<Revocations>,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    live: RwLock<BTreeMap<String, Digest>>,
    started_seconds: u64,
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
            started_seconds: now_seconds,
            config,
        })
    }

    /// Takes a snapshot into use. One that is older than the present one, or of another server, is refused.
    pub fn install(&self, snapshot: Snapshot, uptime: Duration) -> Result<(), SnapshotError> {
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
            revocations.replace_standing(snapshot.revocations().to_vec(), uptime);
        } else {
            revocations.hear(uptime);
        }
        *installed = Some(Arc::new(snapshot));
        Ok(())
    }

    /// A revocation that the broker pushed.
    pub fn revoke(&self, revocation: Revocation, uptime: Duration) {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).add(revocation, uptime);
    }

    /// The broker is there and has nothing new about revocations. Without this word calls stop after a while.
    pub fn hear_revocations(&self, uptime: Duration) {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).hear(uptime);
    }

    /// Takes note of the definitions that the server's `tools/list` gives now. Calls of a tool whose live definition
    /// is not the approved one are refused; a name that stands twice counts as changed.
    pub fn observe_tools(&self, definitions: &[Object]) -> ObservedTools {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut live: BTreeMap<String, Option<Digest>> = BTreeMap::new();
        for definition in definitions.iter().take(MAX_LIVE_TOOLS) {
            let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
            let digest = if live.contains_key(name) { None } else { tool_digest(definition).ok() };
            live.insert(name.to_owned(), digest);
        }
        let mut observed = ObservedTools::default();
        for (name, digest) in &live {
            let pinned = snapshot.as_ref().and_then(|snapshot| snapshot.tool(name));
            match pinned {
                None => observed.unknown.push(name.clone()),
                Some(tool) if *digest == Some(tool.tool_digest) => observed.approved.push(name.clone()),
                Some(_) => observed.drifted.push(name.clone()),
            }
        }
        let live = live.into_iter().filter_map(|(name, digest)| Some((name, digest?))).collect();
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
        observed
    }

    /// Verifies one request. Nothing is consumed before everything that can be checked without consuming holds.
    pub async fn verify(&self, call: &IncomingCall<'_>) -> Result<Verified, Refusal> {
        let mut needed = None;
        let nonce = || self.proofs.nonces.make(call.uptime);
        self.check(call, &mut needed)
            .await
            .map_err(|reason| Refusal::new(reason, &self.config, Some(nonce()), needed))
    }

    async fn check(&self, call: &IncomingCall<'_>, needed: &mut Option<Needed>) -> Result<Verified, Reason> {
        let message = self.read(call)?;
        let snapshot = self.current_snapshot(call.now_seconds)?;
        if let Kind::Call(asked) = message.kind() {
            let tool = snapshot.tool(&asked.name);
            let input_schema = tool.and_then(|tool| tool.definition.get("inputSchema"));
            call.check_mirrored_params(input_schema, &asked.arguments)?;
        }
        let possessed = possession::verify(call, &self.config, snapshot.keys(), &self.proofs)?;
        let claims = possessed.claims;
        if claims.tenant != snapshot.tenant() {
            return Err(Reason::TokenRefused("of another tenant"));
        }
        let next_nonce = self.proofs.nonces.make(call.uptime);
        let (method, kind, body) = message.into_parts();
        match kind {
            Kind::Listing => {
                *needed = Some(Needed::for_listing());
                self.check_listing(call, &claims).await?;
                Ok(Verified::Listing(VerifiedListing { claims, method, body, next_nonce }))
            }
            Kind::Call(asked) => {
                let call_digest = self.check_granted(&asked, &claims, &snapshot, needed)?;
                self.consume(call, &asked.name, possessed.token, &claims).await?;
                let Call { name: tool, arguments, .. } = asked;
                let token = possessed.token.to_owned();
                Ok(Verified::Call(VerifiedCall {
                    claims,
                    token,
                    tool,
                    arguments,
                    call_digest,
                    body,
                    next_nonce,
                }))
            }
        }
    }

    /// Size, strict JSON, and headers that agree with it.
    fn read(&self, call: &IncomingCall<'_>) -> Result<Message, Reason> {
        if call.body.len() > self.config.max_body_bytes {
            return Err(Reason::TooLarge);
        }
        if call.method != "POST" {
            return Err(Reason::HttpMethod);
        }
        call.check_media_type()?;
        let message = Message::parse(call.body)?;
        call.check_agrees_with(&message)?;
        Ok(message)
    }

    fn current_snapshot(&self, now_seconds: u64) -> Result<Arc<Snapshot>, Reason> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let snapshot = snapshot.ok_or(Reason::Unavailable("no snapshot"))?;
        if snapshot.expires_at() <= now_seconds {
            return Err(Reason::Unavailable("snapshot expired"));
        }
        Ok(snapshot)
    }

    /// A token of level L0, and only such a token, looks without calling.
    async fn check_listing(&self, call: &IncomingCall<'_>, claims: &ToolCallClaims) -> Result<(), Reason> {
        let [detail] = &claims.authorization_details;
        if detail.level() != Level::L0 {
            return Err(Reason::Scope("a token for a call does not list"));
        }
        self.check_revocation(call, claims, None)?;
        self.admit(claims).await
    }

    /// Whether the grant is for this call of this tool, as it was approved and as it is now.
    fn check_granted(
        &self,
        asked: &Call,
        claims: &ToolCallClaims,
        snapshot: &Snapshot,
        needed: &mut Option<Needed>,
    ) -> Result<Digest, Reason> {
        let [detail] = &claims.authorization_details;
        let tool = snapshot.tool(&asked.name).ok_or(Reason::Tool("not approved"))?;
        let least = tool.least_level.max(detail.level());
        let arguments = Value::Object(asked.arguments.clone());
        *needed = Some(Needed::for_call(&self.config, &asked.name, least, arguments));
        check_target(asked, detail, tool)?;
        self.check_live(&asked.name, tool)?;
        tool.schema.validate(&asked.arguments).map_err(Reason::Arguments)?;
        let call_digest = asked.digest()?;
        check_binding(asked, detail, call_digest)?;
        Ok(call_digest)
    }

    /// The definition that the server gives now is the one that was approved (S-18).
    fn check_live(&self, name: &str, tool: &PinnedTool) -> Result<(), Reason> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        match live.get(name) {
            _ if live.is_empty() => Err(Reason::Unavailable("the server's tools were not observed yet")),
            Some(digest) if *digest == tool.tool_digest => Ok(()),
            Some(_) => Err(Reason::Tool("the live definition is not the approved one")),
            None => Err(Reason::Tool("the server no longer lists it")),
        }
    }

    /// Everything that says no without being asked to decide; last of all the token is used.
    async fn consume(
        &self,
        call: &IncomingCall<'_>,
        tool: &str,
        token: &str,
        claims: &ToolCallClaims,
    ) -> Result<(), Reason> {
        self.check_revocation(call, claims, Some(tool))?;
        self.admit(claims).await?;
        let [detail] = &claims.authorization_details;
        match (detail.level(), detail.max_uses) {
            (Level::L3, _) => match self.redeemer.redeem(token).await {
                Redeemed::Yes => Ok(()),
                Redeemed::AlreadyUsed => Err(Reason::UsedUp),
                Redeemed::Revoked => Err(Reason::Revoked),
                Redeemed::Unavailable => Err(Reason::Unavailable("the token cannot be redeemed now")),
            },
            (Level::L0 | Level::L1 | Level::L2, Some(max_uses)) => self.count_use(call, claims, max_uses),
            (Level::L0 | Level::L1 | Level::L2, None) => Ok(()),
        }
    }

    fn count_use(
        &self,
        call: &IncomingCall<'_>,
        claims: &ToolCallClaims,
        max_uses: u32,
    ) -> Result<(), Reason> {
        let leeway = self.config.leeway_seconds;
        // What was counted before a restart is forgotten: tokens from then are refused rather than counted anew.
        if claims.iat < self.started_seconds.saturating_add(leeway) {
            return Err(Reason::TokenRefused("issued before this guard started"));
        }
        let remaining =
            Duration::from_secs(claims.exp.saturating_sub(call.now_seconds).saturating_add(2 * leeway));
        self.uses.take(claims, max_uses, call.uptime, remaining)
    }

    fn check_revocation(
        &self,
        call: &IncomingCall<'_>,
        claims: &ToolCallClaims,
        tool: Option<&str>,
    ) -> Result<(), Reason> {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        revocations.check(claims, tool, call.uptime, self.config.max_revocation_age)
    }

    async fn admit(&self, claims: &ToolCallClaims) -> Result<(), Reason> {
        match self.upstream.admit(claims).await {
            Admission::Ready => Ok(()),
            Admission::Limited { retry_after_seconds } => Err(Reason::Limited { retry_after_seconds }),
            Admission::Unavailable => Err(Reason::Unavailable("the server is down")),
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("resource", &self.config.resource).finish_non_exhaustive()
    }
}

/// Method, name, level and definition are those of the grant.
fn check_target(asked: &Call, detail: &GrantedDetail, tool: &PinnedTool) -> Result<(), Reason> {
    if detail.actions != ["tools/call"] {
        return Err(Reason::Scope("the token is not for calling tools"));
    }
    if detail.identifier.as_deref() != Some(asked.name.as_str()) {
        return Err(Reason::Scope("the token is for another tool"));
    }
    if detail.level() < tool.least_level {
        return Err(Reason::Scope("the tool needs a tighter binding"));
    }
    if detail.tool_digest != Some(tool.tool_digest) {
        return Err(Reason::Tool("the token is for another definition"));
    }
    Ok(())
}

/// The arguments are those of the grant, as tightly as it says.
fn check_binding(asked: &Call, detail: &GrantedDetail, call_digest: Digest) -> Result<(), Reason> {
    match (&detail.call_digest, &detail.constraints) {
        (Some(granted), None) if *granted == call_digest => Ok(()),
        (Some(_), _) => Err(Reason::CallDiffers),
        // Constraints say nothing about the responses that steer a retry.
        (None, Some(_)) if asked.is_steered() => {
            Err(Reason::Scope("a steered retry needs a token for this one call"))
        }
        (None, Some(constraints)) => constraints.admit(&asked.arguments).map_err(Reason::Constraints),
        (None, None) => Ok(()),
    }
}

const PROOF_MARGIN: Duration = Duration::from_secs(10);
const MAX_LIVE_TOOLS: usize = 2_000;
