use super::*;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// A server on loopback that gives each connection these bytes, and what it was asked.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(None, move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    async fn start<F, Fut>(tls: Option<tokio_rustls::TlsAcceptor>, answer: F) -> Self
    where
        F: Fn(Box<dyn Stream>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream: Box<dyn Stream> = match &tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => continue,
                    },
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(request).unwrap());
                tokio::spawn(answer(stream));
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://{}/jwks", self.address)).unwrap()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

fn development() -> Reach {
    Reach { allow_private_addresses: true, allow_http: true, ca_file: None }
}

async fn fetch(server: &Server) -> Result<Fetched, FetchError> {
    Fetcher::new(development()).unwrap().get_json(&server.url()).await
}

/// Answers every name with these addresses, and counts.
fn fake_lookup(addresses: &[&str]) -> (Lookup, Arc<AtomicUsize>) {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let lookup: Lookup = Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    });
    (lookup, count)
}

#[tokio::test]
async fn a_small_json_document_is_fetched() {
    let server = Server::answering(format!(
        "{JSON}cache-control: public, max-age=600\r\ncontent-length: 2\r\n\r\n{{}}"
    ))
    .await;
    let fetched = fetch(&server).await.unwrap();
    assert_eq!(fetched, Fetched { body: b"{}".to_vec(), max_age: Some(Duration::from_secs(600)) });
    let request = server.requests.lock().unwrap().concat().to_lowercase();
    assert!(request.starts_with("get /jwks http/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity"), "{request}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::answering(format!("{JSON}content-length: 2\r\n\r\n{{}}")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = elsewhere.url();
        let server = Server::answering(format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        assert_eq!(fetch(&server).await, Err(FetchError::Status(status)));
    }
    assert!(elsewhere.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn other_statuses_and_media_types_are_refused() {
    for (head, error) in [
        ("HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\n", FetchError::Status(500)),
        ("HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n", FetchError::Status(404)),
        ("HTTP/1.1 206 Partial\r\ncontent-type: application/json\r\n", FetchError::Status(206)),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n", FetchError::MediaType),
        ("HTTP/1.1 200 OK\r\ncontent-type: application/jsonx\r\n", FetchError::MediaType),
        ("HTTP/1.1 200 OK\r\n", FetchError::MediaType),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n",
            FetchError::MediaType,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\n",
            FetchError::MediaType,
        ),
    ] {
        let server = Server::answering(format!("{head}content-length: 2\r\n\r\n{{}}")).await;
        assert_eq!(fetch(&server).await, Err(error), "{head}");
    }
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-type: Application/jwk-set+JSON; charset=utf-8\r\ncontent-length: 2\r\n\r\n{}").await;
    fetch(&server).await.unwrap();
}

#[tokio::test]
async fn a_document_may_be_so_large_and_no_larger() {
    for (length, passes) in [(MAX_BODY_BYTES, true), (MAX_BODY_BYTES + 1, false)] {
        let body = vec![b' '; length];
        let announced =
            [format!("{JSON}content-length: {length}\r\n\r\n").into_bytes(), body.clone()].concat();
        let unannounced = [format!("{JSON}connection: close\r\n\r\n").into_bytes(), body].concat();
        for answer in [announced, unannounced] {
            let fetched = fetch(&Server::answering(answer).await).await;
            assert_eq!(
                fetched.map(|fetched| fetched.body.len()),
                if passes { Ok(length) } else { Err(FetchError::TooLarge) }
            );
        }
    }
}

#[tokio::test]
async fn an_endless_chunked_answer_ends_at_the_bound() {
    let server = Server::start(None, |mut stream| async move {
        let _ = stream.write_all(format!("{JSON}transfer-encoding: chunked\r\n\r\n").as_bytes()).await;
        let chunk = [b"1000\r\n".to_vec(), vec![b' '; 0x1000], b"\r\n".to_vec()].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    })
    .await;
    assert_eq!(fetch(&server).await, Err(FetchError::TooLarge));
}

#[tokio::test]
async fn neither_silence_nor_a_slow_drip_outlasts_the_timeout() {
    let fetcher =
        Fetcher::assemble(development(), address::system_lookup(), Duration::from_millis(300)).unwrap();
    let silent = Server::start(None, |stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(fetcher.get_json(&silent.url()).await, Err(FetchError::Timeout));
    let dripping = Server::start(None, |mut stream| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let _ = stream.write_all(format!("{JSON}content-length: 10000\r\n\r\n").as_bytes()).await;
        while stream.write_all(b" ").await.is_ok() && stream.flush().await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    assert_eq!(fetcher.get_json(&dripping.url()).await, Err(FetchError::Timeout));
}

#[tokio::test]
async fn urls_that_are_not_https_are_refused_outside_development() {
    let authority = authority();
    let ca_file = Some(authority.file.path().to_owned());
    let production = Reach { allow_private_addresses: true, allow_http: false, ca_file };
    let production = Fetcher::new(production).unwrap();
    let refused = |text: &str| production.client.check_url(&Url::parse(text).unwrap());
    assert_eq!(refused("https://id.example.com/jwks"), Ok(()));
    for text in [
        "http://id.example.com/",
        "http://127.0.0.1/",
        "ftp://id.example.com/",
        "file:///etc/passwd",
        "data:,{}",
        "https://user:pass@id.example.com/",
    ] {
        assert!(matches!(refused(text), Err(FetchError::Url(_))), "{text}");
    }
    let development = Fetcher::new(development()).unwrap();
    let refused = |text: &str| development.client.check_url(&Url::parse(text).unwrap());
    assert_eq!(refused("http://localhost:8080/"), Ok(()));
    assert_eq!(refused("http://[::1]:8080/"), Ok(()));
    for text in ["http://id.example.com/", "http://10.0.0.1/", "http://localhost.example.com/"] {
        assert_eq!(refused(text), Err(FetchError::Url("not https")), "{text}");
    }
}

#[tokio::test]
async fn literal_addresses_are_checked_in_every_spelling() {
    let fetcher = Fetcher::assemble(
        Reach { ca_file: Some(authority().file.path().to_owned()), ..Reach::default() },
        address::system_lookup(),
        TOTAL_TIMEOUT,
    )
    .unwrap();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "[fd00::1]",
        "0.0.0.0",
    ] {
        let url = Url::parse(&format!("https://{host}/jwks")).unwrap();
        assert_eq!(fetcher.get_json(&url).await, Err(FetchError::Address), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_leads_inward_with_any_address_is_refused() {
    let authority = authority();
    let reach = Reach { ca_file: Some(authority.file.path().to_owned()), ..Reach::default() };
    for addresses in [
        &["127.0.0.1"][..],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["8.8.8.8", "127.0.0.1"],
        &["::1"],
        &["::ffff:10.0.0.1"],
        &[],
    ] {
        let (lookup, _) = fake_lookup(addresses);
        let fetcher = Fetcher::assemble(reach.clone(), lookup, TOTAL_TIMEOUT).unwrap();
        let url = Url::parse("https://id.example.com/jwks").unwrap();
        assert_eq!(fetcher.get_json(&url).await, Err(FetchError::Address), "{addresses:?}");
    }
    // `localhost` is this machine, whatever a resolver says.
    let (lookup, _) = fake_lookup(&["10.0.0.1"]);
    let fetcher = Fetcher::assemble(development(), lookup, TOTAL_TIMEOUT).unwrap();
    assert_eq!(fetcher.get_json(&Url::parse("http://localhost/").unwrap()).await, Err(FetchError::Address));
}

/// A certification authority of the test's own, in a file.
struct Authority {
    file: tempfile::NamedTempFile,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn authority() -> Authority {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), parameters.self_signed(&key).unwrap().pem()).unwrap();
    Authority { file, issuer: rcgen::Issuer::new(parameters, key) }
}

impl Authority {
    fn acceptor(&self, name: &str) -> tokio_rustls::TlsAcceptor {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        tokio_rustls::TlsAcceptor::from(Arc::new(
            config.with_single_cert(vec![certificate.der().clone()], key).unwrap(),
        ))
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_configured_and_a_name_is_resolved_once() {
    let authority = authority();
    let answer = |mut stream: Box<dyn Stream>| async move {
        let _ = stream.write_all(format!("{JSON}content-length: 2\r\n\r\n{{}}").as_bytes()).await;
        let _ = stream.shutdown().await;
    };
    let server = Server::start(Some(authority.acceptor("id.example.com")), answer).await;
    let url = Url::parse(&format!("https://id.example.com:{}/jwks", server.address.port())).unwrap();
    let reach = Reach {
        allow_private_addresses: true,
        allow_http: false,
        ca_file: Some(authority.file.path().to_owned()),
    };

    let (lookup, lookups) = fake_lookup(&["127.0.0.1"]);
    let fetcher = Fetcher::assemble(reach.clone(), lookup, TOTAL_TIMEOUT).unwrap();
    fetcher.get_json(&url).await.unwrap();
    assert_eq!(lookups.load(Ordering::SeqCst), 1, "what was checked is what was connected to");

    // Another name than the certificate's; another authority.
    let (lookup, _) = fake_lookup(&["127.0.0.1"]);
    let fetcher = Fetcher::assemble(reach.clone(), lookup, TOTAL_TIMEOUT).unwrap();
    let other_name =
        Url::parse(&format!("https://other.example.com:{}/jwks", server.address.port())).unwrap();
    assert_eq!(fetcher.get_json(&other_name).await.unwrap_err().reason(), "transport");
    let stranger = self::authority();
    let (lookup, _) = fake_lookup(&["127.0.0.1"]);
    let reach = Reach { ca_file: Some(stranger.file.path().to_owned()), ..reach };
    let fetcher = Fetcher::assemble(reach, lookup, TOTAL_TIMEOUT).unwrap();
    assert_eq!(fetcher.get_json(&url).await.unwrap_err().reason(), "transport");
}

#[test]
fn a_certificate_file_without_certificates_is_an_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let reach = Reach { ca_file: Some(empty.path().to_owned()), ..Reach::default() };
    assert!(matches!(Fetcher::new(reach), Err(FetchError::Setup(_))));
    let reach = Reach { ca_file: Some("/nonexistent.pem".into()), ..Reach::default() };
    assert!(matches!(Fetcher::new(reach), Err(FetchError::Setup(_))));
}

#[test]
fn cache_control_is_read() {
    for (value, expected) in [
        ("max-age=300", Some(300)),
        ("public, Max-Age=\"86400\", must-revalidate", Some(86_400)),
        ("no-store", Some(0)),
        ("max-age=300, no-cache", Some(0)),
        ("private", None),
        ("max-age=soon", None),
        ("s-maxage=5", None),
    ] {
        assert_eq!(max_age(value), expected.map(Duration::from_secs), "{value}");
    }
}
