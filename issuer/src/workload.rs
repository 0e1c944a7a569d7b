//! What asks at door 2: a process, as who looked at it saw it. Stage *authenticate* of that door.

use spiffe::SpiffeId;
use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::node::SeenBy;

/// One thing that is true of a process: `unix:uid:1000` is the kind `unix` and the value `uid:1000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: Box<str>,
    value: Box<str>,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotASelector(pub(crate) &'static str);

/// A process that was attested.
///
/// INVARIANT: whoever makes one has asked the kernel who is at the other end of the connection, and looked at that
/// process while it was certain that it is still there; or has it from the agent of its node, which says that it did,
/// and which proved to be that node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    node: SpiffeId,
    selectors: BTreeSet<Selector>,
    is_contained: bool,
    seen_by: Option<SeenBy>,
}

impl Workload {
    /// Says that a process of this node was attested, with what is true of it.
    pub fn attested(node: SpiffeId, selectors: BTreeSet<Selector>) -> Self {
        Self { node, selectors, is_contained: false, seen_by: None }
    }

    /// The same, of a process that runs in a container: in namespaces that are not the node's. Whoever made the
    /// container chose what its user is.
    #[must_use]
    pub fn contained(self) -> Self {
        Self { is_contained: true, ..self }
    }

    /// The same, of a process that the broker knows of through this node.
    #[must_use]
    pub(crate) fn seen_by(self, seen_by: SeenBy) -> Self {
        Self { seen_by: Some(seen_by), ..self }
    }

    /// Through which node the broker knows of it, where it did not look itself.
    pub(crate) fn witness(&self) -> Option<&SeenBy> {
        self.seen_by.as_ref()
    }

    /// The node that it runs on.
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    /// Whether it runs in a container, whatever its selectors say of that.
    pub fn is_contained(&self) -> bool {
        self.is_contained
    }

    /// What is true of it.
    pub fn selectors(&self) -> &BTreeSet<Selector> {
        &self.selectors
    }
}

impl Selector {
    /// A selector of its two halves.
    ///
    /// # Errors
    /// If the kind is not lower-case letters, digits and `_`, or the value is empty, too long or has control
    /// characters.
    pub fn new(kind: &str, value: &str) -> Result<Self, NotASelector> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if kind.is_empty() || kind.len() > MAX_KIND_BYTES || !kind.bytes().all(is_word) {
            return Err(NotASelector("a selector begins with its kind: unix:, systemd:, container: or k8s:"));
        }
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(NotASelector("a selector's value has 1 to 1024 bytes"));
        }
        if value.chars().any(char::is_control) {
            return Err(NotASelector("a selector's value has no control characters"));
        }
        Ok(Self { kind: kind.into(), value: value.into() })
    }

    /// Who vouches for it: `unix`, `systemd`, `container`, `k8s`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What is true: `uid:1000`.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Selector {
    type Err = NotASelector;
    fn from_str(text: &str) -> Result<Self, NotASelector> {
        let (kind, value) = text.split_once(':').ok_or(NotASelector("a selector is KIND:VALUE"))?;
        Self::new(kind, value)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

const MAX_KIND_BYTES: usize = 32;
const MAX_VALUE_BYTES: usize = 1024;
