//! The one file that speaks HTTP's statuses: those of refusals, whose words are [`Words`], and of what the door itself
//! refuses, with its own.

use axum::response::{IntoResponse, Response};
use deputize_issuer::{error::IssueError, words::Words};
use http::{HeaderName, HeaderValue, StatusCode, header};
use oauth2::{StandardErrorResponse, basic::BasicErrorResponseType};
use serde::Serialize;
use std::borrow::Cow;
use uuid::Uuid;

use super::entries::BadOrder;

/// A refusal on its way out.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: IssueError,
    /// Under which id `explain` tells more.
    pub decision_id: Uuid,
    /// Our issuer URL, for `error_uri`.
    pub issuer: String,
}

/// Refusals of the door itself, before there is anything to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorError {
    /// No such path.
    NotFound,
    /// Not with this method; what is allowed.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// The body is not of the media type that this path takes.
    MediaType {
        /// What it takes.
        takes: &'static str,
    },
    /// The body did not come in time.
    Timeout,
    /// Too many requests from this address.
    RateLimited,
    /// Only administrators.
    Forbidden,
    /// Not now: starting or draining.
    Unavailable,
    /// An order of an administrator that cannot be carried out as it stands; what to do.
    Order(&'static str),
}

#[derive(Serialize)]
struct Body {
    #[serde(flatten)]
    standard: StandardErrorResponse<BasicErrorResponseType>,
    /// Absent only where the system gave no randomness for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr_values: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<u64>,
}

/// What a caller is told.
struct Told {
    status: StatusCode,
    code: &'static str,
    description: String,
    retry_after: Option<u64>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let words = Words::from(&self.error);
        let Words {
            code, description, reason, acr_values, max_age_seconds, retry_after_seconds, nonce, ..
        } = words;
        let uri = format!("{}/docs/errors/{code}", self.issuer);
        let code = BasicErrorResponseType::Extension(code.into_owned());
        let standard = StandardErrorResponse::new(code, Some(description), Some(uri));
        let body = Body {
            standard,
            decision_id: Some(self.decision_id),
            reason,
            acr_values,
            max_age: max_age_seconds,
        };
        let mut response = json(status(&self.error), &body);
        let headers = response.headers_mut();
        if let Some(nonce) = nonce {
            insert(headers, DPOP_NONCE, &nonce);
        }
        if matches!(self.error, IssueError::ClientAuthentication(_)) {
            // RFC 6749 §5.2 and RFC 9110 §11.6.1: a 401 names a scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("private_key_jwt"));
        }
        headers.extend(retry_after_seconds.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
        insert(headers, DECISION_ID, &self.decision_id.to_string());
        response
    }
}

/// The status of a refusal (RFC 6749 §5.2, RFC 9110 §15, RFC 6585 §4). What it says is [`Words`]'.
fn status(error: &IssueError) -> StatusCode {
    match error {
        IssueError::Request(_)
        | IssueError::GrantType
        | IssueError::SubjectToken { .. }
        | IssueError::Proof(_)
        | IssueError::NonceNeeded { .. }
        | IssueError::Target(_)
        | IssueError::Scope(_)
        | IssueError::AuthorizationDetails { .. }
        | IssueError::LevelTooLow { .. }
        | IssueError::Denied(_)
        | IssueError::UserAuthentication { .. }
        | IssueError::NoSession { .. }
        | IssueError::NotEntitled(_) => StatusCode::BAD_REQUEST,
        IssueError::ClientAuthentication(_) => StatusCode::UNAUTHORIZED,
        IssueError::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        IssueError::RecordUnavailable(_) | IssueError::Uncertain(_) | IssueError::UpstreamUnavailable(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // What AWS refuses is for who configures role, trust policy and template, not for who called.
        IssueError::Sts(refusal) if refusal.may_pass() => StatusCode::SERVICE_UNAVAILABLE,
        IssueError::Sts(_) => StatusCode::BAD_GATEWAY,
        IssueError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn bad(code: &'static str, description: impl Into<String>) -> Told {
    Told { status: StatusCode::BAD_REQUEST, code, description: description.into(), retry_after: None }
}

fn unavailable(description: &str) -> Told {
    let told = bad("temporarily_unavailable", description);
    Told { status: StatusCode::SERVICE_UNAVAILABLE, retry_after: Some(1), ..told }
}

impl DoorError {
    fn told(self) -> Told {
        let (status, code, description) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "there is nothing at this path"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "this path does not answer this method")
            }
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large for this path")
            }
            Self::MediaType { takes } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", takes),
            Self::Timeout => {
                (StatusCode::REQUEST_TIMEOUT, "invalid_request", "the body did not come in time")
            }
            Self::RateLimited => (
                StatusCode::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "too many requests from this address",
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "access_denied", "for administrators alone"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "not ready"),
            Self::Order(hint) => (StatusCode::BAD_REQUEST, "invalid_request", hint),
        };
        let retry_after = matches!(self, Self::RateLimited | Self::Unavailable).then_some(1);
        Told { status, code, description: description.to_owned(), retry_after }
    }
}

