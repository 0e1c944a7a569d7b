//! What a caller is told of a refusal, in OAuth's words (RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 9396 §5, RFC 9449 §5, RFC
//! 9470 §3): the same at every door, which adds its own protocol's status.
//! To callers the reason is coarse; the detail belongs to `explain`.

use std::borrow::Cow;

use crate::{
    error::{DenialReason, IssueError},
    mint::StsRefusal,
};

/// A refusal as its caller is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// `error`.
    pub code: Cow<'static, str>,
    /// What helps: by this doors choose a status.
    pub remedy: Remedy,
    /// `error_description`: what, and what to do. Printable ASCII without quote and backslash (RFC 6749 §5.2).
    pub description: String,
    /// Who says no, where somebody does.
    pub reason: Option<Cow<'static, str>>,
    /// `acr_values` that will do (RFC 9470 §3).
    pub acr_values: Option<String>,
    /// The greatest age of the user's authentication, in seconds (RFC 9470 §3).
    pub max_age_seconds: Option<u64>,
    /// When to come back, where that helps.
    pub retry_after_seconds: Option<u64>,
    /// The nonce for the next proof (RFC 9449 §8).
    pub nonce: Option<String>,
}

/// What helps against a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Another request: this one cannot be granted as it stands.
    Correct,
    /// The same again, once something else has happened: a new proof, another sign-in.
    First,
    /// Nothing that the caller can do: policy, a person or its registration says no.
    Nothing,
    /// To ask less often.
    Slower,
    /// To ask again in a while.
    Later,
    /// An operator: something is broken.
    Operator,
}

impl Remedy {
    /// What helps against a refusal of this code, where another door said it; none where it is no code of ours. That a
    /// rate is exceeded, its door says besides.
    pub fn of_code(code: &str) -> Option<Self> {
        Some(match code {
            "invalid_request"
            | "unsupported_grant_type"
            | "invalid_target"
            | "invalid_scope"
            | "invalid_authorization_details" => Self::Correct,
            "invalid_dpop_proof" | "use_dpop_nonce" | "insufficient_user_authentication" => Self::First,
            "access_denied" | "invalid_client" => Self::Nothing,
            "temporarily_unavailable" => Self::Later,
            "server_error" => Self::Operator,
            _ => return None,
        })
    }
}

impl From<&IssueError> for Words {
    fn from(error: &IssueError) -> Self {
        told(error)
    }
}

impl Words {
    /// That nothing can be had now, whatever was asked.
    pub fn unavailable() -> Self {
        unavailable("nothing can be had here now")
    }
}

fn told(error: &IssueError) -> Words {
    match error {
        IssueError::Request(reason) => bad("invalid_request", request_hint(reason)),
        IssueError::GrantType => {
            bad("unsupported_grant_type", "grant_type must be token-exchange or client_credentials")
        }
        IssueError::SubjectToken { reason, .. } => bad("invalid_request", subject_hint(reason)),
        IssueError::ClientAuthentication(_) => {
            let hint = "the client is unknown or did not prove who it is; use a fresh assertion";
            Words { remedy: Remedy::Nothing, ..bad("invalid_client", hint) }
        }
        IssueError::Proof(_) => {
            let hint = "the DPoP proof does not verify for this request; make a new one with a new jti";
            Words { remedy: Remedy::First, ..bad("invalid_dpop_proof", hint) }
        }
        IssueError::NonceNeeded { nonce } => Words {
            nonce: Some(nonce.clone()),
            remedy: Remedy::First,
            ..bad("use_dpop_nonce", "repeat with the nonce of DPoP-Nonce in a new proof")
        },
        IssueError::Target(reason) => bad("invalid_target", target_hint(reason)),
        IssueError::Scope(_) => bad(
            "invalid_scope",
            "the scope is malformed or wider than the tool; leave it out or name the tool",
        ),
        IssueError::AuthorizationDetails { detail, .. } => {
            bad("invalid_authorization_details", details_hint(detail))
        }
        IssueError::LevelTooLow { least } => bad(
            "invalid_authorization_details",
            format!("this tool needs a token of level {least}: ask with constraints (L2) or arguments (L3)"),
        ),
        IssueError::Denied(reason) => told_of_denial(reason),
        IssueError::UserAuthentication { acr_values, max_age_seconds } => Words {
            acr_values: (!acr_values.is_empty()).then(|| acr_values.join(" ")),
            max_age_seconds: *max_age_seconds,
            remedy: Remedy::First,
            ..bad(
                "insufficient_user_authentication",
                "the user has to sign in again, more strongly or more recently, for this tool",
            )
        },
        IssueError::RateLimited { retry_after_seconds } => Words {
            retry_after_seconds: Some(*retry_after_seconds),
            remedy: Remedy::Slower,
            ..bad("temporarily_unavailable", "too many requests of this client")
        },
        IssueError::RecordUnavailable(_) => {
            unavailable("the decision could not be recorded, so nothing was issued")
        }
        IssueError::Uncertain(_) => {
            unavailable("a once-only check has no certain answer now, so nothing was issued")
        }
        IssueError::UpstreamUnavailable(_) => unavailable("the identity provider's keys cannot be had now"),
        IssueError::NoSession { .. } => {
            denied("no role template gives this call AWS credentials; see deputize explain")
        }
        IssueError::NotEntitled(_) => {
            denied("no registration entry entitles the process to it; see deputize explain")
        }
        IssueError::Sts(refusal) => told_of_aws(refusal),
        IssueError::Internal(_) => broken("a fault of the broker; an operator can explain the decision"),
    }
}

