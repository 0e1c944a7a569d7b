//! `POST /aws/credentials`: AWS credentials for the one resource in a call, for the server that was called.
//! The handler is the line itself: parse, authenticate, the role session, render.

use axum::{
    extract::{FromRef, State},
    response::{IntoResponse, Response},
};
use deputize_call::json::{self, MAX_DEPTH, Object};
use deputize_issuer::{
    authenticate::{Caller, authenticate},
    client::EncryptionKey,
    desk::Desk,
    error::IssueError,
    role_session::{RoleAsk, RoleSession, role_session},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    error::{self, Refusal},
    form::Form,
    lifecycle::to_its_end,
    request::FormRequest,
};
use crate::moment;

/// What the path needs.
#[derive(Clone)]
pub struct AwsCredentials {
    /// The desk.
    pub desk: Arc<Desk>,
    /// Seals answers.
    pub seal: Arc<dyn SealAnswer>,
}

/// Seals an answer to a client's key (JWE compact serialization, RFC 7516 §7.1).
pub trait SealAnswer: Send + Sync {
    /// The sealed form of this JSON text.
    ///
    /// # Errors
    /// [`CannotSeal`]: nothing may go out then.
    fn seal(&self, key: &EncryptionKey, content: &[u8]) -> Result<String, CannotSeal>;
}

/// An answer that cannot be sealed; the log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be sealed")]
pub struct CannotSeal;

/// Answers `POST /aws/credentials`.
pub async fn credentials(State(door): State<AwsCredentials>, request: FormRequest) -> Response {
    // Once AWS was asked, what it gave is recorded and kept for who asks again, though the caller went away.
    to_its_end(async move {
        answer(&door, &request).await.unwrap_or_else(|error| {
            let (decision_id, issuer) = (request.decision_id, door.desk.settings.issuer.clone());
            Refusal { error, decision_id, issuer }.into_response()
        })
    })
    .await
}

async fn answer(door: &AwsCredentials, request: &FormRequest) -> Result<Response, IssueError> {
    let desk = &door.desk;
    let counted = |error: IssueError| {
        desk.refusals.count(error.reason());
        error
    };
    let form = request.form().map_err(counted)?;
    let parsed = Parsed::of(&form).map_err(counted)?;
    let presented = request.client(&form).map_err(counted)?;
    let caller = authenticate(desk, request.decision_id, presented, request.certificate_alone()).await?;
    let session = role_session(desk, &caller, &parsed.ask()).await?;
    render(&*door.seal, &caller, &session)
}

/// A request in words of ours.
struct Parsed<'f> {
    token: &'f str,
    arguments: Object,
    input_responses: Option<Value>,
    request_state: Option<Value>,
    template: Option<&'f str>,
}

impl<'f> Parsed<'f> {
    fn of(form: &'f Form<'_>) -> Result<Self, IssueError> {
        let token = form.require("subject_token", "subject_token_missing")?;
        if form.require("subject_token_type", "subject_token_type_missing")? != TYPE_ACCESS_TOKEN {
            return Err(IssueError::Request("token_type_unsupported"));
        }
        // As strictly as a guard: what two readers could read differently has no one digest.
        let arguments = json::parse_object(form.require("arguments", "arguments_missing")?.as_bytes())
            .map_err(|_| IssueError::Request("arguments_malformed"))?;
        let value = |name, malformed| {
            let parsed = form.get(name).map(|text| json::parse_value(text.as_bytes(), MAX_DEPTH));
            parsed.transpose().map_err(|_| IssueError::Request(malformed))
        };
        Ok(Self {
            token,
            arguments,
            input_responses: value("input_responses", "input_responses_malformed")?,
            request_state: value("request_state", "request_state_malformed")?,
            template: form.get("template"),
        })
    }

    fn ask(&self) -> RoleAsk<'_> {
        RoleAsk {
            token: self.token,
            arguments: &self.arguments,
            input_responses: self.input_responses.as_ref(),
            request_state: self.request_state.as_ref(),
            template: self.template,
        }
    }
}

/// The shape of a `credential_process` (AWS SDKs and Tools Reference Guide, "Process credential provider").
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'s> {
    version: u8,
    access_key_id: &'s str,
    secret_access_key: &'s str,
    session_token: &'s str,
    /// The end of the window: STS lets the credentials live longer, but they can do nothing after it.
    expiration: String,
    account_id: &'s str,
    #[serde(rename = "decision_id")]
    decision_id: Uuid,
}

fn render(seal: &dyn SealAnswer, caller: &Caller, session: &RoleSession) -> Result<Response, IssueError> {
    let credentials = &session.credentials;
    let answer = Answer {
        version: 1,
        access_key_id: &credentials.access_key_id,
        secret_access_key: credentials.secret_access_key.expose(),
        session_token: credentials.session_token.expose(),
        expiration: moment::format_seconds(session.window_end_seconds.min(credentials.expires_at_seconds)),
        account_id: &session.account,
        decision_id: session.decision_id,
    };
    let mut response = match &caller.client().encryption_key {
        None => error::json(StatusCode::OK, &answer),
        Some(key) => {
            let text = serde_json::to_vec(&answer).map(Zeroizing::new);
            let text = text.map_err(|_| IssueError::Internal("answer_not_written"))?;
            // INVARIANT: to a client with a key for it nothing goes out that is not sealed.
            let sealed = seal.seal(key, &text).map_err(|_| IssueError::Internal("answer_not_sealed"))?;
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/jose")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (StatusCode::OK, headers, sealed).into_response()
        }
    };
    error::insert(response.headers_mut(), error::DECISION_ID, &session.decision_id.to_string());
    Ok(response)
}

impl FromRef<AwsCredentials> for Arc<Desk> {
    fn from_ref(door: &AwsCredentials) -> Self {
        Self::clone(&door.desk)
    }
}

const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
