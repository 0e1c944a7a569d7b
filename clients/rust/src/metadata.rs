//! Where the broker's endpoints are (RFC 8414).

use crate::{error::ExchangeError, transport::Transport};
use serde::Deserialize;
use url::{Host, Url};

/// The endpoints that a client uses.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    pub(crate) token: String,
    pub(crate) introspection: String,
    pub(crate) revocation: String,
    pub(crate) redemption: String,
    pub(crate) guard_events: String,
    pub(crate) aws_credentials: String,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: String,
    introspection_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    redemption_endpoint: Option<String>,
    guard_events_endpoint: Option<String>,
    aws_credentials_endpoint: Option<String>,
}

impl Endpoints {
    /// Fetches and checks the metadata of `issuer`.
    pub(crate) async fn discover(transport: &Transport, issuer: &str) -> Result<Self, ExchangeError> {
        let url = well_known(issuer).ok_or(ExchangeError::Protocol("the issuer is not a URL"))?;
        let response = transport.get(&url).await?;
        if response.status != 200 {
            return Err(ExchangeError::Protocol("the broker has no metadata"));
        }
        let metadata: Metadata = serde_json::from_slice(&response.body)
            .map_err(|_| ExchangeError::Protocol("the broker's metadata is malformed"))?;
        // RFC 8414 §3.3: identical to the issuer that was asked.
        if metadata.issuer != issuer {
            return Err(ExchangeError::Protocol("the metadata is of another issuer"));
        }
        let fallback = Self::under(issuer, &metadata.token_endpoint);
        let endpoints = Self {
            token: metadata.token_endpoint,
            introspection: metadata.introspection_endpoint.unwrap_or(fallback.introspection),
            revocation: metadata.revocation_endpoint.unwrap_or(fallback.revocation),
            redemption: metadata.redemption_endpoint.unwrap_or(fallback.redemption),
            guard_events: metadata.guard_events_endpoint.unwrap_or(fallback.guard_events),
            aws_credentials: metadata.aws_credentials_endpoint.unwrap_or(fallback.aws_credentials),
        };
        let all = [
            &endpoints.token,
            &endpoints.introspection,
            &endpoints.revocation,
            &endpoints.redemption,
            &endpoints.guard_events,
            &endpoints.aws_credentials,
        ];
        if all.iter().any(|url| checked_url(url).is_none()) {
            return Err(ExchangeError::Protocol("an endpoint in the metadata is not https"));
        }
        Ok(endpoints)
    }

    /// The endpoints where a broker has them by itself.
    pub(crate) fn under(issuer: &str, token_endpoint: &str) -> Self {
        let at = |path: &str| format!("{}/{path}", issuer.trim_end_matches('/'));
        Self {
            token: token_endpoint.to_owned(),
            introspection: at("introspect"),
            revocation: at("revoke"),
            redemption: at("redeem"),
            guard_events: at("guard/events"),
            aws_credentials: at("aws/credentials"),
        }
    }
}

/// An `https` URL, or `http` on loopback; without user info and fragment.
pub(crate) fn checked_url(url: &str) -> Option<Url> {
    let url = Url::parse(url).ok()?;
    let is_loopback = match url.host()? {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => name == "localhost",
    };
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (is_safe && is_plain).then_some(url)
}

/// RFC 8414 §3.1: the well-known path comes between the host and the issuer's own path.
fn well_known(issuer: &str) -> Option<String> {
    let mut url = checked_url(issuer)?;
    let path = format!("/.well-known/oauth-authorization-server{}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url.into())
}
