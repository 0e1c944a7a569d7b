//! A session of an AWS role, for the one call that a tool-call token is for.

use deputize_call::json::Object;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

use crate::{authenticate::Caller, desk::Desk, error::IssueError, mint::RoleCredentials};

/// What a server asks for: AWS credentials for the call that it was called with.
#[derive(Clone, Copy)]
pub struct RoleAsk<'a> {
    /// The tool-call token that the server was called with.
    pub token: &'a str,
    /// The call's arguments.
    pub arguments: &'a Object,
    /// Its `inputResponses`, where it is a retry that has them.
    pub input_responses: Option<&'a Value>,
    /// Its `requestState`, likewise.
    pub request_state: Option<&'a Value>,
    /// Name of the template, where the server says which it expects.
    pub template: Option<&'a str>,
}

/// A session that was given out.
#[derive(Debug)]
pub struct RoleSession {
    /// Its credentials.
    pub credentials: RoleCredentials,
    /// The decision that led to it: where it is given out again, still that of the first time.
    pub decision_id: Uuid,
    /// The template.
    pub template: String,
    /// The account of its role.
    pub account: String,
    /// The role.
    pub role_arn: String,
    /// `RoleSessionName`: the decision's id.
    pub session_name: String,
    /// `SourceIdentity`: the person.
    pub source_identity: String,
    /// When the credentials can do nothing any more, in Unix seconds.
    pub window_end_seconds: u64,
}

/// Sessions that were given out, while their windows last, and those that are being asked for.
#[derive(Debug, Default)]
pub struct RoleSessions {}

/// A role session for the call of a tool-call token: for the token's audience alone, with that call's arguments.
///
/// # Errors
/// [`IssueError::SubjectToken`] where the token is none for this; [`IssueError::NoSession`] where no template gives
/// this call a session; [`IssueError::Denied`] where a person would have to agree; [`IssueError::Sts`] where AWS gives
/// none; [`IssueError::RecordUnavailable`] and [`IssueError::Uncertain`] where nothing may be issued now.
pub async fn role_session(
    desk: &Desk,
    caller: &Caller,
    asked: &RoleAsk<'_>,
) -> Result<Arc<RoleSession>, IssueError> {
    let _ = (desk, caller, asked);
    Err(IssueError::Internal("role_sessions_not_there_yet"))
}

impl std::fmt::Debug for RoleAsk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleAsk").field("template", &self.template).finish_non_exhaustive()
    }
}
