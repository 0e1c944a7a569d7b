//! The waist: every credential goes through these four stages, in this order, and through nothing else.

use crate::{
    decide::{Application, Decision, decide},
    desk::Desk,
    error::{DenialReason, IssueError},
    mint::{ToolCallToken, mint},
    record::{close_record, open_record},
};

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
    let record = open_record(desk, grant).await?;
    let (token, outcome) = mint(&desk.keys, record);
    close_record(desk, &outcome);
    token.ok_or(IssueError::Internal("signing_failed"))
}
