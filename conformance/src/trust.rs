//! A private certification authority for loopback.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use std::{path::Path, sync::Arc};

/// A certification authority that a test trusts.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate of it: for `localhost`, or of a client.
pub struct Certificate {
    /// PEM chain.
    pub certificate_pem: String,
    /// PEM key.
    pub key_pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Conformance test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for `localhost` and 127.0.0.1.
    pub fn certify(&self) -> Certificate {
        let names = vec!["localhost".into(), "127.0.0.1".into()];
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub fn certify_client(&self, name: &str) -> Certificate {
        self.sign(vec![name.to_owned()], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Certificate {
        let mut params = CertificateParams::new(names).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Certificate::signed(&params, &self.issuer)
    }

    /// A client that trusts this authority alone, and speaks HTTP/1.1.
    pub fn client(&self) -> Arc<ClientConfig> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(self.roots()).with_no_client_auth())
    }

    /// As [`Authority::client`]; it shows this certificate where it is asked for one.
    pub fn client_showing(&self, certificate: &Certificate) -> Arc<ClientConfig> {
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let chain = vec![certificate.der.clone()];
        Arc::new(builder.with_client_auth_cert(chain, certificate.private_key()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// One of this authority, with a key of its own.
    pub fn signed(params: &CertificateParams, issuer: &CertifiedIssuer<'_, KeyPair>) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::of(&params.signed_by(&key, issuer).unwrap(), key)
    }

    /// One that nobody else vouches for.
    pub fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Self::of(&params.self_signed(&key).unwrap(), key)
    }

    fn of(certificate: &rcgen::Certificate, key: KeyPair) -> Self {
        Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key,
        }
    }

    /// A server that shows this certificate.
    pub fn server(&self) -> Arc<ServerConfig> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![self.der.clone()], self.private_key()).unwrap())
    }

    /// A server that shows this certificate, and lets in who shows one of that authority.
    pub fn server_demanding(&self, clients: &Authority) -> Arc<ServerConfig> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let roots = Arc::new(clients.roots());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let builder = builder.with_client_cert_verifier(verifier);
        Arc::new(builder.with_single_cert(vec![self.der.clone()], self.private_key()).unwrap())
    }

    /// The certificate as it goes over the wire.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// Writes `NAME.pem` and `NAME.key`, the latter for its owner alone.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(name).with_extension("pem"), &self.certificate_pem).unwrap();
        write_private(&folder.join(name).with_extension("key"), &self.key_pem);
    }
}

/// A file of mode 0600.
pub fn write_private(path: &Path, text: &str) {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
