//! The digests that pin what runs: `call_digest`, `tool_digest`, `manifest_digest`.
//! Each is base64url(SHA-256(prefix ‖ 0x00 ‖ JCS(object))).

use crate::json::{JsonError, Object};
use serde_json::Value;

/// A SHA-256 digest, shown and serialized as unpadded base64url (43 characters).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// What is digested of one call; `arguments` is empty when the call has none.
#[derive(Debug, Clone, Copy)]
pub struct CallInput<'a> {
    /// JSON-RPC method, for example `tools/call`.
    pub method: &'a str,
    /// Tool or prompt name; for `resources/read` the URI verbatim.
    pub name: &'a str,
    /// The call's arguments.
    pub arguments: &'a Object,
    /// `inputResponses` of a multi-round-trip retry.
    pub input_responses: Option<&'a Value>,
    /// `requestState` of a multi-round-trip retry.
    pub request_state: Option<&'a Value>,
}

/// The digest of one call, prefix `mcp-call/1`.
pub fn call_digest(input: &CallInput<'_>) -> Result<Digest, JsonError> {
    let _ = input;
    todo!()
}

/// The digest of a tool's definition, prefix `mcp-tool/1`, over exactly the members present among `name`,
/// `title`, `description`, `inputSchema`, `outputSchema`, `annotations`.
pub fn tool_digest(definition: &Object) -> Result<Digest, JsonError> {
    let _ = definition;
    todo!()
}

/// The digest of a manifest, prefix `mcp-manifest/1`, over `{ "id", "version", "tools": [digests, sorted bytewise] }`.
pub fn manifest_digest(id: &str, version: &str, tools: &[Digest]) -> Result<Digest, JsonError> {
    let _ = (id, version, tools);
    todo!()
}

impl Digest {
    /// Wraps raw SHA-256 output.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let _ = bytes;
    todo!()
}

// Display, Debug (both the base64url text), FromStr (strict: 43 characters, zero trailing bits), Serialize, Deserialize.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = f;
        todo!()
    }
}
impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
impl std::str::FromStr for Digest {
    type Err = JsonError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let _ = text;
        todo!()
    }
}
impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
