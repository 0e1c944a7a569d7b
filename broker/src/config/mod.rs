//! Configuration in two steps: [`raw`] is what the file says, [`resolved`] is what is true.

pub mod aws;
pub mod aws_issuer;
mod client_certificates;
mod clients;
pub mod federation;
pub mod kubelet;
pub mod nodes;
pub mod private_file;
pub mod raw;
pub mod read;
pub mod registry;
pub mod resolved;
pub mod spiffe;
pub mod templates;
