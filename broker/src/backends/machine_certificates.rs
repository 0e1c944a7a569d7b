//! Certificates of machines, and the authority that vouches for them.

use deputize_issuer::{certificate::PresentedCertificate, node::MachineAuthority};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{path::Path, sync::Arc, time::Duration};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use crate::cannot_start::CannotStart;

/// The authorities of one PEM file.
#[derive(Debug)]
pub struct MachineAuthorities(Arc<dyn ClientCertVerifier>);

impl MachineAuthorities {
    /// Reads them. None may be an authority of SVIDs, of which these are the certificates (DER).
    ///
    /// # Errors
    /// If there are none, or one is.
    pub fn read(file: &Path, of_svids: &[Vec<u8>]) -> Result<Self, CannotStart> {
        let cannot = |error: &dyn std::fmt::Display| CannotStart(format!("{}: {error}", file.display()));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| cannot(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| cannot(&error))?;
            if of_svids.iter().any(|other| has_same_key(&certificate, other)) {
                return Err(cannot(&"this authority vouches for SVIDs: machines need one of their own"));
            }
            roots.add(certificate).map_err(|error| cannot(&error))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map(Self).map_err(|error| cannot(&error))
    }
}

impl MachineAuthority for MachineAuthorities {
    fn vouches_for(&self, certificate: &PresentedCertificate, now_seconds: u64) -> Option<u64> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_seconds));
        let (leaf, intermediates) = certificate.chain().split_first()?;
        self.0.verify_client_cert(leaf, intermediates, now).ok()?;
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        // Where an authority vouches for workloads too, theirs are certificates of no machine.
        if is_an_svid(&parsed)? {
            return None;
        }
        parsed.validity().not_after.timestamp().try_into().ok()
    }
}

/// None where that cannot be told.
fn is_an_svid(certificate: &X509Certificate<'_>) -> Option<bool> {
    let Some(names) = certificate.subject_alternative_name().ok()? else { return Some(false) };
    let is_spiffe = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:")),
        _ => false,
    };
    Some(names.value.general_names.iter().any(is_spiffe))
}

fn has_same_key(one: &[u8], other: &[u8]) -> bool {
    match (X509Certificate::from_der(one), X509Certificate::from_der(other)) {
        (Ok((_, one)), Ok((_, other))) => one.public_key().raw == other.public_key().raw,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };
    use std::io::Write as _;

    const NOW: u64 = 1_800_000_000;
    /// The first day of 2030.
    const END: u64 = 1_893_456_000;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn read(
        authority: &CertifiedIssuer<'static, KeyPair>,
        of_svids: &[Vec<u8>],
    ) -> Result<MachineAuthorities, CannotStart> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(authority.pem().as_bytes()).unwrap();
        MachineAuthorities::read(file.path(), of_svids)
    }

    #[test]
    fn an_svid_is_the_certificate_of_no_machine() {
        let authority = authority();
        let machines = read(&authority, &[]).unwrap();
        let vouched = |uri: Option<&str>| {
            let mut params = CertificateParams::new(vec!["machine-1".to_owned()]).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
            let leaf = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
            machines.vouches_for(&PresentedCertificate::proved(&[leaf.der().clone()]).unwrap(), NOW)
        };
        assert_eq!(vouched(None), Some(END));
        assert_eq!(vouched(Some("https://machines.example.org/1")), Some(END));
        assert_eq!(vouched(Some("spiffe://example.org/web")), None);
        assert_eq!(vouched(Some("SPIFFE://example.org/web")), None);
    }

    #[test]
    fn an_authority_of_svids_is_none_of_machines() {
        let (of_machines, of_svids) = (authority(), authority());
        assert!(read(&of_machines, &[of_svids.der().to_vec()]).is_ok());
        let refused = read(&of_svids, &[of_machines.der().to_vec(), of_svids.der().to_vec()]).unwrap_err();
        assert!(refused.0.contains("machines need one of their own"), "{}", refused.0);
    }
}
