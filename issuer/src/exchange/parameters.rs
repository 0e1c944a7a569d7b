//! The parameters of a token request (RFC 6749 §4.4.2, RFC 8693 §2.1, RFC 8707 §2, RFC 9396 §2) by their names.

use crate::{
    ask::{Ask, CallAsk, Claimed, ResourceUri, ScopeSet},
    error::IssueError,
    provider::SubjectTokenType,
    verify_subject::PresentedSubject,
};

/// Parameters, each at most once and none empty.
///
/// INVARIANT: each value has passed [`check_value`].
pub trait Parameters {
    /// A parameter, if it was sent.
    fn get(&self, name: &str) -> Option<&str>;
}

/// A request in words of ours.
#[derive(Debug)]
pub struct TokenRequest<'p> {
    /// For whom; `None` where a client asks for itself (`client_credentials`).
    pub subject: Option<PresentedSubject<'p>>,
    /// For what.
    pub ask: Ask,
}

impl<'p> TokenRequest<'p> {
    /// Reads the parameters. Those that say who calls are the door's.
    ///
    /// # Errors
    /// [`IssueError::Request`] where one is missing, or does not go with the others; [`IssueError::GrantType`],
    /// [`IssueError::Target`], [`IssueError::Scope`] and [`IssueError::AuthorizationDetails`] where one is malformed.
    pub fn parse(parameters: &'p impl Parameters) -> Result<Self, IssueError> {
        let subject = match require(parameters, "grant_type", "grant_type_missing")? {
            TOKEN_EXCHANGE => Some(presented_subject(parameters)?),
            "client_credentials" => None,
            _ => return Err(IssueError::GrantType),
        };
        let requested = parameters.get("requested_token_type");
        if requested.is_some_and(|kind| kind != TYPE_ACCESS_TOKEN && kind != TYPE_JWT) {
            return Err(IssueError::Request("requested_token_type_unsupported"));
        }
        let resource = ResourceUri::parse(require(parameters, "resource", "resource_missing")?)?;
        if parameters.get("audience").is_some_and(|audience| audience != resource.as_str()) {
            return Err(IssueError::Target("resource_and_audience_disagree"));
        }
        let call = CallAsk::parse(parameters.get("authorization_details"), &resource)?;
        let claimed = |name| claimed(parameters, name);
        Ok(Self {
            subject,
            ask: Ask {
                resource,
                scope: parameters.get("scope").map(ScopeSet::parse).transpose()?,
                call,
                transaction_id: parameters.get("transaction_id").map(str::to_owned),
                approval_id: parameters.get("approval_id").map(str::to_owned),
                claimed: Claimed {
                    parent_request_id: claimed("parent_request_id")?,
                    host: claimed("host")?,
                    model: claimed("model")?,
                    workflow: claimed("workflow")?,
                    traceparent: claimed("traceparent")?,
                },
            },
        })
    }
}

/// Whether a value may be a parameter's. White space inside `authorization_details` is fine; NUL and other controls have
/// no place in any.
///
/// # Errors
/// [`IssueError::Request`]: it is empty, or has a control character.
pub fn check_value(value: &str) -> Result<(), IssueError> {
    if value.trim().is_empty() {
        return Err(IssueError::Request("parameter_empty"));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(IssueError::Request("parameter_with_control_character"));
    }
    Ok(())
}

fn presented_subject(parameters: &impl Parameters) -> Result<PresentedSubject<'_>, IssueError> {
    let token = require(parameters, "subject_token", "subject_token_missing")?;
    let kind = token_type(require(parameters, "subject_token_type", "subject_token_type_missing")?)?;
    let actor = match (parameters.get("actor_token"), parameters.get("actor_token_type")) {
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

fn claimed(parameters: &impl Parameters, name: &str) -> Result<Option<String>, IssueError> {
    match parameters.get(name) {
        Some(value) if value.len() > MAX_CLAIMED_BYTES => {
            Err(IssueError::Request("claimed_parameter_too_long"))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

fn require<'p>(
    parameters: &'p impl Parameters,
    name: &str,
    missing: &'static str,
) -> Result<&'p str, IssueError> {
    parameters.get(name).ok_or(IssueError::Request(missing))
}

/// RFC 8693 §2.1.
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 8693 §3.
pub(super) const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const MAX_CLAIMED_BYTES: usize = 256;
