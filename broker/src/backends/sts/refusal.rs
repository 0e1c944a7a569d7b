//! What STS refuses with, in our words (AWS STS API reference: `AssumeRoleWithWebIdentity`, `AssumeRole`, common errors).

use aws_sdk_sts::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use deputize_issuer::mint::StsRefusal;

use super::super::fetch::FetchError;

pub(super) fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> StsRefusal {
    match error {
        SdkError::TimeoutError(_) => StsRefusal::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => StsRefusal::Timeout,
        SdkError::DispatchFailure(failure) => {
            let source = failure.as_connector_error().and_then(std::error::Error::source);
            match source.and_then(|source| source.downcast_ref::<FetchError>()) {
                Some(FetchError::MediaType | FetchError::TooLarge) => StsRefusal::Unintelligible,
                _ => StsRefusal::Unreachable,
            }
        }
        SdkError::ServiceError(context) => {
            of_service(context.err().meta().code(), context.raw().status().as_u16())
        }
        // A request that cannot be made, and an answer that cannot be read.
        _ => StsRefusal::Unintelligible,
    }
}

fn of_service(code: Option<&str>, status: u16) -> StsRefusal {
    let Some(code) = code else {
        // Something between us and STS answers for it, or STS answers without a word.
        return match status {
            429 => StsRefusal::Throttled,
            500..=599 => StsRefusal::Unreachable,
            _ => StsRefusal::Unintelligible,
        };
    };
    match code {
        "PackedPolicyTooLarge" | "PackedPolicyTooLargeException" => StsRefusal::PackedPolicyTooLarge,
        "MalformedPolicyDocument" | "MalformedPolicyDocumentException" => StsRefusal::MalformedPolicy,
        "AccessDenied" | "AccessDeniedException" => StsRefusal::AccessDenied,
        "InvalidIdentityToken" | "InvalidIdentityTokenException" => StsRefusal::InvalidIdentityToken,
        "ExpiredTokenException" | "ExpiredToken" => StsRefusal::ExpiredToken,
        "IDPCommunicationError" | "IDPCommunicationErrorException" => StsRefusal::IdpCommunication,
        "IDPRejectedClaim" | "IDPRejectedClaimException" => StsRefusal::IdpRejectedClaim,
        "RegionDisabledException" | "RegionDisabled" => StsRefusal::RegionDisabled,
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "SlowDown" => StsRefusal::Throttled,
        _ if (500..=599).contains(&status) => StsRefusal::Unreachable,
        other => StsRefusal::Other(word(other)),
    }
}

/// A code as it may stand in the record: it comes from outside.
fn word(code: &str) -> String {
    let is_word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    code.chars().filter(is_word).take(MAX_CODE_CHARACTERS).collect()
}

const MAX_CODE_CHARACTERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_from_outside_is_a_word_or_less() {
        assert_eq!(
            of_service(Some("InvalidClientTokenId"), 403),
            StsRefusal::Other("InvalidClientTokenId".into())
        );
        assert_eq!(of_service(Some("<b>\n\"x\u{202e}"), 400), StsRefusal::Other("bx".into()));
        let StsRefusal::Other(long) = of_service(Some(&"x".repeat(1000)), 400) else { panic!("not a word") };
        assert_eq!(long.len(), MAX_CODE_CHARACTERS);
    }

    #[test]
    fn what_answers_without_a_code_is_known_by_its_status() {
        for (status, expected) in [
            (200, StsRefusal::Unintelligible),
            (302, StsRefusal::Unintelligible),
            (400, StsRefusal::Unintelligible),
            (429, StsRefusal::Throttled),
            (502, StsRefusal::Unreachable),
        ] {
            assert_eq!(of_service(None, status), expected, "{status}");
        }
        assert_eq!(of_service(Some("InternalFailure"), 500), StsRefusal::Unreachable);
    }
}