impl IntoResponse for DoorError {
    /// Its status; the outermost layer, which knows the request's id, adds the words ([`in_words`]).
    fn into_response(self) -> Response {
        let mut response = self.told().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A refusal of the door with its body: as any other refusal, it has an id to refer to. `bare` is its answer so far,
/// whose headers are kept (`Allow` of a 405, RFC 9110 §15.5.6).
pub fn in_words(refusal: DoorError, bare: Response, issuer: &str, decision_id: Option<Uuid>) -> Response {
    let mut response = spelled_out(refusal.told(), issuer, decision_id);
    let allow = bare.headers().get(header::ALLOW).cloned();
    response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    response
}

fn spelled_out(told: Told, issuer: &str, decision_id: Option<Uuid>) -> Response {
    let uri = format!("{issuer}/docs/errors/{}", told.code);
    let code = BasicErrorResponseType::Extension(told.code.to_owned());
    let standard = StandardErrorResponse::new(code, Some(told.description), Some(uri));
    let body = Body { standard, decision_id, reason: None, acr_values: None, max_age: None };
    let mut response = json(told.status, &body);
    let headers = response.headers_mut();
    headers.extend(told.retry_after.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
    if let Some(id) = decision_id {
        insert(headers, DECISION_ID, &id.to_string());
    }
    response
}

/// Tells an administrator what is wrong, in full. For the local socket alone: nobody else is told so much.
pub fn bad_order(order: BadOrder, issuer: &str, decision_id: Uuid) -> Response {
    let told = match order {
        BadOrder::Invalid(said) => bad("invalid_request", said),
        BadOrder::Unknown(said) => Told { status: StatusCode::NOT_FOUND, ..bad("not_found", said) },
        BadOrder::Conflict(said) => Told { status: StatusCode::CONFLICT, ..bad("invalid_request", said) },
        BadOrder::Unavailable(said) => unavailable(&said),
    };
    spelled_out(told, issuer, Some(decision_id))
}

/// What `error_uri` leads to: what a code means, and what to do.
pub fn explanation(code: &str) -> Option<String> {
    let (_, meaning, remedy) = EXPLANATIONS.iter().find(|(known, _, _)| *known == code)?;
    Some(format!("{code}\n\nWhat it means: {meaning}\nWhat to do: {remedy}\n"))
}

/// A JSON answer that nobody stores.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, bytes).into_response()
}

/// Puts a header in if its value is one.
pub fn insert(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// RFC 9449 §8.
pub const DPOP_NONCE: &str = "dpop-nonce";
/// Names the decision in every answer that has one.
pub const DECISION_ID: &str = "deputize-decision-id";
/// Code, meaning, remedy.
const EXPLANATIONS: [(&str, &str, &str); 13] = [
    (
        "invalid_request",
        "A parameter is missing, empty, repeated or contradicts another; or the subject or actor token is not acceptable from this client.",
        "Check the parameters against /openapi.json. For a subject token: `deputize doctor --token FILE` says why it is refused.",
    ),
    (
        "unsupported_grant_type",
        "The grant_type is none that this endpoint knows (RFC 6749 §5.2).",
        "Send urn:ietf:params:oauth:grant-type:token-exchange, or client_credentials; metadata lists them as grant_types_supported.",
    ),
    (
        "invalid_client",
        "The client is unknown, disabled, or did not prove who it is.",
        "Sign a fresh assertion: aud is the issuer URL as a single string, at most five minutes, a new jti.",
    ),
    (
        "invalid_target",
        "The server is unknown, disabled, of another tenant, or not reachable from here.",
        "Ask for a registered resource URI, exactly as registered; at a next hop only what the calling tool lists as downstream.",
    ),
    (
        "invalid_scope",
        "The scope is malformed or wider than the tool.",
        "Leave it out, or send the tool's name.",
    ),
    (
        "invalid_authorization_details",
        "The call cannot be granted as it stands.",
        "The description names the member. High-risk tools need exact arguments (L3). AWS credentials are for the very call of the token, with exactly its arguments.",
    ),
    (
        "invalid_dpop_proof",
        "The proof of possession does not verify, or was used before.",
        "Make a new proof: htm POST, htu the token endpoint, a new jti, the last nonce.",
    ),
    (
        "use_dpop_nonce",
        "A proof needs a fresh nonce.",
        "Repeat with the nonce of the DPoP-Nonce header; the same client assertion may be sent again.",
    ),
    (
        "access_denied",
        "Policy or a person said no; or no AWS role template gives this call credentials.",
        "`deputize explain DECISION_ID` tells an operator the whole story; `deputize can-i` tries it without consequences.",
    ),
    (
        "insufficient_user_authentication",
        "The user's sign-in is too weak or too old for this tool.",
        "Send the user through sign-in again with the acr_values and max_age of the answer (RFC 9470).",
    ),
    (
        "temporarily_unavailable",
        "A rate is exceeded, the record is not durable, or a once-only question has no certain answer.",
        "Wait as Retry-After says and repeat with a new assertion and proof.",
    ),
    ("not_found", "There is nothing at this path.", "See /.well-known/oauth-authorization-server."),
    (
        "server_error",
        "A fault of the broker, or AWS refused the role session (502).",
        "An operator finds it by the decision_id: `deputize explain` says what AWS answered. Nothing was issued.",
    ),
];
