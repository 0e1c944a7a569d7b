//! What happens to tokens later: `POST /introspect` (RFC 7662), `POST /revoke` (RFC 7009), `POST /redeem`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use deputize_issuer::{
    authenticate::{Caller, authenticate},
    desk::Desk,
    error::IssueError,
    exchange::token_type,
    redeem::{self, Redeemed},
};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;

use super::{
    error::{self, DoorError, Refusal},
    request::FormRequest,
};

/// Answers `POST /introspect`: the claims of a live token to its client and to its audience; to anyone else, and of
/// any other token, only `{"active": false}`.
pub async fn introspect(State(desk): State<Arc<Desk>>, request: FormRequest) -> Response {
    answer(&desk, &request, async |caller, token| {
        let claims = redeem::introspect(&desk, caller, token).await?;
        let token_type = claims.as_ref().map(|claims| token_type(&claims.cnf));
        Ok(match claims.map(serde_json::to_value) {
            Some(Ok(serde_json::Value::Object(mut claims))) => {
                claims.insert("active".to_owned(), true.into());
                claims.insert("token_type".to_owned(), token_type.into());
                error::json(StatusCode::OK, &claims)
            }
            Some(_) | None => error::json(StatusCode::OK, &json!({ "active": false })),
        })
    })
    .await
}

/// Answers `POST /revoke`: 200 whether there was something to revoke or not (RFC 7009 §2.2).
pub async fn revoke(State(desk): State<Arc<Desk>>, request: FormRequest) -> Response {
    to_its_end(async move {
        answer(&desk, &request, async |caller, token| {
            redeem::revoke(&desk, caller, token).await?;
            Ok(error::json(StatusCode::OK, &json!({})))
        })
        .await
    })
    .await
}

/// Answers `POST /redeem`: whether this use of an L3 token is its first. For the guard of its audience alone.
pub async fn redeem(State(desk): State<Arc<Desk>>, request: FormRequest) -> Response {
    to_its_end(async move {
        answer(&desk, &request, async |caller, token| {
            let redeemed = redeem::redeem(&desk, caller, token).await?;
            Ok(error::json(
                StatusCode::OK,
                &match redeemed {
                    Redeemed::Yes => json!({ "redeemed": true }),
                    Redeemed::AlreadyUsed => json!({ "redeemed": false, "reason": "already_used" }),
                    Redeemed::No(reason) => json!({ "redeemed": false, "reason": reason }),
                },
            ))
        })
        .await
    })
    .await
}

/// Runs what must not stop halfway when the caller disconnects: the handler is dropped then, this work is not.
pub(super) async fn to_its_end(work: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(work).await.unwrap_or_else(|_| DoorError::Unavailable.into_response())
}

/// Authenticates the client and hands over the `token` parameter.
async fn answer<F>(desk: &Desk, request: &FormRequest, act: F) -> Response
where
    F: AsyncFnOnce(&Caller, &str) -> Result<Response, IssueError>,
{
    let answered = async {
        let counted = |error: IssueError| {
            desk.refusals.count(error.reason());
            error
        };
        let form = request.form().map_err(counted)?;
        let token = form.require("token", "token_missing").map_err(counted)?;
        let presented = request.client(&form).map_err(counted)?;
        let caller = authenticate(desk, request.decision_id, presented, request.certificate_alone()).await?;
        act(&caller, token).await
    };
    answered.await.unwrap_or_else(|error| {
        Refusal { error, decision_id: request.decision_id, issuer: desk.settings.issuer.clone() }
            .into_response()
    })
}
