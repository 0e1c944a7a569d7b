//! Who sends the request: a token for this server, and the proof that its sender holds the token's key.

use crate::{config::GuardConfig, headers::IncomingCall, refusal::Reason, snapshot::Snapshot};
use deputize_call::{
    claims::{Confirmation, ToolCallClaims},
    dpop,
    jws::JwsError,
    nonce::{Nonce, NonceMaker},
    once::{Once, OnceSet},
    token,
};

/// A token whose sender holds its key.
pub(crate) struct Possessed<'t> {
    pub(crate) token: &'t str,
    pub(crate) claims: ToolCallClaims,
}

/// What proofs are held against.
pub(crate) struct Proofs {
    pub(crate) nonces: NonceMaker,
    pub(crate) seen: OnceSet,
}

/// Verifies the one token of a request, then its binding.
pub(crate) fn verify<'a>(
    call: &IncomingCall<'a>,
    config: &GuardConfig,
    snapshot: &Snapshot,
    proofs: &Proofs,
) -> Result<Possessed<'a>, Reason> {
    if let Some(callers) = &config.caller_svids {
        callers.admit(call)?;
    }
    let header = call.single("authorization")?.ok_or(Reason::NoToken)?;
    let (scheme, token) = header.split_once(' ').ok_or(Reason::TokenRefused("no scheme"))?;
    let expected = token::Expected {
        issuer: &config.issuer,
        audience: Some(&config.resource),
        now_seconds: call.now_seconds,
        leeway_seconds: config.leeway_seconds,
    };
    let claims = verified(token, snapshot, &expected).map_err(Reason::Token)?;
    if let Some(callers) = &config.caller_svids {
        callers.acts(call, &claims)?;
    }
    match &claims.cnf {
        Confirmation::Jkt(jkt) => {
            // RFC 9449 §7.1: a bound token is never accepted as a bearer token.
            if !scheme.eq_ignore_ascii_case("dpop") {
                return Err(Reason::TokenRefused("a bound token needs the scheme DPoP"));
            }
            proofs.verify(call, config, token, (jkt, &claims.client_id))?;
        }
        Confirmation::X5tS256(thumbprint) => {
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Reason::TokenRefused("a certificate-bound token needs the scheme Bearer"));
            }
            // RFC 8705 §3.
            if call.client_certificate != Some(thumbprint.as_str()) {
                return Err(Reason::TokenRefused("not the certificate that the token is bound to"));
            }
        }
    }
    Ok(Possessed { token, claims })
}

/// The claims of a token that holds now. One that comes again is held against time again; its signature, its issuer and
/// its audience are what they were.
fn verified(
    token: &str,
    snapshot: &Snapshot,
    expected: &token::Expected<'_>,
) -> Result<ToolCallClaims, JwsError> {
    if let Some(claims) = snapshot.known().find(token) {
        check_times(&claims, expected)?;
        return Ok(claims);
    }
    let claims = token::verify(token, snapshot.keys(), expected)?.into_claims();
    snapshot.known().remember(token, &claims);
    Ok(claims)
}

fn check_times(claims: &ToolCallClaims, expected: &token::Expected<'_>) -> Result<(), JwsError> {
    // RFC 7519 §4.1.4: now must be *before* `exp`.
    if expected.now_seconds >= claims.exp.saturating_add(expected.leeway_seconds) {
        return Err(JwsError::Claim("exp", "expired"));
    }
    // The clock may have been set back since.
    if claims.nbf.max(claims.iat) > expected.now_seconds.saturating_add(expected.leeway_seconds) {
        return Err(JwsError::Claim("nbf", "not yet valid"));
    }
    Ok(())
}

impl Proofs {
    /// All checks of RFC 9449 §4.3, the cheapest first; the proof is used up last.
    fn verify(
        &self,
        call: &IncomingCall<'_>,
        config: &GuardConfig,
        token: &str,
        (jkt, client_id): (&str, &str),
    ) -> Result<(), Reason> {
        // Check 1: not more than one DPoP header.
        let header = call.single("dpop")?.ok_or(Reason::NoProof)?;
        let proof = dpop::parse(header).map_err(Reason::Proof)?;
        // Check 10. A challenge consumes nothing.
        match proof.nonce().map(|nonce| self.nonces.check(nonce, call.uptime)) {
            Some(Nonce::Fresh) => {}
            Some(Nonce::Stale | Nonce::Foreign) | None => return Err(Reason::Nonce),
        }
        let expected = dpop::Expected {
            htm: call.method,
            htu: &config.public_url,
            access_token: Some(token),
            jkt: Some(jkt),
            now_seconds: call.now_seconds,
            window_seconds: config.proof_window_seconds,
        };
        let verified = proof.verify(&expected).map_err(Reason::Proof)?;
        // INVARIANT: proofs are remembered for longer than the nonces in them are good. The room for them is shared out
        // among the broker's clients: one that sends very many leaves room for the others.
        match self.seen.take_for(client_id, verified.tag, call.uptime) {
            Once::First => Ok(()),
            Once::Seen => Err(Reason::ProofReplayed),
            Once::Full => Err(Reason::Unavailable("too many proofs")),
        }
    }
}
