use axum::{Extension, routing::get};
use deputize_call::digest::sha256;
use rcgen::{CertificateParams, CertifiedKey as Made, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::http::tls::{ClientCertificates, acceptor};

/// A listener whose answers say which certificate its handlers see.
struct Bench {
    address: SocketAddr,
    server: CertificateDer<'static>,
    _stop: watch::Sender<bool>,
}

impl Bench {
    async fn start(clients: ClientCertificates<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Made { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
        std::fs::write(&certificate, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        let tls = acceptor(&certificate, &key, clients).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let listening = Listening {
            tls: Some(tls),
            connections: 8,
            connections_of_one_source: 8,
            drain: Duration::ZERO,
            stop: stopping,
        };
        let router = Router::new().route("/", get(seen));
        tokio::spawn(serve_tcp(listener, router, listening));
        Self { address, server: cert.der().clone(), _stop: stop }
    }

    /// Asks as a client that shows these certificates, and signs with this key.
    async fn ask(&self, shown: Option<(&[CertificateDer<'static>], &KeyPair)>) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_cert_resolver(Arc::new(Shows::new(chain, key))),
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let forged = "x-forwarded-client-cert: Hash=abc\r\nx-client-cert: abc\r\nconnection: close\r\n";
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: localhost\r\n{forged}\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(body.to_owned())
    }
}

/// Shows what it is told to, whether the key belongs to it or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(chain: &[CertificateDer<'static>], key: &KeyPair) -> Self {
        let key = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        Self(Arc::new(CertifiedKey::new(chain.to_vec(), key)))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

async fn seen(
    certificate: Option<Extension<Arc<PresentedCertificate>>>,
    guards: Option<Extension<ClientCertificate>>,
) -> String {
    let seen = certificate.map(|Extension(certificate)| certificate.thumbprint().to_owned());
    assert_eq!(seen.as_deref(), guards.as_ref().map(|Extension(certificate)| certificate.thumbprint()));
    seen.unwrap_or_else(|| "none".to_owned())
}

fn self_signed() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    (certificate.der().clone(), key)
}

#[tokio::test]
async fn a_handler_sees_the_certificate_whose_key_the_client_has_and_no_header_makes_one() {
    let bench = Bench::start(ClientCertificates::OfAnybody).await;
    let (certificate, key) = self_signed();
    let (other, other_key) = self_signed();
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(&certificate));
    let chain = [certificate, other];
    assert_eq!(bench.ask(Some((&chain, &key))).await.unwrap(), thumbprint);
    assert_eq!(bench.ask(None).await.unwrap(), "none");
    let refused = bench.ask(Some((&chain, &other_key))).await;
    assert!(refused.is_err(), "shown without its key: {refused:?}");
    let nine = vec![chain[0].clone(); 9];
    assert!(bench.ask(Some((&nine, &key))).await.is_err());
    assert_eq!(bench.ask(Some((&nine[..8], &key))).await.unwrap(), thumbprint);

    let bench = Bench::start(ClientCertificates::Ignored).await;
    assert_eq!(bench.ask(Some((&chain, &key))).await.unwrap(), "none");
}

#[tokio::test]
async fn where_authorities_are_named_nobody_else_vouches() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = self_signed();
    let authorities = folder.path().join("authorities.pem");
    let Made { cert, .. } = rcgen::generate_simple_self_signed(["authority".into()]).unwrap();
    std::fs::write(&authorities, cert.pem()).unwrap();
    let bench = Bench::start(ClientCertificates::Of(&authorities)).await;
    assert!(bench.ask(Some((&[certificate], &key))).await.is_err());
    assert_eq!(bench.ask(None).await.unwrap(), "none");
}
