//! What stands behind the traits of the core. Only `assemble` names these.

pub mod approvals_seen;
pub mod embedded;
pub mod entries;
#[cfg(test)]
mod fake_https;
pub mod federation;
pub mod fetch;
pub mod jwe;
pub mod key_files;
pub mod kubelet;
pub mod machine_certificates;
pub mod nodes;
pub mod oidc;
pub mod spiffe_keys;
pub mod sts;
pub mod token_review;
pub mod web_identity_keys;
