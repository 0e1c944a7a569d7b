//! The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept.
//!
//! Two halves: [`Guard::examine`] checks everything that can be checked without spending the token, [`Guard::admit`]
//! asks the server's health and spends it. Between them whoever embeds a guard asks what only it knows: whether the
//! session is the caller's, whether his rate allows it.

use crate::{
    guard::Guard,
    headers::IncomingCall,
    message::{Call, Kind, Message},
    mirrored,
    outside::{Admission, Redeemed},
    possession,
    refusal::{Needed, Reason, Refusal},
    snapshot::{Pinned, Snapshot},
    verified::{Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream},
};
use deputize_call::{
    action::Action,
    claims::{GrantedDetail, ToolCallClaims},
    digest::Digest,
    level::Level,
};
use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

/// A request that may run, but for what is asked last: the server's health, and the one use of its token.
pub struct Examined {
    pub(crate) claims: ToolCallClaims,
    pub(crate) message: Message,
    token: String,
    /// Digest of the call; absent where none is made.
    call_digest: Option<Digest>,
    /// Header fields that mirror arguments.
    mirrored: Vec<(String, String)>,
    uptime: Duration,
    now_seconds: u64,
    needed: Option<Needed>,
}

impl Guard {
    /// Verifies one request. Nothing is consumed before everything that can be checked without consuming holds.
    pub async fn verify(&self, call: &IncomingCall<'_>) -> Result<Verified, Refusal> {
        let examined = self.examine(call).map_err(|refusal| *refusal)?;
        self.admit(examined).await
    }

    /// Checks a request. Its proof is used up, its token is not.
    pub fn examine(&self, call: &IncomingCall<'_>) -> Result<Examined, Box<Refusal>> {
        let message = self.read(call).map_err(|reason| Box::new(self.refuse(reason, call.uptime, None)))?;
        self.examine_message(call, message)
    }

    /// The rest of [`Guard::examine`], for whoever has read the message already.
    pub(crate) fn examine_message(
        &self,
        call: &IncomingCall<'_>,
        message: Message,
    ) -> Result<Examined, Box<Refusal>> {
        let mut needed = None;
        let checked = self.check(call, message, &mut needed);
        checked.map_err(|reason| Box::new(self.refuse(reason, call.uptime, needed)))
    }

    /// Asks whether the server takes the call now, and spends the token.
    pub async fn admit(&self, examined: Examined) -> Result<Verified, Refusal> {
        if let Err(reason) = self.consume(&examined).await {
            return Err(self.refuse(reason, examined.uptime, examined.needed));
        }
        let next_nonce = self.proofs.nonces.make(examined.uptime);
        let Examined { claims, token, call_digest, mirrored, .. } = examined;
        let (method, kind, body) = examined.message.into_parts();
        Ok(match (kind, call_digest) {
            (Kind::Call(asked), Some(call_digest)) => {
                let Call { action, name, arguments, input_responses, request_state } = asked;
                Verified::Call(VerifiedCall {
                    claims,
                    token,
                    action,
                    name,
                    arguments,
                    input_responses,
                    request_state,
                    call_digest,
                    mirrored,
                    body,
                    next_nonce,
                    #[cfg(feature = "proxy")]
                    aws: Default::default(),
                })
            }
            (Kind::Response(id), _) => Verified::Response(VerifiedResponse { claims, id, body, next_nonce }),
            // INVARIANT: `check` gives each call its digest; without one nothing runs.
            (Kind::Call(_), None) => {
                return Err(self.refuse(Reason::CallDiffers, examined.uptime, examined.needed));
            }
            (Kind::Listing, _) => Verified::Listing(VerifiedListing { claims, method, body, next_nonce }),
        })
    }

    /// Verifies a request without a body: `GET`, which listens to the server's messages, or `DELETE`, which ends a
    /// session (MCP 2025-11-25, transports). Whether the session is the caller's is for whoever keeps sessions.
    pub async fn verify_stream(&self, call: &IncomingCall<'_>) -> Result<VerifiedStream, Refusal> {
        let mut needed = None;
        let checked = async {
            if !matches!(call.method, "GET" | "DELETE") {
                return Err(Reason::HttpMethod);
            }
            if !call.body.is_empty() {
                return Err(Reason::Message("a GET or DELETE has no body"));
            }
            self.check_clocks(call)?;
            let snapshot = self.current_snapshot(call.now_seconds)?;
            let claims = self.possessed(call, &snapshot)?.claims;
            needed = Some(Needed::for_listing());
            self.check_listing(call, &claims)?;
            self.ask_health(&claims).await?;
            Ok(claims)
        };
        let checked = checked.await;
        checked
            .map(|claims| VerifiedStream { claims, next_nonce: self.proofs.nonces.make(call.uptime) })
            .map_err(|reason| self.refuse(reason, call.uptime, needed))
    }

