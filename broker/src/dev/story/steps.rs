//! The steps, in their order.

use super::{
    Stopped, Teller, Told, Trouble, audit, second_opinion,
    wire::{Answer, HandMade, MCP_VERSION, Wire},
};
use crate::{
    dev::{
        environment::{Environment, Files},
        layout::AGENT,
    },
    sign_in::{Provider, SignedIn},
};
use deputize_call::{
    digest::{CallInput, call_digest},
    json::Object,
};
use deputize_client::{Client, ExchangeRequest, ToolToken};
use deputize_issuer::clock::Clock;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// Tells all steps; the environment has stopped when this returns.
pub(super) async fn all(
    environment: Environment,
    clock: Arc<dyn Clock>,
    teller: &mut Teller<'_>,
) -> Result<(), Stopped> {
    let told = online(&environment, &clock, teller).await;
    // The log is verified at rest.
    let files = environment.stop().await;
    told?;
    teller.step("log_verified", false, log_verified(&files)).await?;
    teller.step("flip_found", false, flip_found(&files)).await
}

async fn online(
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    teller: &mut Teller<'_>,
) -> Result<(), Stopped> {
    let user = teller.step("sign_in", false, sign_in(environment, clock)).await?;
    let (stage, token) =
        teller.step("exchange", false, Stage::exchange_first(environment, clock, user)).await?;
    teller.step("verify", false, stage.verify(&token)).await?;
    teller.step("replay_refused", true, stage.replay_refused()).await?;
    teller.step("arguments_refused", true, stage.arguments_refused(&token)).await?;
    teller.step("server_refused", true, stage.server_refused(&token)).await?;
    teller.step("tool_refused", true, stage.tool_refused(&token)).await?;
    teller.step("guarded_call", false, stage.guarded_call(&token)).await?;
    teller.step("second_use_refused", true, stage.second_use_refused(&token)).await?;
    teller.step("guard_arguments_refused", true, stage.guard_arguments_refused()).await?;
    teller.step("revoked", true, stage.revoked()).await?;
    teller.step("drift_blocked", true, stage.drift_blocked()).await?;
    let restarted = teller.step("aws_allowed", false, stage.aws_allowed()).await?;
    teller.step("aws_other_resource_denied", true, stage.aws_other_resource_denied(&restarted)).await?;
    teller.step("aws_traced", false, stage.aws_traced(&restarted)).await?;
    let agent = teller.step("svid_fetched", false, stage.svid_fetched()).await?;
    teller.step("svid_lost_on_kill", true, stage.svid_lost_on_kill(agent)).await?;
    teller.step("exchange_attested", false, stage.exchange_attested()).await
}

/// Alice signs in at the identity provider: authorization code, PKCE, nonce, ID token verified.
async fn sign_in(environment: &Environment, clock: &Arc<dyn Clock>) -> Result<Told<SignedIn>, Trouble> {
    let ready = &environment.ready;
    let provider = Provider::discover(&ready.idp, &ready.client.client_id, Arc::clone(clock)).await?;
    let user = provider.sign_in_silently("http://127.0.0.1/callback", "alice").await?;
    if user.subject != "alice" {
        return Err(Trouble::new(format!("{} signed in instead of alice", user.subject)));
    }
    Ok(Told::new(user, "alice signed in with PKCE; her ID token is verified").fact("idp", &ready.idp))
}

/// What the steps between sign-in and audit have in common.
pub(super) struct Stage<'e> {
    pub(super) environment: &'e Environment,
    pub(super) clock: &'e Arc<dyn Clock>,
    pub(super) user: SignedIn,
    pub(super) wire: Wire,
    /// The agent platform.
    pub(super) client: Client,
    /// The servers' resource URIs, where their guards stand.
    pub(super) crm: String,
    mailer: String,
}

impl<'e> Stage<'e> {
    /// The agent swaps alice's token for one that lets it make one refund.
    async fn exchange_first(
        environment: &'e Environment,
        clock: &'e Arc<dyn Clock>,
        user: SignedIn,
    ) -> Result<Told<(Self, ToolToken)>, Trouble> {
        let ready = &environment.ready;
        let client = ready.client.connect(&ready.issuer)?;
        let (crm, mailer) =
            (environment.crm.record.resource.clone(), environment.mailer.record.resource.clone());
        let stage = Self { environment, clock, user, wire: Wire::new()?, client, crm, mailer };
        let token = stage.exchange().await?;
        let (lifetime, decision) = (token.expires_in_seconds(), token.decision_id().to_owned());
        Ok(Told::new((stage, token), format!("one call, bound to the agent's key, for {lifetime} s"))
            .fact("decision", decision))
    }

    pub(super) async fn exchange(&self) -> Result<ToolToken, Trouble> {
        let request = ExchangeRequest::new(&self.crm, self.user.id_token.expose())
            .call("refund_payment", refund(4200))
            .workflow("demo");
        let token = self.client.exchange(&request).await?;
        let granted = token.authorization_details().get(0).and_then(|detail| detail.get("call_digest"));
        if granted != Some(&Value::String(refund_digest()?)) {
            return Err(Trouble::new("the token is not bound to the call that was asked for"));
        }
        Ok(token)
    }

