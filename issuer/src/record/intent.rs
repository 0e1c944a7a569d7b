//! What is about to be minted, as the log says it.

use deputize_call::{action::Action, claims::Confirmation};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{
    AwsSession, Entry, Kind, Recorded,
    entry::{bounded, is_not_a_call},
};
use crate::{
    ask::Claimed,
    decide::{RoleTerms, ToolCallTerms},
    desk::Desk,
};

impl Recorded for ToolCallTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }
    fn intent(&self, desk: &Desk) -> Entry {
        tool_call(desk, self)
    }
}

impl Recorded for RoleTerms {
    fn decision_id(&self) -> Uuid {
        self.decision_id
    }
    fn intent(&self, desk: &Desk) -> Entry {
        role_session(desk, self)
    }
}

fn tool_call(desk: &Desk, terms: &ToolCallTerms) -> Entry {
    let claims = &terms.claims;
    let [detail] = &claims.authorization_details;
    let pseudonyms = desk.pseudonyms.of(&claims.tenant, desk.clock.now_seconds());
    let (bound_by, key) = match &claims.cnf {
        Confirmation::Jkt(key) => ("jkt", key),
        Confirmation::X5tS256(key) => ("x5t#S256", key),
    };
    Entry {
        decision: Some(terms.decision_id),
        tenant: Some(claims.tenant.clone()),
        client: Some(claims.client_id.clone()),
        method: Some(terms.method.to_owned()),
        sub: Some(claims.sub.clone()),
        issuer: terms.person_issuer.clone(),
        actors: claims.act.as_ref().map(|act| act.chain().map(str::to_owned).collect()).unwrap_or_default(),
        txn: Some(claims.txn.clone()),
        jti: Some(claims.jti.clone()),
        pjti: claims.pjti.clone(),
        exp: Some(claims.exp),
        key: Some(key.clone()),
        bound_by: Some(bound_by.to_owned()),
        bearer: claims.bearer.clone(),
        server: Some(claims.aud.clone()),
        tool: detail.identifier.clone(),
        action: detail.actions.first().and_then(|action| Action::from_method(action)).filter(is_not_a_call),
        level: Some(detail.level().as_str().to_owned()),
        tier: terms.tier.map(|tier| tier.as_str().to_owned()),
        call: detail.call_digest.map(|digest| pseudonyms.name("call", digest.as_bytes())),
        arguments: terms
            .arguments
            .as_ref()
            .map(|arguments| pseudonyms.arguments(arguments))
            .unwrap_or_default(),
        policy: Some(detail.policy.clone()),
        risk: Some(terms.risk.score),
        risk_reasons: terms.risk.reasons.iter().map(|&reason| reason.to_owned()).collect(),
        claimed: claimed(&terms.claimed),
        registry: Some(terms.registry_digest.clone()),
        spiffe: terms.attested.as_deref().cloned(),
        ..Entry::new(Kind::Intent, desk.clock.now_ms()).spent(terms.spent)
    }
}

/// It is no token: it has no `jti` and no `exp`, and its parent is the token of the call.
fn role_session(desk: &Desk, terms: &RoleTerms) -> Entry {
    let (claims, session) = (&terms.claims, &terms.session);
    let [detail] = &claims.authorization_details;
    let pseudonyms = desk.pseudonyms.of(&claims.tenant, desk.clock.now_seconds());
    Entry {
        decision: Some(terms.decision_id),
        tenant: Some(claims.tenant.clone()),
        client: Some(terms.client_id.clone()),
        method: Some(terms.method.to_owned()),
        sub: Some(claims.sub.clone()),
        issuer: Some(terms.person_issuer.clone()),
        actors: claims.act.as_ref().map(|act| act.chain().map(str::to_owned).collect()).unwrap_or_default(),
        txn: Some(claims.txn.clone()),
        pjti: Some(claims.jti.clone()),
        bearer: claims.bearer.clone(),
        server: Some(claims.aud.clone()),
        tool: detail.identifier.clone(),
        level: Some(detail.level().as_str().to_owned()),
        call: detail.call_digest.map(|digest| pseudonyms.name("call", digest.as_bytes())),
        arguments: pseudonyms.arguments(&terms.arguments),
        policy: Some(detail.policy.clone()),
        registry: Some(terms.registry_digest.clone()),
        aws: Some(AwsSession {
            template: session.template.clone(),
            template_hash: session.template_hash,
            account: terms.account.clone(),
            region: session.region.clone(),
            role: session.role_arn.clone(),
            session_name: session.session_name.clone(),
            source_identity: session.source_identity.clone(),
            window_end: session.window_end_seconds,
        }),
        ..Entry::new(Kind::Intent, desk.clock.now_ms()).spent(terms.spent)
    }
}

fn claimed(claimed: &Claimed) -> BTreeMap<String, String> {
    [
        ("parent_request_id", &claimed.parent_request_id),
        ("host", &claimed.host),
        ("model", &claimed.model),
        ("workflow", &claimed.workflow),
        ("traceparent", &claimed.traceparent),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.as_ref().map(|value| (name.to_owned(), bounded(value))))
    .collect()
}
