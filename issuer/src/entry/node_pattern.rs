//! The nodes that an entry is for: one of them, or all that attested themselves in one way.

use spiffe::{SpiffeId, TrustDomain};
use std::fmt;

use super::parse_spiffe_id;
use crate::node::{NODE_ID_PREFIX, node_id};

/// One node, or all that attested themselves in one way, whatever they are called: `…/kubernetes/CLUSTER/*` and
/// `…/x509pop/*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodePattern {
    /// This one.
    One(SpiffeId),
    /// Those of one way of attesting.
    ///
    /// INVARIANT: it is what [`way_of`] says of a node's ID.
    Attested(SpiffeId),
}

impl NodePattern {
    /// Reads one, of this trust domain.
    pub(super) fn parse(text: &str, ours: &TrustDomain) -> Option<Self> {
        let is_ours = |id: &SpiffeId| id.is_member_of(ours);
        let Some(way) = text.strip_suffix(ALL_BELOW) else {
            return parse_spiffe_id(text).ok().filter(is_ours).map(Self::One);
        };
        // The library's grammar of paths: neither empty segments nor `..`, and no `*` but the one that is gone.
        let way = parse_spiffe_id(way).ok().filter(is_ours)?;
        is_way(&way).then_some(Self::Attested(way))
    }

    /// The two that a node is in: itself, and all that attested themselves as it did, if it did in such a way.
    pub(super) fn around(node: &SpiffeId) -> impl Iterator<Item = Self> {
        [Some(Self::One(node.clone())), way_of(node).map(Self::Attested)].into_iter().flatten()
    }

    /// Whether a node is, or is one of them.
    pub fn has(&self, node: &SpiffeId) -> bool {
        match self {
            Self::One(one) => one == node,
            Self::Attested(way) => way_of(node).as_ref() == Some(way),
        }
    }
}

impl fmt::Display for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Attested(way) => write!(f, "{way}{ALL_BELOW}"),
        }
    }
}

/// Whether nodes that attest themselves in one way stand below this ID, and no others.
fn is_way(id: &SpiffeId) -> bool {
    matches!(segments(id).as_deref(), Some([X509POP] | [KUBERNETES, _]))
}

/// The way in which a node of this ID attested itself, where it is such an ID as the way gives: of the same number of
/// segments, so that nothing deeper is taken for a node of it.
fn way_of(node: &SpiffeId) -> Option<SpiffeId> {
    match segments(node)?.as_slice() {
        [X509POP, _fingerprint] => node_id(node.trust_domain(), &[X509POP]).ok(),
        [KUBERNETES, cluster, _name, _uid] => node_id(node.trust_domain(), &[KUBERNETES, cluster]).ok(),
        _ => None,
    }
}

/// What stands in a node's ID behind `/deputize/node/`.
fn segments(id: &SpiffeId) -> Option<Vec<&str>> {
    id.path().strip_prefix(NODE_ID_PREFIX).map(|name| name.split('/').collect())
}

const ALL_BELOW: &str = "/*";
const X509POP: &str = "x509pop";
const KUBERNETES: &str = "kubernetes";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<NodePattern> {
        NodePattern::parse(text, &TrustDomain::new("example.org").unwrap())
    }

    fn node(name: &str) -> SpiffeId {
        format!("spiffe://example.org/deputize/node/{name}").parse().unwrap()
    }

    #[test]
    fn a_pattern_has_the_nodes_of_one_way_of_attesting_and_no_others() {
        let text = "spiffe://example.org/deputize/node/kubernetes/prod/*";
        let prod = parsed(text).unwrap();
        assert_eq!(prod.to_string(), text);
        assert!(prod.has(&node("kubernetes/prod/worker-1/0b1c")));
        for other in [
            "kubernetes/prod2/worker-1/0b1c",
            "kubernetes/pro/worker-1/0b1c",
            "kubernetes/prod",
            "kubernetes/prod/worker-1",
            "kubernetes/prod/worker-1/0b1c/deeper",
            "x509pop/prod",
            "prod",
            "local",
        ] {
            assert!(!prod.has(&node(other)), "{other}");
        }
        let foreign = "spiffe://elsewhere.example/deputize/node/kubernetes/prod/worker-1/0b1c";
        assert!(!prod.has(&foreign.parse().unwrap()));
        let beside = "spiffe://example.org/deputize/nodes/kubernetes/prod/worker-1/0b1c";
        assert!(!prod.has(&beside.parse().unwrap()));
        let machines = parsed("spiffe://example.org/deputize/node/x509pop/*").unwrap();
        assert!(machines.has(&node("x509pop/ab")) && !machines.has(&node("x509pop/ab/cd")));
        assert!(!machines.has(&node("x509pop2/ab")) && !machines.has(&node("x509pop")));
        let one = parsed("spiffe://example.org/deputize/node/kubernetes/prod/worker-1/0b1c").unwrap();
        assert!(one.has(&node("kubernetes/prod/worker-1/0b1c")));
        assert!(!one.has(&node("kubernetes/prod/worker-1/0b1d")));
    }

    #[test]
    fn what_a_node_is_in_is_what_has_it() {
        for name in ["kubernetes/prod/worker-1/0b1c", "x509pop/ab", "edge-1", "kubernetes/prod/worker-1"] {
            let around: Vec<NodePattern> = NodePattern::around(&node(name)).collect();
            assert!(around.iter().all(|pattern| pattern.has(&node(name))), "{name}");
            assert!(around.iter().all(|pattern| parsed(&pattern.to_string()).as_ref() == Some(pattern)));
        }
        assert_eq!(NodePattern::around(&node("x509pop/ab")).count(), 2);
        assert_eq!(NodePattern::around(&node("edge-1")).count(), 1);
    }

    #[test]
    fn a_star_stands_at_the_end_alone_and_behind_a_way_of_attesting() {
        for text in [
            "*",
            "/*",
            "spiffe://*",
            "spiffe://example.org/*",
            "spiffe://example.org/deputize/*",
            "spiffe://example.org/deputize/node/*",
            "spiffe://example.org/deputize/node/edge-1/*",
            "spiffe://example.org/deputize/node/edge-*",
            "spiffe://example.org/deputize/node/kubernetes/*",
            "spiffe://example.org/deputize/node/kubernetes/pro*",
            "spiffe://example.org/deputize/node/kubernetes/*/*",
            "spiffe://example.org/deputize/node/kubernetes/*/worker-1/0b1c",
            "spiffe://example.org/deputize/node/kubernetes/prod/**",
            "spiffe://example.org/deputize/node/kubernetes/prod/*/",
            "spiffe://example.org/deputize/node/kubernetes/prod/*/0b1c",
            "spiffe://example.org/deputize/node/kubernetes/prod/worker-1/*",
            "spiffe://example.org/deputize/node/kubernetes/prod//*",
            "spiffe://example.org/deputize/node/kubernetes//*",
            "spiffe://example.org/deputize/node/kubernetes/../*",
            "spiffe://example.org/deputize/node/kubernetes/prod/../*",
            "spiffe://example.org/deputize/node/../node/kubernetes/prod/*",
            "spiffe://example.org/deputize/nodes/kubernetes/prod/*",
            "spiffe://elsewhere.example/deputize/node/kubernetes/prod/*",
            "spiffe://*/deputize/node/kubernetes/prod/*",
            "SPIFFE://example.org/deputize/node/kubernetes/prod/*",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
