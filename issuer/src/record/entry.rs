//! What a log entry says: one JSON object, members in a fixed order, absent where unknown. Arguments and call
//! digests appear only as pseudonyms.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::{
    action::Action,
    claims::{PolicyRef, PresentedBy, ToolCallClaims},
    digest::Digest,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

use super::{AwsKey, AwsSession, BundleEntry, Outcome, Refused, RevokedBy, Seen, SvidEntry, internal_detail};
use crate::{
    authenticate::{Caller, SpentId},
    client::Client,
    desk::Desk,
    entry::Draft,
    error::IssueError,
    revocation::Revoked,
};

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "members are documented in docs/audit-log.md, one line each")]
pub struct Entry {
    pub v: u8,
    pub kind: Kind,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<SpentTag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pjti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<PresentedBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub risk_reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claimed: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Digest of the role templates that hold from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<String>,
    /// Digest of the registration entries of files that hold from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<String>,
    /// The registration entry that administration made or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Draft>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_key: Option<AwsKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoked>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsSession>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<SvidEntry>,
    /// SPIFFE ID of the node that was changed or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleEntry>,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A credential is about to be minted.
    Intent,
    /// What became of it.
    Outcome,
    /// An authenticated client was refused.
    Denial,
    /// Further refusals of the same kind, counted.
    Denials,
    /// Refusals before authentication, counted.
    Refusals,
    /// A session of an AWS role was given once more to whom it was made for.
    HandedOut,
    /// A client assertion was used up by something that has no record of its own.
    Spent,
    /// Tokens, a transaction or a person were revoked.
    Revocation,
    /// A revocation was taken back.
    Lifted,
    /// An L3 token was used.
    Redemption,
    /// A guard saw something at its server; `seen` says what.
    Guard,
    /// A tool is no longer what was approved, and nothing is issued for it; or that was lifted.
    Drift,
    /// The process started.
    Start,
    /// Configuration was loaded; `registry`, `policy`, `templates` and `entries` carry its digests.
    Configuration,
    /// Administration made or deleted a registration entry, which `registration` shows whole.
    Registration,
    /// Administration made a join token for a node, or banned, lifted or evicted one: `result` says which.
    Node,
    /// The bundle of a foreign trust domain changed, or is used no longer; `bundle` says which.
    Bundle,
}

/// A used-up assertion: its tag (base64url of 16 bytes) and when it may be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentTag {
    /// base64url.
    pub tag: String,
    /// Unix seconds.
    pub until: u64,
}

impl Entry {
    /// An entry of this kind.
    pub fn new(kind: Kind, at_ms: u64) -> Self {
        Self {
            v: 1,
            kind,
            at: at_ms,
            spent: None,
            decision: None,
            tenant: None,
            client: None,
            method: None,
            sub: None,
            issuer: None,
            actors: Vec::new(),
            txn: None,
            jti: None,
            pjti: None,
            exp: None,
            key: None,
            bound_by: None,
            bearer: None,
            server: None,
            tool: None,
            definition: None,
            action: None,
            level: None,
            tier: None,
            call: None,
            arguments: BTreeMap::new(),
            policy: None,
            risk: None,
            risk_reasons: Vec::new(),
            claimed: BTreeMap::new(),
            registry: None,
            templates: None,
            entries: None,
            registration: None,
            intent: None,
            result: None,
            reason: None,
            detail: None,
            aws_key: None,
            count: None,
            by: None,
            revoked: Vec::new(),
            seen: None,
            aws: None,
            spiffe: None,
            node: None,
            bundle: None,
        }
    }

    /// Whether it is about an SVID: of a process that asked for something else, `spiffe` says who it is.
    pub fn is_of_an_svid(&self) -> bool {
        self.spiffe.is_some() && self.client.is_none()
    }

    /// With the assertion that this request used up.
    #[must_use]
    pub fn spent(mut self, spent: Option<SpentId>) -> Self {
        self.spent =
            spent.map(|spent| SpentTag { tag: URL_SAFE_NO_PAD.encode(spent.tag), until: spent.until });
        self
    }

    /// The bytes of the log entry.
    ///
    /// # Errors
    /// [`IssueError::RecordUnavailable`] if it is larger than an entry may be; inputs are bounded so that it is not.
    pub fn to_bytes(&self) -> Result<Vec<u8>, IssueError> {
        let bytes =
            serde_json::to_vec(self).map_err(|_| IssueError::RecordUnavailable("entry_not_serializable"))?;
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(IssueError::RecordUnavailable("entry_too_large"));
        }
        Ok(bytes)
    }
}

impl SpentTag {
    /// The raw tag, if it is one.
    pub fn to_tag(&self) -> Option<[u8; 16]> {
        URL_SAFE_NO_PAD.decode(&self.tag).ok()?.try_into().ok()
    }
}

