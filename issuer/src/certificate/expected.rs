//! The certificate that a client is configured to show: one that an authority vouches for, in a name (RFC 8705 §2.1),
//! or one of its own (§2.2).

use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::net::IpAddr;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    DistinguishedName, NotVouched, PresentedCertificate, check_bounds, leaf_may_sign, thumbprint, verify_path,
};

/// A certificate of one of these authorities, in this name.
#[derive(Debug)]
pub struct ExpectedCertificate {
    anchors: Vec<TrustAnchor<'static>>,
    name: ExpectedName,
}

/// The name that a certificate must have (RFC 8705 §2.1.2): exactly one, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedName {
    /// `tls_client_auth_subject_dn`.
    Subject(DistinguishedName),
    /// `tls_client_auth_san_dns`: small and capital letters are alike.
    Dns(String),
    /// `tls_client_auth_san_uri`.
    Uri(String),
    /// `tls_client_auth_san_ip`.
    Ip(IpAddr),
    /// `tls_client_auth_san_email`.
    Email(String),
}

/// A certificate that a client signed itself, or that is known for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    thumbprint: String,
    not_before_seconds: u64,
    not_after_seconds: u64,
}

/// Why something cannot be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotExpectable(pub &'static str);

impl ExpectedCertificate {
    /// Of these authorities, in this name.
    ///
    /// # Errors
    /// [`NotExpectable`]: one of them is no authority, or there is none.
    pub fn new(authorities: &[CertificateDer<'_>], name: ExpectedName) -> Result<Self, NotExpectable> {
        let mut anchors = Vec::new();
        for authority in authorities {
            let is_authority = X509Certificate::from_der(authority).is_ok_and(|(_, it)| it.is_ca());
            let anchor = webpki::anchor_from_trusted_cert(authority).ok().filter(|_| is_authority);
            anchors.push(anchor.ok_or(NotExpectable("not a certificate of an authority"))?.to_owned());
        }
        if anchors.is_empty() {
            return Err(NotExpectable("there is no certificate"));
        }
        Ok(Self { anchors, name })
    }

    /// Whether it is that one.
    ///
    /// # Errors
    /// [`NotVouched`].
    pub fn check(&self, chain: &[CertificateDer<'_>], now_seconds: u64) -> Result<(), NotVouched> {
        check_bounds(chain).map_err(|_| NotVouched::Malformed)?;
        verify_path(chain, &self.anchors, now_seconds, |_| true)?;
        let leaf = chain.first().ok_or(NotVouched::Malformed)?;
        let Ok(([], certificate)) = X509Certificate::from_der(leaf) else {
            return Err(NotVouched::Malformed);
        };
        if !leaf_may_sign(&certificate)? {
            return Err(NotVouched::Usage);
        }
        if self.name.is_in(&certificate)? { Ok(()) } else { Err(NotVouched::Name) }
    }
}

impl ExpectedName {
    fn is_in(&self, certificate: &X509Certificate<'_>) -> Result<bool, NotVouched> {
        if let Self::Subject(subject) = self {
            return Ok(DistinguishedName::of(certificate.subject()).as_ref() == Some(subject));
        }
        let names = certificate.subject_alternative_name().map_err(|_| NotVouched::Malformed)?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        Ok(names.iter().any(|name| match (self, name) {
            (Self::Dns(expected), GeneralName::DNSName(name)) => name.eq_ignore_ascii_case(expected),
            (Self::Uri(expected), GeneralName::URI(name)) => name == expected,
            (Self::Email(expected), GeneralName::RFC822Name(name)) => name == expected,
            (Self::Ip(IpAddr::V4(expected)), GeneralName::IPAddress(bytes)) => *bytes == expected.octets(),
            (Self::Ip(IpAddr::V6(expected)), GeneralName::IPAddress(bytes)) => *bytes == expected.octets(),
            _ => false,
        }))
    }
}

impl OwnCertificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`NotExpectable`].
    pub fn read(der: &[u8]) -> Result<Self, NotExpectable> {
        let Ok(([], certificate)) = X509Certificate::from_der(der) else {
            return Err(NotExpectable("not a certificate"));
        };
        let seconds = |timestamp: i64| {
            u64::try_from(timestamp).map_err(|_| NotExpectable("a certificate of before 1970"))
        };
        let validity = certificate.validity();
        Ok(Self {
            thumbprint: thumbprint(der),
            not_before_seconds: seconds(validity.not_before.timestamp())?,
            not_after_seconds: seconds(validity.not_after.timestamp())?,
        })
    }

    /// Whether that is what was shown, and its time is now. Its signature says nothing (RFC 8705 §2.2): that the client
    /// has its key, TLS has proved.
    pub fn is(&self, shown: &PresentedCertificate, now_seconds: u64) -> bool {
        self.thumbprint == shown.thumbprint()
            && (self.not_before_seconds..=self.not_after_seconds).contains(&now_seconds)
    }
}
