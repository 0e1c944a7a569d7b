//! A tool-call token, from the parameters that ask for it to the members of the answer: the line of RFC 8693 token
//! exchange, and of `client_credentials` for a client's own listing token, whatever carries them.
//!
//! A door reads its protocol, says who calls and which proof came along, and writes what comes of it; nothing of what
//! is asked, decided or answered differs between doors.

mod answer;
mod parameters;

pub use answer::{TokenAnswer, token_type};
pub use parameters::{Parameters, TOKEN_EXCHANGE, TokenRequest, check_value};

use uuid::Uuid;

use crate::{
    authenticate::{Possession, Presented, authenticate},
    decide::Application,
    desk::Desk,
    error::IssueError,
    issue::issue,
    mint::ToolCallToken,
    record::{Refused, record_denial},
    verify_subject::{Subject, verify_subject},
};

/// Who brings a request, as its door found it.
#[derive(Debug, Clone, Copy)]
pub struct Bearing<'a> {
    /// Id of the decision, made at the door.
    pub decision_id: Uuid,
    /// How the caller says who it is.
    pub presented: Presented<'a>,
    /// What it has shown to have the key of.
    pub shown: Possession<'a>,
}

/// Authenticates, verifies for whom, and issues. Every answer, yes or no, is on record when this returns, or counted.
///
/// # Errors
/// Whatever a stage refuses: [`authenticate`], [`verify_subject`], [`issue`].
pub async fn exchange(
    desk: &Desk,
    bearing: Bearing<'_>,
    request: &TokenRequest<'_>,
) -> Result<ToolCallToken, IssueError> {
    let Bearing { decision_id, presented, shown } = bearing;
    let caller = authenticate(desk, decision_id, presented, shown).await?;
    let ask = &request.ask;
    let mut refused = Refused {
        caller: Some(&caller),
        sub: None,
        bearer: None,
        resource: Some(ask.resource.as_str()),
        target: ask.call.target(),
        jti: None,
    };
    let subject = match &request.subject {
        // There is nothing that a token could be bound to.
        _ if caller.confirmation().is_none() => Err(IssueError::Proof("proof_missing")),
        None => Ok(None),
        Some(presented) => verify_subject(desk, &caller, presented).await.map(Some),
    };
    let issued = match &subject {
        Ok(subject) => {
            refused.sub = subject.as_ref().map(|subject| subject.person().sub.as_str());
            refused.bearer = subject.as_ref().and_then(Subject::bearer);
            issue(desk, &Application { decision_id, caller: &caller, subject: subject.as_ref(), ask }).await
        }
        Err(error) => Err(error.clone()),
    };
    match issued {
        Ok(token) => {
            metrics::counter!("deputize_tokens_minted_total").increment(1);
            Ok(token)
        }
        Err(error) => {
            record_denial(desk, decision_id, refused, &error).await?;
            Err(error)
        }
    }
}
