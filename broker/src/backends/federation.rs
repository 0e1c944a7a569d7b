//! Bundle endpoints of foreign trust domains, asked over HTTPS in both profiles; and the folder of what they said.

mod kept;
mod server_svid;
#[cfg(test)]
mod tests;

pub use kept::BundleFolder;

use async_trait::async_trait;
use deputize_issuer::{clock::Clock, svid::Bundle};
use std::sync::Arc;

use super::fetch::{FetchError, Fetcher, Reach};
use crate::{
    config::federation::{Endpoint, Profile},
    federation::{FetchBundle, NotFetched},
};

/// Asks bundle endpoints (SPIFFE Federation §5.2.1.4, §5.2.2.4). Redirects are not followed: who publishes a bundle
/// elsewhere tells whoever configures its URL.
pub struct BundleFetcher {
    clock: Arc<dyn Clock>,
}

impl BundleFetcher {
    /// One that knows the time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    fn fetcher(&self, endpoint: &Endpoint, trusted: Option<Arc<Bundle>>) -> Result<Fetcher, NotFetched> {
        let allow_private_addresses = endpoint.allow_private_addresses;
        let reach = |ca_file| Reach { allow_private_addresses, allow_http: false, ca_file };
        Ok(match &endpoint.profile {
            Profile::HttpsWeb { ca_file } => Fetcher::new(reach(ca_file.clone()))?,
            Profile::HttpsSpiffe { endpoint_spiffe_id } => {
                let trusted = trusted.ok_or_else(|| NotFetched {
                    reason: "no_bundle",
                    detail: format!("the bundle of {} is not here yet", endpoint_spiffe_id.trust_domain()),
                })?;
                let now_seconds = self.clock.now_seconds();
                let tls = server_svid::trusting(endpoint_spiffe_id.clone(), trusted, now_seconds)
                    .map_err(|error| NotFetched { reason: "setup", detail: error.to_string() })?;
                Fetcher::trusting(reach(None), tls)?
            }
        })
    }
}

#[async_trait]
impl FetchBundle for BundleFetcher {
    async fn fetch(&self, endpoint: &Endpoint, trusted: Option<Arc<Bundle>>) -> Result<Vec<u8>, NotFetched> {
        // A new one each time: what it trusts is what is trusted now.
        let fetched = self.fetcher(endpoint, trusted)?.get_json(&endpoint.url).await?;
        Ok(fetched.body)
    }
}

impl From<FetchError> for NotFetched {
    fn from(error: FetchError) -> Self {
        Self { reason: error.reason(), detail: error.to_string() }
    }
}
