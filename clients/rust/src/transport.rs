//! HTTP to the broker: no redirects, no proxies, bounded in time and size.

use crate::{builder::BuildError, error::ExchangeError};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{sync::Arc, time::Duration};
use zeroize::Zeroizing;

pub(crate) struct Transport {
    http: reqwest::Client,
    timeout: Duration,
}

/// What a client shows on its connections, as PEM.
pub(crate) struct ClientCertificate {
    /// Its certificate first, then what leads to its authority.
    pub(crate) certificate_pem: Vec<u8>,
    pub(crate) key_pem: Zeroizing<Vec<u8>>,
}

/// An answer, received whole.
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) dpop_nonce: Option<String>,
    pub(crate) retry_after_seconds: Option<u64>,
    /// Media type without its parameters, in lower case; empty where none was given.
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
}

/// What goes out.
pub(crate) struct Post<'p> {
    pub(crate) url: &'p str,
    pub(crate) form: &'p str,
    pub(crate) proof: Option<&'p str>,
    /// How long the broker may hold the answer back (RFC 7240 `wait`).
    pub(crate) wait_seconds: Option<u64>,
    /// The media type that is asked for.
    pub(crate) accept: &'p str,
}

impl Transport {
    pub(crate) fn new(
        ca_pem: Option<&[u8]>,
        certificate: Option<&ClientCertificate>,
        timeout: Duration,
    ) -> Result<Self, BuildError> {
        let http = http(ca_pem, certificate)?;
        Ok(Self { http, timeout })
    }

    pub(crate) async fn get(&self, url: &str) -> Result<Received, ExchangeError> {
        let sent = self.http.get(url).timeout(self.timeout).send().await;
        receive(sent.map_err(unreachable)?).await
    }

    /// Sends a request in the name of a client that proves itself by `bearer`; the answer's body is still to come.
    pub(crate) async fn send_bearer(
        &self,
        url: &str,
        bearer: &str,
        json: Option<&[u8]>,
    ) -> Result<reqwest::Response, ExchangeError> {
        let request = match json {
            // A stream has no end that could be waited for.
            None => self.http.get(url),
            Some(json) => self
                .http
                .post(url)
                .timeout(self.timeout)
                .header("content-type", "application/json")
                .body(json.to_vec()),
        };
        let sent = request.header("authorization", format!("Bearer {bearer}")).send();
        let sent = tokio::time::timeout(self.timeout, sent).await;
        sent.map_err(|_| ExchangeError::Unreachable("no answer in time".to_owned()))?.map_err(unreachable)
    }

    pub(crate) async fn post(&self, post: &Post<'_>) -> Result<Received, ExchangeError> {
        let wait = Duration::from_secs(post.wait_seconds.unwrap_or_default());
        let mut request = self
            .http
            .post(post.url)
            .timeout(self.timeout + wait)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", post.accept)
            .body(post.form.as_bytes().to_vec());
        if let Some(proof) = post.proof {
            request = request.header("dpop", proof);
        }
        if let Some(seconds) = post.wait_seconds {
            request = request.header("prefer", format!("wait={seconds}"));
        }
        receive(request.send().await.map_err(unreachable)?).await
    }
}

/// A client that trusts these certificates (PEM), or the platform's, and shows one of its own where it has one.
pub(crate) fn http(
    ca_pem: Option<&[u8]>,
    certificate: Option<&ClientCertificate>,
) -> Result<reqwest::Client, BuildError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = reqwest::Client::builder();
    match ca_pem {
        Some(pem) => builder = builder.tls_backend_preconfigured(private_roots(pem, certificate, provider)?),
        None => {
            // Without CA certificates of its own the platform's are used, by whatever provider the process has;
            // an error says that it has one already.
            let _ = aws_lc_rs::default_provider().install_default();
            if let Some(certificate) = certificate {
                builder = builder.identity(certificate.identity()?);
            }
        }
    }
    builder
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| BuildError::Http(error.to_string()))
}

pub(crate) async fn receive(mut response: reqwest::Response) -> Result<Received, ExchangeError> {
    let header = |name: &str, max: usize| {
        let value = response.headers().get(name)?.to_str().ok()?;
        (value.len() <= max).then(|| value.to_owned())
    };
    let dpop_nonce = header("dpop-nonce", MAX_NONCE_BYTES);
    let retry_after_seconds = header("retry-after", 10).and_then(|value| value.parse().ok());
    let media_type = header("content-type", MAX_MEDIA_TYPE_BYTES).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(ExchangeError::Protocol("the answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Received { status, dpop_nonce, retry_after_seconds, media_type, body })
}

impl ClientCertificate {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, BuildError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate_pem).collect();
        let chain = chain.map_err(unusable)?;
        if chain.is_empty() { Err(unusable("there is no certificate in it")) } else { Ok(chain) }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, BuildError> {
        PrivateKeyDer::from_pem_slice(&self.key_pem).map_err(unusable)
    }

    /// As reqwest takes it where it looks for the platform's roots itself.
    fn identity(&self) -> Result<reqwest::Identity, BuildError> {
        // What reqwest says of them is less clear, and comes later.
        CertifiedKey::from_der(self.chain()?, self.key()?, &aws_lc_rs::default_provider())
            .map_err(unusable)?;
        let mut pem = Zeroizing::new(self.key_pem.to_vec());
        pem.push(b'\n');
        pem.extend_from_slice(&self.certificate_pem);
        reqwest::Identity::from_pem(&pem).map_err(unusable)
    }
}

fn unusable(error: impl ToString) -> BuildError {
    BuildError::ClientCertificate(error.to_string())
}

fn private_roots(
    pem: &[u8],
    certificate: Option<&ClientCertificate>,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<ClientConfig, BuildError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| BuildError::CaPem(error.to_string()))?;
        roots.add(certificate).map_err(|error| BuildError::CaPem(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(BuildError::CaPem("there is no certificate in them".to_owned()));
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::Http(error.to_string()))?;
    let builder = builder.with_root_certificates(roots);
    match certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(shown) => builder.with_client_auth_cert(shown.chain()?, shown.key()?).map_err(unusable),
    }
}

/// The URL is taken out: what is left names no token, and the caller knows whom it asked.
pub(crate) fn unreachable(error: reqwest::Error) -> ExchangeError {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    ExchangeError::Unreachable(text)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 256 * 1024;
const MAX_NONCE_BYTES: usize = 256;
const MAX_MEDIA_TYPE_BYTES: usize = 256;
