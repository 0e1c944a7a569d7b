//! Outgoing GET requests for keys and metadata. The address is resolved, checked and then used, never resolved
//! again; nothing is followed, inflated or waited for without a bound.

mod address;
#[cfg(test)]
mod tests;

use self::address::{CheckedResolver, Lookup};
use reqwest::{StatusCode, Url, header};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

/// How far a fetcher may reach. The default is production's: HTTPS to public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether names may lead to private and loopback addresses. Link-local ones (where clouds keep their metadata
    /// services) stay refused.
    pub allow_private_addresses: bool,
    /// Whether `http://` is allowed to loopback, for development. The system's certificates are then not read.
    pub allow_http: bool,
    /// PEM file of certification authorities trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Fetches small JSON documents.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: reqwest::Client,
    reach: Reach,
    timeout: Duration,
}

/// A document, and for how long its server says that it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// At most [`MAX_BODY_BYTES`].
    pub body: Vec<u8>,
    /// `Cache-Control: max-age`; zero for `no-store` and `no-cache`.
    pub max_age: Option<Duration>,
}

/// Why nothing was fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The fetcher cannot be made: certificates unreadable, or no TLS.
    #[error("cannot prepare to fetch: {0}")]
    Setup(String),
    /// Not HTTPS, or not a plain URL.
    #[error("URL not allowed: {0}")]
    Url(&'static str),
    /// The name leads to an address that may not be asked.
    #[error("address not allowed")]
    Address,
    /// Neither connection nor answer.
    #[error("no answer: {0}")]
    Transport(String),
    /// The whole exchange took longer than [`TOTAL_TIMEOUT`].
    #[error("took too long")]
    Timeout,
    /// Any status but 200; redirects are not followed.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not JSON, or is compressed.
    #[error("answer is not plain JSON")]
    MediaType,
    /// Over [`MAX_BODY_BYTES`].
    #[error("answer too large")]
    TooLarge,
}

impl Fetcher {
    /// A fetcher with this reach. Reads the certificates once.
    pub fn new(reach: Reach) -> Result<Self, FetchError> {
        Self::assemble(reach, address::system_lookup(), TOTAL_TIMEOUT)
    }

    fn assemble(reach: Reach, lookup: Lookup, timeout: Duration) -> Result<Self, FetchError> {
        // One provider of cryptography in the process; an error only says that it is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let roots = match &reach.ca_file {
            None => Vec::new(),
            Some(file) => read_certificates(file)?,
        };
        let builder = reqwest::Client::builder()
            .user_agent("deputize")
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // A pooled connection would keep an address that was checked long ago.
            .pool_max_idle_per_host(0)
            .https_only(!reach.allow_http)
            .dns_resolver(Arc::new(CheckedResolver::new(reach.allow_private_addresses, lookup)));
        let builder =
            if reach.allow_http { builder.tls_certs_only(roots) } else { builder.tls_certs_merge(roots) };
        let client = builder.build().map_err(|error| FetchError::Setup(describe(&error)))?;
        Ok(Self { client, reach, timeout })
    }

    /// Fetches one JSON document.
    pub async fn get_json(&self, url: &Url) -> Result<Fetched, FetchError> {
        self.check_url(url)?;
        // The client's own timeout does not cover name resolution.
        tokio::time::timeout(self.timeout, self.exchange(url)).await.map_err(|_| FetchError::Timeout)?
    }

    /// Whether a URL may be fetched at all. A literal address never meets the resolver: it is checked here.
    fn check_url(&self, url: &Url) -> Result<(), FetchError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Url("credentials in it"));
        }
        let literal = match url.host() {
            None => return Err(FetchError::Url("no host")),
            Some(url::Host::Domain(_)) => None,
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        if literal.is_some_and(|address| !address::allowed(address, self.reach.allow_private_addresses)) {
            return Err(FetchError::Address);
        }
        let loopback = literal.map_or(url.host_str() == Some("localhost"), |address| address.is_loopback());
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.reach.allow_http && loopback => Ok(()),
            _ => Err(FetchError::Url("not https")),
        }
    }

    async fn exchange(&self, url: &Url) -> Result<Fetched, FetchError> {
        let request = self
            .client
            .get(url.clone())
            .header(header::ACCEPT, "application/json, application/jwk-set+json")
            .header(header::ACCEPT_ENCODING, "identity");
        let mut response = request.send().await.map_err(from_reqwest)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let headers = response.headers();
        // Nothing is inflated: a small answer cannot grow.
        if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
            || !headers.get(header::CONTENT_TYPE).is_some_and(is_json)
        {
            return Err(FetchError::MediaType);
        }
        let max_age = headers.get(header::CACHE_CONTROL).and_then(|value| max_age(value.to_str().ok()?));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(from_reqwest)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body, max_age })
    }
}

impl FetchError {
    /// The constant word under which a failure is counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Url(_) => "url",
            Self::Address => "address",
            Self::Transport(_) => "transport",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
        }
    }
}

fn read_certificates(file: &std::path::Path) -> Result<Vec<reqwest::Certificate>, FetchError> {
    let unreadable = |why: &dyn std::fmt::Display| FetchError::Setup(format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unreadable(&error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
    if certificates.is_empty() { Err(unreadable(&"no certificate in it")) } else { Ok(certificates) }
}

/// `application/json`, `application/jwk-set+json` and other `+json` types (RFC 6839 §3.1).
fn is_json(content_type: &header::HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// RFC 9111 §5.2.2.
fn max_age(cache_control: &str) -> Option<Duration> {
    let directives: Vec<String> =
        cache_control.split(',').map(|directive| directive.trim().to_ascii_lowercase()).collect();
    if directives.iter().any(|directive| directive == "no-store" || directive == "no-cache") {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|directive| directive.strip_prefix("max-age="))?;
    seconds.trim_matches('"').parse().ok().map(Duration::from_secs)
}

fn from_reqwest(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        if error.is::<address::NotAllowed>() {
            return FetchError::Address;
        }
        cause = error.source();
    }
    FetchError::Transport(describe(&error))
}

/// An error with its causes; reqwest's own text stops at the first.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The largest document accepted, as it comes over the wire.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Name, connection, TLS, answer: all of it.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
