//! A process as the client that its registration entry makes it.

use std::sync::Arc;

use crate::{
    client::Client, decide::entitled, desk::Desk, error::IssueError, record::SvidEntry, workload::Workload,
};

/// What a process is now.
pub(super) struct Verified {
    /// The client.
    pub(super) client: Arc<Client>,
    /// The process and its entry, as records say them.
    pub(super) record: Arc<SvidEntry>,
    /// When its entry ends, in Unix seconds, if it does.
    pub(super) ends_at_seconds: Option<u64>,
}

/// Who a process is, its entry says; that it is that process, whoever made the [`Workload`] has asked the kernel.
pub(super) fn verify_workload(
    desk: &Desk,
    workload: &Workload,
    entry: &str,
    now_seconds: u64,
) -> Result<Verified, IssueError> {
    let door = desk.spiffe.as_ref().ok_or(IssueError::Internal("no_door_to_spiffe"))?;
    let entry = entitled(door, (workload, entry), now_seconds)?;
    let without = IssueError::NotEntitled("entry_without_exchange");
    if entry.exchange.is_none() {
        return Err(without);
    }
    let (rules, spiffe_id) = (desk.rules.load(), entry.spiffe_id.to_string());
    // INVARIANT: no name is that of a client and of a process, whichever was there first.
    if rules.clients.named(&spiffe_id).is_some() {
        return Err(IssueError::NotEntitled("entry_of_a_configured_client"));
    }
    let client = desk.known(&rules).enabled(&spiffe_id).ok_or(without)?;
    let record = Arc::new(SvidEntry::of_caller(workload, &entry));
    Ok(Verified { client, record, ends_at_seconds: entry.expires_at_seconds })
}