fn told_of_denial(reason: &DenialReason) -> Words {
    let (reason, description) = match reason {
        DenialReason::Policy { .. } => {
            ("policy", "policy does not allow it; an operator can explain the decision")
        }
        DenialReason::ApprovalRequired => (
            "approval_required",
            "a person would have to approve this call, and approvals are not configured",
        ),
    };
    Words { reason: Some(reason.into()), ..denied(description) }
}

/// What AWS refuses is for who configures role, trust policy and template, not for who called.
fn told_of_aws(refusal: &StsRefusal) -> Words {
    if refusal.may_pass() {
        return unavailable("AWS gives no session now; come back as Retry-After says");
    }
    broken("AWS refused the role session; an operator can explain the decision")
}

fn bad(code: &'static str, description: impl Into<String>) -> Words {
    Words {
        code: code.into(),
        remedy: Remedy::Correct,
        description: description.into(),
        reason: None,
        acr_values: None,
        max_age_seconds: None,
        retry_after_seconds: None,
        nonce: None,
    }
}

fn denied(description: &str) -> Words {
    Words { remedy: Remedy::Nothing, ..bad("access_denied", description) }
}

fn broken(description: &str) -> Words {
    Words { remedy: Remedy::Operator, ..bad("server_error", description) }
}

fn unavailable(description: &str) -> Words {
    Words {
        retry_after_seconds: Some(1),
        remedy: Remedy::Later,
        ..bad("temporarily_unavailable", description)
    }
}

/// RFC 6749 §5.2 allows printable ASCII without quote and backslash in `error_description`.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        })
        .take(256)
        .collect()
}

fn request_hint(reason: &str) -> String {
    match reason {
        "parameter_empty" => "a parameter is empty; leave it out instead".to_owned(),
        "parameter_repeated" => "a parameter is repeated; send each once".to_owned(),
        "parameters_in_query" => "send parameters in the body, not in the query".to_owned(),
        other => format!("{}; see error_uri", other.replace('_', " ")),
    }
}

fn target_hint(reason: &str) -> &'static str {
    match reason {
        "client_is_no_server" => {
            "this client is no registered server; name it in the server's registry record"
        }
        _ => "this client cannot get a token for this target; check resource and the registry",
    }
}

fn details_hint(detail: &str) -> String {
    if detail.is_empty() { "authorization_details cannot be granted".to_owned() } else { plain(detail) }
}

/// Coarse: whoever brings a bad token learns that it is bad, and which of the two it was.
fn subject_hint(reason: &str) -> String {
    if reason.starts_with("actor") || reason.starts_with("may_act") {
        "the actor may not act for this subject".to_owned()
    } else {
        "the subject token is not acceptable from this client".to_owned()
    }
}
