//! What the configuration file says of AWS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU32, path::PathBuf};

/// AWS credentials for the one resource in a call. Nothing of it is ever taken from the environment variables or files
/// that AWS's own tools read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Folder of role templates (`*.yaml`, `*.yml`, `*.json`), one each.
    pub templates: PathBuf,
    /// The only accounts whose roles are used: 12 digits each, in quotes. A template of another is refused.
    #[schemars(inner(regex(pattern = "^[0-9]{12}$")))]
    pub accounts: Vec<String>,
    /// The identity that AWS knows the broker by. Without `assume_role` it is how roles are assumed.
    #[serde(default)]
    pub web_identity: WebIdentity,
    /// Where and how AWS STS is asked.
    #[serde(default)]
    pub sts: Sts,
    /// Keys of an AWS user, instead of the web identity, where AWS cannot fetch the broker's keys.
    #[serde(default)]
    pub assume_role: Option<AssumeRole>,
}

/// The identity that AWS knows the broker by: an OpenID Connect provider in IAM.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebIdentity {
    /// Its issuer URL, where discovery and keys are published elsewhere than at the broker; `{issuer}/web-identity` by
    /// default.
    pub issuer: Option<String>,
    /// `aud` of its tokens, as the OpenID Connect provider in IAM has it; `sts.amazonaws.com` by default.
    pub audience: Option<String>,
    /// What its tokens are signed with.
    pub algorithm: WebIdentityAlgorithm,
}

impl WebIdentity {
    /// Audience of its tokens.
    pub fn audience(&self) -> String {
        self.audience.clone().unwrap_or_else(|| WEB_IDENTITY_AUDIENCE.to_owned())
    }
}

/// Signature algorithms that AWS takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "names of RFC 7518")]
pub enum WebIdentityAlgorithm {
    #[default]
    ES256,
    RS256,
}

/// How AWS STS is asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sts {
    /// Another endpoint than AWS's own of the template's region: one in your network, or a stand-in. `{region}` stands
    /// for the region.
    pub endpoint: Option<String>,
    /// PEM file of a private certification authority.
    pub ca_file: Option<PathBuf>,
    /// Whether its address may be private or loopback: for an interface endpoint in your network, or a stand-in.
    pub allow_private_addresses: bool,
    /// Calls a second for roles of one account; what is over is refused with 503. Every call of a tool that has a
    /// template is one, whatever the server asks again.
    pub calls_per_second: NonZeroU32,
}

/// Keys of an AWS user who may assume the roles.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// `AccessKeyId`.
    pub access_key_id: String,
    /// File with the secret access key, readable by its owner alone. It is read for each call.
    pub secret_access_key_file: PathBuf,
    /// File with the session token, where the keys are those of a session.
    #[serde(default)]
    pub session_token_file: Option<PathBuf>,
}

impl Default for Sts {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            allow_private_addresses: false,
            calls_per_second: CALLS_PER_SECOND,
        }
    }
}

/// A sixth of what AWS grants an account in one region by default, for all that ask STS there.
const CALLS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// What IAM's own examples have, and AWS's SDKs ask tokens for.
pub const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";