    /// A stranger to our code verifies the token by the published keys, and we look at what it says.
    async fn verify(&self, token: &ToolToken) -> Result<Told<()>, Trouble> {
        let ready = &self.environment.ready;
        let jwks = self.wire.get(&ready.jwks_uri).await?;
        if jwks.status != 200 {
            return Err(Trouble::new(format!("the keys were answered with {}", jwks.status)));
        }
        let now = std::time::Duration::from_millis(self.clock.now_ms());
        let claims = second_opinion::verify(token.access_token(), &jwks.body, &ready.issuer, &self.crm, now)?;
        let at = |pointer: &str| claims.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let expected = [
            ("/act/sub", AGENT),
            ("/aud", self.crm.as_str()),
            ("/cnf/jkt", self.client.dpop_public_key().thumbprint()),
            ("/authorization_details/0/identifier", "refund_payment"),
            ("/authorization_details/0/call_digest", &refund_digest()?),
        ];
        for (pointer, value) in expected {
            if at(pointer) != value {
                return Err(Trouble::new(format!("{pointer} is {:?} instead of {value:?}", at(pointer))));
            }
        }
        if claims.pointer("/authorization_details/0/max_uses") != Some(&json!(1))
            || !at("/sub").ends_with(":alice")
        {
            return Err(Trouble::new("the token is not for one use in alice's name"));
        }
        Ok(Told::new((), format!("the token holds, says openidconnect, by the keys at {}", ready.jwks_uri))
            .fact("sub", at("/sub"))
            .fact("act", AGENT)
            .fact("aud", &self.crm)
            .fact("tool", format!("refund_payment {}", refund(4200)))
            .fact("txn", at("/txn")))
    }

    /// A request that was recorded on its way is worth nothing: neither its proof nor its assertion passes again.
    async fn replay_refused(&self) -> Result<Told<()>, Trouble> {
        let ready = &self.environment.ready;
        let agent = HandMade::new(
            &ready.issuer,
            &ready.client.client_id,
            &ready.client.private_jwk,
            self.clock.as_ref(),
        )?;
        let details = json!({
            "type": "mcp_tool_call", "locations": [self.crm], "actions": ["tools/call"],
            "identifier": "lookup_customer", "arguments": { "customer_id": "cus_17" }
        });
        let form = || agent.form(self.user.id_token.expose(), &self.crm, &details);
        let url = &ready.token_endpoint;
        let first = form()?;
        let challenge = self.wire.post_form(url, &first, &agent.proof(url, None)?).await?;
        expect(&challenge, 400, "use_dpop_nonce")?;
        let nonce = challenge.nonce.as_deref();
        let proof = agent.proof(url, nonce)?;
        let granted = self.wire.post_form(url, &first, &proof).await?;
        if granted.status != 200 {
            return Err(unexpected(&granted, "200"));
        }
        let replayed = self.wire.post_form(url, &first, &proof).await?;
        if !matches!(
            (replayed.status, replayed.error()),
            (400, "invalid_dpop_proof") | (401, "invalid_client")
        ) {
            return Err(unexpected(&replayed, "400 invalid_dpop_proof or 401 invalid_client"));
        }
        let same_assertion = self.wire.post_form(url, &first, &agent.proof(url, nonce)?).await?;
        expect(&same_assertion, 401, "invalid_client")?;
        let same_proof = self.wire.post_form(url, &form()?, &proof).await?;
        expect(&same_proof, 400, "invalid_dpop_proof")?;
        Ok(Told::new((), "the recorded exchange, sent again, is refused")
            .fact("again", summary(&replayed))
            .fact("assertion", summary(&same_assertion))
            .fact("proof", summary(&same_proof)))
    }

    /// The model changes its mind about the amount.
    async fn arguments_refused(&self, token: &ToolToken) -> Result<Told<()>, Trouble> {
        let refused = self.refused_at(&self.crm, token, "refund_payment", refund(420_000)).await?;
        expect(&refused, 403, "insufficient_scope")?;
        Ok(Told::new((), format!("4,200.00 instead of 42.00: {}", summary(&refused))))
    }

    /// The token is taken to another server.
    async fn server_refused(&self, token: &ToolToken) -> Result<Told<()>, Trouble> {
        let arguments = json!({ "to": "mallory@evil.example", "subject": "customers", "body": "…" });
        let refused = self.refused_at(&self.mailer, token, "send_email", arguments).await?;
        expect(&refused, 401, "invalid_token")?;
        Ok(Told::new((), format!("the same token at the mailer: {}", summary(&refused))))
    }

    /// The token is used for another tool of its server.
    async fn tool_refused(&self, token: &ToolToken) -> Result<Told<()>, Trouble> {
        let refused =
            self.refused_at(&self.crm, token, "export_customers", json!({ "format": "json" })).await?;
        expect(&refused, 403, "insufficient_scope")?;
        Ok(Told::new((), format!("export_customers instead of refund_payment: {}", summary(&refused))))
    }

