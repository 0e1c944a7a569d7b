//! Stages 5 and 7: the intent is durable before anything is signed; the outcome follows.

mod aws_session;
mod bundle;
mod entry;
mod guard;
mod intent;
mod node;
mod pseudonym;
mod refusals;
mod svid;

pub use aws_session::{AwsKey, AwsSession};
pub use bundle::{BundleEntry, bundle_entry};
pub(crate) use entry::Misuser;
pub use entry::{Entry, Kind, SpentTag};
pub use guard::{Named, Seen, record_drift, record_seen};
pub(crate) use node::{NodeChange, record_node_change, record_node_denial};
pub use pseudonym::Pseudonyms;
pub use refusals::{Refusals, RefusedAt};
pub(crate) use svid::asked_by;
pub use svid::{RefusedSvid, SvidEntry, SvidKind, record_svid_denial};

use async_trait::async_trait;
use deputize_call::claims::{PresentedBy, ToolCallClaims};
use std::borrow::Cow;
use uuid::Uuid;

use crate::{
    ask::Target,
    authenticate::{Caller, SpentId},
    client::Client,
    decide::Grant,
    desk::Desk,
    error::{DenialReason, IssueError},
    log::{Class, Log, LogError},
    revocation::Revoked,
};

/// The audit log, as the stages see it.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Names this replica's log; becomes `log.origin` in tokens.
    fn origin(&self) -> &str;
    /// Appends and waits until the entry is durable; its index.
    async fn append(&self, class: Class, entry: Vec<u8>) -> Result<u64, IssueError>;
    /// Appends in this order and waits until all are durable.
    async fn append_all(&self, class: Class, entries: Vec<Vec<u8>>) -> Result<(), IssueError>;
    /// Appends with the next group, without waiting.
    fn append_later(&self, class: Class, entry: Vec<u8>) -> Result<(), IssueError>;
}

/// What a yes lays down, as the record sees it.
pub trait Recorded: Sized + Send {
    /// Id of the decision.
    fn decision_id(&self) -> Uuid;
    /// The intent: what is about to be minted, for whom, by whose leave.
    fn intent(&self, desk: &Desk) -> Entry;
}

/// A grant whose intent is durable. Only [`open_record`] makes it, and only [`crate::mint`] takes it.
///
/// INVARIANT: there is one durable intent record for each `OpenRecord`, and an `OpenRecord` is used at most once.
#[derive(Debug)]
#[must_use = "an open record must be minted or closed"]
pub struct OpenRecord<T> {
    terms: T,
    index: u64,
}

/// What became of an intent. Made by the mint alone; [`close_record`] takes it.
#[derive(Debug)]
#[must_use = "the outcome of an intent must be recorded"]
pub struct Outcome {
    pub(crate) decision_id: Uuid,
    pub(crate) index: u64,
    pub(crate) result: Result<(), &'static str>,
    pub(crate) aws_key: Option<AwsKey>,
}

/// Makes the intent durable: no record, no credential.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn open_record<T: Recorded>(desk: &Desk, grant: Grant<T>) -> Result<OpenRecord<T>, IssueError> {
    let terms = grant.into_terms();
    let entry = terms.intent(desk).to_bytes()?;
    let index = desk.audit.append(Class::Routine, entry).await?;
    Ok(OpenRecord { terms, index })
}

/// Records the outcome. It never takes back a credential that was issued: if the entry cannot be queued, that is
/// counted and alarmed, and the intent stands.
pub fn close_record(desk: &Desk, outcome: &Outcome) {
    let entry = entry::outcome(desk, outcome).to_bytes();
    if entry.and_then(|entry| desk.audit.append_later(Class::Vital, entry)).is_err() {
        metrics::counter!("deputize_outcomes_unrecorded_total").increment(1);
        tracing::error!(decision_id = %outcome.decision_id, "outcome not recorded");
    }
}

/// Records that an intent led to nothing that anybody got, because whoever asked went away. The intent, which may yet
/// become durable, bears the same decision id.
pub fn abandon_record(desk: &Desk, decision_id: Uuid) {
    let entry = entry::abandoned(desk, decision_id).to_bytes();
    if entry.and_then(|entry| desk.audit.append_later(Class::Vital, entry)).is_err() {
        metrics::counter!("deputize_outcomes_unrecorded_total").increment(1);
        tracing::error!(%decision_id, "outcome not recorded");
    }
}

