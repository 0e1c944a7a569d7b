//! What happens to a token after it was minted: used up, revoked, asked about.

use deputize_call::{action::Action, claims::ToolCallClaims, level::Level, once::Once, token};
use tokio::sync::Mutex;

use crate::{
    authenticate::Caller,
    desk::Desk,
    error::IssueError,
    record::{self, RevokedBy},
    revocation::{Place, Revoked},
    templates::MAX_WINDOW_SECONDS,
};

/// The answer to a redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// Used up now, for this call.
    Yes,
    /// It was used before.
    AlreadyUsed,
    /// It is not redeemable here: not L3, revoked, made before this start, or for another audience.
    No(&'static str),
}

/// Uses up an L3 token, for the guard of its audience, once. The use is durable before the answer.
///
/// # Errors
/// [`IssueError::RecordUnavailable`], [`IssueError::Uncertain`]: the call must not run.
pub async fn redeem(desk: &Desk, caller: &Caller, access_token: &str) -> Result<Redeemed, IssueError> {
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        // Set back far enough, the wall clock would revive tokens whose use has been forgotten.
        record::record_spent(desk, caller.spent()).await?;
        return Err(IssueError::Uncertain("clocks_disagree"));
    }
    let Some(claims) = unrevoked_claims(desk, access_token) else {
        record::record_spent(desk, caller.spent()).await?;
        return Ok(Redeemed::No(NOT_REDEEMABLE));
    };
    if let Some(refusal) = not_redeemable(desk, caller, &claims) {
        record::record_misuse(desk, caller, &claims.jti, refusal).await?;
        // A stranger is not told whether the token is good somewhere else.
        let strange = matches!(refusal, NOT_THE_AUDIENCE | NOT_ACTIVE);
        return Ok(Redeemed::No(if strange { NOT_REDEEMABLE } else { refusal }));
    }
    match desk.redemptions.take_for(&caller.client().id, tag(&claims.jti), desk.clock.uptime()) {
        Once::First => {}
        Once::Seen => {
            record::record_misuse(desk, caller, &claims.jti, "already_used").await?;
            return Ok(Redeemed::AlreadyUsed);
        }
        Once::Full => {
            record::record_spent(desk, caller.spent()).await?;
            return Err(IssueError::Uncertain("redemption_memory_full"));
        }
    }
    record::record_redemption(desk, caller, &claims.jti, &claims.txn).await?;
    Ok(Redeemed::Yes)
}

fn not_redeemable(desk: &Desk, caller: &Caller, claims: &ToolCallClaims) -> Option<&'static str> {
    let [detail] = &claims.authorization_details;
    let is_for_one_call = detail.level() == Level::L3;
    not_usable(desk, caller, claims).or((!is_for_one_call).then_some("not_a_single_use_token"))
}

/// Why a client may not use a token as the server that was called with it; `None` if it may.
pub(crate) fn not_usable(desk: &Desk, caller: &Caller, claims: &ToolCallClaims) -> Option<&'static str> {
    if caller.client().server.as_deref() != Some(claims.aud.as_str())
        || caller.client().tenant != claims.tenant
    {
        return Some(NOT_THE_AUDIENCE);
    }
    if !still_allowed(desk, claims) {
        return Some(NOT_ACTIVE);
    }
    // Only its maker redeems it, and only the process that made it: what was used before a restart is not known.
    // The index alone would not tell it of a log that was put back to an older state.
    let settings = &desk.settings;
    if claims.log.origin != desk.audit.origin()
        || claims.log.index < settings.log_size_at_start
        || claims.iat < settings.started_at_seconds
    {
        return Some("made_before_this_start");
    }
    None
}

