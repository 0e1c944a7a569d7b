//! A refusal that another door said over HTTP, told here in its own words.

use deputize_issuer::words::{Remedy, Words};
use serde::Deserialize;
use uuid::Uuid;

use super::NotExchanged;

/// The error of an answer (RFC 6749 §5.2), with what stands in its headers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Heard {
    error: String,
    error_description: String,
    decision_id: Option<Uuid>,
    reason: Option<String>,
    acr_values: Option<String>,
    max_age: Option<u64>,
    /// `DPoP-Nonce` (RFC 9449 §8).
    #[serde(skip)]
    pub nonce: Option<String>,
    /// `Retry-After`, in seconds.
    #[serde(skip)]
    pub retry_after_seconds: Option<u64>,
    /// Whether the status was 429 (RFC 6585 §4): the same word is said of what time alone mends.
    #[serde(skip)]
    pub is_of_a_rate: bool,
}

impl Heard {
    /// The refusal, as the process is told of it. What is no word of ours is said as that nothing can be had now.
    pub fn into_refusal(self) -> NotExchanged {
        let remedy = match Remedy::of_code(&self.error) {
            Some(Remedy::Later) if self.is_of_a_rate => Remedy::Slower,
            Some(remedy) => remedy,
            None => return NotExchanged { decision_id: self.decision_id, ..NotExchanged::unavailable(ODD) },
        };
        let words = Words {
            code: self.error.into(),
            remedy,
            description: self.error_description.chars().take(MAX_DESCRIPTION).collect(),
            reason: self.reason.map(Into::into),
            acr_values: self.acr_values,
            max_age_seconds: self.max_age,
            retry_after_seconds: self.retry_after_seconds,
            nonce: self.nonce,
        };
        NotExchanged { words, decision_id: self.decision_id }
    }
}

const ODD: &str = "the broker does not exchange for this node now";
/// No description of ours is longer.
const MAX_DESCRIPTION: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use deputize_call::level::Level;
    use deputize_issuer::{
        error::{DenialReason, IssueError},
        mint::StsRefusal,
    };
    use serde_json::json;
    use std::collections::HashSet;

    const KINDS: usize = 20;

    #[test]
    fn what_another_door_said_is_said_here_in_the_same_words() {
        let errors = all();
        let kinds: HashSet<_> = errors.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), KINDS);
        for error in errors {
            let words = Words::from(&error);
            let said = json!({
                "error": words.code, "error_description": words.description, "decision_id": Uuid::nil(),
                "reason": words.reason, "acr_values": words.acr_values, "max_age": words.max_age_seconds,
                "error_uri": "https://broker.example/docs/errors/x",
            });
            let heard = Heard {
                nonce: words.nonce.clone(),
                retry_after_seconds: words.retry_after_seconds,
                is_of_a_rate: matches!(error, IssueError::RateLimited { .. }),
                ..serde_json::from_value(said).unwrap()
            };
            assert_eq!(heard.into_refusal(), NotExchanged { words, decision_id: Some(Uuid::nil()) });
        }
    }

    /// One of each. What does not compile here is new: it wants a place in this list.
    fn all() -> Vec<IssueError> {
        let (reason, detail) = ("x", String::new());
        match IssueError::GrantType {
            IssueError::Request(_)
            | IssueError::GrantType
            | IssueError::SubjectToken { .. }
            | IssueError::ClientAuthentication(_)
            | IssueError::Proof(_)
            | IssueError::NonceNeeded { .. }
            | IssueError::Target(_)
            | IssueError::Scope(_)
            | IssueError::AuthorizationDetails { .. }
            | IssueError::Denied(_)
            | IssueError::UserAuthentication { .. }
            | IssueError::LevelTooLow { .. }
            | IssueError::RateLimited { .. }
            | IssueError::RecordUnavailable(_)
            | IssueError::Uncertain(_)
            | IssueError::UpstreamUnavailable(_)
            | IssueError::NoSession { .. }
            | IssueError::NotEntitled(_)
            | IssueError::Sts(_)
            | IssueError::Internal(_) => {}
        }
        vec![
            IssueError::Request("parameter_empty"),
            IssueError::GrantType,
            IssueError::SubjectToken { reason, detail: detail.clone() },
            IssueError::ClientAuthentication("unknown_client"),
            IssueError::Proof("proof_replayed"),
            IssueError::NonceNeeded { nonce: "n".to_owned() },
            IssueError::Target("unknown"),
            IssueError::Scope("scope_malformed"),
            IssueError::AuthorizationDetails { reason, detail: detail.clone() },
            IssueError::Denied(DenialReason::ApprovalRequired),
            IssueError::Denied(DenialReason::Policy { ids: Vec::new(), errors: Vec::new() }),
            IssueError::UserAuthentication { acr_values: vec!["mfa".to_owned()], max_age_seconds: Some(60) },
            IssueError::LevelTooLow { least: Level::L2 },
            IssueError::RateLimited { retry_after_seconds: 3 },
            IssueError::RecordUnavailable("log_unavailable"),
            IssueError::Uncertain("node_store"),
            IssueError::UpstreamUnavailable("keys_unavailable"),
            IssueError::NoSession { reason, detail },
            IssueError::NotEntitled("no_entry"),
            IssueError::Sts(StsRefusal::Timeout),
            IssueError::Sts(StsRefusal::AccessDenied),
            IssueError::Internal("signing_failed"),
        ]
    }

    #[test]
    fn what_is_no_word_of_ours_is_unavailable() {
        for said in [json!({}), json!({ "error": "not_found" }), json!({ "error": "teapot" })] {
            let heard: Heard = serde_json::from_value(said).unwrap();
            assert_eq!(heard.into_refusal().remedy(), Remedy::Later);
        }
    }
}