/// What was asked when it was refused, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refused<'a> {
    /// Who asked.
    pub caller: Option<&'a Caller>,
    /// In whose name.
    pub sub: Option<&'a str>,
    /// By whom the person's token was presented as it stood.
    pub bearer: Option<&'a PresentedBy>,
    /// For which server.
    pub resource: Option<&'a str>,
    /// For which tool, prompt or resource.
    pub target: Option<&'a Target>,
    /// With which token of ours.
    pub jti: Option<&'a str>,
}

/// Records a refusal to an authenticated client: on its own within the client's quota, else counted. The assertion
/// that it used up is durable before the answer in any case, so that no restart forgets it.
///
/// # Errors
/// [`IssueError::RecordUnavailable`] if the spent assertion could not be made durable: the answer is then 503.
pub async fn record_denial(
    desk: &Desk,
    decision_id: Uuid,
    refused: Refused<'_>,
    error: &IssueError,
) -> Result<(), IssueError> {
    let Some(caller) = refused.caller else {
        desk.refusals.count(error.reason());
        return Ok(());
    };
    let client = caller.client();
    if has_room(desk, client, caller.attested().map(AsRef::as_ref)) {
        let entry = entry::denial(desk, decision_id, &refused, error).to_bytes()?;
        return desk.audit.append(Class::Denial, entry).await.map(drop);
    }
    desk.refusals.aggregate(&client.tenant, &client.id, error.reason());
    record_spent(desk, caller.spent()).await
}

/// Records that a client misused a token, as a refusal: on its own within the client's quota, else counted. The
/// assertion that it used up is durable before the answer in any case.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: the answer is then 503.
pub async fn record_misuse(
    desk: &Desk,
    caller: &Caller,
    jti: &str,
    reason: &'static str,
) -> Result<(), IssueError> {
    let client = caller.client();
    let (method, attested) = (caller.method(), caller.attested().map(AsRef::as_ref));
    if has_room(desk, client, attested) {
        let who = Misuser { client, method, attested };
        let entry = entry::misuse(desk, caller.decision_id(), who, reason);
        let entry = Entry { jti: Some(jti.to_owned()), ..entry }.spent(caller.spent()).to_bytes()?;
        return desk.audit.append(Class::Denial, entry).await.map(drop);
    }
    desk.refusals.aggregate(&client.tenant, &client.id, reason);
    record_spent(desk, caller.spent()).await
}

/// Records misuse of what proves a client, where nothing was used up and so nothing has to be waited for.
pub(crate) fn record_misuse_later(desk: &Desk, decision_id: Uuid, who: Misuser<'_>, reason: &'static str) {
    let client = who.client;
    let recorded = has_room(desk, client, who.attested)
        && entry::misuse(desk, decision_id, who, reason)
            .to_bytes()
            .and_then(|entry| desk.audit.append_later(Class::Denial, entry))
            .is_ok();
    if !recorded {
        desk.refusals.aggregate(&client.tenant, &client.id, reason);
    }
}

/// Whether one more refusal of this caller gets a record of its own; else it is aggregated.
fn has_room(desk: &Desk, client: &Client, attested: Option<&SvidEntry>) -> bool {
    let (counted_as, uptime) = (counted_as(client, attested), desk.clock.uptime());
    match witness(attested) {
        Some(node) => desk.limits.record_denial_on_node((&node, &counted_as), uptime),
        None => desk.limits.record_denial(&counted_as, uptime),
    }
}

/// The name that what a node causes is counted under, where it is by its word that somebody is a process: whatever it makes up,
/// it has no more than one client.
pub(crate) fn witness(attested: Option<&SvidEntry>) -> Option<String> {
    attested.filter(|attested| attested.reported_by_node).map(|attested| format!("node {}", attested.node))
}

/// The name that what somebody causes is counted under: requests, and records of refusals. Of processes each entry has its own
/// on each node, so that one node cannot use up what others have; what they cause through a node counts for that, too, see
/// [`witness`].
pub(crate) fn counted_as<'c>(client: &'c Client, attested: Option<&SvidEntry>) -> Cow<'c, str> {
    match attested {
        Some(SvidEntry { entry: Some(entry), node, .. }) => {
            Cow::Owned(format!("{node} {entry} {}", client.id))
        }
        Some(_) | None => Cow::Borrowed(&client.id),
    }
}

