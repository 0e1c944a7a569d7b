//! The `server.json` of an MCP registry: what its publisher says of a server. Two spellings are about: the members of
//! today (`registryType`, `fileSha256`) and those of the first schemas (`registry_name`, `version_detail`).

use deputize_call::json::{self, Object};
use deputize_issuer::registry::{Package, publisher::SIGNATURE_MEMBER};
use serde_json::Value;
use std::path::Path;
use url::Url;

use crate::commands::{exit::CommandError, input};

/// What is of use in a record (S-14, S-58).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ServerJson {
    /// Its name in reverse-DNS form.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What it is for, in its publisher's words.
    pub description: Option<String>,
    /// Where its source is.
    pub repository: Option<String>,
    /// Its packages.
    pub packages: Vec<Package>,
    /// A publisher's signature over the manifest.
    pub signature: Option<String>,
    endpoint: Option<Url>,
}

impl ServerJson {
    /// Reads one.
    ///
    /// # Errors
    /// If it cannot be read, or is no JSON object.
    pub fn read(file: &Path) -> Result<Self, CommandError> {
        let text = input::file_text(file)?;
        let document = json::parse_object(text.as_bytes()).map_err(|error| {
            CommandError::failure(format!("{}: {error}", file.display()), "give a server.json")
        })?;
        // An answer of a registry's API has it one level deeper.
        let document = match document.get("server") {
            Some(Value::Object(server)) => server.clone(),
            _ => document,
        };
        Ok(Self::of(&document))
    }

    /// Its remote endpoint for Streamable HTTP, where it has one that needs no filling in.
    pub fn endpoint(&self) -> Option<Url> {
        self.endpoint.clone()
    }

    fn of(document: &Object) -> Self {
        let detail = document.get("version_detail");
        let repository = document.get("repository");
        let list = |name: &str| document.get(name).and_then(Value::as_array).into_iter().flatten();
        Self {
            name: text(document.get("name")),
            version: text(document.get("version").or_else(|| detail?.get("version"))),
            description: text(document.get("description")),
            repository: text(repository.and_then(|repository| repository.get("url"))),
            packages: list("packages").take(MAX_PACKAGES).filter_map(package).collect(),
            signature: text(document.get("_meta").and_then(|meta| meta.get(SIGNATURE_MEMBER))),
            endpoint: list("remotes").find_map(remote),
        }
    }
}

fn package(package: &Value) -> Option<Package> {
    let either = |one: &str, other: &str| text(package.get(one).or_else(|| package.get(other)));
    Some(Package {
        registry: either("registryType", "registry_name").or_else(|| either("registry_type", "registry"))?,
        identifier: either("identifier", "name")?,
        version: either("version", "version"),
        sha256: either("fileSha256", "file_sha256"),
    })
}

fn remote(remote: &Value) -> Option<Url> {
    let kind = remote.get("type").or_else(|| remote.get("transport_type")).and_then(Value::as_str)?;
    if !matches!(kind, "streamable-http" | "streamable") {
        return None;
    }
    let url = remote.get("url").and_then(Value::as_str).filter(|url| !url.contains('{'))?;
    Url::parse(url).ok()
}

fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    let short: String = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT_CHARS).collect();
    (!short.is_empty()).then_some(short)
}

const MAX_PACKAGES: usize = 50;
const MAX_TEXT_CHARS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> ServerJson {
        ServerJson::of(value.as_object().unwrap())
    }

    #[test]
    fn both_spellings_are_read() {
        let digest = "fe333e598595000ae021bd27117db32ec69af6987f507ba7a63c90638ff633ce";
        let now = of(json!({
            "$schema": "https://example.org/server.schema.json", "name": "org.example/crm", "version": "1.2.0",
            "description": "Customers", "repository": { "url": "https://git.example/crm", "source": "git" },
            "packages": [{ "registryType": "mcpb", "identifier": "https://dl.example/crm.mcpb", "version": "1.2.0",
                "fileSha256": digest, "transport": { "type": "stdio" } }],
            "remotes": [{ "type": "sse", "url": "https://crm.example/sse" },
                { "type": "streamable-http", "url": "https://{tenant}.example/mcp" },
                { "type": "streamable-http", "url": "https://crm.example/mcp" }],
        }));
        assert_eq!(now.name.as_deref(), Some("org.example/crm"));
        assert_eq!(now.version.as_deref(), Some("1.2.0"));
        assert_eq!(now.repository.as_deref(), Some("https://git.example/crm"));
        assert_eq!(now.packages[0].sha256.as_deref(), Some(digest));
        assert_eq!(now.endpoint().unwrap().as_str(), "https://crm.example/mcp");
        let then = of(json!({ "name": "org.example/crm", "version_detail": { "version": "1.0.2" },
            "packages": [{ "registry_name": "npm", "name": "@example/crm", "version": "1.0.2" }],
            "remotes": [{ "transport_type": "streamable", "url": "https://crm.example/mcp" }] }));
        assert_eq!(then.version.as_deref(), Some("1.0.2"));
        assert_eq!(then.packages[0].identifier, "@example/crm");
        assert!(then.endpoint().is_some());
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let odd = of(
            json!({ "name": 7, "version": "", "packages": [{}, "x"], "remotes": "none", "repository": [] }),
        );
        assert_eq!(odd, ServerJson::default());
        assert_eq!(of(json!({ "name": "a\u{1b}[2Jb" })).name.as_deref(), Some("a[2Jb"));
    }
}
