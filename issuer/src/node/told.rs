//! How nodes are called.

use spiffe::{SpiffeId, TrustDomain};

use crate::entry::parse_spiffe_id;

/// The SPIFFE ID of the node of these path segments.
///
/// # Errors
/// If they can be none.
pub fn node_id(trust_domain: &TrustDomain, segments: &[&str]) -> Result<SpiffeId, &'static str> {
    parse_spiffe_id(&format!("spiffe://{trust_domain}{NODE_ID_PREFIX}{}", segments.join("/")))
}

/// The node that somebody means: a SPIFFE ID, or what stands in it after `/deputize/node/`.
///
/// # Errors
/// If it can be none.
pub fn named_node(trust_domain: &TrustDomain, text: &str) -> Result<SpiffeId, &'static str> {
    let id =
        if text.starts_with("spiffe:") { parse_spiffe_id(text) } else { node_id(trust_domain, &[text]) }?;
    if id.trust_domain() == trust_domain && is_node(&id) {
        Ok(id)
    } else {
        Err("a node is spiffe://TRUST-DOMAIN/deputize/node/NAME, or NAME alone")
    }
}

/// Whether an ID is that of a node.
pub(super) fn is_node(id: &SpiffeId) -> bool {
    id.path().strip_prefix(NODE_ID_PREFIX).is_some_and(|name| !name.is_empty())
}

/// Where nodes are in a trust domain.
pub const NODE_ID_PREFIX: &str = "/deputize/node/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_meant_by_name_or_by_id_and_nothing_else_is_one() {
        let domain = TrustDomain::new("example.org").unwrap();
        let edge = "spiffe://example.org/deputize/node/edge-1";
        assert_eq!(named_node(&domain, "edge-1").unwrap().to_string(), edge);
        assert_eq!(named_node(&domain, edge).unwrap().to_string(), edge);
        assert_eq!(named_node(&domain, "x509pop/ab").unwrap().path(), "/deputize/node/x509pop/ab");
        for text in [
            "",
            "a b",
            "..",
            "edge-1/",
            "spiffe://example.org/web",
            "spiffe://example.org/deputize/node",
            "spiffe://other.org/deputize/node/edge-1",
            "spiffe://example.org/deputize/nodes/edge-1",
        ] {
            assert!(named_node(&domain, text).is_err(), "{text}");
        }
    }
}
