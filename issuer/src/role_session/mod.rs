//! Door 3: a session of an AWS role, for the one call that a tool-call token is for.
//!
//! `parse → authenticate` is the door's; then [`verify_call`](verify_call::verify_call) and the waist,
//! [`issue`](crate::issue::issue). Whoever asks again for the same call gets what it got already.

mod sessions;
mod verify_call;

pub use sessions::RoleSessions;
pub(crate) use verify_call::VerifiedCall;

use deputize_call::{action::Action, claims::ToolCallClaims, digest::Digest, json::Object};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

use self::verify_call::verify_call;
use crate::{
    ask::Target,
    authenticate::Caller,
    decide::RoleApplication,
    desk::{AwsDoor, Desk},
    error::IssueError,
    issue::issue,
    mint::RoleCredentials,
    record::{Refused, record_denial, record_handed_out},
    redeem,
};

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
    /// The template's version.
    pub template_hash: Digest,
    /// The account of its role.
    pub account: String,
    /// The role.
    pub role_arn: String,
    /// `RoleSessionName`: the decision's id.
    pub session_name: String,
    /// `SourceIdentity`: the person.
    pub source_identity: String,
    /// When the credentials can do nothing any more, in Unix seconds; never later than STS lets them end.
    pub window_end_seconds: u64,
}

/// A role session for the call of a tool-call token: for the token's audience alone, with that call's arguments. Every
/// answer, yes or no, is on record when this returns, with the assertion that was used up for it.
///
/// # Errors
/// [`IssueError::SubjectToken`] where the token is none for this; [`IssueError::AuthorizationDetails`] where it is for
/// another call, or leaves it open; [`IssueError::NoSession`] where no template gives this call a session;
/// [`IssueError::Denied`] where a person would have to agree; [`IssueError::Sts`] where AWS gives none;
/// [`IssueError::RecordUnavailable`] and [`IssueError::Uncertain`] where nothing may be issued now.
pub async fn role_session(
    desk: &Desk,
    caller: &Caller,
    asked: &RoleAsk<'_>,
) -> Result<Arc<RoleSession>, IssueError> {
    // A token that has expired may get again what it got, until its window ends.
    let claims = redeem::claims_within(desk, asked.token, redeem::WINDOW_SECONDS);
    let given = match &claims {
        Some(claims) => give(desk, caller, asked, claims).await,
        None => Err(NotGiven::Refused(token("token_not_active"))),
    };
    let refusal = match given {
        Ok(session) => return Ok(session),
        Err(NotGiven::OnRecord(failure)) => return Err(failure),
        Err(NotGiven::Refused(refusal)) => refusal,
    };
    let target = claims.as_ref().and_then(target);
    let refused = Refused {
        caller: Some(caller),
        sub: claims.as_ref().map(|claims| claims.sub.as_str()),
        bearer: claims.as_ref().and_then(|claims| claims.bearer.as_ref()),
        resource: claims.as_ref().map(|claims| claims.aud.as_str()),
        target: target.as_ref(),
        jti: claims.as_ref().map(|claims| claims.jti.as_str()),
    };
    record_denial(desk, caller.decision_id(), refused, &refusal).await?;
    Err(refusal)
}

/// Why nothing was given.
enum NotGiven {
    /// That it is refused is still to be recorded.
    Refused(IssueError),
    /// There is an intent, and its outcome says what failed.
    OnRecord(IssueError),
}

impl From<IssueError> for NotGiven {
    fn from(error: IssueError) -> Self {
        Self::Refused(error)
    }
}

async fn give(
    desk: &Desk,
    caller: &Caller,
    asked: &RoleAsk<'_>,
    claims: &ToolCallClaims,
) -> Result<Arc<RoleSession>, NotGiven> {
    let door = desk.aws.as_ref().ok_or(IssueError::Internal("no_door_to_aws"))?;
    if !desk.clock_watch.agrees(desk.clock.as_ref()) {
        // Set back, the wall clock would open windows again.
        return Err(IssueError::Uncertain("clocks_disagree").into());
    }
    let call = verify_call(desk, caller, asked, claims)?;
    let application = RoleApplication { caller, call: &call, template: asked.template };
    let session = one_session(desk, door, &application).await?;
    // Revoked while others were asked or waited for: whoever got it first has it, but nobody gets it from now on.
    if desk.is_revoked(claims) {
        return Err(token("subject_token_revoked").into());
    }
    Ok(session)
}

/// The session that the token got already, or a new one: one question to STS, however many ask at once.
async fn one_session(
    desk: &Desk,
    door: &AwsDoor,
    application: &RoleApplication<'_>,
) -> Result<Arc<RoleSession>, NotGiven> {
    let (caller, claims) = (application.caller, application.call.claims());
    // A call that no template is for takes no place from those that can have a session.
    if !desk.rules.load().templates.any_for(&claims.aud, application.call.tool()) {
        return Err(IssueError::NoSession { reason: "no_template", detail: String::new() }.into());
    }
    let flight = door.sessions.flight(&caller.client().id, claims, desk.clock.now_seconds())?;
    let mut held = flight.lock().await;
    if let Some(answer) = held.answer(desk, claims, application.template) {
        let session = answer?;
        let again = (session.decision_id, held.count_again());
        drop(held);
        record_handed_out(desk, caller, claims, again).await.map_err(NotGiven::OnRecord)?;
        return Ok(session);
    }
    let issued = issue(desk, application).await;
    held.keep(issued, desk.clock.uptime()).map_err(|error| match error {
        IssueError::Sts(_) => NotGiven::OnRecord(error),
        error => NotGiven::Refused(error),
    })
}

fn target(claims: &ToolCallClaims) -> Option<Target> {
    let [detail] = &claims.authorization_details;
    let action = detail.actions.first().and_then(|action| Action::from_method(action))?;
    Some(Target { action, name: detail.identifier.clone()? })
}

fn token(reason: &'static str) -> IssueError {
    IssueError::SubjectToken { reason, detail: String::new() }
}

impl std::fmt::Debug for RoleAsk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleAsk").field("template", &self.template).finish_non_exhaustive()
    }
}
