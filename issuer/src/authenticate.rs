//! Stage 2: proof of the client. Who calls, and with which key. Each way of proving it has a file of its own.
//!
//! The order is that of cost: the nonce before any signature (a challenge consumes nothing), then what proves the
//! client, then the proof; what may be used once is consumed last, after everything verified.

mod again;
mod assertion;
mod certificate;
mod secret;
mod svid;
mod workload;

use deputize_call::{claims::Confirmation, dpop, jws::JwsError, nonce::Nonce, once::Once};
use std::sync::Arc;
use uuid::Uuid;

use self::{
    assertion::verify_assertion,
    certificate::verify_certificate,
    secret::verify_secret,
    svid::verify_svid_assertion,
    workload::{Verified, verify_workload},
};
use crate::{
    certificate::PresentedCertificate,
    client::Client,
    desk::Desk,
    error::IssueError,
    node::SeenBy,
    record::{self, Misuser, RefusedSvid, SvidEntry},
    replay::Seen,
    workload::Workload,
};
pub(crate) use again::check_again;

/// How the request says who calls: one way (RFC 6749 §2.3).
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// `private_key_jwt`: a signed assertion, and `client_id` if it was sent too.
    Assertion {
        /// `client_assertion`.
        assertion: &'a str,
        /// `client_id`.
        client_id: Option<&'a str>,
    },
    /// `spiffe_jwt`: a JWT-SVID as assertion (draft-ietf-oauth-spiffe-client-auth), and `client_id` if it was sent too. With a
    /// proof beside it, it is good until it expires, for what is given is bound to the proof's key; without one, once.
    Svid {
        /// `client_assertion`.
        assertion: &'a str,
        /// `client_id`.
        client_id: Option<&'a str>,
    },
    /// The certificate of the TLS connection: an X.509-SVID, one that an authority vouches for, or the client's own
    /// (RFC 8705 §2), as the client is configured.
    Certificate {
        /// `client_id`: may be missing with an SVID, which says itself whose it is.
        client_id: Option<&'a str>,
        /// The certificate.
        certificate: &'a PresentedCertificate,
    },
    /// A bootstrap secret.
    Secret {
        /// `client_id`.
        client_id: &'a str,
        /// `client_secret`.
        secret: &'a str,
    },
    /// A process that was attested, by the registration entry that lets it exchange: it presents nothing.
    Workload {
        /// The process.
        workload: &'a Workload,
        /// Name of the entry.
        entry: &'a str,
    },
}

/// What the caller has shown to have the key of: what it is given is bound to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Possession<'a> {
    /// The proof that came along.
    pub proof: Option<PresentedProof<'a>>,
    /// The certificate of the TLS connection, whether it also says who calls or not.
    pub certificate: Option<&'a PresentedCertificate>,
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
    /// The key of its proof, and the certificate of its connection.
    held: [Option<Held>; 2],
    spent: Option<SpentId>,
    attested: Option<Attested>,
}

/// The process that a caller is, as it was attested, and as its records say it.
#[derive(Debug, Clone)]
struct Attested {
    workload: Arc<Workload>,
    entry: Arc<SvidEntry>,
}

/// A key that a caller has shown to have, and whether what it is given is bound to that.
#[derive(Debug)]
struct Held {
    key: Confirmation,
    binds: bool,
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
/// [`IssueError::NotEntitled`], [`IssueError::RateLimited`], and [`IssueError::Uncertain`] where a once-only question has
/// no certain answer.
pub async fn authenticate(
    desk: &Desk,
    decision_id: Uuid,
    presented: Presented<'_>,
    shown: Possession<'_>,
) -> Result<Caller, IssueError> {
    match prove(desk, presented, shown).await {
        Ok(Proved { known: Known { client, method, spent, attested }, jkt }) => {
            let by_certificate = matches!(presented, Presented::Certificate { .. });
            let certificate = shown.certificate.map(|it| Held {
                key: Confirmation::X5tS256(it.thumbprint().to_owned()),
                binds: by_certificate,
            });
            let proof = jkt.map(|jkt| Held { key: Confirmation::Jkt(jkt), binds: true });
            Ok(Caller { decision_id, client, method, held: [proof, certificate], spent, attested })
        }
        Err(Refusal { error, known }) => {
            match (known, presented) {
                (Some(known), _) => {
                    let Known { client, method, attested, .. } = &known;
                    let attested = attested.as_ref().map(|it| it.entry.as_ref());
                    let who = Misuser { client, method, attested };
                    record::record_misuse_later(desk, decision_id, who, error.reason());
                }
                (None, Presented::Workload { workload, entry })
                    if matches!(error, IssueError::NotEntitled(_)) =>
                {
                    let refused = RefusedSvid { kind: None, workload, entry: Some(entry), audiences: &[] };
                    record::record_svid_denial(desk, decision_id, &refused, &error);
                }
                (None, _) => desk.refusals.count(error.reason()),
            }
            Err(error)
        }
    }
}

/// Who it is, by what was presented.
#[derive(Clone)]
struct Known {
    client: Arc<Client>,
    method: &'static str,
    spent: Option<SpentId>,
    attested: Option<Attested>,
}

/// What was proved.
struct Proved {
    known: Known,
    jkt: Option<String>,
}

/// Why a client was not proved, and who misused what proves it, where that is known.
struct Refusal {
    error: IssueError,
    known: Option<Known>,
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        Self { error, known: None }
    }
}

