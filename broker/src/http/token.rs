//! `POST /token`: RFC 8693 token exchange, and `client_credentials` for a client's own listing token.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use deputize_issuer::{
    desk::Desk,
    error::IssueError,
    exchange::{Bearing, TokenAnswer, TokenRequest, exchange},
    mint::ToolCallToken,
};
use http::{StatusCode, header};
use std::sync::Arc;
use uuid::Uuid;

use super::{
    error::{self, Refusal},
    request::{Endpoint, FormRequest},
};

/// Answers `POST /token`.
pub async fn token(State(desk): State<Arc<Desk>>, request: FormRequest) -> Response {
    let decision_id = request.decision_id;
    match answer(&desk, &request).await {
        Ok(response) => response,
        Err(error) => Refusal { error, decision_id, issuer: desk.settings.issuer.clone() }.into_response(),
    }
}

async fn answer(desk: &Desk, request: &FormRequest) -> Result<Response, IssueError> {
    let counted = |error: IssueError| {
        desk.refusals.count(error.reason());
        error
    };
    let form = request.form().map_err(counted)?;
    let parsed = TokenRequest::parse(&form).map_err(counted)?;
    let presented = request.client(&form).map_err(counted)?;
    let shown = request.shown(desk, Endpoint::Token).map_err(counted)?;
    let bearing = Bearing { decision_id: request.decision_id, presented, shown };
    let token = exchange(desk, bearing, &parsed).await?;
    Ok(render(desk, request.decision_id, &token))
}

fn render(desk: &Desk, decision_id: Uuid, token: &ToolCallToken) -> Response {
    let mut response = error::json(StatusCode::OK, &TokenAnswer::of(token, decision_id));
    let headers = response.headers_mut();
    headers.insert(header::PRAGMA, http::HeaderValue::from_static("no-cache"));
    error::insert(headers, error::DPOP_NONCE, &desk.nonces.make(desk.clock.uptime()));
    error::insert(headers, error::DECISION_ID, &decision_id.to_string());
    response
}
