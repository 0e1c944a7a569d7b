//! What the file says of foreign trust domains, and of how they get our bundle.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A foreign trust domain, and where its bundle comes from: a file, an endpoint that is asked again and again, or both.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeFederation {
    /// Its name.
    pub trust_domain: String,
    /// Its bundle, as it publishes it: a JWK Set (SPIFFE Trust Domain and Bundle §4). Read again at each reload. With an
    /// endpoint it is the first one: taken when it is new here, and followed by what the endpoint says.
    #[serde(default)]
    pub bundle_file: Option<PathBuf>,
    /// Where it publishes its bundle.
    #[serde(default)]
    pub endpoint: Option<SpiffeEndpoint>,
}

/// A bundle endpoint of a foreign trust domain (SPIFFE Federation §5).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeEndpoint {
    /// Its URL: https.
    pub url: String,
    /// How it is authenticated.
    pub profile: SpiffeProfile,
    /// `https_spiffe`: the SPIFFE ID that it must have, and no other will do.
    #[serde(default)]
    pub endpoint_spiffe_id: Option<String>,
    /// `https_web`: PEM file of certification authorities trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether its name may lead to private addresses.
    #[serde(default)]
    pub allow_private_addresses: bool,
}

/// How a bundle endpoint is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpiffeProfile {
    /// By a certificate for its host, as any website is (SPIFFE Federation §5.2.1).
    HttpsWeb,
    /// By an X.509-SVID of a trust domain whose bundle is here (SPIFFE Federation §5.2.2).
    HttpsSpiffe,
}

/// A listener that gives our bundle to whoever knows us by it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeBundleEndpoint {
    /// Where it listens, such as `0.0.0.0:8444`. It shows the X.509-SVID `spiffe://{trust_domain}/deputize/broker`, and answers
    /// `GET /spiffe/bundle`.
    pub address: String,
}