/// RFC 7009: revokes a token and everything made from it. For its holder's client and for its audience; unknown and
/// foreign tokens are answered alike and nothing happens.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: try again.
pub async fn revoke(desk: &Desk, caller: &Caller, access_token: &str) -> Result<(), IssueError> {
    let client = caller.client();
    // What an expired token got as a role session it gets again until its window ends: so long can it be revoked.
    let window_seconds = desk.aws.as_ref().map_or(0, |_| WINDOW_SECONDS);
    let claims =
        claims_within(desk, access_token, window_seconds).filter(|claims| may_handle(caller, claims));
    let Some(claims) = claims else { return record::record_spent(desk, caller.spent()).await };
    if let Err(limited) = desk.limits.admit_revocation(&client.id, desk.clock.uptime()) {
        record::record_spent(desk, caller.spent()).await?;
        return Err(limited);
    }
    let by = RevokedBy { name: &client.id, method: Some(caller.method()), spent: caller.spent() };
    // INVARIANT: after the last second in which the token can be found.
    let until_seconds = claims.exp + window_seconds + REVOCATION_GRACE_SECONDS;
    // Tokens that have no children are not among those that are remembered.
    let place = Place { audience: claims.aud.into(), client_id: claims.client_id.into() };
    desk.revocations.place(vec![(claims.jti.clone(), place)], until_seconds);
    revoke_family(desk, by, &claims.jti, until_seconds).await
}

/// Revokes a token with its descendants: those that are minted meanwhile are found, for once the token itself is on
/// the list none can follow.
async fn revoke_family(
    desk: &Desk,
    by: RevokedBy<'_>,
    jti: &str,
    until_seconds: u64,
) -> Result<(), IssueError> {
    desk.revocations.place(desk.lineage.places(&[jti.to_owned()]), until_seconds);
    desk.revocations.hold(&[Revoked::Token(jti.to_owned())], until_seconds);
    let family = desk.lineage.with_descendants(jti);
    desk.revocations.place(desk.lineage.places(&family), until_seconds);
    let family: Vec<_> = family.into_iter().map(Revoked::Token).collect();
    desk.revocations.hold(&family, until_seconds);
    let mut spent = by.spent;
    // In parts that fit into an entry, or a token with very many children could not be revoked.
    for part in family.chunks(REVOKED_IN_AN_ENTRY) {
        revoke_recorded(desk, RevokedBy { spent: spent.take(), ..by }, part.to_vec(), until_seconds).await?;
    }
    Ok(())
}

async fn revoke_recorded(
    desk: &Desk,
    by: RevokedBy<'_>,
    what: Vec<Revoked>,
    until_seconds: u64,
) -> Result<(), IssueError> {
    // In force before anything is waited for: a caller who goes away, or a slow disk, cannot hold it up.
    desk.revocations.hold(&what, until_seconds);
    record::record_revocation(desk, by, (&what, until_seconds)).await?;
    desk.revocations
        .revoke(what, until_seconds)
        .await
        .map_err(|_| IssueError::RecordUnavailable("revocation_not_stored"))
}

/// An administrator revokes a whole transaction, a token with its descendants, or disables a person.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: try again.
pub async fn revoke_by_admin(desk: &Desk, by: &str, what: Revoked) -> Result<(), IssueError> {
    let now = desk.clock.now_seconds();
    let by = RevokedBy { name: by, method: None, spent: None };
    match what {
        Revoked::Token(jti) => revoke_family(desk, by, &jti, now + TRANSACTION_REVOCATION_SECONDS).await,
        Revoked::Transaction(_) => {
            revoke_recorded(desk, by, vec![what], now + TRANSACTION_REVOCATION_SECONDS).await
        }
        Revoked::Person(_) => {
            let until_seconds = now + PERSON_REVOCATION_SECONDS;
            desk.revocations.hold(std::slice::from_ref(&what), until_seconds);
            let _alone = PERSONS.lock().await;
            revoke_recorded(desk, by, vec![what], until_seconds).await
        }
    }
}

/// An administrator enables a person again, at once. Tokens and transactions that were revoked stay so: what
/// concerns them expires by itself.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: the person may still be disabled; try again.
pub async fn lift_by_admin(desk: &Desk, by: &str, sub: String) -> Result<(), IssueError> {
    let _alone = PERSONS.lock().await;
    let what = Revoked::Person(sub);
    // What is told to guards bears the record's size: none of it is made between the record and its effect.
    let _lifting = desk.revocations.lifting().await;
    record::record_lifting(desk, by, &what).await?;
    desk.revocations.lift(&what).await.map_err(|_| IssueError::RecordUnavailable("revocation_not_stored"))
}

