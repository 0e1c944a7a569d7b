//! Outgoing GET requests for keys and metadata. The address is resolved, checked and then used, never resolved
//! again; nothing is followed, inflated or waited for without a bound.

mod address;
mod checked;
#[cfg(test)]
mod tests;

pub(super) use self::{
    address::{Lookup, system_lookup},
    checked::{CheckedClient, Patience, check_is_plain, collect, from_reqwest},
};

use reqwest::{Method, StatusCode, Url, header};
use std::{path::PathBuf, time::Duration};

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
    client: CheckedClient,
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
    /// The whole exchange took too long.
    #[error("took too long")]
    Timeout,
    /// Any status but 200; redirects are not followed.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not JSON, or is compressed.
    #[error("answer is not plain JSON")]
    MediaType,
    /// Over the bound.
    #[error("answer too large")]
    TooLarge,
}

impl Fetcher {
    /// A fetcher with this reach. Reads the certificates once.
    pub fn new(reach: Reach) -> Result<Self, FetchError> {
        Self::assemble(reach, address::system_lookup(), TOTAL_TIMEOUT)
    }

    /// A fetcher with this reach that trusts servers as this says, and no certificates besides.
    pub fn trusting(reach: Reach, tls: rustls::ClientConfig) -> Result<Self, FetchError> {
        let client = CheckedClient::trusting(reach, address::system_lookup(), patience(TOTAL_TIMEOUT), tls)?;
        Ok(Self { client, timeout: TOTAL_TIMEOUT })
    }

    fn assemble(reach: Reach, lookup: Lookup, timeout: Duration) -> Result<Self, FetchError> {
        Ok(Self { client: CheckedClient::new(reach, lookup, patience(timeout))?, timeout })
    }

    /// Fetches one JSON document.
    pub async fn get_json(&self, url: &Url) -> Result<Fetched, FetchError> {
        // The client's own timeout does not cover name resolution.
        tokio::time::timeout(self.timeout, self.exchange(url)).await.map_err(|_| FetchError::Timeout)?
    }

    async fn exchange(&self, url: &Url) -> Result<Fetched, FetchError> {
        let request = self
            .client
            .request(Method::GET, url)?
            .header(header::ACCEPT, "application/json, application/jwk-set+json")
            .header(header::ACCEPT_ENCODING, "identity");
        let response = request.send().await.map_err(from_reqwest)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let headers = response.headers();
        if !headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(FetchError::MediaType);
        }
        let max_age = headers.get(header::CACHE_CONTROL).and_then(|value| max_age(value.to_str().ok()?));
        Ok(Fetched { body: collect(response, MAX_BODY_BYTES).await?, max_age })
    }
}

fn patience(total: Duration) -> Patience {
    // A pooled connection would keep an address that was checked long ago.
    Patience { connect: CONNECT_TIMEOUT, total, idle: Duration::ZERO }
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

/// The largest document accepted, as it comes over the wire.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Name, connection, TLS, answer: all of it.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
