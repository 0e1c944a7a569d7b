//! Once more, before anything is granted: between the proof and the decision keys of an identity provider may have been
//! fetched, and meanwhile a client may have been taken out, or an entry have been deleted or narrowed.

use super::{Caller, workload::verify_workload};
use crate::{
    desk::{Desk, Rules},
    error::IssueError,
};

/// That whoever was authenticated is still who it was, under these rules: a process by its entry, and with the same
/// rights. When its entry ends then, in Unix seconds: what it is given lives no longer.
///
/// # Errors
/// [`IssueError::NotEntitled`], [`IssueError::ClientAuthentication`]: it is nobody any more;
/// [`IssueError::Uncertain`]: what it may do has changed, and what was verified for it was verified for the other.
pub(crate) fn check_again(desk: &Desk, rules: &Rules, caller: &Caller) -> Result<Option<u64>, IssueError> {
    let (client, ends_at_seconds) = match caller.attested.as_ref() {
        Some(attested) => {
            let entry = attested.entry.entry.as_deref().unwrap_or_default();
            let verified = verify_workload(desk, &attested.workload, entry, desk.clock.now_seconds())?;
            (verified.client, verified.ends_at_seconds)
        }
        None => {
            let gone = IssueError::ClientAuthentication("client_gone_meanwhile");
            (rules.clients.enabled(&caller.client.id).ok_or(gone)?, None)
        }
    };
    if client == caller.client {
        Ok(ends_at_seconds)
    } else {
        Err(IssueError::Uncertain("caller_changed_meanwhile"))
    }
}
