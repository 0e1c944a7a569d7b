//! What the file says of a client that shows a certificate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A certificate of an authority, in a name that the client alone has (RFC 8705 §2.1): exactly one name is given, and it
/// is compared exactly.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsClientAuth {
    /// PEM: the authorities, one or several.
    pub authority_file: PathBuf,
    /// DNS name among its subject's alternative names.
    #[serde(default)]
    pub dns: Option<String>,
    /// URI among them.
    #[serde(default)]
    pub uri: Option<String>,
    /// E-mail address among them.
    #[serde(default)]
    pub email: Option<String>,
    /// IP address among them.
    #[serde(default)]
    pub ip: Option<String>,
    /// Its subject (RFC 4514): `CN=support-bot,O=Example`.
    #[serde(default)]
    pub subject_dn: Option<String>,
}
