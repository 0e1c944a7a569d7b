//! From a client's certificate up to an authority that is trusted (RFC 5280 §6).

use deputize_call::digest::sha256;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::{ops::RangeInclusive, time::Duration};
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
    /// It is an X.509-SVID, and whoever has one is known by that.
    #[error("it is an X.509-SVID, which says who it is in another way")]
    Svid,
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
            Self::Svid => "client_certificate_svid",
            Self::Name => "client_certificate_name",
        }
    }
}

/// Which end of a connection shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shower {
    /// Whoever connects.
    Client,
    /// Whoever is connected to.
    Server,
}

/// An authority that is trusted, as long as its own certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    trusted: TrustAnchor<'static>,
    key_sha256: [u8; 32],
    validity_seconds: RangeInclusive<u64>,
}

/// Who stands behind a certificate.
#[derive(Debug)]
pub(crate) struct Path {
    /// SHA-256 of each authority's subject public key info (DER), the one that signed the certificate first.
    pub(crate) authorities: Vec<[u8; 32]>,
    /// When the last of them ends, in Unix seconds.
    pub(crate) anchored_until_seconds: u64,
}

impl Anchor {
    /// Of its certificate, if it can be one.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
        Some(Self {
            trusted: webpki::anchor_from_trusted_cert(&CertificateDer::from(der)).ok()?.to_owned(),
            key_sha256: sha256(certificate.public_key().raw),
            validity_seconds: seconds(validity.not_before.timestamp())
                ..=seconds(validity.not_after.timestamp()),
        })
    }

    /// Whether it is the same authority: one name and one key.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.key_sha256 == other.key_sha256 && self.trusted.subject == other.trusted.subject
    }
}

/// Who stands behind the first certificate: one of these authorities, by way of others of the chain, each of which
/// `accepts`. Where its usages are listed, showing who this end of a connection is, is among them.
///
/// # Errors
/// [`NotVouched`].
pub(crate) fn verify_path(
    shower: Shower,
    chain: &[CertificateDer<'_>],
    anchors: &[Anchor],
    now_seconds: u64,
    accepts: impl Fn(&[u8]) -> bool,
) -> Result<Path, NotVouched> {
    // RFC 5280 §6.1.1 leaves it open whether the certificate of a trust anchor ends: here it does.
    let anchors = anchors.iter().filter(|anchor| anchor.validity_seconds.contains(&now_seconds));
    let (anchors, trusted): (Vec<_>, Vec<_>) = anchors.map(|anchor| (anchor, anchor.trusted.clone())).unzip();
    let (leaf, intermediates) = chain.split_first().ok_or(NotVouched::Malformed)?;
    let certificate = EndEntityCert::try_from(leaf).map_err(explain)?;
    let path = certificate.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &trusted,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(now_seconds)),
        // RFC 5280 §4.2.1.12: id-kp-clientAuth, id-kp-serverAuth.
        match shower {
            Shower::Client => KeyUsage::client_auth(),
            Shower::Server => KeyUsage::server_auth(),
        },
        None,
        None,
    );
    let path = path.map_err(explain)?;
    let mut authorities = Vec::new();
    for certificate in path.intermediate_certificates() {
        let der = certificate.der();
        let (_, read) = X509Certificate::from_der(&der).map_err(|_| NotVouched::Malformed)?;
        if !accepts(&der) {
            return Err(NotVouched::Authority);
        }
        authorities.push(sha256(read.public_key().raw));
    }
    let anchor = anchors.into_iter().find(|anchor| anchor.trusted == *path.anchor());
    let anchor = anchor.ok_or(NotVouched::Authority)?;
    authorities.push(anchor.key_sha256);
    Ok(Path { authorities, anchored_until_seconds: *anchor.validity_seconds.end() })
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