/// RFC 7662: the claims of a live token, for its audience or its holder's client; `None` is `{"active": false}`.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn introspect(
    desk: &Desk,
    caller: &Caller,
    access_token: &str,
) -> Result<Option<ToolCallClaims>, IssueError> {
    record::record_spent(desk, caller.spent()).await?;
    let live = |claims: &ToolCallClaims| {
        may_handle(caller, claims)
            && still_allowed(desk, claims)
            && !desk.redemptions.contains(tag(&claims.jti), desk.clock.uptime())
    };
    Ok(unrevoked_claims(desk, access_token).filter(live))
}

fn may_handle(caller: &Caller, claims: &ToolCallClaims) -> bool {
    let client = caller.client();
    client.tenant == claims.tenant
        && (client.id == claims.client_id || client.server.as_deref() == Some(claims.aud.as_str()))
}

/// The claims of a token of ours that is neither expired nor revoked.
fn unrevoked_claims(desk: &Desk, access_token: &str) -> Option<ToolCallClaims> {
    claims_within(desk, access_token, 0)
}

/// The claims of a token of ours that did not expire more than so many seconds ago, and is not revoked.
pub(crate) fn claims_within(desk: &Desk, access_token: &str, seconds: u64) -> Option<ToolCallClaims> {
    let expected = token::Expected {
        issuer: &desk.settings.issuer,
        audience: None,
        now_seconds: desk.clock.now_seconds(),
        leeway_seconds: seconds,
    };
    let claims = token::verify(access_token, &desk.keys.ring().published, &expected).ok()?.into_claims();
    // The leeway is for its end alone.
    let has_begun = claims.nbf.max(claims.iat) <= expected.now_seconds;
    (has_begun && !desk.is_revoked(&claims)).then_some(claims)
}

/// Whether the client that got a token, those before it in its chain, and the server and tool (or prompt, or resource) that it is for, have not been disabled since; and
/// the tool has not drifted.
fn still_allowed(desk: &Desk, claims: &ToolCallClaims) -> bool {
    let rules = desk.rules.load();
    let [detail] = &claims.authorization_details;
    let target =
        rules.registry.server(&claims.aud).filter(|server| server.record.enabled).is_some_and(|server| {
            let action = detail.actions.first().and_then(|action| Action::from_method(action));
            detail.identifier.as_deref().is_none_or(|name| {
                action
                    .and_then(|action| server.offer(action, name))
                    .is_some_and(|tool| tool.record.enabled && !desk.drifts.has_drifted(server, &tool))
            })
        });
    let (known, before) = (desk.known(&rules), desk.lineage.clients_before(&claims.jti));
    // Who is taken out at the beginning of a chain has nothing more done in its name at the end.
    target
        && known.enabled(&claims.client_id).is_some()
        && before.iter().all(|id| known.enabled(id).is_some())
}

fn tag(jti: &str) -> [u8; 16] {
    let digest = deputize_call::digest::sha256(format!("redeemed\0{jti}").as_bytes());
    let mut tag = [0; 16];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = from;
    }
    tag
}

/// Held while a person is disabled or enabled: record and effect then have one order.
static PERSONS: Mutex<()> = Mutex::const_new(());
const NOT_REDEEMABLE: &str = "not_redeemable";
const NOT_THE_AUDIENCE: &str = "not_the_audience";
const NOT_ACTIVE: &str = "token_not_active";
/// The longest window of a role session: so long may a token get again what it got, though it has expired.
pub(crate) const WINDOW_SECONDS: u64 = MAX_WINDOW_SECONDS as u64;
/// A revoked token stays on the list this much longer than it lives, for verifiers' leeway; and longer still where it
/// may have got a role session.
const REVOCATION_GRACE_SECONDS: u64 = 60;
/// Descendants in one entry of the log, of some 50 bytes each: an entry holds 64 KiB.
const REVOKED_IN_AN_ENTRY: usize = 500;
/// A transaction goes on for an hour at most, and its last token lives two minutes.
const TRANSACTION_REVOCATION_SECONDS: u64 = 3600 + 180;
/// Ten years stand for "until lifted".
const PERSON_REVOCATION_SECONDS: u64 = 315_360_000;
