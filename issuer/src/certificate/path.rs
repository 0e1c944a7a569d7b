//! From a client's certificate up to an authority that is trusted (RFC 5280 §6).

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, Error, KeyUsage};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// Why a certificate is not taken for whom it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotVouched {
    /// It cannot be read, or says of itself what cannot be.
    #[error("it is no certificate that can be used")]
    Malformed,
    /// No authority that is trusted stands behind it.
    #[error("no authority that is trusted for it stands behind it")]
    Authority,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// It is not for showing who one is, as a client.
    #[error("its key is not for clients")]
    Usage,
    /// It names somebody else.
    #[error("it does not have the name that is expected")]
    Name,
}

impl NotVouched {
    /// The constant word under which it is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "client_certificate_malformed",
            Self::Authority => "client_certificate_authority",
            Self::NotYetValid => "client_certificate_not_yet_valid",
            Self::Expired => "client_certificate_expired",
            Self::Usage => "client_certificate_usage",
            Self::Name => "client_certificate_name",
        }
    }
}

/// Whether one of these authorities stands behind the first certificate, by way of others of the chain, each of which
/// `accepts`. Where its usages are listed, showing who a client is, is among them.
///
/// # Errors
/// [`NotVouched`].
pub(crate) fn verify_path(
    chain: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now_seconds: u64,
    accepts: impl Fn(&[u8]) -> bool,
) -> Result<(), NotVouched> {
    let (leaf, intermediates) = chain.split_first().ok_or(NotVouched::Malformed)?;
    let certificate = EndEntityCert::try_from(leaf).map_err(explain)?;
    let path = certificate.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        anchors,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(now_seconds)),
        // RFC 5280 §4.2.1.12: id-kp-clientAuth.
        KeyUsage::client_auth(),
        None,
        None,
    );
    let path = path.map_err(explain)?;
    let all = path.intermediate_certificates().all(|certificate| accepts(&certificate.der()));
    if all { Ok(()) } else { Err(NotVouched::Authority) }
}

/// RFC 5280 §4.2.1.3: whether the certificate leaves it to its key to sign for its holder. Without the extension it does.
pub(crate) fn leaf_may_sign(certificate: &X509Certificate<'_>) -> Result<bool, NotVouched> {
    let usage = certificate.key_usage().map_err(|_| NotVouched::Malformed)?;
    Ok(usage.is_none_or(|usage| usage.value.digital_signature()))
}

/// When the first of these certificates expires, in Unix seconds.
pub(super) fn earliest_end(chain: &[CertificateDer<'_>]) -> Option<u64> {
    let end = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    };
    chain.iter().map(end).collect::<Option<Vec<u64>>>()?.into_iter().min()
}

fn explain(error: Error) -> NotVouched {
    match error {
        Error::CertExpired { .. } => NotVouched::Expired,
        Error::CertNotValidYet { .. } => NotVouched::NotYetValid,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => NotVouched::Usage,
        Error::UnknownIssuer
        | Error::InvalidSignatureForPublicKey
        | Error::NameConstraintViolation
        | Error::PathLenConstraintViolated
        | Error::EndEntityUsedAsCa
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumPathDepthExceeded
        | Error::MaximumSignatureChecksExceeded => NotVouched::Authority,
        _ => NotVouched::Malformed,
    }
}
