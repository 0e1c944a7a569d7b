//! TLS of a listener: 1.3 alone, one crypto provider in the process.

use deputize_issuer::certificate::check_bounds;
use rustls::{
    CertificateError, ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    server::{
        ResolvesServerCert, WantsServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use std::{path::Path, sync::Arc};
use tokio_rustls::TlsAcceptor;

use crate::cannot_start::CannotStart;

/// Whether clients are asked for a certificate. One without is let in too: what it may do is not for TLS to say.
#[derive(Debug, Clone, Copy)]
pub enum ClientCertificates<'p> {
    /// Not asked for.
    Ignored,
    /// Asked for, whoever vouches for it: TLS proves that the client has its key, and whose it is decides who reads it.
    OfAnybody,
    /// Asked for, and vouched for by the authorities in this PEM file.
    Of(&'p Path),
}

/// Reads certificate chain and key.
///
/// # Errors
/// [`CannotStart`] if they cannot be read or do not belong together, or the authorities cannot be read.
pub fn acceptor(
    certificate: &Path,
    key: &Path,
    clients: ClientCertificates<'_>,
) -> Result<TlsAcceptor, CannotStart> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot(key, &error))?;
    let config =
        asking(clients)?.with_single_cert(chain, private).map_err(|error| cannot(certificate, &error))?;
    Ok(speaking_http(config))
}

/// As [`acceptor`], with whatever certificate there is at each handshake.
///
/// # Errors
/// [`CannotStart`] if the authorities cannot be read.
pub fn acceptor_showing(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: ClientCertificates<'_>,
) -> Result<TlsAcceptor, CannotStart> {
    Ok(speaking_http(asking(clients)?.with_cert_resolver(certificate)))
}

fn asking(
    clients: ClientCertificates<'_>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, CannotStart> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder =
        builder.with_protocol_versions(&[&TLS13]).map_err(|error| CannotStart(error.to_string()))?;
    Ok(builder.with_client_cert_verifier(verifier(clients)?))
}

fn speaking_http(mut config: ServerConfig) -> TlsAcceptor {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn verifier(clients: ClientCertificates<'_>) -> Result<Arc<dyn ClientCertVerifier>, CannotStart> {
    let provider = aws_lc_rs::default_provider();
    let authorities = match clients {
        ClientCertificates::Ignored => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientCertificates::OfAnybody => {
            return Ok(Arc::new(HoldsItsKey { algorithms: provider.signature_verification_algorithms }));
        }
        ClientCertificates::Of(authorities) => authorities,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(|error| cannot(authorities, &error))?;
    }
    // It refuses an empty store itself.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| cannot(authorities, &error))
}

/// Lets in whoever has the key of the certificate that it shows, and whoever shows none.
///
/// Self-signed certificates (RFC 8705 §2.2) and those of many authorities, each good for some clients alone, come to
/// the same door: for whom one stands is decided where the client is known.
#[derive(Debug)]
struct HoldsItsKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for HoldsItsKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // RFC 8446 §4.2.4: without names of authorities a client shows what it has.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = [end_entity]
            .into_iter()
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        check_bounds(&chain).map_err(|_| CertificateError::ApplicationVerificationFailure)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // INVARIANT: 1.3 alone is spoken. There the signature is over the whole handshake.
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CannotStart> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| cannot(file, &error))
}

fn cannot(path: &Path, error: &dyn std::fmt::Display) -> CannotStart {
    CannotStart(format!("{}: {error}", path.display()))
}
