//! Persons: who a call is made for. A person is (tenant, issuer, configured stable claim), through every hop.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A user of one identity provider, in one tenant, with what that provider says of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Tenant.
    pub tenant: String,
    /// The OIDC issuer that vouches.
    pub issuer: String,
    /// Our `sub`: see [`Person::encode_sub`].
    pub sub: String,
    /// Groups, each namespaced by its issuer: `{issuer}|{group}`. At most 200.
    pub groups: Vec<String>,
    /// Roles that the configuration maps those groups to (`admin`, `analyst`, `support`, …).
    pub roles: Vec<String>,
    /// Further claims that the configuration passes to policy, by their configured name. At most 32.
    pub claims: BTreeMap<String, ClaimValue>,
    /// Authentication context class (`acr`).
    pub acr: Option<String>,
    /// Authentication methods (`amr`, RFC 8176).
    pub amr: Vec<String>,
    /// When the user last authenticated, seconds since the epoch.
    pub auth_time: Option<u64>,
}

/// A claim of a kind that policy can look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A truth value.
    Flag(bool),
    /// An integer.
    Number(i64),
    /// A text of at most 1 KiB.
    Text(String),
    /// At most 100 texts.
    Texts(Vec<String>),
}

impl Person {
    /// Encodes (tenant, issuer, stable claim) as a `sub` that cannot collide with a client id or with another
    /// issuer's user: `user:{tenant}:{base64url of the issuer's SHA-256, 16 bytes}:{stable, percent-encoded}`.
    /// Client ids may not begin with `user:`.
    pub fn encode_sub(tenant: &str, issuer: &str, stable: &str) -> String {
        let digest = deputize_call::digest::sha256(issuer.as_bytes());
        let issuer_tag = base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            digest.get(..16).unwrap_or(&digest),
        );
        let stable: String = url::form_urlencoded::byte_serialize(stable.as_bytes()).collect();
        format!("user:{tenant}:{issuer_tag}:{stable}")
    }
}