    /// The call that ran is sent once more.
    async fn second_use_refused(&self, token: &ToolToken) -> Result<Told<()>, Trouble> {
        let refused = self.refused_at(&self.crm, token, "refund_payment", refund(4200)).await?;
        expect(&refused, 401, "invalid_token")?;
        Ok(Told::new((), format!("the same call again, with the same token: {}", summary(&refused))))
    }

    /// A token is revoked before it is used.
    async fn revoked(&self) -> Result<Told<()>, Trouble> {
        let token = self.exchange().await?;
        if !self.client.introspect(token.access_token()).await?.active {
            return Err(Trouble::new("the new token is not active"));
        }
        self.client.revoke(token.access_token()).await?;
        if self.client.introspect(token.access_token()).await?.active {
            return Err(Trouble::new("the revoked token is still active"));
        }
        let refused = self.refused_at(&self.crm, &token, "refund_payment", refund(4200)).await?;
        expect(&refused, 401, "invalid_token")?;
        Ok(Told::new((), format!("a token revoked before its use: {}", summary(&refused))))
    }

    /// A call that must not run: whatever is answered, neither server may have seen anything.
    pub(super) async fn refused_at(
        &self,
        resource: &str,
        token: &ToolToken,
        tool: &str,
        arguments: Value,
    ) -> Result<Answer, Trouble> {
        let seen = || self.environment.crm.server.calls_seen() + self.environment.mailer.server.calls_seen();
        let seen_before = seen();
        let answer = self.call(resource, token, tool, arguments).await?;
        if seen() != seen_before {
            return Err(Trouble::new(format!(
                "a server saw {tool}, though it was answered with {}",
                summary(&answer)
            )));
        }
        Ok(answer)
    }

    /// Calls a tool with a fresh proof, once more where the guard asks for its nonce.
    pub(super) async fn call(
        &self,
        url: &str,
        token: &ToolToken,
        tool: &str,
        arguments: Value,
    ) -> Result<Answer, Trouble> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MCP_VERSION,
            "io.modelcontextprotocol/clientCapabilities": {}
        });
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": tool, "arguments": arguments, "_meta": meta }
        });
        let mut nonce = None;
        for _ in 0..2 {
            let proof = self.client.proof_for("POST", url, token.access_token(), nonce.as_deref())?;
            let answer = self.wire.post_call(url, (tool, &message), &token.authorization(), &proof).await?;
            if answer.error() != "use_dpop_nonce" {
                return Ok(answer);
            }
            nonce = answer.nonce;
        }
        Err(Trouble::new("the guard did not accept its own nonce"))
    }
}

/// Everything that happened is in the log, and the log is whole.
async fn log_verified(files: &Files) -> Result<Told<()>, Trouble> {
    let verdict = audit::verify(&files.folder.join("data"), &files.folder.join("anchor")).await?;
    if !verdict.sound {
        return Err(Trouble::new(format!("audit verify failed: {}", verdict.text.trim())));
    }
    Ok(Told::new((), first_line(&verdict.text).trim_start_matches("✔ ")))
}

/// A copy of the log with one byte changed is found out, and the record is named.
async fn flip_found(files: &Files) -> Result<Told<()>, Trouble> {
    let damaged: PathBuf = files.folder.join("damaged");
    audit::copy(&files.folder.join("data"), &damaged)?;
    let flip = audit::flip_a_byte(&damaged)?;
    let verdict = audit::verify(&damaged, &files.folder.join("anchor")).await?;
    if verdict.sound {
        let (file, offset) = (flip.file.display(), flip.offset);
        return Err(Trouble::new(format!(
            "byte {offset} of {file} was changed and audit verify saw nothing"
        )));
    }
    let naming = verdict.text.lines().find(|line| names_a_record(line));
    let naming =
        naming.ok_or_else(|| Trouble::new(format!("no record is named: {}", verdict.text.trim())))?;
    Ok(Told::new((), format!("byte {} of a copy changed, and found", flip.offset))
        .fact("verify", naming.trim().replace(&format!("{}/", damaged.display()), "")))
}

fn names_a_record(line: &str) -> bool {
    line.split("record ").skip(1).any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

pub(super) fn refund(amount_cents: u64) -> Value {
    json!({ "payment_id": "pay_81", "amount_cents": amount_cents })
}

/// The digest of the one call, computed here and not taken from anybody.
fn refund_digest() -> Result<String, Trouble> {
    let arguments: Object = refund(4200).as_object().cloned().unwrap_or_default();
    let input = CallInput {
        method: "tools/call",
        name: "refund_payment",
        arguments: &arguments,
        input_responses: None,
        request_state: None,
    };
    Ok(call_digest(&input)?.to_string())
}

pub(super) fn expect(answer: &Answer, status: u16, error: &str) -> Result<(), Trouble> {
    if (answer.status, answer.error()) == (status, error) {
        Ok(())
    } else {
        Err(unexpected(answer, &format!("{status} {error}")))
    }
}

pub(super) fn unexpected(answer: &Answer, expected: &str) -> Trouble {
    Trouble::new(format!("expected {expected}, got {}: {}", summary(answer), answer.body))
}

pub(super) fn summary(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.error()).trim_end().to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}