    pub(crate) fn refuse(&self, reason: Reason, uptime: Duration, needed: Option<Needed>) -> Refusal {
        Refusal::new(reason, &self.config, Some(self.proofs.nonces.make(uptime)), needed)
    }

    fn check(
        &self,
        call: &IncomingCall<'_>,
        message: Message,
        needed: &mut Option<Needed>,
    ) -> Result<Examined, Reason> {
        self.check_clocks(call)?;
        let snapshot = self.current_snapshot(call.now_seconds)?;
        let mut mirrored = Vec::new();
        if let Kind::Call(asked) = message.kind() {
            // Only arguments of tools are mirrored (MCP 2026-07-28, custom headers).
            let tool = snapshot.tool(&asked.name).filter(|_| asked.action == Action::CallTool);
            let input_schema = tool.and_then(|tool| tool.definition.get("inputSchema"));
            mirrored::check(call, input_schema, &asked.arguments)?;
            mirrored = mirrored::headers(input_schema, &asked.arguments);
        }
        let possessed = self.possessed(call, &snapshot)?;
        let claims = possessed.claims;
        let call_digest = match message.kind() {
            Kind::Listing | Kind::Response(_) => {
                *needed = Some(Needed::for_listing());
                self.check_listing(call, &claims)?;
                check_lists(message.method(), &claims, &snapshot)?;
                None
            }
            Kind::Call(asked) => {
                let call_digest = self.check_granted(asked, &claims, &snapshot, needed)?;
                self.check_revocation(&claims, asked.tool(), call.uptime)?;
                Some(call_digest)
            }
        };
        Ok(Examined {
            claims,
            message,
            token: possessed.token.to_owned(),
            call_digest,
            mirrored,
            uptime: call.uptime,
            now_seconds: call.now_seconds,
            needed: needed.take(),
        })
    }

    /// While they disagree, no time in a token means what it says.
    fn check_clocks(&self, call: &IncomingCall<'_>) -> Result<(), Reason> {
        let agree = self.clocks.agree(call.now_seconds, call.uptime);
        if agree { Ok(()) } else { Err(Reason::Unavailable("the clocks disagree")) }
    }

