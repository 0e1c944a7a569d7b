//! What every POST of the public door has in common: a bounded form, the client's credentials, a proof.

use axum::{
    body::Body,
    extract::{FromRef, FromRequest},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use deputize_issuer::{
    authenticate::{Possession, Presented, PresentedProof},
    certificate::PresentedCertificate,
    desk::Desk,
    error::IssueError,
};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Limited};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{error::DoorError, form::Form, source::RequestId};

/// A POST with a form, received whole.
#[derive(Debug)]
pub struct FormRequest {
    /// Id of whatever is decided.
    pub decision_id: Uuid,
    headers: HeaderMap,
    has_query: bool,
    body: Bytes,
    certificate: Option<Arc<PresentedCertificate>>,
}

/// The endpoint that a proof must be for.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint {
    /// `/token`.
    Token,
}

impl<S> FromRequest<S> for FormRequest
where
    S: Send + Sync,
    Arc<Desk>: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Response> {
        let desk = Arc::<Desk>::from_ref(state);
        receive(request).await.map_err(|error| {
            desk.refusals.count(error.reason());
            error.into_response()
        })
    }
}

async fn receive(request: Request<Body>) -> Result<FormRequest, DoorError> {
    let (parts, body) = request.into_parts();
    if !is_form(&parts.headers) {
        return Err(DoorError::MediaType {
            takes: "the body must be application/x-www-form-urlencoded in UTF-8",
        });
    }
    let RequestId(decision_id) = *parts.extensions.get::<RequestId>().ok_or(DoorError::Unavailable)?;
    // Bounds what bodies on their way may hold: [`BODIES`] times [`MAX_BODY_BYTES`].
    let _place = BODIES.try_acquire().map_err(|_| DoorError::Unavailable)?;
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body = collected.map_err(|_| DoorError::Timeout)?.map_err(|_| DoorError::TooLarge)?.to_bytes();
    let has_query = parts.uri.query().is_some();
    let certificate = parts.extensions.get().cloned();
    Ok(FormRequest { decision_id, headers: parts.headers, has_query, body, certificate })
}

/// Exactly one `Content-Type`, of a form, in UTF-8 if it says so.
fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|value| value.to_str().ok()), values.next()) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let is_form =
        parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    is_form && parts.all(|parameter| parameter.eq_ignore_ascii_case("charset=utf-8"))
}

impl FormRequest {
    /// The parameters.
    ///
    /// # Errors
    /// [`IssueError::Request`]: see [`Form::parse`]; also if there are parameters in the query.
    pub fn form(&self) -> Result<Form<'_>, IssueError> {
        if self.has_query {
            return Err(IssueError::Request("parameters_in_query"));
        }
        Form::parse(&self.body)
    }

    /// How the client says who it is: exactly one way (RFC 6749 §2.3).
    ///
    /// # Errors
    /// [`IssueError::ClientAuthentication`].
    pub fn client<'f>(&'f self, form: &'f Form<'_>) -> Result<Presented<'f>, IssueError> {
        let refuse = IssueError::ClientAuthentication;
        if self.headers.contains_key(header::AUTHORIZATION) {
            return Err(refuse("authorization_header_not_supported"));
        }
        let client_id = form.get("client_id");
        match (form.get("client_assertion"), form.get("client_assertion_type"), form.get("client_secret")) {
            (Some(assertion), Some(ASSERTION_TYPE), None) => {
                Ok(Presented::Assertion { assertion, client_id })
            }
            (Some(assertion), Some(SVID_TYPE), None) => Ok(Presented::Svid { assertion, client_id }),
            (Some(_), Some(_), Some(_)) | (Some(_), None, Some(_)) => {
                Err(refuse("two_authentication_methods"))
            }
            (Some(_), _, None) => Err(refuse("client_assertion_type")),
            (None, Some(_), _) => Err(refuse("client_assertion_missing")),
            (None, None, Some(secret)) => {
                Ok(Presented::Secret { client_id: client_id.ok_or(refuse("client_id_missing"))?, secret })
            }
            (None, None, None) => match &self.certificate {
                Some(certificate) => Ok(Presented::Certificate { client_id, certificate }),
                None => Err(refuse("client_authentication_missing")),
            },
        }
    }

    /// What the client has the key of, and what it is given will be bound to: that of the one DPoP proof (RFC 9449 §4.3,
    /// check 1), for an endpoint by its *configured* URL, or else that of its TLS certificate (RFC 8705 §3), which is for
    /// those alone who authenticate by it: the stage that knows says so.
    ///
    /// # Errors
    /// [`IssueError::Proof`]: there is neither, or something is wrong with the proof.
    pub fn shown<'r>(&'r self, desk: &'r Desk, endpoint: Endpoint) -> Result<Possession<'r>, IssueError> {
        let certificate = self.certificate.as_deref();
        let mut values = self.headers.get_all("dpop").iter();
        let header = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map_err(|_| IssueError::Proof("proof_malformed"))?,
            (None, _) if certificate.is_some() => return Ok(self.certificate_alone()),
            (None, _) => return Err(IssueError::Proof("proof_missing")),
            (Some(_), Some(_)) => return Err(IssueError::Proof("proof_repeated")),
        };
        let htu = match endpoint {
            Endpoint::Token => &desk.settings.token_endpoint,
        };
        Ok(Possession { proof: Some(PresentedProof { header, htu }), certificate })
    }

    /// The same where no proof is asked for.
    pub fn certificate_alone(&self) -> Possession<'_> {
        Possession { proof: None, certificate: self.certificate.as_deref() }
    }
}

impl DoorError {
    /// The constant word under which this refusal is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "body_too_large",
            Self::MediaType { .. } => "media_type",
            Self::Timeout => "body_timeout",
            Self::RateLimited => "source_rate_limited",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::Order(_) => "order_malformed",
        }
    }
}

/// RFC 7523 §2.2.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A JWT-SVID (draft-ietf-oauth-spiffe-client-auth §4.1).
pub const SVID_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
static BODIES: Semaphore = Semaphore::const_new(4096);
