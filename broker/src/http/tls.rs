//! TLS of a listener: 1.3 alone, one crypto provider in the process.

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

use crate::assemble::CannotStart;

/// Reads certificate chain and key.
///
/// # Errors
/// [`CannotStart`] if they cannot be read or do not belong together.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, CannotStart> {
    acceptor_asking(certificate, key, None)
}

/// As [`acceptor`]; with a file of authorities it asks clients for a certificate of theirs. One without is let in too:
/// what it may do is not for TLS to say.
///
/// # Errors
/// As [`acceptor`], and if the authorities cannot be read.
pub fn acceptor_asking(
    certificate: &Path,
    key: &Path,
    client_authorities: Option<&Path>,
) -> Result<TlsAcceptor, CannotStart> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| CannotStart(error.to_string()))?
        .with_client_cert_verifier(
            client_authorities.map_or_else(|| Ok(WebPkiClientVerifier::no_client_auth()), verifier)?,
        )
        .with_single_cert(chain, private)
        .map_err(|error| cannot(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn verifier(authorities: &Path) -> Result<Arc<dyn ClientCertVerifier>, CannotStart> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(|error| cannot(authorities, &error))?;
    }
    // It refuses an empty store itself.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
        .allow_unauthenticated()
        .build()
        .map_err(|error| cannot(authorities, &error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CannotStart> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| cannot(file, &error))
}

fn cannot(path: &Path, error: &dyn std::fmt::Display) -> CannotStart {
    CannotStart(format!("{}: {error}", path.display()))
}
