//! What the log says of nodes, beside the SVIDs that they get.

use spiffe::SpiffeId;
use uuid::Uuid;

use super::{Entry, Kind};
use crate::{desk::Desk, error::IssueError, log::Class};

/// What an administrator does to a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeChange<'a> {
    /// `token_created`, `banned`, `lifted`, `evicted`.
    pub(crate) what: &'static str,
    /// To which.
    pub(crate) node: &'a SpiffeId,
    /// Until when a join token is good, in Unix seconds.
    pub(crate) until_seconds: Option<u64>,
}

/// Records it; durable when this returns.
///
/// # Errors
/// [`IssueError::RecordUnavailable`].
pub(crate) async fn record_node_change(
    desk: &Desk,
    decision_id: Uuid,
    change: &NodeChange<'_>,
) -> Result<(), IssueError> {
    let entry = Entry {
        decision: Some(decision_id),
        by: Some("admin".to_owned()),
        node: Some(change.node.to_string()),
        result: Some(change.what.to_owned()),
        exp: change.until_seconds,
        ..Entry::new(Kind::Node, desk.clock.now_ms())
    };
    desk.audit.append(Class::Vital, entry.to_bytes()?).await.map(drop)
}

/// Records that a node was refused: on its own within its quota, else counted.
pub(crate) fn record_node_denial(desk: &Desk, decision_id: Uuid, node: &SpiffeId, error: &IssueError) {
    let node = node.to_string();
    // What went wrong on our side is in the outcome of its intent.
    if matches!(
        error,
        IssueError::Internal(_) | IssueError::RecordUnavailable(_) | IssueError::UpstreamUnavailable(_)
    ) {
        desk.refusals.count(error.reason());
        return;
    }
    let entry = Entry {
        decision: Some(decision_id),
        reason: Some(error.reason().to_owned()),
        node: Some(node.clone()),
        ..Entry::new(Kind::Denial, desk.clock.now_ms())
    };
    let recorded = desk.limits.record_svid_denial((&node, "node"), desk.clock.uptime())
        && entry.to_bytes().and_then(|entry| desk.audit.append_later(Class::Denial, entry)).is_ok();
    if !recorded {
        desk.refusals.aggregate_on_node(&node, error.reason());
    }
}
