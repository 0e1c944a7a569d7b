//! The waist: every credential goes through these four stages, in this order, and through nothing else.

use crate::{
    decide::{Decide, Decision},
    desk::Desk,
    error::{DenialReason, IssueError},
    mint::{Mint, mint},
    record::{Recorded as _, abandon_record, close_record, open_record},
};
use uuid::Uuid;

/// Decides, records, mints and closes the record, whatever it is that is wanted.
///
/// # Errors
/// Whatever the decision refuses; [`IssueError::RecordUnavailable`] if the intent is not durable; what the mint could
/// not do.
pub async fn issue<A: Decide>(
    desk: &Desk,
    application: &A,
) -> Result<<A::Terms as Mint>::Credential, IssueError> {
    let grant = match application.decide(desk)? {
        Decision::Grant(grant) => grant,
        // There is nobody to wait for yet: until approvals are configured, waiting is a denial that says so.
        Decision::Wait(_) => return Err(IssueError::Denied(DenialReason::ApprovalRequired)),
    };
    let pending = Pending { desk, decision_id: grant.terms().decision_id() };
    let minted = match open_record(desk, grant).await {
        Ok(record) => Ok(mint(desk, record).await),
        Err(error) => Err(error),
    };
    pending.end();
    let (credential, outcome) = minted?;
    close_record(desk, &outcome);
    credential
}

/// An intent on its way, from before it is durable until its outcome is known. Dropped meanwhile, because the caller
/// went away, it closes the record: every intent has its outcome.
struct Pending<'d> {
    desk: &'d Desk,
    decision_id: Uuid,
}

impl Pending<'_> {
    fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        abandon_record(self.desk, self.decision_id);
    }
}