async fn prove(desk: &Desk, presented: Presented<'_>, shown: Possession<'_>) -> Result<Proved, Refusal> {
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        // Set back far enough, the wall clock would revive assertions whose use has been forgotten.
        return Err(IssueError::Uncertain("clocks_disagree").into());
    }
    let now = desk.clock.now_seconds();
    let unverified = shown.proof.map(|proof| fresh_proof(desk, proof)).transpose()?;
    let mut known = identify(desk, presented, now)?;
    if matches!(presented, Presented::Svid { .. }) && shown.proof.is_some() {
        known.spent = None;
    }
    let client = &known.client;
    let misused = |error| Refusal { error, known: Some(known.clone()) };
    let by_certificate = matches!(presented, Presented::Certificate { .. });
    if !by_certificate && shown.certificate.is_some() && client.shows_certificates() {
        // RFC 6749 §2.3: not more than one method. What others show may be what their users' tokens are bound to.
        return Err(misused(IssueError::ClientAuthentication("two_authentication_methods")));
    }
    // Before it costs the client anything of its rate: whoever caught an old assertion could use that up.
    if let Some(spent) = known.spent
        && desk.assertions.seen(spent.tag).await
    {
        return Err(misused(IssueError::ClientAuthentication("assertion_replayed")));
    }
    let attested = known.attested.as_ref().map(|it| it.entry.as_ref());
    let (counted_as, witness) = (record::counted_as(client, attested), record::witness(attested));
    if let Some(node) = &witness {
        desk.limits.admit(node, desk.clock.uptime())?;
    }
    desk.limits.admit(&counted_as, desk.clock.uptime())?;
    let verified = match (unverified, shown.proof) {
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
    // All that a node reports is one owner: else each of its entries had a share of what is left for all.
    let owner = witness.as_deref().unwrap_or(&counted_as);
    consume(desk, owner, verified.as_ref(), known.spent).await.map_err(|error| match error {
        IssueError::Proof(_) | IssueError::ClientAuthentication(_) => misused(error),
        error => error.into(),
    })?;
    Ok(Proved { known, jkt: verified.map(|proof| proof.jkt) })
}

/// The client, by the one way that it presents.
fn identify(desk: &Desk, presented: Presented<'_>, now_seconds: u64) -> Result<Known, IssueError> {
    match presented {
        Presented::Assertion { assertion, client_id } => {
            let (client, spent) = verify_assertion(desk, assertion, client_id, now_seconds)?;
            Ok(Known { client, method: "private_key_jwt", spent: Some(spent), attested: None })
        }
        Presented::Svid { assertion, client_id } => {
            let (client, spent) = verify_svid_assertion(desk, assertion, client_id, now_seconds)?;
            Ok(Known { client, method: "spiffe_jwt", spent: Some(spent), attested: None })
        }
        Presented::Certificate { client_id, certificate } => {
            let (client, method) = verify_certificate(desk, certificate, client_id, now_seconds)?;
            Ok(Known { client, method, spent: None, attested: None })
        }
        Presented::Secret { client_id, secret } => {
            let client = verify_secret(desk, client_id, secret)?;
            Ok(Known { client, method: "client_secret", spent: None, attested: None })
        }
        Presented::Workload { workload, entry } => {
            let Verified { client, record, .. } = verify_workload(desk, workload, entry, now_seconds)?;
            let attested = Some(Attested { workload: Arc::new(workload.clone()), entry: record });
            Ok(Known { client, method: "workload", spent: None, attested })
        }
    }
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
/// The room for what was used is shared out by whom it is counted for.
async fn consume(
    desk: &Desk,
    owner: &str,
    proof: Option<&dpop::VerifiedProof>,
    assertion: Option<SpentId>,
) -> Result<(), IssueError> {
    if let Some(proof) = proof {
        match desk.proofs.take_for(owner, proof.tag, desk.clock.uptime()) {
            Once::First => {}
            Once::Seen => return Err(IssueError::Proof("proof_replayed")),
            Once::Full => return Err(IssueError::Uncertain("proof_memory_full")),
        }
    }
    if let Some(spent) = assertion {
        match desk.assertions.spend(owner, spent.tag, spent.until).await {
            Seen::No => {}
            Seen::Yes => return Err(IssueError::ClientAuthentication("assertion_replayed")),
            Seen::Uncertain => return Err(IssueError::Uncertain("assertion_memory_uncertain")),
        }
    }
    Ok(())
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
            Self::Svid { client_id, .. } => ("Svid", *client_id),
            Self::Certificate { client_id, .. } => ("Certificate", *client_id),
            Self::Secret { client_id, .. } => ("Secret", Some(*client_id)),
            Self::Workload { entry, .. } => ("Workload", Some(*entry)),
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
    /// The key that what it is given is bound to: that of its proof, else that of the certificate by which it
    /// authenticated (RFC 8705 §3.1).
    ///
    /// INVARIANT: a certificate that is shown beside another proof of the client stands in for no DPoP proof: anybody who
    /// has that other one could show any certificate.
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.held.iter().flatten().find(|held| held.binds).map(|held| &held.key)
    }
    /// Whether it has shown to have the key that something is bound to.
    pub fn holds(&self, bound: &Confirmation) -> bool {
        self.held.iter().flatten().any(|held| held.key == *bound)
    }
    /// The process that it is and its registration entry, where it was attested; goes into its records.
    pub fn attested(&self) -> Option<&Arc<SvidEntry>> {
        self.attested.as_ref().map(|attested| &attested.entry)
    }
    /// Through which node it is known which process it is, where the broker did not look itself.
    pub(crate) fn witness(&self) -> Option<&SeenBy> {
        self.attested.as_ref().and_then(|attested| attested.workload.witness())
    }
    /// The assertion that it used up; goes into the record, from which the next start restores it.
    pub fn spent(&self) -> Option<SpentId> {
        self.spent
    }
}

/// The longest life of a client assertion.
pub const MAX_ASSERTION_SECONDS: u64 = 300;