    /// Size, strict JSON, and headers that agree with it.
    pub(crate) fn read(&self, call: &IncomingCall<'_>) -> Result<Message, Reason> {
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

    /// A token of this server's tenant whose sender holds its key.
    fn possessed<'a>(
        &self,
        call: &IncomingCall<'a>,
        snapshot: &Arc<Snapshot>,
    ) -> Result<possession::Possessed<'a>, Reason> {
        let possessed = possession::verify(call, &self.config, snapshot, &self.proofs)?;
        if possessed.claims.tenant != snapshot.tenant() {
            return Err(Reason::TokenRefused("of another tenant"));
        }
        Ok(possessed)
    }

    /// A token of level L0, and only such a token, looks without calling.
    fn check_listing(&self, call: &IncomingCall<'_>, claims: &ToolCallClaims) -> Result<(), Reason> {
        let [detail] = &claims.authorization_details;
        if detail.level() != Level::L0 {
            return Err(Reason::Scope("a token for a call does not list"));
        }
        self.check_revocation(claims, None, call.uptime)
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
        let tool = snapshot.pinned(asked.action, &asked.name).ok_or(Reason::Tool("not approved"))?;
        *needed = Some(Needed::for_call(&self.config, asked, tool.least_level.max(detail.level())));
        check_target(asked, detail, tool)?;
        self.check_live(asked, tool)?;
        tool.schema.validate(&asked.arguments).map_err(Reason::Arguments)?;
        let call_digest = asked.digest()?;
        check_binding(asked, detail, call_digest)?;
        Ok(call_digest)
    }

    /// The definition that the server gives now is the one that was approved (S-18). A resource has none: what stands
    /// behind its URI may change.
    fn check_live(&self, asked: &Call, tool: &Pinned) -> Result<(), Reason> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let listed = match asked.action {
            Action::CallTool => live.tools.as_ref().filter(|tools| !tools.is_empty()),
            Action::GetPrompt => live.prompts.as_ref(),
            Action::ReadResource => return Ok(()),
        };
        let listed = listed.ok_or(Reason::Unavailable("the server's lists were not observed yet"))?;
        match listed.get(&asked.name) {
            Some(digest) if *digest == tool.digest => Ok(()),
            Some(_) => Err(Reason::Tool("the live definition is not the approved one")),
            None => Err(Reason::Tool("the server no longer lists it")),
        }
    }

    /// Everything that says no without being asked to decide; last of all the token is used.
    async fn consume(&self, examined: &Examined) -> Result<(), Reason> {
        let claims = &examined.claims;
        self.ask_health(claims).await?;
        let [detail] = &claims.authorization_details;
        match (detail.level(), detail.max_uses) {
            (Level::L3, _) => match self.redeemer.redeem(&examined.token).await {
                Redeemed::Yes => Ok(()),
                Redeemed::AlreadyUsed => Err(Reason::UsedUp),
                Redeemed::Revoked => Err(Reason::Revoked),
                Redeemed::Unavailable => Err(Reason::Unavailable("the token cannot be redeemed now")),
            },
            (Level::L0 | Level::L1 | Level::L2, Some(max_uses)) => self.count_use(examined, max_uses),
            (Level::L0 | Level::L1 | Level::L2, None) => Ok(()),
        }?;
        // Since the request was looked at, time has passed: what was pushed meanwhile still counts.
        let tool = match examined.message.kind() {
            Kind::Call(asked) => asked.tool(),
            Kind::Listing | Kind::Response(_) => None,
        };
        self.check_revocation(claims, tool, examined.uptime)
    }

    fn count_use(&self, examined: &Examined, max_uses: u32) -> Result<(), Reason> {
        let (claims, leeway) = (&examined.claims, self.config.leeway_seconds);
        // What was counted before a restart is forgotten: tokens from then are refused rather than counted anew.
        if claims.iat < self.started_seconds.saturating_add(leeway) {
            return Err(Reason::TokenRefused("issued before this guard started"));
        }
        let remaining =
            Duration::from_secs(claims.exp.saturating_sub(examined.now_seconds).saturating_add(2 * leeway));
        self.uses.take(claims, max_uses, examined.uptime, remaining)
    }

    /// Whether a token is still good for a call of this tool, or for listening.
    pub(crate) fn check_revocation(
        &self,
        claims: &ToolCallClaims,
        tool: Option<&str>,
        uptime: Duration,
    ) -> Result<(), Reason> {
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        revocations.check(claims, tool, uptime, self.config.max_revocation_age)
    }

    /// Whether a call that runs already is revoked, as far as was heard.
    #[cfg(feature = "proxy")]
    pub(crate) fn is_revoked(&self, claims: &ToolCallClaims, tool: &str) -> bool {
        self.revocations.read().unwrap_or_else(PoisonError::into_inner).has_any_of(claims, Some(tool))
    }

    async fn ask_health(&self, claims: &ToolCallClaims) -> Result<(), Reason> {
        match self.upstream.admit(claims).await {
            Admission::Ready => Ok(()),
            Admission::Limited { retry_after_seconds } => Err(Reason::Limited { retry_after_seconds }),
            Admission::Unavailable => Err(Reason::Unavailable("the server is down")),
        }
    }
}

// Arguments and tokens stay out of logs.
impl std::fmt::Debug for Examined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (jti, method) = (&self.claims.jti, self.message.method());
        f.debug_struct("Examined").field("jti", jti).field("method", &method).finish_non_exhaustive()
    }
}

/// What a token says of lists is about what is offered now; else it has to be made anew.
fn check_lists(method: &str, claims: &ToolCallClaims, snapshot: &Snapshot) -> Result<(), Reason> {
    let [detail] = &claims.authorization_details;
    let is_of_others = detail.shown.as_ref().is_some_and(|shown| shown.of != snapshot.offers().digest());
    if is_of_others && LISTS.contains(&method) {
        return Err(Reason::TokenRefused("it says what lists showed of another state of the registry"));
    }
    Ok(())
}

/// Method, name, level and definition are those of the grant.
fn check_target(asked: &Call, detail: &GrantedDetail, tool: &Pinned) -> Result<(), Reason> {
    if detail.actions != [asked.action.as_str()] {
        return Err(Reason::Scope("the token is for another method"));
    }
    // A URI is compared as it stands.
    if detail.identifier.as_deref() != Some(asked.name.as_str()) {
        return Err(Reason::Scope("the token is for another tool, prompt or resource"));
    }
    if detail.level() < tool.least_level {
        return Err(Reason::Scope("the tool needs a tighter binding"));
    }
    let (tool_digest, prompt_digest) = match asked.action {
        Action::CallTool => (Some(tool.digest), None),
        Action::GetPrompt => (None, Some(tool.digest)),
        Action::ReadResource => (None, None),
    };
    if (detail.tool_digest, detail.prompt_digest) != (tool_digest, prompt_digest) {
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

/// The methods whose answers are filtered by what the token says of lists.
const LISTS: [&str; 4] = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];
