use deputize_call::keys::KeySet;
use deputize_issuer::clock::TestClock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::TrustDomain;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const ID: &str = "spiffe://partner.test/deputize/broker";
const DOCUMENT: &str = "{\"keys\":[]}";
/// 2027-01-15.
const NOW: u64 = 1_800_000_000;

struct Signs {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signs {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), pem: certificate.pem(), issuer: Issuer::new(parameters, key) }
    }

    fn bundle(&self) -> Arc<Bundle> {
        Arc::new(Bundle {
            trust_domain: TrustDomain::new("partner.test").unwrap(),
            x509_authorities: vec![self.der.to_vec()],
            jwt_authorities: KeySet::new(Vec::new()),
            sequence: 1,
            refresh_hint_seconds: 300,
        })
    }

    /// A server that shows a certificate, and answers everybody so; its port.
    async fn serve(&self, parameters: &CertificateParams, answer: &'static str) -> u16 {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let chain = vec![parameters.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    request.push(byte);
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }
}

fn svid(id: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = date_time_ymd(2026, 1, 1);
    parameters.not_after = date_time_ymd(2028, 1, 1);
    parameters.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

async fn fetch(port: u16, profile: Profile, trusted: Option<Arc<Bundle>>) -> Result<String, NotFetched> {
    let url = format!("https://localhost:{port}/spiffe/bundle").parse().unwrap();
    let endpoint = Endpoint { url, profile, allow_private_addresses: true };
    let fetcher = BundleFetcher::new(Arc::new(TestClock::at_seconds(NOW)));
    fetcher.fetch(&endpoint, trusted).await.map(|document| String::from_utf8(document).unwrap())
}

fn exactly(id: &str) -> Profile {
    Profile::HttpsSpiffe { endpoint_spiffe_id: id.parse().unwrap() }
}

const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}";
const MOVED: &str = "HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn an_endpoint_is_exactly_the_spiffe_id_that_it_should_be_whatever_its_host_is_called() {
    let theirs = Signs::new("theirs");
    let port = theirs.serve(&svid(ID), OK).await;
    assert_eq!(fetch(port, exactly(ID), Some(theirs.bundle())).await.unwrap(), DOCUMENT);
    let mut for_servers = svid(ID);
    for_servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let port = theirs.serve(&for_servers, OK).await;
    assert_eq!(fetch(port, exactly(ID), Some(theirs.bundle())).await.unwrap(), DOCUMENT);

    let refused = async |port: u16, id: &str, bundle: Option<Arc<Bundle>>| {
        fetch(port, exactly(id), bundle).await.unwrap_err()
    };
    let sibling = refused(port, "spiffe://partner.test/deputize/broker2", Some(theirs.bundle())).await;
    assert!(sibling.detail.contains("it is spiffe://partner.test/deputize/broker, and not"), "{sibling}");
    assert_eq!(refused(port, ID, None).await.reason, "no_bundle");
    let strangers = Signs::new("theirs");
    assert_eq!(refused(port, ID, Some(strangers.bundle())).await.reason, "transport");

    let changed = |change: fn(&mut CertificateParams)| {
        let mut parameters = svid(ID);
        change(&mut parameters);
        parameters
    };
    for (what, parameters) in [
        ("of another trust domain", svid("spiffe://other.test/deputize/broker")),
        ("ended", changed(|svid| svid.not_after = date_time_ymd(2027, 1, 1))),
        ("not begun", changed(|svid| svid.not_before = date_time_ymd(2027, 2, 1))),
        (
            "for clients alone",
            changed(|svid| svid.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        ("an authority", changed(|svid| svid.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("a name of a host alone", CertificateParams::new(vec!["localhost".to_owned()]).unwrap()),
        (
            "two IDs",
            changed(|svid| {
                svid.subject_alt_names.push(SanType::URI("spiffe://partner.test/b".try_into().unwrap()));
            }),
        ),
    ] {
        let port = theirs.serve(&parameters, OK).await;
        assert_eq!(refused(port, ID, Some(theirs.bundle())).await.reason, "transport", "{what}");
    }
    let port = theirs.serve(&svid(ID), MOVED).await;
    assert_eq!(refused(port, ID, Some(theirs.bundle())).await.reason, "status", "redirects are not followed");
}

#[tokio::test]
async fn an_endpoint_of_the_web_is_its_host_and_an_svid_says_nothing_there() {
    let authority = Signs::new("of the web");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &authority.pem).unwrap();
    let web = || Profile::HttpsWeb { ca_file: Some(file.path().to_owned()) };
    let host = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let port = authority.serve(&host, OK).await;
    assert_eq!(fetch(port, web(), None).await.unwrap(), DOCUMENT);
    assert!(fetch(port, Profile::HttpsWeb { ca_file: None }, None).await.is_err(), "an unknown authority");
    let port = authority.serve(&svid(ID), OK).await;
    assert_eq!(fetch(port, web(), Some(authority.bundle())).await.unwrap_err().reason, "transport");
}
