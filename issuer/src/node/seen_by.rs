//! Through whom the broker knows of a process on another node.

use std::{fmt, sync::Arc};

use super::{AttestedNode, NodeRegistry};
use crate::error::IssueError;

/// The node whose agent saw a process: what it saw counts for as long as it is a node.
#[derive(Clone)]
pub(crate) struct SeenBy {
    registry: Arc<NodeRegistry>,
    node: AttestedNode,
}

impl SeenBy {
    pub(super) fn new(registry: &Arc<NodeRegistry>, node: &AttestedNode) -> Self {
        Self { registry: Arc::clone(registry), node: node.clone() }
    }

    /// Whether it is one at this moment, by the attestation by which it was one when it asked. It may have renewed its SVID.
    pub(crate) fn stands(&self) -> Result<(), IssueError> {
        self.registry.still_is(&self.node)
    }
}

impl PartialEq for SeenBy {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Eq for SeenBy {}

impl fmt::Debug for SeenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SeenBy").field(&self.node).finish()
    }
}
