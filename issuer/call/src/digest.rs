//! The digests that pin what runs: `call_digest`, `tool_digest`, `prompt_digest`, `resource_digest`, `manifest_digest`.
//! Each is base64url(SHA-256(prefix ‖ 0x00 ‖ JCS(object))).

use crate::json::{self, JsonError, MAX_DEPTH, Object};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::Value;

/// The members of a tool's definition that its digest covers: what a model and a caller go by.
pub const PINNED_TOOL_MEMBERS: [&str; 6] =
    ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

/// The members of a prompt's definition that its digest covers.
pub const PINNED_PROMPT_MEMBERS: [&str; 4] = ["name", "title", "description", "arguments"];

/// The members of a resource's entry that its digest covers: what it names, and what is shown of it.
pub const PINNED_RESOURCE_MEMBERS: [&str; 4] = ["uri", "name", "title", "description"];

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

/// The digest of one call, prefix `mcp-call/1`, over `{ "a": arguments, "m": method, "n": name }` and, where
/// present, `"i": inputResponses`, `"s": requestState`. Each part may be [`MAX_DEPTH`] levels deep.
pub fn call_digest(input: &CallInput<'_>) -> Result<Digest, JsonError> {
    json::check_depth(input.arguments)?;
    for steering in [input.input_responses, input.request_state].into_iter().flatten() {
        json::check_value(steering, MAX_DEPTH)?;
    }
    digest_canonical(
        "mcp-call/1",
        &CallForm {
            a: input.arguments,
            i: input.input_responses,
            m: input.method,
            n: input.name,
            s: input.request_state,
        },
    )
}

/// What is digested of a server's manifest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manifest<'a> {
    /// Id of the server.
    pub id: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Digests of its tools, in any order.
    pub tools: &'a [Digest],
    /// Digests of its prompts, in any order.
    pub prompts: &'a [Digest],
    /// Digests of its resources' entries, in any order.
    pub resources: &'a [Digest],
}

/// The digest of a tool's definition, prefix `mcp-tool/1`, over exactly the members present among `name`,
/// `title`, `description`, `inputSchema`, `outputSchema`, `annotations`. Absent is not `null`.
pub fn tool_digest(definition: &Object) -> Result<Digest, JsonError> {
    digest_members("mcp-tool/1", &PINNED_TOOL_MEMBERS, definition)
}

/// The digest of a prompt's definition, prefix `mcp-prompt/1`, over exactly the members present among `name`,
/// `title`, `description`, `arguments`.
pub fn prompt_digest(definition: &Object) -> Result<Digest, JsonError> {
    digest_members("mcp-prompt/1", &PINNED_PROMPT_MEMBERS, definition)
}

/// The digest of a resource's entry, prefix `mcp-resource/1`, over exactly the members present among `uri`, `name`,
/// `title`, `description`.
pub fn resource_digest(entry: &Object) -> Result<Digest, JsonError> {
    digest_members("mcp-resource/1", &PINNED_RESOURCE_MEMBERS, entry)
}

/// The digest of a manifest, prefix `mcp-manifest/1`, over `{ "id", "version", "tools": [digests, sorted bytewise] }`
/// and, only where there are any, `"prompts"` and `"resources"` likewise. What is sorted is the digests' base64url
/// text, as it stands in the array.
pub fn manifest_digest(manifest: &Manifest<'_>) -> Result<Digest, JsonError> {
    let sorted = |digests: &[Digest]| {
        let mut texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
        texts.sort_unstable();
        texts
    };
    let form = ManifestForm {
        id: manifest.id,
        prompts: sorted(manifest.prompts),
        resources: sorted(manifest.resources),
        tools: sorted(manifest.tools),
        version: manifest.version,
    };
    digest_canonical("mcp-manifest/1", &form)
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
    sha256_of(&[bytes])
}

/// SHA-256 of all parts, one after the other.
pub(crate) fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut output = [0; 32];
    output.copy_from_slice(context.finish().as_ref());
    output
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
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
        // This engine refuses padding and non-zero trailing bits: one digest has one text.
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| JsonError::Syntax("not a base64url SHA-256 digest".to_owned()))
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

#[derive(Serialize)]
struct CallForm<'a> {
    a: &'a Object,
    #[serde(skip_serializing_if = "Option::is_none")]
    i: Option<&'a Value>,
    m: &'a str,
    n: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'a Value>,
}

#[derive(Serialize)]
struct ManifestForm<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    tools: Vec<String>,
    version: &'a str,
}

fn digest_members(prefix: &str, members: &[&str], of: &Object) -> Result<Digest, JsonError> {
    let mut form = std::collections::BTreeMap::new();
    for name in members {
        if let Some(member) = of.get(*name) {
            json::check_value(member, MAX_DEPTH - 1)?;
            form.insert(*name, member);
        }
    }
    digest_canonical(prefix, &form)
}

pub(crate) fn digest_canonical<T: Serialize>(prefix: &str, form: &T) -> Result<Digest, JsonError> {
    let canonical =
        serde_json_canonicalizer::to_vec(form).map_err(|error| JsonError::Syntax(error.to_string()))?;
    Ok(Digest(sha256_of(&[prefix.as_bytes(), &[0], &canonical])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_fips_180() {
        let abc = Digest(sha256(b"abc"));
        assert_eq!(abc.to_string(), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        assert_eq!(sha256_of(&[b"a", b"", b"bc"]), *abc.as_bytes());
    }

    #[test]
    fn one_digest_has_one_text() {
        let text = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        for wrong in [
            "",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &format!(" {text}"),
            &format!("{}1", &text[..42]),
            &text.replace('-', "+"),
            &text.replace('_', "/"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
            assert!(serde_json::from_str::<Digest>(&format!("\"{wrong}\"")).is_err(), "{wrong}");
        }
    }
}
