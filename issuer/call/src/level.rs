//! Binding levels: how narrowly a tool-call token is tied to its call.

use serde::{Deserialize, Serialize};

/// What a token is good for. Ordered: a higher level is a tighter binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// One server: discovery and listing.
    L0,
    /// One tool of one server.
    L1,
    /// One tool with every argument constrained.
    L2,
    /// One call: this tool, these exact arguments, once.
    L3,
}

impl Level {
    /// `"L0"` … `"L3"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
