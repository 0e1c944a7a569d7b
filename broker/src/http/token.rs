//! `POST /token`: RFC 8693 token exchange, and `client_credentials` for a client's own listing token.
//! The handler is the line itself: parse, authenticate, verify the subject, issue, render.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use deputize_issuer::{
    ask::{Ask, CallAsk, Claimed, ResourceUri, ScopeSet},
    authenticate::authenticate,
    decide::Application,
    desk::Desk,
    error::IssueError,
    issue::issue,
    mint::ToolCallToken,
    provider::SubjectTokenType,
    record::{Refused, record_denial},
    verify_subject::{PresentedSubject, Subject, verify_subject},
};
use http::{StatusCode, header};
use oauth2::{AccessToken, ExtraTokenFields, Scope, StandardTokenResponse, basic::BasicTokenType};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

use super::{
    error::{self, Refusal},
    form::Form,
    request::{Endpoint, FormRequest},
};

/// Answers `POST /token`.
pub async fn token(State(desk): State<Arc<Desk>>, request: FormRequest) -> Response {
    let decision_id = request.decision_id;
    match exchange(&desk, &request).await {
        Ok(response) => response,
        Err(error) => Refusal { error, decision_id, issuer: desk.settings.issuer.clone() }.into_response(),
    }
}

async fn exchange(desk: &Desk, request: &FormRequest) -> Result<Response, IssueError> {
    let counted = |error: IssueError| {
        desk.refusals.count(error.reason());
        error
    };
    let form = request.form().map_err(counted)?;
    let parsed = parse(&form).map_err(counted)?;
    let presented = request.client(&form).map_err(counted)?;
    let proof = request.proof(desk, Endpoint::Token).map_err(counted)?;
    let caller = authenticate(desk, request.decision_id, presented, Some(proof)).await?;

    let mut refused = Refused {
        caller: Some(&caller),
        sub: None,
        bearer: None,
        resource: Some(parsed.ask.resource.as_str()),
        target: parsed.ask.call.target(),
        jti: None,
    };
    let subject = match &parsed.subject {
        None => Ok(None),
        Some(presented) => verify_subject(desk, &caller, presented).await.map(Some),
    };
    let issued = match &subject {
        Ok(subject) => {
            refused.sub = subject.as_ref().map(|subject| subject.person().sub.as_str());
            refused.bearer = subject.as_ref().and_then(Subject::bearer);
            let application = Application {
                decision_id: request.decision_id,
                caller: &caller,
                subject: subject.as_ref(),
                ask: &parsed.ask,
            };
            issue(desk, &application).await
        }
        Err(error) => Err(error.clone()),
    };
    match issued {
        Ok(token) => Ok(render(desk, request.decision_id, &token)),
        Err(error) => {
            record_denial(desk, request.decision_id, refused, &error).await?;
            Err(error)
        }
    }
}

/// A request in words of ours.
struct Parsed<'f> {
    subject: Option<PresentedSubject<'f>>,
    ask: Ask,
}

fn parse<'f>(form: &'f Form<'_>) -> Result<Parsed<'f>, IssueError> {
    let subject = match form.require("grant_type", "grant_type_missing")? {
        TOKEN_EXCHANGE => Some(presented_subject(form)?),
        "client_credentials" => None,
        _ => return Err(IssueError::GrantType),
    };
    if form.get("requested_token_type").is_some_and(|kind| kind != TYPE_ACCESS_TOKEN && kind != TYPE_JWT) {
        return Err(IssueError::Request("requested_token_type_unsupported"));
    }
    let resource = ResourceUri::parse(form.require("resource", "resource_missing")?)?;
    if form.get("audience").is_some_and(|audience| audience != resource.as_str()) {
        return Err(IssueError::Target("resource_and_audience_disagree"));
    }
    let call = CallAsk::parse(form.get("authorization_details"), &resource)?;
    Ok(Parsed {
        subject,
        ask: Ask {
            resource,
            scope: form.get("scope").map(ScopeSet::parse).transpose()?,
            call,
            transaction_id: form.get("transaction_id").map(str::to_owned),
            approval_id: form.get("approval_id").map(str::to_owned),
            claimed: Claimed {
                parent_request_id: claimed(form, "parent_request_id")?,
                host: claimed(form, "host")?,
                model: claimed(form, "model")?,
                workflow: claimed(form, "workflow")?,
                traceparent: claimed(form, "traceparent")?,
            },
        },
    })
}

fn presented_subject<'f>(form: &'f Form<'_>) -> Result<PresentedSubject<'f>, IssueError> {
    let token = form.require("subject_token", "subject_token_missing")?;
    let kind = token_type(form.require("subject_token_type", "subject_token_type_missing")?)?;
    let actor = match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => None,
        (Some(token), Some(kind)) => Some((token, token_type(kind)?)),
        // RFC 8693 §2.1: the type must come with the token, and must not come without.
        (Some(_), None) => return Err(IssueError::Request("actor_token_type_missing")),
        (None, Some(_)) => return Err(IssueError::Request("actor_token_missing")),
    };
    Ok(PresentedSubject { token, kind, actor })
}

fn token_type(uri: &str) -> Result<SubjectTokenType, IssueError> {
    match uri {
        TYPE_JWT => Ok(SubjectTokenType::Jwt),
        TYPE_ACCESS_TOKEN => Ok(SubjectTokenType::AccessToken),
        "urn:ietf:params:oauth:token-type:id_token" => Ok(SubjectTokenType::IdToken),
        _ => Err(IssueError::Request("token_type_unsupported")),
    }
}

fn claimed(form: &Form<'_>, name: &str) -> Result<Option<String>, IssueError> {
    match form.get(name) {
        Some(value) if value.len() > MAX_CLAIMED_BYTES => {
            Err(IssueError::Request("claimed_parameter_too_long"))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

/// Members of the answer beyond RFC 6749's.
#[derive(Debug, Serialize, Deserialize)]
struct Granted {
    issued_token_type: String,
    authorization_details: serde_json::Value,
    transaction_id: String,
    decision_id: Uuid,
}

impl ExtraTokenFields for Granted {}

fn render(desk: &Desk, decision_id: Uuid, token: &ToolCallToken) -> Response {
    let claims = &token.claims;
    let granted = Granted {
        issued_token_type: TYPE_ACCESS_TOKEN.to_owned(),
        authorization_details: serde_json::to_value(&claims.authorization_details).unwrap_or_default(),
        transaction_id: claims.txn.clone(),
        decision_id,
    };
    let mut answer = StandardTokenResponse::new(
        AccessToken::new(token.access_token.expose().clone()),
        BasicTokenType::Extension("DPoP".to_owned()),
        granted,
    );
    answer.set_expires_in(Some(&Duration::from_secs(claims.exp.saturating_sub(claims.iat))));
    answer.set_scopes(Some(vec![Scope::new(claims.scope.clone())]));
    let mut response = error::json(StatusCode::OK, &answer);
    let headers = response.headers_mut();
    headers.insert(header::PRAGMA, http::HeaderValue::from_static("no-cache"));
    error::insert(headers, error::DPOP_NONCE, &desk.nonces.make(desk.clock.uptime()));
    error::insert(headers, error::DECISION_ID, &decision_id.to_string());
    metrics::counter!("deputize_tokens_minted_total").increment(1);
    response
}

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const MAX_CLAIMED_BYTES: usize = 256;
