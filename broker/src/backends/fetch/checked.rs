//! An HTTP client that goes nowhere but where it may: addresses are resolved, checked and then used, never resolved
//! again; redirects are not followed, and proxies of the environment are not asked.

use reqwest::{ClientBuilder, Method, RequestBuilder, Response, Url, header};
use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use super::{
    FetchError, Reach,
    address::{self, CheckedResolver, Lookup},
};

/// A client with a reach.
#[derive(Debug, Clone)]
pub struct CheckedClient {
    client: reqwest::Client,
    reach: Reach,
}

/// How long it waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For all of it but the resolution of names, which who asks has to bound.
    pub total: Duration,
    /// For how long a connection without a request is kept; zero for not at all.
    pub idle: Duration,
}

impl CheckedClient {
    /// A client with this reach. Reads the certificates once.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn new(reach: Reach, lookup: Lookup, patience: Patience) -> Result<Self, FetchError> {
        let is_alone = reach.allow_http;
        Self::build(reach, (lookup, patience), is_alone)
    }

    /// The same, for one server whose certificate the authorities of `ca_file` alone vouch for, where there is one.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn of_one(reach: Reach, lookup: Lookup, patience: Patience) -> Result<Self, FetchError> {
        let is_alone = reach.allow_http || reach.ca_file.is_some();
        Self::build(reach, (lookup, patience), is_alone)
    }

    fn build(
        reach: Reach,
        (lookup, patience): (Lookup, Patience),
        is_alone: bool,
    ) -> Result<Self, FetchError> {
        let roots = match &reach.ca_file {
            None => Vec::new(),
            Some(file) => read_certificates(file)?,
        };
        let builder = builder(&reach, lookup, patience);
        let builder = if is_alone { builder.tls_certs_only(roots) } else { builder.tls_certs_merge(roots) };
        Self::built(builder, reach)
    }

    /// A client that trusts servers as this says, and no certificates besides.
    ///
    /// # Errors
    /// [`FetchError::Setup`].
    pub fn trusting(
        reach: Reach,
        lookup: Lookup,
        patience: Patience,
        tls: rustls::ClientConfig,
    ) -> Result<Self, FetchError> {
        Self::built(builder(&reach, lookup, patience).tls_backend_preconfigured(tls), reach)
    }

    fn built(builder: ClientBuilder, reach: Reach) -> Result<Self, FetchError> {
        let client = builder.build().map_err(|error| FetchError::Setup(describe(&error)))?;
        Ok(Self { client, reach })
    }

    /// A request that may be made.
    ///
    /// # Errors
    /// [`FetchError::Url`], [`FetchError::Address`].
    pub fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, FetchError> {
        self.check_url(url)?;
        Ok(self.client.request(method, url.clone()))
    }

    /// Whether a URL may be asked at all. A literal address never meets the resolver: it is checked here.
    pub fn check_url(&self, url: &Url) -> Result<(), FetchError> {
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
}

fn builder(reach: &Reach, lookup: Lookup, patience: Patience) -> ClientBuilder {
    // One provider of cryptography in the process; an error only says that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent("deputize")
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(patience.connect)
        .timeout(patience.total)
        .pool_max_idle_per_host(if patience.idle.is_zero() { 0 } else { MAX_IDLE_CONNECTIONS })
        .pool_idle_timeout(patience.idle)
        .https_only(!reach.allow_http)
        .dns_resolver(Arc::new(CheckedResolver::new(reach.allow_private_addresses, lookup)))
}

fn read_certificates(file: &Path) -> Result<Vec<reqwest::Certificate>, FetchError> {
    let unreadable = |why: &dyn std::fmt::Display| FetchError::Setup(format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unreadable(&error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
    if certificates.is_empty() { Err(unreadable(&"no certificate in it")) } else { Ok(certificates) }
}

/// The body of an answer, as it comes over the wire: nothing is inflated, so that a small one cannot grow.
///
/// # Errors
/// [`FetchError::TooLarge`], [`FetchError::MediaType`] where it is compressed, and where it breaks off.
pub async fn collect(mut response: Response, most_bytes: usize) -> Result<Vec<u8>, FetchError> {
    check_is_plain(&response)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(from_reqwest)? {
        if body.len() + chunk.len() > most_bytes {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whether an answer comes as it is.
///
/// # Errors
/// [`FetchError::MediaType`] where it is compressed: a small one may become a large one.
pub fn check_is_plain(response: &Response) -> Result<(), FetchError> {
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") { Err(FetchError::MediaType) } else { Ok(()) }
}

/// What went wrong, in words of ours.
pub fn from_reqwest(error: reqwest::Error) -> FetchError {
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

/// Of one host.
const MAX_IDLE_CONNECTIONS: usize = 32;
