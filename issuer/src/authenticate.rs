//! Stage 2: proof of the client. Who calls, and with which key.
//!
//! The order is that of cost: the nonce before any signature (a challenge consumes nothing), then the client's
//! assertion, then the proof; what may be used once is consumed last, after everything verified.

use deputize_call::{
    dpop,
    jws::{self, EmbeddedKey, JwsError},
    nonce::Nonce,
    once::Once,
};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{client::Client, desk::Desk, error::IssueError, record, replay::Seen};

/// How the request says who calls.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// `private_key_jwt`: a signed assertion, and `client_id` if it was sent too.
    Assertion {
        /// `client_assertion`.
        assertion: &'a str,
        /// `client_id`.
        client_id: Option<&'a str>,
    },
    /// A bootstrap secret.
    Secret {
        /// `client_id`.
        client_id: &'a str,
        /// `client_secret`.
        secret: &'a str,
    },
}

/// The proof that came along, and what it must be for.
#[derive(Clone, Copy)]
pub struct PresentedProof<'a> {
    /// The one `DPoP` header.
    pub header: &'a str,
    /// The configured public URL of the endpoint.
    pub htu: &'a str,
}

/// A client that proved who it is. Made by [`authenticate`] alone.
#[derive(Debug)]
pub struct Caller {
    decision_id: Uuid,
    client: Arc<Client>,
    method: &'static str,
    jkt: Option<String>,
    spent: Option<SpentId>,
}

/// An id that was used up, as the record keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpentId {
    /// Stands for (client, `jti`).
    pub tag: [u8; 16],
    /// When it may be forgotten (Unix seconds).
    pub until: u64,
}

/// Proves the client, and the key of its proof where one is presented. A refusal is counted; misuse of an assertion
/// that was good is recorded with its client, under the id of the decision.
///
/// # Errors
/// [`IssueError::NonceNeeded`], [`IssueError::Proof`], [`IssueError::ClientAuthentication`],
/// [`IssueError::RateLimited`], and [`IssueError::Uncertain`] where a once-only question has no certain answer.
pub async fn authenticate(
    desk: &Desk,
    decision_id: Uuid,
    presented: Presented<'_>,
    proof: Option<PresentedProof<'_>>,
) -> Result<Caller, IssueError> {
    match prove(desk, presented, proof).await {
        Ok(Proved { client, method, jkt, spent }) => Ok(Caller { decision_id, client, method, jkt, spent }),
        Err(Refusal { error, client }) => {
            match client {
                Some(client) => record::record_misuse_later(desk, decision_id, &client, error.reason()),
                None => desk.refusals.count(error.reason()),
            }
            Err(error)
        }
    }
}

/// What was proved.
struct Proved {
    client: Arc<Client>,
    method: &'static str,
    jkt: Option<String>,
    spent: Option<SpentId>,
}

/// Why a client was not proved, and who misused what proves it, where that is known.
struct Refusal {
    error: IssueError,
    client: Option<Arc<Client>>,
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        Self { error, client: None }
    }
}

async fn prove(
    desk: &Desk,
    presented: Presented<'_>,
    proof: Option<PresentedProof<'_>>,
) -> Result<Proved, Refusal> {
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        // Set back far enough, the wall clock would revive assertions whose use has been forgotten.
        return Err(IssueError::Uncertain("clocks_disagree").into());
    }
    let now = desk.clock.now_seconds();
    let unverified = proof.map(|proof| fresh_proof(desk, proof)).transpose()?;
    let (client, method, spent) = match presented {
        Presented::Assertion { assertion, client_id } => {
            let (client, spent) = verify_assertion(desk, assertion, client_id, now)?;
            (client, "private_key_jwt", Some(spent))
        }
        Presented::Secret { client_id, secret } => {
            (verify_secret(desk, client_id, secret)?, "client_secret", None)
        }
    };
    let misused = |error| Refusal { error, client: Some(Arc::clone(&client)) };
    // Before it costs the client anything of its rate: whoever caught an old assertion could use that up.
    if let Some(spent) = spent
        && desk.assertions.seen(spent.tag).await
    {
        return Err(misused(IssueError::ClientAuthentication("assertion_replayed")));
    }
    desk.limits.admit(&client.id, desk.clock.uptime())?;
    let verified = match (unverified, proof) {
        (Some(unverified), Some(proof)) => Some(
            unverified
                .verify(&dpop::Expected {
                    htm: "POST",
                    htu: proof.htu,
                    access_token: None,
                    jkt: None,
                    now_seconds: now,
                    window_seconds: desk.settings.proof_window_seconds,
                })
                .map_err(|error| misused(IssueError::Proof(proof_reason(&error))))?,
        ),
        _ => None,
    };
    consume(desk, &client.id, verified.as_ref(), spent).await.map_err(|error| match error {
        IssueError::Proof(_) | IssueError::ClientAuthentication(_) => misused(error),
        error => error.into(),
    })?;
    Ok(Proved { client, method, jkt: verified.map(|proof| proof.jkt), spent })
}

/// A well-formed proof with a nonce of ours that is still fresh (RFC 9449 §8: challenge first, verify later).
fn fresh_proof<'a>(desk: &Desk, proof: PresentedProof<'a>) -> Result<dpop::UnverifiedProof<'a>, IssueError> {
    let unverified = dpop::parse(proof.header).map_err(|error| IssueError::Proof(proof_reason(&error)))?;
    let uptime = desk.clock.uptime();
    match unverified.nonce().map(|nonce| desk.nonces.check(nonce, uptime)) {
        Some(Nonce::Fresh) => Ok(unverified),
        Some(Nonce::Stale | Nonce::Foreign) | None => {
            Err(IssueError::NonceNeeded { nonce: desk.nonces.make(uptime) })
        }
    }
}

