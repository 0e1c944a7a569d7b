//! What a token above L0 lets do: one of three methods, on one thing that the server has.

use serde::{Deserialize, Serialize};

/// One of the methods that act. Everything else only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// `tools/call`: a tool, by its name.
    #[serde(rename = "tools/call")]
    CallTool,
    /// `prompts/get`: a prompt, by its name.
    #[serde(rename = "prompts/get")]
    GetPrompt,
    /// `resources/read`: a resource, by its URI.
    #[serde(rename = "resources/read")]
    ReadResource,
}

impl Action {
    /// All of them, in the order in which what they act on is counted.
    pub const ALL: [Self; 3] = [Self::CallTool, Self::GetPrompt, Self::ReadResource];

    /// The JSON-RPC method, which also stands in `actions`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallTool => "tools/call",
            Self::GetPrompt => "prompts/get",
            Self::ReadResource => "resources/read",
        }
    }

    /// The action with this method.
    pub fn from_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == method)
    }

    /// What it acts on, in a word.
    pub fn noun(self) -> &'static str {
        match self {
            Self::CallTool => "tool",
            Self::GetPrompt => "prompt",
            Self::ReadResource => "resource",
        }
    }

    /// The scope of a token for it. No name of a tool has a colon, so that a verifier which goes by the scope alone
    /// takes no prompt for a tool.
    pub fn scope(self, name: &str) -> String {
        match self {
            Self::CallTool => name.to_owned(),
            Self::GetPrompt => format!("mcp:prompt:{name}"),
            Self::ReadResource => format!("mcp:resource:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_spelling() {
        for action in Action::ALL {
            assert_eq!(Action::from_method(action.as_str()), Some(action));
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        }
        for other in ["", "tools/Call", "tools/call ", "tools/list", "resources/subscribe"] {
            assert_eq!(Action::from_method(other), None, "{other}");
        }
        assert_eq!(Action::GetPrompt.scope("greet"), "mcp:prompt:greet");
    }
}