/// Makes a used-up assertion durable where no other record carries it. Below the reserve it gives way, as refusals
/// do, to what must be taken to its end.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_spent(desk: &Desk, spent: Option<SpentId>) -> Result<(), IssueError> {
    let Some(spent) = spent else { return Ok(()) };
    let entry = Entry::new(Kind::Spent, desk.clock.now_ms()).spent(Some(spent)).to_bytes()?;
    desk.audit.append(Class::Denial, entry).await.map(drop)
}

/// Records to whom a session of an AWS role was handed out again, with the assertion that was used up for it: each of the
/// first times, and then more and more seldom, since nothing else bounds how often somebody asks.
///
/// # Errors
/// [`IssueError::RecordUnavailable`]: the answer is then 503.
pub async fn record_handed_out(
    desk: &Desk,
    caller: &Caller,
    claims: &ToolCallClaims,
    (decision_id, times): (Uuid, u64),
) -> Result<(), IssueError> {
    if times > HANDED_OUT_RECORDED && !times.is_power_of_two() {
        return record_spent(desk, caller.spent()).await;
    }
    let entry = entry::handed_out(desk, caller, claims, (decision_id, times)).to_bytes()?;
    desk.audit.append(Class::Denial, entry).await.map(drop)
}

/// Who revokes.
#[derive(Debug, Clone, Copy)]
pub struct RevokedBy<'a> {
    /// `client_id`, or what administration is called.
    pub name: &'a str,
    /// How the client proved itself; none of administration, which its socket lets in.
    pub method: Option<&'static str>,
    /// The assertion that it used up.
    pub spent: Option<SpentId>,
}

/// Records a revocation and until when it holds (Unix seconds); the next start takes it from there.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_revocation(
    desk: &Desk,
    by: RevokedBy<'_>,
    (what, until_seconds): (&[Revoked], u64),
) -> Result<u64, IssueError> {
    let entry = entry::revocation(desk, by, (what, until_seconds)).to_bytes()?;
    desk.audit.append(Class::Vital, entry).await
}

/// Records that a revocation holds no longer.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_lifting(desk: &Desk, by: &str, what: &Revoked) -> Result<u64, IssueError> {
    let mut entry = Entry::new(Kind::Lifted, desk.clock.now_ms());
    (entry.by, entry.revoked) = (Some(by.to_owned()), vec![what.clone()]);
    desk.audit.append(Class::Vital, entry.to_bytes()?).await
}

/// Records that an L3 token was used up.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub async fn record_redemption(
    desk: &Desk,
    caller: &Caller,
    jti: &str,
    txn: &str,
) -> Result<u64, IssueError> {
    let entry = entry::redemption(desk, caller, jti, txn).to_bytes()?;
    desk.audit.append(Class::Vital, entry).await
}

impl<T: Recorded> OpenRecord<T> {
    pub(crate) fn decision_id(&self) -> Uuid {
        self.terms.decision_id()
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn into_terms(self) -> T {
        self.terms
    }
}

#[async_trait]
impl Audit for Log {
    fn origin(&self) -> &str {
        Self::origin(self)
    }
    async fn append(&self, class: Class, entry: Vec<u8>) -> Result<u64, IssueError> {
        Self::append(self, class, entry).await.map_err(|error| unavailable(&error))
    }
    async fn append_all(&self, class: Class, entries: Vec<Vec<u8>>) -> Result<(), IssueError> {
        Self::append_all(self, class, entries).await.map_err(|error| unavailable(&error))
    }
    fn append_later(&self, class: Class, entry: Vec<u8>) -> Result<(), IssueError> {
        Self::append_later(self, class, entry).map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &LogError) -> IssueError {
    tracing::error!(%error, "record not durable");
    IssueError::RecordUnavailable("log_unavailable")
}

/// What `explain` shows of an error beyond its constant word.
fn internal_detail(error: &IssueError) -> Option<String> {
    match error {
        IssueError::Denied(DenialReason::Policy { ids, errors }) => {
            Some(format!("policies: {}; errors: {}", ids.join(", "), errors.join("; ")))
        }
        other => other.detail().filter(|detail| !detail.is_empty()).map(str::to_owned),
    }
}

/// So often each; then every time that the number has doubled.
const HANDED_OUT_RECORDED: u64 = 8;
