//! What the log says of the bundles of foreign trust domains: whose SVIDs verify here, and from when on.

use deputize_call::{digest::sha256, keys::PublicKey};
use serde::{Deserialize, Serialize};

use super::{Entry, Kind};
use crate::{authority::hex, svid::Bundle};

/// A bundle, as its record says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleEntry {
    /// Whose it is.
    pub trust_domain: String,
    /// Its number; 0 where it has none.
    pub sequence: u64,
    /// Where it came from: `file` or `endpoint`.
    pub from: String,
    /// Its X.509 authorities: SHA-256 of each certificate (DER), in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub x509_authorities: Vec<String>,
    /// Its JWT authorities: the id of each key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwt_authorities: Vec<String>,
}

/// That a bundle holds from now on (`taken`), or that none of its trust domain does (`forgotten`).
pub fn bundle_entry(bundle: &Bundle, from: &str, is_taken: bool, at_ms: u64) -> Entry {
    let x509 = bundle.x509_authorities.iter().map(|der| hex(&sha256(der)));
    let jwt = bundle.jwt_authorities.iter().filter_map(PublicKey::kid);
    let bundle = BundleEntry {
        trust_domain: bundle.trust_domain.as_str().to_owned(),
        sequence: bundle.sequence,
        from: from.to_owned(),
        x509_authorities: x509.collect(),
        jwt_authorities: jwt.map(|kid| kid.chars().take(MAX_KID_CHARACTERS).collect()).collect(),
    };
    Entry {
        result: Some(if is_taken { "taken" } else { "forgotten" }.to_owned()),
        bundle: Some(bundle),
        ..Entry::new(Kind::Bundle, at_ms)
    }
}

/// A hundred of them fit into a record.
const MAX_KID_CHARACTERS: usize = 100;
