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

    /// The stable claim that its `sub` encodes.
    pub fn stable(&self) -> Option<String> {
        let (_, encoded) = self.sub.rsplit_once(':')?;
        let pair = format!("={encoded}");
        let (_, stable) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
        Some(stable.into_owned())
    }

    /// Whether a text is of the form of our `sub`; whether there is such a person, nobody can tell.
    pub fn is_sub(text: &str) -> bool {
        let Some(rest) = text.strip_prefix("user:") else { return false };
        // Neither the tag nor the encoded claim contains a colon; a tenant may.
        let Some((rest, stable)) = rest.rsplit_once(':') else { return false };
        let Some((tenant, tag)) = rest.rsplit_once(':') else { return false };
        let tag = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, tag);
        let encoded = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'*' | b'+' | b'-' | b'.' | b'_')
        };
        !tenant.is_empty()
            && tag.is_ok_and(|tag| tag.len() == 16)
            && !stable.is_empty()
            && stable.bytes().all(encoded)
            && text.len() <= MAX_SUB_BYTES
    }
}

/// A stable claim may have 1,024 bytes, each of which may become three.
const MAX_SUB_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_a_sub_and_other_texts_are_not() {
        for (tenant, stable) in [("acme", "alice"), ("a:b", "x:y/é %"), ("acme", "00u1*._-+")] {
            let sub = Person::encode_sub(tenant, "https://idp.example", stable);
            assert!(Person::is_sub(&sub), "{sub}");
        }
        let good = Person::encode_sub("acme", "https://idp.example", "alice");
        for bad in [
            "",
            "alice",
            "user:",
            "user:acme:alice",
            "user:acme:idp:alice",
            &good.replacen("user:", "", 1),
            &good.replacen("acme", "", 1),
            &good.replace("alice", ""),
            &good.replace("alice", "al ice"),
            &good.replace("alice", "alicé"),
            &format!(" {good}"),
            &format!("{good}\n"),
            &format!("{good}{}", "x".repeat(MAX_SUB_BYTES)),
        ] {
            assert!(!Person::is_sub(bad), "{bad:?}");
        }
    }
}
