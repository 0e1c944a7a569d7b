//! What the file says of the kubelet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The kubelet of the broker's own node, where it is one of a cluster: it says which pods run there. Without it the
/// broker's socket knows no more of a pod than what the kernel tells.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpiffeKubelet {
    /// Where it is: an address or name of the node, with a port where that is not 10250.
    pub address: String,
    /// PEM: the authorities of its certificate. Either this or `certificate_file`.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM: its certificate itself, where it signed that for itself; no other is taken, and this one by any name.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// File with the token of a service account that may `get` `nodes/pods`; read anew each time.
    pub token_file: PathBuf,
}