pub(super) fn outcome(desk: &Desk, outcome: &Outcome) -> Entry {
    Entry {
        decision: Some(outcome.decision_id),
        intent: Some(outcome.index),
        result: Some(if outcome.result.is_ok() { "minted" } else { "failed" }.to_owned()),
        reason: outcome.result.err().map(str::to_owned),
        aws_key: outcome.aws_key.clone(),
        ..Entry::new(Kind::Outcome, desk.clock.now_ms())
    }
}

pub(super) fn abandoned(desk: &Desk, decision_id: Uuid) -> Entry {
    Entry {
        decision: Some(decision_id),
        result: Some("abandoned".to_owned()),
        ..Entry::new(Kind::Outcome, desk.clock.now_ms())
    }
}

pub(super) fn denial(desk: &Desk, decision_id: Uuid, refused: &Refused<'_>, error: &IssueError) -> Entry {
    let client = refused.caller.map(Caller::client);
    Entry {
        decision: Some(decision_id),
        tenant: client.map(|client| client.tenant.clone()),
        client: client.map(|client| client.id.clone()),
        method: refused.caller.map(|caller| caller.method().to_owned()),
        sub: refused.sub.map(str::to_owned),
        bearer: refused.bearer.cloned(),
        jti: refused.jti.map(bounded),
        server: refused.resource.map(bounded),
        tool: refused.target.map(|target| bounded(&target.name)),
        action: refused.target.map(|target| target.action).filter(is_not_a_call),
        reason: Some(error.reason().to_owned()),
        detail: internal_detail(error).as_deref().map(bounded),
        spiffe: refused.caller.and_then(Caller::attested).map(|attested| SvidEntry::clone(attested)),
        ..Entry::new(Kind::Denial, desk.clock.now_ms()).spent(refused.caller.and_then(Caller::spent))
    }
}

/// Who misused what proves it, or a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Misuser<'a> {
    /// The client.
    pub(crate) client: &'a Client,
    /// How it proved itself.
    pub(crate) method: &'static str,
    /// The process that it is, where it was attested.
    pub(crate) attested: Option<&'a SvidEntry>,
}

pub(super) fn misuse(
    desk: &Desk,
    decision_id: Uuid,
    Misuser { client, method, attested }: Misuser<'_>,
    reason: &'static str,
) -> Entry {
    Entry {
        spiffe: attested.cloned(),
        method: Some(method.to_owned()),
        decision: Some(decision_id),
        tenant: Some(client.tenant.clone()),
        client: Some(client.id.clone()),
        reason: Some(reason.to_owned()),
        ..Entry::new(Kind::Denial, desk.clock.now_ms())
    }
}

pub(super) fn revocation(desk: &Desk, by: RevokedBy<'_>, (what, until_seconds): (&[Revoked], u64)) -> Entry {
    Entry {
        by: Some(by.name.to_owned()),
        method: by.method.map(str::to_owned),
        exp: Some(until_seconds),
        revoked: what.to_vec(),
        ..Entry::new(Kind::Revocation, desk.clock.now_ms()).spent(by.spent)
    }
}

pub(super) fn redemption(desk: &Desk, caller: &Caller, jti: &str, txn: &str) -> Entry {
    Entry {
        tenant: Some(caller.client().tenant.clone()),
        client: Some(caller.client().id.clone()),
        method: Some(caller.method().to_owned()),
        jti: Some(jti.to_owned()),
        txn: Some(txn.to_owned()),
        ..Entry::new(Kind::Redemption, desk.clock.now_ms()).spent(caller.spent())
    }
}

pub(super) fn handed_out(
    desk: &Desk,
    caller: &Caller,
    claims: &ToolCallClaims,
    (decision_id, times): (Uuid, u64),
) -> Entry {
    Entry {
        decision: Some(decision_id),
        tenant: Some(caller.client().tenant.clone()),
        client: Some(caller.client().id.clone()),
        method: Some(caller.method().to_owned()),
        jti: Some(claims.jti.clone()),
        txn: Some(claims.txn.clone()),
        count: Some(times),
        ..Entry::new(Kind::HandedOut, desk.clock.now_ms()).spent(caller.spent())
    }
}

/// Entries say what is done where it is no call of a tool.
pub(super) fn is_not_a_call(action: &Action) -> bool {
    *action != Action::CallTool
}

/// Text that the other side chose, cut to what a record has room for.
pub(super) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARACTERS).collect()
}

/// The longest entry, as tlog-tiles entry bundles can carry it.
const MAX_ENTRY_BYTES: usize = 65_535;
const MAX_TEXT_CHARACTERS: usize = 512;
