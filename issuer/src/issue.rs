//! The waist: every credential goes through these four stages, in this order, and through nothing else.

use crate::{
    decide::{Application, Decision, decide},
    desk::Desk,
    error::{DenialReason, IssueError},
    mint::{ToolCallToken, mint},
    record::{abandon_record, close_record, open_record},
};
use uuid::Uuid;

/// Decides, records, mints and closes the record.
///
/// # Errors
/// Whatever [`decide`] refuses; [`IssueError::RecordUnavailable`] if the intent is not durable.
pub async fn issue(desk: &Desk, application: &Application<'_>) -> Result<ToolCallToken, IssueError> {
    let grant = match decide(desk, application)? {
        Decision::Grant(grant) => grant,
        // There is nobody to wait for yet: until approvals are configured, waiting is a denial that says so.
        Decision::Wait(_) => return Err(IssueError::Denied(DenialReason::ApprovalRequired)),
    };
    let waiting = Waiting { desk, decision_id: application.decision_id };
    let record = open_record(desk, grant).await;
    waiting.end();
    let record = record?;
    let (token, outcome) = mint(&desk.keys, record);
    close_record(desk, &outcome);
    token.ok_or(IssueError::Internal("signing_failed"))
}

/// Waits for the intent to become durable. Dropped meanwhile, because the caller went away, it closes the record:
/// every intent has its outcome.
struct Waiting<'d> {
    desk: &'d Desk,
    decision_id: Uuid,
}

impl Waiting<'_> {
    fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        abandon_record(self.desk, self.decision_id);
    }
}
