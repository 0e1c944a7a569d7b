//! What the token will say.

use deputize_call::{
    claims::{DETAIL_TYPE, GrantedDetail, LogPlace, PolicyRef, ToolCallClaims},
    offers::Shown,
};

use super::{
    Application, DEFAULT_MAX_USES, LISTING_ACTIONS,
    target::{Pinned, Wanted, scope},
};
use crate::{
    ask::CallAsk, clock, desk::Desk, error::IssueError, policy::Verdict, transaction::Beginner,
    verify_subject::Subject,
};

/// Everything that the token will say, but for its place in the log.
pub(super) fn claims(
    desk: &Desk,
    application: &Application<'_>,
    wanted: &Wanted,
    (verdict, policy_digest): (&Verdict, &str),
    shown: Option<Shown>,
) -> Result<ToolCallClaims, IssueError> {
    let (caller, ask) = (application.caller, application.ask);
    let client = caller.client();
    let now = desk.clock.now_seconds();
    let sub = application.subject.map_or(client.id.as_str(), |subject| &subject.person().sub);
    let act = application.subject.map(|subject| subject.act().clone());
    let parent = application.subject.and_then(Subject::parent).map(|parent| &parent.claims);
    let actor = act.as_ref().map_or(client.actor(), |act| &act.sub);
    let beginner = Beginner { tenant: &client.tenant, client_id: &client.id, sub, actor };
    let txn = match (parent, &ask.transaction_id) {
        (Some(parent), Some(id)) if *id != parent.txn => {
            return Err(IssueError::Request("transaction_of_another_token"));
        }
        (Some(parent), _) => parent.txn.clone(),
        (None, Some(id)) => desk.transactions.go_on(desk.clock.as_ref(), beginner, id)?,
        (None, None) => desk.transactions.begin(desk.clock.as_ref(), beginner)?,
    };
    let exp = expiry(application.subject, now, now + lifetime_seconds(wanted))?;
    Ok(ToolCallClaims {
        iss: desk.settings.issuer.clone(),
        sub: sub.to_owned(),
        tenant: client.tenant.clone(),
        aud: wanted.server.record.resource.clone(),
        client_id: client.id.clone(),
        iat: now,
        nbf: now,
        exp,
        jti: clock::new_id(desk.clock.as_ref())?.to_string(),
        scope: scope(wanted),
        cnf: caller.confirmation().cloned().ok_or(IssueError::Proof("proof_missing"))?,
        act,
        bearer: application.subject.and_then(Subject::bearer).cloned(),
        txn,
        pjti: parent.map(|parent| parent.jti.clone()),
        authorization_details: [GrantedDetail {
            shown,
            ..detail(application, wanted, verdict, policy_digest)
        }],
        log: LogPlace { origin: desk.audit.origin().to_owned(), index: 0 },
    })
}

fn detail(
    application: &Application<'_>,
    wanted: &Wanted,
    verdict: &Verdict,
    policy_digest: &str,
) -> GrantedDetail {
    let (call_digest, constraints, max_uses) = match &application.ask.call {
        CallAsk::Listing => (None, None, None),
        CallAsk::Tool { .. } => (None, None, wanted.tool.as_ref().and_then(|tool| tool.record.max_uses)),
        CallAsk::Constrained { constraints, max_uses, .. } => {
            let most = wanted.tool.as_ref().and_then(|tool| tool.record.max_uses).unwrap_or(DEFAULT_MAX_USES);
            (None, Some(constraints.clone()), Some(max_uses.unwrap_or(most)))
        }
        CallAsk::Call(call) => (Some(call.call_digest), None, Some(1)),
    };
    let pinned = wanted.tool.as_ref().map_or(Pinned::default(), |tool| Pinned::of(tool));
    GrantedDetail {
        detail_type: DETAIL_TYPE.to_owned(),
        locations: [wanted.server.record.resource.clone()],
        actions: match &wanted.tool {
            Some(tool) => vec![tool.action.as_str().to_owned()],
            None => LISTING_ACTIONS.iter().map(|&action| action.to_owned()).collect(),
        },
        identifier: wanted.tool.as_ref().map(|tool| tool.name.clone()),
        tool_digest: pinned.tool,
        prompt_digest: pinned.prompt,
        manifest_digest: wanted.server.manifest_digest,
        call_digest,
        constraints,
        max_uses,
        shown: None,
        policy: PolicyRef {
            digest: policy_digest.to_owned(),
            // Each of them would have allowed it alone; the token has room for some.
            ids: verdict.policy_ids.iter().take(MAX_POLICY_IDS).cloned().collect(),
        },
    }
}

/// Never longer than the token that was brought: a user who is signed out is so everywhere, and a chain of exchanges
/// does not live for ever. That token's leeway is for its times alone: what would be left of it is refused as expired.
fn expiry(subject: Option<&Subject>, now: u64, latest: u64) -> Result<u64, IssueError> {
    let exp = subject.map_or(latest, |subject| subject.expires_at().min(latest));
    if exp < now + LEAST_LIFETIME_SECONDS {
        return Err(IssueError::SubjectToken { reason: "subject_token_expired", detail: String::new() });
    }
    Ok(exp)
}

/// Nor longer than the entry by which a process acts: who is taken out at a time has nothing in hand afterwards.
pub(super) fn no_longer_than(
    ends_at_seconds: Option<u64>,
    claims: ToolCallClaims,
) -> Result<ToolCallClaims, IssueError> {
    let exp = ends_at_seconds.map_or(claims.exp, |end| end.min(claims.exp));
    if exp < claims.iat + LEAST_LIFETIME_SECONDS {
        return Err(IssueError::NotEntitled("entry_about_to_end"));
    }
    Ok(ToolCallClaims { exp, ..claims })
}

fn lifetime_seconds(wanted: &Wanted) -> u64 {
    wanted
        .tool
        .as_ref()
        .and_then(|tool| tool.record.lifetime_seconds)
        .unwrap_or(DEFAULT_LIFETIME_SECONDS)
        .clamp(30, 120)
}

const DEFAULT_LIFETIME_SECONDS: u64 = 60;
/// What is good for less would expire on its way.
const LEAST_LIFETIME_SECONDS: u64 = 5;
const MAX_POLICY_IDS: usize = 16;
