//! Certificates of machines, and the authority that vouches for them.

use deputize_issuer::{certificate::PresentedCertificate, node::MachineAuthority};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{path::Path, sync::Arc, time::Duration};

use crate::assemble::CannotStart;

/// The authorities of one PEM file.
#[derive(Debug)]
pub struct MachineAuthorities(Arc<dyn ClientCertVerifier>);

impl MachineAuthorities {
    /// Reads them.
    ///
    /// # Errors
    /// If there are none.
    pub fn read(file: &Path) -> Result<Self, CannotStart> {
        let cannot = |error: &dyn std::fmt::Display| CannotStart(format!("{}: {error}", file.display()));
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| cannot(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| cannot(&error))?;
            roots.add(certificate).map_err(|error| cannot(&error))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map(Self).map_err(|error| cannot(&error))
    }
}

impl MachineAuthority for MachineAuthorities {
    fn vouches_for(&self, certificate: &PresentedCertificate, now_seconds: u64) -> bool {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_seconds));
        let verified = certificate
            .chain()
            .split_first()
            .map(|(leaf, intermediates)| self.0.verify_client_cert(leaf, intermediates, now));
        matches!(verified, Some(Ok(_)))
    }
}