/// What may be used once is used up here, and only here. The proof first: its memory is ours alone and certain.
/// The room for what was used is shared out by client.
async fn consume(
    desk: &Desk,
    client_id: &str,
    proof: Option<&dpop::VerifiedProof>,
    assertion: Option<SpentId>,
) -> Result<(), IssueError> {
    if let Some(proof) = proof {
        match desk.proofs.take_for(client_id, proof.tag, desk.clock.uptime()) {
            Once::First => {}
            Once::Seen => return Err(IssueError::Proof("proof_replayed")),
            Once::Full => return Err(IssueError::Uncertain("proof_memory_full")),
        }
    }
    if let Some(spent) = assertion {
        match desk.assertions.spend(client_id, spent.tag, spent.until).await {
            Seen::No => {}
            Seen::Yes => return Err(IssueError::ClientAuthentication("assertion_replayed")),
            Seen::Uncertain => return Err(IssueError::Uncertain("assertion_memory_uncertain")),
        }
    }
    Ok(())
}

/// RFC 7523 §3 with the narrowings of RFC 7523bis: `aud` is our issuer, as a single string; at most five minutes.
fn verify_assertion(
    desk: &Desk,
    assertion: &str,
    client_id: Option<&str>,
    now: u64,
) -> Result<(Arc<Client>, SpentId), IssueError> {
    let refuse = IssueError::ClientAuthentication;
    let jws =
        jws::parse(assertion, EmbeddedKey::Refused).map_err(|error| refuse(assertion_reason(&error)))?;
    if !matches!(jws.header.typ.as_deref(), None | Some("jwt" | "client-authentication+jwt")) {
        return Err(refuse("assertion_typ"));
    }
    let claim = |name| jws::string_claim(&jws.claims, name, 256).map_err(|_| refuse("assertion_claims"));
    let (issuer, subject, jti) = (claim("iss")?, claim("sub")?, claim("jti")?);
    if issuer != subject || client_id.is_some_and(|id| id != subject) {
        return Err(refuse("assertion_subject"));
    }
    // Unknown client, unknown key, wrong signature: one cost and one answer, so that nobody learns which clients exist.
    let client = desk.rules.load().clients.verify(subject, &jws).ok_or(refuse("assertion_signature"))?;
    if jws.claims.get("aud").and_then(serde_json::Value::as_str) != Some(desk.settings.issuer.as_str()) {
        return Err(refuse("assertion_audience"));
    }
    let leeway = desk.settings.leeway_seconds;
    let times = jws::check_times(&jws.claims, now, leeway).map_err(|_| refuse("assertion_times"))?;
    let issued = times.iat.ok_or(refuse("assertion_iat_missing"))?;
    if times.exp.saturating_sub(issued) > MAX_ASSERTION_SECONDS
        || issued + MAX_ASSERTION_SECONDS + leeway < now
    {
        return Err(refuse("assertion_too_long"));
    }
    let until = times.exp + leeway;
    Ok((client, SpentId { tag: assertion_tag(subject, jti), until }))
}

fn verify_secret(desk: &Desk, client_id: &str, secret: &str) -> Result<Arc<Client>, IssueError> {
    let given = deputize_call::digest::sha256(secret.as_bytes());
    let client = desk.rules.load().clients.enabled(client_id);
    // Without a configured secret the comparison still runs, against something that no digest equals twice.
    let configured = client.as_ref().and_then(|client| client.secret_sha256).unwrap_or_default();
    let equal: bool = given.ct_eq(&configured).into();
    match client {
        Some(client) if equal && client.secret_sha256.is_some() => Ok(client),
        _ => Err(IssueError::ClientAuthentication("client_secret")),
    }
}

fn assertion_tag(client_id: &str, jti: &str) -> [u8; 16] {
    let digest = deputize_call::digest::sha256(format!("assertion\0{client_id}\0{jti}").as_bytes());
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = from;
    }
    tag
}

fn assertion_reason(error: &JwsError) -> &'static str {
    match error {
        JwsError::TooLong => "assertion_too_large",
        JwsError::Algorithm => "assertion_algorithm",
        JwsError::Header(_) => "assertion_header",
        JwsError::Signature | JwsError::UnknownKey => "assertion_signature",
        _ => "assertion_malformed",
    }
}

fn proof_reason(error: &JwsError) -> &'static str {
    match error {
        JwsError::TooLong => "proof_too_large",
        JwsError::Algorithm => "proof_algorithm",
        JwsError::Header(_) => "proof_header",
        JwsError::Signature => "proof_signature",
        JwsError::Claim(_, _) => "proof_claims",
        _ => "proof_malformed",
    }
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, client_id) = match self {
            Self::Assertion { client_id, .. } => ("Assertion", *client_id),
            Self::Secret { client_id, .. } => ("Secret", Some(*client_id)),
        };
        f.debug_struct(name).field("client_id", &client_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PresentedProof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedProof").field("htu", &self.htu).finish_non_exhaustive()
    }
}

impl Caller {
    /// Id of whatever is decided about its request.
    pub fn decision_id(&self) -> Uuid {
        self.decision_id
    }
    /// The client.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }
    /// How it authenticated: a registered `token_endpoint_auth_method`.
    pub fn method(&self) -> &'static str {
        self.method
    }
    /// Thumbprint of the key that it proved.
    pub fn jkt(&self) -> Option<&str> {
        self.jkt.as_deref()
    }
    /// The assertion that it used up; goes into the record, from which the next start restores it.
    pub fn spent(&self) -> Option<SpentId> {
        self.spent
    }
}

/// The longest life of a client assertion.
pub const MAX_ASSERTION_SECONDS: u64 = 300;
