//! TLS to a server that is known by its X.509-SVID alone: whatever its host is called, it has exactly that SPIFFE ID
//! (SPIFFE Federation §5.2.2.4).

use deputize_issuer::{
    certificate::Shower,
    svid::{Bundle, Bundles, verify_x509_svid_of},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use spiffe::SpiffeId;
use std::sync::Arc;

/// A TLS client that trusts the server that shows this SPIFFE ID under this bundle, which is that of its trust domain.
pub(super) fn trusting(
    expected: SpiffeId,
    bundle: Arc<Bundle>,
    now_seconds: u64,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let bundles = Bundles { own: bundle, federated: Vec::new() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerSvid { expected, bundles, now_seconds, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct ServerSvid {
    expected: SpiffeId,
    bundles: Bundles,
    now_seconds: u64,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerSvid {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = [end_entity]
            .into_iter()
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let id = verify_x509_svid_of(Shower::Server, &chain, &self.bundles, self.now_seconds)
            .map_err(|error| Error::General(format!("its certificate is not accepted: {error}")))?;
        if id == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General(format!("it is {id}, and not {}", self.expected)))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.2 is not offered.
        Err(Error::General("TLS 1.3 alone".to_owned()))
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
