//! The certificate that a client is configured to show: one that an authority vouches for, in a name (RFC 8705 §2.1),
//! or one of its own (§2.2).

use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    Anchor, DistinguishedName, NotVouched, Path, PresentedCertificate, Shower, check_bounds, leaf_may_sign,
    thumbprint, verify_path,
};

/// A certificate of one of these authorities, in this name.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpectedCertificate {
    anchors: Vec<Anchor>,
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
            let anchor = Anchor::read(authority).filter(|_| is_authority);
            anchors.push(anchor.ok_or(NotExpectable("not a certificate of an authority"))?);
        }
        if anchors.is_empty() {
            return Err(NotExpectable("there is no certificate"));
        }
        if matches!(&name, ExpectedName::Uri(uri) if is_of_spiffe(uri)) {
            return Err(NotExpectable("a SPIFFE ID proves nothing here: say spiffe_id instead"));
        }
        Ok(Self { anchors, name })
    }

    /// Whether a certificate may be what both expect: of one authority, in one name.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        let is_same_name = match (&self.name, &other.name) {
            (ExpectedName::Dns(one), ExpectedName::Dns(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        };
        is_same_name && self.anchors.iter().any(|one| other.anchors.iter().any(|other| one.is(other)))
    }

    /// Whether it is that one.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>], now_seconds: u64) -> Result<Path, NotVouched> {
        check_bounds(chain).map_err(|_| NotVouched::Malformed)?;
        let path = verify_path(Shower::Client, chain, &self.anchors, now_seconds, |_| true)?;
        let leaf = chain.first().ok_or(NotVouched::Malformed)?;
        let Ok(([], certificate)) = X509Certificate::from_der(leaf) else {
            return Err(NotVouched::Malformed);
        };
        if !leaf_may_sign(&certificate)? {
            return Err(NotVouched::Usage);
        }
        if names(&certificate)?.iter().any(|name| matches!(name, GeneralName::URI(uri) if is_of_spiffe(uri)))
        {
            // Under a root that SVIDs have too, whoever gets one may have the name in it that is expected here.
            return Err(NotVouched::Svid);
        }
        if self.name.is_in(&certificate)? { Ok(path) } else { Err(NotVouched::Name) }
    }
}

impl ExpectedName {
    fn is_in(&self, certificate: &X509Certificate<'_>) -> Result<bool, NotVouched> {
        if let Self::Subject(subject) = self {
            return Ok(DistinguishedName::of(certificate.subject()).as_ref() == Some(subject));
        }
        Ok(names(certificate)?.iter().any(|name| match (self, name) {
            (Self::Dns(expected), GeneralName::DNSName(name)) => name.eq_ignore_ascii_case(expected),
            (Self::Uri(expected), GeneralName::URI(name)) => name == expected,
            (Self::Email(expected), GeneralName::RFC822Name(name)) => name == expected,
            (Self::Ip(IpAddr::V4(expected)), GeneralName::IPAddress(bytes)) => *bytes == expected.octets(),
            (Self::Ip(IpAddr::V6(expected)), GeneralName::IPAddress(bytes)) => *bytes == expected.octets(),
            _ => false,
        }))
    }
}

/// The alternative names of whom a certificate is for.
fn names<'c>(certificate: &'c X509Certificate<'_>) -> Result<&'c [GeneralName<'c>], NotVouched> {
    let names = certificate.subject_alternative_name().map_err(|_| NotVouched::Malformed)?;
    Ok(names.map(|names| names.value.general_names.as_slice()).unwrap_or_default())
}

fn is_of_spiffe(uri: &str) -> bool {
    uri.get(..SPIFFE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SPIFFE))
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

const SPIFFE: &str = "spiffe:";
