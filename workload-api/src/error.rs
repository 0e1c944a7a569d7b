//! What a caller learns when it is refused: the one place that names gRPC statuses (SPIFFE Workload Endpoint §6).

pub(crate) use tonic::Status as Answered;

use deputize_issuer::svid::NotAnSvid;

use deputize_issuer::words::Remedy;
use tonic::{
    Code,
    metadata::{MetadataMap, MetadataValue},
};
use uuid::Uuid;

use crate::{exchange::NotExchanged, peer::NotAttested, source::SourceError};

/// Why a call is refused, or a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The call lacks `workload.spiffe.io: true` (SPIFFE Workload Endpoint §3).
    #[error("the metadata workload.spiffe.io: true is missing")]
    NoHeader,
    /// What is asked is malformed, or nothing can answer it.
    #[error("{0}")]
    Invalid(&'static str),
    /// The token that was to be validated is not good.
    #[error("the token is not valid: {0}")]
    BadToken(NotAnSvid),
    /// No entry entitles the caller to anything, or none any more; under which id `explain` tells more.
    #[error("no identity is registered for this process")]
    NoIdentity(Option<Uuid>),
    /// The entry that entitled the caller has gone meanwhile.
    #[error("no identity is registered for this process")]
    NotEntitled,
    /// The caller has not the identity that it asks for.
    #[error("this process is not entitled to that identity")]
    NotThatIdentity,
    /// Nobody can say who the caller is.
    #[error("the process cannot be attested: {0}")]
    NotAttested(NotAttested),
    /// This caller, or all together, ask too much.
    #[error("too many calls at once: try again later")]
    Busy,
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
    /// Nothing can be given now.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Something that cannot be, was.
    #[error("internal error")]
    Broken,
}

impl Refused {
    /// What it is called where it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoHeader => "no_header",
            Self::Invalid(_) => "invalid",
            Self::BadToken(_) => "bad_token",
            Self::NoIdentity(_) | Self::NotEntitled => "not_entitled",
            Self::NotThatIdentity => "not_that_identity",
            Self::NotAttested(_) => "not_attested",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Unavailable(_) => "unavailable",
            Self::Broken => "broken",
        }
    }

    /// As an answer to a call that no method has seen yet.
    pub(crate) fn into_response(self) -> http::Response<tonic::body::Body> {
        Answered::from(self).into_http()
    }
}

impl From<Refused> for Answered {
    fn from(refused: Refused) -> Self {
        metrics::counter!("deputize_workload_refusals_total", "reason" => refused.name()).increment(1);
        let message = refused.to_string();
        match refused {
            Refused::NoHeader | Refused::Invalid(_) | Refused::BadToken(_) => Self::invalid_argument(message),
            Refused::NoIdentity(id) => {
                Self::with_metadata(Code::PermissionDenied, message, with([(DECISION_ID, id.map(text))]))
            }
            Refused::NotEntitled | Refused::NotThatIdentity => Self::permission_denied(message),
            // Only what time may mend is worth asking again for at once.
            Refused::NotAttested(NotAttested::Unavailable(_)) => Self::unavailable(message),
            Refused::NotAttested(
                NotAttested::Gone
                | NotAttested::Foreign(_)
                | NotAttested::Changed(_)
                | NotAttested::Unreadable(_),
            ) => Self::permission_denied(message),
            Refused::Busy | Refused::Stopping | Refused::Unavailable(_) => Self::unavailable(message),
            Refused::Broken => Self::internal(message),
        }
    }
}

impl From<NotAttested> for Refused {
    fn from(why: NotAttested) -> Self {
        Self::NotAttested(why)
    }
}

impl From<SourceError> for Refused {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotEntitled => Self::NotEntitled,
            SourceError::Invalid(why) => Self::Invalid(why),
            SourceError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<NotExchanged> for Answered {
    /// In OAuth's words, which stand in the trailing metadata; the status says what helps.
    fn from(refused: NotExchanged) -> Self {
        let (code, remedy) = (refused.words.code.clone(), refused.remedy());
        metrics::counter!("deputize_workload_refusals_total", "reason" => code.into_owned()).increment(1);
        let status = match remedy {
            Remedy::Correct => Code::InvalidArgument,
            Remedy::First => Code::FailedPrecondition,
            Remedy::Nothing => Code::PermissionDenied,
            Remedy::Slower => Code::ResourceExhausted,
            Remedy::Later => Code::Unavailable,
            Remedy::Operator => Code::Internal,
        };
        let NotExchanged { words, decision_id } = refused;
        let members = [
            ("error", Some(words.code.into_owned())),
            (DECISION_ID, decision_id.map(text)),
            ("dpop-nonce", words.nonce),
            ("reason", words.reason.map(Into::into)),
            ("acr_values", words.acr_values),
            ("max_age", words.max_age_seconds.map(|seconds| seconds.to_string())),
            ("retry-after", words.retry_after_seconds.map(|seconds| seconds.to_string())),
        ];
        Self::with_metadata(status, words.description, with(members))
    }
}

/// The trailing metadata of these members, as far as they are there.
fn with<const N: usize>(members: [(&'static str, Option<String>); N]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in members {
        if let Some(value) = value.and_then(|value| MetadataValue::try_from(value).ok()) {
            metadata.insert(name, value);
        }
    }
    metadata
}

fn text(id: Uuid) -> String {
    id.to_string()
}

/// Under which name a refusal says what to ask `explain` about.
const DECISION_ID: &str = "decision_id";
